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
		"to what it left":                        {func(s *gate.State, o *order) { s.Ways.Left = []gate.Left{{Release: target(o), Counter: 2}} }, gate.LeftBehind},
		"from more than it can remember":         {func(s *gate.State, _ *order) { s.Ways.Left = many(2) }, gate.NoWayBack},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, back(c.change), c.want) })
	}
	for name, change := range map[string]func(s *gate.State, o *order){
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
