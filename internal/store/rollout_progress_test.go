package store_test

import (
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/rollout"
)

func (r *roll) points(id string) []rollout.Point {
	r.t.Helper()
	all, err := r.svc.Progress(r.t.Context(), person("op"), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// stood gives how the rollout stood at a time.
func stood(all []rollout.Point, at time.Time) (c rollout.Counts) {
	for _, p := range all {
		if !p.At.After(at) {
			c = p.Counts
		}
	}
	return c
}

// How a rollout stood is there for each step in which that changed, over a restart of the server, with how it ended; and nothing for steps in which nothing happened.
func TestHowARolloutWentIsThereForEachStep(t *testing.T) {
	r := newRoll(t, 3)
	r.now = r.now.Truncate(time.Hour).Add(time.Hour + 5*time.Second)
	begun := r.now
	r.begin(twoWaves("r1", r.new))
	r.tick(0)
	r.tick(10 * time.Second)
	r.tick(10 * time.Second)
	if all := r.points("r1"); len(all) != 1 || !all[0].At.Equal(begun.Truncate(time.Second)) || all[0].Counts.Devices != 1 || all[0].Counts.Waiting != 1 || all[0].Counts.Untold != 0 {
		t.Fatalf("it began with %+v", all)
	}
	for range 5 {
		r.tick(time.Minute)
	}
	if all := r.points("r1"); len(all) != 1 {
		t.Fatalf("nothing happened, and that is %+v", all)
	}
	r.installs(devN(2))
	r.tick(0)
	r.tick(10 * time.Second)
	healthy := r.now
	r.svc, r.store = rollouts(r.stages)
	r.tick(11 * time.Minute)
	r.says(devN(2), r.new, true, false, nil)
	r.proves(devN(2), r.new, attest.Affirming)
	r.tick(time.Second)
	r.attests(2)
	for range 3 {
		r.tick(10 * time.Second)
	}
	second := r.now
	r.installs(devN(0))
	r.installs(devN(1))
	r.tick(time.Minute)
	r.tick(11 * time.Minute)
	r.attests(0, 1)
	for range 3 {
		r.tick(10 * time.Second)
	}
	r.phase("r1", rollout.Completed, 2)
	all := r.points("r1")
	for at, want := range map[time.Time][3]int{begun: {1, 0, 1}, healthy: {1, 1, 0}, second: {3, 1, 2}, r.now: {3, 3, 0}} {
		if got := stood(all, at); [3]int{got.Devices, got.Good, got.Waiting} != want {
			t.Errorf("at %s it stood at %+v, want %v; all: %+v", at, got, want, all)
		}
	}
	if len(all) > 6 {
		t.Errorf("%d points: %+v", len(all), all)
	}
	if _, err := r.svc.Progress(t.Context(), access.Caller{Kind: access.Person, ID: "person:nobody"}, "r1"); fault.KindOf(err) != fault.Denied {
		t.Errorf("a stranger: %v", err)
	}
}

// What is open for years has a point a day then.
func TestARolloutOfYearsHasAPointADay(t *testing.T) {
	r := newRoll(t, 5)
	r.mends(0)
	begun := r.points("fix")[0].At
	for range 20 {
		r.tick(day)
	}
	before := len(r.points("fix"))
	from := r.now
	r.comesBack(1, r.old)
	for range 8 { // it is told, and gone: that is a change or two in the same hours
		r.tick(5 * time.Minute)
	}
	for _, p := range r.points("fix")[before:] {
		if p.At.Before(from.Add(-time.Hour)) || p.At.Sub(begun)%time.Hour != 0 {
			t.Errorf("a point of %s, after %s", p.At, from)
		}
	}
	if n := len(r.points("fix")); n <= before || n > before+2 {
		t.Errorf("%d points became %d", before, n)
	}
	r.tick(100 * day)
	r.tick(2 * day)
	before, from = len(r.points("fix")), r.now
	r.comesBack(3, r.old)
	all := r.points("fix")
	if len(all) != before+1 || all[before].At.Sub(begun)%day != 0 || all[before].At.After(from) {
		t.Errorf("after %d points: %+v", before, all)
	}
}
