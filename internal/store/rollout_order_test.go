package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// inOrder makes a release one whose program starts after another, with the same bytes.
func inOrder(s *release.Spec) {
	other := s.Components[0]
	other.Name = "radio"
	s.Components = append(slices.Clone(s.Components), other)
	s.Components[0].After = []string{"radio"}
}

// knowsAfter has a device's agent start programs in order.
func knowsAfter(in *wire.Checkin) { in.Knows = []string{wire.KnowsAfter} }

// Programs that wait for each other are no release, and those that do not are one that says so to whoever reads it.
func TestAReleaseOfProgramsThatWaitForEachOtherIsRefused(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	for says, after := range map[string][]string{"after radio after": {"app"}, "no component": {"sensor"}, "after itself": {"radio"}} {
		spec := s.spec("2.0.0")
		inOrder(&spec)
		spec.Components[0].Name, spec.Components[1].After = "app", after
		if _, err := s.releases.Propose(t.Context(), person("proposer"), spec); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), says) {
			t.Errorf("want %q: %v", says, err)
		}
	}
	if r := s.published("2.0.0", inOrder); r.Manifest.Order() != "radio, then "+r.Manifest.Components[0].Name {
		t.Errorf("it starts %q", r.Manifest.Order())
	}
}

// A rollout of a release whose programs start in an order leaves out devices whose agents know none, and says so; who comes to know it later joins a dynamic one. On the
// way over a stepping stone it is the same.
func TestARolloutLeavesOutWhoStartsProgramsInNoOrder(t *testing.T) {
	r := newRoll(t, 4)
	next := r.published("2.0.0", func(s *release.Spec) { inOrder(s); s.RollbackTo = [][]byte{r.old.Digest[:]} })
	last := r.published("3.0.0", over1(next, "2.0.0"))
	for _, i := range []int{0, 2} {
		r.calls(devN(i), "", knowsAfter)
	}
	spec := twoWaves("r1", next)
	spec.Canaries = nil
	got, err := r.svc.DryRun(t.Context(), person("op"), spec)
	if err != nil || got.Reached != 2 || got.LeftOut["agent"] != 2 || !strings.Contains(got.Skipped[devN(1)], "the release has programs that start after others, and its agent does not know how") {
		t.Errorf("%+v, %v", got, err)
	}
	over := twoWaves("r2", last)
	over.Canaries, over.Stones = nil, true
	got, err = r.svc.DryRun(t.Context(), person("op"), over)
	if err != nil || got.Reached != 2 || got.LeftOut["stepping stone"] != 2 || !strings.Contains(got.Skipped[devN(1)], "has programs that start after others") {
		t.Errorf("over a stone: %+v, %v", got, err)
	}
	spec.Dynamic, spec.Waves = true, []rollout.Wave{{Deadline: 3600, MaxNoShows: 2}}
	r.begin(spec)
	r.tick(time.Second)
	r.isTold(0, true)
	r.isTold(1, false)
	r.calls(devN(1), "", knowsAfter)
	r.tick(2 * time.Second)
	r.isTold(1, true)
	r.isTold(3, false)
}

// A device is given no release whose order its agent does not know, whoever told it.
func TestAnAgentWithoutOrderIsGivenNoReleaseThatHasOne(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	s.ledger.witnessed = true
	r := &roll{stages: s}
	old, next := s.publish("1.0.0"), s.published("2.0.0", inOrder)
	s.make(devN(0), old)
	s.says(devN(0), old, true, false, nil)
	if _, err := s.devices.Command(t.Context(), access.Internal("test"), device.Instruction{
		Product: "pump", Act: wire.ActInstall, Devices: []string{devN(0)}, Release: next.Digest[:], Reason: "new", Valid: time.Hour,
	}); err != nil {
		t.Fatal(err)
	}
	if r.calls(devN(0), "") {
		t.Error("it is given one")
	}
	if !r.calls(devN(0), "", knowsAfter) {
		t.Error("it is not given one that it knows")
	}
}
