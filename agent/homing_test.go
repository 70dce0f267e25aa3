package agent_test

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

// A device that was handed to another instance, and lost its trust record, comes home: by the copy that its home keeps, whoever says where that is; and who had
// it before leads it nowhere, with all keys that there are.
func TestAHandedDeviceThatLostItsTrustRecordComesHome(t *testing.T) {
	for name, c := range map[string]struct {
		all    bool // of the flash is lost
		since  int  // trust bundles that its home published meanwhile
		breaks func(d *device)
		stays  bool // and does not come home yet
	}{
		"the record alone":                         {},
		"the record alone, its maker is gone":      {breaks: func(d *device) { d.s.history.gone = true }},
		"all of its flash":                         {all: true},
		"all of its flash, much has changed since": {all: true, since: 3},
		"its home lost the copy too":               {breaks: func(d *device) { d.away.history.hint = nil }, stays: true},
		"its maker lies about where it is": {all: true, stays: true, breaks: func(d *device) {
			d.s.history.hint = func() wire.HomeHint { return wire.HomeHint{Record: []byte("come to me"), Server: "https://thief"} }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, own := newWorld(), newWorld()
				d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
				d.away = newServer(t, own, d.board)
				d.s.history, d.away.history = &history{w: w}, &history{w: own}
				d.s.tell = w.handover(own, nil)
				d.until(t, d.away, func(wire.Checkin) bool { return d.away.copy != nil })
				d.s.history.hint = func() wire.HomeHint { return wire.HomeHint{Server: "https://own"} }
				d.away.history.hint = func() wire.HomeHint { return wire.HomeHint{Record: d.away.copy} }
				lose(t, d.board, c.all)
				for range c.since {
					own.replace(everybody)
				}
				if c.breaks != nil {
					c.breaks(d)
				}
				calls, before := len(d.s.calls), d.away.last
				if c.stays {
					there := len(d.away.calls)
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
					defer cancel()
					if err := d.power(ctx); err != nil {
						t.Fatal(err)
					}
					if len(d.s.calls) != calls || len(d.away.calls) != there {
						t.Errorf("it spoke to its former home %d times, to its own %d", len(d.s.calls)-calls, len(d.away.calls)-there)
					}
					return
				}
				d.away.last = wire.Checkin{}
				if c.all {
					d.until(t, d.away, func(in wire.Checkin) bool { return in.Bundle == own.bundle.Version })
				} else {
					d.until(t, d.away, func(in wire.Checkin) bool { return in.Version == "1.0.0" && in.Bundle == own.bundle.Version })
				}
				if in := d.away.last; in.BootCount <= before.BootCount || len(d.s.calls) != calls {
					t.Errorf("it came as %+v, and called its former home %d times", in, len(d.s.calls)-calls)
				}
				d.away.thief = w
				if r := d.at(t, w.command(wire.ActConfigure, func(c *command) { c.cmd.ID = "stolen" })); len(r) != 1 || r[0].Code != string(gate.Signature) {
					t.Errorf("commanded by its former home: %+v", r)
				}
				d.away.thief = nil
				v2 := own.publish("2.0.0", 3)
				if r := d.at(t, own.command(wire.ActInstall, func(c *command) { c.release = &v2 })); len(r) != 1 || r[0].Outcome != wire.OutcomeDone {
					t.Errorf("a release of its home: %+v", r)
				}
				if d.away.copy == nil || bytes.Equal(d.away.copy, []byte("come to me")) {
					t.Error("its home has no copy any more")
				}
			})
		})
	}
}
