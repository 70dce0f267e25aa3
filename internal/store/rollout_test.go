package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// crashing is a rollout store that fails, once, when it is told to: between the first wave's command and the record of it. Before is what others do, once, while somebody decides.
type crashing struct {
	rollout.Store
	fail   bool
	before func()
}

var errCrash = errors.New("the power went")

func (c *crashing) SaveRollout(ctx context.Context, r rollout.Rollout, facts ...ledger.Fact) error {
	if meanwhile := c.before; meanwhile != nil {
		c.before = nil
		meanwhile()
	}
	if c.fail && len(r.Waves[0].Tranches) > 0 {
		c.fail = false
		return errCrash
	}
	return c.Store.SaveRollout(ctx, r, facts...)
}

func rollouts(s *stages) (*rollout.Service, *crashing) {
	s.t.Helper()
	st := &crashing{Store: s.db.Rollouts()}
	r, err := rollout.NewService(rollout.Config{
		Store: st, Releases: s.releases, Devices: s.devices, Ledger: s.ledger, Guard: s.guard, Away: 1000 * time.Hour,
		Now: func() time.Time { return s.now },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.later.Later = r
	return r, st
}

// twoWaves is a plan of one canary and the rest.
func twoWaves(id string, rel release.Release) rollout.Spec {
	return rollout.Spec{
		ID: id, Product: "pump", Release: rel.Digest[:], Selection: rollout.Selection{All: true}, Canaries: []string{devN(2)},
		Waves: []rollout.Wave{{Size: 1, Soak: 600, Deadline: 3600}, {Soak: 600, Deadline: 3600, MaxFailures: 1}},
	}
}

type roll struct {
	*stages
	svc      *rollout.Service
	store    *crashing
	old, new release.Release
}

func newRoll(t *testing.T, n int) *roll {
	s := newStages(t, wire.ModelBlob)
	r := &roll{stages: s, old: s.publish("1.0.0")}
	r.new = s.publish("1.1.0", r.old)
	for i := range n {
		s.make(devN(i), r.old)
		s.says(devN(i), r.old, true, false, nil)
	}
	r.svc, r.store = rollouts(s)
	return r
}

func (r *roll) begin(spec rollout.Spec) {
	r.t.Helper()
	who := person("op")
	if spec.Dynamic { // with a first wave that takes however many come
		who = together("op", "mia")
	}
	r.beginAs(who, spec)
}

func (r *roll) beginAs(who access.Caller, spec rollout.Spec) {
	r.t.Helper()
	if _, err := r.svc.Create(r.t.Context(), who, spec); err != nil {
		r.t.Fatal(err)
	}
	if _, _, err := r.svc.Start(r.t.Context(), who, spec.ID); err != nil {
		r.t.Fatal(err)
	}
}

// tick lets d pass and has the planner look.
func (r *roll) tick(d time.Duration) {
	r.t.Helper()
	r.now = r.now.Add(d)
	if err := r.svc.Tick(r.t.Context(), r.now); err != nil {
		r.t.Fatal(err)
	}
}

func (r *roll) phase(id string, want rollout.Phase, wave int) rollout.Rollout {
	r.t.Helper()
	got, _, err := r.svc.Get(r.t.Context(), person("op"), id)
	if err != nil {
		r.t.Fatal(err)
	}
	if got.Phase != want || got.Wave != wave {
		r.t.Fatalf("it is %s in wave %d, want %s in wave %d: %s %+v", got.Phase, got.Wave, want, wave, got.Reason, got.Last)
	}
	return got
}

// installs has a device take the release it is told to, and prove it.
func (r *roll) installs(id string) {
	r.t.Helper()
	cmds := r.commands(id, wire.ActInstall)
	if len(cmds) != 1 {
		r.t.Fatalf("device %s has install commands %v", id, cmds)
	}
	r.proves(id, r.new, attest.Affirming)
	r.says(id, r.new, true, false, map[string]wire.Outcome{cmds[0]: wire.OutcomeDone})
}

// attests has devices that were told to attest do so; they are healthy.
func (r *roll) attests(who ...int) {
	r.t.Helper()
	for _, i := range who {
		cmds := r.commands(devN(i), wire.ActAttest)
		if len(cmds) != 1 {
			r.t.Fatalf("device %d was told to attest by %v", i, cmds)
		}
		r.proves(devN(i), r.new, attest.Affirming)
		r.says(devN(i), r.new, true, false, map[string]wire.Outcome{cmds[0]: wire.OutcomeDone})
	}
}

func (r *roll) told(want ...int) {
	r.t.Helper()
	for i := range 5 {
		n := 0
		for _, w := range want {
			if w == i {
				n = 1
			}
		}
		if got := len(r.commands(devN(i), wire.ActInstall)); got != n {
			r.t.Fatalf("device %d has %d install commands, want %d", i, got, n)
		}
	}
}

func TestARolloutAdvancesOnProofNotOnInstallation(t *testing.T) {
	r := newRoll(t, 5)
	r.begin(twoWaves("r1", r.new))
	r.tick(0)
	r.tick(time.Second)
	r.told(2)
	r.tick(time.Minute)
	cmd := r.commands(devN(2), wire.ActInstall)[0]
	r.says(devN(2), r.new, true, true, nil) // on trial
	r.tick(time.Hour - 5*time.Minute)
	r.phase("r1", rollout.Running, 1)
	r.says(devN(2), r.new, true, false, map[string]wire.Outcome{cmd: wire.OutcomeDone}) // installed, healthy, not proven
	r.tick(time.Minute)
	if got := r.phase("r1", rollout.Running, 1); !got.Waves[0].SoakFrom.IsZero() {
		t.Fatal("it soaks without proof")
	}
	r.proves(devN(2), r.old, attest.Affirming) // of other code
	r.tick(time.Second)
	if got := r.phase("r1", rollout.Running, 1); !got.Waves[0].SoakFrom.IsZero() {
		t.Fatal("it soaks on proof of other code")
	}
	r.proves(devN(2), r.new, attest.Affirming)
	r.tick(time.Second)
	r.tick(9 * time.Minute)
	r.told(2)
	r.tick(2 * time.Minute)
	r.told(2) // it has soaked, and nobody heard of it since
	r.attests(2)
	r.tick(time.Second)
	r.told(0, 1, 2, 3, 4)
	r.now = r.now.Add(time.Minute)
	for _, i := range []int{0, 1, 3, 4} {
		r.installs(devN(i))
	}
	r.tick(0)
	r.tick(11 * time.Minute)
	r.phase("r1", rollout.Running, 2)
	r.attests(0, 1, 3, 4)
	r.tick(time.Second)
	r.phase("r1", rollout.Completed, 2)
	k := r.kinds("r1")
	for kind, n := range map[string]int{"rollout.created": 1, "rollout.started": 1, "rollout.wave.started": 2, "rollout.wave.succeeded": 2, "rollout.completed": 1} {
		if k[kind] != n {
			t.Errorf("%d facts %s, want %d: %v", k[kind], kind, n, k)
		}
	}
}

func TestABadRolloutHaltsAndSendsBackWhoConfirmed(t *testing.T) {
	r := newRoll(t, 5)
	r.begin(twoWaves("r1", r.new))
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	r.installs(devN(2))
	r.tick(0)
	r.tick(11 * time.Minute)
	r.attests(2)
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	// In the second wave one confirms it, two fail, and one is not heard of.
	r.installs(devN(0))
	for _, i := range []int{1, 3} {
		r.says(devN(i), r.old, true, false, map[string]wire.Outcome{r.commands(devN(i), wire.ActInstall)[0]: wire.OutcomeFailed})
	}
	r.tick(0)
	halted := r.phase("r1", rollout.Halted, 2)
	if halted.Last.Failed != 2 || halted.Last.Good != 1 || halted.Last.Waiting != 1 {
		t.Errorf("counts: %+v", halted.Last)
	}
	for i, want := range []int{1, 0, 1, 0, 0} { // the canary of the wave before, too: it runs what was judged bad
		if got := r.commands(devN(i), wire.ActRollback); len(got) != want {
			t.Errorf("device %d has rollback commands %v, want %d", i, got, want)
		}
	}
	r.tick(time.Minute)
	r.phase("r1", rollout.Halted, 2) // one is on its way
	back := r.commands(devN(0), wire.ActRollback)
	if len(back) != 1 {
		t.Fatalf("sent back again: %v", back)
	}
	c, err := r.devices.CommandOf(t.Context(), person("op"), back[0])
	if err != nil || string(c.Wire.Release) != string(r.old.Digest[:]) || c.Wire.Rollout != "r1" {
		t.Fatalf("%+v, %v", c.Wire, err)
	}
	r.says(devN(0), r.old, true, false, map[string]wire.Outcome{back[0]: wire.OutcomeDone})
	r.tick(time.Minute)
	r.phase("r1", rollout.Halted, 2) // the canary is
	r.says(devN(2), r.old, true, false, map[string]wire.Outcome{back[0]: wire.OutcomeDone})
	r.tick(time.Minute)
	done := r.phase("r1", rollout.RolledBack, 2)
	if done.Last.Devices != 5 || done.Last.Returned != 2 || done.Last.Stranded != 0 {
		t.Errorf("counts: %+v", done.Last)
	}
	k := r.kinds("r1")
	if k["rollout.halted"] != 1 || k["rollout.rolledback"] != 1 || k["rollout.completed"] != 0 {
		t.Errorf("facts: %v", k)
	}
	if n := r.kinds(halted.Waves[1].Command)["command.cancelled"]; n != 1 {
		t.Errorf("the wave's command was cancelled %d times", n)
	}
}

func TestADeviceNobodyHearsOfIsAFailure(t *testing.T) {
	r := newRoll(t, 5)
	r.begin(twoWaves("r1", r.new))
	r.tick(0)
	r.tick(time.Hour - time.Second)
	r.phase("r1", rollout.Running, 1)
	r.tick(time.Second)
	r.phase("r1", rollout.RolledBack, 1)
	r.told(2)
}

func TestADeviceThatFallsSilentInTheSoakHoldsTheWave(t *testing.T) {
	r := newRoll(t, 5)
	spec := twoWaves("r1", r.new)
	spec.Waves[0].Soak, spec.Waves[0].Deadline = 86400, 2*86400
	r.begin(spec)
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	r.installs(devN(2))
	r.tick(0)
	if got := r.phase("r1", rollout.Running, 1); got.Waves[0].SoakFrom.IsZero() {
		t.Fatal("it does not soak")
	}
	for range 25 * 12 { // a day and an hour, looked at every five minutes
		r.tick(5 * time.Minute)
	}
	if got := r.phase("r1", rollout.Running, 1); !got.Waves[0].SoakFrom.IsZero() {
		t.Error("it soaks, and nobody hears of it")
	}
	for range 23 * 12 {
		r.tick(5 * time.Minute)
	}
	if got := r.phase("r1", rollout.Halted, 1); got.Last.Failed != 1 {
		t.Errorf("counts: %+v", got.Last)
	}
	r.told(2)
	if got := r.commands(devN(2), wire.ActRollback); len(got) != 1 {
		t.Errorf("it is told to go back by %v", got)
	}
}

func TestACrashBetweenCommandAndRecordRepeatsNothing(t *testing.T) {
	r := newRoll(t, 5)
	r.begin(twoWaves("r1", r.new))
	r.store.fail = true
	if err := r.svc.Tick(t.Context(), r.now); !errors.Is(err, errCrash) {
		t.Fatalf("%v", err)
	}
	r.told(2)
	r.installs(devN(2)) // it does not wait for us
	r.tick(time.Minute)
	got := r.phase("r1", rollout.Running, 1)
	if cmds := r.commands(devN(2), wire.ActInstall); len(cmds) != 1 || got.Waves[0].Command != cmds[0] {
		t.Fatalf("commands %v, recorded %q", cmds, got.Waves[0].Command)
	}
	if n := r.kinds("r1")["rollout.wave.started"]; n != 1 {
		t.Errorf("%d facts of the wave's start", n)
	}
}

// A person may turn a rollout after its command was issued, and before that was recorded: the command is the rollout's all the same.
func TestWhatWasCommandedBeforeSomebodyTurnedItIsNotForgotten(t *testing.T) {
	op := person("op")
	for name, turn := range map[string]func(*roll) (rollout.Rollout, error){
		"abort": func(r *roll) (rollout.Rollout, error) { return r.svc.Abort(t.Context(), op, "r1", "stop") },
		"halt":  func(r *roll) (rollout.Rollout, error) { return r.svc.Halt(t.Context(), op, "r1", "stop") },
		"pause and abort": func(r *roll) (rollout.Rollout, error) {
			if _, err := r.svc.Pause(t.Context(), op, "r1", "stop"); err != nil {
				t.Fatal(err)
			}
			return r.svc.Abort(t.Context(), op, "r1", "stop")
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoll(t, 5)
			r.begin(twoWaves("r1", r.new))
			r.store.fail = true
			if err := r.svc.Tick(t.Context(), r.now); !errors.Is(err, errCrash) {
				t.Fatalf("%v", err)
			}
			if _, err := turn(r); err != nil {
				t.Fatal(err)
			}
			r.tick(time.Second)
			got := mustRollout(t, r, "r1")
			if !got.Phase.Ended() || !got.Waves[0].Cancelled {
				t.Errorf("%s: %+v", got.Phase, got.Waves[0])
			}
			if out, err := r.db.Devices().Outstanding(t.Context(), devN(2), r.now); len(out) != 0 || err != nil {
				t.Errorf("the canary is still told to install: %d, %v", len(out), err)
			}
		})
	}
	t.Run("pause", func(t *testing.T) {
		r := newRoll(t, 5)
		r.begin(twoWaves("r1", r.new))
		r.store.fail = true
		if err := r.svc.Tick(t.Context(), r.now); !errors.Is(err, errCrash) {
			t.Fatalf("%v", err)
		}
		if _, err := r.svc.Pause(t.Context(), op, "r1", "lunch"); err != nil {
			t.Fatal(err)
		}
		r.tick(time.Second)
		if got := r.phase("r1", rollout.Paused, 1); got.Waves[0].Command == "" {
			t.Error("what was commanded is not known")
		}
		r.now = r.now.Add(time.Minute)
		r.says(devN(2), r.old, true, false, map[string]wire.Outcome{r.commands(devN(2), wire.ActInstall)[0]: wire.OutcomeFailed})
		r.tick(time.Second)
		r.phase("r1", rollout.RolledBack, 1)
		r.told(2)
	})
}

// The node that took the start and the one that gives the commands have clocks of their own.
func TestClocksOfNodesMayDiffer(t *testing.T) {
	r := newRoll(t, 5)
	other, err := rollout.NewService(rollout.Config{
		Store: r.db.Rollouts(), Releases: r.releases, Devices: r.devices, Ledger: r.ledger, Guard: r.guard, Away: 1000 * time.Hour,
		Now: func() time.Time { return r.now.Add(200 * time.Millisecond) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Create(t.Context(), person("op"), twoWaves("r1", r.new)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := other.Start(t.Context(), person("op"), "r1"); err != nil {
		t.Fatal(err)
	}
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	r.installs(devN(2))
	r.tick(0)
	_, views, err := r.svc.Get(t.Context(), person("op"), "r1")
	if err != nil || len(views) != 1 || views[0].Class != rollout.Good {
		t.Fatalf("the canary that did it: %+v, %v", views, err)
	}
	r.tick(12 * time.Minute)
	r.attests(2)
	r.tick(time.Second)
	r.told(0, 1, 2, 3, 4)
}

// Commands from before the columns are found all the same.
func TestCommandsOfBeforeTheirRolloutWasNoted(t *testing.T) {
	r := newRoll(t, 5)
	r.begin(twoWaves("r1", r.new))
	r.tick(0)
	if err := r.db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE command SET rollout = NULL, wave = NULL`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(time.Minute)
	r.installs(devN(2))
	r.tick(0)
	if got := r.phase("r1", rollout.Running, 1); got.Waves[0].SoakFrom.IsZero() {
		t.Error("what the canary did is not seen")
	}
}

func TestAHaltBetweenWavesSendsBackThoseThatPassed(t *testing.T) {
	r := newRoll(t, 5)
	r.begin(twoWaves("r1", r.new))
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	r.installs(devN(2))
	r.tick(0)
	if _, err := r.svc.Pause(t.Context(), person("op"), "r1", "what do people say?"); err != nil {
		t.Fatal(err)
	}
	r.tick(11 * time.Minute)
	r.attests(2)
	r.tick(time.Second)
	r.phase("r1", rollout.Paused, 2)
	if _, err := r.svc.Halt(t.Context(), person("op"), "r1", "they complain"); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Second)
	back := r.commands(devN(2), wire.ActRollback)
	if len(back) != 1 {
		t.Fatalf("the canary is told to go back by %v", back)
	}
	r.says(devN(2), r.old, true, false, map[string]wire.Outcome{back[0]: wire.OutcomeDone})
	r.tick(time.Second)
	r.phase("r1", rollout.RolledBack, 2)
	r.told(2)
}

func TestRolloutsThatMayNotBe(t *testing.T) {
	r := newRoll(t, 3)
	ctx := t.Context()
	open := twoWaves("r1", r.new)
	r.begin(open)
	_, err := r.svc.Create(ctx, person("op"), open)
	wantKind(t, "the same ID", err, fault.Conflict)
	second := twoWaves("r2", r.new)
	second.Selection, second.Canaries = rollout.Selection{IDs: []string{devN(2)}}, nil
	r.tick(0) // its first wave is told
	if _, err := r.svc.Create(ctx, person("op"), second); err != nil {
		t.Fatal(err)
	}
	_, _, err = r.svc.Start(ctx, person("op"), "r2")
	wantKind(t, "a device in two rollouts", err, fault.Conflict)
	for name, c := range map[string]struct {
		kind   fault.Kind
		change func(*rollout.Spec)
	}{
		"no release":         {fault.NotFound, func(s *rollout.Spec) { s.Release = make([]byte, 32) }},
		"no waves":           {fault.Invalid, func(s *rollout.Spec) { s.Waves = nil }},
		"no deadline":        {fault.Invalid, func(s *rollout.Spec) { s.Waves[0].Deadline = 0 }},
		"two selections":     {fault.Invalid, func(s *rollout.Spec) { s.Selection.IDs = []string{devN(0)} }},
		"rest comes first":   {fault.Invalid, func(s *rollout.Spec) { s.Waves[0].Size = 0 }},
		"all may fail":       {fault.Invalid, func(s *rollout.Spec) { s.Waves[0].MaxFailuresRate = 100 }},
		"forbidden way back": {fault.Invalid, func(s *rollout.Spec) { s.Rollback = r.new.Digest[:] }},
		"retired devices":    {fault.Invalid, func(s *rollout.Spec) { s.Selection = rollout.Selection{State: device.Disposed} }},
	} {
		spec := twoWaves("r3", r.new)
		c.change(&spec)
		_, err := r.svc.Create(ctx, person("op"), spec)
		wantKind(t, name, err, c.kind)
		_, err = r.svc.DryRun(ctx, person("op"), spec)
		wantKind(t, name+", dry", err, c.kind)
	}
	viewer := access.Caller{ID: "person:v", Kind: access.Person, Roles: []access.Role{access.Viewer}}
	_, err = r.svc.Abort(ctx, viewer, "r1", "")
	wantKind(t, "somebody without the right", err, fault.Denied)
	_, err = r.svc.Resume(ctx, person("op"), "r1", "")
	wantKind(t, "resume what runs", err, fault.Conflict)
	if _, err := r.svc.Abort(ctx, person("op"), "r1", "enough"); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Second)
	r.phase("r1", rollout.Aborted, 1)
	if _, _, err := r.svc.Start(ctx, person("op"), "r2"); err != nil {
		t.Errorf("its devices are not free after the abort: %v", err)
	}
}

func mustRollout(t testing.TB, r *roll, id string) rollout.Rollout {
	t.Helper()
	out, err := r.db.Rollouts().Rollout(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWhatIsProgrammedOnceIsNotRolledOut(t *testing.T) {
	s := newStages(t, wire.ModelOTP)
	rel := s.publish("1.0.0")
	s.make(devN(2), release.Release{})
	svc, _ := rollouts(s)
	_, err := svc.Create(t.Context(), person("op"), twoWaves("r1", rel))
	wantKind(t, "create", err, fault.Conflict)
	if cmds := s.commands(devN(2), wire.ActInstall); len(cmds) != 0 {
		t.Errorf("something was sent: %v", cmds)
	}
}

func TestAWithdrawnReleaseHaltsItsRollout(t *testing.T) {
	r := newRoll(t, 5)
	r.begin(twoWaves("r1", r.new))
	r.tick(0)
	if _, err := r.releases.Withdraw(t.Context(), person("op"), r.new.Digest, "it leaks"); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Minute)
	r.phase("r1", rollout.RolledBack, 1)
	r.told(2)
}

func TestADryRunTellsWhatStartDoes(t *testing.T) {
	r := newRoll(t, 5)
	r.says(devN(4), r.new, true, false, nil) // runs it already
	spec := twoWaves("r1", r.new)
	before := r.kinds("r1")
	dry, err := r.svc.DryRun(t.Context(), person("op"), spec)
	if err != nil {
		t.Fatal(err)
	}
	if len(dry.Members) != 4 || dry.Members[0].Device != devN(2) || dry.Skipped[devN(4)] == "" || len(dry.Stranded) != 0 || dry.Set.Count != 4 {
		t.Errorf("%+v", dry)
	}
	if len(before) != 0 || len(r.kinds("r1")) != 0 {
		t.Error("a dry run left facts")
	}
	if _, err := r.svc.Create(t.Context(), person("op"), spec); err != nil {
		t.Fatal(err)
	}
	_, res, err := r.svc.Start(t.Context(), person("op"), "r1")
	if err != nil || string(res.Set.Root) != string(dry.Set.Root) {
		t.Errorf("started with other devices than the dry run told: %v", err)
	}
}

func TestAPauseLetsNoWaveGo(t *testing.T) {
	r := newRoll(t, 5)
	r.begin(twoWaves("r1", r.new))
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	r.installs(devN(2))
	if _, err := r.svc.Pause(t.Context(), person("op"), "r1", "lunch"); err != nil {
		t.Fatal(err)
	}
	r.tick(0)
	r.tick(14 * time.Minute)
	r.attests(2)
	r.tick(time.Second)
	r.phase("r1", rollout.Paused, 2)
	r.told(2)
	if _, err := r.svc.Resume(t.Context(), person("op"), "r1", "back"); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Second)
	r.told(0, 1, 2, 3, 4)
}

func TestADeviceWithNoWayBackIsCountedAsStranded(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	r := &roll{stages: s, old: s.publish("1.0.0")}
	r.new = s.publish("1.1.0") // its approvers allow no way back
	s.make(devN(2), r.old)
	s.says(devN(2), r.old, true, false, nil)
	r.svc, r.store = rollouts(s)
	r.begin(twoWaves("r1", r.new))
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	r.says(devN(2), r.new, true, false, map[string]wire.Outcome{r.commands(devN(2), wire.ActInstall)[0]: wire.OutcomeDone})
	r.proves(devN(2), r.new, attest.Contraindicated)
	r.tick(0)
	if got := r.phase("r1", rollout.RolledBack, 1); got.Last.Stranded != 1 || got.Last.Returned != 0 {
		t.Errorf("counts: %+v", got.Last)
	}
	if _, views, err := r.svc.Get(t.Context(), person("op"), "r1"); err != nil || len(views) != 1 || views[0].Mark != rollout.Stranded || views[0].Class != rollout.Failed || views[0].Why == "" {
		t.Errorf("the device reads %+v, %v", views, err)
	}
	if n := len(r.commands(devN(2), wire.ActRollback)); n != 0 {
		t.Errorf("%d rollback commands the device would refuse", n)
	}
}

// A command stands as the service's clock says, in every view of it.
func TestACommandRunsOutByTheClockOfWhoAsks(t *testing.T) {
	r := newRoll(t, 1)
	id, err := r.devices.Command(t.Context(), access.Internal("test"), device.Instruction{
		Product: "pump", Act: wire.ActAttest, Devices: []string{devN(0)}, Valid: time.Hour, Reason: "why",
	})
	if err != nil {
		t.Fatal(err)
	}
	standing := func(want device.Standing) {
		t.Helper()
		of, err := r.devices.DeviceCommands(t.Context(), person("op"), devN(0))
		if err != nil || len(of) != 1 || of[0].Standing != want {
			t.Errorf("of the device: %+v, %v; want %s", of, err, want)
		}
		by, err := r.devices.CommandDevices(t.Context(), person("op"), id, "", 0)
		if err != nil || len(by) != 1 || by[0].Standing != want {
			t.Errorf("by device: %+v, %v; want %s", by, err, want)
		}
		n, err := r.devices.CommandStatus(t.Context(), person("op"), id)
		if err != nil || n[want] != 1 {
			t.Errorf("counted: %v, %v; want one %s", n, err, want)
		}
	}
	r.now = r.now.Add(-48 * time.Hour) // of a clock that is behind
	standing(device.Pending)
	r.now = r.now.Add(49*time.Hour - time.Second)
	standing(device.Pending)
	r.now = r.now.Add(time.Second)
	standing(device.Expired)
}

// Nobody brings code past the waves and the gate of a rollout alone: not by a command, and not by making a device anew with what never
// ran on it in good health.
func TestWhoMayNotBringCodePastRollouts(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	had := s.publish("1.0.0")
	s.make(devN(0), had)
	s.make(devN(1), had)
	s.says(devN(0), had, true, false, nil)
	s.says(devN(1), had, true, false, nil)
	next := s.publish("1.1.0")
	seconded := together("olga", "carol")
	for name, c := range map[string]struct {
		who     access.Caller
		act     wire.Act
		release []byte
		devices []string
		code    string
	}{
		"an update":                        {person("olga"), wire.ActInstall, next.Digest[:], []string{devN(0)}, "command.rollout"},
		"an update, by two":                {seconded, wire.ActInstall, next.Digest[:], []string{devN(0)}, "command.rollout"},
		"the way back":                     {person("olga"), wire.ActRollback, had.Digest[:], []string{devN(0)}, "command.rollout"},
		"an update called making anew":     {person("olga"), wire.ActReprovide, next.Digest[:], []string{devN(0)}, "access.four-eyes"},
		"of one of two":                    {person("olga"), wire.ActReprovide, had.Digest[:], []string{devN(0), devN(9)}, "access.four-eyes"},
		"making anew":                      {person("olga"), wire.ActReprovide, had.Digest[:], []string{devN(0), devN(1)}, ""},
		"making anew with another, by two": {seconded, wire.ActReprovide, next.Digest[:], []string{devN(0)}, ""},
	} {
		in := device.Instruction{Product: "pump", Act: c.act, Devices: c.devices, Release: c.release, Reason: "why"}
		look, lookErr := s.devices.Preview(t.Context(), c.who, in)
		_, err := s.devices.Command(t.Context(), c.who, in)
		if codeOf(err) != c.code {
			t.Errorf("%s: %v, want %q", name, err, c.code)
		}
		if refused := c.code == "command.rollout"; refused != (lookErr != nil) || !refused && c.who.Seconded == "" && look.TakesTwo != (c.code == "access.four-eyes") {
			t.Errorf("%s: a dry run says %+v, %v", name, look, lookErr)
		}
	}
	if got := s.commands(devN(0), wire.ActInstall); len(got) != 0 {
		t.Errorf("%d installs", len(got))
	}
}

// A rollout under way moves by itself. Who pauses, halts or ends it in that moment is not told that it changed: it is paused as it is by then, and nothing that it did is lost.
func TestWhoStopsARolloutIsNotToldThatItMoved(t *testing.T) {
	for name, stop := range map[string]func(r *roll) (rollout.Rollout, error){
		"pause": func(r *roll) (rollout.Rollout, error) { return r.svc.Pause(t.Context(), person("op"), "r1", "lunch") },
		"halt":  func(r *roll) (rollout.Rollout, error) { return r.svc.Halt(t.Context(), person("op"), "r1", "smoke") },
		"abort": func(r *roll) (rollout.Rollout, error) { return r.svc.Abort(t.Context(), person("op"), "r1", "smoke") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoll(t, 5)
			r.begin(twoWaves("r1", r.new))
			other, _ := rollouts(r.stages)
			r.store.before = func() {
				if err := other.Tick(t.Context(), r.now.Add(time.Second)); err != nil {
					t.Error(err)
				}
			}
			got, err := stop(r)
			if err != nil {
				t.Fatal(err)
			}
			kept := mustRollout(t, r, "r1")
			if got.Rev != kept.Rev || got.Phase != kept.Phase || len(kept.Waves[0].Tranches) != 1 {
				t.Errorf("it is %+v, and was said to be %+v", kept, got)
			}
			r.told(2)
		})
	}
}
