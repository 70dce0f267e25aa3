package agent_test

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
)

// handover sends the device from one world to another.
func (w *world) handover(to *world, owner []byte, also ...crypto.Signer) *command {
	return w.command(wire.ActRehome, func(c *command) {
		sum := wire.BundleDigest(must(wire.EncodeBundle(to.bundle)))
		c.config = to.envelope
		c.warrant = w.append("warrant.issued", threshold(wire.TypeWarrant, must(wire.EncodeWarrant(wire.Warrant{
			ID: "h1", Product: product, Act: wire.ActRehome, Devices: c.cmd.Devices, Owner: owner, Issued: c.cmd.Issued, Expires: c.cmd.Expires,
			Home: &wire.Home{Bundle: sum[:], Server: "https://own"},
		})), append(slices.Clone(w.warrant), also...)))
	})
}

// until powers the device on again and again, until a server has seen enough.
func (d *device) until(t testing.TB, s *server, enough func(in wire.Checkin) bool) {
	t.Helper()
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		seen := false
		s.hook = func(call string) {
			if call == "checkin" && s.last.Nonce != nil && enough(s.last) {
				seen = true
				cancel()
			}
		}
		err := d.power(ctx)
		cancel()
		s.hook = nil
		if seen {
			return
		}
		if err != nil && !errors.Is(err, agent.ErrReset) && !errors.Is(err, hw.ErrPowerCut) {
			t.Fatal(err)
		}
	}
	t.Fatalf("not settled after 20 starts; it called here %v, there %v", d.s.calls, d.away.calls)
}

// at tells the device a command at its new home, and gives what became of it.
func (d *device) at(t testing.TB, c *command) []wire.Result {
	t.Helper()
	d.away.tell = c
	heard := false
	d.until(t, d.away, func(wire.Checkin) bool {
		before := heard
		heard = len(d.away.outcomes(c)) > 0
		return before && heard
	})
	return d.away.outcomes(c)
}

// A device that is handed to another instance is that one's: what it kept of before is gone, and who had it, with all the keys there are, is nobody to it.
func TestADeviceIsHandedToAnotherInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, own := newWorld(), newWorld()
		v1 := w.publish("1.0.0", 1)
		d := newDevice(t, w, born(t, w, v1))
		d.away = newServer(t, own, d.board)
		for what, c := range map[string]*command{"adopt": w.command(wire.ActAdopt, nil), "set": w.command(wire.ActConfigure, nil)} {
			if r := d.told(t, c); len(r) != 1 || r[0].Outcome != wire.OutcomeDone {
				t.Fatalf("%s: %+v", what, r)
			}
		}
		alone := w.handover(own, w.ownership().Owner)
		alone.cmd.ID = "alone"
		if r := d.told(t, alone); len(r) != 1 || r[0].Code != string(gate.Owned) {
			t.Fatalf("given away without its owner: %+v", r)
		}
		key := must(d.board.Keys.Signer(hw.KeyLDevID)).Public().(interface{ Equal(x crypto.PublicKey) bool })
		boots := d.s.last.BootCount
		both := w.handover(own, w.ownership().Owner, w.owner)
		d.s.tell, d.s.saw = both, nil
		d.until(t, d.away, func(wire.Checkin) bool { return true })

		if r := d.s.outcomes(both); len(r) != 1 || r[0].Outcome != wire.OutcomeDone {
			t.Errorf("its former home heard %+v", r)
		}
		in := d.away.last
		if len(in.Reported) != 0 || in.Counter != 0 || in.BootCount <= boots || in.Version != "1.0.0" || in.TreeSize != 0 || len(in.Results) != 0 || d.away.enrolled != 1 {
			t.Errorf("it came as %+v, enrolled %d times", in, d.away.enrolled)
		}
		for _, name := range []string{hw.KeyLDevID, hw.KeyLDevID + "-2"} {
			if k, err := d.board.Keys.Signer(name); err == nil && key.Equal(k.Public()) {
				t.Errorf("the key of its former home is still there as %s", name)
			}
		}
		calls := len(d.s.calls)

		d.away.thief = w // who had it sits on its line, with all of its keys
		stolen := w.command(wire.ActConfigure, func(c *command) { c.cmd.ID = "stolen" })
		if r := d.at(t, stolen); len(r) != 1 || r[0].Outcome != wire.OutcomeRefused || r[0].Code != string(gate.Signature) {
			t.Errorf("commanded by its former home: %+v", r)
		}
		d.away.thief = nil
		late := w.publish("1.1.0", 2)
		own.bytes = w.bytes
		late.entry = own.append("release.published", late.envelope)
		if r := d.at(t, own.command(wire.ActInstall, func(c *command) { c.cmd.ID, c.release = "late", &late })); len(r) != 1 || r[0].Code != string(gate.Threshold) {
			t.Errorf("a release of its former home: %+v", r)
		}
		v2 := own.publish("2.0.0", 3)
		if r := d.at(t, own.command(wire.ActInstall, func(c *command) { c.release = &v2 })); len(r) != 1 || r[0].Outcome != wire.OutcomeDone {
			t.Errorf("a release of its own: %+v", r)
		}
		if in := d.away.last; in.Version != "2.0.0" || len(d.s.calls) != calls {
			t.Errorf("%s runs; it called its former home %d times since", in.Version, len(d.s.calls)-calls)
		}
		for _, k := range d.away.kinds() {
			if k == "owner.adopted" || k == "config.changed" || k == "home.leaving" {
				t.Errorf("its log tells its new home of %s, which was before", k)
			}
		}
	})
}

