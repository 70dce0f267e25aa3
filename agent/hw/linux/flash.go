package linux

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/hw"
)

// Shape of a flash over a block device or a file, bytes: neither has sectors to erase, so that these are ours to choose.
const (
	defaultErase = 64 << 10
	leastPage    = 512
)

// medium is what a flash lies on.
type medium interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Sync() error // what was written is on it
	Erase(off, size int64) error
	Close() error
}

// Flash is a NOR part over a medium: what it does for the layers above is what a part does, whatever is beneath.
type Flash struct {
	geo hw.Geometry
	m   medium
}

// OpenFlash opens a block device, an MTD character device, or a file that is there. erase is the sector's size on the first and last; 0: 64 KiB. What
// is left behind the last whole sector is not used. No two programs have one flash, nor does a file system that is mounted.
func OpenFlash(path string, erase int64) (*Flash, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("flash: %w", err)
	}
	switch mode := info.Mode(); {
	case mode&fs.ModeCharDevice != 0:
		return openMTD(path, erase)
	case mode&fs.ModeDevice == 0 && !mode.IsRegular():
		return nil, fmt.Errorf("flash %s: want a block device, an MTD, or a file", path)
	}
	flags := os.O_RDWR
	if info.Mode()&fs.ModeDevice != 0 {
		flags |= unix.O_EXCL // busy while it is mounted
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("flash: %w", err)
	}
	fail := func(err error) (*Flash, error) {
		return nil, errors.Join(fmt.Errorf("flash %s: %w", path, err), f.Close())
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fail(fmt.Errorf("another program has it: %w", err))
	}
	size, page := info.Size(), int64(leastPage)
	if info.Mode()&fs.ModeDevice != 0 {
		if size, page, err = blockShape(f); err != nil {
			return fail(err)
		}
	}
	if erase == 0 {
		erase = max(defaultErase, page)
	}
	if erase < 0 || erase%page != 0 {
		return fail(fmt.Errorf("sectors of %d bytes: want a multiple of %d", erase, page))
	}
	geo := hw.Geometry{Size: size / erase * erase, Sector: erase, Page: page}
	if err := geo.Check(); err != nil {
		return fail(err)
	}
	return &Flash{geo: geo, m: &disk{f}}, nil
}

// blockShape asks a block device for its size and for what it writes whole.
func blockShape(f *os.File) (size, page int64, err error) {
	var bytes uint64
	if _, err := ioctl(f, unix.BLKGETSIZE64, &bytes); err != nil {
		return 0, 0, fmt.Errorf("its size: %w", err)
	}
	physical, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKPBSZGET)
	if err != nil {
		return 0, 0, fmt.Errorf("its sector: %w", err)
	}
	return int64(bytes), max(leastPage, int64(physical)), nil
}

// ioctl hands arg to the driver, and gives what it answers.
func ioctl[T any](f *os.File, request uintptr, arg *T) (int, error) {
	said, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(arg))) //nolint:gosec // G103: it points to what the request is defined over
	if errno != 0 {
		return 0, errno
	}
	return int(said), nil
}

// Close gives the medium back.
func (f *Flash) Close() error { return f.m.Close() }

// Geometry implements hw.Flash.
func (f *Flash) Geometry() hw.Geometry { return f.geo }

// ReadAt implements hw.Flash.
func (f *Flash) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > f.geo.Size {
		return 0, fmt.Errorf("read %d bytes at %d: %w", len(p), off, hw.ErrRange)
	}
	return f.m.ReadAt(p, off)
}

// Program implements hw.Flash. What lies in one sector is on the medium before the next one is written, so that what a cut leaves undone is in
// one sector, and behind it nothing.
func (f *Flash) Program(off int64, data []byte) error {
	if off < 0 || off%f.geo.Page != 0 || int64(len(data))%f.geo.Page != 0 || off+int64(len(data)) > f.geo.Size {
		return fmt.Errorf("program %d bytes at %d: %w", len(data), off, hw.ErrRange)
	}
	for len(data) > 0 {
		n := min(f.geo.Sector-off%f.geo.Sector, int64(len(data)))
		if blank, at, err := f.blank(off, n); err != nil {
			return err
		} else if !blank {
			return fmt.Errorf("page at %d: %w", at/f.geo.Page*f.geo.Page, hw.ErrNotErased)
		}
		if _, err := f.m.WriteAt(data[:n], off); err != nil {
			return err
		}
		if err := f.m.Sync(); err != nil {
			return err
		}
		data, off = data[n:], off+n
	}
	return nil
}

// Erase implements hw.Flash. A sector that is blank is left alone: writing it again would only wear it.
func (f *Flash) Erase(sector int64) error {
	if sector < 0 || sector >= f.geo.Size/f.geo.Sector {
		return fmt.Errorf("erase sector %d: %w", sector, hw.ErrRange)
	}
	off := sector * f.geo.Sector
	if blank, _, err := f.blank(off, f.geo.Sector); err != nil || blank {
		return err
	}
	return f.m.Erase(off, f.geo.Sector)
}

// window is how much is compared at once.
const window = 4 << 10

var erased = bytes.Repeat([]byte{0xff}, window)

// blank says whether n bytes at off are erased, or which is the first that is not.
func (f *Flash) blank(off, n int64) (bool, int64, error) {
	var buf [window]byte
	for end := off + n; off < end; off += window {
		p := buf[:min(window, end-off)]
		if _, err := f.m.ReadAt(p, off); err != nil {
			return false, 0, err
		}
		if !bytes.Equal(p, erased[:len(p)]) {
			for i, b := range p {
				if b != 0xff {
					return false, off + int64(i), nil
				}
			}
		}
	}
	return true, 0, nil
}

// disk is a block device or a file.
type disk struct{ *os.File }

// Sync puts on the medium what was written.
func (d *disk) Sync() error { return unix.Fdatasync(int(d.Fd())) }

// Erase writes what an erased part reads as.
func (d *disk) Erase(off, size int64) error {
	for end := off + size; off < end; off += window {
		if _, err := d.WriteAt(erased[:min(window, end-off)], off); err != nil {
			return err
		}
	}
	return d.Sync()
}
