// Package virtual is a board that exists only as files, or in memory, and says so.
//
// Under all stages, on the device. It is honest where it matters: flash has NOR semantics, a page is programmed once per erase, a
// power cut tears the operation it meets and nothing works afterwards, fuses only ever gain bits. It protects nothing: its keys
// are files, its fuses are a file. Evidence from it says virtual, and policy for production refuses that.
package virtual

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/hallmark-iot/hallmark/agent/hw"
)

// Mode is what a power cut does to the operation it meets.
type Mode string

// Before: it is not begun. Torn: a prefix of it is done. Random: any of its bits are. After: it is done, and the power is gone.
const (
	Before Mode = "before"
	Torn   Mode = "torn"
	Random Mode = "random"
	After  Mode = "after"
)

// Modes lists them.
func Modes() []Mode { return []Mode{Before, Torn, Random, After} }

// CutFile in a board's directory pulls its plug from outside: {"after": operations, "mode": "torn"}. It is consumed. One that
// cannot be read stops the board, untouched: a test that believes it cut the power must not pass without a cut.
const CutFile = "cut.json"

// Power feeds all parts of a board. Every operation that changes a part counts.
type Power struct {
	dir string // of CutFile; empty: none

	mu   sync.Mutex // guards all below
	ops  uint64
	at   uint64 // the operation to cut; 0: none
	mode Mode
	rng  *rand.Rand
	off  bool
}

// CutAt cuts the power in operation n from now (1 is the next), in the given mode; seed decides what random bits are.
func (p *Power) CutAt(n uint64, mode Mode, seed uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.mode, p.rng = p.ops+n, mode, rand.New(rand.NewPCG(seed, n))
}

// Ops counts the operations so far.
func (p *Power) Ops() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ops
}

// Restore brings the power back: the board starts again. A cut that is still to come still comes.
func (p *Power) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.off = false
}

// do runs one changing operation over total units: apply does the units that which says (nil: all of them), and is called once,
// or not at all.
func (p *Power) do(total int, apply func(which func(i int) bool) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off {
		return hw.ErrPowerCut
	}
	if err := p.arm(); err != nil {
		return err
	}
	p.ops++
	if p.at == 0 || p.ops != p.at {
		return apply(nil)
	}
	p.off, p.at = true, 0
	var err error
	switch p.mode {
	case Before:
	case Torn:
		n := p.rng.IntN(total + 1)
		err = apply(func(i int) bool { return i < n })
	case Random:
		err = apply(func(int) bool { return p.rng.IntN(2) == 0 })
	case After:
		err = apply(nil)
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w at operation %d (%s)", hw.ErrPowerCut, p.ops, p.mode)
}

// Leave puts a cut that is still to come back into its file, for whoever goes on with the board where this process stops.
func (p *Power) Leave() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dir == "" || p.at == 0 {
		return nil
	}
	data, err := json.Marshal(cut{After: p.at - p.ops - 1, Mode: p.mode})
	if err != nil {
		return err
	}
	p.at = 0
	return os.WriteFile(filepath.Join(p.dir, CutFile), data, 0o600) //nolint:forbidigo // a test's hand at the plug
}

// cut is what is in CutFile.
type cut struct {
	After uint64 `json:"after"`
	Mode  Mode   `json:"mode"`
}

// reading is nil while there is power.
func (p *Power) reading() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off {
		return hw.ErrPowerCut
	}
	return nil
}

// arm looks for a hand at the plug.
func (p *Power) arm() error {
	if p.dir == "" || p.at != 0 {
		return nil
	}
	path := filepath.Join(p.dir, CutFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 { // nobody is there, or the hand is just reaching out
		return nil
	}
	if err != nil {
		return fmt.Errorf("power cut: %w", err)
	}
	var c cut
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil || !slices.Contains(Modes(), c.Mode) || d.More() {
		return fmt.Errorf(`%s: want {"after": operations, "mode": one of %q}: correct it or take it away: %w`, path, Modes(), errors.Join(errCutFile, err))
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("power cut: %w", err)
	}
	p.at, p.mode, p.rng = p.ops+1+c.After, c.Mode, rand.New(rand.NewPCG(1, c.After))
	return nil
}

var errCutFile = errors.New("not a power cut")
