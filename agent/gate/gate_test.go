package gate_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

var allActs = []wire.Act{
	wire.ActAttest, wire.ActConfigure, wire.ActQuarantine, wire.ActRelease, wire.ActDormant, wire.ActWake, wire.ActReset,
	wire.ActInstall, wire.ActRollback, wire.ActReprovide, wire.ActBundle, wire.ActWipe, wire.ActUnlock,
	wire.ActAdopt, wire.ActDisown,
}

// valid makes the state in which act is good; a rollback needs a plan.
func valid(w *world, act wire.Act) (gate.State, *order) {
	s, o := w.state(), w.order(act)
	if act == wire.ActRollback {
		old := release("0.9.0", 2)
		o.rel = &old
		d := wire.ReleaseDigest(must(wire.EncodeRelease(old)))
		s.Current.Release.RollbackTo = [][]byte{d[:]}
		s.Ways = gate.Ways{To: s.Current.Digest[:], At: at(-time.Hour)}
	}
	return s, o
}

func TestEveryActIsAcceptedWithItsSignatures(t *testing.T) {
	for _, act := range allActs {
		t.Run(string(act), func(t *testing.T) {
			w := newWorld(t)
			s, o := valid(w, act)
			p, err := gate.Decide(s, w.deliver(o), nonce(), now)
			if err != nil {
				t.Fatal(err)
			}
			if p.Act != act || p.Counter != 8 || p.Tree.Size != uint64(len(w.entries)) || p.Cause.Origin != origin {
				t.Fatalf("plan %+v", p)
			}
			if (p.Release != nil) != wire.NeedsRelease(act) || (p.Warrant != nil) != wire.NeedsWarrant(act) ||
				(p.Bundle != nil) != (act == wire.ActBundle) {
				t.Fatalf("plan %+v", p)
			}
			if o.cmd.TTL > 0 && !p.Until.Equal(now.Add(10*time.Minute)) {
				t.Fatalf("ends at %s", p.Until)
			}
		})
	}
}

