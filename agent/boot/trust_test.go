package boot

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
)

func plainRecord(t testing.TB, env []byte) []byte {
	t.Helper()
	data, err := newTrustRecord(env)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// believesNobody checks that a board starts nothing, and believes no bundle.
func believesNobody(t testing.TB, b *virtual.Board, what string) {
	t.Helper()
	if got := mustBoot(t, b).rep; got.Bundle.Version != 0 || got.Release != nil {
		t.Errorf("%s: bundle %d is believed, release %v runs", what, got.Bundle.Version, got.Release)
	}
}

// succession is a history of bundles, each with roles of its own.
type succession struct {
	t      testing.TB
	m      *maker
	last   wire.Bundle
	roots  []*ecdsa.PrivateKey
	signer []*ecdsa.PrivateKey // of releases
	envs   [][]byte
}

func newSuccession(t testing.TB, m *maker) *succession {
	return &succession{t: t, m: m, last: m.bundle, roots: m.keys, signer: m.keys}
}

func twoKeys(t testing.TB) ([]*ecdsa.PrivateKey, wire.KeySet) {
	t.Helper()
	var out []*ecdsa.PrivateKey
	role := wire.KeySet{Threshold: 2}
	for range 2 {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := wire.SPKIOf(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		out, role.Keys = append(out, k), append(role.Keys, der)
	}
	return out, role
}

// next publishes a bundle, with new roots or new release signers when asked.
func (s *succession) next(roots, signers bool) []byte {
	s.t.Helper()
	by := slices.Clone(s.roots)
	b := s.last
	b.Version++
	if roots {
		s.roots, b.Root = twoKeys(s.t)
		by = append(by, s.roots...)
	}
	if signers {
		s.signer, b.Release = twoKeys(s.t)
	}
	payload, err := wire.EncodeBundle(b)
	if err != nil {
		s.t.Fatal(err)
	}
	s.last = b
	env := signAll(s.t, wire.TypeBundle, payload, by)
	s.envs = append(s.envs, env)
	return env
}

func signAll(t testing.TB, typ wire.Type, payload []byte, keys []*ecdsa.PrivateKey) []byte {
	t.Helper()
	env, err := wire.NewThreshold(typ, payload, keys[0])
	for _, k := range keys[1:] {
		if err == nil {
			env, err = wire.AddSignature(typ, env, k)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func TestRootsAreReplacedAndTheFusesStillVouch(t *testing.T) {
	m := newMaker(t)
	b := born(t, m, m.release(t, "1.0.0", 1, nil))
	s := newSuccession(t, m)
	for i := range 5 {
		if err := mustBoot(t, b).SetBundle(s.next(i%2 == 0, false)); err != nil {
			t.Fatal(err)
		}
		if got := mustBoot(t, b).rep; got.Bundle.Version != s.last.Version || got.Release == nil {
			t.Fatalf("bundle %d after a restart, want %d; release %v, %v", got.Bundle.Version, s.last.Version, got.Release, got.Notes)
		}
	}
	// All at once, on another board.
	c := born(t, m, m.release(t, "1.0.0", 1, nil))
	if err := mustBoot(t, c).SetBundle(s.envs...); err != nil {
		t.Fatal(err)
	}
	if got := mustBoot(t, c).rep.Bundle.Version; got != s.last.Version {
		t.Errorf("bundle %d, want %d", got, s.last.Version)
	}
	for name, envs := range map[string][][]byte{
		"a step left out": {s.envs[0], s.envs[2]}, "the wrong order": {s.envs[1], s.envs[0]}, "none": nil, "the last alone": s.envs[4:],
	} {
		d := born(t, m, m.release(t, "1.0.0", 1, nil))
		mgr := mustBoot(t, d)
		before := d.Power.Ops()
		if err := mgr.SetBundle(envs...); err == nil || d.Power.Ops() != before {
			t.Errorf("%s: %v, %d operations", name, err, d.Power.Ops()-before)
		}
	}
}

// Who has enough of the root keys of long ago, and can write the flash, leads no board astray that has gone on since.
func TestAForgedHistoryInTheFlashIsNotBelieved(t *testing.T) {
	m := newMaker(t)
	f := m.release(t, "1.0.0", 1, nil)
	b := born(t, m, f)
	s := newSuccession(t, m)
	if err := mustBoot(t, b).SetBundle(s.next(true, false)); err != nil {
		t.Fatal(err)
	}
	flash, err := Arrange(b.Flash)
	if err != nil {
		t.Fatal(err)
	}
	honest, err := flash.bundle.Load()
	if err != nil {
		t.Fatal(err)
	}
	good, err := parseTrustRecord(honest)
	if err != nil {
		t.Fatal(err)
	}
	forged := newSuccession(t, m)
	forged.last.Version = 8
	chain := trustRecord{Links: [][]byte{m.env}, Current: forged.next(true, true)}
	marked := chain
	marked.Mark = good.Mark
	digest := sha256.Sum256([]byte("a release"))
	kept := good
	kept.Kept = [][]byte{digest[:]}
	bare := good
	bare.Mark = nil
	for name, r := range map[string]trustRecord{
		"no mark": chain, "the mark of another record": marked, "a release named as kept": kept, "the mark taken away": bare,
		"the last without its links": {Current: good.Links[1]},
	} {
		data, err := wire.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := flash.bundle.Save(data); err != nil {
			t.Fatal(err)
		}
		believesNobody(t, b, name)
	}
	if err := flash.bundle.Save(honest); err != nil {
		t.Fatal(err)
	}
	if got := mustBoot(t, b).rep; got.Bundle.Version != 2 || got.Release == nil {
		t.Errorf("what it kept itself: bundle %d, release %v, %v", got.Bundle.Version, got.Release, got.Notes)
	}
}

func TestABoardThatLostItsBundleTakesTheHistoryFromItsFuses(t *testing.T) {
	m := newMaker(t)
	f := m.release(t, "1.0.0", 1, nil)
	golden := born(t, m, f)
	s := newSuccession(t, m)
	s.next(true, false)
	s.next(false, false)
	if err := mustBoot(t, golden).SetBundle(s.envs...); err != nil {
		t.Fatal(err)
	}
	flash, err := Arrange(golden.Flash)
	if err != nil {
		t.Fatal(err)
	}
	if err := flash.bundle.Wipe(); err != nil {
		t.Fatal(err)
	}
	believesNobody(t, golden, "no bundle")
	stranger := newSuccession(t, newMaker(t))
	for name, envs := range map[string][][]byte{
		"the first alone, though a later one was in force": {m.env}, "a history of other roots": {stranger.m.env, stranger.next(false, false), stranger.next(false, false)},
		"one in the middle": s.envs, "only a part": {m.env, s.envs[0]},
	} {
		if err := mustBoot(t, golden).SetBundle(envs...); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	whole := append([][]byte{m.env}, s.envs...)
	for n := uint64(1); ; n++ { // the power fails in every operation
		b, err := golden.Clone()
		if err != nil {
			t.Fatal(err)
		}
		mgr := mustBoot(t, b)
		b.Power.CutAt(n, virtual.Random, n)
		if err := mgr.SetBundle(whole...); err == nil {
			break // the cut would have come later
		} else if !errors.Is(err, hw.ErrPowerCut) {
			t.Fatal(err)
		}
		if v := mustBoot(t, b).rep.Bundle.Version; v != 0 && v != 3 {
			t.Fatalf("cut %d: bundle %d", n, v)
		}
	}
}

// What runs was approved by those whose approval counted then: it goes on when they are replaced. What they sign afterwards does not start.
func TestWhatRunsStillStartsWhenItsSignersAreReplaced(t *testing.T) {
	m := newMaker(t)
	f := m.release(t, "1.0.0", 1, nil)
	b := born(t, m, f)
	s := newSuccession(t, m)
	if err := mustBoot(t, b).SetBundle(s.next(false, true)); err != nil {
		t.Fatal(err)
	}
	if got := mustBoot(t, b).rep; got.Release == nil || got.Digest != f.digest {
		t.Fatalf("%v runs: %v", got.Release, got.Notes)
	}
	late := m.release(t, "1.1.0", 2, nil) // by those who were replaced
	if err := mustBoot(t, b).Stage(t.Context(), late.env, late.source, nil); err == nil {
		t.Error("a release of those who were replaced was staged")
	}
	if err := mustBoot(t, b).SetBundle(s.next(false, true)); err != nil { // once more: it is still kept
		t.Fatal(err)
	}
	if got := mustBoot(t, b).rep; got.Release == nil || got.Digest != f.digest {
		t.Fatalf("after another change: %v runs: %v", got.Release, got.Notes)
	}
	above := s.last
	above.Version, above.Floor = above.Version+1, 2
	payload, err := wire.EncodeBundle(above)
	if err != nil {
		t.Fatal(err)
	}
	if err := mustBoot(t, b).SetBundle(signAll(t, wire.TypeBundle, payload, s.roots)); err != nil {
		t.Fatal(err)
	}
	if got := mustBoot(t, b).rep; got.Release != nil {
		t.Error("a release below the floor runs because it was kept")
	}
}

func FuzzParseTrustRecord(f *testing.F) {
	for _, r := range []trustRecord{
		{Current: []byte{1}},
		{Current: []byte{1}, Links: [][]byte{{2}, {3}}, Kept: [][]byte{make([]byte, 32)}, Mark: make([]byte, 32)},
		{},
		{Current: []byte{1}, Links: [][]byte{{2}}, Moves: []move{{At: 1, Warrant: []byte{3}, Member: wire.Membership{Path: [][]byte{}}}}},
		{Current: []byte{1}, Moves: []move{{}}},
	} {
		data, err := wire.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseTrustRecord(data)
		if err == nil && (len(r.chain()) == 0 || len(r.Kept) > maxKept || len(r.Moves) >= len(r.chain())) {
			t.Errorf("%+v", r)
		}
	})
}
