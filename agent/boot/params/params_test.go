package params

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/boot/nvm"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
)

const (
	sector = 4096
	page   = 256
)

var key = bytes.Repeat([]byte{5}, KeySize)

func board(t testing.TB) *virtual.Board {
	t.Helper()
	b, err := virtual.New(virtual.Spec{Revision: "A", ChipUID: "00", Flash: hw.Geometry{Size: 80 * sector, Sector: sector, Page: page}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func config(t testing.TB, b *virtual.Board) Config {
	t.Helper()
	cell := func(first, n int64) *nvm.Cell {
		r, err := hw.NewRegion(b.Flash, first, n)
		if err != nil {
			t.Fatal(err)
		}
		c, err := nvm.New(r)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return Config{Basic: cell(0, 26), Operational: cell(26, 42), Counter: b.Params, Key: key, Device: "d1"}
}

func open(t testing.TB, c Config) *Store {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func entries(pairs ...string) (out []wire.ConfigEntry) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, wire.ConfigEntry{Name: pairs[i], Value: pairs[i+1]})
	}
	return out
}

func set(t testing.TB, s *Store, e []wire.ConfigEntry) {
	t.Helper()
	if err := s.Set(e); err != nil {
		t.Fatal(err)
	}
}

func TestParametersAreReadByNameAndType(t *testing.T) {
	b := board(t)
	c := config(t, b)
	if err := LayBasic(c.Basic, key, "d1", map[string]string{"calibration": "-17", "region": "eu"}); err != nil {
		t.Fatal(err)
	}
	set(t, open(t, c), entries("interval", "1m30s", "loud", "true"))
	s := open(t, c)
	names := []string{}
	for _, p := range s.List() {
		names = append(names, fmt.Sprintf("%s=%s %v", p.Name, p.Value, p.Basic))
	}
	if want := []string{"calibration=-17 true", "interval=1m30s false", "loud=true false", "region=eu true"}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
	get := func(name string) Parameter {
		p, err := s.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if n, err := get("calibration").Number(); err != nil || n != -17 {
		t.Errorf("%d, %v", n, err)
	}
	if d, err := get("interval").Span(); err != nil || d.Seconds() != 90 {
		t.Errorf("%s, %v", d, err)
	}
	if v, err := get("loud").Truth(); err != nil || !v {
		t.Errorf("%v, %v", v, err)
	}
	for _, wrong := range []func() error{
		func() error { _, err := get("region").Number(); return err },
		func() error { _, err := get("region").Truth(); return err },
		func() error { _, err := get("region").Span(); return err },
		func() error { _, err := s.Get("none"); return err },
	} {
		if wrong() == nil {
			t.Error("a parameter of another type, or none, was read")
		}
	}
	if err := s.Set(entries("calibration", "0")); !errors.Is(err, ErrBasic) {
		t.Errorf("what the factory laid down is changed: %v", err)
	}
	if !s.Guarded() || s.Fault() != nil {
		t.Errorf("guarded %v, %v", s.Guarded(), s.Fault())
	}
}

// Nothing that was set lies open in flash.
func TestParametersDoNotLieOpen(t *testing.T) {
	b := board(t)
	c := config(t, b)
	const secret = "hunter2-hunter2-hunter2"
	if err := LayBasic(c.Basic, key, "d1", map[string]string{"first": secret}); err != nil {
		t.Fatal(err)
	}
	s := open(t, c)
	set(t, s, entries("second", secret))
	set(t, s, entries("second", secret+"!"))
	all := make([]byte, b.Spec.Flash.Size)
	if _, err := b.Flash.ReadAt(all, 0); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(all, []byte(secret)) || bytes.Contains(all, []byte("second")) {
		t.Error("a parameter lies open in flash")
	}
}

// What is put back, damaged, of another device or of another state is not read, and can be replaced.
func TestWhatIsNotBelievedIsNotRead(t *testing.T) {
	golden := board(t)
	c := config(t, golden)
	if err := LayBasic(c.Basic, key, "d1", map[string]string{"region": "eu"}); err != nil {
		t.Fatal(err)
	}
	s := open(t, c)
	set(t, s, entries("limit", "old"))
	old, err := c.Operational.Load()
	if err != nil {
		t.Fatal(err)
	}
	set(t, s, entries("limit", "new"))
	set(t, s, entries("limit", "newer"))
	newest, err := c.Operational.Load()
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(c *Config) error{
		"put back": func(c *Config) error { return c.Operational.Save(old) },
		"one bit": func(c *Config) error {
			bad := bytes.Clone(newest)
			bad[len(bad)-1] ^= 1
			return c.Operational.Save(bad)
		},
		"gone":              func(c *Config) error { return c.Operational.Wipe() },
		"of another device": func(c *Config) error { c.Device = "d2"; return nil },
		"another state":     func(c *Config) error { c.Key = bytes.Repeat([]byte{6}, KeySize); return nil },
		"the basic ones": func(c *Config) error {
			raw, err := c.Basic.Load()
			if err != nil {
				return err
			}
			return c.Operational.Save(raw)
		},
		"no record": func(c *Config) error { return c.Operational.Save([]byte("hello")) },
		"of a later time": func(c *Config) error {
			raw, err := seal(c.Key, c.Device, 9, contents{Entries: entries("limit", "forged")})
			if err != nil {
				return err
			}
			return c.Operational.Save(raw)
		},
	} {
		b, err := golden.Clone()
		if err != nil {
			t.Fatal(err)
		}
		c := config(t, b)
		if err := spoil(&c); err != nil {
			t.Fatal(err)
		}
		s := open(t, c)
		if len(s.Operational()) > 0 || !errors.Is(s.Fault(), ErrNotBelieved) {
			t.Errorf("%s: %v, %v", name, s.Operational(), s.Fault())
		}
		set(t, s, entries("limit", "again"))
		if again := open(t, c); len(again.Operational()) != 1 || again.Operational()[0].Value != "again" {
			t.Errorf("%s: afterwards %v, %v", name, again.Operational(), again.Fault())
		}
	}
}

// The power fails in every operation, in every way, and again in what follows: the old ones or the new ones are there, whole, and what was
// replaced does not come back.
func TestPowerCutAtEveryWrite(t *testing.T) {
	golden := board(t)
	c := config(t, golden)
	if err := LayBasic(c.Basic, key, "d1", map[string]string{"region": "eu"}); err != nil {
		t.Fatal(err)
	}
	first, next := entries("a", "1", "b", "2"), entries("a", "3", "c", string(bytes.Repeat([]byte("x"), 900)))
	set(t, open(t, c), first)
	for n := uint64(1); ; n++ {
		done := 0
		for _, mode := range virtual.Modes() {
			b, err := golden.Clone()
			if err != nil {
				t.Fatal(err)
			}
			c := config(t, b)
			after := fmt.Sprintf("cut %d %s", n, mode)
			s := open(t, c)
			b.Power.CutAt(n, mode, n)
			if err := s.Set(next); err == nil {
				done++
				continue
			} else if !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("%s: %v", after, err)
			}
			b.Reset()
			b.Power.CutAt(n%3+1, mode, n)
			if s, err = Open(c); err == nil {
				err = s.Set(next)
			}
			if err != nil && !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("%s, again: %v", after, err)
			}
			b.Reset()
			b.Power.CutAt(1<<40, mode, n)
			s = open(t, c)
			if got := s.Operational(); s.Fault() != nil || !slices.Equal(got, first) && !slices.Equal(got, next) {
				t.Fatalf("%s: %v, %v", after, got, s.Fault())
			}
			set(t, s, next)
			if got := open(t, c); !slices.Equal(got.Operational(), next) || got.Fault() != nil || len(got.basic) != 1 {
				t.Fatalf("%s: in the end %v, %v", after, got.Operational(), got.Fault())
			}
		}
		if done == len(virtual.Modes()) {
			if n < 5 {
				t.Fatalf("only %d operations", n)
			}
			break
		}
	}
}

// chip seals to a state that the test changes.
type chip struct {
	state, made int
	renewed     int
}

func (c *chip) Unseal() ([]byte, error) {
	switch {
	case c.renewed == 0:
		return nil, hw.ErrNoKey
	case c.state != c.made:
		return nil, hw.ErrOtherState
	}
	return bytes.Repeat([]byte{byte(c.renewed)}, 32), nil
}

func (c *chip) Renew() error   { c.renewed++; c.made = c.state; return nil }
func (c *chip) Destroy() error { c.renewed = 0; return nil }

// Operational parameters are read in the boot state in which they were set; the factory's in every one.
func TestParametersAreSealedToTheBootState(t *testing.T) {
	b := board(t)
	c := config(t, b)
	seals := &chip{}
	c.Sealer = seals
	if err := LayBasic(c.Basic, key, "d1", map[string]string{"region": "eu"}); err != nil {
		t.Fatal(err)
	}
	if s := open(t, c); s.Fault() != nil || seals.renewed != 0 {
		t.Errorf("before anything was set: %v", s.Fault())
	}
	set(t, open(t, c), entries("limit", "1"))
	set(t, open(t, c), entries("limit", "2"))
	if s := open(t, c); s.Fault() != nil || len(s.Operational()) != 1 || seals.renewed != 1 {
		t.Fatalf("%v, %v, renewed %d times", s.Operational(), s.Fault(), seals.renewed)
	}
	for _, other := range []func(){func() { seals.state = 1 }, func() { seals.state = 0; seals.made = 0; seals.renewed = 77 }, func() { seals.renewed = 0 }} {
		other()
		s := open(t, c)
		if _, err := s.Get("region"); err != nil || len(s.Operational()) > 0 || !errors.Is(s.Fault(), ErrNotBelieved) {
			t.Errorf("in another state: %v, %v, %v", s.Operational(), s.Fault(), err)
		}
		set(t, s, entries("limit", "3"))
		if s := open(t, c); s.Fault() != nil || len(s.Operational()) != 1 {
			t.Errorf("set anew: %v, %v", s.Operational(), s.Fault())
		}
	}
}

// Whatever a record is changed to, nothing is read that was not sealed.
func FuzzOpen(f *testing.F) {
	b := board(f)
	c := config(f, b)
	set(f, open(f, c), entries("a", "1"))
	raw, err := c.Operational.Load()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	r := rand.New(rand.NewPCG(1, 1))
	for range 8 {
		bad := bytes.Clone(raw)
		bad[r.IntN(len(bad))] ^= byte(1 + r.IntN(255))
		f.Add(bad)
	}
	f.Add([]byte{0xa2, 1, 1, 2, 0x40})
	s := &Store{c: c}
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := s.open(key, data, 1, OperationalSize)
		if err == nil && (len(in.Basic) > 0 || !slices.Equal(in.Entries, entries("a", "1"))) {
			t.Fatalf("taken: %x", data)
		}
	})
}
