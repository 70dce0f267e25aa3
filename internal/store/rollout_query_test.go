package store_test

import (
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/rollout"
)

// troubles raises a finding about a device.
func (r *roll) troubles(id string) monitor.Finding {
	r.t.Helper()
	f := monitor.Finding{ID: "f-" + id + r.now.String(), Dedupe: "trouble/" + id, Kind: monitor.Unhealthy, Severity: monitor.High, Product: "pump", Subject: id, Raised: r.now}
	f, err := r.db.Monitor().PutFinding(r.t.Context(), f, ledger.New(ledger.KindFindingRaised, r.now, "test", id, nil, []byte("{}")))
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

// mended closes it.
func (r *roll) mended(f monitor.Finding) {
	r.t.Helper()
	f.Closed = r.now
	if err := r.db.Monitor().CloseFinding(r.t.Context(), f, ledger.New(ledger.KindFindingClosed, r.now, "test", f.Subject, nil, []byte("{}"))); err != nil {
		r.t.Fatal(err)
	}
}

// ofQuery is a plan of one wave over devices of a query.
func ofQuery(r *roll, id string, q device.Filter) rollout.Spec {
	spec := twoWaves(id, r.new)
	spec.Canaries, spec.Selection, spec.Waves = nil, rollout.Selection{Query: &q}, spec.Waves[1:]
	return spec
}

// A rollout of a query reaches those that a list of the same query shows, as far as they can take the release: whatever is asked for, and within a group.
func TestARolloutOfAQueryReachesWhomListsShow(t *testing.T) {
	const n = 40
	r := newRoll(t, n)
	old := r.publish("0.9.0")
	rnd := rand.New(rand.NewPCG(7, 7))
	for i := range n {
		id := devN(i)
		if rnd.IntN(2) == 0 {
			r.says(id, old, true, false, nil)
		}
		if rnd.IntN(2) == 0 {
			r.proves(id, r.old, []attest.Tier{attest.Affirming, attest.Warning, attest.Contraindicated}[rnd.IntN(3)])
		}
		if rnd.IntN(3) == 0 {
			r.troubles(id)
		}
		if rnd.IntN(3) == 0 {
			r.vouches(id, []device.Assurance{device.Proves, device.Says}[rnd.IntN(2)])
		}
		if rnd.IntN(4) == 0 {
			r.stands(id, []device.State{device.Quarantined, device.Maintenance}[rnd.IntN(2)])
		}
		if rnd.IntN(2) == 0 {
			r.group([]string{"eu", "eu/berlin", "us"}[rnd.IntN(3)], id)
		}
	}
	one := func(of ...string) string { return append(of, "", "")[rnd.IntN(len(of)+2)] }
	met, some := 0, 0
	for range 300 {
		q := device.Filter{
			State: one("active", "quarantined", "maintenance"), Verdict: one("affirming", "warning", "contraindicated", "unknown"), Version: one("1.0.0", "0.9.0"),
			Assurance: one("enforces", "says"), Release: one(hex.EncodeToString(r.old.Digest[:])), Prefix: one("0000000000000000000000000000001", "00"), Findings: rnd.IntN(3) == 0,
		}
		if q == (device.Filter{}) {
			continue
		}
		group := one("eu", "eu/berlin")
		listed := fleet.Query{Filter: q, Scope: []string{access.Join("pump", group)}, Limit: n}
		if q.State == "" {
			listed.State = "active"
		}
		list, err := r.db.FleetDevices(t.Context(), listed)
		if err != nil {
			t.Fatal(err)
		}
		spec := ofQuery(r, "dry", q)
		spec.Selection.Group, spec.Assurance = group, device.Says
		got, err := r.svc.DryRun(t.Context(), person("op"), spec)
		if len(list) == 0 {
			if codeOf(err) != "rollout.empty" {
				t.Fatalf("%+v in %q: nobody is listed, and the plan is %+v (%v)", q, group, got, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%+v in %q: %v, and %d are listed", q, group, err, len(list))
		}
		var reached, shown []string
		for _, m := range got.Members {
			reached = append(reached, m.Device)
		}
		for id := range got.Skipped {
			reached = append(reached, id)
		}
		for _, d := range list {
			shown = append(shown, d.ID)
		}
		slices.Sort(reached)
		if !slices.Equal(reached, shown) {
			t.Fatalf("%+v in %q: the plan has %v, and the list %v", q, group, reached, shown)
		}
		met++
		some += len(shown)
	}
	if met < 50 || some < 200 {
		t.Errorf("only %d plans of %d devices were compared: the test asks for too little", met, some)
	}
}

// It is asked when a wave is taken: who is not of the query any more by then is told nothing, and who came to be of it is told.
func TestAQueryIsAskedWhenAWaveIsTaken(t *testing.T) {
	r := newRoll(t, 4)
	first, second, _ := r.troubles(devN(0)), r.troubles(devN(1)), r.troubles(devN(2))
	spec := ofQuery(r, "r1", device.Filter{Findings: true})
	spec.Waves = []rollout.Wave{{Size: 1, Soak: 600, Deadline: 3600}, {Deadline: 3600}}
	spec.Canaries = []string{devN(2)}
	r.begin(spec)
	r.tick(time.Second)
	r.isTold(2, true)
	r.mended(first)
	r.mended(second)
	r.troubles(devN(3))
	r.passes(2)
	r.phase("r1", rollout.Running, 2)
	for i, want := range []bool{false, false, true, true} {
		r.isTold(i, want)
	}
}

// What a query asks for changes, and a dynamic rollout looks again: at findings, evidence, the trust bundle and what devices run.
func TestDevicesJoinThatComeToBeOfAQuery(t *testing.T) {
	for name, c := range map[string]struct {
		q    device.Filter
		does func(r *roll, id string)
	}{
		"a finding":    {device.Filter{Findings: true}, func(r *roll, id string) { r.troubles(id) }},
		"evidence":     {device.Filter{Verdict: "warning"}, func(r *roll, id string) { r.proves(id, r.old, attest.Warning) }},
		"trust bundle": {device.Filter{Bundle: "3"}, func(r *roll, id string) { r.believes(id, 3) }},
		"of two, whose ID": {device.Filter{Findings: true, Prefix: devN(0)}, func(r *roll, id string) {
			r.troubles(devN(1))
			r.troubles(id)
		}},
		"what runs": {device.Filter{Version: "0.9.0"}, func(r *roll, id string) { r.says(id, r.publish("0.9.0"), true, false, nil) }},
		"a state": {device.Filter{State: "quarantined"}, func(r *roll, id string) {
			if _, err := r.devices.Move(r.t.Context(), person("olga"), id, device.Quarantine, nil, "test"); err != nil {
				r.t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoll(t, 2)
			spec := ofQuery(r, "r1", c.q)
			spec.Dynamic = true
			r.believes(devN(0), 2)
			r.begin(spec) // of nobody
			r.tick(time.Second)
			r.tick(2 * time.Second)
			r.isTold(0, false)
			c.does(r, devN(0))
			r.tick(2 * time.Second)
			r.isTold(0, true)
			r.isTold(1, false)
		})
	}
}

// Who was held by another rollout, and is not of the query when that lets go of it, is not taken.
func TestAHeldDeviceThatIsNotOfTheQueryAnyMoreIsNotTaken(t *testing.T) {
	r := newRoll(t, 2)
	other := twoWaves("r0", r.new)
	other.Canaries, other.Waves, other.Selection = nil, other.Waves[1:], rollout.Selection{IDs: []string{devN(0)}}
	r.begin(other)
	r.tick(time.Second)
	f := r.troubles(devN(0))
	r.troubles(devN(1))
	r.begin(ofQuery(r, "r1", device.Filter{Findings: true}))
	r.tick(time.Second)
	if got := r.phase("r1", rollout.Running, 1); got.Last.Held != 1 {
		t.Fatalf("%+v", got.Last)
	}
	r.mended(f)
	if _, err := r.svc.Abort(t.Context(), person("op"), "r0", "test"); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Second)
	r.tick(time.Minute)
	if got := r.by("r1", devN(0)); len(got) != 0 {
		t.Errorf("it is told by %v", got)
	}
	if got := r.by("r1", devN(1)); len(got) != 1 {
		t.Errorf("the other is told by %v", got)
	}
}

func TestWhatAQueryOfARolloutHasToBe(t *testing.T) {
	r := newRoll(t, 2)
	for want, change := range map[string]func(s *rollout.Spec){
		"rollout.query":     func(s *rollout.Spec) { s.Selection.Query = &device.Filter{} },
		"rollout.selection": func(s *rollout.Spec) { s.Selection.All = true },
		"query.state":       func(s *rollout.Spec) { s.Selection.Query.State = "actve" },
		"query.verdict":     func(s *rollout.Spec) { s.Selection.Query.Verdict = "good" },
		"rollout.assurance": func(s *rollout.Spec) { s.Selection.Query.Assurance = "says" },
	} {
		spec := ofQuery(r, "r1", device.Filter{Version: "1.0.0"})
		change(&spec)
		if _, err := r.svc.Create(t.Context(), person("op"), spec); codeOf(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	gone := ofQuery(r, "r1", device.Filter{State: "disposed"})
	if _, err := r.svc.Create(t.Context(), person("op"), gone); codeOf(err) != "rollout.selection" {
		t.Errorf("of those that are disposed of: %v", err)
	}
	// A later one of all shuts one of a query, and one of another query does not.
	of := ofQuery(r, "r2", device.Filter{Version: "1.0.0"})
	of.Dynamic = true
	r.begin(of)
	r.tick(time.Second)
	r.now = r.now.Add(time.Minute)
	r.begin(ofQuery(r, "r3", device.Filter{State: "active", Version: "1.0.0", Prefix: "00"}))
	r.tick(time.Second)
	if got := mustRollout(t, r, "r2"); !got.Joins() {
		t.Errorf("a narrower one shut it: %s", got.Reason)
	}
	r.now = r.now.Add(time.Minute)
	r.begin(ofQuery(r, "r4", device.Filter{State: "active", Version: "1.0.0"}))
	r.tick(time.Second)
	if got := mustRollout(t, r, "r2"); got.Joins() || got.Reason != "rollout r4 takes over" {
		t.Errorf("one of the same did not shut it: %s %q", got.Phase, got.Reason)
	}
}

// What a query says of devices is kept beside the log, and not in it.
func TestAQuerysWordsAreNotInTheLog(t *testing.T) {
	r := newRoll(t, 2)
	r.begin(ofQuery(r, "r1", device.Filter{Version: "1.0.0", Prefix: "00000000"}))
	facts := r.entriesOf(ledger.KindRolloutCreated)
	if len(facts) != 1 {
		t.Fatalf("%d facts", len(facts))
	}
	if s := string(facts[0]); strings.Contains(s, "00000000") || strings.Contains(s, "1.0.0") {
		t.Errorf("the log says %s", s)
	}
}
