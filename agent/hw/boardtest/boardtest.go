// Package boardtest is what every board has to do: one list of behaviours for all of them.
//
// Under all stages, on the device; for tests.
package boardtest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
)

// Board is a kind of board under test.
type Board struct {
	// Blank gives a new board each time: what starts it, again after off, as a reset does.
	Blank func(t *testing.T) (start func(t *testing.T) (b *hw.Board, off func()))
}

// Run runs the list.
func Run(t *testing.T, b Board) {
	for name, test := range map[string]func(*testing.T, Board){
		"flash is erased by the sector and programmed by the page": flash, "what is outside is refused": outside,
		"fuses are burned once": fuses, "the security counter only rises": security, "a life has no way back": life,
		"the secret is hidden until a reset": secret, "counters only rise": counters, "a counter is set far": far, "random numbers are no pattern": random,
		"memory remembers": memory,
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// fill gives n bytes that are neither erased nor all cleared.
func fill(n int64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + 3)
	}
	return b
}

func read(t *testing.T, f hw.Flash, off, n int64) []byte {
	t.Helper()
	p := make([]byte, n)
	if _, err := f.ReadAt(p, off); err != nil {
		t.Fatal(err)
	}
	return p
}

func blank(b []byte) bool { return bytes.Count(b, []byte{0xff}) == len(b) }

func flash(t *testing.T, k Board) {
	start := k.Blank(t)
	b, off := start(t)
	g := b.Flash.Geometry()
	must(t, g.Check(), b.Flash.Erase(0), b.Flash.Erase(1))
	if !blank(read(t, b.Flash, 0, 2*g.Sector)) {
		t.Fatal("an erased sector does not read as erased")
	}
	data := fill(g.Sector + g.Page) // over the edge of a sector
	must(t, b.Flash.Program(0, data))
	if err := b.Flash.Program(g.Page, data[:g.Page]); !errors.Is(err, hw.ErrNotErased) {
		t.Errorf("a page was programmed twice: %v", err)
	}
	off()
	b, off = start(t)
	defer off()
	if b.Flash.Geometry() != g {
		t.Fatalf("another shape after a reset: %+v, %+v", b.Flash.Geometry(), g)
	}
	if !bytes.Equal(read(t, b.Flash, 0, int64(len(data))), data) || !blank(read(t, b.Flash, int64(len(data)), g.Sector-g.Page)) {
		t.Error("it is not as it was programmed")
	}
	must(t, b.Flash.Erase(0))
	if !blank(read(t, b.Flash, 0, g.Sector)) || !bytes.Equal(read(t, b.Flash, g.Sector, g.Page), data[g.Sector:]) {
		t.Error("an erase did not clear its sector, or not only its sector")
	}
	must(t, b.Flash.Program(0, data[:g.Page]))
}

