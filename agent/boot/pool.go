package boot

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// extent is a run of whole sectors of the pool.
type extent struct {
	First int64 `cbor:"1,keyasint"`
	Count int64 `cbor:"2,keyasint"`
}

// area is the place of one component in the pool: whole sectors, wherever there was room. Offsets in it begin at 0.
type area struct {
	pool hw.Region
	ext  []extent
}

func sectorsFor(size uint64, sector int64) int64 { return int64(wire.SectorsFor(size, uint64(sector))) }

// size is the area's length in bytes, whole sectors.
func (a area) size() int64 { return a.sectors() * a.pool.Sector() }

func (a area) sectors() (n int64) {
	for _, e := range a.ext {
		n += e.Count
	}
	return n
}

// at gives where offset off is in the pool, and how many bytes follow there in one piece.
func (a area) at(off int64) (pos, run int64, err error) {
	sector := a.pool.Sector()
	rest := off
	for _, e := range a.ext {
		if size := e.Count * sector; rest < size {
			return e.First*sector + rest, size - rest, nil
		} else {
			rest -= size
		}
	}
	return 0, 0, fmt.Errorf("offset %d of %d sectors: %w", off, a.sectors(), hw.ErrRange)
}

// ReadAt implements io.ReaderAt.
func (a area) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, hw.ErrRange
	}
	for n < len(p) {
		pos, run, err := a.at(off + int64(n))
		if errors.Is(err, hw.ErrRange) {
			return n, io.EOF
		}
		k, err := a.pool.ReadAt(p[n:n+int(min(run, int64(len(p)-n)))], pos)
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// program writes whole pages at off.
func (a area) program(off int64, data []byte) error {
	for len(data) > 0 {
		pos, run, err := a.at(off)
		if err != nil {
			return err
		}
		n := min(run, int64(len(data)))
		if err := a.pool.Program(pos, data[:n]); err != nil {
			return err
		}
		off, data = off+n, data[n:]
	}
	return nil
}

// erase clears the area's sectors that hold offsets from off to end, and reads back.
func (a area) erase(off, end int64) error {
	sector := a.pool.Sector()
	for off = off / sector * sector; off < end; {
		pos, run, err := a.at(off)
		if err != nil {
			return err
		}
		run = min(run, (end-off+sector-1)/sector*sector)
		for n := range run / sector {
			if err := a.pool.Erase(pos/sector + n); err != nil {
				return err
			}
		}
		if err := a.pool.Blank(pos, run); err != nil {
			return err
		}
		off += run
	}
	return nil
}

// sectorSet is which sectors of the pool are taken.
type sectorSet []bool

func (s sectorSet) add(areas ...area) {
	for _, a := range areas {
		for _, e := range a.ext {
			for n := range e.Count {
				s[e.First+n] = true
			}
		}
	}
}

// holds reports whether any sector of the area is in the set.
func (s sectorSet) holds(a area) bool {
	for _, e := range a.ext {
		if slices.Contains(s[e.First:e.First+e.Count], true) {
			return true
		}
	}
	return false
}

// free lists the runs of sectors that are not taken.
func (s sectorSet) free() (runs []extent) {
	for i := int64(0); i < int64(len(s)); i++ {
		if s[i] {
			continue
		}
		if n := len(runs); n > 0 && runs[n-1].First+runs[n-1].Count == i {
			runs[n-1].Count++
		} else {
			runs = append(runs, extent{First: i, Count: 1})
		}
	}
	return runs
}

// take gives n free sectors and marks them: the smallest run that holds them all, or else the largest runs there are, so that there are few
// pieces.
func (s sectorSet) take(n int64) ([]extent, error) {
	var out []extent
	for n > 0 {
		runs := s.free()
		if len(runs) == 0 {
			return nil, wire.ErrNoRoom
		}
		slices.SortStableFunc(runs, func(x, y extent) int { return cmp.Compare(x.Count, y.Count) })
		i, _ := slices.BinarySearchFunc(runs, n, func(e extent, n int64) int { return cmp.Compare(e.Count, n) })
		e := runs[min(i, len(runs)-1)]
		e.Count = min(e.Count, n)
		s.add(area{ext: []extent{e}})
		out = append(out, e)
		n -= e.Count
	}
	slices.SortFunc(out, func(x, y extent) int { return cmp.Compare(x.First, y.First) })
	return out, nil
}

// Room is what the pool has for components.
func (f *Flash) Room() wire.Room {
	return wire.Room{Sectors: uint64(f.pool.Size() / f.pool.Sector()), Sector: uint64(f.pool.Sector())}
}
