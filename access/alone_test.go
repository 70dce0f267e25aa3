package access_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
)

func TestLittleByLittleIsMany(t *testing.T) {
	devices := func(from, to int) (ids []string) {
		for i := from; i < to; i++ {
			ids = append(ids, fmt.Sprintf("%032x", i))
		}
		return ids
	}
	var alone access.Alone
	now := time.Unix(1_800_000_000, 0)
	olga, otto := access.Caller{ID: "person:olga", Kind: access.Person}, access.Caller{ID: "person:otto", Kind: access.Person}
	seconded := olga
	seconded.Seconded = otto.ID
	for _, step := range []struct {
		name     string
		who      access.Caller
		from, to int
		after    time.Duration
		want     bool
	}{
		{"sixty", olga, 0, 60, 0, false},
		{"the same again", olga, 0, 60, time.Minute, false},
		{"some of them and others", olga, 50, 100, time.Minute, false},
		{"one more", olga, 100, 101, time.Minute, true},
		{"what was refused does not count", olga, 0, 100, time.Minute, false},
		{"somebody else's", otto, 100, 200, time.Minute, false},
		{"more at once", otto, 300, 401, time.Minute, true},
		{"with a second person", seconded, 100, 150, time.Minute, false},
		{"which does not count", olga, 0, 100, time.Minute, false},
		{"the system", access.Internal("remedy"), 0, 100, time.Minute, false},
		{"and more", access.Internal("remedy"), 100, 200, time.Minute, false},
		{"an hour later", olga, 200, 300, access.AloneFor, false},
	} {
		now = now.Add(step.after)
		if got := alone.Grave(step.who, devices(step.from, step.to), now); got != step.want {
			t.Errorf("%s: grave %v", step.name, got)
		}
	}
}

// One device after the other is many devices too; looking at them is not, nor is what the system does.
func TestOneByOneIsMany(t *testing.T) {
	guard, err := access.NewGuard(quiet{})
	if err != nil {
		t.Fatal(err)
	}
	olga := access.Caller{ID: "person:olga", Kind: access.Person, Roles: []access.Role{access.Operator}, Via: "token"}
	check := func(c access.Caller, a access.Action, n int) error {
		return guard.Check(t.Context(), c, a, access.Resource{Type: "device", ID: fmt.Sprintf("%032x", n), Product: "pump"})
	}
	for n := range 3 * access.BulkDevices {
		if err := errors.Join(check(olga, access.DeviceRead, n), check(access.Internal("remedy"), access.DeviceQuarantine, n)); err != nil {
			t.Fatal(err)
		}
		if check(access.Caller{ID: "person:vera", Kind: access.Person, Roles: []access.Role{access.Viewer}}, access.DeviceQuarantine, n) == nil {
			t.Fatal("a viewer quarantines")
		}
	}
	for n := range access.BulkDevices {
		if err := check(olga, access.DeviceQuarantine, n); err != nil {
			t.Fatalf("device %d: %v", n, err)
		}
	}
	if err := check(olga, access.DeviceRelease, 7); err != nil { // it is one of them
		t.Error(err)
	}
	for _, a := range []access.Action{access.DeviceQuarantine, access.DeviceRelease, access.DeviceRetire, access.DeviceReset} {
		if _, ok := errors.AsType[*access.SecondNeededError](check(olga, a, 1000)); !ok {
			t.Errorf("%s of one more takes no second person", a)
		}
	}
	olga.Seconded = "person:otto"
	if err := check(olga, access.DeviceQuarantine, 1000); err != nil {
		t.Errorf("with a second person: %v", err)
	}
}

type quiet struct{}

func (quiet) Record(context.Context, access.Decision) error { return nil }
