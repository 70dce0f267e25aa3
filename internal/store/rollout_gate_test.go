package store_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// ofOne is a rollout of one wave, to some devices.
func ofOne(id string, rel release.Release, sel rollout.Selection) rollout.Spec {
	return rollout.Spec{ID: id, Product: "pump", Release: rel.Digest[:], Selection: sel, Waves: []rollout.Wave{{Deadline: 3600}}}
}

// by gives what the devices are told now by a rollout.
func (s *stages) by(id string, who ...string) (out []device.Command) {
	s.t.Helper()
	for _, d := range who {
		all, err := s.db.Devices().Outstanding(s.t.Context(), d, s.now)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, c := range all {
			if c.Wire.Rollout == id {
				out = append(out, c)
			}
		}
	}
	return out
}

func (r *roll) counts(id string) rollout.Counts {
	r.t.Helper()
	ro, _, err := r.svc.Get(r.t.Context(), person("op"), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return ro.Last
}

// The canaries are held by another rollout: nobody has shown that the release is good, so the next wave waits for them.
func TestAGateDoesNotOpenOnNobody(t *testing.T) {
	everybody := []string{devN(0), devN(1), devN(2), devN(3)}
	begun := func(t *testing.T) *roll {
		r := newRoll(t, 4)
		next := r.publish("1.2.0", r.old)
		r.begin(ofOne("small", r.new, rollout.Selection{IDs: []string{devN(2)}}))
		r.tick(time.Second)
		r.now = r.now.Add(time.Second)
		r.begin(twoWaves("big", next)) // its canary is devN(2)
		r.tick(time.Second)
		r.tick(2 * freeAfter)
		if c := r.by("big", everybody...); len(c) != 0 {
			t.Fatalf("%d devices are told, and no canary showed that it is good", len(c))
		}
		if got := r.phase("big", rollout.Running, 1); got.Last.Held != 1 {
			t.Errorf("%+v", got.Last)
		}
		return r
	}
	t.Run("it is free again", func(t *testing.T) {
		r := begun(t)
		if _, err := r.svc.Abort(t.Context(), person("op"), "small", "another goes first"); err != nil {
			t.Fatal(err)
		}
		r.tick(time.Second)
		r.tick(freeAfter)
		if c := r.by("big", everybody...); len(c) != 1 || len(r.by("big", devN(2))) != 1 {
			t.Errorf("%d devices are told, want the canary", len(c))
		}
	})
	t.Run("its end was decided", func(t *testing.T) {
		r := begun(t)
		if _, err := r.devices.Move(t.Context(), access.Internal("t"), devN(2), device.Retire, nil, "broken"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.svc.Abort(t.Context(), person("op"), "small", "another goes first"); err != nil {
			t.Fatal(err)
		}
		r.tick(time.Second)
		r.tick(freeAfter)
		r.tick(time.Second)
		if got := r.phase("big", rollout.RolledBack, 1); got.Reason != "wave 1: no device is good" {
			t.Errorf("halted: %s", got.Reason)
		}
		if c := r.by("big", everybody...); len(c) != 0 {
			t.Errorf("%d devices are told", len(c))
		}
	})
}

// Who was held is looked at again when it is free, as whoever is taken with its wave is.
func TestWhoWasHeldIsLookedAtAgain(t *testing.T) {
	t.Run("it has left the group", func(t *testing.T) {
		r := newRoll(t, 3)
		next := r.publish("1.2.0", r.old)
		r.group("eu", devN(0), devN(1))
		r.begin(ofOne("maker", r.new, rollout.Selection{IDs: []string{devN(0)}}))
		r.tick(time.Second)
		r.now = r.now.Add(time.Second)
		r.begin(ofOne("former", next, rollout.Selection{Group: "eu", All: true}))
		r.tick(time.Second)
		if c := r.counts("former"); c.Held != 1 {
			t.Fatalf("%+v", c)
		}
		r.group("us", devN(0))
		if _, err := r.svc.Abort(t.Context(), person("op"), "maker", "x"); err != nil {
			t.Fatal(err)
		}
		r.tick(time.Second)
		r.tick(freeAfter)
		r.tick(time.Second)
		if c := r.by("former", devN(0)); len(c) != 0 {
			t.Error("it is told by the rollout of a group that it has left")
		}
		if c := r.counts("former"); c.Held != 0 || c.Devices != 1 {
			t.Errorf("%+v", c)
		}
	})
	t.Run("it runs something newer", func(t *testing.T) {
		c := newClients(t)
		next := c.publish("1.2.0", c.old)
		all := rollout.Selection{All: true}
		newer, older := ofOne("newer", next, all), ofOne("older", c.new, all)
		newer.Assurance, older.Assurance, older.Waves[0].Deadline = device.Says, device.Says, 7200
		c.begin(newer)
		c.tick(time.Second)
		l, err := c.svc.Admit(t.Context(), person("sam"), legacy.Admission{Kind: legacy.DDI, Product: "pump", Name: "door-2"}) // so that the older goes on
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.devices.Runs(t.Context(), access.DeviceCaller(l.Client.Device), l.Client.Device, "1.0.0"), c.devices.Flush(t.Context())); err != nil {
			t.Fatal(err)
		}
		c.now = c.now.Add(time.Second)
		c.begin(older)
		c.tick(time.Second)
		c.answers(c.offered(), device.Succeeded)
		c.now = c.now.Add(time.Second)
		c.saysVersion("1.2.0")
		c.tick(time.Second)
		c.tick(freeAfter)
		c.tick(time.Second)
		if o := c.offered(); o.Number != 0 {
			t.Errorf("it runs 1.2.0, and is offered %s %s", o.Act, o.Release.Version)
		}
	})
	t.Run("it runs something else", func(t *testing.T) {
		r := newRoll(t, 3)
		next := r.publish("1.2.0", r.old, r.new)
		r.begin(ofOne("first", r.new, rollout.Selection{IDs: []string{devN(0)}}))
		r.tick(time.Second)
		r.now = r.now.Add(time.Second)
		r.begin(ofOne("second", next, rollout.Selection{All: true}))
		r.tick(time.Second)
		r.now = r.now.Add(time.Second)
		r.installs(devN(0))
		r.tick(time.Second)
		r.tick(freeAfter)
		r.tick(time.Second)
		r.previous("second", devN(0), r.new)
	})
}

// The way back is to what a device ran when it was told, whatever it ran when its wave began.
func TestTheWayBackIsToWhatADeviceRanWhenItWasTold(t *testing.T) {
	r := newRoll(t, 3)
	next := r.publish("1.2.0", r.old, r.new)
	spec := ofOne("r1", next, rollout.Selection{All: true})
	spec.Canaries, spec.Waves[0].Tranche, spec.Waves[0].MaxFailures = []string{devN(1), devN(2)}, 1, 2
	r.begin(spec)
	r.tick(time.Second)
	r.says(devN(2), r.new, true, false, nil) // by hand
	r.now = r.now.Add(time.Second)
	r.says(devN(1), r.old, true, false, map[string]wire.Outcome{r.commands(devN(1), wire.ActInstall)[0]: wire.OutcomeFailed})
	r.tick(time.Second)
	r.tick(time.Second)
	r.previous("r1", devN(2), r.new)
}

// previous checks what a told device would be sent back to.
func (r *roll) previous(id, dev string, want release.Release) {
	r.t.Helper()
	all, err := r.db.Rollouts().Marked(r.t.Context(), id, 1, 1, nil, "", 0)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, s := range all {
		if s.Device != dev {
			continue
		}
		if s.Tranche == 0 || string(s.Previous) != string(want.Digest[:]) {
			r.t.Errorf("%s is in tranche %d, and its way back is %x", dev, s.Tranche, s.Previous)
		}
		return
	}
	r.t.Errorf("%s is not in %s", dev, id)
}

// group moves devices into a group of the product.
func (r *roll) group(to string, ids ...string) {
	r.t.Helper()
	if err := r.devices.Group(r.t.Context(), person("olga"), ids, to, "test"); err != nil {
		r.t.Fatal(err)
	}
}

// A device that has left the group before its turn is told nothing, counts as gone, and is free for others.
func TestWhoLeftTheGroupBeforeItsTurnIsNotTold(t *testing.T) {
	r := newRoll(t, 3)
	r.group("eu", devN(0), devN(1))
	spec := ofOne("former", r.new, rollout.Selection{Group: "eu", All: true})
	spec.Canaries, spec.Waves[0].Tranche = []string{devN(1)}, 1
	r.begin(spec)
	r.tick(time.Second)
	r.group("us", devN(0))
	r.now = r.now.Add(time.Second)
	r.installs(devN(1))
	r.tick(time.Second)
	r.tick(time.Second)
	if c := r.by("former", devN(0)); len(c) != 0 {
		t.Error("it is told by the rollout of a group that it has left")
	}
	if got := r.phase("former", rollout.Completed, 1); got.Last.Left != 1 || got.Last.Good != 1 {
		t.Errorf("%+v", got.Last)
	}

	r = newRoll(t, 3) // one leaves before it is decided who is told, and one between that and the command
	r.group("eu", devN(0), devN(1), devN(2))
	spec.Release, spec.Waves[0].Tranche = r.new.Digest[:], 0
	r.begin(spec)
	o, places := mustRollout(t, r, "former"), r.db.Rollouts()
	if err := places.TakeDevices(t.Context(), o, []rollout.Member{{Device: devN(0), Wave: 1}, {Device: devN(1), Wave: 1}, {Device: devN(2), Wave: 1}}); err != nil {
		t.Fatal(err)
	}
	r.group("us", devN(0))
	o.Waves[0].Taken, o.Waves[0].Tranches = r.now, []rollout.Tranche{{Command: "c1", Devices: 3, At: r.now}}
	if err := places.TellDevices(t.Context(), o, 1, []string{devN(0), devN(1), devN(2)}, r.now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if told, err := places.ToldDevices(t.Context(), "former", "c1", false); err != nil || !slices.Equal(told, []string{devN(1), devN(2)}) {
		t.Errorf("told: %v, %v", told, err)
	}
	r.group("us", devN(1))
	if told, err := places.ToldDevices(t.Context(), "former", "c1", false); err != nil || !slices.Equal(told, []string{devN(2)}) {
		t.Errorf("told: %v, %v", told, err)
	}
	r.tick(time.Second)
	r.tick(time.Second)
	if c := r.counts("former"); c.Left != 2 || c.Devices != 3 {
		t.Errorf("%+v", c)
	}
	r.begin(ofOne("other", r.new, rollout.Selection{IDs: []string{devN(0), devN(1)}}))
	r.tick(time.Second)
	if c := r.by("other", devN(0), devN(1)); len(c) != 2 {
		t.Errorf("another rollout tells them %d things", len(c))
	}
}

// before does something once, before a rollout is saved that is as it says.
type before struct {
	rollout.Store
	is func(rollout.Rollout) bool
	do func() error
}

func (b *before) SaveRollout(ctx context.Context, r rollout.Rollout, facts ...ledger.Fact) error {
	if do := b.do; do != nil && b.is(r) {
		b.do = nil
		if err := do(); err != nil {
			return err
		}
	}
	return b.Store.SaveRollout(ctx, r, facts...)
}

// over has the rollouts of r kept by b, with the pause from which on nobody is taken to have listened.
func (b *before) over(r *roll, away time.Duration) {
	r.t.Helper()
	b.Store = r.db.Rollouts()
	svc, err := rollout.NewService(rollout.Config{
		Store: b, Releases: r.releases, Devices: r.devices, Ledger: r.ledger, Guard: r.guard, Away: away, Now: func() time.Time { return r.now },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.svc = svc
}

// A person halts a rollout while it is being completed: it has its devices still, and follows them on their way back.
func TestAHaltBesideTheEndKeepsTheDevices(t *testing.T) {
	r := newRoll(t, 2)
	plain, _ := rollouts(r.stages)
	st := &before{is: func(o rollout.Rollout) bool { return o.Phase == rollout.Completed }}
	st.do = func() error {
		_, err := plain.Halt(t.Context(), person("op"), "r1", "it burns")
		return err
	}
	st.over(r, 1000*time.Hour)
	r.begin(ofOne("r1", r.new, rollout.Selection{All: true}))
	r.tick(time.Second)
	r.now = r.now.Add(time.Second)
	r.installs(devN(0))
	r.installs(devN(1))
	r.now = r.now.Add(time.Second)
	if err := r.svc.Tick(t.Context(), r.now); !errors.Is(err, rollout.ErrChanged) {
		t.Fatalf("%v", err)
	}
	r.tick(time.Second)
	for i := range 2 {
		back := r.commands(devN(i), wire.ActRollback)
		if len(back) != 1 {
			t.Fatalf("%s is sent back by %v", devN(i), back)
		}
		r.says(devN(i), r.old, true, false, map[string]wire.Outcome{back[0]: wire.OutcomeDone})
	}
	r.tick(time.Second)
	if got := r.phase("r1", rollout.RolledBack, 1); got.Last.Returned != 2 {
		t.Errorf("%+v", got.Last)
	}
}

// A crash between the end of a rollout and the freeing of its devices leaves them to nobody for long.
func TestDevicesOfARolloutThatEndedAreFreeAfterACrash(t *testing.T) {
	r := newRoll(t, 2)
	r.begin(ofOne("r1", r.new, rollout.Selection{All: true}))
	r.tick(time.Second)
	if err := r.db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE rollout SET phase = 'aborted', open = 0 WHERE id = 'r1'`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	r.svc, r.store = rollouts(r.stages)
	r.tick(time.Second)
	r.begin(ofOne("r2", r.new, rollout.Selection{IDs: []string{devN(0), devN(1)}}))
	r.tick(time.Second)
	if c := r.by("r2", devN(0), devN(1)); len(c) != 2 {
		t.Errorf("%d devices are told", len(c))
	}
}

// Somebody turns a rollout in the first moment after an outage: its deadline is later all the same, and so are those of the others.
func TestATurnBesideTheReturnFromAnOutageLosesNoTime(t *testing.T) {
	r := newRoll(t, 5)
	st := &before{}
	st.over(r, 0)
	one, two := ofOne("r1", r.new, rollout.Selection{IDs: []string{devN(0)}}), ofOne("r2", r.new, rollout.Selection{IDs: []string{devN(1)}})
	r.begin(one)
	r.begin(two)
	r.tick(0)
	r.tick(20 * time.Second)
	r.now = r.now.Add(3 * time.Hour)
	plain, _ := rollouts(r.stages)
	st.over(r, 0)
	st.is = func(o rollout.Rollout) bool { return o.Spec.ID == "r2" }
	st.do = func() error {
		_, err := plain.Pause(t.Context(), person("op"), "r2", "what was that?")
		return err
	}
	r.tick(0)
	r.tick(20 * time.Second)
	for id, phase := range map[string]rollout.Phase{"r1": rollout.Running, "r2": rollout.Paused} {
		if got := r.phase(id, phase, 1); got.Waves[0].Away.D() < 3*time.Hour-time.Minute || got.Waves[0].Away.D() > 3*time.Hour+time.Minute {
			t.Errorf("%s: nobody listened for %v", id, got.Waves[0].Away.D())
		}
	}
	st.over(r, 0) // it cannot be written down: it is added by the next
	r.now = r.now.Add(3 * time.Hour)
	st.is, st.do = func(o rollout.Rollout) bool { return o.Spec.ID == "r1" }, func() error { return errCrash }
	if err := r.svc.Tick(t.Context(), r.now); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	r.tick(20 * time.Second)
	if got := r.phase("r1", rollout.Running, 1); got.Waves[0].Away.D() < 6*time.Hour-time.Minute {
		t.Errorf("nobody listened for %v", got.Waves[0].Away.D())
	}
}

// What the log knows of a rollout that the backup does not ends it: whom its commands were for is lost.
func TestARolloutThatWentOnInLostTimeEnds(t *testing.T) {
	for kind, wants := range map[ledger.Kind][2]rollout.Phase{ // before its start, and under way
		ledger.KindRolloutAborted:   {rollout.Aborted, rollout.Aborted},
		ledger.KindRolloutHalted:    {rollout.Aborted, rollout.Aborted},
		ledger.KindRolloutStarted:   {rollout.Aborted, rollout.Aborted},
		ledger.KindWaveStarted:      {rollout.Aborted, rollout.Aborted},
		ledger.KindTrancheIssued:    {rollout.Aborted, rollout.Aborted},
		ledger.KindWaveSucceeded:    {rollout.Aborted, rollout.Aborted},
		ledger.KindRolloutPaused:    {rollout.Created, rollout.Paused},
		ledger.KindRolloutResumed:   {rollout.Created, rollout.Paused},
		ledger.KindRolloutCompleted: {rollout.Completed, rollout.Completed},
	} {
		for i, want := range wants {
			r := newRoll(t, 2)
			spec := ofOne("r1", r.new, rollout.Selection{All: true})
			if _, err := r.svc.Create(t.Context(), person("op"), spec); err != nil {
				t.Fatal(err)
			}
			if i == 1 {
				if _, _, err := r.svc.Start(t.Context(), person("op"), "r1"); err != nil {
					t.Fatal(err)
				}
				r.tick(time.Second)
			}
			e, err := ledger.New(kind, r.now, "person:op", "r1", nil, []byte("{}")).Encode(nil)
			if err != nil {
				t.Fatal(err)
			}
			st, err := r.db.State(t.Context(), ledger.Control)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.db.Replay(t.Context(), ledger.Control, st.Size, [][]byte{e}, map[ledger.Kind]store.Replayed{}); err != nil {
				t.Fatal(err)
			}
			r.svc, r.store = rollouts(r.stages)
			r.tick(time.Second)
			if got := mustRollout(t, r, "r1"); got.Phase != want {
				t.Errorf("%s, started %v: it is %s, want %s", kind, i == 1, got.Phase, want)
			}
			if n := len(r.by("r1", devN(0), devN(1))); want == rollout.Aborted && n != 0 {
				t.Errorf("%s: %d devices are told", kind, n)
			}
		}
	}
}

// A rollout that is stored in a wave that it has not is an error, and no end of the server.
func TestARolloutInNoWaveIsAnError(t *testing.T) {
	r := newRoll(t, 2)
	if _, err := r.svc.Create(t.Context(), person("op"), ofOne("r1", r.new, rollout.Selection{All: true})); err != nil {
		t.Fatal(err)
	}
	o := mustRollout(t, r, "r1")
	o.Phase = rollout.Aborting
	if err := r.db.Rollouts().SaveRollout(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := r.svc.Tick(t.Context(), r.now); err == nil {
		t.Error("it goes on")
	}
}

// Whom a paused rollout has not told is free for another, and comes back when it goes on.
func TestAPausedRolloutGivesUpWhomItHasNotTold(t *testing.T) {
	for name, pauseFirst := range map[string]bool{"paused before the other": true, "paused later": false} {
		t.Run(name, func(t *testing.T) {
			r := newRoll(t, 4)
			next := r.publish("1.2.0", r.old)
			one := ofOne("first", r.new, rollout.Selection{All: true})
			one.Waves[0].Tranche = 1
			r.begin(one)
			r.tick(time.Second)
			pause := func() {
				if _, err := r.svc.Pause(t.Context(), person("op"), "first", "what do people say?"); err != nil {
					t.Fatal(err)
				}
			}
			if pauseFirst {
				pause()
			}
			r.now = r.now.Add(time.Second)
			r.begin(ofOne("second", next, rollout.Selection{All: true}))
			r.tick(time.Second)
			if !pauseFirst {
				if c := r.counts("second"); c.Held != 4 {
					t.Fatalf("%+v", c)
				}
				pause()
				r.tick(freeAfter)
				r.tick(freeAfter)
			}
			if c := r.counts("second"); c.Held != 1 || c.Devices != 3 {
				t.Errorf("the other: %+v", c)
			}
			if c := r.by("second", devN(0), devN(1), devN(2), devN(3)); len(c) != 3 {
				t.Errorf("the other tells %d devices", len(c))
			}
			if _, err := r.svc.Resume(t.Context(), person("op"), "first", "all well"); err != nil {
				t.Fatal(err)
			}
			r.tick(freeAfter)
			if c := r.counts("first"); c.Held != 3 || c.Devices != 1 {
				t.Errorf("it goes on: %+v", c)
			}
			if _, err := r.svc.Abort(t.Context(), person("op"), "second", "x"); err != nil {
				t.Fatal(err)
			}
			r.tick(time.Second)
			r.tick(freeAfter)
			if c := r.counts("first"); c.Held != 0 || c.Devices != 4 {
				t.Errorf("the others are free: %+v", c)
			}
		})
	}
}

// A priority is of a rollout over the whole product, and within bounds.
func TestAPriorityHasBounds(t *testing.T) {
	r := newRoll(t, 2)
	for name, spec := range map[string]rollout.Spec{
		"too high":   {Priority: 101, Selection: rollout.Selection{All: true}},
		"too low":    {Priority: -101, Selection: rollout.Selection{All: true}},
		"of a group": {Priority: 1, Selection: rollout.Selection{All: true, Group: "eu"}},
		"by name":    {Priority: 1, Selection: rollout.Selection{IDs: []string{devN(0)}}},
	} {
		spec.ID, spec.Product, spec.Release, spec.Waves = "r1", "pump", r.new.Digest[:], []rollout.Wave{{Deadline: 3600}}
		if _, err := r.svc.Create(t.Context(), together("op", "olga"), spec); codeOf(err) != "rollout.priority" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The end of a device is decided while it is in a rollout, and taken back when that is over: it is told nothing of it any more.
func TestWhoseEndIsTakenBackIsNotToldByARolloutThatIsOver(t *testing.T) {
	for name, halts := range map[string]bool{"completed": false, "halted": true} {
		t.Run(name, func(t *testing.T) {
			r := newRoll(t, 5)
			spec := twoWaves("r1", r.new)
			spec.Canaries = []string{devN(2), devN(3)}
			spec.Waves[0].Size, spec.Waves[0].Soak, spec.Waves[1].Soak = 2, 0, 0
			r.begin(spec)
			r.tick(time.Second)
			if _, err := r.devices.Move(t.Context(), access.Internal("t"), devN(3), device.Retire, nil, "by mistake"); err != nil {
				t.Fatal(err)
			}
			r.now = r.now.Add(time.Second)
			r.installs(devN(2))
			r.tick(time.Second)
			r.phase("r1", rollout.Running, 2)
			if halts {
				if _, err := r.svc.Halt(t.Context(), person("op"), "r1", "it burns"); err != nil {
					t.Fatal(err)
				}
				r.tick(time.Second)
			} else {
				r.now = r.now.Add(time.Second)
				for _, i := range []int{0, 1, 4} {
					r.installs(devN(i))
				}
				r.tick(time.Second)
				r.phase("r1", rollout.Completed, 2)
			}
			for _, ev := range []device.Event{device.Reinstate, device.Onboard} {
				if _, err := r.devices.Move(t.Context(), access.Internal("t"), devN(3), ev, nil, "it lives"); err != nil {
					t.Fatal(err)
				}
			}
			if c := r.by("r1", devN(3)); len(c) != 0 {
				t.Errorf("it is told to %s", c[0].Wire.Act)
			}
		})
	}
}

// Between the asking for proof and the record of it the server dies, and other devices have to prove it then: all of them are asked.
func TestWhoHasToProveItIsAskedAfterACrash(t *testing.T) {
	r := newRoll(t, 3)
	st := &before{is: func(o rollout.Rollout) bool { return !o.Waves[0].Asked.IsZero() }, do: func() error { return errCrash }}
	st.over(r, 1000*time.Hour)
	spec := ofOne("r1", r.new, rollout.Selection{All: true})
	spec.Waves[0].Soak, spec.Waves[0].Contact = 600, 900
	r.begin(spec)
	r.tick(time.Second)
	r.now = r.now.Add(time.Minute)
	for i := range 3 {
		r.installs(devN(i))
	}
	r.tick(time.Second)
	r.now = r.now.Add(9 * time.Minute)
	r.proves(devN(2), r.new, attest.Affirming) // within the soak
	r.says(devN(2), r.new, true, false, nil)
	r.now = r.now.Add(2 * time.Minute)
	if err := r.svc.Tick(t.Context(), r.now); !errors.Is(err, errCrash) {
		t.Fatalf("%v", err)
	}
	asked := func(i int) int { return len(r.commands(devN(i), wire.ActAttest)) }
	if asked(0) != 1 || asked(1) != 1 || asked(2) != 0 {
		t.Fatalf("asked: %d, %d, %d", asked(0), asked(1), asked(2))
	}
	r.now = r.now.Add(16 * time.Minute) // nobody is heard of, and nobody listens
	st.over(r, 1000*time.Hour)
	r.tick(time.Second)
	if got := r.phase("r1", rollout.Running, 1); got.Waves[0].Asked.IsZero() || asked(2) != 1 {
		t.Errorf("the third has to prove it, and was asked %d times: %+v", asked(2), got.Waves[0])
	}
}
