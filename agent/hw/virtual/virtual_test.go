package virtual_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/boardtest"
	"github.com/hallmark-iot/hallmark/agent/hw/keystest"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/suite"
)

const (
	page   = 64
	sector = 256
)

var spec = virtual.Spec{Revision: "A", ChipUID: "00", Flash: hw.Geometry{Size: 4 * sector, Sector: sector, Page: page}}

// boards gives the same empty board in memory and in a directory: what is true of one is true of the other.
func boards(t *testing.T) map[string]*virtual.Board {
	t.Helper()
	ram, err := virtual.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*virtual.Board{"memory": ram, "directory": onDisk(t)}
}

func onDisk(t *testing.T) *virtual.Board {
	t.Helper()
	dir := t.TempDir()
	if err := virtual.Create(dir, spec); err != nil {
		t.Fatal(err)
	}
	return reopen(t, dir)
}

func reopen(t *testing.T, dir string) *virtual.Board {
	t.Helper()
	b, err := virtual.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() }) // may be closed already
	return b
}

func contents(t *testing.T, b *virtual.Board) []byte {
	t.Helper()
	p := make([]byte, b.Flash.Geometry().Size)
	if _, err := b.Flash.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// between reports whether every bit of got has its value of before or of after.
func between(got, before, after []byte) bool {
	for i := range got {
		if (got[i]^before[i])&(got[i]^after[i]) != 0 {
			return false
		}
	}
	return true
}

func count(b []byte, changed func(i int) bool) (n int) {
	for i := range b {
		if changed(i) {
			n++
		}
	}
	return n
}

// A cut tears only the operation it meets, each bit of which is as before or as after, and nothing works until the power is
// back. The modes differ as they say.
func TestAPowerCutTearsOneOperationOfFlash(t *testing.T) {
	operations := map[string]func(f hw.Flash) error{
		"program": func(f hw.Flash) error { return f.Program(2*sector, bytes.Repeat([]byte{0x5a}, page)) },
		"erase":   func(f hw.Flash) error { return f.Erase(1) },
	}
	for name, op := range operations {
		for _, mode := range virtual.Modes() {
			partial := false
			for seed := range uint64(20) {
				for kind, b := range boards(t) {
					if err := b.Flash.Program(0, bytes.Repeat([]byte{0xa5}, 2*sector)); err != nil {
						t.Fatal(err)
					}
					before := contents(t, b)
					after := bytes.Clone(before)
					if name == "program" {
						copy(after[2*sector:], bytes.Repeat([]byte{0x5a}, page))
					} else {
						copy(after[sector:], bytes.Repeat([]byte{0xff}, sector))
					}
					b.Power.CutAt(1, mode, seed)
					if err := op(b.Flash); !errors.Is(err, hw.ErrPowerCut) {
						t.Fatalf("%s %s %s: %v", kind, name, mode, err)
					}
					if err := nothingWorks(b); err != nil {
						t.Fatalf("%s %s %s: %v", kind, name, mode, err)
					}
					b.Reset()
					got := contents(t, b)
					switch {
					case mode == virtual.Before && !bytes.Equal(got, before), mode == virtual.After && !bytes.Equal(got, after):
						t.Fatalf("%s %s %s: the operation is neither undone nor done", kind, name, mode)
					case !between(got, before, after):
						t.Fatalf("%s %s %s: a bit that was to stay has changed", kind, name, mode)
					}
					partial = partial || !bytes.Equal(got, before) && !bytes.Equal(got, after)
					if mode == virtual.Torn { // a prefix: once a byte is as before, so are all after it
						first := count(got, func(i int) bool { return got[i] == after[i] && before[i] != after[i] })
						want := bytes.Clone(before)
						at := map[string]int{"program": 2 * sector, "erase": sector}[name]
						copy(want[at:at+first], after[at:])
						if n := count(got, func(i int) bool { return got[i] != want[i] }); n > 1 {
							t.Fatalf("%s %s: not a prefix: %d bytes after the first untouched one changed", kind, name, n)
						}
					}
				}
			}
			if torn := mode == virtual.Torn || mode == virtual.Random; partial != torn {
				t.Errorf("%s %s: left something partly done: %v", name, mode, partial)
			}
		}
	}
}

// nothingWorks says which part still answers without power.
func nothingWorks(b *virtual.Board) error {
	for name, use := range map[string]func() error{
		"flash read":    func() error { _, err := b.Flash.ReadAt(make([]byte, 1), 0); return err },
		"flash program": func() error { return b.Flash.Program(3*sector, make([]byte, page)) },
		"flash erase":   func() error { return b.Flash.Erase(3) },
		"fuses":         func() error { _, err := b.Fuses.SecurityCounter(); return err },
		"burning":       func() error { return b.Fuses.RaiseSecurityCounter(9) },
		"boots":         func() error { return b.Boots.Raise(99) },
		"trust":         func() error { _, err := b.Trust.Value(); return err },
		"new key":       func() error { _, err := b.Keys.Generate("late", suite.P256); return err },
		"key":           func() error { _, err := b.Keys.Signer(hw.KeyAttest); return err },
		"end of a key":  func() error { return b.Keys.Destroy(hw.KeyAttest) },
	} {
		if err := use(); !errors.Is(err, hw.ErrPowerCut) {
			return fmt.Errorf("%s without power: %w", name, err)
		}
	}
	return nil
}

// Whatever is burned, in whatever order, with the power failing anywhere: counter and life cycle never fall, what was burned
// and answered stands, and a restart changes nothing.
func TestFusesOnlyEverBecomeMoreRestrictive(t *testing.T) {
	dirs := t.TempDir()
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		n++
		dir := filepath.Join(dirs, fmt.Sprint(n))
		if err := virtual.Create(dir, spec); err != nil {
			r.Fatal(err)
		}
		var counter uint32
		var life hw.Lifecycle
		var debug bool
		for range rapid.IntRange(1, 12).Draw(r, "starts") {
			b, err := virtual.Open(dir)
			if err != nil {
				r.Fatal(err)
			}
			if _, err := b.Fuses.Repair(); err != nil {
				r.Fatal(err)
			}
			now, errC := b.Fuses.SecurityCounter()
			stage, errL := b.Fuses.Lifecycle()
			locked, errD := b.Fuses.DebugLocked()
			if errC != nil || errL != nil || errD != nil || now < counter || stage < life || debug && !locked {
				r.Fatalf("after a restart counter %d, life %s, debug lock %v; it was %d, %s, %v", now, stage, locked, counter, life, debug)
			}
			if err := b.Fuses.Check(); err != nil {
				r.Fatalf("after the repair: %v", err)
			}
			counter, life, debug = now, stage, locked
			if rapid.Bool().Draw(r, "cut") {
				b.Power.CutAt(uint64(rapid.IntRange(1, 5).Draw(r, "at")), rapid.SampledFrom(virtual.Modes()).Draw(r, "mode"), rapid.Uint64().Draw(r, "seed"))
			}
			to := rapid.Uint32Range(0, hw.CounterMax).Draw(r, "counter")
			if err := b.Fuses.RaiseSecurityCounter(to); err == nil {
				counter = max(counter, to)
			}
			next := hw.Lifecycle(rapid.IntRange(0, 3).Draw(r, "life"))
			switch err := b.Fuses.Advance(next); {
			case err == nil && next < life:
				r.Fatalf("life cycle went from %s to %s", life, next)
			case err == nil:
				life = next
			}
			if rapid.Bool().Draw(r, "lock") && b.Fuses.LockDebug() == nil {
				debug = true
			}
			if err := b.Close(); err != nil {
				r.Fatal(err)
			}
		}
	})
}

