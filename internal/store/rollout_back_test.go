package store_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// halted takes a rollout to its halt, with the canary on its way back and not heard of any more.
func (r *roll) halted() {
	r.t.Helper()
	r.begin(twoWaves("r1", r.new))
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	r.installs(devN(2))
	if _, err := r.svc.Halt(r.t.Context(), person("op"), "r1", "they complain"); err != nil {
		r.t.Fatal(err)
	}
	r.tick(time.Second)
	if got := r.commands(devN(2), wire.ActRollback); len(got) != 1 {
		r.t.Fatalf("it is told to go back by %v", got)
	}
}

func (r *roll) nothingOutstanding(id string) {
	r.t.Helper()
	if out, err := r.db.Devices().Outstanding(r.t.Context(), id, r.now); len(out) != 0 || err != nil {
		r.t.Errorf("device %s is still told %d things, %v", id, len(out), err)
	}
}

// When a rollout has ended its devices are free for others: no order of it may reach them.
func TestNobodyIsSentBackWhenItIsOver(t *testing.T) {
	for name, end := range map[string]func(*roll) rollout.Phase{
		"by an abort": func(r *roll) rollout.Phase {
			if _, err := r.svc.Abort(r.t.Context(), person("op"), "r1", "let it be"); err != nil {
				r.t.Fatal(err)
			}
			r.tick(time.Second)
			return rollout.Aborted
		},
		"by time": func(r *roll) rollout.Phase {
			for range 13 {
				r.tick(5 * time.Minute)
			}
			return rollout.RolledBack
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoll(t, 5)
			r.halted()
			r.phase("r1", end(r), 1)
			r.nothingOutstanding(devN(2))
			if n := r.kinds(r.commands(devN(2), wire.ActRollback)[0])["command.cancelled"]; n != 1 {
				t.Errorf("the way back was cancelled %d times", n)
			}
		})
	}
	t.Run("by an abort in a later wave", func(t *testing.T) {
		r := newRoll(t, 5)
		spec := twoWaves("r1", r.new)
		spec.Waves[0].Soak = 0
		r.begin(spec)
		r.tick(0)
		r.now = r.now.Add(time.Minute)
		r.installs(devN(2))
		r.tick(time.Second) // the second wave is told
		if _, err := r.svc.Halt(t.Context(), person("op"), "r1", "they complain"); err != nil {
			t.Fatal(err)
		}
		r.tick(time.Second)
		if _, err := r.svc.Abort(t.Context(), person("op"), "r1", "let it be"); err != nil {
			t.Fatal(err)
		}
		r.tick(time.Second)
		r.phase("r1", rollout.Aborted, 2)
		for i := range 5 {
			r.nothingOutstanding(devN(i))
		}
	})
}

// A node that was cut off may do the step of its successor once more.
func TestTwoNodesSendADeviceBackOnce(t *testing.T) {
	r := newRoll(t, 5)
	r.begin(twoWaves("r1", r.new))
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	r.installs(devN(2))
	if _, err := r.svc.Halt(t.Context(), person("op"), "r1", "they complain"); err != nil {
		t.Fatal(err)
	}
	old := &hindsight{Store: r.db.Rollouts()}
	other, err := rollout.NewService(rollout.Config{
		Store: old, Releases: r.releases, Devices: r.devices, Ledger: r.ledger, Guard: r.guard, Now: func() time.Time { return r.now }, Away: 1000 * time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	if old.open, err = r.db.Rollouts().Rollouts(t.Context(), nil, true, "", 0); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Second)
	if err := other.Tick(t.Context(), r.now); err != nil && !errors.Is(err, rollout.ErrChanged) {
		t.Fatal(err)
	}
	if got := r.commands(devN(2), wire.ActRollback); len(got) != 1 {
		t.Errorf("the canary is sent back by %v", got)
	}
}

// hindsight sees rollouts as they were.
type hindsight struct {
	rollout.Store
	open []rollout.Rollout
}

func (s *hindsight) Rollouts(context.Context, []string, bool, string, int) ([]rollout.Rollout, error) {
	return slices.Clone(s.open), nil
}

// What is withdrawn is handed out to nobody, and so is no way back: another is taken, or it is said that there is none.
func TestAWayBackThatWasWithdrawnIsNone(t *testing.T) {
	r := newRoll(t, 5)
	older := r.publish("0.9.0")
	newer := r.publish("1.2.0", r.old, older)
	r.new = newer
	spec := twoWaves("r1", newer)
	spec.Rollback = older.Digest[:]
	if _, err := r.releases.Withdraw(t.Context(), person("op"), r.old.Digest, "it leaks"); err != nil { // what all of them run
		t.Fatal(err)
	}
	r.begin(spec)
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	r.installs(devN(2))
	if _, err := r.svc.Halt(t.Context(), person("op"), "r1", "they complain"); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Second)
	back := r.commands(devN(2), wire.ActRollback)
	if len(back) != 1 {
		t.Fatalf("it is told to go back by %v", back)
	}
	if c, err := r.devices.CommandOf(t.Context(), person("op"), back[0]); err != nil || string(c.Wire.Release) != string(older.Digest[:]) {
		t.Errorf("it is sent to %x, %v", c.Wire.Release, err)
	}

	r = newRoll(t, 5)
	spec = twoWaves("r1", r.new)
	if _, err := r.releases.Withdraw(t.Context(), person("op"), r.old.Digest, "it leaks"); err != nil {
		t.Fatal(err)
	}
	if dry, err := r.svc.DryRun(t.Context(), person("op"), spec); err != nil || len(dry.Stranded) != 5 {
		t.Errorf("a dry run says that %d would have no way back, %v", len(dry.Stranded), err)
	}
	r.begin(spec)
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	r.installs(devN(2))
	if _, err := r.svc.Halt(t.Context(), person("op"), "r1", "they complain"); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Second)
	if got := r.phase("r1", rollout.RolledBack, 1); got.Last.Stranded != 1 || got.Last.Unknown != 0 {
		t.Errorf("counts: %+v", got.Last)
	}
}

// Who runs something newer refuses what is older: it is left out with the reason, and fails no wave.
func TestWhoRunsSomethingNewerIsLeftOut(t *testing.T) {
	r := newRoll(t, 3)
	newest := r.publish("1.2.0", r.old)
	r.says(devN(0), newest, true, false, nil)
	r.says(devN(1), newest, true, true, nil) // on trial: it may fall back
	dry, err := r.svc.DryRun(t.Context(), person("op"), twoWaves("r1", r.new))
	if err != nil || len(dry.Members) != 2 || dry.Skipped[devN(0)] != "runs 1.2.0, which is newer" {
		t.Errorf("%+v, %v", dry, err)
	}
}

// Who did not hear the answer asks again, and the same list may be written in two ways.
func TestARolloutIsCreatedOnceHoweverItIsWritten(t *testing.T) {
	r := newRoll(t, 3)
	spec := twoWaves("r1", r.new)
	spec.Canaries = []string{}
	for range 2 {
		if _, err := r.svc.Create(t.Context(), person("op"), spec); err != nil {
			t.Fatal(err)
		}
	}
	spec.Canaries = nil
	if _, err := r.svc.Create(t.Context(), person("op"), spec); err != nil {
		t.Error(err)
	}
	spec.Reason = "another"
	if _, err := r.svc.Create(t.Context(), person("op"), spec); codeOf(err) != "rollout.exists" {
		t.Errorf("another of that name: %v", err)
	}
}