// TestRefusals changes one thing of a delivery that is good otherwise; everything is signed after the change.
func TestRefusals(t *testing.T) {
	day := 24 * time.Hour
	type change func(w *world, s *gate.State, o *order)
	for _, c := range []struct {
		name string
		act  wire.Act
		want gate.Code
		do   change
	}{
		{"device decommissioned", wire.ActAttest, gate.Ended, func(_ *world, s *gate.State, _ *order) { s.Lifecycle = wire.LifecycleDecommissioned }},
		{"device in assembly", wire.ActAttest, gate.NotSecured, func(_ *world, s *gate.State, _ *order) { s.Lifecycle = wire.LifecycleAssembly }},
		{"life cycle unknown", wire.ActAttest, gate.NotSecured, func(_ *world, s *gate.State, _ *order) { s.Lifecycle = 0 }},
		{"directive by a stranger", wire.ActAttest, gate.Signature, func(_ *world, _ *gate.State, o *order) { o.dirSigner = keys(t, 1)[0] }},
		{"directive by a release key", wire.ActAttest, gate.Signature, func(w *world, _ *gate.State, o *order) { o.dirSigner = w.release[0] }},
		{"bundle asks for two directive keys", wire.ActAttest, gate.Signature, func(w *world, s *gate.State, _ *order) {
			s.Bundle.Directive = role(t, 2, w.directive, keys(t, 1)[0])
		}},
		{"for another device", wire.ActAttest, gate.NotForMe, func(_ *world, _ *gate.State, o *order) { o.dir.Device = other }},
		{"another nonce", wire.ActAttest, gate.WrongNonce, func(_ *world, _ *gate.State, o *order) { o.dir.Nonce = bytes.Repeat([]byte{1}, 32) }},
		{"counter again", wire.ActAttest, gate.Replayed, func(_ *world, s *gate.State, _ *order) { s.Counter = 8 }},
		{"counter behind", wire.ActAttest, gate.Replayed, func(_ *world, s *gate.State, _ *order) { s.Counter = 9 }},
		{"counter used up", wire.ActAttest, gate.CounterGap, func(_ *world, _ *gate.State, o *order) { o.dir.Counter = 1<<64 - 1 }},
		{"counter just too far ahead", wire.ActAttest, gate.CounterGap, func(_ *world, s *gate.State, o *order) {
			o.dir.Counter = s.Counter + wire.MaxCounterGap + 1
		}},
		{"directive expired", wire.ActAttest, gate.Expired, func(_ *world, _ *gate.State, o *order) { o.dir.Expires = at(0) }},
		{"directive from the future", wire.ActAttest, gate.Future, func(_ *world, _ *gate.State, o *order) {
			o.dir.Issued, o.dir.Expires = at(day), at(2*day)
		}},
		{"command of another log", wire.ActAttest, gate.NotLogged, func(_ *world, s *gate.State, _ *order) { s.Bundle.Control.Origin = "x" }},
		{"log key unknown", wire.ActAttest, gate.NotLogged, func(_ *world, s *gate.State, _ *order) { s.Bundle.Control.Key = make([]byte, 32) }},
		{"entry of another kind", wire.ActAttest, gate.NotLogged, func(_ *world, _ *gate.State, o *order) { o.cmdKind = "command.cancelled" }},
		{"one witness of two", wire.ActAttest, gate.NotWitnessed, func(w *world, _ *gate.State, _ *order) { w.cosigner = 1 }},
		{"no witness", wire.ActAttest, gate.NotWitnessed, func(w *world, _ *gate.State, _ *order) { w.cosigner = 0 }},
		{"cosigned too long ago", wire.ActAttest, gate.StaleCheckpoint, func(w *world, _ *gate.State, _ *order) { w.cosigned = now.Add(-2 * time.Hour) }},
		{"cosigned in the future", wire.ActAttest, gate.Future, func(w *world, _ *gate.State, _ *order) { w.cosigned = now.Add(time.Hour) }},
		{"log has shrunk", wire.ActAttest, gate.ShrunkLog, func(_ *world, s *gate.State, _ *order) { s.Trees[0].Size = 100 }},
		{"command by a stranger", wire.ActAttest, gate.Signature, func(_ *world, _ *gate.State, o *order) { o.cmdSigner = keys(t, 1)[0] }},
		{"directive for another command", wire.ActAttest, gate.OtherCommand, func(_ *world, _ *gate.State, o *order) {
			o.dir.Command, o.keepDigest = bytes.Repeat([]byte{1}, 32), true
		}},
		{"directive for another act", wire.ActAttest, gate.ActMismatch, func(_ *world, _ *gate.State, o *order) { o.dir.Act = wire.ActReset }},
		{"command for another product", wire.ActAttest, gate.OtherProduct, func(_ *world, _ *gate.State, o *order) { o.cmd.Product = "kettle" }},
		{"not in the command's set", wire.ActAttest, gate.NotInSet, func(_ *world, _ *gate.State, o *order) { o.devices = []string{other, "3"} }},
		{"command expired", wire.ActAttest, gate.Expired, func(_ *world, _ *gate.State, o *order) { o.cmd.Expires = at(-time.Second) }},
		{"command from the future", wire.ActAttest, gate.Future, func(_ *world, _ *gate.State, o *order) { o.cmd.Issued, o.cmd.Expires = at(day), at(2*day) }},
		{"unknown act needs a warrant", "explode", gate.WarrantMissing, func(_ *world, _ *gate.State, o *order) { o.war = nil }},
		{"unknown act with a warrant is still unknown to the device", "explode", gate.UnknownAct, func(*world, *gate.State, *order) {}},
		{"quarantine without end", wire.ActQuarantine, gate.Malformed, func(_ *world, _ *gate.State, o *order) { o.cmd.TTL = 0 }},
		{"quarantine too long", wire.ActQuarantine, gate.Malformed, func(_ *world, _ *gate.State, o *order) { o.cmd.TTL = wire.MaxGuardedTTL + 1 }},
		{"configuration is none", wire.ActConfigure, gate.BadConfig, func(_ *world, _ *gate.State, o *order) { o.config, o.cmd.Config = wire.SaltConfig([]byte("x")) }},
		{"configuration did not come", wire.ActConfigure, gate.BadConfig, func(_ *world, _ *gate.State, o *order) { o.config = nil }},
		{"configuration is another than was commanded", wire.ActConfigure, gate.BadConfig, func(_ *world, _ *gate.State, o *order) {
			o.config, _ = wire.SaltConfig(must(wire.EncodeConfig([]wire.ConfigEntry{{Name: "interval", Value: "0"}})))
		}},
		{"configuration has another salt than was commanded", wire.ActConfigure, gate.BadConfig, func(_ *world, _ *gate.State, o *order) { o.config[0] ^= 1 }},
		{"configuration without its digest in the command", wire.ActConfigure, gate.Malformed, func(_ *world, _ *gate.State, o *order) { o.cmd.Config = nil }},
		{"configuration where nothing runs", wire.ActConfigure, gate.BadConfig, func(_ *world, s *gate.State, _ *order) { s.Current = nil }},
		{"configuration of a parameter that what runs does not have", wire.ActConfigure, gate.BadConfig, func(_ *world, s *gate.State, _ *order) {
			s.Current.Release.Parameters = wire.Schema{{Name: "rate", Type: wire.TypeInteger}}
		}},
		{"configuration out of bounds", wire.ActConfigure, gate.BadConfig, func(_ *world, s *gate.State, _ *order) {
			s.Current.Release.Parameters = wire.Schema{{Name: "interval", Type: wire.TypeInteger, Max: "4"}}
		}},
		{"configuration of what the factory laid down", wire.ActConfigure, gate.BadConfig, func(_ *world, s *gate.State, _ *order) {
			s.Current.Release.Parameters = wire.Schema{{Name: "interval", Type: wire.TypeInteger, Basic: true}}
		}},
		{"release that what the device was told does not fit", wire.ActInstall, gate.Parameters, func(_ *world, s *gate.State, o *order) {
			s.Params = []wire.ConfigEntry{{Name: "interval", Value: "5"}}
			o.rel.Parameters = wire.Schema{{Name: "interval", Type: wire.TypeInteger, Max: "4"}}
		}},
		{"install without a release", wire.ActInstall, gate.ReleaseMissing, func(_ *world, _ *gate.State, o *order) {
			d := sha256.Sum256(nil)
			o.cmd.Release, o.rel = d[:], nil
		}},
		{"one release signature of two", wire.ActInstall, gate.Threshold, func(_ *world, _ *gate.State, o *order) { o.relSigners = o.relSigners[:1] }},
		{"a stranger as second signer", wire.ActInstall, gate.Threshold, func(w *world, _ *gate.State, o *order) {
			o.relSigners = append(w.release[:1:1], keys(t, 1)...)
		}},
		{"the online key as second signer", wire.ActInstall, gate.Threshold, func(w *world, _ *gate.State, o *order) {
			o.relSigners = append(w.release[:1:1], w.directive)
		}},
		{"another release than the command's", wire.ActInstall, gate.OtherRelease, func(_ *world, _ *gate.State, o *order) {
			o.cmd.Release, o.keepRelease = bytes.Repeat([]byte{1}, 32), true
		}},
		{"release of another product", wire.ActInstall, gate.OtherProduct, func(_ *world, _ *gate.State, o *order) { o.rel.Product = "kettle" }},
		{"other hardware", wire.ActInstall, gate.Hardware, func(_ *world, _ *gate.State, o *order) { o.rel.Hardware = []string{"B"} }},
		{"device programmed once", wire.ActInstall, gate.ModelOTP, func(_ *world, s *gate.State, _ *order) { s.Model = wire.ModelOTP }},
		{"release programmed once", wire.ActInstall, gate.ModelOTP, func(_ *world, _ *gate.State, o *order) { o.rel.Model = wire.ModelOTP }},
		{"other update model", wire.ActInstall, gate.OtherModel, func(_ *world, _ *gate.State, o *order) { o.rel.Model = wire.ModelAsset }},
		{"components that do not go together", wire.ActInstall, gate.Incompatible, func(_ *world, _ *gate.State, o *order) {
			c := o.rel.Components[0]
			c.Name, c.Requires = "other", []wire.Requirement{{Component: o.rel.Components[0].Name, From: "99.0.0"}}
			o.rel.Components = append(slices.Clone(o.rel.Components), c)
		}},
		{"programs that wait for each other", wire.ActInstall, gate.Malformed, func(_ *world, _ *gate.State, o *order) {
			one, two := o.rel.Components[0], o.rel.Components[0]
			two.Name, two.After, one.After = "other", []string{one.Name}, []string{"other"}
			o.rel.Components = []wire.Component{one, two}
		}},
		{"a component for other hardware", wire.ActInstall, gate.Incompatible, func(_ *world, _ *gate.State, o *order) {
			o.rel.Components = slices.Clone(o.rel.Components)
			o.rel.Components[0].Hardware = []string{"B"}
		}},
		{"counter below the fuses", wire.ActInstall, gate.SecurityCounter, func(_ *world, _ *gate.State, o *order) { o.rel.Counter = 1 }},
		{"counter below the floor", wire.ActInstall, gate.SecurityCounter, func(_ *world, s *gate.State, _ *order) { s.Bundle.Floor = 9 }},
		{"closed", wire.ActInstall, gate.Closed, func(_ *world, s *gate.State, _ *order) { s.Bundle.Install = 4 }},
		{"closed, by a reprovision", wire.ActReprovide, gate.Closed, func(_ *world, s *gate.State, _ *order) { s.Bundle.Install = 4 }},
		{"closed, by a way back", wire.ActRollback, gate.Closed, func(_ *world, s *gate.State, _ *order) { s.Bundle.Install = 3 }},
		{"over another version", wire.ActInstall, gate.SteppingStone, func(_ *world, _ *gate.State, o *order) { o.rel.Over = []wire.VersionRange{{From: "1.0.1"}} }},
		{"over a version above", wire.ActInstall, gate.SteppingStone, func(_ *world, _ *gate.State, o *order) { o.rel.Over = []wire.VersionRange{{Below: "1.0.0"}} }},
		{"reprovision over another version", wire.ActReprovide, gate.SteppingStone, func(_ *world, _ *gate.State, o *order) {
			o.rel.Over = []wire.VersionRange{{From: "1.0.1"}}
		}},
		{"older version", wire.ActInstall, gate.OlderVersion, func(_ *world, _ *gate.State, o *order) { o.rel.Version = "0.9.0" }},
		{"same version", wire.ActInstall, gate.OlderVersion, func(_ *world, _ *gate.State, o *order) { o.rel.Version = "1.0.0" }},
		{"rollback outside the plan", wire.ActRollback, gate.OlderVersion, func(_ *world, s *gate.State, _ *order) { s.Current.Release.RollbackTo = nil }},
		{"rollback below the fuses", wire.ActRollback, gate.SecurityCounter, func(_ *world, s *gate.State, _ *order) { s.Fuses = 3 }},
		{"rollback from nothing", wire.ActRollback, gate.OlderVersion, func(_ *world, s *gate.State, _ *order) { s.Current = nil }},
		{"reprovision to something older", wire.ActReprovide, gate.OlderVersion, func(_ *world, _ *gate.State, o *order) { o.rel.Version = "0.9.0" }},
		{"wipe without a warrant", wire.ActWipe, gate.WarrantMissing, func(_ *world, _ *gate.State, o *order) { o.war = nil }},
		{"debug unlock without a warrant", wire.ActUnlock, gate.WarrantMissing, func(_ *world, _ *gate.State, o *order) { o.war = nil }},
		{"one warrant signature of two", wire.ActWipe, gate.Threshold, func(_ *world, _ *gate.State, o *order) { o.warSigners = o.warSigners[:1] }},
		{"warrant by release keys", wire.ActWipe, gate.Threshold, func(w *world, _ *gate.State, o *order) { o.warSigners = w.release[:2] }},
		{"warrant for another act", wire.ActWipe, gate.ActMismatch, func(_ *world, _ *gate.State, o *order) { o.war.Act = wire.ActUnlock }},
		{"warrant for another product", wire.ActWipe, gate.OtherProduct, func(_ *world, _ *gate.State, o *order) { o.war.Product = "kettle" }},
		{"warrant for other devices", wire.ActWipe, gate.NotInSet, func(_ *world, _ *gate.State, o *order) { o.warFor = []string{other} }},
		{"warrant expired", wire.ActWipe, gate.Expired, func(_ *world, _ *gate.State, o *order) { o.war.Expires = at(-time.Second) }},
		{"bundle missing", wire.ActBundle, gate.BundleMissing, func(_ *world, _ *gate.State, o *order) { o.next = nil }},
		{"bundle skips a version", wire.ActBundle, gate.BundleRefused, func(_ *world, _ *gate.State, o *order) { o.next.Version++ }},
		{"bundle by other roots", wire.ActBundle, gate.BundleRefused, func(w *world, _ *gate.State, o *order) {
			w.root = keys(t, 2)
			o.next.Root = role(t, 2, w.root...)
		}},
		{"bundle lowers the floor", wire.ActBundle, gate.BundleRefused, func(_ *world, _ *gate.State, o *order) { o.next.Floor = 0 }},
		{"bundle opens what was closed", wire.ActBundle, gate.BundleRefused, func(_ *world, s *gate.State, o *order) { s.Bundle.Install, o.next.Install = 5, 4 }},
		{"bundle forgets what was closed", wire.ActBundle, gate.BundleRefused, func(_ *world, s *gate.State, o *order) { s.Bundle.Install, o.next.Floor = 5, 4 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			s, o := valid(w, c.act)
			c.do(w, &s, o)
			_, err := gate.Decide(s, w.deliver(o), nonce(), now)
			wantCode(t, err, c.want)
		})
	}
}

