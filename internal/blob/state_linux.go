package blob

import (
	"os"
	"syscall"
)

func stateAs(info os.FileInfo) state {
	s := state{size: info.Size(), mod: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.file, s.changed = st.Ino, st.Ctim.Nano()
	}
	return s
}
