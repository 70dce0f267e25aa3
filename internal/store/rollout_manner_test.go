package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/window"
)

// knows has a device's agent keep to windows and manners.
func knows(in *wire.Checkin) { in.Knows = []string{wire.KnowsManner, wire.KnowsWindow} }

// waits has it say that it waits with a command.
func waits(c device.Command, what string) func(in *wire.Checkin) {
	return func(in *wire.Checkin) {
		knows(in)
		in.Waits = &wire.Waits{For: what, Command: c.Digest[:], Since: 1_800_000_000, Until: 1_800_003_600}
	}
}

// order is the one install that a device was told.
func (r *roll) order(id string) device.Command {
	r.t.Helper()
	all := r.commands(id, wire.ActInstall)
	if len(all) != 1 {
		r.t.Fatalf("device %s has %d install commands", id, len(all))
	}
	c, err := r.db.Devices().Command(r.t.Context(), all[0])
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// why is what is shown of a device of r1.
func (r *roll) why(id string) string {
	r.t.Helper()
	_, views, err := r.svc.Get(r.t.Context(), person("op"), "r1")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, v := range views {
		if v.Device == id {
			return v.Why
		}
	}
	return ""
}

// Devices that keep to a window themselves are told of it, in what is signed, and fetch at once; for others of the same wave the server keeps to it. Who waits is told
// again when it says so no more, and what was taken back is not.
func TestHawkbit2026WhoKnowsWindowsKeepsTheirOwn(t *testing.T) {
	r := newRoll(t, 3)
	r.now = time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
	r.calls(devN(0), "Europe/Berlin", knows)
	r.calls(devN(2), "Asia/Tokyo", knows)
	spec := twoWavesOf("r1", r)
	spec.Window = &window.Hours{Window: window.Window{Days: 127, From: 120, Minutes: 240}, Zone: "+02:00"}
	spec.Waves = []rollout.Wave{{Deadline: 3600, Soak: 60, MaxNoShows: 2}}
	r.begin(spec)
	r.tick(0)
	own, other := r.order(devN(0)), r.order(devN(1))
	if w := own.Wire.Window; w == nil || *w != (wire.Window{Days: 127, From: 120, Minutes: 240}) || own.Hours != nil || r.order(devN(2)).ID != own.ID {
		t.Errorf("who keeps to it is told %+v, and the server keeps to %+v", w, own.Hours)
	}
	if other.Wire.Window != nil || other.Hours == nil || other.ID == own.ID {
		t.Errorf("who does not is told %+v, and the server keeps to %+v", other.Wire.Window, other.Hours)
	}
	got := r.phase("r1", rollout.Running, 1)
	if ts := got.Waves[0].Tranches; len(ts) != 2 || len(ts[0].Kept)+len(ts[1].Kept) != 1 || ts[0].Devices+ts[1].Devices != 3 {
		t.Errorf("the tranches %+v", ts)
	}
	if !r.calls(devN(0), "Europe/Berlin", knows) || r.calls(devN(1), "") {
		t.Error("outside of the hours, who keeps to them is told, and who does not is not")
	}
	if r.calls(devN(2), "Asia/Tokyo") {
		t.Error("it is given what its agent of now would not understand")
	}
	if r.calls(devN(0), "Europe/Berlin", waits(own, wire.WaitsForWindow)) {
		t.Error("it waits, and is told again")
	}
	r.tick(9 * time.Hour)
	if c := r.counts("r1"); c.Failed != 0 || c.Waiting != 3 {
		t.Errorf("their hours have not begun: %+v", c)
	}
	if got := r.why(devN(0)); !strings.Contains(got, "waits for its window, which opens 2027-01-15 09:00Z") {
		t.Errorf("it is shown as %q", got)
	}
	r.tick(4 * time.Hour)
	if !r.calls(devN(0), "Europe/Berlin", knows) {
		t.Error("it does not wait any more, and is not told")
	}
	r.calls(devN(0), "Europe/Berlin", waits(own, wire.WaitsForWindow))
	if _, err := r.svc.Abort(t.Context(), person("op"), "r1", "not this one"); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Second)
	if r.calls(devN(0), "Europe/Berlin", knows) {
		t.Error("it is told of what was taken back")
	}
}

