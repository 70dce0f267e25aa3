package store_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// kept checks that the marks and the tally that are kept come to what devices are, looked at all together.
func (r *roll) kept(id string, m rollout.Moment) {
	r.t.Helper()
	o := mustRollout(r.t, r, id)
	if o.Wave == 0 {
		return
	}
	from, to := 1, o.Wave
	if o.Halted.IsZero() {
		from = o.Wave
	}
	snap, err := r.db.Rollouts().Marked(r.t.Context(), id, from, to, nil, "", 0)
	if err != nil {
		r.t.Fatal(err)
	}
	t, err := r.db.Rollouts().Tally(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	marks := rollout.Tally{}
	for _, s := range snap {
		marks.Add(s.Wave, s.Mark, 1)
	}
	whole := rollout.Whole(m, o, r.ways(o), snap)
	for wave := from; wave <= to; wave++ {
		if !maps.Equal(t[wave], marks[wave]) {
			r.t.Fatalf("%s wave %d: counted %v, marked %v", id, wave, t[wave], marks[wave])
		}
		if !o.Phase.Ended() && !maps.Equal(whole[wave], marks[wave]) {
			r.t.Fatalf("%s wave %d (%s) at %v: marked %v, and they are %v: %+v", id, wave, o.Phase, m.Now, marks[wave], whole[wave], snap)
		}
	}
}

// ways are the ways back from all that a rollout tells devices, which nobody closes here.
func (r *roll) ways(o rollout.Rollout) rollout.Ways {
	out := rollout.Ways{string(o.Spec.Release): r.found(o.Spec.Release).Manifest}
	for _, w := range o.Waves {
		for _, t := range w.Tranches {
			if len(t.Release) > 0 {
				out[string(t.Release)] = r.found(t.Release).Manifest
			}
		}
	}
	return out
}

func (r *roll) found(digest []byte) release.Release {
	r.t.Helper()
	rel, err := r.releases.Find(r.t.Context(), [32]byte(digest))
	if err != nil {
		r.t.Fatal(err)
	}
	return rel
}

// acts has a device do one thing, of those that it can do now.
func (r *roll) acts(rnd *rand.Rand, id string, clean bool) {
	d, err := r.db.Devices().Device(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	if d.State != device.Active {
		return
	}
	runs := r.found(d.Twin.Release)
	out, err := r.db.Devices().Outstanding(r.t.Context(), id, r.now)
	if err != nil {
		r.t.Fatal(err)
	}
	results := map[string]wire.Outcome{}
	for _, c := range out {
		switch {
		case rnd.IntN(3) == 0:
		case c.Wire.Act == wire.ActInstall && !clean && rnd.IntN(6) == 0:
			results[c.ID] = wire.OutcomeFailed
		case c.Wire.Act == wire.ActInstall:
			results[c.ID], runs = wire.OutcomeDone, r.found(c.Wire.Release)
		case c.Wire.Act == wire.ActRollback:
			results[c.ID], runs = wire.OutcomeDone, r.found(c.Wire.Release)
		default:
			results[c.ID] = wire.OutcomeDone
		}
	}
	does := rnd.IntN(12)
	if clean {
		does = 2 + rnd.IntN(4)
	}
	switch does {
	case 0:
		r.proves(id, runs, attest.Contraindicated)
	case 1:
		r.says(id, runs, false, false, results)
		return
	case 2:
		if err := r.db.Devices().MarkSeen(r.t.Context(), map[string]time.Time{id: r.now}); err != nil {
			r.t.Fatal(err)
		}
		return
	case 3, 4, 5, 6, 7:
		r.proves(id, runs, attest.Affirming)
	}
	r.says(id, runs, true, !clean && rnd.IntN(10) == 0, results)
}

// Whatever devices do, and whoever turns a rollout, and whoever restarts: what is kept is what would be found by looking at all of them.
func TestMarksAreWhatDevicesAre(t *testing.T) {
	ended := map[rollout.Phase]int{}
	over := 0
	for seed := range uint64(4) {
		rnd := rand.New(rand.NewPCG(seed, 11))
		r := newRoll(t, 8)
		spec := twoWaves("r1", r.new)
		if seed >= 2 { // some have to be taken over what comes between
			last := r.published("3.0.0", over1(r.new, "1.1.0"))
			spec.Release, spec.Stones = last.Digest[:], true
			r.says(devN(1), r.new, true, false, nil)
		}
		spec.Waves = []rollout.Wave{
			{Size: 2, Soak: 600, Deadline: 5400, MaxNoShows: 1, MaxErrors: rnd.IntN(2)},
			{Soak: 300, Deadline: 7200, MaxFailures: 1 + rnd.IntN(4), Tranche: rnd.IntN(4)},
		}
		r.begin(spec)
		m := rollout.Moment{Contact: 15 * time.Minute}
		for range 90 {
			r.now = r.now.Add(time.Duration(rnd.IntN(400)) * time.Second)
			if rnd.IntN(40) == 0 {
				r.now = r.now.Add(20 * time.Minute) // nobody listened
			}
			if rnd.IntN(30) == 0 {
				r.svc, r.store = rollouts(r.stages)
				m.Since = r.now
			} else if r.now.Sub(m.Now) > m.Contact {
				m.Since = r.now
			}
			for i := range 8 {
				if rnd.IntN(3) > 0 {
					r.acts(rnd, devN(i), seed%2 == 0)
				}
			}
			switch rnd.IntN(120) {
			case 0:
				_, _ = r.svc.Pause(t.Context(), person("op"), "r1", "lunch")
			case 1, 2:
				if seed%2 == 1 {
					_, _ = r.svc.Halt(t.Context(), person("op"), "r1", "they complain")
				}
			default:
				_, _ = r.svc.Resume(t.Context(), person("op"), "r1", "back")
			}
			r.tick(0)
			m.Now = r.now
			r.kept("r1", m)
		}
		o := mustRollout(t, r, "r1")
		ended[o.Phase]++
		for _, w := range o.Waves {
			for _, tr := range w.Tranches {
				if len(tr.Release) > 0 {
					over += tr.Devices
				}
			}
		}
	}
	if over == 0 {
		t.Error("nobody is taken over a stepping stone")
	}
	if ended[rollout.Completed] == 0 || ended[rollout.RolledBack] == 0 {
		t.Errorf("the play does not reach its ends: %v", ended)
	}
}

func (r *roll) nTold() (n int) {
	all, err := r.db.Devices().Devices(r.t.Context(), device.Query{})
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range all {
		n += len(r.commands(devN(i), wire.ActInstall))
	}
	return n
}

// No more devices are under way at once than a tranche has, and no more are told in an hour than the wave says.
func TestAWaveIsToldInTranches(t *testing.T) {
	r := newRoll(t, 9)
	spec := twoWaves("r1", r.new)
	spec.Canaries, spec.Waves = nil, []rollout.Wave{{Deadline: 86400, Soak: 60, Tranche: 3, PerHour: 4}}
	r.begin(spec)
	r.tick(0)
	if n := r.nTold(); n != 3 {
		t.Fatalf("%d devices are told at first, want 3", n)
	}
	take := func() {
		r.now = r.now.Add(time.Minute)
		for i := range 9 {
			if out := r.commands(devN(i), wire.ActInstall); len(out) == 1 {
				if open, _ := r.db.Devices().Outstanding(t.Context(), devN(i), r.now); len(open) > 0 {
					r.installs(devN(i))
				}
			}
		}
	}
	take()
	r.tick(time.Second)
	if n := r.nTold(); n != 4 {
		t.Fatalf("%d devices were told in the first hour, want 4", n)
	}
	take()
	r.tick(time.Second)
	r.tick(time.Hour)
	if n := r.nTold(); n != 7 {
		t.Fatalf("%d devices were told when the hour was over, want 7", n)
	}
	got := r.phase("r1", rollout.Running, 1)
	if len(got.Waves[0].Tranches) != 3 || !got.Waves[0].SoakFrom.IsZero() {
		t.Errorf("%+v", got.Waves[0])
	}
	if k := r.kinds("r1"); k["rollout.wave.started"] != 1 || k["rollout.tranche.issued"] != 2 {
		t.Errorf("facts: %v", k)
	}
	// A device of the third tranche has its own time.
	r.tick(24*time.Hour - 3*time.Minute)
	if got := r.phase("r1", rollout.Running, 1); got.Last.Failed != 0 {
		t.Errorf("counts: %+v", got.Last)
	}
	r.tick(5 * time.Minute)
	r.phase("r1", rollout.Halted, 1)
}

// What a server that was away did not hear is not held against devices, over its restart too: they have that much longer.
func TestAnOutageOfTheServerMakesDeadlinesLater(t *testing.T) {
	r := newRoll(t, 5)
	listens := func() {
		svc, err := rollout.NewService(rollout.Config{
			Store: r.db.Rollouts(), Releases: r.releases, Devices: r.devices, Ledger: r.ledger, Guard: r.guard, Now: func() time.Time { return r.now },
		})
		if err != nil {
			t.Fatal(err)
		}
		r.svc = svc
	}
	listens()
	r.begin(twoWaves("r1", r.new))
	r.tick(0)
	for range 6 { // it is heard of, and takes its time
		r.tick(20 * time.Second)
	}
	r.now = r.now.Add(3 * time.Hour) // three times the deadline
	listens()
	r.tick(0)
	got := r.phase("r1", rollout.Running, 1)
	if away := got.Waves[0].Away.D(); away < 3*time.Hour || away > 3*time.Hour+20*time.Second {
		t.Errorf("it was away for %v", away)
	}
	r.installs(devN(2)) // its command is good still
	r.tick(20 * time.Second)
	if got := r.phase("r1", rollout.Running, 1); got.Waves[0].SoakFrom.IsZero() {
		t.Errorf("it does not soak: %+v", got.Last)
	}

	r = newRoll(t, 5) // and who does not come fails when that time is over, too
	listens()
	r.begin(twoWaves("r1", r.new))
	r.tick(0)
	r.now = r.now.Add(3 * time.Hour)
	listens()
	for range 3 * 59 {
		r.tick(20 * time.Second)
	}
	r.phase("r1", rollout.Running, 1)
	for range 6 {
		r.tick(20 * time.Second)
	}
	r.phase("r1", rollout.RolledBack, 1)
	r.nothingOutstanding(devN(2))
}

// Of two rollouts that want a device one has it: who told it first, then the one of higher priority, then the one that started first. It is shown which,
// nobody waits for it, and when it is free it is taken.
func TestTwoRolloutsOfOneDevice(t *testing.T) {
	both := func(t *testing.T, priority int) *roll {
		r := newRoll(t, 4)
		next := r.publish("1.2.0", r.old)
		one, two := twoWaves("r1", r.new), twoWaves("r2", next)
		one.Canaries, two.Canaries = nil, nil
		one.Waves = []rollout.Wave{{Size: 4, Deadline: 3600, Soak: 60, Tranche: 1}}
		two.Waves = []rollout.Wave{{Deadline: 3600, Soak: 60}}
		two.Priority = priority
		r.begin(one)
		r.tick(0)
		r.now = r.now.Add(time.Second)
		dry, err := r.svc.DryRun(t.Context(), person("op"), two)
		if err != nil || len(dry.Members) != 4 || len(dry.Held) != 4 {
			t.Errorf("a dry run of the second: %+v, %v", dry, err)
		}
		if priority != 0 {
			if _, err := r.svc.Create(t.Context(), person("op"), two); codeOf(err) != "access.four-eyes" {
				t.Errorf("one person lets it go before others: %v", err)
			}
		}
		r.beginAs(together("op", "olga"), two)
		return r
	}
	counts := func(t *testing.T, r *roll, id string, held, devices int) {
		t.Helper()
		if c := r.counts(id); c.Held != held || c.Devices != devices {
			t.Errorf("%s: %+v; want %d held and %d of its own", id, c, held, devices)
		}
	}
	t.Run("the older goes first", func(t *testing.T) {
		r := both(t, 0)
		r.tick(time.Second)
		counts(t, r, "r1", 0, 4)
		if got := mustRollout(t, r, "r2"); got.Phase != rollout.Running { // there is nobody that it may tell, and nobody has shown that it is good
			t.Errorf("r2 is %s", got.Phase)
		}
		counts(t, r, "r2", 4, 0)
	})
	t.Run("the higher priority takes who is not told yet", func(t *testing.T) {
		r := both(t, 1)
		r.tick(time.Second)
		counts(t, r, "r1", 3, 1)
		counts(t, r, "r2", 1, 3)
		_, views, err := r.svc.Get(t.Context(), person("op"), "r2")
		held := 0
		for _, v := range views {
			if v.Holder == "r1" && v.Why == "rollout r1 has it" {
				held++
			}
		}
		if err != nil || held != 1 {
			t.Errorf("of %d devices %d are shown as held by r1, %v", len(views), held, err)
		}
		if _, err := r.svc.Abort(t.Context(), person("op"), "r1", "another goes first"); err != nil {
			t.Fatal(err)
		}
		r.tick(time.Second)
		r.tick(freeAfter)
		counts(t, r, "r2", 0, 4)
		r.tick(time.Second)
		if n := r.nTold(); n != 5 { // one of them by both
			t.Errorf("%d install commands", n)
		}
	})
}

const freeAfter = 11 * time.Second

// A hundred devices of a wave come and go, and a tick looks at those that did something alone.
func TestATickLooksAtWhatStirredOnly(t *testing.T) {
	r := newRoll(t, 30)
	spec := twoWaves("r1", r.new)
	spec.Canaries, spec.Waves = nil, []rollout.Wave{{Deadline: 86400, Soak: 60}}
	r.begin(spec)
	r.tick(0)
	r.tick(time.Second)
	o := mustRollout(t, r, "r1")
	owed := func(want int) {
		t.Helper()
		got, err := r.db.Rollouts().Owed(t.Context(), o, 1, 1, r.now, 1000)
		if err != nil || len(got) != want {
			t.Errorf("%d devices are to be looked at, %v; want %d", len(got), err, want)
		}
	}
	owed(0)
	r.now = r.now.Add(time.Minute)
	for i := range 3 {
		r.installs(devN(i))
	}
	owed(3)
	r.tick(0)
	owed(0)
	if c := r.counts("r1"); c.Good != 3 || c.Waiting != 27 {
		t.Errorf("%+v", c)
	}
	r.now = r.now.Add(15*time.Minute + time.Second)
	owed(3) // they are silent
}

// A rollout that was under way before devices had marks goes on where it was.
func TestARolloutOfBeforeGoesOn(t *testing.T) {
	r := newRoll(t, 5)
	r.begin(twoWaves("r1", r.new))
	r.tick(0)
	r.tick(time.Second)
	r.told(2)
	r.before("r1")
	r.tick(time.Second)
	r.told(2)
	if got := r.phase("r1", rollout.Running, 1); got.Waves[0].Below != 0 || len(got.Waves[0].Tranches) != 1 {
		t.Errorf("%+v", got.Waves[0])
	}
	r.now = r.now.Add(time.Minute)
	r.installs(devN(2))
	r.tick(0)
	r.tick(11 * time.Minute)
	r.attests(2)
	r.tick(time.Second)
	r.told(0, 1, 2, 3, 4)
	r.before("r1")
	r.now = r.now.Add(time.Minute)
	for _, i := range []int{0, 1, 3} {
		r.says(devN(i), r.old, true, false, map[string]wire.Outcome{r.commands(devN(i), wire.ActInstall)[0]: wire.OutcomeFailed})
	}
	r.tick(0)
	r.phase("r1", rollout.Halted, 2)
	r.before("r1")
	r.tick(time.Second)
	back := r.commands(devN(2), wire.ActRollback)
	if len(back) != 1 {
		t.Fatalf("the canary is sent back by %v", back)
	}
	r.says(devN(2), r.old, true, false, map[string]wire.Outcome{back[0]: wire.OutcomeDone})
	r.tick(time.Second)
	if got := r.phase("r1", rollout.RolledBack, 2); got.Last.Returned != 1 || got.Last.Failed != 4 || got.Last.Devices != 5 {
		t.Errorf("counts: %+v", got.Last)
	}
}

// before brings a rollout to what it was in the database before there were marks, with the places of all waves, and migrates it again.
func (r *roll) before(id string) {
	r.t.Helper()
	engine := "sqlite"
	if storetest.OnPostgres() {
		engine = "postgres"
	}
	script := func(name string) (up, down string) {
		text, err := os.ReadFile(engine + "/migrations/" + name)
		if err != nil {
			r.t.Fatal(err)
		}
		up, down, _ = strings.Cut(string(text), "-- +goose Down")
		return up, down
	}
	up, down := script("0470_rollout_place.sql")
	again, _ := script("0496_rollout_again.sql") // of the same table, which is made anew
	run := func(tx *store.Tx, script string) error {
		for q := range strings.SplitSeq(script, ";\n") {
			if strings.TrimSpace(q) == "" {
				continue
			}
			if _, err := tx.Exec(q); err != nil {
				return fmt.Errorf("%s: %w", q, err)
			}
		}
		return nil
	}
	o := mustRollout(r.t, r, id)
	for i := range o.Waves {
		o.Waves[i].Below, o.Waves[i].Taken, o.Waves[i].Tranches = 0, time.Time{}, nil
	}
	o.Turns, o.Backs = 0, nil
	doc, err := json.Marshal(o)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.db.Write(r.t.Context(), func(tx *store.Tx) error {
		if err := run(tx, down); err != nil {
			return err
		}
		if _, err := tx.Exec(`UPDATE rollout SET doc = $1 WHERE id = $2`, string(doc), id); err != nil {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO rollout_device (rollout_id, wave, device_id, previous, open)
			SELECT $1, 2, d.id, d.release, 1 FROM device d WHERE NOT EXISTS (SELECT 1 FROM rollout_device x WHERE x.device_id = d.id)`, id); err != nil {
			return err
		}
		return run(tx, up+again)
	}); err != nil {
		r.t.Fatal(err)
	}
}

// A device that has left the group of a rollout between the look at it and its wave, for another owner perhaps, is not in it.
func TestWhoLeftTheGroupIsNotTakenByItsRollout(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	rel := s.publish("1.0.0")
	for i := range 2 {
		s.make(devN(i), rel)
	}
	if err := s.devices.Group(t.Context(), person("olga"), []string{devN(0)}, "eu", "test"); err != nil {
		t.Fatal(err)
	}
	r := rollout.Rollout{Spec: rollout.Spec{ID: "r", Product: "pump", Selection: rollout.Selection{Group: "eu", All: true}}, Phase: rollout.Running, Rev: 1, Created: s.now}
	if err := s.db.Rollouts().PutRollout(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Rollouts().TakeDevices(t.Context(), r, []rollout.Member{{Device: devN(0), Wave: 1}, {Device: devN(1), Wave: 1}}); err != nil {
		t.Fatal(err)
	}
	got, err := s.db.Rollouts().Marked(t.Context(), "r", 1, 1, nil, "", 0)
	if err != nil || len(got) != 1 || got[0].Device != devN(0) {
		t.Errorf("%+v, %v", got, err)
	}
}