func outside(t *testing.T, k Board) {
	b, off := k.Blank(t)(t)
	defer off()
	g := b.Flash.Geometry()
	for name, err := range map[string]error{
		"a sector behind the last":    b.Flash.Erase(g.Size / g.Sector),
		"a sector before the first":   b.Flash.Erase(-1),
		"a page behind the end":       b.Flash.Program(g.Size, make([]byte, g.Page)),
		"over the end":                b.Flash.Program(g.Size-g.Page, make([]byte, 2*g.Page)),
		"half a page":                 b.Flash.Program(0, make([]byte, g.Page/2)),
		"in the middle of a page":     b.Flash.Program(g.Page/2, make([]byte, g.Page)),
		"before the first page":       b.Flash.Program(-g.Page, make([]byte, g.Page)),
		"a fuse behind the last":      b.Fuses.Bank().Blow(hw.FuseWords, 1),
		"a fuse before the first":     b.Fuses.Bank().Blow(-1, 1),
		"reading a fuse behind these": func() error { _, err := b.Fuses.Bank().Read(hw.FuseWords); return err }(),
	} {
		if !errors.Is(err, hw.ErrRange) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.Flash.ReadAt(make([]byte, 2), g.Size-1); err == nil {
		t.Error("read over the end")
	}
}

func fuses(t *testing.T, k Board) {
	start := k.Blank(t)
	b, off := start(t)
	if _, err := b.Fuses.Root(); !errors.Is(err, hw.ErrNotBurned) {
		t.Errorf("a blank root: %v", err)
	}
	one, two := sha256.Sum256([]byte("1")), sha256.Sum256([]byte("2"))
	must(t, b.Fuses.BurnRoot(one))
	off()
	b, off = start(t)
	defer off()
	if d, err := b.Fuses.Root(); err != nil || d != one {
		t.Errorf("after a reset the root is %x, %v", d, err)
	}
	if err := b.Fuses.BurnRoot(two); !errors.Is(err, hw.ErrBurned) {
		t.Errorf("another root over the first: %v", err)
	}
	must(t, b.Fuses.BurnRoot(one), b.Fuses.Check())
	before, err := b.Fuses.Bank().Read(0)
	must(t, err, b.Fuses.Bank().Blow(0, 0))
	if after, err := b.Fuses.Bank().Read(0); err != nil || after != before {
		t.Errorf("a fuse went out: %#x became %#x, %v", before, after, err)
	}
}

func security(t *testing.T, k Board) {
	start := k.Blank(t)
	b, off := start(t)
	for _, n := range []uint32{0, 1, 33, 7, hw.CounterMax} {
		must(t, b.Fuses.RaiseSecurityCounter(n))
	}
	if err := b.Fuses.RaiseSecurityCounter(hw.CounterMax + 1); !errors.Is(err, hw.ErrCounterExhausted) {
		t.Errorf("beyond the fuses: %v", err)
	}
	off()
	b, off = start(t)
	defer off()
	if n, err := b.Fuses.SecurityCounter(); err != nil || n != hw.CounterMax {
		t.Errorf("after a reset %d, %v", n, err)
	}
}

func life(t *testing.T, k Board) {
	start := k.Blank(t)
	b, off := start(t)
	must(t, b.Fuses.Advance(hw.Secured), b.Fuses.LockDebug(), b.Fuses.Advance(hw.Decommissioned))
	off()
	b, off = start(t)
	defer off()
	l, err := b.Fuses.Lifecycle()
	debug, err2 := b.Fuses.DebugLocked()
	if must(t, err, err2); l != hw.Decommissioned || !debug {
		t.Errorf("after a reset %s, debug lock %v", l, debug)
	}
	if err := b.Fuses.Advance(hw.Secured); err == nil {
		t.Error("it came back to life")
	}
}

func secret(t *testing.T, k Board) {
	start := k.Blank(t)
	b, off := start(t)
	want := sha256.Sum256([]byte("secret"))
	must(t, b.Fuses.BurnRoot(want), b.Fuses.BurnSecret(want))
	b.Fuses.LockFixed()
	if _, err := b.Fuses.Secret(); !errors.Is(err, hw.ErrLocked) {
		t.Errorf("after its lock: %v", err)
	}
	for _, word := range []int{0, hw.FirstSecret, hw.FuseWords - 1} {
		if err := b.Fuses.Bank().Blow(word, 1<<31); !errors.Is(err, hw.ErrLocked) {
			t.Errorf("word %d is burned after its lock: %v", word, err)
		}
	}
	must(t, b.Fuses.RaiseSecurityCounter(3), b.Fuses.Advance(hw.Secured), b.Fuses.LockDebug()) // theirs who come later
	off()
	b, off = start(t)
	defer off()
	if d, err := b.Fuses.Secret(); err != nil || d != want {
		t.Errorf("after a reset: %x, %v", d, err)
	}
}

// all are the counters that the board has.
func all(b *hw.Board) map[string]hw.Counter {
	out := map[string]hw.Counter{"boots": b.Boots, "trust": b.Trust}
	if b.Log != nil {
		out["log"] = b.Log
	}
	return out
}

func counters(t *testing.T, k Board) {
	start := k.Blank(t)
	n := uint64(0)
	for range 3 {
		b, off := start(t)
		for name, c := range all(b) {
			v, err := c.Value()
			if must(t, err); v != n {
				t.Errorf("%s: %d after a reset, want %d", name, v, n)
			}
			must(t, c.Raise(n+1), c.Raise(n+1), c.Raise(n+3))
			if err := c.Raise(n + 2); err == nil {
				t.Errorf("%s went back", name)
			}
			if v, err := c.Value(); err != nil || v != n+3 {
				t.Errorf("%s: %d, %v", name, v, err)
			}
		}
		n += 3
		off()
	}
}

// A trust bundle's counter begins anew, far up, when the device is handed to another home.
func far(t *testing.T, k Board) {
	start := k.Blank(t)
	b, off := start(t)
	for _, n := range []uint64{5, 1<<32 | 1, 1<<32 | 2, 2<<32 | 9} {
		must(t, b.Trust.Raise(n))
		if v, err := b.Trust.Value(); err != nil || v != n {
			t.Errorf("set to %d it reads %d, %v", n, v, err)
		}
	}
	off()
	b, off = start(t)
	defer off()
	if v, err := b.Trust.Value(); err != nil || v != 2<<32|9 {
		t.Errorf("after a reset %d, %v", v, err)
	}
	if err := b.Trust.Raise(1<<32 | 3); err == nil {
		t.Error("it went back")
	}
	if v, err := b.Boots.Value(); err != nil || v != 0 {
		t.Errorf("another counter moved: %d, %v", v, err)
	}
}

func random(t *testing.T, k Board) {
	b, off := k.Blank(t)(t)
	defer off()
	x, y := make([]byte, 64), make([]byte, 64)
	_, err := io.ReadFull(b.Random, x)
	_, err2 := io.ReadFull(b.Random, y)
	if must(t, err, err2); bytes.Equal(x, y) {
		t.Error("the same numbers twice")
	}
}

func memory(t *testing.T, k Board) {
	b, off := k.Blank(t)(t)
	defer off()
	if b.Memory.Size() < 1<<10 {
		t.Fatalf("%d bytes of memory", b.Memory.Size())
	}
	for i := range b.Memory.Size() {
		b.Memory.Store(i, byte(i))
	}
	for i := range b.Memory.Size() {
		if b.Memory.Load(i) != byte(i) {
			t.Fatalf("byte %d is forgotten", i)
		}
	}
}
