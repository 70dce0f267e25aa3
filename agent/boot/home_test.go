package boot

import (
	"bytes"
	"errors"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
)

// handover is the warrant of m's approvers that sends the device to the maker to, who has the bundle env in force.
func handover(t testing.TB, m *maker, env []byte, change func(w *wire.Warrant)) wire.Handover {
	t.Helper()
	payload, _, err := wire.ThresholdPayload(wire.TypeBundle, env)
	if err != nil {
		t.Fatal(err)
	}
	sum := wire.BundleDigest(payload)
	set, err := wire.SetOf([]string{"d1", "d2"})
	if err != nil {
		t.Fatal(err)
	}
	w := wire.Warrant{ID: "w1", Product: "pump", Act: wire.ActRehome, Devices: set, Issued: 1, Expires: 2, Home: &wire.Home{Bundle: sum[:], Server: "https://own.example"}}
	if change != nil {
		change(&w)
	}
	p, err := wire.EncodeWarrant(w)
	if err != nil {
		t.Fatal(err)
	}
	member, err := wire.MembershipOf([]string{"d1", "d2"}, "d1")
	if err != nil {
		t.Fatal(err)
	}
	return wire.Handover{Warrant: m.sign(t, wire.TypeWarrant, p, 2), Member: member, Bundle: env}
}

// mine reports whether the board is at its new home: that one's bundle is in force, and what ran still runs.
func mine(t testing.TB, m *Manager, own wire.Bundle, f firmware) {
	t.Helper()
	got, err := wire.RootDigest(m.rep.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	want, err := wire.RootDigest(own)
	if err != nil {
		t.Fatal(err)
	}
	if got != want || m.rep.Bundle.Version != own.Version || m.rep.Home == nil || m.rep.Home.Server != "https://own.example" {
		t.Fatalf("bundle %d of root %x at %v, want %d of %x; %v", m.rep.Bundle.Version, got, m.rep.Home, own.Version, want, m.rep.Notes)
	}
	if m.rep.Digest != f.digest {
		t.Fatalf("%s runs: %v", running(m), m.rep.Notes)
	}
}

func TestADeviceGoesToAnotherHomeAndNobodyOfBeforeCounts(t *testing.T) {
	a, own := newMaker(t), newMaker(t)
	f := a.release(t, "1.0.0", 1, nil)
	b := born(t, a, f)
	s := newSuccession(t, a)
	for range 3 { // its first home is at version 4, the next begins with 1
		if err := mustBoot(t, b).SetBundle(s.next(false, false)); err != nil {
			t.Fatal(err)
		}
	}
	h := handover(t, a, own.env, nil)
	m := mustBoot(t, b)
	if err := m.MayMove(h); err != nil {
		t.Fatal(err)
	}
	if err := m.Move(h); err != nil {
		t.Fatal(err)
	}
	ops := b.Power.Ops()
	if err := m.Move(h); err != nil || b.Power.Ops() != ops {
		t.Errorf("again: %v, %d operations", err, b.Power.Ops()-ops)
	}
	mine(t, mustBoot(t, b), own.bundle, f)

	late := a.release(t, "1.1.0", 2, nil)
	if err := mustBoot(t, b).Stage(t.Context(), late.env, late.source, nil); err == nil {
		t.Error("a release of the former maker was staged")
	}
	if err := mustBoot(t, b).SetBundle(s.next(false, false)); err == nil {
		t.Error("the former home's next bundle was taken")
	}
	third := newMaker(t)
	if err := mustBoot(t, b).Move(handover(t, a, third.env, nil)); err == nil {
		t.Error("the former maker sent it on")
	}

	o := newSuccession(t, own) // it follows its new home, through changes of root and signers
	for i := range 4 {
		if err := mustBoot(t, b).SetBundle(o.next(i > 1, i == 3)); err != nil {
			t.Fatal(err)
		}
		mine(t, mustBoot(t, b), o.last, f)
	}
	ours := own.release(t, "2.0.0", 3, nil)
	ours.env = signAll(t, wire.TypeRelease, must(wire.ThresholdPayload(wire.TypeRelease, ours.env)), o.signer)
	for range 2 {
		if err := update(b, ours); err != nil {
			t.Fatal(err)
		}
	}
	mine(t, mustBoot(t, b), o.last, ours)
	if err := mustBoot(t, b).Move(handover(t, own, third.env, nil)); err != nil { // and on
		t.Fatal(err)
	}
	mine(t, mustBoot(t, b), third.bundle, ours)
}

func must(payload []byte, _ []wire.KeyID, err error) []byte {
	if err != nil {
		panic(err)
	}
	return payload
}

func TestAHandoverThatIsNone(t *testing.T) {
	a, own := newMaker(t), newMaker(t)
	f := a.release(t, "1.0.0", 1, nil)
	golden := born(t, a, f)
	floored := newSuccession(t, own)
	floored.last.Floor = 2
	other := newMaker(t)
	other.bundle.Product = "kettle"
	p, err := wire.EncodeBundle(other.bundle)
	if err != nil {
		t.Fatal(err)
	}
	kettle := other.sign(t, wire.TypeBundle, p, 2)
	stranger, err := wire.MembershipOf([]string{"d1", "d2"}, "d2")
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]wire.Handover{
		"signed by who would have it": handover(t, own, own.env, nil),
		"signed by one of two": func() wire.Handover {
			h := handover(t, a, own.env, nil)
			h.Warrant = a.sign(t, wire.TypeWarrant, must(wire.ThresholdPayload(wire.TypeWarrant, h.Warrant)), 1)
			return h
		}(),
		"with the bundle of another": func() wire.Handover {
			h := handover(t, a, own.env, nil)
			h.Bundle = newMaker(t).env
			return h
		}(),
		"of another device": func() wire.Handover {
			h := handover(t, a, own.env, nil)
			h.Member = stranger
			return h
		}(),
		"a warrant to disown":                   handover(t, a, own.env, func(w *wire.Warrant) { w.Act, w.Home = wire.ActDisown, nil }),
		"of another product":                    handover(t, a, own.env, func(w *wire.Warrant) { w.Product = "kettle" }),
		"to another product":                    handover(t, a, kettle, nil),
		"to where what runs is below the floor": handover(t, a, floored.next(false, false), nil),
	} {
		m := mustBoot(t, golden)
		before := golden.Power.Ops()
		if m.MayMove(h) == nil || m.Move(h) == nil || golden.Power.Ops() != before {
			t.Errorf("%s: it was followed, or %d operations were made", name, golden.Power.Ops()-before)
		}
	}
	if got := mustBoot(t, golden).rep; got.Home != nil || got.Digest != f.digest {
		t.Errorf("home %v, %v", got.Home, got.Notes)
	}
}

