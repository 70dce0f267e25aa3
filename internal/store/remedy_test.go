package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// losing is a store that loses the note of a command, as a crash between the two does.
type losing struct {
	remedy.Store
	fail int
}

func (l *losing) SaveCase(ctx context.Context, c remedy.Case, facts ...ledger.Fact) error {
	if l.fail--; l.fail == 0 {
		return errCrash
	}
	return l.Store.SaveCase(ctx, c, facts...)
}

func newRemedy(t *testing.T, n int, p remedy.Policy) (*stages, *remedy.Service, *losing) {
	s := newStages(t, wire.ModelBlob)
	rel := s.publish("1.0.0")
	for i := range n {
		s.make(devN(i), rel)
		s.says(devN(i), rel, true, false, nil)
	}
	st := &losing{Store: s.db.Remedies()}
	svc, err := remedy.NewService(remedy.Config{Store: st, Devices: s.devices, Guard: s.guard, Policy: p, Now: func() time.Time { return s.now }})
	if err != nil {
		t.Fatal(err)
	}
	return s, svc, st
}

func ref(i uint64) ledger.Ref { return ledger.Ref{Log: ledger.Events, Index: i} }

func reactions() access.Caller { return access.Internal("reactions") }

// count1 lets the commands of what was decided be given, twice, and counts them.
func count1(t *testing.T, s *stages, svc *remedy.Service, id string, act wire.Act, want int) {
	t.Helper()
	for range 2 {
		if err := svc.Tick(t.Context(), s.now); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.commands(id, act); len(got) != want {
		t.Fatalf("device %s has %d commands %s, want %d", id, len(got), act, want)
	}
}

func casePhase(t *testing.T, svc *remedy.Service, id string, want remedy.Phase) remedy.Case {
	t.Helper()
	c, err := svc.Get(t.Context(), person("op"), id)
	if want == remedy.Closed {
		wantKind(t, "the case is open", err, fault.NotFound)
		return c
	}
	if err != nil || c.Phase != want {
		t.Fatalf("the case is %s, want %s: %v", c.Phase, want, err)
	}
	return c
}

func TestADeviceIsContainedMadeAnewAndReleasedOnProof(t *testing.T) {
	s, svc, _ := newRemedy(t, 1, remedy.DefaultPolicy())
	ctx, id := t.Context(), devN(0)
	for range 2 { // told twice of one verdict
		if err := svc.Judged(ctx, reactions(), id, "contraindicated", s.now, "bad code", ref(10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := svc.Judged(ctx, reactions(), id, "contraindicated", s.now, "bad code still", ref(11)); err != nil {
		t.Fatal(err)
	}
	count1(t, s, svc, id, wire.ActQuarantine, 1)
	if err := svc.Judged(ctx, reactions(), id, "affirming", s.now.Add(-time.Hour), "", ref(9)); err != nil {
		t.Fatal(err)
	}
	if err := svc.Judged(ctx, reactions(), id, "none", s.now.Add(time.Second), "", ref(12)); err != nil {
		t.Fatal(err)
	}
	casePhase(t, svc, id, remedy.Contained)
	for range 2 {
		if err := svc.Quarantined(ctx, reactions(), id, ref(13)); err != nil {
			t.Fatal(err)
		}
	}
	if err := svc.Remade(ctx, reactions(), id, "", true, ref(13), ""); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a result before its command is on record: %v", err) // it is told again
	}
	count1(t, s, svc, id, wire.ActReprovide, 1)
	c := casePhase(t, svc, id, remedy.Remaking)
	if d, err := s.devices.Get(ctx, person("op"), id); err != nil || string(c.Release) != string(d.Twin.Release) {
		t.Errorf("made anew with %x, it ran %x, %v", c.Release, d.Twin.Release, err)
	}
	s.now = s.now.Add(time.Minute)
	if err := svc.Judged(ctx, reactions(), id, "affirming", s.now, "", ref(14)); err != nil { // on trial, and it may prove sick
		t.Fatal(err)
	}
	casePhase(t, svc, id, remedy.Remaking)
	for range 2 {
		if err := svc.Remade(ctx, reactions(), id, c.Command, true, ref(15), ""); err != nil {
			t.Fatal(err)
		}
	}
	count1(t, s, svc, id, wire.ActAttest, 1)
	s.now = s.now.Add(time.Minute)
	if err := svc.Judged(ctx, reactions(), id, "affirming", s.now, "", ref(16)); err != nil {
		t.Fatal(err)
	}
	casePhase(t, svc, id, remedy.Releasing)
	count1(t, s, svc, id, wire.ActRelease, 1)
	if err := svc.Released(ctx, reactions(), id, ref(17)); err != nil {
		t.Fatal(err)
	}
	casePhase(t, svc, id, remedy.Closed)
	if err := svc.Judged(ctx, reactions(), id, "contraindicated", s.now, "an old cause again", ref(10)); err != nil {
		t.Fatal(err)
	}
	count1(t, s, svc, id, wire.ActQuarantine, 1)
	if n := s.kinds(id)["remedy.decided"]; n != 5 {
		t.Errorf("%d decisions in the ledger, want 5", n)
	}
}

// TestMadeAnewWithWhatWasGood: neither what a device last tried nor what its rollout was rolled back from, and not for ever.
func TestACaseIsWhereItsDeviceIsNow(t *testing.T) {
	s, svc, _ := newRemedy(t, 1, remedy.DefaultPolicy())
	if err := svc.Judged(t.Context(), reactions(), devN(0), "contraindicated", s.now, "bad code", ref(1)); err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"eu/berlin", "eu/rome"} {
		if err := s.devices.Group(t.Context(), person("op"), []string{devN(0)}, group, "test"); err != nil {
			t.Fatal(err)
		}
		got, err := svc.Page(t.Context(), scoped("pump/"+group), "", "", 0)
		if err != nil || len(got) != 1 || got[0].Group != group {
			t.Errorf("cases of %s: %+v, %v", group, got, err)
		}
	}
	if got, err := svc.Page(t.Context(), scoped("pump/eu/berlin"), "", "", 0); err != nil || len(got) != 0 {
		t.Errorf("cases of where it was: %+v, %v", got, err)
	}
}

func TestMadeAnewWithWhatWasGood(t *testing.T) {
	s, svc, _ := newRemedy(t, 1, remedy.DefaultPolicy())
	ctx, id := t.Context(), devN(0)
	d, err := s.devices.Get(ctx, person("op"), id)
	if err != nil {
		t.Fatal(err)
	}
	good, bad := d.Twin.Release, s.publish("1.1.0")
	s.says(id, bad, true, true, nil)                                   // on trial
	s.says(id, release.Release{Digest: bad.Digest}, false, false, nil) // sick
	if _, err := svc.Suspect(ctx, reactions(), remedy.Trouble{Device: id, Cause: ref(1), Reason: "why"}); err != nil {
		t.Fatal(err)
	}
	if err := svc.Quarantined(ctx, reactions(), id, ref(2)); err != nil {
		t.Fatal(err)
	}
	for try := range 2 * remedy.MaxTries {
		count1(t, s, svc, id, wire.ActReprovide, min(try+1, remedy.MaxTries))
		c := casePhase(t, svc, id, remedy.Remaking)
		if string(c.Release) != string(good) {
			t.Fatalf("made anew with %x, confirmed was %x", c.Release, good)
		}
		s.now = s.now.Add(time.Minute)
		if err := svc.Remade(ctx, reactions(), id, c.Command, false, ref(uint64(3+try)), "no network"); err != nil {
			t.Fatal(err)
		}
	}
	count1(t, s, svc, id, wire.ActReprovide, remedy.MaxTries)
}

// A case brings no code past the waves: what a device is made anew with was good on a fleet, or was meant for that device by a person.
func TestMakingAnewIsNoWayPastRollouts(t *testing.T) {
	r := newRoll(t, 3)
	ctx, good := t.Context(), r.db.Remedies()
	if _, err := r.releases.Withdraw(ctx, person("op"), r.old.Digest, "it leaks"); err != nil { // what all of them confirmed
		t.Fatal(err)
	}
	none := func(what, id string) {
		t.Helper()
		if got, err := good.GoodRelease(ctx, id); !errors.Is(err, remedy.ErrNotFound) {
			t.Errorf("%s: made anew with %x, %v", what, got, err)
		}
	}
	none("published, and never rolled out", devN(0))
	spec := twoWaves("r1", r.new)
	spec.Waves[0].Soak, spec.Waves[1].Soak = 0, 0
	r.begin(spec)
	r.tick(0)
	none("in its canary", devN(0))
	if _, err := r.db.Devices().NextCounter(ctx, devN(2), r.commands(devN(2), wire.ActInstall)[0], 0, false, r.now); err != nil { // it is delivered
		t.Fatal(err)
	}
	if got, err := good.GoodRelease(ctx, devN(2)); err != nil || string(got) != string(r.new.Digest[:]) {
		t.Errorf("the canary, which was told to have it: %x, %v", got, err)
	}
	r.now = r.now.Add(time.Minute)
	r.installs(devN(2))
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	r.installs(devN(0))
	r.installs(devN(1))
	r.tick(0)
	r.phase("r1", rollout.Completed, 2)
	r.make(devN(5), r.old) // it comes later, and never confirmed anything
	if got, err := good.GoodRelease(ctx, devN(5)); err != nil || string(got) != string(r.new.Digest[:]) {
		t.Errorf("after the rollout: %x, %v", got, err)
	}
}

func TestAWrongDetectorDoesNotTakeTheFleet(t *testing.T) {
	p := remedy.DefaultPolicy()
	p.PerHour = 2
	s, svc, _ := newRemedy(t, 5, p)
	ctx := t.Context()
	told := func() (n int) {
		if err := svc.Tick(ctx, s.now); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			n += len(s.commands(devN(i), wire.ActQuarantine))
		}
		return n
	}
	for i := range 4 {
		if _, err := svc.Suspect(ctx, reactions(), remedy.Trouble{Device: devN(i), Cause: ref(uint64(i)), Reason: "it cries wolf"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := told(); n != 2 {
		t.Fatalf("%d devices quarantined, the policy says 2", n)
	}
	casePhase(t, svc, devN(3), remedy.Held)
	if err := svc.Tick(ctx, s.now.Add(30*time.Minute)); err != nil || told() != 2 {
		t.Fatalf("the held ones went by themselves: %d, %v", told(), err)
	}
	viewer := access.Caller{ID: "person:v", Kind: access.Person, Roles: []access.Role{access.Viewer}}
	wantKind(t, "approved by somebody without the right", svc.Approve(ctx, viewer, devN(3), "yes"), fault.Denied)
	if err := svc.Approve(ctx, person("op"), devN(3), "looked at it"); err != nil || told() != 3 {
		t.Fatalf("%d, %v", told(), err)
	}
	if err := svc.Dismiss(ctx, person("op"), devN(2), "nothing is wrong"); err != nil {
		t.Fatal(err)
	}
	casePhase(t, svc, devN(2), remedy.Closed)
	if err := svc.Dismiss(ctx, person("op"), devN(0), "nothing is wrong"); err != nil {
		t.Fatal(err)
	}
	count1(t, s, svc, devN(0), wire.ActRelease, 1)
	s.now = s.now.Add(61 * time.Minute)
	if _, err := svc.Suspect(ctx, reactions(), remedy.Trouble{Device: devN(4), Cause: ref(9), Reason: "later"}); err != nil || told() != 4 {
		t.Errorf("an hour later: %d, %v", told(), err)
	}
}

func TestAQuarantineIsRenewedUntilTheCaseOrItsTimeEnds(t *testing.T) {
	p := remedy.Policy{PerHour: 1, TTL: 24 * time.Hour, MaxHold: 48 * time.Hour}
	s, svc, _ := newRemedy(t, 1, p)
	ctx, id, begin := t.Context(), devN(0), s.now
	if _, err := svc.Suspect(ctx, reactions(), remedy.Trouble{Device: id, Cause: ref(1), Reason: "why"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at   time.Duration
		want int
	}{{15 * time.Hour, 1}, {17 * time.Hour, 2}, {18 * time.Hour, 2}, {34 * time.Hour, 3}, {47 * time.Hour, 3}, {50 * time.Hour, 3}, {500 * time.Hour, 3}} {
		s.now = begin.Add(c.at)
		if err := svc.Tick(ctx, s.now); err != nil {
			t.Fatal(err)
		}
		if got := len(s.commands(id, wire.ActQuarantine)); got != c.want {
			t.Fatalf("after %v: %d quarantine commands, want %d", c.at, got, c.want)
		}
	}
}

func TestACrashAfterTheCommandDoesNotRepeatIt(t *testing.T) {
	s, svc, st := newRemedy(t, 1, remedy.DefaultPolicy())
	if _, err := svc.Suspect(t.Context(), reactions(), remedy.Trouble{Device: devN(0), Cause: ref(1), Reason: "why"}); err != nil {
		t.Fatal(err)
	}
	st.fail = 1 // the note of the quarantine's command
	if err := svc.Tick(t.Context(), s.now); err == nil {
		t.Fatal("the crash did not happen")
	}
	if got := s.commands(devN(0), wire.ActQuarantine); len(got) != 1 {
		t.Fatalf("commands %v", got)
	}
	s.now = s.now.Add(-time.Minute) // another node goes on, whose clock is behind
	count1(t, s, svc, devN(0), wire.ActQuarantine, 1)
	if c := casePhase(t, svc, devN(0), remedy.Contained); c.Command != s.commands(devN(0), wire.ActQuarantine)[0] {
		t.Errorf("the case has command %q", c.Command)
	}
}

// Whichever node takes what decision, a command is given once, and not more devices are contained than the policy says.
func TestNodesShareCases(t *testing.T) {
	p := remedy.DefaultPolicy()
	p.PerHour = 3
	s, one, _ := newRemedy(t, 8, p)
	ahead, err := remedy.NewService(remedy.Config{
		Store: s.db.Remedies(), Devices: s.devices, Guard: s.guard, Policy: p, Now: func() time.Time { return s.now.Add(300 * time.Millisecond) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	for i := range 8 {
		for _, svc := range []*remedy.Service{one, ahead} {
			g.Go(func() error {
				_, err := svc.Suspect(t.Context(), reactions(), remedy.Trouble{Device: devN(i), Cause: ref(uint64(i)), Reason: "why"})
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, svc := range []*remedy.Service{one, ahead} {
		g.Go(func() error { _ = svc.Tick(t.Context(), s.now); return nil }) // one may find that the other was first
	}
	_ = g.Wait()
	for range 2 {
		if err := errors.Join(one.Tick(t.Context(), s.now), ahead.Tick(t.Context(), s.now)); err != nil {
			t.Fatal(err)
		}
	}
	told := 0
	for i := range 8 {
		n := len(s.commands(devN(i), wire.ActQuarantine))
		if n > 1 {
			t.Errorf("device %d is told %d times", i, n)
		}
		told += n
	}
	if told != p.PerHour {
		t.Errorf("%d devices are contained, the policy says %d", told, p.PerHour)
	}
}

// A device that ended with an open case holds up nobody else's, and its own closes.
func TestTheCaseOfADeviceThatEndedCloses(t *testing.T) {
	p := remedy.DefaultPolicy()
	p.PerHour = 3
	s, svc, _ := newRemedy(t, 4, p)
	ctx := t.Context()
	for i := range 4 {
		if _, err := svc.Suspect(ctx, reactions(), remedy.Trouble{Device: devN(i), Cause: ref(uint64(i)), Reason: "why"}); err != nil {
			t.Fatal(err)
		}
	}
	count1(t, s, svc, devN(0), wire.ActQuarantine, 1)
	for i, evs := range [][]device.Event{{device.Retire, device.Wiped}, {device.Lose}, {device.Retire}} {
		for _, ev := range evs {
			if _, err := s.devices.Move(ctx, access.Internal("test"), devN(i), ev, nil, "test"); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.now = s.now.Add(17 * time.Hour) // the quarantines are to be renewed
	count1(t, s, svc, devN(2), wire.ActQuarantine, 2)
	casePhase(t, svc, devN(0), remedy.Closed)
	casePhase(t, svc, devN(1), remedy.Closed)
	casePhase(t, svc, devN(2), remedy.Contained) // it can still be told
	for range 2 {
		if err := svc.Ended(ctx, reactions(), devN(3), ref(9), "the device is lost"); err != nil { // held: nothing is due
			t.Fatal(err)
		}
	}
	casePhase(t, svc, devN(3), remedy.Closed)
	count1(t, s, svc, devN(3), wire.ActQuarantine, 0)
}

func TestReplacing(t *testing.T) {
	s, svc, _ := newRemedy(t, 2, remedy.DefaultPolicy())
	if err := svc.Replace(t.Context(), person("op"), devN(0), devN(1), "worn out"); err != nil {
		t.Fatal(err)
	}
	if d, err := s.devices.Get(t.Context(), person("op"), devN(0)); err != nil || d.ReplacedBy != devN(1) {
		t.Errorf("replaced by %q, %v", d.ReplacedBy, err)
	}
}

// A case is no way around rollouts: with a release that somebody names, and that did not run on the device, it takes two.
func TestACaseBringsNoNewCodeByOnePerson(t *testing.T) {
	s, svc, _ := newRemedy(t, 1, remedy.Policy{})
	id := devN(0)
	if err := svc.Judged(t.Context(), reactions(), id, "contraindicated", s.now, "other bytes", ref(1)); err != nil {
		t.Fatal(err)
	}
	next := s.publish("1.1.0")
	err := svc.Reprovide(t.Context(), person("olga"), id, next.Digest[:], "why")
	if codeOf(err) != "access.four-eyes" {
		t.Fatalf("%v", err)
	}
	if err := svc.Reprovide(t.Context(), together("olga", "carol"), id, next.Digest[:], "why"); err != nil {
		t.Fatal(err)
	}
	if err := svc.Reprovide(t.Context(), person("olga"), id, nil, "the one it should run"); err != nil {
		t.Fatal(err)
	}
}
