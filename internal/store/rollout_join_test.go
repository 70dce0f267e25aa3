package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// dynamic is a plan of one canary and the rest that new devices join.
func dynamic(r *roll, id string) rollout.Spec {
	spec := twoWaves(id, r.new)
	spec.Dynamic, spec.Canaries = true, []string{devN(2)}
	spec.Waves[1].MaxFailures = 0
	return spec
}

// comes makes devices, which run the release of before, and lets the planner look.
func (r *roll) comes(who ...int) {
	r.t.Helper()
	for _, i := range who {
		r.make(devN(i), r.old)
		r.says(devN(i), r.old, true, false, nil)
	}
	r.tick(2 * time.Second)
}

// passes has devices of the wave under way install, prove it, soak and prove it again.
func (r *roll) passes(who ...int) {
	r.t.Helper()
	r.now = r.now.Add(time.Minute)
	for _, i := range who {
		r.installs(devN(i))
	}
	r.tick(time.Second)
	r.tick(11 * time.Minute)
	r.attests(who...)
	r.tick(time.Second)
}

func (r *roll) isTold(i int, want bool) {
	r.t.Helper()
	if got := len(r.commands(devN(i), wire.ActInstall)); (got == 1) != want || got > 1 {
		r.t.Fatalf("device %d has %d install commands, told: %t wanted", i, got, want)
	}
}

// A later rollout of a release for other hardware takes nothing over: who comes with the hardware of the first would be told by neither.
func TestARolloutForOtherHardwareTakesNothingOver(t *testing.T) {
	r := newRoll(t, 3)
	first := dynamicOf(r, "r1") // for A and B
	r.begin(first)
	r.tick(time.Second)
	on := func(version string, hardware ...string) rollout.Spec {
		rel := r.published(version, func(spec *release.Spec) { spec.Hardware = hardware })
		spec := dynamicOf(r, "r-"+version)
		spec.Release = rel.Digest[:]
		return spec
	}
	r.now = r.now.Add(time.Minute)
	r.begin(on("1.2.0", "B"))
	r.tick(time.Second)
	if got := mustRollout(t, r, "r1"); !got.Joins() {
		t.Fatalf("one for B alone shut it: %s", got.Reason)
	}
	r.comes(5)
	r.isTold(5, true)
	r.now = r.now.Add(time.Minute)
	r.begin(on("1.3.0", "A", "B"))
	r.tick(time.Second)
	for _, id := range []string{"r1", "r-1.2.0"} {
		if got := mustRollout(t, r, id); got.Joins() || got.Reason != "rollout r-1.3.0 takes over" {
			t.Errorf("one for all hardware did not shut %s: %s %q", id, got.Phase, got.Reason)
		}
	}
}

