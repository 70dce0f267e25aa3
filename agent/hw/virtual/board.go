package virtual

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/hallmark-iot/hallmark/agent/hw"
)

// Spec is the shape of a virtual board; in its directory it is board.json.
type Spec struct {
	Revision string      `json:"revision"`
	Flash    hw.Geometry `json:"flash"`
	ChipUID  string      `json:"chip_uid"` // 16 bytes, hex
	Faults   []string    `json:"faults,omitempty"`
	Keys     string      `json:"keys,omitempty"` // the key store that is used beside the board, as whoever opens it understands; empty: files of the board
}

// Board is a virtual board and its plug.
type Board struct {
	hw.Board
	Spec  Spec
	Power *Power
	close func() error
}

const (
	memorySize   = 64 << 10
	countersSize = 4 * 8
)

// New makes a board in memory.
func New(spec Spec) (*Board, error) {
	if err := spec.Flash.Check(); err != nil {
		return nil, err
	}
	flash := make(ram, spec.Flash.Size)
	for i := range flash {
		flash[i] = 0xff
	}
	return assemble(spec, &Power{}, flash, make(ram, 4*hw.FuseWords), make(ram, countersSize), "", func() error { return nil }), nil
}

// Clone copies a board in memory, with power.
func (b *Board) Clone() (*Board, error) {
	f, ok := b.Flash.(*Flash)
	if !ok {
		return nil, errors.New("not a virtual board")
	}
	flash, ok := f.m.(ram)
	bank, ok2 := b.Fuses.Bank().(*fuses)
	counters, ok3 := b.Boots.(*counter)
	if !ok || !ok2 || !ok3 {
		return nil, errors.New("only a board in memory can be cloned")
	}
	fuseBits, ok := bank.m.(ram)
	numbers, ok2 := counters.m.(ram)
	if !ok || !ok2 {
		return nil, errors.New("only a board in memory can be cloned")
	}
	c := assemble(b.Spec, &Power{}, slices.Clone(flash), slices.Clone(fuseBits), slices.Clone(numbers), "", b.close)
	from, ok := b.Keys.(*keys)
	to, ok2 := c.Keys.(*keys)
	if ok && ok2 {
		maps.Copy(to.held, from.held)
	}
	return c, nil
}

// Reset is what happens when the board starts again: the power is back, and the sticky locks are open.
func (b *Board) Reset() {
	b.Power.Restore()
	old, ok := b.Fuses.Bank().(*fuses)
	if ok {
		old.hidden = false
	}
}

// Create makes a board in a directory, which must not hold one.
func Create(dir string, spec Spec) error {
	if err := spec.Flash.Check(); err != nil {
		return err
	}
	if spec.ChipUID == "" {
		uid := make([]byte, 16)
		if _, err := rand.Read(uid); err != nil {
			return err
		}
		spec.ChipUID = hex.EncodeToString(uid)
	}
	if err := os.MkdirAll(filepath.Join(dir, "keys"), 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, "board.json")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: a board is there already", path)
	}
	data, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return err
	}
	if err := blank(filepath.Join(dir, "flash.bin"), spec.Flash.Size, 0xff); err != nil {
		return err
	}
	if err := blank(filepath.Join(dir, "fuses.bin"), 4*hw.FuseWords, 0); err != nil {
		return err
	}
	if err := blank(filepath.Join(dir, "counters.bin"), countersSize, 0); err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o600) //nolint:forbidigo // the last step: a board without it is none
}

func blank(path string, size int64, fill byte) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if fill == 0 {
		return f.Truncate(size)
	}
	buf := make([]byte, 64<<10)
	for i := range buf {
		buf[i] = fill
	}
	for ; size > 0; size -= int64(len(buf)) {
		if _, err := f.Write(buf[:min(size, int64(len(buf)))]); err != nil {
			return err
		}
	}
	return nil
}

// Open powers on the board in a directory.
func Open(dir string) (*Board, error) {
	data, err := os.ReadFile(filepath.Join(dir, "board.json"))
	if err != nil {
		return nil, fmt.Errorf("no virtual board in %s: %w", dir, err)
	}
	var spec Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, fmt.Errorf("board.json in %s: %w", dir, err)
	}
	if err := spec.Flash.Check(); err != nil {
		return nil, fmt.Errorf("board.json in %s: %w", dir, err)
	}
	var parts []*os.File
	done := func() error {
		var errs []error
		for _, f := range parts {
			errs = append(errs, f.Close())
		}
		return errors.Join(errs...)
	}
	for _, p := range []struct {
		name string
		size int64
	}{{"flash.bin", spec.Flash.Size}, {"fuses.bin", 4 * hw.FuseWords}, {"counters.bin", countersSize}} {
		f, err := os.OpenFile(filepath.Join(dir, p.name), os.O_RDWR, 0)
		if err != nil {
			return nil, errors.Join(err, done())
		}
		parts = append(parts, f)
		if info, err := f.Stat(); err != nil || info.Size() != p.size {
			return nil, errors.Join(fmt.Errorf("%s in %s is not %d bytes long: the board is broken", p.name, dir, p.size), err, done())
		}
	}
	return assemble(spec, &Power{dir: dir}, parts[0], parts[1], parts[2], filepath.Join(dir, "keys"), done), nil
}

// Snapshot is a copy in memory of the board in a directory, without its keys: for looking at.
func Snapshot(dir string) (*Board, error) {
	from, err := Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = from.Close() }() // only read
	read := func(name string) (ram, error) { return os.ReadFile(filepath.Join(dir, name)) }
	flash, err := read("flash.bin")
	if err != nil {
		return nil, err
	}
	bank, err := read("fuses.bin")
	if err != nil {
		return nil, err
	}
	numbers, err := read("counters.bin")
	if err != nil {
		return nil, err
	}
	return assemble(from.Spec, &Power{}, flash, bank, numbers, "", func() error { return nil }), nil
}

func assemble(spec Spec, p *Power, flash, bank, counters medium, keyDir string, done func() error) *Board {
	faulty := map[string]bool{}
	for _, f := range spec.Faults {
		faulty[f] = true
	}
	return &Board{
		Board: hw.Board{
			Flash: newFlash(p, spec.Flash, flash),
			Fuses: hw.NewFuses(&fuses{power: p, m: bank}),
			Boots: &counter{power: p, m: counters}, Trust: &counter{power: p, m: counters, off: 8}, Log: &counter{power: p, m: counters, off: 16},
			Params: &counter{power: p, m: counters, off: 24},
			Random: rand.Reader, Memory: make(memory, memorySize), Keys: &keys{power: p, dir: keyDir, held: map[string][]byte{}},
			Revision: spec.Revision, Virtual: true, Fault: func(name string) bool { return faulty[name] },
		},
		Spec: spec, Power: p, close: done,
	}
}

// Close powers the board off.
func (b *Board) Close() error { return b.close() }
