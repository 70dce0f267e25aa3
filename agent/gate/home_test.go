package gate_test

import (
	"bytes"
	"crypto"
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

// rehoming is the order that sends a device to another's instance, as far as the warrant keys are concerned.
func (w *world) rehoming(t testing.TB) *order {
	t.Helper()
	next := newWorld(t)
	b := next.bundle
	b.Anchors = [][]byte{{1}}
	o := w.order(wire.ActRehome)
	o.war.Home, o.config = homeOf(b), threshold(wire.TypeBundle, must(wire.EncodeBundle(b)), next.root...)
	return o
}

func homeOf(b wire.Bundle) *wire.Home {
	sum := wire.BundleDigest(must(wire.EncodeBundle(b)))
	return &wire.Home{Bundle: sum[:], Server: "https://own.example"}
}

func TestWhoMaySendADeviceToAnotherHome(t *testing.T) {
	a := ownership("a", keys(t, 1)[0])
	for _, c := range []struct {
		name  string
		owned bool
		want  gate.Code // empty: done
		do    func(w *world, s *gate.State, o *order)
	}{
		{"the warrant keys, of a device of nobody's", false, "", func(*world, *gate.State, *order) {}},
		{"nobody", false, gate.WarrantMissing, func(_ *world, _ *gate.State, o *order) { o.war = nil }},
		{"the server alone, with its directive key", false, gate.Threshold, func(w *world, _ *gate.State, o *order) { o.warSigners = []crypto.Signer{w.directive} }},
		{"one warrant key of two", false, gate.Threshold, func(w *world, _ *gate.State, o *order) { o.warSigners = w.warrant[:1] }},
		{"the release keys", false, gate.Threshold, func(w *world, _ *gate.State, o *order) { o.warSigners = w.release }},
		{"the warrant keys, too late", false, gate.Expired, func(_ *world, _ *gate.State, o *order) { o.war.Expires = at(-time.Second) }},
		{"the warrant keys, of another device", false, gate.NotInSet, func(_ *world, _ *gate.State, o *order) { o.warFor = []string{other} }},
		{"the warrant keys, for another product", false, gate.OtherProduct, func(_ *world, _ *gate.State, o *order) { o.war.Product = "kettle" }},
		{"the warrant keys, to wipe it", false, gate.ActMismatch, func(_ *world, _ *gate.State, o *order) { o.war.Act, o.war.Home = wire.ActWipe, nil }},
		{"the warrant keys, for an ownership that it knows nothing of", false, gate.OtherOwner, func(_ *world, _ *gate.State, o *order) { o.war.Owner = a.Owner }},

		{"owner and warrant keys", true, "", func(*world, *gate.State, *order) {}},
		{"the warrant keys alone, of an owner's device", true, gate.Owned, func(w *world, _ *gate.State, o *order) { o.warSigners = w.warrant }},
		{"the owner alone", true, gate.Threshold, func(w *world, _ *gate.State, o *order) { o.warSigners = []crypto.Signer{w.owner} }},
		{"the warrant keys and who would have it", true, gate.Owned, func(w *world, _ *gate.State, o *order) {
			o.warSigners = append(slices.Clone(w.warrant), w.buyer)
		}},
		{"both, for another time of ownership", true, gate.OtherOwner, func(_ *world, _ *gate.State, o *order) { o.war.Owner = bytes.Repeat([]byte{1}, 32) }},
		{"both, for whoever owns it", true, gate.OtherOwner, func(_ *world, _ *gate.State, o *order) { o.war.Owner = nil }},

		{"with the bundle of another", false, gate.BadHome, func(w *world, _ *gate.State, o *order) { o.config = w.rehoming(t).config }},
		{"without a bundle", false, gate.BadHome, func(_ *world, _ *gate.State, o *order) { o.config = nil }},
		{"with what is no bundle", false, gate.BadHome, func(_ *world, _ *gate.State, o *order) { o.config = []byte("x") }},
		{"to where no server could be verified", false, gate.BadHome, func(w *world, _ *gate.State, o *order) {
			next := newWorld(t)
			o.war.Home, o.config = homeOf(next.bundle), threshold(wire.TypeBundle, must(wire.EncodeBundle(next.bundle)), next.root...)
		}},
		{"to where what it runs could not start", false, gate.BadHome, func(_ *world, s *gate.State, _ *order) { s.Current.Release.Counter = 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			s, o := w.state(), w.rehoming(t)
			o.warFor = []string{me}
			if c.owned {
				a := ownership("a", w.owner)
				s.Owner = &a
				o.war.Owner, o.warSigners = a.Owner, append(slices.Clone(w.warrant), w.owner)
			}
			c.do(w, &s, o)
			p, err := gate.Decide(s, w.deliver(o), nonce(), now)
			if c.want != "" {
				wantCode(t, err, c.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.Handover == nil || p.Warrant == nil || !bytes.Equal(p.Handover.Bundle, o.config) {
				t.Fatalf("plan %+v", p)
			}
			if _, home, err := p.Handover.Leads(s.Bundle, me); err != nil || home.Server != "https://own.example" {
				t.Fatalf("it leads to %+v, %v", home, err)
			}
		})
	}
}
