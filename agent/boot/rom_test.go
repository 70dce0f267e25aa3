package boot

import (
	"bytes"
	"errors"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
)

// hand is the first stage of a start.
func hand(b *hw.Board, code [32]byte) (Handoff, error) {
	r, err := NewROM(b)
	if err != nil {
		return Handoff{}, err
	}
	if err := r.Admit(code, nil); err != nil {
		return Handoff{}, err
	}
	return r.Hand(code)
}

// starts makes the maker's next bundle, which names boot managers.
func (m *maker) starts(t *testing.T, ms ...wire.BootManager) []byte {
	t.Helper()
	b := m.bundle
	b.Version++
	b.BootManagers = ms
	p, err := wire.EncodeBundle(b)
	if err != nil {
		t.Fatal(err)
	}
	m.bundle, m.env = b, m.sign(t, wire.TypeBundle, p, 2)
	return m.env
}

func named(code byte, hardware ...string) wire.BootManager {
	d := [32]byte{code}
	return wire.BootManager{Digest: d[:], Hardware: hardware}
}

// A device starts by whatever boot manager it has until a trust bundle says which may; from then on by those alone, whatever becomes of its flash.
func TestABootManagerIsSignedFor(t *testing.T) {
	m := newMaker(t)
	b := born(t, m, m.release(t, "1.0.0", 1, nil))
	begin := func(code byte, kept []byte) (*Manager, error) {
		t.Helper()
		b.Reset()
		r, err := NewROM(&b.Board)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Admit([32]byte{code}, kept); err != nil {
			r.Close()
			if _, err := b.Fuses.Secret(); !errors.Is(err, hw.ErrLocked) {
				t.Errorf("where nothing may start the secret reads: %v", err)
			}
			if _, err := r.Hand([32]byte{code}); !errors.Is(err, wire.ErrBootManager) {
				t.Errorf("what was refused is handed to: %v", err)
			}
			return nil, err
		}
		h, err := r.Hand([32]byte{code})
		if err != nil {
			t.Fatal(err)
		}
		mgr, err := Begin(&b.Board, h)
		if err != nil {
			t.Fatal(err)
		}
		return mgr, nil
	}
	refused := func(what string, code byte, kept []byte) {
		t.Helper()
		if _, err := begin(code, kept); !errors.Is(err, wire.ErrBootManager) {
			t.Errorf("%s: %v", what, err)
		}
	}
	runs := func(what string, code byte, kept []byte) *Manager {
		t.Helper()
		mgr, err := begin(code, kept)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return mgr
	}
	mgr := runs("where the bundle names none", 7, nil)
	if got := mgr.rep.Events[0].Text; got != "nobody has signed for it" {
		t.Errorf("the log says %q", got)
	}
	first := m.bundle
	if err := mgr.SetBundle(m.starts(t, named(8))); !errors.Is(err, wire.ErrBootManager) {
		t.Errorf("a bundle under which it would not start again: %v", err)
	}
	m.bundle = first
	if err := mgr.SetBundle(m.starts(t, named(7), named(8, "A"), named(9, "B"))); err != nil {
		t.Fatal(err)
	}
	refused("one that is not named", 6, nil)
	refused("one for other hardware", 9, nil)
	runs("one that is named for this hardware", 8, nil)
	mgr = runs("one that is named", 7, nil)
	if got := mgr.rep.Events[0].Text; got != "signed for in trust bundle 2" || mgr.rep.Release == nil {
		t.Errorf("the log says %q, and %v runs", got, mgr.rep.Release)
	}
	second := m.bundle
	if err := mgr.SetBundle(m.starts(t)); !errors.Is(err, wire.ErrBootManager) {
		t.Errorf("a bundle that names none any more: %v", err)
	}
	m.bundle = second
	mark := mgr.rep.Kept
	if err := mgr.flash.Lose(false); err != nil {
		t.Fatal(err)
	}
	refused("without a bundle", 7, nil)
	refused("without a bundle, and with another's mark", 8, mark)
	refused("without a bundle, and with a mark that was changed", 7, append([]byte{^mark[0]}, mark[1:]...))
	mgr = runs("without a bundle, and with its own mark", 7, mark)
	if mgr.rep.Release != nil {
		t.Error("without a bundle something runs")
	}
	if err := b.Trust.Raise(m.bundle.Version + 1); err != nil {
		t.Fatal(err)
	}
	refused("with a mark of before what was believed last", 7, mark)
}

