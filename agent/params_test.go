package agent_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"testing/synctest"

	"github.com/hallmark-iot/hallmark/wire"
)

func interval(most string) wire.Schema {
	return wire.Schema{{Name: "interval", Type: wire.TypeInteger, Min: "1", Max: most}, {Name: "wifi.key", Type: wire.TypeText, Secret: true}}
}

// setting is a command to take settings.
func (w *world) setting(id string, pairs ...string) *command {
	return w.command(wire.ActConfigure, func(c *command) {
		var entries []wire.ConfigEntry
		for i := 0; i < len(pairs); i += 2 {
			entries = append(entries, wire.ConfigEntry{Name: pairs[i], Value: pairs[i+1]})
		}
		c.cmd.ID = id
		c.config, c.cmd.Config = wire.SaltConfig(must(wire.EncodeConfig(entries)))
	})
}

// The device holds what it is told against the schema that is signed with what it runs, and a release against what it was told.
func TestTheDeviceHoldsParametersToTheirSchema(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		v1 := w.publishWith(wire.ModelBlob, "1.0.0", 1, interval("10"))
		narrow, wide := w.publishWith(wire.ModelBlob, "1.1.0", 1, interval("4")), w.publishWith(wire.ModelBlob, "1.2.0", 1, interval("20"))
		d := newDevice(t, w, born(t, w, v1))
		install := func(f firmware) *command {
			return w.command(wire.ActInstall, func(c *command) { c.cmd.ID, c.release = "i-"+f.rel.ID, &f })
		}
		for _, c := range []struct {
			what    string
			c       *command
			outcome wire.Outcome
			code    string
			now     string // the interval, then
		}{
			{"out of bounds", w.setting("s1", "interval", "11"), wire.OutcomeRefused, "configuration", ""},
			{"a name that nobody knows", w.setting("s2", "intervall", "5"), wire.OutcomeRefused, "configuration", ""},
			{"half of it good", w.setting("s3", "interval", "5", "x", "y"), wire.OutcomeRefused, "configuration", ""},
			{"good", w.setting("s4", "interval", "5", "wifi.key", "hunter2"), wire.OutcomeDone, "", "5"},
			{"a release that does not take it", install(narrow), wire.OutcomeRefused, "parameters", "5"},
			{"a release that does", install(wide), wire.OutcomeDone, "", "5"},
			{"more, by the new schema", w.setting("s5", "interval", "15"), wire.OutcomeDone, "", "15"},
		} {
			got := d.told(t, c.c)
			if len(got) != 1 || got[0].Outcome != c.outcome || got[0].Code != c.code {
				t.Fatalf("%s: %+v", c.what, got)
			}
			now := ""
			for _, e := range d.s.last.Reported {
				if e.Name == "interval" {
					now = e.Value
				}
			}
			if now != c.now {
				t.Fatalf("%s: reported %q", c.what, now)
			}
		}
		if d.s.last.Version != "1.2.0" {
			t.Fatalf("runs %s", d.s.last.Version)
		}
		if n := len(d.prog.configured); n == 0 || len(d.prog.configured[n-1]) != 2 || d.prog.configured[n-1][1].Value != "hunter2" {
			t.Fatalf("the program was told %v", d.prog.configured)
		}
		said := must(json.Marshal(d.s.last))
		if bytes.Contains(said, []byte("hunter2")) || !d.s.last.Reported[1].Secret {
			t.Fatalf("the secret was reported: %s", said)
		}
	})
}

// What comes while a release is on its way is held against the release as well, before it is tried.
func TestParametersThatChangeWhileAReleaseComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		narrow := w.publishWith(wire.ModelBlob, "1.1.0", 1, interval("4"))
		d := newDevice(t, w, born(t, w, w.publishWith(wire.ModelBlob, "1.0.0", 1, interval("10"))))
		in, set := w.command(wire.ActInstall, func(c *command) { c.release = &narrow }), w.setting("s1", "interval", "5")
		d.s.tell, d.s.busy = in, 3
		d.s.saw = func(c wire.Checkin) bool {
			if d.s.tell == in && d.s.busy < 3 { // it has begun to fetch
				d.s.tell = set
			}
			return len(d.s.outcomes(in)) > 0 && len(d.s.outcomes(set)) > 0
		}
		if err := d.live(t); err != nil {
			t.Fatal(err)
		}
		if got := d.s.outcomes(set); got[0].Outcome != wire.OutcomeDone {
			t.Fatalf("set: %+v", got)
		}
		if got := d.s.outcomes(in); got[0].Outcome != wire.OutcomeFailed || got[0].Code != "parameters" || d.s.last.Version != "1.0.0" {
			t.Fatalf("installed: %+v, runs %s", got, d.s.last.Version)
		}
	})
}