func TestPowerCutAtEveryWriteOfAMove(t *testing.T) {
	a, own := newMaker(t), newMaker(t)
	f := a.release(t, "1.0.0", 1, nil)
	golden := born(t, a, f)
	h := handover(t, a, own.env, nil)
	moved, stayed := 0, 0
	for n := uint64(1); ; n++ {
		b, err := golden.Clone()
		if err != nil {
			t.Fatal(err)
		}
		m := mustBoot(t, b)
		b.Power.CutAt(n, virtual.Random, n)
		if err := m.Move(h); err == nil {
			break
		} else if !errors.Is(err, hw.ErrPowerCut) {
			t.Fatal(err)
		}
		after := mustBoot(t, b)
		if after.rep.Home != nil {
			moved++
			mine(t, after, own.bundle, f)
			continue
		}
		stayed++
		if is, err := wire.RootDigest(after.rep.Bundle); err != nil || is != after.rep.Root || after.rep.Digest != f.digest {
			t.Fatalf("cut %d: neither here nor there: bundle %d, %v, %v", n, after.rep.Bundle.Version, after.rep.Notes, err)
		}
		if err := after.Move(h); err != nil {
			t.Fatalf("cut %d: %v", n, err)
		}
		mine(t, mustBoot(t, b), own.bundle, f)
	}
	if moved == 0 || stayed == 0 {
		t.Errorf("%d cuts found it moved, %d not", moved, stayed)
	}
}

