package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Each file that a program writes is held by the kernel to what it may keep in all (RLIMIT_FSIZE). All of them together are measured: file systems with quotas
// of users are rare on devices, and a file system of its own for each program would be one more to repair after a power cut.

// ErrFull says that a program keeps more than it may.
var ErrFull = errors.New("it keeps more than it may")

// perFile is what an empty file costs a disk, at most: so their number is bounded too.
const perFile = 4 << 10

// Full says whether the program keeps more in its directory than it may: then ErrFull, with the numbers.
func (p *Process) Full() error {
	most := p.component.DiskLimit()
	used, err := kept(p.own, most)
	if err == nil && used > most {
		err = fmt.Errorf("%w: %d bytes, of %d: let its release grant it more, or have it keep less", ErrFull, used, most)
	}
	return err
}

// kept is how much of the disk a folder takes; more than most is not counted to its end. Files that go while it looks count no more.
func kept(dir string, most uint64) (sum uint64, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && path == dir {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		size := uint64(perFile)
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			size = max(size, uint64(st.Blocks)*512) // of a file with holes: what it takes
		}
		if sum += size; sum > most { // so nobody keeps it looking by moving what it has seen
			return filepath.SkipAll
		}
		return nil
	})
	return sum, err
}

// reserve is what is put by on the agent's disk, bytes: its own writes are small, and each takes the place of another.
const reserve = 1 << 20

// Reserve puts room by for the agent's own writes, in a file of its directory, and gives it back when the disk has hardly any left.
func Reserve(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	path, free := filepath.Join(dir, "reserve"), st.Bavail*uint64(st.Bsize)
	if free < reserve/2 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if info, err := os.Lstat(path); free < 4*reserve || err == nil && info.Size() == reserve {
		return nil // it is there, or there is no room for it
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, reserve), f.Close())
}
