package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
)

func newProbe() *cobra.Command {
	at := place{}
	var s shape
	c := &cobra.Command{
		Use:   "probe --dir DIR DO [ARGUMENT...]",
		Short: "Play a debug probe at a virtual board that runs nothing yet",
		Long: `Does one thing to a virtual board as a debug probe would, for the fixture of a programming station; what it reads it says in lines that a
station understands. What lies on the board is taken up by its first start.

  next                      puts the piece aside, in a directory beside it that has its number, and makes a blank one
  identify                  its number and its life cycle
  erase                     the flash
  write FILE ADDRESS        into the flash, which is erased there
  read FILE ADDRESS SIZE    from the flash
  fuses                     what is burnt
  fuse root|counter|lifecycle VALUE
  lock                      the debug port, for good
  locked                    whether it is
  fixture COMPONENT=SIZE... the file of a fixture whose places are the directories DIR/left and DIR/right; its addresses hold
                            for every board of that size`,
		Example: "  hallmark-agent probe --dir bench --payload-bytes 4194304 fixture app=4194304 >fixture.json",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] == "fixture" {
				return fixture(at.dir, s, args[1:])
			}
			return probe(at, s, args[0], args[1:])
		},
	}
	dirFlag(c, &at.dir, "the board's directory")
	s.flags(c)
	return c
}

// probing is one thing that a probe does, and how many arguments it takes.
type probing struct {
	args int
	do   func(b *powered, args []string) error
	free bool // the debug port does not matter
}

var probings = map[string]probing{
	"identify": {do: identify},
	"erase": {do: func(b *powered, _ []string) error {
		g := b.Flash.Geometry()
		for n := range g.Size / g.Sector {
			if err := b.Flash.Erase(n); err != nil {
				return err
			}
		}
		return nil
	}},
	"write": {args: 2, do: writeFlash},
	"read":  {args: 3, do: readFlash},
	"fuses": {do: sayFuses},
	"fuse":  {args: 2, do: func(b *powered, args []string) error { return burnFuse(b.Fuses, args[0], args[1]) }},
	"lock":  {do: func(b *powered, _ []string) error { return b.Fuses.LockDebug() }},
	"locked": {free: true, do: func(b *powered, _ []string) error {
		locked, err := b.Fuses.DebugLocked()
		if err == nil {
			fmt.Println("hallmark: debug=" + map[bool]string{true: "locked", false: "open"}[locked])
		}
		return err
	}},
}

func probe(at place, s shape, what string, args []string) (err error) {
	if what == "next" && len(args) == 0 {
		return nextPiece(at, s)
	}
	p, ok := probings[what]
	if !ok || len(args) != p.args {
		return &usageError{fmt.Sprintf("probe %s with %d arguments: there is no such thing to do", what, len(args))}
	}
	b, err := at.powerOn()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if b.real {
		return errors.New("a probe is played at virtual boards: a real board has a real one")
	}
	locked, err := b.Fuses.DebugLocked()
	if err != nil {
		return err
	}
	if locked && !p.free {
		return errors.New("the debug port is locked")
	}
	return p.do(b, args)
}