// Devices that are made after the start are told with their wave, or with the one under way, or after the last; what they do is judged as what the
// first did.
func TestHawkbit1548NewDevicesJoinAndTheGateHolds(t *testing.T) {
	r := newRoll(t, 5)
	r.begin(dynamic(r, "r1"))
	r.tick(time.Second)
	r.comes(5, 6) // by their ranks, of the wave under way, which has no room, and of one to come
	r.isTold(5, false)
	r.isTold(6, false)
	r.passes(2)
	r.phase("r1", rollout.Running, 2)
	r.tick(2 * time.Second)
	for i := range 7 {
		r.isTold(i, true)
	}
	r.comes(10)
	r.isTold(10, true)
	r.passes(0, 1, 3, 4, 5, 6, 10)
	got := r.phase("r1", rollout.Running, 3)
	if !got.Waves[2].Open || got.Waves[1].Succeeded.IsZero() {
		t.Fatalf("after the last wave it has %+v", got.Waves)
	}
	r.tick(1000 * time.Hour) // nobody comes: it waits, and that is no trouble

	r.comes(7)
	r.isTold(7, true)
	r.now = r.now.Add(time.Minute)
	r.installs(devN(7))
	r.tick(time.Second)
	r.comes(8) // while 7 soaks
	r.isTold(8, false)
	r.tick(11 * time.Minute)
	r.attests(7)
	r.tick(time.Second)
	r.tick(2 * time.Second)
	r.isTold(8, true)
	if got := r.phase("r1", rollout.Running, 3); got.Joined != 1 || got.Later.Good != 1 || got.Waves[1].Devices != 8 {
		t.Fatalf("joined is %d, %+v, of %+v", got.Joined, got.Later, got.Waves)
	}

	all, err := r.db.Rollouts().Marked(t.Context(), "r1", 1, 3, nil, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	counted, err := r.db.Rollouts().Tally(t.Context(), "r1")
	if err != nil {
		t.Fatal(err)
	}
	rows := rollout.Tally{}
	for _, s := range all {
		rows.Add(s.Wave, s.Mark, 1)
	}
	if fmt.Sprint(rows) != fmt.Sprint(counted) || rows[2][rollout.Well] != 8 {
		t.Errorf("counted are %v, and there are %v", counted, rows)
	}

	// The gate holds: one that falls back halts it, nobody joins any more, and who passed before is not sent back.
	r.now = r.now.Add(time.Minute)
	r.says(devN(8), r.old, true, false, map[string]wire.Outcome{r.commands(devN(8), wire.ActInstall)[0]: wire.OutcomeFailed})
	r.tick(time.Second)
	r.comes(9)
	r.tick(time.Minute)
	r.isTold(9, false)
	if got := mustRollout(t, r, "r1"); got.Phase != rollout.RolledBack {
		t.Fatalf("it is %s: %s", got.Phase, got.Reason)
	}
	for i := range 11 {
		if got := r.commands(devN(i), wire.ActRollback); len(got) != 0 {
			t.Errorf("device %d is told to go back by %v", i, got)
		}
	}
	if k := r.kinds("r1"); k["rollout.joined"] != 4 || k["rollout.wave.succeeded"] != 3 || k["rollout.halted"] != 1 {
		t.Errorf("facts: %v", k)
	}
}

// reading counts what a rollout reads of devices.
type reading struct {
	rollout.Store
	walks, devices int
}

func (c *reading) Candidates(ctx context.Context, product string, sel rollout.Selection, state device.State, want func(string) bool, each func(rollout.Candidate) error) error {
	if len(sel.IDs) == 0 {
		c.walks++
	}
	return c.Store.Candidates(ctx, product, sel, state, want, func(x rollout.Candidate) error {
		c.devices++
		return each(x)
	})
}

// Whatever the size of the fleet, who joins costs what those cost that changed, and a rollout that nobody joins costs nothing.
func TestHawkbit983JoiningLooksAtWhatStirredOnly(t *testing.T) {
	r := newRoll(t, 40)
	read := &reading{Store: r.db.Rollouts()}
	var err error
	if r.svc, err = rollout.NewService(rollout.Config{
		Store: read, Releases: r.releases, Devices: r.devices, Ledger: r.ledger, Guard: r.guard, Away: 1000 * time.Hour, Now: func() time.Time { return r.now },
	}); err != nil {
		t.Fatal(err)
	}
	spec := dynamic(r, "r1")
	spec.Canaries, spec.Waves = nil, []rollout.Wave{{Deadline: 86400, MaxFailures: 50}}
	r.begin(spec)
	r.tick(time.Second)
	r.tick(time.Minute) // what the start and the first look changed
	read.walks, read.devices = 0, 0
	for range 20 {
		r.tick(2 * time.Second)
	}
	if read.walks+read.devices > 0 {
		t.Errorf("nobody changed, and %d walks read %d devices", read.walks, read.devices)
	}
	r.comes(40, 41)
	r.isTold(40, true)
	r.isTold(41, true)
	if read.walks > 0 || read.devices != 2 {
		t.Errorf("two devices came, and %d walks read %d devices", read.walks, read.devices)
	}
}

// A dynamic rollout whose waves have passed keeps no device from another, and gives way to a later one of the same selection.
func TestADynamicRolloutGivesWay(t *testing.T) {
	r := newRoll(t, 3)
	spec := dynamic(r, "r1")
	spec.Waves = spec.Waves[1:]
	r.begin(spec)
	r.tick(time.Second)
	r.passes(0, 1, 2)
	r.phase("r1", rollout.Running, 2)

	next := r.publish("1.2.0", r.new)
	later := dynamic(r, "r2")
	later.Release, later.Waves = next.Digest[:], spec.Waves
	r.now = r.now.Add(time.Minute)
	r.begin(later)
	r.tick(time.Second)
	if got := mustRollout(t, r, "r1"); got.Phase != rollout.Completed || got.Reason != "rollout r2 takes over" {
		t.Errorf("the first is %s: %s", got.Phase, got.Reason)
	}
	if got := r.phase("r2", rollout.Running, 1); got.Last.Held != 0 || got.Waves[0].Devices != 3 {
		t.Errorf("the second has %+v, %+v", got.Last, got.Waves)
	}
	if k := r.kinds("r1"); k["rollout.shut"] != 1 || k["rollout.completed"] != 1 {
		t.Errorf("facts: %v", k)
	}
}

func TestAPersonShutsADynamicRollout(t *testing.T) {
	r := newRoll(t, 0)
	spec := dynamic(r, "r1")
	spec.Canaries = nil
	r.begin(spec) // of nobody, yet
	r.tick(time.Second)
	r.phase("r1", rollout.Running, 1)
	r.comes(0)
	r.isTold(0, true)
	if _, err := r.svc.Shut(t.Context(), person("op"), "r1", "the line stands still"); err != nil {
		t.Fatal(err)
	}
	r.comes(1)
	r.isTold(1, false)
	r.passes(0)
	r.phase("r1", rollout.Completed, 2)
	r.isTold(1, false)
	if _, err := r.svc.Shut(t.Context(), person("op"), "r1", "again"); fault.KindOf(err) != fault.Conflict {
		t.Errorf("shut twice: %v", err)
	}

	// Only one of a selection is joined.
	spec = twoWaves("r2", r.new)
	spec.Dynamic, spec.Canaries, spec.Selection = true, nil, rollout.Selection{IDs: []string{devN(1)}}
	if _, err := r.svc.Create(t.Context(), person("op"), spec); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a dynamic rollout of named devices: %v", err)
	}
	r.begin(twoWavesOf("r3", r))
	if _, err := r.svc.Shut(t.Context(), person("op"), "r3", "why"); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a rollout that nobody joins was shut: %v", err)
	}
}

func twoWavesOf(id string, r *roll) rollout.Spec {
	spec := twoWaves(id, r.new)
	spec.Canaries = nil
	return spec
}

// Who joins is looked for on all nodes' changes, and a change is forgotten only when every rollout has looked at it.
func TestAChangeWaitsForTheRolloutsThatFollow(t *testing.T) {
	r := newRoll(t, 2)
	r.begin(dynamicOf(r, "r1"))
	r.make(devN(5), r.old)
	r.says(devN(5), r.old, true, false, nil)
	if err := r.db.PruneStirs(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Second)
	r.tick(2 * time.Second)
	r.isTold(5, true)
	before, _ := r.db.Stirs(t.Context(), 0, 1000)
	if err := r.db.PruneStirs(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if after, err := r.db.Stirs(t.Context(), 0, 1000); err != nil || len(after) != 1 {
		t.Errorf("%d changes are left of %d, that were looked at (%v)", len(after), len(before), err)
	}
}

func dynamicOf(r *roll, id string) rollout.Spec {
	spec := dynamic(r, id)
	spec.Canaries, spec.Waves = nil, []rollout.Wave{{Deadline: 86400, Soak: 60, MaxFailures: 1}}
	return spec
}
