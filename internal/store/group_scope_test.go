package store_test

import (
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

func scoped(scope ...string) access.Caller {
	p := person("part")
	p.Scope = scope
	return p
}

func denied(t *testing.T, what string, err error) {
	t.Helper()
	if fault.KindOf(err) != fault.Denied {
		t.Errorf("%s: %v, want a denial", what, err)
	}
}

func TestARolloutOfAGroupTakesItsDevices(t *testing.T) {
	r := newRoll(t, 4)
	berlin, rome, below, none := devN(0), devN(1), devN(2), devN(3)
	for id, g := range map[string]string{berlin: "eu/berlin", rome: "eu/rome", below: "eu/berlin/ward-3"} {
		if err := r.devices.Group(t.Context(), person("op"), []string{id}, g, "test"); err != nil {
			t.Fatal(err)
		}
	}
	who := scoped("pump/eu/berlin")
	spec := func(id string, sel rollout.Selection) rollout.Spec {
		return rollout.Spec{ID: id, Product: "pump", Release: r.new.Digest[:], Selection: sel, Waves: []rollout.Wave{{Soak: 60, Deadline: 600}}}
	}
	for name, sel := range map[string]rollout.Selection{
		"of everything":      {All: true},
		"of a device":        {IDs: []string{berlin}},
		"of the group above": {Group: "eu", All: true},
		"of a neighbour":     {Group: "eu/rome", All: true},
	} {
		_, err := r.svc.DryRun(t.Context(), who, spec("x", sel))
		denied(t, "a dry run "+name, err)
		_, err = r.svc.Create(t.Context(), who, spec("x", sel))
		denied(t, "a rollout "+name, err)
	}
	for _, id := range []string{rome, none} {
		if _, err := r.svc.DryRun(t.Context(), who, spec("x", rollout.Selection{Group: "eu/berlin", IDs: []string{id}})); fault.KindOf(err) != fault.Conflict {
			t.Errorf("device %s, which is not in the group: %v", id, err)
		}
	}
	if _, err := r.svc.DryRun(t.Context(), who, spec("x", rollout.Selection{Group: "EU", All: true})); err == nil {
		t.Error("a group with no name is taken")
	}
	mine := spec("mine", rollout.Selection{Group: "eu/berlin", All: true})
	res, err := r.svc.DryRun(t.Context(), who, mine)
	if err != nil || len(res.Members) != 2 {
		t.Fatalf("%+v, %v", res, err)
	}
	// What is in the group when it starts is what counts.
	if _, err := r.svc.Create(t.Context(), who, mine); err != nil {
		t.Fatal(err)
	}
	if err := r.devices.Group(t.Context(), person("op"), []string{below}, "eu/rome", "test"); err != nil {
		t.Fatal(err)
	}
	_, res, err = r.svc.Start(t.Context(), who, "mine")
	if err != nil || len(res.Members) != 1 || res.Members[0].Device != berlin {
		t.Fatalf("%+v, %v", res, err)
	}
	if _, err := r.svc.Create(t.Context(), person("op"), spec("all", rollout.Selection{All: true})); err != nil {
		t.Fatal(err)
	}
	for scope, want := range map[string]int{"pump/eu/berlin": 1, "pump/eu": 1, "pump": 2, "pump/eu/rome": 0, "pump/eu/b": 0} {
		if got, err := r.svc.List(t.Context(), scoped(scope), ""); err != nil || len(got) != want {
			t.Errorf("rollouts in %s: %d %v, want %d", scope, len(got), err, want)
		}
	}
	_, err = r.svc.Pause(t.Context(), who, "all", "x")
	denied(t, "pausing a rollout of everything", err)
	_, _, err = r.svc.Get(t.Context(), scoped("pump/eu/rome"), "mine")
	denied(t, "looking at a neighbour's rollout", err)
}

func TestACommandIsAboutEveryDeviceItNames(t *testing.T) {
	r := newRoll(t, 3)
	berlin, rome, none := devN(0), devN(1), devN(2)
	for id, g := range map[string]string{berlin: "eu/berlin", rome: "eu/rome"} {
		if err := r.devices.Group(t.Context(), person("op"), []string{id}, g, "test"); err != nil {
			t.Fatal(err)
		}
	}
	who := scoped("pump/eu/berlin")
	order := func(c access.Caller, ids ...string) (string, error) {
		return r.devices.Command(t.Context(), c, device.Instruction{Product: "pump", Act: wire.ActQuarantine, Devices: ids, TTL: time.Hour, Reason: "test"})
	}
	for name, ids := range map[string][]string{
		"a neighbour": {rome}, "one in no group": {none}, "one's own and a neighbour": {berlin, rome}, "nobody": nil, "one nobody knows": {berlin, devN(9)},
	} {
		_, err := order(who, ids...)
		denied(t, name, err)
	}
	mine, err := order(who, berlin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.devices.CommandOf(t.Context(), who, mine); err != nil {
		t.Error(err)
	}
	both, err := order(scoped("pump/eu/berlin", "pump/eu/rome"), berlin, rome)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.devices.CommandDevices(t.Context(), who, both, "", 0)
	denied(t, "the devices of a command that names a neighbour", err)
	denied(t, "withdrawing it", r.devices.CancelCommand(t.Context(), who, both, "x"))

	denied(t, "taking a neighbour in", r.devices.Group(t.Context(), who, []string{rome}, "eu/berlin", "x"))
	denied(t, "putting one's own elsewhere", r.devices.Group(t.Context(), who, []string{berlin}, "eu/rome", "x"))
	denied(t, "taking one's own out", r.devices.Group(t.Context(), who, []string{berlin}, "", "x"))
	if err := r.devices.Group(t.Context(), who, []string{berlin, berlin}, "eu/berlin/ward-3", "x"); err != nil {
		t.Errorf("moving within the scope: %v", err)
	}
}