// Consent is asked of devices that can ask. Who declines is counted apart, and who was not asked yet is neither good nor failed.
func TestWhoDeclinesHasNotFailed(t *testing.T) {
	r := newRoll(t, 4)
	for i := range 3 {
		r.calls(devN(i), "", knows)
	}
	r.calls(devN(2), "Europe/Berlin", knows) // the window too
	spec := twoWavesOf("r1", r)
	spec.Window = &window.Hours{Window: window.Window{Minutes: 24 * 60}}
	spec.Manner, spec.Waves = wire.Consent, []rollout.Wave{{Deadline: 24 * 3600, Soak: 60}}
	r.begin(spec)
	r.tick(0)
	if got := r.commands(devN(3), wire.ActInstall); len(got) != 0 {
		t.Errorf("a device that can ask nobody is told: %v", got)
	}
	c := r.order(devN(0))
	if c.Wire.Manner != wire.Consent {
		t.Errorf("told with manner %q", c.Wire.Manner)
	}
	if w := r.order(devN(2)).Wire; w.Window == nil || w.Manner != wire.Consent || c.Wire.Window != nil || c.Hours == nil {
		t.Errorf("who says where it is is told %+v, and who does not is kept to %+v", w, c)
	}
	for i, zone := range []string{"", "", "Europe/Berlin"} {
		if !r.calls(devN(i), zone, knows) {
			t.Errorf("device %d is not told", i)
		}
		r.calls(devN(i), zone, waits(r.order(devN(i)), wire.WaitsForConsent))
	}
	r.tick(time.Hour)
	if got := r.why(devN(0)); !strings.Contains(got, "waits for consent since 2027-01-15 08:00Z") {
		t.Errorf("it is shown as %q", got)
	}
	r.now = r.now.Add(time.Second)
	r.calls(devN(0), "", knows, func(in *wire.Checkin) {
		in.Results = []wire.Result{{Command: c.Digest[:], Act: wire.ActInstall, Outcome: wire.OutcomeRefused, Code: wire.CodeDeclined, At: uint64(r.now.Unix()), Seq: 1}}
	})
	r.tick(time.Second)
	if n := r.counts("r1"); n.Declined != 1 || n.Failed != 0 || n.Waiting != 2 || n.Devices != 3 {
		t.Errorf("one declined, two were not asked yet: %+v", n)
	}
	if got := r.why(devN(0)); !strings.Contains(got, "declined") {
		t.Errorf("it is shown as %q", got)
	}
	r.phase("r1", rollout.Running, 1)
	r.tick(50 * time.Hour)
	if n := r.counts("r1"); n.Declined != 1 || n.Failed != 2 {
		t.Errorf("two were not asked by the deadline: %+v", n)
	}
}

func TestAMannerIsChecked(t *testing.T) {
	r := newRoll(t, 1)
	for name, change := range map[string]func(s *rollout.Spec){
		"none":               func(s *rollout.Spec) { s.Manner = "gently" },
		"soft for ever":      func(s *rollout.Spec) { s.Manner = wire.Soft },
		"too long":           func(s *rollout.Spec) { s.Manner, s.Grace = wire.Soft, 31*24*3600 },
		"grace of consent":   func(s *rollout.Spec) { s.Manner, s.Grace = wire.Consent, 60 },
		"grace of no manner": func(s *rollout.Spec) { s.Grace = 60 },
	} {
		spec := twoWavesOf("r1", r)
		change(&spec)
		if _, err := r.svc.Create(t.Context(), person("op"), spec); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s is taken: %v", name, err)
		}
	}
}
