package files

import (
	"os"
	"syscall"
)

func seenAs(info os.FileInfo) seen {
	s := seen{size: info.Size(), mod: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.file, s.changed = st.Ino, st.Ctim.Nano()
	}
	return s
}