func TestFixedFusesAreBurnedOnce(t *testing.T) {
	one, two := sha256.Sum256([]byte("1")), sha256.Sum256([]byte("2"))
	for kind, b := range boards(t) {
		f := b.Fuses
		if _, err := f.Root(); !errors.Is(err, hw.ErrNotBurned) {
			t.Errorf("%s: a blank root: %v", kind, err)
		}
		for seed := range uint64(8) { // cut again and again in the middle
			b.Power.CutAt(seed/2+1, virtual.Random, seed)
			b.Reset() // a start is not what it waits for
			if err := f.BurnRoot(one); !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("%s: the cut did not come: %v", kind, err)
			}
			b.Reset()
			if d, err := f.Root(); err == nil && d != one {
				t.Fatalf("%s: half a root reads as %x", kind, d)
			}
		}
		if err := f.BurnRoot(one); err != nil {
			t.Fatalf("%s: the burning does not go on: %v", kind, err)
		}
		if err := f.BurnRoot(two); !errors.Is(err, hw.ErrBurned) {
			t.Errorf("%s: another root over the first: %v", kind, err)
		}
		if err := f.BurnRoot(one); err != nil {
			t.Errorf("%s: the same root again: %v", kind, err)
		}
		if d, err := f.Root(); err != nil || d != one {
			t.Errorf("%s: root %x, %v", kind, d, err)
		}
		if err := f.BurnSecret(two); err != nil {
			t.Fatal(err)
		}
		f.LockFixed()
		if _, err := f.Secret(); !errors.Is(err, hw.ErrLocked) {
			t.Errorf("%s: the secret after its lock: %v", kind, err)
		}
		b.Reset()
		if d, err := f.Secret(); err != nil || d != two {
			t.Errorf("%s: the secret after a reset: %x, %v", kind, d, err)
		}
		if err := f.RaiseSecurityCounter(hw.CounterMax + 1); !errors.Is(err, hw.ErrCounterExhausted) {
			t.Errorf("%s: a counter beyond the fuses: %v", kind, err)
		}
	}
}