// nextPiece puts what lies in the place aside, under its chip's number.
func nextPiece(at place, s shape) error {
	b, err := virtual.Open(at.dir)
	if err == nil {
		aside := filepath.Join(filepath.Dir(filepath.Clean(at.dir)), b.Spec.ChipUID)
		if err := errors.Join(b.Close(), os.Rename(at.dir, aside)); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return at.make(s)
}

func identify(b *powered, _ []string) error {
	life, err := b.Fuses.Lifecycle()
	if err == nil {
		fmt.Printf("hallmark: uid=%x lifecycle=%#x\n", b.uid, psa(life))
	}
	return err
}

func psa(l hw.Lifecycle) uint {
	if l == hw.Assembly {
		return wire.LifecycleAssembly
	}
	return wire.LifecycleSecured
}

func writeFlash(b *powered, args []string) error {
	at, err := strconv.ParseInt(args[1], 0, 64)
	if err != nil {
		return &usageError{"probe write: address " + args[1]}
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	if n := len(data) % page; n > 0 {
		data = append(data, bytes.Repeat([]byte{0xff}, page-n)...)
	}
	return b.Flash.Program(at, data)
}

func readFlash(b *powered, args []string) error {
	at, err := strconv.ParseInt(args[1], 0, 64)
	size, err2 := strconv.ParseInt(args[2], 0, 64)
	if err = errors.Join(err, err2); err != nil || size < 0 || size > b.Flash.Geometry().Size {
		return &usageError{fmt.Sprintf("probe read: %s bytes at %s", args[2], args[1])}
	}
	data := make([]byte, size)
	if _, err := b.Flash.ReadAt(data, at); err != nil {
		return err
	}
	return os.WriteFile(args[0], data, 0o600) //nolint:forbidigo // a file for the station, which reads it at once
}

func sayFuses(b *powered, _ []string) error {
	root := "blank"
	d, err := b.Fuses.Root()
	if err == nil {
		root = hex.EncodeToString(d[:])
	} else if !errors.Is(err, hw.ErrNotBurned) {
		return err
	}
	counter, err := b.Fuses.SecurityCounter()
	if err != nil {
		return err
	}
	life, err := b.Fuses.Lifecycle()
	if err == nil {
		fmt.Printf("hallmark: root=%s counter=%d lifecycle=%#x\n", root, counter, psa(life))
	}
	return err
}

func burnFuse(f *hw.Fuses, fuse, value string) error {
	n, err := strconv.ParseUint(value, 0, 32)
	switch {
	case fuse == "root":
		d, err := hex.DecodeString(value)
		if err != nil || len(d) != 32 {
			return &usageError{"probe fuse root: want 32 bytes in hex"}
		}
		return f.BurnRoot([32]byte(d))
	case fuse == "counter" && err == nil:
		return f.RaiseSecurityCounter(uint32(n))
	case fuse == "lifecycle" && err == nil && uint(n) == wire.LifecycleSecured:
		return f.Advance(hw.Secured)
	}
	return &usageError{fmt.Sprintf("probe fuse %s %s: want root, counter or lifecycle, and what it can be", fuse, value)}
}

// region is as in station.Fixture.
type region struct {
	Address int64 `json:"address"`
	Size    int64 `json:"size"`
}

// fixture says where the boot manager takes things up, as the file of a fixture of two virtual boards.
func fixture(dir string, s shape, components []string) error {
	spec, err := s.spec()
	if err != nil {
		return err
	}
	b, err := virtual.New(spec)
	if err != nil {
		return err
	}
	var names []string
	var sizes []int64
	for _, c := range components {
		name, size, _ := strings.Cut(c, "=")
		n, err := strconv.ParseInt(size, 0, 64)
		if err != nil || name == "" {
			return &usageError{fmt.Sprintf("probe fixture %s: want COMPONENT=SIZE, the most bytes that it may have", c)}
		}
		names, sizes = append(names, name), append(sizes, n)
	}
	area, places, err := boot.Places(b.Flash, sizes...)
	if err != nil {
		return err
	}
	parts := map[string]region{}
	for i, n := range names {
		parts[n] = region{places[i], sizes[i]}
	}
	do := func(words ...string) []string {
		return append([]string{"hallmark-agent", "probe", "--dir", filepath.Join(dir, "{place}")}, words...)
	}
	g := spec.Flash
	return print(map[string]any{
		"places": []string{"left", "right"}, "hardware": s.rev, "virtual": true,
		"flash": wire.Flash{Size: uint64(g.Size), Erase: uint32(g.Sector), Slots: 2, SlotSize: uint64(g.Size / 2)},
		"area":  region{area, wire.MaxChipArea}, "components": parts,
		"next":     do("--payload-bytes", strconv.FormatInt(s.payload, 10), "--hardware", s.rev, "next"),
		"identify": do("identify"), "erase": do("erase"), "write": do("write", "{file}", "{address}"), "read": do("read", "{file}", "{address}", "{size}"),
		"fuses": do("fuses"), "fuse": do("fuse", "{fuse}", "{value}"), "lock": do("lock"), "locked": do("locked"),
	})
}