// Who may write the flash, or has it lost, does not bring the former home back, with all of its keys.
func TestTheFormerHomeDoesNotComeBackByTheFlash(t *testing.T) {
	a, own := newMaker(t), newMaker(t)
	b := born(t, a, a.release(t, "1.0.0", 1, nil))
	flash, err := Arrange(b.Flash)
	if err != nil {
		t.Fatal(err)
	}
	s := newSuccession(t, a)
	if err := mustBoot(t, b).SetBundle(s.next(true, false)); err != nil {
		t.Fatal(err)
	}
	before, err := flash.bundle.Load()
	if err != nil {
		t.Fatal(err)
	}
	h := handover(t, a, own.env, nil)
	if err := mustBoot(t, b).Move(h); err != nil {
		t.Fatal(err)
	}
	there, err := flash.bundle.Load()
	if err != nil {
		t.Fatal(err)
	}
	good, err := parseTrustRecord(there)
	if err != nil {
		t.Fatal(err)
	}
	third := newMaker(t)
	elsewhere := good
	x := handover(t, a, third.env, nil)
	elsewhere.Current, elsewhere.Moves = x.Bundle, []move{{At: good.Moves[0].At, Warrant: x.Warrant, Member: x.Member}}
	none := good
	none.Moves = nil
	for name, r := range map[string]any{
		"the record of before": before, "another handover by the same keys": elsewhere, "the new bundle without its handover": none,
		"the new bundle alone": trustRecord{Current: own.env},
	} {
		data, ok := r.([]byte)
		if !ok {
			if data, err = wire.Marshal(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := flash.bundle.Save(data); err != nil {
			t.Fatal(err)
		}
		believesNobody(t, b, name)
	}
	if err := flash.bundle.Wipe(); err != nil {
		t.Fatal(err)
	}
	envs := append([][]byte{a.env}, s.envs...)
	for range 20 {
		envs = append(envs, s.next(false, false))
	}
	if err := mustBoot(t, b).SetBundle(envs...); err == nil {
		t.Error("the former home's history was taken by a device that lost its bundle")
	}
	if err := flash.bundle.Save(there); err != nil {
		t.Fatal(err)
	}
	if got := mustBoot(t, b).rep; got.Home == nil || got.Release == nil {
		t.Errorf("what it kept itself: %v, %v", got.Home, got.Notes)
	}
}

// A board that was handed on and lost its trust record takes a copy of it back, with what followed since; and nothing else: no other board's, none of another
// home, none that somebody changed, and none that leads to less than was in force.
func TestAHandedDeviceThatLostItsRecordTakesACopyBack(t *testing.T) {
	a, own, third := newMaker(t), newMaker(t), newMaker(t)
	f := a.release(t, "1.0.0", 1, nil)
	golden := born(t, a, f)
	clone := func(b *virtual.Board) *virtual.Board {
		c, err := b.Clone()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	record := func(b *virtual.Board) []byte {
		r, err := mustBoot(t, b).Record()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := record(golden); r != nil {
		t.Errorf("a board that its fuses lead back has a record of %d bytes to keep", len(r))
	}
	b := clone(golden)
	other, err := virtual.New(virtual.Spec{Revision: "A", ChipUID: "00", Flash: golden.Flash.Geometry()}) // it has another secret, and all else alike
	if err != nil {
		t.Fatal(err)
	}
	if err := birthWith(other, a, f, [32]byte{4, 5, 6}); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*virtual.Board{b, other} {
		if err := mustBoot(t, x).Move(handover(t, a, own.env, nil)); err != nil {
			t.Fatal(err)
		}
	}
	first := record(b)
	s := newSuccession(t, own)
	since := [][]byte{s.next(false, false), s.next(true, false)}
	if err := mustBoot(t, b).SetBundle(since...); err != nil {
		t.Fatal(err)
	}
	if _, err := mustBoot(t, b).Recall(first); err != nil {
		t.Errorf("its own record of before: %v", err)
	}
	if err := mustBoot(t, b).Restore(first); err == nil {
		t.Error("a record was taken over one that is there")
	}
	lose := func(x *virtual.Board) *virtual.Board {
		c := clone(x)
		flash, err := Arrange(c.Flash)
		if err != nil {
			t.Fatal(err)
		}
		if err := flash.bundle.Wipe(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	lost := func() *virtual.Board { return lose(b) }
	onwards := clone(b)
	if err := mustBoot(t, onwards).Move(handover(t, own, third.env, nil)); err != nil {
		t.Fatal(err)
	}
	if err := mustBoot(t, lose(onwards)).Restore(first, since...); err == nil {
		t.Error("a board that was handed on was led back to the home before by a copy")
	}
	altered := bytes.Clone(first)
	altered[len(altered)/2] ^= 1
	for name, c := range map[string][]byte{
		"another board's": record(other), "an altered one": altered, "garbage": {1, 2, 3}, "nothing": nil,
	} {
		c1 := lost()
		if err := mustBoot(t, c1).Restore(c, since...); err == nil {
			t.Errorf("%s was taken", name)
		}
		if got := mustBoot(t, c1).rep; got.Bundle.Version != 0 || got.Homes != 1 {
			t.Errorf("%s: bundle %d, home %d", name, got.Bundle.Version, got.Homes)
		}
	}
	if err := mustBoot(t, lost()).Restore(first, since[0]); err == nil {
		t.Error("a copy led to less than was in force")
	}
	if err := mustBoot(t, lost()).Restore(first, since[1]); err == nil {
		t.Error("a bundle was left out")
	}
	since = append(since, s.next(false, true)) // published while it was lost
	before, after := 0, 0
	for n := uint64(1); ; n++ {
		c := lost()
		m := mustBoot(t, c)
		c.Power.CutAt(n, virtual.Random, n)
		err := m.Restore(first, since...)
		if err == nil {
			break
		}
		if !errors.Is(err, hw.ErrPowerCut) {
			t.Fatal(err)
		}
		if m = mustBoot(t, c); m.rep.Bundle.Version == 0 {
			before++
			if err := m.Restore(first, since...); err != nil {
				t.Fatalf("cut %d: %v", n, err)
			}
		} else {
			after++
		}
		mine(t, mustBoot(t, c), s.last, f)
	}
	if before == 0 || after == 0 {
		t.Errorf("%d cuts before it was home, %d after", before, after)
	}
}
