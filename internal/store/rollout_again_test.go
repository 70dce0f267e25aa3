package store_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

const day = 24 * time.Hour

// fixing is a plan of what mends the releases below security counter 2: for whoever runs those, whenever it comes.
func fixing(id string, rel release.Release) rollout.Spec {
	spec := twoWaves(id, rel)
	spec.Dynamic, spec.Below, spec.Again = true, 2, &rollout.Again{After: rollout.Seconds(day / time.Second), Times: 2}
	spec.Waves[1] = rollout.Wave{Soak: 600, Deadline: 3600, MaxErrors: 1, MaxNoShowsRate: 99}
	return spec
}

// mends publishes what mends the releases with security counter 1, and has its waves pass, with those that came.
func (r *roll) mends(came ...int) {
	r.t.Helper()
	r.new = r.published("1.1.1", func(s *release.Spec) { s.Counter = 2 })
	r.begin(fixing("fix", r.new))
	r.tick(time.Second)
	r.passes(2)
	r.now = r.now.Add(time.Minute)
	for _, i := range came {
		r.installs(devN(i))
	}
	r.tick(time.Second)
	for range 13 { // the deadline of who did not come, and the soak of who did
		r.tick(5 * time.Minute)
		for _, i := range came {
			r.says(devN(i), r.new, true, false, nil)
			r.proves(devN(i), r.new, attest.Affirming)
		}
	}
	r.tick(10 * time.Minute)
	for _, i := range came {
		r.says(devN(i), r.new, true, false, nil)
		r.proves(devN(i), r.new, attest.Affirming)
	}
	r.tick(time.Second)
	r.phase("fix", rollout.Running, 3)
}

func (r *roll) times(i, want int) {
	r.t.Helper()
	if got := r.commands(devN(i), wire.ActInstall); len(got) != want {
		r.t.Fatalf("device %d was told %d times, want %d", i, len(got), want)
	}
}

// comesBack is a device that is heard of for some polls, and does nothing that it is told.
func (r *roll) comesBack(i int, runs release.Release) {
	r.t.Helper()
	for range 3 {
		r.says(devN(i), runs, true, false, nil)
		r.tick(15 * time.Second)
	}
}

func (r *roll) missing(want ...int) []rollout.DeviceView {
	r.t.Helper()
	all, err := r.svc.Devices(r.t.Context(), person("op"), "fix", rollout.Missing, "", 0)
	if err != nil {
		r.t.Fatal(err)
	}
	ids, wanted := []string{}, []string{}
	for _, d := range all {
		ids = append(ids, d.Device)
	}
	for _, i := range want {
		wanted = append(wanted, devN(i))
	}
	got, _, err := r.svc.Get(r.t.Context(), person("op"), "fix")
	if err != nil {
		r.t.Fatal(err)
	}
	if !slices.Equal(ids, wanted) || got.Missing != len(want) {
		r.t.Fatalf("missing are %v, counted %d; want %v", ids, got.Missing, wanted)
	}
	return all
}

// Who was away when a fix was rolled out is told of it when it comes, months later; told again when it was there and gone too soon, not before a day has passed, and as often as was
// said. Its absence halts nothing.
func TestWhoComesBackLateIsToldOfTheFix(t *testing.T) {
	r := newRoll(t, 5)
	ahead := r.published("1.9.0", func(s *release.Spec) { s.Counter = 2 })
	r.says(devN(4), ahead, true, false, nil)
	r.mends(0)
	r.times(4, 0) // what it runs is not below
	r.missing(1, 3)
	for range 100 {
		r.tick(day) // nobody comes: nobody is told, and that is no trouble
	}
	r.times(1, 1)

	r.comesBack(1, r.old)
	r.times(1, 2)
	r.times(3, 1)
	r.missing(3)
	for range 13 { // and is gone
		r.tick(5 * time.Minute)
	}
	r.tick(11 * time.Minute)
	r.tick(time.Second)
	r.phase("fix", rollout.Running, 3)
	r.missing(1, 3)
	r.comesBack(1, r.old) // on the same day
	r.times(1, 2)

	r.svc, r.store = rollouts(r.stages) // the server starts anew, and nothing of it is forgotten
	r.tick(day)
	r.comesBack(1, r.old)
	r.times(1, 3)
	r.tick(2 * time.Hour)
	r.tick(11 * time.Minute)
	for range 3 {
		r.tick(2 * day)
		r.comesBack(1, r.old)
	}
	r.times(1, 3)
	all := r.missing(1, 3)
	if !strings.Contains(all[0].Why, "told again 2 times") || !strings.Contains(all[1].Why, "when it is heard of") {
		t.Errorf("it says %q and %q", all[0].Why, all[1].Why)
	}

	// Who comes back, and does it, has joined; it is counted once.
	r.comesBack(3, r.old)
	r.times(3, 2)
	cmd := r.commands(devN(3), wire.ActInstall)[1]
	r.proves(devN(3), r.new, attest.Affirming)
	r.says(devN(3), r.new, true, false, map[string]wire.Outcome{cmd: wire.OutcomeDone})
	r.tick(time.Second)
	r.tick(11 * time.Minute)
	r.proves(devN(3), r.new, attest.Affirming)
	r.says(devN(3), r.new, true, false, nil)
	r.tick(time.Second)
	r.tick(2 * time.Second)
	if got := r.phase("fix", rollout.Running, 3); got.Later.Good != 1 || got.Later.Devices != 1 || got.Later.Failed != 0 {
		t.Errorf("of those who came later: %+v", got.Later)
	}
	r.missing(1)
	if k := r.kinds("fix"); k["rollout.joined"] != 3 || k["rollout.halted"] != 0 {
		t.Errorf("facts: %v", k)
	}
}

