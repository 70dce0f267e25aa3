package boot

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// mutants gives changed copies of b: bits, bytes, what is cut off or out, put in, doubled or exchanged.
func mutant(rng *rand.Rand, b []byte) []byte {
	at, n := rng.IntN(len(b)), rng.IntN(16)+1
	end := min(at+n, len(b))
	switch rng.IntN(7) {
	case 0:
		out := bytes.Clone(b)
		out[at] ^= 1 << rng.IntN(8)
		return out
	case 1:
		out := bytes.Clone(b)
		for i := at; i < end; i++ {
			out[i] = byte(rng.Uint32())
		}
		return out
	case 2:
		return bytes.Clone(b[:at])
	case 3:
		return slices.Concat(b[:at], b[end:])
	case 4:
		return slices.Concat(b[:at], b[at:end], b[at:])
	case 5:
		more := make([]byte, n)
		for i := range more {
			more[i] = byte(rng.Uint32())
		}
		return slices.Concat(b[:at], more, b[at:])
	}
	other := rng.IntN(len(b))
	out := bytes.Clone(b)
	out[at], out[other] = out[other], out[at]
	return out
}

// A hundred thousand changed manifests (with HALLMARK_LONG; else ten thousand) are refused before anything is written, or are the manifest that was signed.
func TestChangedManifestsAreRefusedBeforeTheFirstWrite(t *testing.T) {
	m := newMaker(t)
	b := born(t, m, m.release(t, "1.0.0", 1, nil))
	mgr := mustBoot(t, b)
	next := m.release(t, "2.0.0", 2, nil)
	runs := 10_000
	if os.Getenv("HALLMARK_LONG") != "" {
		runs = 100_000
	}
	rng := rand.New(rand.NewPCG(3, 4))
	before, same := b.Power.Ops(), 0
	for range runs {
		env := mutant(rng, next.env)
		if bytes.Equal(env, next.env) {
			same++
			continue
		}
		if err := mgr.Stage(t.Context(), env, next.source, nil); err == nil || b.Power.Ops() != before {
			t.Fatalf("after %d writes: %v: %x", b.Power.Ops()-before, err, env)
		}
	}
	if same > runs/10 {
		t.Errorf("%d of %d were not changed", same, runs)
	}
	if err := update(b, next); err != nil {
		t.Errorf("what was signed is not taken afterwards: %v", err)
	}
}

