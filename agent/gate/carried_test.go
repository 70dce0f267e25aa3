package gate_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

// carried is what a carton holds for the device.
func (w *world) carried(o *order) wire.Delivery {
	d := w.deliver(o)
	d.Directive = must(wire.Sign1(wire.TypeOffline, must(wire.EncodeOfflineDirective(wire.OfflineDirective{
		Device: o.dir.Device, Counter: o.dir.Counter, Command: o.dir.Command, Issued: o.dir.Issued, Expires: o.dir.Expires,
	})), o.dirSigner))
	return d
}

func (w *world) alone() *order {
	o := w.order(wire.ActInstall)
	o.cmd.Alone = true
	return o
}

func TestAnInstallIsBroughtByHand(t *testing.T) {
	w := newWorld(t)
	p, err := gate.Carried(w.state(), w.carried(w.alone()), now)
	if err != nil {
		t.Fatal(err)
	}
	if p.Act != wire.ActInstall || p.Counter != 8 || !p.Command.Alone || p.Release.Version != "1.1.0" || p.Tree.Size != uint64(len(w.entries)) {
		t.Fatalf("plan %+v", p)
	}
}

// TestRefusalsOfWhatIsBroughtByHand changes one thing of a carton that is good otherwise; everything is signed after the change.
func TestRefusalsOfWhatIsBroughtByHand(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name string
		want gate.Code
		do   func(w *world, s *gate.State, o *order)
	}{
		{"decommissioned", gate.Ended, func(_ *world, s *gate.State, _ *order) { s.Lifecycle = wire.LifecycleDecommissioned }},
		{"in assembly", gate.NotSecured, func(_ *world, s *gate.State, _ *order) { s.Lifecycle = wire.LifecycleAssembly }},
		{"by a stranger", gate.Signature, func(_ *world, _ *gate.State, o *order) { o.dirSigner = keys(t, 1)[0] }},
		{"for another device", gate.NotForMe, func(_ *world, _ *gate.State, o *order) { o.dir.Device = other }},
		{"an old carton again", gate.Replayed, func(_ *world, s *gate.State, _ *order) { s.Counter = 8 }},
		{"counter far ahead", gate.CounterGap, func(_ *world, _ *gate.State, o *order) { o.dir.Counter = 8 + wire.MaxCounterGap }},
		{"over", gate.Expired, func(_ *world, _ *gate.State, o *order) { o.dir.Expires = at(0) }},
		{"the device's clock is behind", gate.Future, func(w *world, _ *gate.State, o *order) {
			w.bundle.Quorum, o.dir.Issued, o.dir.Expires = 0, at(day), at(2*day)
		}},
		{"the device's clock is ahead", gate.StaleCheckpoint, func(w *world, s *gate.State, _ *order) {
			s.Bundle.Offline, w.cosigned = 30*24*3600, now.Add(-31*day)
		}},
		{"older than the trust bundle lets what is brought by hand be", gate.StaleCheckpoint, func(w *world, s *gate.State, _ *order) {
			s.Bundle.Offline, w.cosigned = 30*24*3600, now.Add(-30*day-time.Second)
		}},
		{"older than all may be, where the trust bundle does not say", gate.StaleCheckpoint, func(w *world, _ *gate.State, _ *order) { w.cosigned = now.Add(-2 * time.Hour) }},
		{"a command that is not for hands", gate.NotAlone, func(_ *world, _ *gate.State, o *order) { o.cmd.Alone = false }},
		{"another command", gate.OtherCommand, func(_ *world, _ *gate.State, o *order) {
			o.dir.Command, o.keepDigest = bytes.Repeat([]byte{1}, 32), true
		}},
		{"another product", gate.OtherProduct, func(_ *world, _ *gate.State, o *order) { o.cmd.Product = "kettle" }},
		{"not in the command's set", gate.NotInSet, func(_ *world, _ *gate.State, o *order) { o.devices = []string{other, "3"} }},
		{"not in the log", gate.NotLogged, func(_ *world, _ *gate.State, o *order) { o.cmdKind = "command.cancelled" }},
		{"one witness of two", gate.NotWitnessed, func(w *world, _ *gate.State, _ *order) { w.cosigner = 1 }},
		{"a smaller log", gate.ShrunkLog, func(_ *world, s *gate.State, _ *order) { s.Trees[0].Size = 100 }},
		{"one approver of two", gate.Threshold, func(w *world, _ *gate.State, o *order) { o.relSigners = w.release[:1] }},
		{"another release", gate.OtherRelease, func(_ *world, _ *gate.State, o *order) {
			o.cmd.Release, o.keepRelease = bytes.Repeat([]byte{1}, 32), true
		}},
		{"for other hardware", gate.Hardware, func(_ *world, s *gate.State, _ *order) { s.Hardware = "B" }},
		{"below the fuses", gate.SecurityCounter, func(_ *world, s *gate.State, _ *order) { s.Fuses = 4 }},
		{"closed by a trust bundle that the device has met", gate.Closed, func(_ *world, s *gate.State, _ *order) { s.Bundle.Install = 4 }},
		{"not newer", gate.OlderVersion, func(_ *world, s *gate.State, _ *order) { s.Current.Release.Version = "1.1.0" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			o := w.alone()
			s := w.state()
			c.do(w, &s, o)
			if w.bundle.Quorum == 0 {
				s.Bundle.Quorum = 0
			}
			_, err := gate.Carried(s, w.carried(o), now)
			if r, ok := errors.AsType[*gate.Refusal](err); !ok || r.Code != c.want {
				t.Fatalf("%v, want %s", err, c.want)
			}
		})
	}
}

