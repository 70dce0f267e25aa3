package hw

import (
	"context"
	"fmt"
	"io"
	"maps"
)

// Shadow is a board whose changes stay in memory: for looking at what a device would do. What b holds is read as it is asked for; nothing is
// written to it, locked in it or made in its key store.
func Shadow(b *Board) *Board {
	out := *b
	out.Flash = &shadowFlash{Flash: b.Flash, sectors: map[int64][]byte{}}
	out.Fuses = NewFuses(&shadowFuses{FuseBank: b.Fuses.Bank(), blown: map[int]uint32{}})
	out.Boots, out.Trust = &shadowCounter{Counter: b.Boots}, &shadowCounter{Counter: b.Trust}
	if b.Log != nil {
		out.Log = &shadowCounter{Counter: b.Log}
	}
	if b.Params != nil {
		out.Params = &shadowCounter{Counter: b.Params}
	}
	if b.Banks != nil {
		out.Banks = &shadowBanks{Banks: b.Banks}
	}
	return &out
}

// shadowBanks remembers what the boot loader would be told. Nothing is installed.
type shadowBanks struct {
	Banks
	told *Told
}

func (s *shadowBanks) Told() (Told, error) {
	if s.told != nil {
		return *s.told, nil
	}
	return s.Banks.Told()
}

func (s *shadowBanks) Tell(b Bank, trial bool) error {
	s.told = &Told{Bank: b, Trial: trial, Here: true}
	return nil
}

func (s *shadowBanks) Clear(Bank) error { return ErrRange }

func (s *shadowBanks) Install(context.Context, Bank, io.Reader) error { return ErrRange }

// shadowFlash has the sectors that were changed.
type shadowFlash struct {
	Flash
	sectors map[int64][]byte
}

func (s *shadowFlash) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.Flash.ReadAt(p, off)
	if err != nil {
		return n, err
	}
	size := s.Geometry().Sector
	for sector, data := range maps.All(s.sectors) {
		at := sector*size - off
		switch {
		case at >= int64(len(p)) || at+size <= 0:
		case at < 0:
			copy(p, data[-at:])
		default:
			copy(p[at:], data)
		}
	}
	return n, nil
}

func (s *shadowFlash) sector(n int64) ([]byte, error) {
	if s.sectors[n] == nil {
		data := make([]byte, s.Geometry().Sector)
		if _, err := s.Flash.ReadAt(data, n*int64(len(data))); err != nil {
			return nil, err
		}
		s.sectors[n] = data
	}
	return s.sectors[n], nil
}

func (s *shadowFlash) Program(off int64, data []byte) error {
	g := s.Geometry()
	if off < 0 || off%g.Page != 0 || int64(len(data))%g.Page != 0 || off+int64(len(data)) > g.Size {
		return fmt.Errorf("program %d bytes at %d: %w", len(data), off, ErrRange)
	}
	for len(data) > 0 {
		to, err := s.sector(off / g.Sector)
		if err != nil {
			return err
		}
		n := min(g.Sector-off%g.Sector, int64(len(data)))
		for i, b := range to[off%g.Sector:][:n] {
			if b != 0xff {
				return fmt.Errorf("page at %d: %w", (off+int64(i))/g.Page*g.Page, ErrNotErased)
			}
		}
		copy(to[off%g.Sector:], data[:n])
		data, off = data[n:], off+n
	}
	return nil
}

func (s *shadowFlash) Erase(sector int64) error {
	g := s.Geometry()
	if sector < 0 || (sector+1)*g.Sector > g.Size {
		return fmt.Errorf("erase sector %d: %w", sector, ErrRange)
	}
	data := make([]byte, g.Sector)
	for i := range data {
		data[i] = 0xff
	}
	s.sectors[sector] = data
	return nil
}

// shadowFuses has the fuses that were blown besides.
type shadowFuses struct {
	FuseBank
	blown  map[int]uint32
	hidden bool
}

func (s *shadowFuses) Read(word int) (uint32, error) {
	if word >= FirstSecret && word < FuseWords && s.hidden {
		return 0, fmt.Errorf("fuse word %d: %w", word, ErrLocked)
	}
	w, err := s.FuseBank.Read(word)
	return w | s.blown[word], err
}

func (s *shadowFuses) Blow(word int, mask uint32) error {
	if s.hidden && Fixed(word) {
		return fmt.Errorf("fuse word %d: %w", word, ErrLocked)
	}
	if _, err := s.Read(word); err != nil {
		return err
	}
	s.blown[word] |= mask
	return nil
}

func (s *shadowFuses) LockFixed() { s.hidden = true }

// shadowCounter has the value that it was raised to.
type shadowCounter struct {
	Counter
	raised uint64
}

func (s *shadowCounter) Value() (uint64, error) {
	v, err := s.Counter.Value()
	return max(v, s.raised), err
}

func (s *shadowCounter) Raise(n uint64) error {
	v, err := s.Value()
	if err != nil || n == v {
		return err
	}
	if n < v {
		return fmt.Errorf("counter is at %d and cannot go back to %d", v, n)
	}
	s.raised = n
	return nil
}