// Who is back and has the fix already, from a courier perhaps, is not told, and missing no more when it has proven it; nor is who runs what is newer.
func TestWhoIsBackWithTheFixIsMissingNoMore(t *testing.T) {
	r := newRoll(t, 5)
	newest := r.published("2.0.0", func(s *release.Spec) { s.Counter = 2 })
	r.mends(0)
	r.missing(1, 3, 4)
	r.tick(10 * day)
	r.comesBack(1, r.new)
	r.missing(1, 3, 4) // it says so, and has not proven it
	r.proves(devN(1), r.new, attest.Affirming)
	r.comesBack(1, r.new)
	r.missing(3, 4)
	r.comesBack(3, newest)
	r.missing(4)
	for _, i := range []int{1, 3, 4} {
		r.times(i, 1)
	}
}

// Who was taken out of use will not come back, and is awaited no more.
func TestWhoseLifeIsOverIsMissingNoMore(t *testing.T) {
	r := newRoll(t, 5)
	r.mends(0)
	r.missing(1, 3, 4)
	if err := r.db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE device SET state = 'decommissioned' WHERE id IN ($1, $2)`, devN(1), devN(4))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	r.tick(15 * time.Second)
	r.missing(3)
	r.phase("fix", rollout.Running, 3)
	r.times(1, 1)
}

// Who would not be told if it came is awaited still, as that can change, and the list says why it would not.
func TestWhoIsMissingAndWouldNotBeToldSaysWhy(t *testing.T) {
	r := newRoll(t, 5)
	r.mends(0)
	if err := r.db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE device SET state = 'quarantined' WHERE id = $1`, devN(1))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	all := r.missing(1, 3, 4)
	for i, want := range []string{"not told again as it is: is quarantined", "told again when it is heard of", "told again when it is heard of"} {
		if !strings.HasSuffix(all[i].Why, want) {
			t.Errorf("%s: %q, want %q", all[i].Device, all[i].Why, want)
		}
	}
}

// A fix that makes a late comer ill halts, as any other.
func TestALateComerThatFailsHaltsTheFix(t *testing.T) {
	r := newRoll(t, 6)
	r.mends(0)
	r.tick(10 * day)
	for _, i := range []int{1, 3} {
		r.comesBack(i, r.old)
		r.says(devN(i), r.old, true, false, map[string]wire.Outcome{r.commands(devN(i), wire.ActInstall)[1]: wire.OutcomeFailed})
	}
	r.tick(time.Second)
	got := mustRollout(t, r, "fix")
	if got.Halted.IsZero() || !strings.Contains(got.Reason, "2 of") {
		t.Fatalf("it is %s: %q", got.Phase, got.Reason)
	}
	r.tick(10 * day)
	r.comesBack(4, r.old)
	r.times(4, 1)
	if all := r.missing(4, 5); !strings.Contains(all[0].Why, "nobody joins") {
		t.Errorf("it says %q", all[0].Why)
	}
}

// A rollout that waits for who is away goes on beside a later one that does not: a device that this has told is its own until it has ended.
func TestALaterRolloutDoesNotEndTheWaitForWhoIsAway(t *testing.T) {
	r := newRoll(t, 5)
	r.mends(0)
	next := r.published("2.0.0", func(s *release.Spec) { s.Counter = 2 })
	later := twoWaves("later", next)
	later.Dynamic, later.Canaries = true, []string{devN(0)}
	r.begin(later)
	r.tick(time.Second)
	if got := mustRollout(t, r, "fix"); !got.Joins() {
		t.Fatalf("it is shut: %s", got.Reason)
	}
	both := fixing("later-fix", next)
	both.Canaries = []string{devN(1)}
	r.begin(both)
	r.tick(time.Minute)
	if got := mustRollout(t, r, "fix"); got.Joins() || !strings.Contains(got.Reason, "later-fix takes over") {
		t.Fatalf("it is not shut: %q", got.Reason)
	}
}

