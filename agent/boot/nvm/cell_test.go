package nvm

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
)

const (
	page    = 64
	sector  = 256
	sectors = 8 // four in each bank
	bank    = sectors / 2 * sector
)

func board(t testing.TB) *virtual.Board {
	t.Helper()
	b, err := virtual.New(virtual.Spec{Revision: "A", Flash: hw.Geometry{Size: (sectors + 2) * sector, Sector: sector, Page: page}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// cell is a cell with a neighbour on both sides.
func cell(t testing.TB, b *virtual.Board) *Cell {
	t.Helper()
	r, err := hw.NewRegion(b.Flash, 1, sectors)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func save(t testing.TB, c *Cell, data []byte) {
	t.Helper()
	if err := c.Save(data); err != nil {
		t.Fatal(err)
	}
}

// record has ones and zeros in every byte, so that each bit can be lost both ways.
func record(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestWhatIsSavedIsLoaded(t *testing.T) {
	b := board(t)
	c := cell(t, b)
	for n := range c.r.Size() / page { // the neighbours are somebody else's
		if err := c.r.Blank(n*page, page); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Load(); !errors.Is(err, ErrEmpty) {
		t.Fatalf("a blank cell: %v", err)
	}
	for i, n := range []int{1, 0, page - 1, page, page + 1, c.Max() - 1, c.Max(), 3} {
		want := record(n, uint64(i))
		save(t, c, want)
		if got, err := cell(t, b).Load(); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: %d came back, %v", n, len(got), err)
		}
	}
	before := b.Power.Ops()
	save(t, c, record(3, 7))
	if b.Power.Ops() != before {
		t.Error("saving what is there wore the flash")
	}
	if err := c.Save(make([]byte, c.Max()+1)); !errors.Is(err, hw.ErrRange) || b.Power.Ops() != before {
		t.Errorf("a record longer than the cell: %v", err)
	}
	edge := make([]byte, sector)
	for _, off := range []int64{0, (sectors + 1) * sector} {
		if _, err := b.Flash.ReadAt(edge, off); err != nil || !bytes.Equal(edge, bytes.Repeat([]byte{0xff}, sector)) {
			t.Errorf("the neighbour at %d was written", off)
		}
	}
	if err := c.Wipe(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Load(); !errors.Is(err, ErrEmpty) {
		t.Errorf("a wiped cell: %v", err)
	}
	for _, n := range []int64{1, 3} {
		r, err := hw.NewRegion(b.Flash, 0, n)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(r); err == nil {
			t.Errorf("a cell of %d sectors", n)
		}
	}
}

// change puts other bytes into a bank, as age or a hand with a programmer would.
func change(t *testing.T, c *Cell, at int64, edit func(sector []byte)) {
	t.Helper()
	n := at / sector
	s := make([]byte, sector)
	if _, err := c.r.ReadAt(s, n*sector); err != nil {
		t.Fatal(err)
	}
	edit(s)
	if err := c.r.Erase(n); err != nil {
		t.Fatal(err)
	}
	if err := c.r.Program(n*sector, s); err != nil {
		t.Fatal(err)
	}
}

// Each bit of the newest record, and each of its tails: what comes back is the record before, never anything else; a save
// afterwards is whole. With no record before, there is none.
func TestADamagedRecordIsNeverBelieved(t *testing.T) {
	older, newer := record(100, 1), record(150, 2)
	golden := map[bool]*virtual.Board{false: board(t), true: board(t)}
	save(t, cell(t, golden[true]), older)
	for _, b := range golden {
		save(t, cell(t, b), newer)
	}
	used := map[string]int64{"head": headLen, "data": int64(len(newer))}
	starts := map[string]int64{"head": 0, "data": page}
	try := func(t *testing.T, what string, at int64, edit func(c *Cell, at int64)) {
		t.Helper()
		for hasOlder, g := range golden {
			b, err := g.Clone()
			if err != nil {
				t.Fatal(err)
			}
			c := cell(t, b)
			off := at
			if hasOlder {
				off += bank // the second save went there
			}
			edit(c, off)
			got, err := c.Load()
			if hasOlder && (err != nil || !bytes.Equal(got, older)) || !hasOlder && !errors.Is(err, ErrEmpty) {
				t.Fatalf("%s at %d, an older record %v: %d bytes, %v", what, at, hasOlder, len(got), err)
			}
			save(t, c, []byte("afterwards"))
			if got, err := c.Load(); err != nil || string(got) != "afterwards" {
				t.Fatalf("%s at %d: the save afterwards: %q, %v", what, at, got, err)
			}
		}
	}
	for part, length := range used {
		for i := range length {
			at := starts[part] + i
			for bit := range 8 {
				try(t, part+": bit", at, func(c *Cell, at int64) {
					change(t, c, at, func(s []byte) { s[at%sector] ^= 1 << bit })
				})
			}
			try(t, part+": tail lost", at, func(c *Cell, at int64) {
				change(t, c, at, func(s []byte) {
					for k := at % sector; k < sector; k++ {
						s[k] = 0xff
					}
				})
			})
		}
	}
}

// The power fails in each operation of each save, in every way: the record is the one before or the new one; no answered save
// is lost; and the cell takes the next.
func TestACutSaveIsOldOrNew(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		b, err := virtual.New(virtual.Spec{Revision: "A", Flash: hw.Geometry{Size: (sectors + 2) * sector, Sector: sector, Page: page}})
		if err != nil {
			r.Fatal(err)
		}
		reg, err := hw.NewRegion(b.Flash, 1, sectors)
		if err != nil {
			r.Fatal(err)
		}
		c, err := New(reg)
		if err != nil {
			r.Fatal(err)
		}
		var have []byte
		for i := range rapid.IntRange(2, 10).Draw(r, "saves") {
			next := record(rapid.IntRange(0, c.Max()).Draw(r, "bytes"), uint64(i))
			cut := rapid.IntRange(0, 22).Draw(r, "at")
			if cut > 0 {
				b.Power.CutAt(uint64(cut), rapid.SampledFrom(virtual.Modes()).Draw(r, "mode"), rapid.Uint64().Draw(r, "seed"))
			}
			err := c.Save(next)
			if err != nil && !errors.Is(err, hw.ErrPowerCut) {
				r.Fatal(err)
			}
			b.Reset()
			got, lerr := c.Load()
			switch {
			case err == nil && (lerr != nil || !bytes.Equal(got, next)):
				r.Fatalf("an answered save is lost: %v", lerr)
			case have == nil && errors.Is(lerr, ErrEmpty):
				continue
			case lerr != nil || !bytes.Equal(got, have) && !bytes.Equal(got, next):
				r.Fatalf("neither the old record nor the new: %d bytes, %v", len(got), lerr)
			}
			have = got
		}
	})
}

// A wipe that was cut never brings back what was replaced before it, whichever bank the newest record is in.
func TestACutWipeBringsNothingOlderBack(t *testing.T) {
	for saves := 1; saves <= 3; saves++ {
		golden := board(t)
		newest := ""
		for i := range saves {
			newest = fmt.Sprintf("record %d", i)
			save(t, cell(t, golden), []byte(newest))
		}
		for n := uint64(1); n <= sectors; n++ {
			for _, mode := range virtual.Modes() {
				b, err := golden.Clone()
				if err != nil {
					t.Fatal(err)
				}
				b.Power.CutAt(n, mode, n)
				if err := cell(t, b).Wipe(); !errors.Is(err, hw.ErrPowerCut) {
					t.Fatal(err)
				}
				b.Reset()
				if got, err := cell(t, b).Load(); !errors.Is(err, ErrEmpty) && string(got) != newest {
					t.Errorf("%d saves, cut %d %s: %q, %v", saves, n, mode, got, err)
				}
				if err := cell(t, b).Wipe(); err != nil {
					t.Fatal(err)
				}
				if err := cell(t, b).r.Blank(0, sectors*sector); err != nil {
					t.Errorf("%d saves, cut %d %s: after the second wipe: %v", saves, n, mode, err)
				}
			}
		}
	}
}

func FuzzParseHead(f *testing.F) {
	f.Add(append(append([]byte{}, magic[:]...), make([]byte, 44)...), 100)
	f.Add(append(append([]byte{}, magic[:]...), bytes.Repeat([]byte{0xff}, 44)...), 100)
	f.Add(append(append([]byte{}, magic[:]...), 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 100), 100)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		h, ok := parseHead(b, limit)
		if ok && (len(b) < headLen || int64(h.length) > int64(limit) || h.seq == 0) {
			t.Fatalf("taken for a head: %+v of %d bytes", h, len(b))
		}
	})
}

// FuzzCell reads a cell whose flash holds anything: it gives nothing, or what carries its own digest; and it can be saved to.
func FuzzCell(f *testing.F) {
	b := board(f)
	c := cell(f, b)
	save(f, c, []byte("one"))
	save(f, c, record(150, 1))
	image := make([]byte, c.r.Size())
	if _, err := c.r.ReadAt(image, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(image)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, image []byte) {
		b := board(t)
		c := cell(t, b)
		full := pad(image[:min(len(image), int(c.r.Size()))], page)
		if err := c.r.Program(0, full); err != nil {
			t.Fatal(err)
		}
		if data, err := c.Load(); err != nil && !errors.Is(err, ErrEmpty) || len(data) > c.Max() {
			t.Fatalf("%d bytes, %v", len(data), err)
		}
		save(t, c, []byte("next"))
		if got, err := c.Load(); err != nil || string(got) != "next" {
			t.Fatalf("after a save: %q, %v", got, err)
		}
	})
}
