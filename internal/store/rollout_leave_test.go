package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// leaving has a rollout of group eu under way that told device 1, and has device 0 wait.
func leaving(t *testing.T, soak rollout.Seconds) *roll {
	t.Helper()
	r := newRoll(t, 3)
	r.group("eu", devN(0), devN(1))
	spec := ofOne("eu1", r.new, rollout.Selection{Group: "eu", All: true})
	spec.Canaries, spec.Waves[0].Tranche, spec.Waves[0].Soak = []string{devN(1)}, 1, soak
	r.begin(spec)
	r.tick(time.Second)
	return r
}

// What a device runs that a rollout never told is not that rollout's: whoever has one group alone sends nobody of another back.
func TestWhoWasNeverToldIsNotSentBack(t *testing.T) {
	r := leaving(t, 600)
	r.group("us", devN(0))
	r.tick(time.Second)
	r.begin(ofOne("us1", r.new, rollout.Selection{Group: "us", All: true}))
	r.tick(time.Second)
	r.now = r.now.Add(time.Second)
	r.installs(devN(0))
	r.tick(time.Second)
	r.tick(time.Second)
	r.phase("us1", rollout.Completed, 1)
	if _, err := r.svc.Halt(t.Context(), person("op"), "eu1", "by who has eu alone"); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Second)
	r.tick(time.Second)
	if back := r.commands(devN(0), wire.ActRollback); len(back) != 0 {
		t.Errorf("it is sent back by %v", back)
	}
}

// A device that comes back to a rollout that it had left waits for nothing there, and nothing waits for it.
func TestWhoLeftAndComesBackIsNotWaitedFor(t *testing.T) {
	r := leaving(t, 60)
	r.group("us", devN(0))
	r.tick(time.Second)
	r.group("eu", devN(0))
	r.tick(time.Second)
	r.now = r.now.Add(time.Second)
	r.installs(devN(1))
	r.tick(time.Second)
	for range 3 {
		r.tick(2 * time.Minute) // the soak ends: each device is looked at again
		r.says(devN(1), r.new, true, false, nil)
		r.proves(devN(1), r.new, 0)
	}
	got := mustRollout(t, r, "eu1")
	if n := len(got.Waves[0].Tranches); n != 1 {
		t.Errorf("%d tranches told, want 1: %+v", n, r.counts("eu1"))
	}
}

// Who comes back to a dynamic rollout joins it.
func TestWhoLeftAndComesBackJoinsADynamicRollout(t *testing.T) {
	r := newRoll(t, 3)
	r.group("eu", devN(0), devN(1))
	spec := ofOne("eu1", r.new, rollout.Selection{Group: "eu", All: true})
	spec.Dynamic, spec.Canaries, spec.Waves[0].Tranche = true, []string{devN(1)}, 1
	r.begin(spec)
	r.tick(time.Second)
	r.group("us", devN(0))
	r.tick(time.Second)
	r.group("eu", devN(0))
	r.tick(2 * time.Second)
	r.now = r.now.Add(time.Second)
	r.installs(devN(1))
	r.tick(2 * time.Second)
	r.tick(2 * time.Second)
	if c := r.commands(devN(0), wire.ActInstall); len(c) != 1 {
		t.Errorf("it was told %v; %+v", c, r.counts("eu1"))
	}
}