func TestADecommissionedDeviceStaysOne(t *testing.T) {
	dir := t.TempDir()
	if err := virtual.Create(dir, spec); err != nil {
		t.Fatal(err)
	}
	b := reopen(t, dir)
	if err := b.Fuses.Advance(hw.Decommissioned); err != nil {
		t.Fatal(err)
	}
	for _, l := range []hw.Lifecycle{hw.Assembly, hw.Secured} {
		if err := b.Fuses.Advance(l); err == nil || !strings.Contains(err.Error(), "decommissioned cannot become "+l.String()) {
			t.Errorf("to %s: %v", l, err)
		}
	}
	for word := range hw.FuseWords { // whoever drives the bank itself can only add bits
		if err := b.Fuses.Bank().Blow(word, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err := reopen(t, dir).Fuses.Lifecycle(); err != nil || l != hw.Decommissioned {
		t.Errorf("after a restart %s, %v", l, err)
	}
}

func TestCountersOnlyRise(t *testing.T) {
	dir := t.TempDir()
	if err := virtual.Create(dir, spec); err != nil {
		t.Fatal(err)
	}
	b := reopen(t, dir)
	for _, mode := range virtual.Modes() {
		before, err := b.Boots.Value()
		if err != nil {
			t.Fatal(err)
		}
		b.Power.CutAt(1, mode, 3)
		if err := b.Boots.Raise(before + 1); !errors.Is(err, hw.ErrPowerCut) {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = reopen(t, dir)
		if got, err := b.Boots.Value(); err != nil || got != before && got != before+1 {
			t.Errorf("%s: %d became %d, %v", mode, before, got, err)
		}
	}
	if err := b.Boots.Raise(100); err != nil {
		t.Fatal(err)
	}
	if err := b.Boots.Raise(99); err == nil {
		t.Error("a counter went back")
	}
	if trust, err := b.Trust.Value(); err != nil || trust != 0 {
		t.Errorf("the other counter moved: %d, %v", trust, err)
	}
}

func public(t *testing.T, k hw.KeyStore, name string) crypto.PublicKey {
	t.Helper()
	s, err := k.Signer(name)
	if err != nil {
		t.Fatal(err)
	}
	return s.Public()
}

func TestKeysAreMadeOnceAndDestroyedForGood(t *testing.T) {
	dir := t.TempDir()
	if err := virtual.Create(dir, spec); err != nil {
		t.Fatal(err)
	}
	b := reopen(t, dir)
	first, err := b.Keys.Generate(hw.KeyAttest, suite.P256)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Keys.Generate(hw.KeyAttest, suite.P256); !errors.Is(err, hw.ErrKeyExists) {
		t.Errorf("over an old key: %v", err)
	}
	s, err := b.Keys.Signer(hw.KeyAttest)
	if err != nil {
		t.Fatal(err)
	}
	d := sha256.Sum256([]byte("m"))
	sig, err := s.Sign(rand.Reader, d[:], crypto.SHA256)
	if pub, ok := first.(*ecdsa.PublicKey); err != nil || !ok || !ecdsa.VerifyASN1(pub, d[:], sig) {
		t.Errorf("the key does not sign for what was handed out: %v", err)
	}
	for _, mode := range virtual.Modes() {
		b.Power.CutAt(1, mode, 1)
		if err := b.Keys.Destroy(hw.KeyAttest); !errors.Is(err, hw.ErrPowerCut) {
			break // it was destroyed by the cut before
		}
		b.Reset()
	}
	b.Reset()
	if err := b.Keys.Destroy(hw.KeyAttest); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = reopen(t, dir)
	if _, err := b.Keys.Signer(hw.KeyAttest); !errors.Is(err, hw.ErrNoKey) {
		t.Errorf("a destroyed key: %v", err)
	}
	if err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if strings.Contains(path, hw.KeyAttest) {
			t.Errorf("%s is left of it", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Keys.Generate(hw.KeyAttest, suite.P256); err != nil {
		t.Fatal(err)
	}
	if k, ok := public(t, b.Keys, hw.KeyAttest).(*ecdsa.PublicKey); !ok || k.Equal(first) {
		t.Error("the same key came again")
	}
	for _, name := range []string{"", "../idevid", "a/b", "A"} {
		if _, err := b.Keys.Generate(name, suite.P256); err == nil || errors.Is(err, hw.ErrPowerCut) {
			t.Errorf("key name %q: %v", name, err)
		}
	}
}

func TestABrokenBoardIsNamed(t *testing.T) {
	for file, c := range map[string]struct {
		content string
		says    []string
	}{
		"board.json":       {"{", []string{"board.json"}},
		"board.json shape": {`{"flash":{"Size":100,"Sector":64,"Page":7}}`, []string{"board.json", "whole sectors"}},
		"flash.bin":        {"short", []string{"flash.bin", "1024 bytes", "broken"}},
		"fuses.bin":        {"", []string{"fuses.bin", "160 bytes", "broken"}},
		"counters.bin":     {strings.Repeat("x", 17), []string{"counters.bin", "32 bytes", "broken"}},
	} {
		dir := t.TempDir()
		if err := virtual.Create(dir, spec); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, strings.Fields(file)[0])
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		for how, open := range map[string]func(string) (*virtual.Board, error){"opened": virtual.Open, "looked at": virtual.Snapshot} {
			_, err := open(dir)
			for _, s := range append(c.says, dir) {
				if err == nil || !strings.Contains(err.Error(), s) {
					t.Errorf("%s, %s: %v, want it to say %q", file, how, err, s)
				}
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := virtual.Open(dir); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), filepath.Base(path)) {
			t.Errorf("without %s: %v", path, err)
		}
	}
	b := onDisk(t)
	if _, err := b.Keys.Generate(hw.KeyIDevID, suite.P256); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := virtual.Create(dir, spec); err != nil {
		t.Fatal(err)
	}
	if err := virtual.Create(dir, spec); err == nil || !strings.Contains(err.Error(), "a board is there already") {
		t.Errorf("a board over a board: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "keys", "idevid.key"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := reopen(t, dir).Keys.Signer(hw.KeyIDevID); err == nil || errors.Is(err, hw.ErrNoKey) || !strings.Contains(err.Error(), `"idevid" is damaged`) {
		t.Errorf("a damaged key: %v", err)
	}
}

func TestAHandAtThePlug(t *testing.T) {
	for content, says := range map[string]string{
		`{"after": 2, "mode": "before"}`: "",
		`{"mode": "after"}`:              "",
		`{"after": 2}`:                   "mode",
		`{"after": 2, "mode": "sudden"}`: "before",
		`{"after": -1, "mode": "torn"}`:  "-1",
		`{"afterr": 1, "mode": "torn"}`:  "afterr",
		`{"mode": "torn"} {}`:            "not a power cut",
		`cut`:                            "not a power cut",
	} {
		dir := t.TempDir()
		if err := virtual.Create(dir, spec); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, virtual.CutFile)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		b := reopen(t, dir)
		var err error
		done := 0
		for ; err == nil && done < 10; done++ {
			err = b.Boots.Raise(uint64(done) + 1)
		}
		_, left := os.Stat(path)
		if says == "" {
			if !errors.Is(err, hw.ErrPowerCut) || left == nil {
				t.Errorf("%s: after %d operations %v; file left: %v", content, done, err, left == nil)
			}
			continue
		}
		if done != 1 || errors.Is(err, hw.ErrPowerCut) || err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: after %d operations %v, want an error at the first that names the file and %q", content, done, err, says)
		}
		if left != nil {
			t.Errorf("%s: the file that could not be read is gone: %v", content, left)
		}
		if n, err := b.Boots.Value(); err != nil || n != 0 {
			t.Errorf("%s: the operation was done all the same: %d, %v", content, n, err)
		}
	}
}

func TestACloneIsADeviceOfItsOwn(t *testing.T) {
	b, err := virtual.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Keys.Generate(hw.KeyAttest, suite.P256); err != nil {
		t.Fatal(err)
	}
	c, err := b.Clone()
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := public(t, c.Keys, hw.KeyAttest).(*ecdsa.PublicKey); !ok || !k.Equal(public(t, b.Keys, hw.KeyAttest)) {
		t.Error("the clone has another key")
	}
	if err := errors.Join(c.Keys.Destroy(hw.KeyAttest), c.Flash.Program(0, make([]byte, page)), c.Fuses.Advance(hw.Decommissioned), c.Boots.Raise(5)); err != nil {
		t.Fatal(err)
	}
	public(t, b.Keys, hw.KeyAttest)
	life, err := b.Fuses.Lifecycle()
	if boots, berr := b.Boots.Value(); err != nil || berr != nil || life != hw.Assembly || boots != 0 || contents(t, b)[0] != 0xff {
		t.Errorf("what was done to the clone reached the original: %s, %d boots, %v", life, boots, errors.Join(err, berr))
	}
	if _, err := onDisk(t).Clone(); err == nil {
		t.Error("a board in a directory was cloned")
	}
}

func TestABoardKeepsKeysInFiles(t *testing.T) {
	dir := t.TempDir()
	if err := virtual.Create(dir, virtual.Spec{Revision: "A", Flash: hw.Geometry{Size: 64 << 10, Sector: 4096, Page: 256}}); err != nil {
		t.Fatal(err)
	}
	keystest.Run(t, keystest.Store{Open: func(t *testing.T) hw.KeyStore {
		t.Helper()
		b, err := virtual.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		return b.Keys
	}, Suites: suite.IDs()})
}

func TestAVirtualBoardIsABoard(t *testing.T) {
	boardtest.Run(t, boardtest.Board{Blank: func(t *testing.T) func(t *testing.T) (*hw.Board, func()) {
		t.Helper()
		dir := t.TempDir()
		if err := virtual.Create(dir, virtual.Spec{Revision: "A", Flash: hw.Geometry{Size: 64 << 10, Sector: 4096, Page: 256}}); err != nil {
			t.Fatal(err)
		}
		return func(t *testing.T) (*hw.Board, func()) {
			t.Helper()
			b, err := virtual.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			return &b.Board, func() { _ = b.Close() }
		}
	}})
}
