package boot

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

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
	if err := r.Admit(code); err != nil {
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
	begin := func(code byte, record []byte) (*Manager, error) {
		t.Helper()
		b.Reset()
		r, err := NewROM(&b.Board)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Restore(record); err != nil {
			t.Fatal(err)
		}
		if err := r.Admit([32]byte{code}); err != nil {
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
	refused := func(what string, code byte, record []byte) {
		t.Helper()
		if _, err := begin(code, record); !errors.Is(err, wire.ErrBootManager) {
			t.Errorf("%s: %v", what, err)
		}
	}
	runs := func(what string, code byte, record []byte) *Manager {
		t.Helper()
		mgr, err := begin(code, record)
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
	record := copied(t, mgr)
	if err := mgr.SetBundle(m.starts(t, named(7), named(8))); err != nil { // the device runs on under another bundle than it has started by
		t.Fatal(err)
	}
	old, record := record, copied(t, mgr)
	if err := mgr.flash.Lose(false); err != nil {
		t.Fatal(err)
	}
	refused("without a bundle", 7, nil)
	refused("without a bundle, and with the copy of the one before", 7, old)
	refused("without a bundle, and with a copy that was changed", 7, slices.Concat(record[:len(record)/2], []byte{^record[len(record)/2]}, record[len(record)/2+1:]))
	refused("without a bundle, and with a copy that does not name it", 6, record)
	if err := mgr.flash.Lose(false); err != nil { // that one brought it back
		t.Fatal(err)
	}
	mgr = runs("without a bundle, and with the copy of the last", 7, record)
	if mgr.rep.Release == nil || mgr.rep.Bundle.Version != m.bundle.Version || !slices.ContainsFunc(mgr.rep.Notes, func(n string) bool { return strings.Contains(n, "from its copy") }) {
		t.Errorf("with its bundle back it runs %v under bundle %d, and notes %q", mgr.rep.Release, mgr.rep.Bundle.Version, mgr.rep.Notes)
	}
	runs("the next time, from its flash", 7, nil)
}

// copied is the trust record, as it is laid beside the boot manager that is kept.
func copied(t *testing.T, m *Manager) []byte {
	t.Helper()
	record, err := m.Trusted()
	if err != nil || record == nil {
		t.Fatalf("%x, %v", record, err)
	}
	return record
}

// A copy of the trust record is worth nothing to a board that has its own, to one of another device's root, and to one that was handed on since.
func TestACopyOfTheTrustRecordIsOneBoardsOwn(t *testing.T) {
	m := newMaker(t)
	b := born(t, m, m.release(t, "1.0.0", 1, nil))
	mgr, err := Start(&b.Board, [32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	before := copied(t, mgr)
	if err := mgr.SetBundle(m.starts(t, named(7))); err != nil {
		t.Fatal(err)
	}
	other := newMaker(t)
	o := born(t, other, other.release(t, "1.0.0", 1, nil))
	strange, err := Start(&o.Board, [32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	for what, record := range map[string][]byte{"of another root": copied(t, strange), "of before": before, "that is none": {1, 2, 3}} {
		b.Reset()
		r, err := NewROM(&b.Board)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Restore(record); err != nil || r.m.rep.Bundle.Version != m.bundle.Version {
			t.Errorf("a copy %s: %v, bundle %d", what, err, r.m.rep.Bundle.Version)
		}
		r.m.rep.Bundle, r.m.trust = wire.Bundle{}, trustRecord{}
		if err := r.Restore(record); err != nil || r.m.rep.Bundle.Version != 0 {
			t.Errorf("a copy %s, where there is no bundle: %v, bundle %d", what, err, r.m.rep.Bundle.Version)
		}
		r.Close()
	}
}

// The power fails at each write by which a trust bundle comes back from its copy: the next start brings it back.
func TestPowerCutAtEveryWriteOfATrustBundleThatComesBack(t *testing.T) {
	m := newMaker(t)
	base := born(t, m, m.release(t, "1.0.0", 1, nil))
	mgr, err := Start(&base.Board, [32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	if err := mgr.SetBundle(m.starts(t, named(7))); err != nil {
		t.Fatal(err)
	}
	record := copied(t, mgr)
	if err := mgr.flash.Lose(false); err != nil {
		t.Fatal(err)
	}
	base.Reset()
	comes := func(b *virtual.Board) error {
		r, err := NewROM(&b.Board)
		if err != nil {
			return err
		}
		if err := r.Restore(record); err != nil {
			return err
		}
		return r.Admit([32]byte{7})
	}
	whole, err := base.Clone()
	if err != nil {
		t.Fatal(err)
	}
	before := whole.Power.Ops()
	if err := comes(whole); err != nil {
		t.Fatal(err)
	}
	ops := whole.Power.Ops() - before
	for n := uint64(1); n <= ops; n++ {
		for _, mode := range virtual.Modes() {
			b, err := base.Clone()
			if err != nil {
				t.Fatal(err)
			}
			b.Power.CutAt(n, mode, n)
			if err := comes(b); !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("cut %d %s: %v", n, mode, err)
			}
			b.Reset()
			if err := comes(b); err != nil {
				t.Errorf("after cut %d %s: %v", n, mode, err)
			}
		}
	}
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

// A boot manager of before that is kept goes on with what a later first stage hands over, as long as that only grew; when it may not, it says so.
func TestAHandoffOfALaterReleaseIsUnderstoodOrRefused(t *testing.T) {
	later := func(version uint, more map[uint64]any) []byte {
		t.Helper()
		h := handoffForTest()
		h.Version = version
		data, err := wire.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		var all map[uint64]cbor.RawMessage
		if err := wire.Unmarshal(data, &all, MaxHandoff); err != nil {
			t.Fatal(err)
		}
		for key, v := range more {
			if all[key], err = wire.Marshal(v); err != nil {
				t.Fatal(err)
			}
		}
		if data, err = wire.Marshal(all); err != nil {
			t.Fatal(err)
		}
		return data
	}
	want, err := DecodeHandoff(later(handoffVersion, nil))
	if err != nil {
		t.Fatal(err)
	}
	for key, v := range map[uint64]any{14: make([]byte, 32), 200: map[string]uint64{"a": 1}} {
		got, err := DecodeHandoff(later(handoffVersion, map[uint64]any{key: v}))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("with a field %d that is not known: %+v, %v", key, got, err)
		}
	}
	for _, version := range []uint{0, 1, handoffVersion + 1} {
		if _, err := DecodeHandoff(later(version, map[uint64]any{2: "another thing"})); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("version %d, this boot manager takes", version)) {
			t.Errorf("version %d: %v", version, err)
		}
	}
	if _, err := DecodeHandoff(later(handoffVersion, map[uint64]any{2: "another thing"})); err == nil {
		t.Error("a field that is known was something else, and was taken")
	}
}

func handoffForTest() Handoff {
	return Handoff{
		Version: handoffVersion, Code: make([]byte, 32), CDI: make([]byte, 32), MarkKey: make([]byte, 32), ParamsKey: make([]byte, 32), Root: make([]byte, 32), Lifecycle: hw.Secured,
		POST: []wire.TestResult{{Name: "a", Passed: true}}, Notes: []string{"n"}, Events: []wire.BootEvent{{Stage: "rom", Kind: "k", Digest: make([]byte, 32)}},
	}
}

func FuzzDecodeHandoff(f *testing.F) {
	data, err := handoffForTest().Encode()
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
		if err != nil || len(again) > len(data) {
			t.Errorf("%x is written %x, %v", data, again, err)
		}
		if other, err := DecodeHandoff(again); err != nil || !reflect.DeepEqual(other, h) {
			t.Errorf("%+v is read again as %+v, %v", h, other, err)
		}
	})
}
