package store_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/window"
)

// calls has a device check in from a zone, and reports whether it is given the release.
func (r *roll) calls(id, zone string, more ...func(in *wire.Checkin)) bool {
	r.t.Helper()
	d, err := r.db.Devices().Device(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	in := wire.Checkin{
		Nonce: bytes.Repeat([]byte{9}, 32), State: "active", BootCount: r.boots[id], Healthy: true, Release: d.Twin.Release, Version: d.Twin.Version,
		Counter: d.Counter, Bundle: 1, Zone: zone,
	}
	for _, f := range more {
		f(&in)
	}
	out, err := r.devices.Checkin(r.t.Context(), access.DeviceCaller(id), id, in)
	if err != nil {
		r.t.Fatal(err)
	}
	return len(out.Delivery) > 0
}

// A device is given the release in the hours of its own day, and has its time from their end on.
func TestARolloutKeepsToTheHoursOfEachDevice(t *testing.T) {
	r := newRoll(t, 3)
	spec := twoWavesOf("r1", r)
	spec.Window = &window.Hours{Window: window.Window{From: 120, Minutes: 240}, Zone: "+02:00"}
	spec.Waves = []rollout.Wave{{Deadline: 3600, MaxNoShows: 2}}
	r.now = time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
	r.begin(spec)
	r.tick(0)
	zones := []string{"America/New_York", "", "Atlantis"} // opens 06:00Z, 00:00Z, and 00:00Z by the rollout's own zone
	look := func(at string, want ...bool) {
		t.Helper()
		now, err := time.Parse("2006-01-02 15:04", at)
		if err != nil {
			t.Fatal(err)
		}
		r.tick(now.Sub(r.now))
		for i, zone := range zones {
			if got := r.calls(devN(i), zone); got != want[i] {
				t.Errorf("at %s device %d (%q) is given it: %t, want %t", at, i, zone, got, want[i])
			}
		}
	}
	look("2026-07-15 12:01", false, false, false)
	_, views, err := r.svc.Get(t.Context(), person("op"), "r1")
	if err != nil {
		t.Fatal(err)
	}
	whys := ""
	for _, v := range views {
		whys += v.Device[len(v.Device)-1:] + " " + v.Why + "\n"
	}
	for _, want := range []string{"its window opens 2026-07-16 02:00 -04:00", "its window opens 2026-07-16 02:00 +02:00"} {
		if !strings.Contains(whys, want) {
			t.Errorf("nobody is shown with %q:\n%s", want, whys)
		}
	}
	look("2026-07-15 23:59", false, false, false)
	look("2026-07-16 00:00", false, true, true)
	look("2026-07-16 04:00", false, false, false) // theirs has closed
	if c := r.phase("r1", rollout.Running, 1).Last; c.Failed > 0 {
		t.Errorf("they had their time from noon on: %+v", c)
	}
	look("2026-07-16 05:01", false, false, false) // an hour after it closed
	r.tick(time.Second)
	if c := r.counts("r1"); c.NoShows != 2 || c.Waiting != 1 {
		t.Errorf("two had their hours, and an hour more: %+v", c)
	}
	look("2026-07-16 06:00", true, false, false)

	for _, h := range []window.Hours{{}, {Window: window.Window{Minutes: 60}, Zone: "Atlantis"}} {
		spec := twoWavesOf("r2", r)
		spec.Window = &h
		if _, err := r.svc.Create(t.Context(), person("op"), spec); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v is taken: %v", h, err)
		}
	}
}

// Who has a bad release is sent back at any hour.
func TestTheWayBackWaitsForNoWindow(t *testing.T) {
	r := newRoll(t, 2)
	spec := twoWavesOf("r1", r)
	spec.Waves = []rollout.Wave{{Deadline: 3600, MaxFailures: 0, Soak: 60}}
	spec.Window = &window.Hours{Window: window.Window{From: 60 * 12, Minutes: 1}}
	r.now = time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
	r.begin(spec)
	r.tick(0)
	r.now = r.now.Add(time.Second)
	r.installs(devN(0))
	r.tick(5 * time.Minute)
	if _, err := r.svc.Halt(t.Context(), person("op"), "r1", "it hums"); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Second)
	back := r.commands(devN(0), wire.ActRollback)
	if len(back) != 1 {
		t.Fatalf("it is told to go back by %v", back)
	}
	if c, err := r.db.Devices().Command(t.Context(), back[0]); err != nil || c.Hours != nil {
		t.Errorf("the way back has hours %+v (%v)", c.Hours, err)
	}
}