// A rollout takes from another only what it takes.
func TestNobodyIsTakenFromARolloutForNothing(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	s.make(devN(0), s.publish("1.0.0"))
	p := s.db.Rollouts()
	under := func(id string, at time.Time) rollout.Rollout {
		r := rollout.Rollout{
			Spec: rollout.Spec{ID: id, Product: "pump", Selection: rollout.Selection{All: true}}, Phase: rollout.Running, Rev: 1, Created: at, Started: at, Wave: 1, Waves: []rollout.WaveState{{}},
		}
		if err := p.PutRollout(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	a, b := under("a", s.now), under("b", s.now.Add(time.Minute))
	it := []rollout.Member{{Device: devN(0), Wave: 1}}
	for _, step := range []func() error{
		func() error { return p.TakeDevices(t.Context(), a, it) },
		func() error { return p.SettleDevices(t.Context(), "a", 1, 1) },
		func() error { return p.TakeDevices(t.Context(), b, it) },
		func() error { return p.TakeDevices(t.Context(), a, it) }, // as a look at who joins does when the device changes
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if in, err := p.Marked(t.Context(), "b", 1, 1, nil, "", 0); err != nil || len(in) != 1 || in[0].Holder != "" {
		t.Errorf("b has %+v, %v", in, err)
	}
}

// A number of failures is of all who join since the waves have passed, not of each that comes alone.
func TestFailuresOfJoinersAddUp(t *testing.T) {
	r := newRoll(t, 3)
	spec := dynamic(r, "r1")
	spec.Canaries = nil
	spec.Waves = []rollout.Wave{{Deadline: 3600, MaxFailures: 1}}
	r.begin(spec)
	r.tick(time.Second)
	r.now = r.now.Add(time.Minute)
	for i := range 3 {
		r.installs(devN(i))
	}
	r.tick(time.Second)
	r.tick(2 * time.Second)
	fail := func(i int) {
		t.Helper()
		r.comes(i)
		c := r.commands(devN(i), wire.ActInstall)
		if len(c) != 1 {
			t.Fatalf("device %d was told %v", i, c)
		}
		r.now = r.now.Add(time.Minute)
		r.says(devN(i), r.old, true, false, map[string]wire.Outcome{c[0]: wire.OutcomeFailed})
		r.tick(time.Second)
		r.tick(2 * time.Second)
	}
	r.comes(3)
	r.now = r.now.Add(time.Minute)
	r.installs(devN(3))
	r.tick(time.Second)
	r.tick(2 * time.Second)
	fail(4)
	if got := mustRollout(t, r, "r1"); got.Phase != rollout.Running {
		t.Fatalf("one failure, which is borne: %s", got.Phase)
	}
	fail(5)
	if got := mustRollout(t, r, "r1"); got.Halted.IsZero() {
		t.Errorf("two failures: %s, %+v", got.Phase, got.Later)
	}
}

// A factory that never stops does not keep a wave from passing.
func TestJoinersDoNotKeepAWaveFromPassing(t *testing.T) {
	r := newRoll(t, 8)
	var err error
	if r.svc, err = rollout.NewService(rollout.Config{ // days pass here in which no device says anything but that it is done
		Store: r.db.Rollouts(), Releases: r.releases, Devices: r.devices, Ledger: r.ledger, Guard: r.guard, Away: 1000 * time.Hour, Contact: 1000 * time.Hour, Now: func() time.Time { return r.now },
	}); err != nil {
		t.Fatal(err)
	}
	spec := twoWaves("r1", r.new)
	spec.Dynamic = true
	spec.Waves = []rollout.Wave{{Percent: 85, Deadline: 7200}, {Deadline: 7200}}
	r.begin(spec)
	r.tick(time.Second)
	told, done := map[int]time.Time{}, map[int]bool{}
	for next := 8; next < 56; next++ { // one more every ten minutes, of which each takes forty
		r.make(devN(next), r.old)
		r.says(devN(next), r.old, true, false, nil)
		r.tick(10 * time.Minute)
		for i := range next + 1 {
			if done[i] || len(r.commands(devN(i), wire.ActInstall)) == 0 {
				continue
			}
			if from, ok := told[i]; !ok {
				told[i] = r.now
			} else if r.now.Sub(from) >= 40*time.Minute {
				r.installs(devN(i))
				done[i] = true
			}
		}
		r.tick(time.Second)
	}
	if got := mustRollout(t, r, "r1"); got.Wave == 1 {
		t.Errorf("after eight hours: wave %d, %+v", got.Wave, r.counts("r1"))
	}
}

// leavers have something happen between that it is known whom a command is for, and that it is issued.
type leavers struct {
	rollout.Store
	then func()
}

func (l *leavers) ToldDevices(ctx context.Context, id, command string, back bool) ([]string, error) {
	out, err := l.Store.ToldDevices(ctx, id, command, back)
	if then := l.then; then != nil && len(out) > 0 {
		l.then = nil
		then()
	}
	return out, err
}

func TestWhoLeavesAsTheCommandIsMadeIsNotTold(t *testing.T) {
	r := newRoll(t, 3)
	r.group("eu", devN(0), devN(1))
	var err error
	if r.svc, err = rollout.NewService(rollout.Config{
		Store: &leavers{r.db.Rollouts(), func() { r.group("us", devN(0)) }}, Releases: r.releases, Devices: r.devices, Ledger: r.ledger, Guard: r.guard, Away: 1000 * time.Hour,
		Now: func() time.Time { return r.now },
	}); err != nil {
		t.Fatal(err)
	}
	r.begin(ofOne("eu1", r.new, rollout.Selection{Group: "eu", All: true}))
	if err := r.svc.Tick(t.Context(), r.now); err == nil {
		t.Error("nothing is said of a command that could not be issued")
	}
	r.tick(time.Second)
	if a, b := r.commands(devN(0), wire.ActInstall), r.commands(devN(1), wire.ActInstall); len(a) != 0 || len(b) != 1 {
		t.Errorf("who left was told %v, who stays %v", a, b)
	}
}