// With the power failing in each operation: it is whole at the one or the other, and gets there.
func TestWhereverThePowerFailsADeviceIsHereOrThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, own := newWorld(), newWorld()
		golden := born(t, w, w.publish("1.0.0", 1))
		c := w.handover(own, nil)
		run := func(cut uint64) uint64 {
			b, err := golden.Clone()
			if err != nil {
				t.Fatal(err)
			}
			d := newDevice(t, w, b)
			d.away = newServer(t, own, b)
			d.s.tell = c
			d.keep(t)
			if cut > 0 {
				b.Power.CutAt(cut, virtual.Modes()[cut%4], cut)
			}
			d.until(t, d.away, func(in wire.Checkin) bool { return in.Version == "1.0.0" })
			if r := d.s.outcomes(c); len(r) != 1 || r[0].Outcome != wire.OutcomeDone {
				t.Fatalf("cut %d: its former home heard %+v", cut, r)
			}
			if in := d.away.last; in.Counter != 0 || len(in.Reported) != 0 || d.keeps() {
				t.Fatalf("cut %d: it came as %+v", cut, in)
			}
			total, before := b.Power.Ops(), len(d.s.calls)
			if r := d.at(t, own.command(wire.ActAttest, nil)); len(r) != 1 || r[0].Outcome != wire.OutcomeDone || len(d.s.calls) != before {
				t.Fatalf("cut %d: %+v", cut, r)
			}
			return total
		}
		total := run(0)
		if total < 30 {
			t.Fatalf("only %d operations to cut", total)
		}
		for n := uint64(1); n <= total; n++ {
			run(n)
		}
	})
}

// A home that keeps silent, or is gone, keeps no device that was let go.
func TestADeviceLeavesAHomeThatIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, own := newWorld(), newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		d.away = newServer(t, own, d.board)
		c := w.handover(own, nil)
		d.s.tell = c
		d.s.hook = func(call string) {
			if call == "log" && bytes.Contains(d.s.last.Nonce, nil) && d.s.counter > 0 {
				d.s.down.Store(true) // it was told, and nobody is there any more
			}
		}
		d.until(t, d.away, func(wire.Checkin) bool { return true })
		if len(d.s.outcomes(c)) != 0 {
			t.Error("the test did not keep its former home silent")
		}
	})
}