// The first stage needs no keys, closes what is its alone, and hands over nothing from which the secret could be had; the second, over a line of bytes,
// starts the same device as one process does.
func TestTheStagesOfAStartShareNothingButTheHandoff(t *testing.T) {
	m := newMaker(t)
	f := m.release(t, "1.0.0", 1, nil)
	b := born(t, m, f)
	secret, err := b.Fuses.Secret()
	if err != nil {
		t.Fatal(err)
	}
	keys := b.Keys
	b.Keys, b.Banks = nil, nil
	h, err := hand(&b.Board, [32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Fuses.Secret(); !errors.Is(err, hw.ErrLocked) {
		t.Errorf("behind the first stage the secret reads: %v", err)
	}
	if err := b.Fuses.BurnRoot([32]byte{0xff}); !errors.Is(err, hw.ErrLocked) && !errors.Is(err, hw.ErrBurned) {
		t.Errorf("behind the first stage the root burns: %v", err)
	}
	data, err := h.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, secret[:]) || bytes.Contains(data, secret[:16]) {
		t.Error("the secret is handed over")
	}
	if h, err = DecodeHandoff(data); err != nil {
		t.Fatal(err)
	}
	b.Keys = keys
	b.Fuses.Bank().LockFixed()
	mgr, err := Begin(&b.Board, h)
	if err != nil {
		t.Fatal(err)
	}
	if mgr.rep.Release == nil || mgr.rep.Digest != f.digest || len(mgr.rep.POST) != 9 {
		t.Fatalf("it starts %+v", mgr.rep)
	}
	want := []wire.BootEvent{
		{Stage: wire.StageROM, Kind: wire.EventBootManager, Digest: []byte{7}, Text: "nobody has signed for it"},
		{Stage: wire.StageBoot, Kind: wire.EventRelease, Digest: f.digest[:], Text: "1.0.0"},
	}
	want[0].Digest = append(want[0].Digest, make([]byte, 31)...)
	for i, e := range mgr.rep.Events {
		if len(mgr.rep.Events) != len(want) || e.Stage != want[i].Stage || e.Kind != want[i].Kind || !bytes.Equal(e.Digest, want[i].Digest) || e.Text != want[i].Text {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	b.Reset()
	one, err := Start(&b.Board, [32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	b.Reset()
	other, err := Start(&b.Board, [32]byte{8})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.cdi, mgr.cdi) || bytes.Equal(other.cdi, mgr.cdi) {
		t.Error("the identifier does not follow from what was measured")
	}
	if !bytes.Equal(other.paramsKey, mgr.paramsKey) || !bytes.Equal(other.markKey, mgr.markKey) {
		t.Error("the device's keys change with its boot manager")
	}
	if bytes.Equal(h.CDI, mgr.cdi) {
		t.Error("the boot manager goes on with its own identifier")
	}
}

// The power fails at each write of a start, in either stage: the next one comes to the same.
func TestPowerCutAtEveryWriteOfAStart(t *testing.T) {
	m := newMaker(t)
	f := m.release(t, "1.0.0", 1, nil)
	next := m.release(t, "2.0.0", 2, nil)
	base := born(t, m, f)
	mgr, err := Start(&base.Board, [32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	// The first stage burns that a boot manager has to be signed for, and the second counts a try.
	if err := errors.Join(mgr.SetBundle(m.starts(t, named(7))), mgr.Stage(t.Context(), next.env, next.source, nil), mgr.Activate(next.digest)); err != nil {
		t.Fatal(err)
	}
	base.Reset()
	whole, err := base.Clone()
	if err != nil {
		t.Fatal(err)
	}
	before := whole.Power.Ops()
	if _, err := Start(&whole.Board, [32]byte{7}); err != nil {
		t.Fatal(err)
	}
	ops := whole.Power.Ops() - before
	if ops < 5 {
		t.Fatalf("a start writes %d times", ops)
	}
	for n := uint64(1); n <= ops; n++ {
		for _, mode := range virtual.Modes() {
			b, err := base.Clone()
			if err != nil {
				t.Fatal(err)
			}
			b.Power.CutAt(n, mode, n)
			if _, err := Start(&b.Board, [32]byte{7}); !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("cut %d %s: %v", n, mode, err)
			}
			b.Reset()
			mgr, err := Start(&b.Board, [32]byte{7})
			if err != nil {
				t.Fatalf("after cut %d %s: %v", n, mode, err)
			}
			if demand, err := b.Fuses.SignedBoot(); err != nil || !demand {
				t.Errorf("after cut %d %s no signature is demanded: %v", n, mode, err)
			}
			if mgr.rep.Digest != next.digest || !mgr.rep.Trial {
				t.Errorf("after cut %d %s it runs %x", n, mode, mgr.rep.Digest)
			}
		}
	}
}

func FuzzDecodeHandoff(f *testing.F) {
	h := Handoff{
		Version: 1, Code: make([]byte, 32), CDI: make([]byte, 32), MarkKey: make([]byte, 32), Kept: make([]byte, 32), ParamsKey: make([]byte, 32), Root: make([]byte, 32), Lifecycle: hw.Secured,
		POST: []wire.TestResult{{Name: "a", Passed: true}}, Notes: []string{"n"}, Events: []wire.BootEvent{{Stage: "rom", Kind: "k", Digest: make([]byte, 32)}},
	}
	data, err := h.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := DecodeHandoff(data)
		if err != nil {
			return
		}
		again, err := h.Encode()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%x is written %x, %v", data, again, err)
		}
	})
}
