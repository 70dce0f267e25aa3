package agent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

// changed publishes a release like f, with a change.
func (w *world) changed(f firmware, change func(r *wire.Release)) firmware {
	change(&f.rel)
	payload := must(wire.EncodeRelease(f.rel))
	f.envelope, f.digest = threshold(wire.TypeRelease, payload, w.release), wire.ReleaseDigest(payload)
	f.entry = w.append("release.published", f.envelope)
	return f
}

// judges tells the device to bring a release, and gives the code of its refusal; empty: it runs.
func (d *device) judges(t *testing.T, id string, act wire.Act, f firmware) string {
	t.Helper()
	got := d.told(t, d.s.w.command(act, func(c *command) { c.cmd.ID, c.release = id, &f }))
	if len(got) != 1 {
		t.Fatalf("%s of %s: %+v", act, f.rel.Version, got)
	}
	if got[0].Outcome == wire.OutcomeDone {
		if d.lives(t, 1); d.s.heard().Version != f.rel.Version {
			t.Fatalf("%s runs, not %s", d.s.heard().Version, f.rel.Version)
		}
	}
	return got[0].Code
}

// A device that was away for two years, with its certificate run out and everybody replaced five times, comes back to releases of which some were closed and the newest
// is not for what it runs. It catches up with its trust first, takes nothing that was closed in between, not by the command that was good when it left, and goes by
// the release that comes between.
func TestAktualizr1185AwayForTwoYears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		first := w.publish("1.0.0", 2)
		d := newDevice(t, w, born(t, w, first))
		d.s.strict, d.s.history, d.s.poll = true, &history{w: w}, 10*time.Minute
		d.lives(t, 2)
		time.Sleep(2 * 365 * 24 * time.Hour)
		for n := range 5 {
			w.replace(func(w *world) {
				everybody(w)
				if n == 3 { // what has security counter 2 is closed
					w.bundle.Install = 3
				}
			})
		}
		flawed := w.publish("1.1.0", 2)
		between := w.publish("1.2.0", 3)
		newest := w.changed(w.publish("2.0.0", 3), func(r *wire.Release) { r.Over = []wire.VersionRange{{From: "1.2.0"}} })
		stop := d.start(t)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if in := d.s.heard(); in.Bundle != 6 || in.Version != "1.0.0" {
			t.Fatalf("it is at bundle %d and runs %q: what was closed goes on", in.Bundle, in.Version)
		}
		d.s.poll = time.Second
		for i, c := range []struct {
			act  wire.Act
			to   firmware
			want gate.Code
		}{
			{wire.ActInstall, flawed, gate.Closed},
			{wire.ActReprovide, flawed, gate.Closed},
			{wire.ActInstall, newest, gate.SteppingStone},
			{wire.ActReprovide, newest, gate.SteppingStone},
			{wire.ActInstall, between, ""},
			{wire.ActInstall, newest, ""},
		} {
			if got := d.judges(t, string(rune('a'+i)), c.act, c.to); got != string(c.want) {
				t.Errorf("%s of %s: %q, want %q", c.act, c.to.rel.Version, got, c.want)
			}
		}
	})
}

// An older version is a downgrade however well it is signed, and whatever its security counter: no order brings it back, but a way back that the approvers of what
// runs have left open; and below the fuses not that one.
func TestMcuboot1708ASignedDowngradeIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		v1 := w.publish("1.0.0", 1)
		d := newDevice(t, w, born(t, w, v1))
		v2 := w.publish("2.0.0", 1)
		higher := w.publish("1.5.0", 9) // an older version with a higher counter is older
		v3 := w.changed(w.publish("3.0.0", 2), func(r *wire.Release) { r.RollbackTo = [][]byte{v2.digest[:]} })
		for i, c := range []struct {
			act  wire.Act
			to   firmware
			want gate.Code
		}{
			{wire.ActInstall, v2, ""},
			{wire.ActInstall, v1, gate.OlderVersion},
			{wire.ActReprovide, v1, gate.OlderVersion},
			{wire.ActRollback, v1, gate.OlderVersion},
			{wire.ActInstall, higher, gate.OlderVersion},
			{wire.ActReprovide, higher, gate.OlderVersion},
			{wire.ActInstall, v3, ""},
			{wire.ActRollback, v2, gate.SecurityCounter}, // the confirmation has burned 2
			{wire.ActInstall, v2, gate.SecurityCounter},
		} {
			if got := d.judges(t, string(rune('a'+i)), c.act, c.to); got != string(c.want) {
				t.Errorf("%s of %s: %q, want %q", c.act, c.to.rel.Version, got, c.want)
			}
		}
	})
}
