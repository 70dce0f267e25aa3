package store_test

import (
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// published takes a release through its whole approval, after a change to what it is proposed with.
func (s *stages) published(version string, change func(spec *release.Spec)) release.Release {
	s.t.Helper()
	spec := s.spec(version)
	change(&spec)
	r, err := s.releases.Propose(s.t.Context(), person("proposer"), spec)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.agreed(r)
}

// A rollout does not address who would refuse: a device that runs what the release is not installed over, and one whose security counter is above it; and where the
// trust bundle has closed the release, nobody is addressed at all.
func TestARolloutDoesNotAddressWhoWouldRefuse(t *testing.T) {
	r := newRoll(t, 4)
	counted := func(n uint32, over ...wire.VersionRange) func(*release.Spec) {
		return func(s *release.Spec) { s.Counter, s.Over = n, over }
	}
	between := r.published("1.2.0", counted(2))
	newest := r.published("2.0.0", counted(2, wire.VersionRange{From: "1.2.0"}))
	secure := r.published("1.9.0", counted(5))
	r.says(devN(0), between, true, false, nil)
	r.says(devN(1), secure, true, false, nil)
	plan := func(rel release.Release) (rollout.Resolved, error) {
		spec := twoWaves("r1", rel)
		spec.Canaries = nil
		return r.svc.DryRun(t.Context(), person("op"), spec)
	}
	got, err := plan(newest)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Members) != 1 || got.Members[0].Device != devN(0) || got.LeftOut["stepping stone"] != 2 || got.LeftOut["counter"] != 1 {
		t.Errorf("%+v", got)
	}
	if why := got.Skipped[devN(2)]; !strings.Contains(why, "runs 1.0.0") || !strings.Contains(why, "from 1.2.0") {
		t.Errorf("device 2 %s", why)
	}
	if why := got.Skipped[devN(1)]; !strings.Contains(why, "security counter 5, and the release has 2") {
		t.Errorf("device 1 %s", why)
	}
	r.closes(2, 3)
	if _, err := plan(newest); codeOf(err) != "rollout.closed" {
		t.Errorf("a release that is closed: %v", err)
	}
	if _, err := r.svc.Create(t.Context(), person("op"), twoWaves("r2", between)); codeOf(err) != "rollout.closed" {
		t.Errorf("a release that is closed is to be rolled out: %v", err)
	}
	if got, err := plan(secure); err != nil || len(got.Members) != 3 {
		t.Errorf("the one that mends it: %+v, %v", got, err)
	}
}

// Nobody proposes, or publishes, what every device would refuse.
func TestNobodyProposesWhatIsClosed(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	early, err := s.releases.Propose(t.Context(), person("proposer"), s.spec("1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	s.closes(2, early.Manifest.Counter+1)
	for i, name := range []string{"alice", "bob"} {
		if _, err := s.releases.Approve(t.Context(), person(name), early.Digest, s.sign(wire.TypeRelease, early.Payload, i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.releases.Publish(t.Context(), person("proposer"), early.Digest); codeOf(err) != "release.closed" {
		t.Errorf("published: %v", err)
	}
	if _, err := s.releases.Propose(t.Context(), person("proposer"), s.spec("1.1.0")); codeOf(err) != "release.closed" {
		t.Errorf("proposed: %v", err)
	}
	spec := s.spec("1.2.0")
	spec.Counter = early.Manifest.Counter + 1
	if _, err := s.releases.Propose(t.Context(), person("proposer"), spec); err != nil {
		t.Errorf("the one that mends it: %v", err)
	}
}