func wantCode(t *testing.T, err error, want gate.Code) {
	t.Helper()
	var r *gate.Refusal
	if !errors.As(err, &r) || r.Code != want || r.Text == "" {
		t.Fatalf("got %v, want %s", err, want)
	}
}

// TestPartsCannotBeExchanged puts together what was honestly signed for other occasions.
func TestPartsCannotBeExchanged(t *testing.T) {
	w := newWorld(t)
	wipe := w.deliver(w.order(wire.ActWipe))
	install := w.deliver(w.order(wire.ActInstall))
	for name, c := range map[string]struct {
		want gate.Code
		do   func() wire.Delivery
	}{
		"another command":    {gate.OtherCommand, func() wire.Delivery { d := wipe; d.Command = install.Command; return d }},
		"release as warrant": {gate.NotLogged, func() wire.Delivery { d := wipe; d.Warrant = install.Release; return d }},
		"warrant as release": {gate.NotLogged, func() wire.Delivery { d := install; d.Release = wipe.Warrant; return d }},
		"entry changed": {gate.NotLogged, func() wire.Delivery {
			d := install
			d.Command.Entry = bytes.Clone(d.Command.Entry)
			d.Command.Entry[len(d.Command.Entry)/2] ^= 1
			return d
		}},
		"warrant of this device, other place": {gate.NotInSet, func() wire.Delivery {
			d := wipe
			m := *d.WarrantMember
			m.Index ^= 1
			d.WarrantMember = &m
			return d
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := gate.Decide(w.state(), c.do(), nonce(), now)
			wantCode(t, err, c.want)
		})
	}
}

