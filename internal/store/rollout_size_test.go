package store_test

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// growing is a fleet of n, and which of it were good.
type growing struct {
	*roll
	n    int
	good map[string]bool
}

func newGrowing(t *testing.T, n int) *growing {
	return &growing{newRoll(t, n), n, map[string]bool{}}
}

// told gives how many devices are told.
func (r *growing) told() (told int) {
	r.t.Helper()
	for i := range r.n {
		told += len(r.commands(devN(i), wire.ActInstall))
	}
	return told
}

// sized is a plan of one, then two, then the rest of those with a finding.
func sized(r *roll, dynamic bool) rollout.Spec {
	spec := ofQuery(r, "r1", device.Filter{Findings: true})
	spec.Dynamic = dynamic
	spec.Waves = []rollout.Wave{{Size: 1, Soak: 600, Deadline: 3600}, {Size: 2, Soak: 600, Deadline: 3600}, {Soak: 600, Deadline: 3600}}
	return spec
}

// passesAll has all that were told since then show that they are good.
func (r *growing) passesAll() {
	r.t.Helper()
	var who []int
	for i := range r.n {
		if id := devN(i); len(r.commands(id, wire.ActInstall)) > 0 && !r.good[id] {
			who = append(who, i)
			r.good[id] = true
		}
	}
	r.passes(who...)
	r.tick(2 * time.Second)
}

// A wave with a size has no more devices than that, however many come to be of the query while it is under way: they wait for the waves after it, which
// nobody had been left for when the rollout was started.
func TestAWavesSizeHoldsWhenAQueryGrows(t *testing.T) {
	const n = 30
	for name, had := range map[string]int{"from nobody": 0, "from one": 1, "from two": 2, "from five": 5} {
		t.Run(name, func(t *testing.T) {
			r := newGrowing(t, n)
			for i := range had {
				r.troubles(devN(i))
			}
			r.begin(sized(r.roll, true))
			r.tick(time.Second)
			r.tick(2 * time.Second)
			if got := r.told(); got != min(had, 1) {
				t.Fatalf("%d are told at the start", got)
			}
			for i := had; i < n; i++ {
				r.troubles(devN(i))
			}
			for range 5 {
				r.tick(2 * time.Second)
			}
			if got := r.told(); got != 1 {
				t.Fatalf("%d are told before the first was good", got)
			}
			r.passesAll()
			if got := r.told(); got != 3 {
				t.Fatalf("%d are told when the first was good", got)
			}
			r.passesAll()
			if got := r.told(); got != n {
				t.Fatalf("%d are told when three were good", got)
			}
			r.passesAll()
			if got := r.phase("r1", rollout.Running, 4); got.Waves[0].Devices != 1 || got.Waves[1].Devices != 2 || got.Waves[2].Devices != n-3 {
				t.Errorf("its waves are %+v", got.Waves)
			}
		})
	}
}

// It holds where nobody joins, too: the wave is taken when it begins, of those that are of the query then.
func TestAWavesSizeHoldsWhenItIsTaken(t *testing.T) {
	const n = 30
	r := newGrowing(t, n)
	for i := range 4 {
		r.troubles(devN(i))
	}
	r.begin(sized(r.roll, false))
	r.tick(time.Second)
	for i := 4; i < n; i++ {
		r.troubles(devN(i))
	}
	r.tick(2 * time.Second)
	if got := r.told(); got != 1 {
		t.Fatalf("%d are told at first", got)
	}
	r.passesAll()
	if got := r.told(); got != 3 {
		t.Fatalf("%d are told when the first was good", got)
	}
	r.passesAll()
	if got := r.told(); got <= 4 { // not all: who came to be of the ranks of a wave that had begun is not in it
		t.Fatalf("%d are told when three were good", got)
	}
}

