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
