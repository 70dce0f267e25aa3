package gate_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

// thief has the directive key, and published releases with their ways back; it tells a device what it likes, and what is obeyed takes effect.
type thief struct {
	t        *testing.T
	w        *world
	s        gate.State
	releases []wire.Release
	digests  [][32]byte
	rng      *rand.Rand
}

func newThief(t *testing.T, seed uint64, n int) *thief {
	t.Helper()
	x := &thief{t: t, w: newWorld(t), rng: rand.New(rand.NewPCG(seed, 1))}
	for i := range n {
		r := release(fmt.Sprintf("1.%d.0", i), 2)
		for _, d := range x.digests {
			if x.rng.IntN(3) > 0 {
				r.RollbackTo = append(r.RollbackTo, slices.Clone(d[:]))
			}
		}
		x.releases = append(x.releases, r)
		x.digests = append(x.digests, wire.ReleaseDigest(must(wire.EncodeRelease(r))))
	}
	x.s = x.w.state()
	x.s.Current = &gate.Installed{Digest: x.digests[0], Release: x.releases[0]}
	return x
}

// tell has the device judge one order, and does what it obeys.
func (x *thief) tell(act wire.Act, i int) error {
	x.t.Helper()
	x.w.entries = x.w.entries[:5]
	o := x.w.order(act)
	o.rel, o.dir.Counter = &x.releases[i], x.s.Counter+1
	d := x.w.deliver(o)
	x.s.Trees = nil
	p, err := gate.Decide(x.s, d, nonce(), now)
	if err != nil {
		return err
	}
	before := gate.Left{Release: slices.Clone(x.s.Current.Digest[:]), Counter: x.s.Current.Release.Counter}
	x.s.Ways = x.s.Ways.After(act, before, x.digests[i][:], x.s.Fuses, now)
	x.s.Counter, x.s.Current = p.Counter, &gate.Installed{Digest: x.digests[i], Release: x.releases[i]}
	return nil
}

// A stolen directive key does not steer devices between old releases: what a device left by command it never runs again, so that the key leads it
// at most once up to each release, and once down from it. Without the ways that the device remembers the same thief goes on for ever.
func TestAStolenDirectiveKeyDoesNotSteer(t *testing.T) {
	const n, orders = 6, 120
	wandered := 0
	for seed := range uint64(12) {
		for _, forgets := range []bool{false, true} {
			x := newThief(t, seed, n)
			left, changes := map[int]bool{}, 0
			at := 0
			for range orders {
				act, to := []wire.Act{wire.ActInstall, wire.ActRollback, wire.ActReprovide}[x.rng.IntN(3)], x.rng.IntN(n)
				if forgets { // as a device did that only looked at what approvers allowed
					x.s.Ways = gate.Ways{To: x.s.Current.Digest[:], At: uint64(now.Unix())}
				}
				if x.tell(act, to) != nil || to == at {
					continue
				}
				if !forgets && left[to] {
					t.Fatalf("seed %d: it runs %s again, which it left", seed, x.releases[to].Version)
				}
				if changes++; to < at {
					left[at] = true
				}
				at = to
			}
			switch {
			case !forgets && changes > 2*n:
				t.Errorf("seed %d: a thief led it %d times, over %d releases", seed, changes, n)
			case forgets && changes > 2*n:
				wandered++
			}
		}
	}
	if wandered == 0 {
		t.Error("nothing that the device remembers was needed: this test shows nothing")
	}
}