// TestProofsThatAreBroughtMayBeAsOldAsTheBundleSays: and no proof that comes over a line is older than ever for that.
func TestProofsThatAreBroughtMayBeAsOldAsTheBundleSays(t *testing.T) {
	w := newWorld(t)
	w.bundle.Offline = 30 * 24 * 3600
	o := w.alone()
	o.cmd.Issued, o.cmd.Expires = at(-20*24*time.Hour), at(time.Hour)
	o.dir.Issued, o.dir.Expires = at(-20*24*time.Hour), at(time.Hour)
	w.cosigned = now.Add(-20 * 24 * time.Hour)
	if _, err := gate.Carried(w.state(), w.carried(o), now); err != nil {
		t.Errorf("by hand: %v", err)
	}
	o.dir.Issued = at(0)
	_, err := gate.Decide(w.state(), w.deliver(o), nonce(), now)
	if r, ok := errors.AsType[*gate.Refusal](err); !ok || r.Code != gate.StaleCheckpoint {
		t.Errorf("over a line: %v", err)
	}
}

// TestNeitherDirectiveStandsForTheOther: a thief of what was signed for one way has nothing for the other.
func TestNeitherDirectiveStandsForTheOther(t *testing.T) {
	w := newWorld(t)
	o := w.alone()
	line := w.deliver(o)
	if _, err := gate.Carried(w.state(), line, now); err == nil {
		t.Error("a directive with a nonce was taken out of a carton")
	}
	if _, err := gate.Decide(w.state(), w.carried(o), nonce(), now); err == nil {
		t.Error("a directive without a nonce was taken over a line")
	}
}

// TestNoMutationOfWhatIsBroughtIsTaken flips each bit of all that a carton has for a device.
func TestNoMutationOfWhatIsBroughtIsTaken(t *testing.T) {
	w := newWorld(t)
	s, d := w.state(), w.carried(w.alone())
	parts := map[string]*[]byte{"directive": &d.Directive, "command": &d.Command.Entry, "release": &d.Release.Entry, "log": &d.Command.Proof.LogSignature}
	for name, p := range parts {
		good := *p
		sum := sha256.Sum256(good)
		for i := range good {
			*p = bytes.Clone(good)
			(*p)[i] ^= 1 << (i % 8)
			if _, err := gate.Carried(s, d, now); err == nil {
				t.Fatalf("%s %x: taken with byte %d changed", name, sum, i)
			}
		}
		*p = good
	}
	if _, err := gate.Carried(s, d, now); err != nil {
		t.Fatal(err)
	}
}