// A later rollout that would leave out some of those who are awaited does not take over: nobody would tell them any more.
func TestALaterRolloutThatMendsNotAllDoesNotEndTheWait(t *testing.T) {
	for name, x := range map[string]struct {
		release func(*release.Spec)
		plan    func(*rollout.Spec)
		shut    bool
	}{
		"of the same kind":     {func(s *release.Spec) { s.Counter = 2 }, func(*rollout.Spec) {}, true},
		"below the counter":    {func(*release.Spec) {}, func(s *rollout.Spec) { s.Below = 0 }, false},
		"over others":          {func(s *release.Spec) { s.Counter, s.Over = 2, []wire.VersionRange{{From: "1.1.0"}} }, func(*rollout.Spec) {}, false},
		"in steps over others": {func(s *release.Spec) { s.Counter, s.Over = 2, []wire.VersionRange{{From: "1.1.0"}} }, func(s *rollout.Spec) { s.Stones = true }, true},
		"for newer agents":     {func(s *release.Spec) { s.Counter = 2; inOrder(s) }, func(*rollout.Spec) {}, false},
		"in steps, for newer agents": {
			func(s *release.Spec) { s.Counter = 2; inOrder(s) }, func(s *rollout.Spec) { s.Stones = true }, false,
		},
		"by consent": {func(s *release.Spec) { s.Counter = 2 }, func(s *rollout.Spec) { s.Manner = wire.Consent }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoll(t, 5)
			r.mends(0)
			spec := fixing("later", r.published("2.0.0", x.release))
			spec.Canaries = nil
			x.plan(&spec)
			r.begin(spec)
			r.tick(time.Second)
			if got := mustRollout(t, r, "fix"); got.Joins() == x.shut {
				t.Fatalf("it is shut: %t, %s", !got.Joins(), got.Reason)
			}
		})
	}
}

// What cannot be is said when it is asked for.
func TestWhatATellingAgainHasToBe(t *testing.T) {
	r := newRoll(t, 3)
	fix := r.published("1.1.1", func(s *release.Spec) { s.Counter = 2 })
	for name, change := range map[string]func(*rollout.Spec){
		"not dynamic":  func(s *rollout.Spec) { s.Dynamic = false },
		"too soon":     func(s *rollout.Spec) { s.Again.After = 59 },
		"never":        func(s *rollout.Spec) { s.Again.Times = 0 },
		"for ever":     func(s *rollout.Spec) { s.Again.Times = rollout.MaxAgain + 1 },
		"below itself": func(s *rollout.Spec) { s.Below = 3 },
	} {
		spec := fixing("r-"+strings.ReplaceAll(name, " ", "-"), fix)
		change(&spec)
		if _, err := r.svc.Create(t.Context(), person("op"), spec); !strings.HasPrefix(codeOf(err), "rollout.") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A device that comes back late is not stopped by the floor before it is told of what mends it; what is promised holds a bundle back for one contact, and no longer.
func TestALateComerIsToldOfTheFixBeforeTheFloorStopsIt(t *testing.T) {
	r := newRoll(t, 6)
	r.ledger.witnessed = true
	r.mends(0)
	r.bundleWith(2, func(b *wire.Bundle) { b.Floor = 2 })
	if err := r.devices.DistributeBundle(t.Context(), access.Internal("test"), "pump"); err != nil {
		t.Fatal(err)
	}
	calls := func(i int) wire.Act {
		t.Helper()
		r.boots[devN(i)]++
		got, err := r.devices.Checkin(t.Context(), access.DeviceCaller(devN(i)), devN(i), wire.Checkin{
			Nonce: bytes.Repeat([]byte{9}, 32), State: "active", BootCount: r.boots[devN(i)], Healthy: true, Release: r.old.Digest[:], Version: "1.0.0", Bundle: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.devices.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got.Delivery == nil {
			return ""
		}
		return actOf(t, got.Delivery)
	}
	r.tick(10 * day)
	if act := calls(1); act != "" {
		t.Fatalf("it is told %q before the fix", act)
	}
	r.tick(15 * time.Second)
	if act := calls(1); act != wire.ActInstall {
		t.Fatalf("then it is told %q", act)
	}
	if act := calls(3); act != "" { // heard of, and nothing comes: the rollout stands still
		t.Fatalf("it is told %q before the fix", act)
	}
	if act := calls(3); act != wire.ActBundle {
		t.Fatalf("at its next contact it is told %q", act)
	}
	if _, err := r.svc.Pause(t.Context(), person("op"), "fix", "wait"); err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(10 * day)
	if act := calls(4); act != wire.ActBundle {
		t.Fatalf("while nobody tells anything it is told %q", act)
	}
}