// A way back is for what an update brought, once, and for a time.
func TestAWayBack(t *testing.T) {
	w := newWorld(t)
	day := 24 * time.Hour
	back := func(change func(s *gate.State, o *order)) error {
		s, o := valid(w, wire.ActRollback)
		change(&s, o)
		_, err := gate.Decide(s, w.deliver(o), nonce(), now)
		return err
	}
	if err := back(func(*gate.State, *order) {}); err != nil {
		t.Fatal(err)
	}
	target := func(o *order) []byte {
		d := wire.ReleaseDigest(must(wire.EncodeRelease(*o.rel)))
		return d[:]
	}
	many := func(counter uint32) (out []gate.Left) {
		for i := range wire.MaxLeft {
			out = append(out, gate.Left{Release: slices.Repeat([]byte{byte(i)}, 32), Counter: counter})
		}
		return out
	}
	for name, c := range map[string]struct {
		change func(s *gate.State, o *order)
		want   gate.Code
	}{
		"what runs was not brought by an update": {func(s *gate.State, _ *order) { s.Ways = gate.Ways{} }, gate.NoWayBack},
		"another update brought it":              {func(s *gate.State, _ *order) { s.Ways.To = slices.Repeat([]byte{7}, 32) }, gate.NoWayBack},
		"too late":                               {func(s *gate.State, _ *order) { s.Ways.At = at(-31 * day) }, gate.BackTooLate},
		"later than its approvers gave":          {func(s *gate.State, _ *order) { s.Current.Release.BackFor, s.Ways.At = 3600, at(-2*time.Hour) }, gate.BackTooLate},
		"to what it left":                        {func(s *gate.State, o *order) { s.Ways.Left = []gate.Left{{Release: target(o), Counter: 2}} }, gate.LeftBehind},
		"from more than it can remember":         {func(s *gate.State, _ *order) { s.Ways.Left = many(2) }, gate.NoWayBack},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, back(c.change), c.want) })
	}
	for name, change := range map[string]func(s *gate.State, o *order){
		"in the time that its approvers gave": func(s *gate.State, _ *order) {
			s.Current.Release.BackFor, s.Ways.At = uint64((61*day)/time.Second), at(-60*day)
		},
		"in time":                          func(s *gate.State, _ *order) { s.Ways.At = at(-29 * day) },
		"having left much that is too old": func(s *gate.State, _ *order) { s.Ways.Left = many(1) },
	} {
		if err := back(change); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, act := range []wire.Act{wire.ActInstall, wire.ActReprovide} {
		s, o := w.state(), w.order(act)
		s.Ways.Left = []gate.Left{{Release: target(o), Counter: 3}}
		_, err := gate.Decide(s, w.deliver(o), nonce(), now)
		wantCode(t, err, gate.LeftBehind)
	}
}

// What was closed goes on where it runs, and is installed nowhere; what closes it may come while floor and ways are as they were. A release that brings what runs once
// more is neither installed over another, nor installed anew.
func TestWhatWasClosedGoesOnAndIsInstalledNowhere(t *testing.T) {
	w := newWorld(t)
	s, o := w.state(), w.order(wire.ActReprovide)
	same := release("1.0.0", 2)
	same.Over = []wire.VersionRange{{Below: "0.5.0"}}
	o.rel = &same
	s.Current = &gate.Installed{Digest: wire.ReleaseDigest(must(wire.EncodeRelease(same))), Release: same}
	s.Bundle.Install = 3
	if _, err := gate.Decide(s, w.deliver(o), nonce(), now); err != nil {
		t.Errorf("what runs, once more: %v", err)
	}
	s, o = w.state(), w.order(wire.ActInstall)
	s.Bundle.Install = 3
	if _, err := gate.Decide(s, w.deliver(o), nonce(), now); err != nil {
		t.Errorf("what mends it: %v", err)
	}
	s, o = w.state(), w.order(wire.ActBundle)
	o.next.Install = s.Current.Release.Counter + 1
	p, err := gate.Decide(s, w.deliver(o), nonce(), now)
	if err != nil || p.Bundle.Install != o.next.Install {
		t.Errorf("the bundle that closes it: %v", err)
	}
}

// After releases were closed a thief of the directive key leads no device onto one of them: not one that runs an older one, not one that comes back after
// years, and not by a way back. Before, the same orders are obeyed.
func TestAStolenDirectiveKeyInstallsNothingThatIsClosed(t *testing.T) {
	const n = 6
	obeyed := 0
	for seed := range uint64(12) {
		for _, install := range []uint32{0, 4} {
			x := newThief(t, seed, n)
			for i := range x.releases { // the last are the mended ones
				if x.releases[i].Counter = 2; i >= n-2 {
					x.releases[i].Counter = 4
				}
				x.releases[i].RollbackTo = nil
				for _, d := range x.digests[:i] {
					if x.rng.IntN(3) > 0 {
						x.releases[i].RollbackTo = append(x.releases[i].RollbackTo, slices.Clone(d[:]))
					}
				}
				x.digests[i] = wire.ReleaseDigest(must(wire.EncodeRelease(x.releases[i])))
			}
			x.s.Current = &gate.Installed{Digest: x.digests[1], Release: x.releases[1]}
			x.s.Bundle.Install = install
			at := 1
			for range 80 {
				act, to := []wire.Act{wire.ActInstall, wire.ActRollback, wire.ActReprovide}[x.rng.IntN(3)], x.rng.IntN(n)
				if x.tell(act, to) != nil || to == at {
					continue
				}
				at = to
				if x.releases[to].Counter < 4 {
					if install != 0 {
						t.Fatalf("seed %d: it runs %s, which is closed", seed, x.releases[to].Version)
					}
					obeyed++
				}
			}
		}
	}
	if obeyed == 0 {
		t.Error("nothing was closed that would have been installed: this test shows nothing")
	}
}
