package store_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/rollout"
)

// No one person tells more devices of a release than they may act on, before any has shown that it is good: at once, or little by little.
func TestOnePersonTellsNotManyUnproven(t *testing.T) {
	r := newRoll(t, access.BulkDevices+1)
	all := rollout.Spec{
		ID: "all", Product: "pump", Release: r.new.Digest[:], Selection: rollout.Selection{All: true}, Waves: []rollout.Wave{{Soak: 600, Deadline: 3600}},
	}
	look, err := r.svc.DryRun(t.Context(), person("op"), all)
	if err != nil || !look.TakesTwo || look.Unproven != access.BulkDevices+1 {
		t.Fatalf("a dry run says %v, %d: %v", look.TakesTwo, look.Unproven, err)
	}
	if _, err := r.svc.Create(t.Context(), person("op"), all); err != nil {
		t.Fatal(err)
	}
	_, _, err = r.svc.Start(t.Context(), person("op"), "all")
	need, ok := errors.AsType[*access.SecondNeededError](err)
	if codeOf(err) != "access.four-eyes" || !ok || need.Action != access.RolloutControl || need.Resource.ID != "all" || !strings.Contains(err.Error(), "101 devices would be told") {
		t.Fatalf("one person: %v", err)
	}
	r.tick(time.Second)
	r.phase("all", rollout.Created, 0)

	named := func(id string, from, to int) error {
		spec := all
		spec.ID, spec.Selection = id, rollout.Selection{}
		for i := from; i < to; i++ {
			spec.Selection.IDs = append(spec.Selection.IDs, devN(i))
		}
		if _, err := r.svc.Create(t.Context(), person("sly"), spec); err != nil {
			t.Fatal(err)
		}
		_, _, err := r.svc.Start(t.Context(), person("sly"), id)
		return err
	}
	if err := named("some", 0, 60); err != nil {
		t.Errorf("60 devices: %v", err)
	}
	if err := named("more", 60, 101); codeOf(err) != "access.four-eyes" {
		t.Errorf("41 more: %v", err)
	}
	if err := named("few", 60, 100); err != nil {
		t.Errorf("40 more: %v", err)
	}

	canary := twoWaves("canary", r.new)
	if look, err := r.svc.DryRun(t.Context(), person("op"), canary); err != nil || look.TakesTwo || look.Unproven != 1 {
		t.Errorf("a dry run of a canary says %v, %d: %v", look.TakesTwo, look.Unproven, err)
	}
	r.begin(canary)
	if _, _, err := r.svc.Start(t.Context(), together("op", "mia"), "all"); err != nil {
		t.Errorf("two people: %v", err)
	}
}

// Nor does who starts a rollout over few devices, pauses it at once, and has it go on when there are many.
func TestOnePersonDoesNotResumeWhatHasGrown(t *testing.T) {
	r := newRoll(t, 2)
	spec := rollout.Spec{
		ID: "all", Product: "pump", Release: r.new.Digest[:], Selection: rollout.Selection{All: true}, Waves: []rollout.Wave{{Soak: 600, Deadline: 3600}},
	}
	r.begin(spec)
	pause := func() {
		t.Helper()
		if _, err := r.svc.Pause(t.Context(), person("op"), "all", "wait"); err != nil {
			t.Fatal(err)
		}
	}
	pause()
	if _, err := r.svc.Resume(t.Context(), person("op"), "all", "as it was"); err != nil {
		t.Fatalf("two devices: %v", err)
	}
	pause()
	for i := range access.BulkDevices {
		r.make(devN(2+i), r.old)
		r.says(devN(2+i), r.old, true, false, nil)
	}
	if _, err := r.svc.Resume(t.Context(), person("op"), "all", "go"); codeOf(err) != "access.four-eyes" {
		t.Fatalf("one person: %v", err)
	}
	if _, err := r.svc.Resume(t.Context(), together("op", "mia"), "all", "go"); err != nil {
		t.Fatalf("two people: %v", err)
	}
	r.tick(time.Second)
	pause()
	if _, err := r.svc.Resume(t.Context(), person("op"), "all", "they are told by now"); err != nil {
		t.Errorf("a wave that was taken: %v", err)
	}
}
