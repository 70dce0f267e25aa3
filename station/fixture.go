package station

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// Fixture is the file of a fixture whose places have debug probes (OpenOCD, J-Link): the commands that do things to a chip, and where things lie in
// its flash. A command is a program and its arguments; there is no shell. In an argument {place} is replaced in any command, and the other words
// where they are named. What a command has to say it writes as lines "hallmark: KEY=VALUE …", to either output; other lines are the tool's own.
type Fixture struct {
	Places   []string   `json:"places"`            // names of the probes: serial numbers, ports
	Hardware string     `json:"hardware"`          // revision of the pieces
	Flash    wire.Flash `json:"flash"`             // of the pieces
	Virtual  bool       `json:"virtual,omitempty"` // pieces are none of hardware
	Timeout  string     `json:"timeout,omitempty"` // of one command, but for next; default 2m
	Scratch  string     `json:"scratch,omitempty"` // where files are handed over: memory, because keys are among them; default /dev/shm

	Area       Region            `json:"area"`       // of wire.ChipArea: certificate, keys and what else the device is given
	Components map[string]Region `json:"components"` // of the release

	Next     []string `json:"next"`     // ends when another piece lies in {place}
	Identify []string `json:"identify"` // says uid=HEX lifecycle=NUMBER
	Erase    []string `json:"erase"`    // the flash
	Write    []string `json:"write"`    // {file} to {address}
	Read     []string `json:"read"`     // {size} bytes from {address} to {file}
	Fuses    []string `json:"fuses"`    // says root=HEX counter=NUMBER lifecycle=NUMBER; root=blank when it is not burnt
	Fuse     []string `json:"fuse"`     // burns {fuse}, which is root, counter or lifecycle, to {value}: hex or a number
	Lock     []string `json:"lock"`     // locks the debug port for good
	Locked   []string `json:"locked"`   // says debug=locked when nothing can be done to the piece any more, and else debug=open
	timeout  time.Duration
}

// Region is a part of a flash.
type Region struct {
	Address uint64 `json:"address"`
	Size    uint64 `json:"size"`
}

const (
	maxFixture     = 64 << 10
	maxPlaces      = 64
	defaultTimeout = 2 * time.Minute
)

// ReadFixture reads a fixture's file.
func ReadFixture(path string) (Fixture, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Fixture{}, fmt.Errorf("fixture: %w", err)
	}
	f, err := DecodeFixture(data)
	if err != nil {
		return f, fault.Newf(fault.Invalid, "station.fixture", "fixture %s: %w", path, err).With("correct the file, or take it out")
	}
	if f.Virtual { // its keys are no device's
		return f, nil
	}
	if err := inMemory(f.Scratch); err != nil {
		return f, fault.New(fault.Invalid, "station.scratch", fmt.Sprintf("fixture %s: scratch %s: %v: devices' keys are handed over there, and what is on a disk stays on it", path, f.Scratch, err),
			"leave scratch out, or name a directory in memory (tmpfs)")
	}
	return f, nil
}

// DecodeFixture reads a fixture. What it does not know is an error.
func DecodeFixture(data []byte) (f Fixture, err error) {
	if len(data) > maxFixture {
		return f, fmt.Errorf("%d bytes, at most %d", len(data), maxFixture)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return Fixture{}, err
	}
	if d.More() {
		return Fixture{}, errors.New("there is something behind its end")
	}
	f.timeout = defaultTimeout
	if f.Timeout != "" {
		if f.timeout, err = time.ParseDuration(f.Timeout); err != nil || f.timeout <= 0 {
			return Fixture{}, fmt.Errorf("timeout %q: want a time such as 30s", f.Timeout)
		}
	}
	if f.Scratch == "" {
		f.Scratch = "/dev/shm"
	}
	if err := errors.Join(f.places(), f.regions(), f.commands()); err != nil {
		return Fixture{}, err
	}
	return f, nil
}

// place is what a probe may be called: it goes into a command's argument and into records.
var place = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,23}$`)

func (f *Fixture) places() error {
	if len(f.Places) == 0 || len(f.Places) > maxPlaces || f.Hardware == "" {
		return fmt.Errorf("%d places for hardware %q: want 1 to %d, and the revision of the pieces", len(f.Places), f.Hardware, maxPlaces)
	}
	for i, p := range f.Places {
		if !place.MatchString(p) || slices.Contains(f.Places[:i], p) {
			return fmt.Errorf("place %q: want letters, digits, '.', '_', ':' and '-', at most 24, and each place once", p)
		}
	}
	return nil
}

// regions sees that all lie in the flash, and none on another.
func (f *Fixture) regions() error {
	if len(f.Components) == 0 || f.Area.Size > wire.MaxChipArea {
		return fmt.Errorf("%d components, and an area of %d bytes: want at least one, and at most %d bytes", len(f.Components), f.Area.Size, wire.MaxChipArea)
	}
	type named struct {
		Region
		name string
	}
	all := []named{{f.Area, "area"}}
	for name, r := range f.Components {
		all = append(all, named{r, "component " + name})
	}
	slices.SortFunc(all, func(a, b named) int {
		return strings.Compare(fmt.Sprintf("%016x", a.Address), fmt.Sprintf("%016x", b.Address))
	})
	end := uint64(0)
	for i, r := range all {
		if r.Size == 0 || r.Size > f.Flash.Size || r.Address+r.Size < r.Address {
			return fmt.Errorf("%s: %d bytes in a flash of %d", r.name, r.Size, f.Flash.Size)
		}
		if i > 0 && r.Address < end {
			return fmt.Errorf("%s lies on %s", r.name, all[i-1].name)
		}
		end = r.Address + r.Size
	}
	return nil
}

var placeholder = regexp.MustCompile(`\{[a-z]*\}`)

// commands sees that each has the words that it needs, and no others.
func (f *Fixture) commands() error {
	for _, c := range []struct {
		name  string
		argv  []string
		words []string
	}{
		{"next", f.Next, nil},
		{"identify", f.Identify, nil},
		{"erase", f.Erase, nil},
		{"write", f.Write, []string{"{file}", "{address}"}},
		{"read", f.Read, []string{"{file}", "{address}", "{size}"}},
		{"fuses", f.Fuses, nil},
		{"fuse", f.Fuse, []string{"{fuse}", "{value}"}},
		{"lock", f.Lock, nil},
		{"locked", f.Locked, nil},
	} {
		if len(c.argv) == 0 || c.argv[0] == "" || strings.Contains(c.argv[0], "{") {
			return fmt.Errorf("command %s: want a program and its arguments", c.name)
		}
		text := strings.Join(c.argv[1:], "\x00")
		for _, w := range c.words {
			if !strings.Contains(text, w) {
				return fmt.Errorf("command %s: it does not have %s", c.name, w)
			}
		}
		for _, w := range placeholder.FindAllString(text, -1) {
			if w != "{place}" && !slices.Contains(c.words, w) {
				return fmt.Errorf("command %s: nothing is known to put for %s", c.name, w)
			}
		}
		if len(f.Places) > 1 && !strings.Contains(text, "{place}") {
			return fmt.Errorf("command %s: with several places it has to have {place}", c.name)
		}
	}
	return nil
}
