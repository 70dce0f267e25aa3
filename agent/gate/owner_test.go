package gate_test

import (
	"bytes"
	"crypto"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

func both(do func(act wire.Act)) {
	do(wire.ActAdopt)
	do(wire.ActDisown)
}

func TestWhoMayHaveADeviceLetGoOfItsOwner(t *testing.T) {
	type change func(w *world, s *gate.State, o *order)
	for _, c := range []struct {
		name string
		want gate.Code // empty: done
		do   change
	}{
		{"the owner", "", func(*world, *gate.State, *order) {}},
		{"the warrant keys, for this ownership", "", func(w *world, _ *gate.State, o *order) { o.warSigners = w.warrant }},
		{"the warrant keys, whoever owns it", "", func(w *world, _ *gate.State, o *order) { o.warSigners, o.war.Owner = w.warrant, nil }},
		{"nobody", gate.Owned, func(_ *world, _ *gate.State, o *order) { o.war = nil }},
		{"the server alone, with its directive key", gate.Threshold, func(w *world, _ *gate.State, o *order) {
			o.warSigners, o.war.Owner = []crypto.Signer{w.directive}, nil
		}},
		{"who would have it", gate.Threshold, func(w *world, _ *gate.State, o *order) { o.warSigners = []crypto.Signer{w.buyer} }},
		{"one warrant key of two", gate.Threshold, func(w *world, _ *gate.State, o *order) { o.warSigners = w.warrant[:1] }},
		{"one warrant key, and the buyer", gate.Threshold, func(w *world, _ *gate.State, o *order) {
			o.warSigners = []crypto.Signer{w.warrant[0], w.buyer}
		}},
		{"the owner, for another time of ownership", gate.OtherOwner, func(_ *world, _ *gate.State, o *order) { o.war.Owner = bytes.Repeat([]byte{1}, 32) }},
		{"the owner, for whoever owns it", gate.OtherOwner, func(_ *world, _ *gate.State, o *order) { o.war.Owner = nil }},
		{"the warrant keys, for another time of ownership", gate.OtherOwner, func(w *world, _ *gate.State, o *order) {
			o.warSigners, o.war.Owner = w.warrant, bytes.Repeat([]byte{1}, 32)
		}},
		{"the owner, of another device", gate.NotInSet, func(_ *world, _ *gate.State, o *order) { o.warFor = []string{other} }},
		{"the owner, for another act", gate.ActMismatch, func(_ *world, _ *gate.State, o *order) {
			o.war.Act = map[wire.Act]wire.Act{wire.ActAdopt: wire.ActDisown, wire.ActDisown: wire.ActAdopt}[o.act]
		}},
		{"the owner, for another product", gate.OtherProduct, func(_ *world, _ *gate.State, o *order) { o.war.Product = "kettle" }},
		{"the owner, too late", gate.Expired, func(_ *world, _ *gate.State, o *order) { o.war.Expires = at(-time.Second) }},
		{"the owner before, whose key it does not know any more", gate.Threshold, func(w *world, s *gate.State, _ *order) {
			c := ownership("c", w.buyer)
			s.Owner = &c
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			both(func(act wire.Act) {
				w := newWorld(t)
				if act == wire.ActAdopt {
					w.buyer = keys(t, 1)[0] // yet another
				}
				s, o := w.owned(act)
				c.do(w, &s, o)
				p, err := gate.Decide(s, w.deliver(o), nonce(), now)
				if c.want != "" {
					wantCode(t, err, c.want)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if (p.Owner != nil) != (act == wire.ActAdopt) || p.Warrant == nil {
					t.Fatalf("plan %+v", p)
				}
			})
		})
	}
}

func TestADeviceWithoutAnOwnerTakesTheFirst(t *testing.T) {
	w := newWorld(t)
	p, err := gate.Decide(w.state(), w.deliver(w.order(wire.ActAdopt)), nonce(), now)
	if err != nil || p.Owner == nil || !p.Owner.Equal(ownership("b", w.buyer)) {
		t.Fatalf("%+v, %v", p.Owner, err)
	}
	s := w.state()
	s.Owner = p.Owner
	if _, err := gate.Decide(s, w.deliver(w.order(wire.ActAdopt)), nonce(), now); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if _, err := gate.Decide(w.state(), w.deliver(w.order(wire.ActDisown)), nonce(), now); err != nil {
		t.Errorf("to forget what it was told, belonging to nobody: %v", err)
	}
}

func TestAnOwnershipThatIsNoneIsRefused(t *testing.T) {
	for name, do := range map[string]func(o *order){
		"did not come":    func(o *order) { o.config = nil },
		"of another salt": func(o *order) { o.config[0] ^= 1 },
		"a configuration": func(o *order) { o.config, o.cmd.Config = wire.SaltConfig([]byte("x")) },
		"more than one":   func(o *order) { o.config, o.cmd.Config = wire.SaltConfig(append(o.config[32:], 0)) },
		"an owner without name": func(o *order) {
			o.config, o.cmd.Config = wire.SaltConfig(must(wire.Marshal(wire.Ownership{Owner: []byte{1}, Key: []byte{2}})))
		},
	} {
		w := newWorld(t)
		o := w.order(wire.ActAdopt)
		do(o)
		_, err := gate.Decide(w.state(), w.deliver(o), nonce(), now)
		if wantCode(t, err, gate.BadOwner); t.Failed() {
			t.Fatal(name)
		}
	}
	w := newWorld(t)
	o := w.order(wire.ActAdopt)
	o.cmd.Config = nil
	_, err := gate.Decide(w.state(), w.deliver(o), nonce(), now)
	wantCode(t, err, gate.Malformed)
}
