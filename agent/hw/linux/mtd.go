package linux

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/hw"
)

// mtdPage is the least that is programmed at once: parts that take single bytes would tear in the middle of a record's head.
const mtdPage = 256

// openMTD opens an MTD character device. One with a bad block is refused: to skip it would move whatever lies behind it when the next block goes bad. A
// UBI volume with gluebi over it is an MTD without bad blocks.
func openMTD(path string, erase int64) (*Flash, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return nil, fmt.Errorf("flash: %w", err)
	}
	fail := func(err error) (*Flash, error) {
		return nil, errors.Join(fmt.Errorf("flash %s: %w", path, err), f.Close())
	}
	var info unix.MtdInfo
	if _, err := ioctl(f, unix.MEMGETINFO, &info); err != nil {
		return fail(fmt.Errorf("it is no MTD: %w", err))
	}
	geo, err := mtdShape(info, erase)
	if err != nil {
		return fail(err)
	}
	for off := int64(0); off < geo.Size; off += geo.Sector {
		bad, err := ioctl(f, unix.MEMGETBADBLOCK, &off)
		if errors.Is(err, unix.EOPNOTSUPP) { // a part that has none
			break
		}
		if err != nil {
			return fail(fmt.Errorf("block at %d: %w", off, err))
		}
		if bad != 0 {
			return fail(fmt.Errorf("the block at %d is bad: make a UBI volume over it, and name the MTD that gluebi makes of it", off))
		}
	}
	return &Flash{geo: geo, m: &mtd{f}}, nil
}

// mtdShape is the shape that a part says it has.
func mtdShape(i unix.MtdInfo, erase int64) (hw.Geometry, error) {
	if i.Flags&unix.MTD_WRITEABLE == 0 {
		return hw.Geometry{}, errors.New("it is write-protected")
	}
	if i.Erasesize == 0 || i.Writesize == 0 {
		return hw.Geometry{}, fmt.Errorf("it says that it erases %d bytes and writes %d: want a part that is erased", i.Erasesize, i.Writesize)
	}
	if erase != 0 && erase != int64(i.Erasesize) {
		return hw.Geometry{}, fmt.Errorf("it erases %d bytes at once: leave the %d away", i.Erasesize, erase)
	}
	page := max(int64(i.Writesize), mtdPage)
	geo := hw.Geometry{Size: int64(i.Size), Sector: int64(i.Erasesize), Page: page}
	return geo, geo.Check()
}

// mtd is a part behind the kernel's MTD layer; it has no cache.
type mtd struct{ *os.File }

// Sync has nothing to do: a write that returned is in the part.
func (m *mtd) Sync() error { return nil }

// Erase has the part erase.
func (m *mtd) Erase(off, size int64) error {
	if off+size > 1<<32 {
		return fmt.Errorf("erase %d bytes at %d: %w", size, off, hw.ErrRange)
	}
	e := unix.EraseInfo{Start: uint32(off), Length: uint32(size)}
	if _, err := ioctl(m.File, unix.MEMERASE, &e); err != nil {
		return fmt.Errorf("erase %d bytes at %d: %w", size, off, err)
	}
	return nil
}