func TestWithoutAnOutstandingNonceNothingIsAccepted(t *testing.T) {
	w := newWorld(t)
	d := w.deliver(w.order(wire.ActAttest))
	for _, n := range [][]byte{nil, {}, nonce()[:31]} {
		_, err := gate.Decide(w.state(), d, n, now)
		wantCode(t, err, gate.WrongNonce)
	}
}

// TestNoChangedBitPasses flips bits of encoded deliveries that are good. Not one variant may be accepted.
func TestNoChangedBitPasses(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, act := range []wire.Act{wire.ActInstall, wire.ActWipe, wire.ActBundle, wire.ActQuarantine} {
		w := newWorld(t)
		s, o := valid(w, act)
		raw := must(wire.EncodeDelivery(w.deliver(o)))
		if _, err := gate.Judge(s, raw, nonce(), now); err != nil {
			t.Fatal(err)
		}
		for i := range raw { // one bit of every byte, and every bit of every 16th; of the shortest, every bit
			bits := []int{rng.IntN(8)}
			if i%16 == 0 || act == wire.ActQuarantine {
				bits = []int{0, 1, 2, 3, 4, 5, 6, 7}
			}
			for _, b := range bits {
				bad := bytes.Clone(raw)
				bad[i] ^= 1 << b
				if _, err := gate.Judge(s, bad, nonce(), now); err == nil {
					t.Fatalf("%s: bit %d of byte %d changed, and accepted", act, b, i)
				}
			}
		}
		for _, n := range []int{0, 1, len(raw) / 2, len(raw) - 1} {
			if _, err := gate.Judge(s, raw[:n], nonce(), now); err == nil {
				t.Fatalf("%s: cut to %d bytes, and accepted", act, n)
			}
		}
	}
}

func TestPeekNamesTheCommandOfARefusedDelivery(t *testing.T) {
	w := newWorld(t)
	o := w.order(wire.ActWipe)
	o.war = nil
	raw := must(wire.EncodeDelivery(w.deliver(o)))
	cmd, act := gate.Peek(raw)
	if act != wire.ActWipe || !bytes.Equal(cmd, o.dir.Command) {
		t.Fatalf("%s %x", act, cmd)
	}
	if cmd, act := gate.Peek([]byte("nothing")); cmd != nil || act != "" {
		t.Fatalf("%s %x", act, cmd)
	}
}

func FuzzJudge(f *testing.F) {
	w := newWorld(f)
	s, o := valid(w, wire.ActInstall)
	raw := must(wire.EncodeDelivery(w.deliver(o)))
	f.Add(raw)
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := gate.Judge(s, data, nonce(), now); err == nil && !bytes.Equal(data, raw) {
			t.Fatal("accepted something nobody signed")
		}
	})
}
