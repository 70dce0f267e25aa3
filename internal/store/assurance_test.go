package store_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// vouches sets what a device's word is worth.
func (s *stages) vouches(id string, a device.Assurance) {
	s.t.Helper()
	if err := s.db.Write(s.t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE device SET assurance = $1 WHERE id = $2`, string(a), id)
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
}

func TestDevicesAreListedByWhatTheirWordIsWorth(t *testing.T) {
	r := newRoll(t, 4)
	r.vouches(devN(1), device.Says)
	r.vouches(devN(2), device.Proves)
	for word, want := range map[string][]string{
		"": {devN(0), devN(1), devN(2), devN(3)}, "enforces": {devN(0), devN(3)}, "says": {devN(1)}, "proves": {devN(2)},
	} {
		for _, product := range []string{"", "pump"} {
			q := fleet.Query{Limit: 10, Filter: device.Filter{Assurance: word}}
			if product != "" {
				q.Scope = []string{product}
			}
			list, err := r.db.FleetDevices(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range list {
				got = append(got, d.ID)
				if word != "" && d.Assurance != word {
					t.Errorf("%s reads %q in a list of those that %q", d.ID, d.Assurance, word)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("assurance %q of product %q: %v, want %v", word, product, got, want)
			}
		}
	}
	if _, err := r.db.FleetDevices(t.Context(), fleet.Query{Limit: 10, Filter: device.Filter{Assurance: "swears"}}); codeOf(err) != "query.assurance" {
		t.Errorf("an assurance that there is none of: %v", err)
	}
}

func TestARolloutTakesDevicesThatOnlySaySoWhenItSaysSo(t *testing.T) {
	r := newRoll(t, 3)
	r.vouches(devN(1), device.Says)
	spec := twoWaves("r1", r.new)
	spec.Canaries = nil
	res, err := r.svc.DryRun(t.Context(), person("op"), spec)
	if err != nil || len(res.Members) != 2 || res.LeftOut["assurance"] != 1 || res.Skipped[devN(1)] == "" {
		t.Fatalf("a rollout that asks for nothing less takes %v, leaves out %v: %v", res.Members, res.Skipped, err)
	}
	spec.Assurance = "swears"
	if _, err := r.svc.DryRun(t.Context(), person("op"), spec); codeOf(err) != "rollout.assurance" {
		t.Fatalf("an assurance that there is none of: %v", err)
	}
	spec.Assurance = device.Proves
	if res, err = r.svc.DryRun(t.Context(), person("op"), spec); err != nil || len(res.Members) != 2 {
		t.Fatalf("a rollout for devices that prove takes %v: %v", res.Members, err)
	}
	spec.Assurance, spec.Waves = device.Says, []rollout.Wave{{Soak: 600, Deadline: 3600}}
	r.begin(spec)
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	r.installs(devN(0))
	cmd := r.commands(devN(1), wire.ActInstall)[0]
	r.says(devN(1), r.new, true, false, map[string]wire.Outcome{cmd: wire.OutcomeDone})
	r.says(devN(2), r.new, true, false, map[string]wire.Outcome{r.commands(devN(2), wire.ActInstall)[0]: wire.OutcomeDone})
	r.tick(time.Second)
	for _, v := range r.devicesOf("r1") {
		want := map[string]rollout.Class{devN(0): rollout.Good, devN(1): rollout.Good, devN(2): rollout.Waiting}[v.Device] // the last has not proven it, and would have to
		if v.Class != want || (v.Device == devN(1)) != (v.Why == "by its own word") {
			t.Errorf("device %s is %v: %q", v.Device, v.Class, v.Why)
		}
	}
	r.proves(devN(2), r.new, attest.Affirming)
	r.tick(time.Second)
	if got := r.phase("r1", rollout.Running, 1); got.Last.Good != 3 || got.Last.ByWord != 1 || got.Waves[0].SoakFrom.IsZero() {
		t.Fatalf("counts %+v", got.Last)
	}
	r.tick(11 * time.Minute)
	r.attests(0, 2)
	r.tick(time.Second)
	r.phase("r1", rollout.Running, 1) // who only says so has still to say so again
	if err := errors.Join(r.devices.Runs(t.Context(), access.DeviceCaller(devN(1)), devN(1), "1.1.0"), r.devices.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Second)
	r.phase("r1", rollout.Completed, 1)
}

func (r *roll) devicesOf(id string) []rollout.DeviceView {
	r.t.Helper()
	_, views, err := r.svc.Get(r.t.Context(), person("op"), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return views
}
