package agent_test

import (
	"bytes"
	"crypto"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
)

// A device that belongs to somebody stays theirs, over restarts, whatever the server signs; let go by them, it has forgotten what was theirs.
func TestADeviceDefendsItsOwnerUntilItIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		done := func(what string, c *command) {
			t.Helper()
			if r := d.told(t, c); len(r) != 1 || r[0].Outcome != wire.OutcomeDone {
				t.Fatalf("%s: %+v", what, r)
			}
		}
		done("adopt", w.command(wire.ActAdopt, nil))
		done("set by its owner", w.command(wire.ActConfigure, nil))
		d.keep(t)

		theft := w.adoption("theft", 9)
		disown := func(id string, signer crypto.Signer) *command {
			return w.command(wire.ActDisown, func(c *command) {
				c.cmd.ID = id
				if signer == nil {
					return
				}
				c.warrant = w.append("warrant.issued", threshold(wire.TypeWarrant, must(wire.EncodeWarrant(wire.Warrant{
					ID: id, Product: product, Act: wire.ActDisown, Devices: c.cmd.Devices, Owner: w.ownership().Owner,
					Issued: c.cmd.Issued, Expires: c.cmd.Expires,
				})), []crypto.Signer{signer}))
			})
		}
		for what, c := range map[string]struct {
			c    *command
			want gate.Code
		}{
			"adopted by another":           {theft, gate.Owned},
			"disowned by the server":       {disown("d1", nil), gate.Owned},
			"disowned by a warrant of its": {disown("d2", w.directive), gate.Threshold},
		} {
			if r := d.told(t, c.c); len(r) != 1 || r[0].Outcome != wire.OutcomeRefused || r[0].Code != string(c.want) {
				t.Fatalf("%s: %+v, want %s", what, r, c.want)
			}
		}
		if n := len(d.s.last.Reported); n != 1 || d.s.enrolled != 1 || !d.keeps() {
			t.Fatalf("it still has %d settings, and enrolled %d times", n, d.s.enrolled)
		}
		boots := d.s.last.BootCount // it is switched on for each, and restarts when it is let go
		key := must(d.board.Keys.Signer(hw.KeyLDevID)).Public().(interface{ Equal(x crypto.PublicKey) bool })
		done("let go by its owner", disown("d3", w.owner))
		if in := d.s.last; len(in.Reported) != 0 || in.BootCount != boots+2 || d.s.enrolled != 2 || in.State != "active" {
			t.Fatalf("settings %v, %d starts after %d, enrolled %d times, %s", in.Reported, in.BootCount, boots, d.s.enrolled, in.State)
		}
		if d.keeps() {
			t.Error("what a program kept of its owner's time is there for the next")
		}
		for _, name := range []string{hw.KeyLDevID, hw.KeyLDevID + "-2"} {
			if k, err := d.board.Keys.Signer(name); err == nil && key.Equal(k.Public()) {
				t.Errorf("the key of its owner's time is still there as %s", name)
			}
		}
		if !slices.Contains(d.s.kinds(), "owner.ended") {
			t.Errorf("its log tells of %v", d.s.kinds())
		}
		done("adopted by the next", w.adoption("next", 8))
	})
}

// With the power failing in each operation of letting go: who is told that it is done has nothing of before, settings or files.
func TestWhereverThePowerFailsNothingOfAnOwnerIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		golden := born(t, w, w.publish("1.0.0", 1))
		configure, disown := w.command(wire.ActConfigure, nil), w.command(wire.ActDisown, nil)
		run := func(cut uint64) uint64 {
			b, err := golden.Clone()
			if err != nil {
				t.Fatal(err)
			}
			d := newDevice(t, w, b)
			d.told(t, configure)
			d.keep(t)
			before := b.Power.Ops()
			if cut > 0 {
				b.Power.CutAt(before+cut, virtual.Modes()[cut%4], cut)
			}
			if r := d.told(t, disown); len(r) != 1 || r[0].Outcome != wire.OutcomeDone {
				t.Fatalf("cut %d: %+v", cut, r)
			}
			if len(d.s.last.Reported) != 0 || d.keeps() {
				t.Fatalf("cut %d: settings %v, and its file is there: %v", cut, d.s.last.Reported, d.keeps())
			}
			return b.Power.Ops() - before
		}
		total := run(0)
		if total < 20 {
			t.Fatalf("only %d operations to cut", total)
		}
		for n := uint64(1); n <= total; n++ {
			run(n)
		}
	})
}

// adoption is that of another owner with the same key.
func (w *world) adoption(id string, owner byte) *command {
	return w.command(wire.ActAdopt, func(c *command) {
		o := w.ownership()
		o.Owner = bytes.Repeat([]byte{owner}, 32)
		c.cmd.ID = id
		c.config, c.cmd.Config = wire.SaltConfig(must(wire.EncodeOwnership(o)))
	})
}