// Whom another rollout has does not make a wave larger than it is when it lets go of them.
func TestAWavesSizeHoldsWhenAnotherLetsGo(t *testing.T) {
	const n = 12
	r := newGrowing(t, n)
	other := twoWaves("r0", r.new)
	other.Canaries, other.Waves = nil, other.Waves[1:]
	for i := range n - 4 {
		other.Selection.All, other.Selection.IDs = false, append(other.Selection.IDs, devN(i))
	}
	r.begin(other)
	r.tick(time.Second)
	before := r.told()
	for i := range n {
		r.troubles(devN(i))
	}
	spec := sized(r.roll, false)
	spec.Waves[0].Size, spec.Canaries = 6, []string{devN(0), devN(1), devN(2), devN(3), devN(4), devN(n - 1)}
	r.begin(spec)
	r.tick(time.Second)
	if got := r.phase("r1", rollout.Running, 1); got.Last.Devices != 1 || got.Last.Held != 5 {
		t.Fatalf("%+v", got.Last)
	}
	r.passes(n - 1) // and the wave passes
	if got := r.phase("r1", rollout.Running, 2); got.Waves[1].Devices > 2 {
		t.Fatalf("%+v", got.Last)
	}
	if _, err := r.svc.Abort(t.Context(), person("op"), "r0", "test"); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Second)
	r.tick(time.Minute)
	told := 0
	for i := range n {
		told += len(r.by("r1", devN(i)))
	}
	if before != n-4 || told > 3 {
		t.Errorf("%d were told by the other, and %d by two waves of 1 and 2", before, told)
	}
}

func TestTheLastWaveOfADynamicRolloutTakesTheRest(t *testing.T) {
	r := newRoll(t, 1)
	spec := sized(r, true)
	spec.Waves = spec.Waves[:2]
	if _, err := r.svc.Create(t.Context(), person("op"), spec); codeOf(err) != "rollout.waves" || !strings.Contains(err.Error(), "last wave") {
		t.Errorf("%v", err)
	}
}

// Whoever comes, goes and comes back, in whichever order: no wave is larger than its size, and in the end whoever is of the rollout was told once. A wave that is full sends those who come
// to the waves behind it, and loses none of them.
func TestNobodyIsForgottenByWavesThatAreFull(t *testing.T) {
	const n = 24
	for seed := range uint64(4) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			r := newGrowing(t, n)
			in, done := map[int]bool{}, map[string]bool{}
			moves := func() {
				i := rnd.IntN(n)
				if len(r.commands(devN(i), wire.ActInstall)) > 0 {
					return
				}
				in[i] = !in[i]
				r.group(map[bool]string{true: "eu", false: "us"}[in[i]], devN(i))
			}
			for range rnd.IntN(n) {
				moves()
			}
			spec := sized(r.roll, true)
			spec.Selection = rollout.Selection{Group: "eu", All: true}
			spec.Waves[1].Size = 1 + rnd.IntN(5)
			if rnd.IntN(2) == 0 {
				spec.Waves[1].Size, spec.Waves[1].Percent = 0, 20
			}
			spec.Waves[2].Tranche = rnd.IntN(4)
			for i := range spec.Waves {
				spec.Waves[i].Deadline, spec.Waves[i].Contact = rollout.Seconds(20*day/time.Second), rollout.Seconds(10*day/time.Second)
			}
			r.begin(spec)
			soaked := func() { // all that were told are good, and were for as long as they have to be
				for range 2 {
					for i := range n {
						id, did := devN(i), map[string]wire.Outcome{}
						for _, c := range append(r.commands(id, wire.ActInstall), r.commands(id, wire.ActAttest)...) {
							if !done[id+c] {
								did[c], done[id+c] = wire.OutcomeDone, true
							}
						}
						if len(r.commands(id, wire.ActInstall)) > 0 {
							r.proves(id, r.new, attest.Affirming)
							r.says(id, r.new, true, false, did)
						}
					}
					r.tick(time.Second)
					r.tick(11 * time.Minute)
				}
			}
			for range 60 {
				switch rnd.IntN(5) {
				case 0, 1:
					r.tick(time.Duration(1+rnd.IntN(5)) * time.Second)
				case 2:
					soaked()
				default:
					moves()
				}
				for i, w := range mustRollout(t, r.roll, "r1").Waves {
					if most := w.Most; most > 0 && w.Devices > most {
						t.Fatalf("wave %d has %d devices, and its size is %d", i+1, w.Devices, most)
					}
				}
			}
			for range 12 {
				r.tick(3 * time.Second)
				soaked()
			}
			for i := range n {
				if told := len(r.commands(devN(i), wire.ActInstall)); in[i] && told != 1 || told > 1 {
					t.Errorf("device %d was told %d times; in the group: %t", i, told, in[i])
				}
			}
			if got := mustRollout(t, r.roll, "r1"); !got.Joins() || t.Failed() {
				t.Errorf("it is %s in wave %d: %q; %+v", got.Phase, got.Wave, got.Reason, got.Last)
			}
		})
	}
}