// Enough signatures do not make a manifest well formed: what is signed is parsed as strictly.
func TestASignedManifestThatIsNoneIsRefusedBeforeTheFirstWrite(t *testing.T) {
	m := newMaker(t)
	b := born(t, m, m.release(t, "1.0.0", 1, nil))
	mgr := mustBoot(t, b)
	next := m.release(t, "2.0.0", 2, nil)
	payload, err := wire.EncodeRelease(next.rel)
	if err != nil {
		t.Fatal(err)
	}
	if payload[0]>>5 != 5 || payload[0]&31 >= 23 {
		t.Fatalf("not a small map: %x", payload[0])
	}
	unknown := slices.Concat([]byte{payload[0] + 1}, payload[1:], []byte{0x18, 99, 1})
	cyclic := m.assets(t, "2.0.0", 2, []part{{"a", "1.0.0", 10}, {"b", "1.0.0", 10}}, func(r *wire.Release) {
		r.Components[0].Requires = []wire.Requirement{{Component: "b", From: "1.0.0"}}
		r.Components[1].Requires = []wire.Requirement{{Component: "a", From: "1.1.0"}}
	})
	for name, env := range map[string][]byte{
		"empty":             m.sign(t, wire.TypeRelease, []byte{0xa0}, 2),
		"truncated":         m.sign(t, wire.TypeRelease, payload[:len(payload)-1], 2),
		"something behind":  m.sign(t, wire.TypeRelease, append(bytes.Clone(payload), 0), 2),
		"an unknown member": m.sign(t, wire.TypeRelease, unknown, 2),
		"without an end":    m.sign(t, wire.TypeRelease, append([]byte{0xbf}, payload[1:]...), 2),
		"deep":              m.sign(t, wire.TypeRelease, bytes.Repeat([]byte{0x81}, 20_000), 2),
		"a large promise":   m.sign(t, wire.TypeRelease, []byte{0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 2),
		"oversized":         m.sign(t, wire.TypeRelease, append(bytes.Clone(payload), make([]byte, wire.MaxRelease)...), 2),
		"another type":      m.sign(t, wire.TypeBundle, payload, 2),
		"cyclic":            cyclic.env,
	} {
		before := b.Power.Ops()
		if err := mgr.Stage(t.Context(), env, next.source, nil); err == nil || b.Power.Ops() != before {
			t.Errorf("%s: %v, %d writes", name, err, b.Power.Ops()-before)
		}
	}
}

// wornFlash has one sector that does not do any more what it should.
type wornFlash struct {
	hw.Flash
	sector int64
	how    string
}

var errWorn = errors.New("the sector is worn out")

func (w *wornFlash) Erase(n int64) error {
	if n != w.sector || w.how == "forgets" {
		return w.Flash.Erase(n)
	}
	if w.how == "says so" {
		return errWorn
	}
	return nil // it stays as it is, and nobody says so
}

func (w *wornFlash) Program(off int64, data []byte) error {
	g := w.Geometry()
	if off/g.Sector > w.sector || (off+int64(len(data))-1)/g.Sector < w.sector || w.how == "keeps" {
		return w.Flash.Program(off, data)
	}
	if w.how == "says so" {
		return errWorn
	}
	data = bytes.Clone(data)
	at := max(0, w.sector*g.Sector-off)
	data[at] |= 0x80 // a bit that stays erased
	data[at+1] |= 1
	return w.Flash.Program(off, data)
}

// touchedFlash remembers which sectors were changed.
type touchedFlash struct {
	hw.Flash
	sectors map[int64]bool
}

func (f *touchedFlash) Erase(n int64) error {
	f.sectors[n] = true
	return f.Flash.Erase(n)
}

func (f *touchedFlash) Program(off int64, data []byte) error {
	for n := off / f.Geometry().Sector; n <= (off+int64(len(data))-1)/f.Geometry().Sector; n++ {
		f.sectors[n] = true
	}
	return f.Flash.Program(off, data)
}

// A sector that is worn out, wherever it is and whatever it does, costs an update at most: the release before goes on, or the new one runs whole.
func TestAWornSectorCostsAnUpdateAtMost(t *testing.T) {
	m := newMaker(t)
	v1, v2 := m.release(t, "1.0.0", 1, nil), m.release(t, "2.0.0", 2, nil)
	golden := born(t, m, v1)
	whole, err := golden.Clone()
	if err != nil {
		t.Fatal(err)
	}
	seen := &touchedFlash{Flash: whole.Flash, sectors: map[int64]bool{}}
	whole.Flash = seen
	if err := update(whole, v2); err != nil {
		t.Fatal(err)
	}
	failed := 0
	for sector := range seen.sectors {
		for _, how := range []string{"says so", "keeps", "forgets"} {
			b, err := golden.Clone()
			if err != nil {
				t.Fatal(err)
			}
			good := b.Flash
			b.Flash = &wornFlash{good, sector, how}
			if update(b, v2) != nil {
				failed++
			}
			mgr, err := boot(b)
			if err != nil {
				t.Errorf("sector %d, %s: does not start: %v", sector, how, err)
				continue
			}
			if v := running(mgr); v != "1.0.0" && v != "2.0.0" {
				t.Errorf("sector %d, %s: %s: %v", sector, how, v, mgr.rep.Notes)
			} else if mgr.rep.Counter > mgr.rep.Release.Counter {
				t.Errorf("sector %d, %s: counter %d above that of %s", sector, how, mgr.rep.Counter, v)
			}
		}
	}
	if failed == 0 {
		t.Error("no update failed for a worn sector: none was met")
	}
	t.Logf("%d sectors are written, %d updates failed", len(seen.sectors), failed)
}
