package factorytest_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/wire"
)

// office is an OEM with a desk that was taken in, and a station that pins both their keys.
type office struct {
	*testing.T
	o    *factorytest.OEM
	desk *factorytest.Desk
	st   *station.Station
	d    []byte // the station's descriptor
}

func newOffice(t *testing.T, quota uint32) *office {
	t.Helper()
	o := factorytest.NewOEM(t, "acme")
	f := &office{T: t, o: o, desk: o.Desk(t, "desk-1")}
	f.add(quota)
	f.st, _ = softStation(t, "st-1", o)
	var err error
	if f.d, err = f.st.Descriptor(o.ID, o.Now); err != nil {
		t.Fatal(err)
	}
	return f
}

func two() access.Caller {
	return access.Caller{ID: "person:sam", Kind: access.Person, Roles: []access.Role{access.Security, access.Factory}, Via: "token"}.
		With(access.Caller{ID: "person:ada", Kind: access.Person, Roles: []access.Role{access.Security, access.Factory}, Via: "proposal", Seconded: "person:sam"})
}

func (f *office) add(quota uint32) {
	f.Helper()
	if _, err := f.o.Service.AddDesk(f.Context(), two(), f.desk.File, quota); err != nil {
		f.Fatal(err)
	}
}

// wrapped is an order as the desk wraps it: the file for the station, and the registration.
func (f *office) wrapped(id string, n uint32, change ...func(*factory.Maker, *factory.OrderSpec)) (file, reg []byte) {
	f.Helper()
	m, spec := f.desk.Maker, f.o.Spec(id, n, f.d, f.st.ID())
	for _, c := range change {
		c(&m, &spec)
	}
	w, err := factory.Wrap(f.Context(), m, spec, f.o.Now)
	if err != nil {
		f.Fatal(err)
	}
	return factorytest.Bytes(f.T, w), f.desk.Registration(f.T, w, spec)
}

func (f *office) register(reg []byte) (factory.Order, error) {
	return f.o.Service.Register(f.Context(), f.o.Caller, reg)
}

// An order is wrapped at a desk, made, told of late, and its devices are ours like all others.
func TestAnOrderOfADeskComesHome(t *testing.T) {
	f := newOffice(t, 10)
	file, reg := f.wrapped("ord-1", 2)
	if _, err := f.st.Import(bytes.NewReader(file), f.o.Now); err != nil {
		t.Fatal(err)
	}
	if _, _, err := run(t, f.o, f.st, "ord-1", 2, factorytest.NewPiece(), factorytest.NewPiece()); err != nil {
		t.Fatal(err)
	}
	records := export(t, f.o, f.st, "ord-1")
	_, err := f.o.Service.ImportRecords(t.Context(), f.o.Caller, "ord-1", records)
	wantCode(t, err, "order.unregistered")
	f.o.Now = f.o.Now.Add(20 * 24 * time.Hour) // late is not wrong, though the order has ended
	for range 2 {
		row, err := f.register(reg)
		if err != nil || row.Desk != "desk-1" || row.State != factory.Open || len(row.Secret) != 0 {
			t.Fatalf("%+v, %v", row, err)
		}
	}
	if f.o.CA.Adopted != 1 {
		t.Errorf("%d CAs were believed for one order", f.o.CA.Adopted)
	}
	rep := take(t, f.o, "ord-1", records)
	if rep.Accepted != 2 || len(rep.Alarms) != 0 {
		t.Fatalf("%+v", rep)
	}
	f.o.Rotate(t) // the instance's own key has nothing to do with it
	if _, err := f.st.CloseOrder("ord-1", f.o.Now); err != nil {
		t.Fatal(err)
	}
	take(t, f.o, "ord-1", export(t, f.o, f.st, "ord-1"))
	if _, err := f.o.Service.CloseOrder(t.Context(), f.o.Caller, "ord-1"); err != nil {
		t.Fatal(err)
	}
}

// A desk's CA is replaced; what was ordered under the one before comes home late all the same, and no other desk takes it over.
func TestADesksCAIsReplaced(t *testing.T) {
	f := newOffice(t, 10)
	_, before := f.wrapped("ord-before", 2)
	old, anew := f.desk.CA, f.o.Desk(t, "desk-1")
	file := func(cas [][]byte) {
		t.Helper()
		var err error
		if f.desk.File, err = wire.SignDesk(wire.Desk{Name: "desk-1", OEM: f.o.ID, CAs: cas, Issued: uint64(f.o.Now.Unix())}, f.desk.Maker.OrderKey); err != nil {
			t.Fatal(err)
		}
	}
	file(anew.CAs())
	f.add(10)
	f.desk.CA, f.desk.Maker.CA = anew.CA, anew.CA
	_, after := f.wrapped("ord-after", 2)
	for id, reg := range map[string][]byte{"ord-before": before, "ord-after": after} {
		if row, err := f.register(reg); err != nil || row.ID != id {
			t.Errorf("%s: %+v, %v", id, row, err)
		}
	}
	f.desk.CA, f.desk.Maker.CA = old, old
	thief := f.o.Desk(t, "desk-t")
	var err error
	if thief.File, err = wire.SignDesk(wire.Desk{Name: "desk-t", OEM: f.o.ID, CAs: f.desk.CAs(), Issued: 1}, thief.Maker.OrderKey); err != nil {
		t.Fatal(err)
	}
	_, err = f.o.Service.AddDesk(t.Context(), two(), thief.File, 5)
	wantCode(t, err, "desk.ca")
}

// The instance learns of which master a desk ordered. That is the desk's word: it makes no other master an old one, or a stolen desk would end all that are true.
func TestARegistrationSaysWhichMaster(t *testing.T) {
	f := newOffice(t, 10)
	digest := bytes.Repeat([]byte{7}, 32)
	wrap := func(id string, revision uint32) []byte {
		t.Helper()
		spec := f.o.Spec(id, 1, f.d, f.st.ID())
		w, err := factory.Wrap(t.Context(), f.desk.Maker, spec, f.o.Now)
		if err != nil {
			t.Fatal(err)
		}
		w.Master = &wire.RegisteredMaster{Revision: revision, Digest: digest}
		return f.desk.Registration(t, w, spec)
	}
	for id, revision := range map[string]uint32{"ord-new": 5, "ord-old": 3} { // an older one was wrapped already
		want := factory.MasterRef{Product: factorytest.Product, Hardware: factorytest.Hardware, Revision: revision, Digest: hex.EncodeToString(digest)}
		if row, err := f.register(wrap(id, revision)); err != nil || row.Master == nil || *row.Master != want {
			t.Errorf("%s: %+v, %v", id, row.Master, err)
		}
		if row, err := f.o.DB.Order(t.Context(), id); err != nil || row.Master == nil || *row.Master != want {
			t.Errorf("%s: %+v, %v", id, row.Master, err)
		}
	}
	spec := f.o.Spec("ord-here", 1, f.d, f.st.ID())
	row := factory.Order{ID: "ord-here", Product: spec.Product, State: factory.Open, Created: f.o.Now, Master: &factory.MasterRef{Product: factorytest.Product, Hardware: factorytest.Hardware, Revision: 4, Digest: "x"}}
	if err := f.o.DB.CreateOrder(t.Context(), row); err != nil {
		t.Errorf("an order here of a master that is older than a desk says: %v", err)
	}
}

// Nothing is taken in that a desk may not have ordered, or that is not what the desk has signed; and a CA is believed for none of it.
func TestWhatIsNotRegistered(t *testing.T) {
	f := newOffice(t, 10)
	other := f.o.Desk(t, "desk-2")
	st2, _ := softStation(t, "st-2", f.o)
	resigned := func(change func(r *wire.Registration)) []byte {
		_, reg := f.wrapped("ord-x", 1)
		r, err := wire.ReadRegistration(reg)
		if err != nil {
			t.Fatal(err)
		}
		change(&r)
		payload, err := wire.EncodeRegistration(r)
		if err != nil {
			t.Fatal(err)
		}
		env, err := wire.Sign1(wire.TypeRegistration, payload, f.desk.Maker.OrderKey)
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	reordered := func(change func(o *wire.Order)) []byte {
		return resigned(func(r *wire.Registration) {
			o, err := wire.VerifyOrder(r.Order, f.desk.Maker.OrderKey.(*ecdsa.PrivateKey).Public())
			if err != nil {
				t.Fatal(err)
			}
			change(&o)
			payload, err := wire.EncodeOrder(o)
			if err != nil {
				t.Fatal(err)
			}
			if r.Order, err = wire.Sign1(wire.TypeOrder, payload, f.desk.Maker.OrderKey); err != nil {
				t.Fatal(err)
			}
		})
	}
	_, foreign := f.wrapped("ord-f", 1, func(m *factory.Maker, _ *factory.OrderSpec) { m.CA = other.CA })
	_, byInstance := f.wrapped("ord-i", 1, func(m *factory.Maker, _ *factory.OrderSpec) { m.CA = f.o.CA })
	_, many := f.wrapped("ord-m", 11)
	_, tomorrow := f.wrapped("ord-t", 1)
	elsewhere := *f.desk
	elsewhere.Of = factorytest.NewOEM(t, "acme")
	w, err := factory.Wrap(t.Context(), f.desk.Maker, f.o.Spec("ord-e", 1, f.d, f.st.ID()), f.o.Now)
	if err != nil {
		t.Fatal(err)
	}
	_, unpublished := f.wrapped("ord-u", 1, func(_ *factory.Maker, s *factory.OrderSpec) {
		s.Bundle = elsewhere.Of.Bundle
		s.Release = elsewhere.Of.Release
	})
	stranger := factorytest.NewOEM(t, "evil").Desk(t, "desk-1")
	theirs, err := factory.Wrap(t.Context(), factory.Maker{OEM: "acme", Root: stranger.Maker.Root, OrderKey: stranger.Maker.OrderKey, CA: stranger.CA},
		f.o.Spec("ord-s", 1, f.d, f.st.ID()), f.o.Now)
	if err != nil {
		t.Fatal(err)
	}
	unknown := *f.desk
	unknown.Name = "desk-9"
	for name, c := range map[string]struct {
		reg  []byte
		code string
	}{
		"no registration":                        {[]byte("x"), "registration.invalid"},
		"a desk that is not here":                {unknown.Registration(t, w, f.o.Spec("ord-e", 1, f.d, f.st.ID())), "desk.unknown"},
		"somebody else's, under the desk's name": {stranger.Registration(t, theirs, f.o.Spec("ord-s", 1, f.d, f.st.ID())), "registration.forged"},
		"a CA of another desk":                   {foreign, "registration.ca"},
		"a CA of the instance":                   {byInstance, "registration.ca"},
		"another OEM":                            {reordered(func(o *wire.Order) { o.Header.OEM = "evil" }), "registration.oem"},
		"another product":                        {reordered(func(o *wire.Order) { o.Header.Product = "valve" }), "registration.product"},
		"another key than the CA's":              {reordered(func(o *wire.Order) { o.Key.SPKI = mustSPKI(t) }), "registration.ca"},
		"an order that is none":                  {resigned(func(r *wire.Registration) { r.Order = []byte("junk") }), "registration.invalid"},
		"the CA of another order":                {reordered(func(o *wire.Order) { o.Header.ID = "ord-z" }), "registration.ca"},
		"the CA of an order of another station":  {reordered(func(o *wire.Order) { o.Header.Station = bytes.Repeat([]byte{1}, 32) }), "registration.ca"},
		"another station": {resigned(func(r *wire.Registration) {
			if r.Station, err = st2.Descriptor("acme", f.o.Now); err != nil {
				t.Fatal(err)
			}
		}), "registration.station"},
		"another module":                        {reordered(func(o *wire.Order) { o.Header.HSMSerial = "9" }), "registration.station"},
		"a lower counter than the release's":    {reordered(func(o *wire.Order) { o.Header.Counter = 0 }), "registration.release"},
		"hardware that the release is not for":  {reordered(func(o *wire.Order) { o.Header.Hardware = "z" }), "registration.release"},
		"another root in the fuses":             {reordered(func(o *wire.Order) { o.Header.Root = bytes.Repeat([]byte{1}, 32) }), "registration.release"},
		"a quota that was raised after sealing": {reordered(func(o *wire.Order) { o.Header.Quota = 2 }), "registration.sealed"},
		"a secret of another order": {resigned(func(r *wire.Registration) {
			_, reg := f.wrapped("ord-y", 1)
			y, _ := wire.ReadRegistration(reg)
			r.Sealed = y.Sealed
		}), "registration.sealed"},
		"another instance":             {elsewhere.Registration(t, w, f.o.Spec("ord-e", 1, f.d, f.st.ID())), "registration.key"},
		"what was never published":     {unpublished, "registration.unpublished"},
		"more than the desk may order": {many, "desk.quota"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.register(c.reg)
			wantCode(t, err, c.code)
		})
	}
	f.o.Now = f.o.Now.Add(-24 * time.Hour)
	_, err = f.register(tomorrow)
	wantCode(t, err, "registration.time")
	f.o.Now = f.o.Now.Add(24 * time.Hour)
	_, good := f.wrapped("ord-g", 1)
	f.o.With(t, func(c *factory.Config) {
		c.Intake = &factory.Intake{Store: changed{c.Intake.Store}, CAs: c.Intake.CAs, Instance: c.Intake.Instance}
	})
	_, err = f.register(good)
	wantCode(t, err, "desk.changed")
	if f.o.CA.Adopted != 0 {
		t.Errorf("%d CAs were believed for orders that were refused", f.o.CA.Adopted)
	}
	if list, err := f.o.Service.List(t.Context(), f.o.Caller, ""); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// changed is a store in which another node has changed a desk at the same moment.
type changed struct{ factory.DeskStore }

func (changed) RegisterOrder(context.Context, factory.Order, factory.Desk, factory.Adoption, ...ledger.Fact) error {
	return factory.ErrChanged
}

func mustSPKI(t *testing.T) []byte {
	t.Helper()
	spki, err := wire.SPKIOf(factorytest.Key(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

// Whoever steals a desk has what it may still order until somebody says so, and after that needs two people to believe a date.
func TestAStolenDesk(t *testing.T) {
	f := newOffice(t, 3)
	_, first := f.wrapped("ord-1", 2)
	if _, err := f.register(first); err != nil {
		t.Fatal(err)
	}
	_, late := f.wrapped("ord-2", 1)
	_, more := f.wrapped("ord-3", 2)
	_, err := f.register(more)
	wantCode(t, err, "desk.quota")
	if _, err := f.o.Service.Cancel(t.Context(), f.o.Caller, "ord-1", "given back"); err != nil { // its file may be in use: nothing is given back
		t.Fatal(err)
	}
	_, err = f.register(more)
	wantCode(t, err, "desk.quota")
	_, same := f.wrapped("ord-1", 1)
	_, err = f.register(same)
	wantCode(t, err, "order.exists")
	pinned := f.o.File(t)

	f.o.Now = f.o.Now.Add(time.Hour)
	if _, err := f.o.Service.RemoveDesk(t.Context(), two(), "desk-1", "the notebook was stolen"); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(f.o.File(t), pinned) {
		t.Error("stations go on pinning its key")
	}
	_, thief := f.wrapped("ord-4", 1)
	for _, reg := range [][]byte{late, thief} {
		_, err = f.register(reg)
		wantCode(t, err, "access.four-eyes")
	}
	_, err = f.o.Service.Register(t.Context(), two(), thief)
	wantCode(t, err, "desk.removed")
	if row, err := f.o.Service.Register(t.Context(), two(), late); err != nil || row.ID != "ord-2" {
		t.Errorf("%v, %v", row.ID, err)
	}
	_, err = f.o.Service.AddDesk(t.Context(), two(), f.desk.File, 99)
	wantCode(t, err, "desk.taken")
	_, err = f.o.Service.RemoveDesk(t.Context(), two(), "desk-1", "again")
	wantCode(t, err, "desk.unknown")
}

func TestWhichDesksAreTakenIn(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	one := two()
	one.Seconded = ""
	_, err := o.Service.AddDesk(t.Context(), one, o.Desk(t, "desk-1").File, 5)
	wantCode(t, err, "access.four-eyes")
	add := func(d *factorytest.Desk, quota uint32) error {
		_, err := o.Service.AddDesk(t.Context(), two(), d.File, quota)
		return err
	}
	wantCode(t, add(&factorytest.Desk{File: []byte("x")}, 5), "desk.invalid")
	wantCode(t, add(factorytest.NewOEM(t, "evil").Desk(t, "desk-1"), 5), "desk.oem")
	wantCode(t, add(o.Desk(t, "desk-1"), 0), "desk.quota")
	if err := add(factorytest.NewOEM(t, "acme").Desk(t, "desk-1"), 5); err == nil {
		t.Error("a desk under another root was taken in")
	}
	if o.CA.Desks != 0 {
		t.Errorf("%d CAs were believed of desks that were not taken in", o.CA.Desks)
	}
	first := o.Desk(t, "desk-1")
	for _, quota := range []uint32{5, 7} { // again: another quota
		if err := add(first, quota); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, add(o.Desk(t, "desk-1"), 5), "desk.taken")
	thief := o.Desk(t, "desk-1t")
	if thief.File, err = wire.SignDesk(wire.Desk{Name: "desk-1t", OEM: o.ID, CAs: [][]byte{first.CAs()[0]}, Issued: 1}, thief.Maker.OrderKey); err != nil {
		t.Fatal(err)
	}
	wantCode(t, add(thief, 5), "desk.ca")
	list, err := o.Service.Desks(t.Context(), o.Caller)
	if err != nil || len(list) != 1 || list[0].Quota != 7 {
		t.Errorf("%+v, %v", list, err)
	}
	for i := 1; i < factory.MaxDesks; i++ {
		if err := add(o.Desk(t, "desk-1"+string(rune('a'+i))), 5); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, add(o.Desk(t, "desk-z"), 5), "desk.many")
	f, err := station.DecodeOEM(o.File(t))
	if err != nil || len(f.OrderKeys) != factory.MaxDesks {
		t.Errorf("%d keys beside ours, %v", len(f.OrderKeys), err)
	}
}

// What would not be ordered here any more comes home from a desk by two people alone: when it was wrapped is the desk's word.
func TestWhatADeskOrderedOfOldStockTakesTwo(t *testing.T) {
	for name, change := range map[string]func(f *office){
		"the floor was raised":          func(f *office) { f.o.NextBundle(f.T, func(b *wire.Bundle) { b.Floor = 4 }) },
		"the trust bundle was replaced": func(f *office) { f.o.NextBundle(f.T) },
		"the release was withdrawn":     func(f *office) { f.o.Withdraw(f.T) },
		"an approver was let go": func(f *office) {
			f.o.NextBundle(f.T, func(b *wire.Bundle) { b.Release.Keys = [][]byte{mustSPKI(f.T)} })
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newOffice(t, 10)
			_, before := f.wrapped("ord-1", 1)
			_, late := f.wrapped("ord-2", 1)
			if _, err := f.register(before); err != nil {
				t.Fatal(err)
			}
			change(f)
			_, err := f.register(late)
			if _, two := errors.AsType[*access.SecondNeededError](err); !two {
				t.Fatalf("one person: %v", err)
			}
			if _, err := f.register(before); err != nil { // what is here is here
				t.Errorf("again: %v", err)
			}
			if row, err := f.o.Service.Register(t.Context(), two(), late); err != nil || row.ID != "ord-2" {
				t.Errorf("two: %v", err)
			}
		})
	}
}

// The same is not ordered here at all.
func TestNothingIsOrderedOfOldStock(t *testing.T) {
	for name, c := range map[string]struct {
		code   string
		change func(o *factorytest.OEM, spec *factory.OrderSpec)
	}{
		"a floor that was raised meanwhile": {"order.bundle", func(o *factorytest.OEM, _ *factory.OrderSpec) { o.NextBundle(t, func(b *wire.Bundle) { b.Floor = 4 }) }},
		"a release below the floor": {"order.invalid", func(o *factorytest.OEM, spec *factory.OrderSpec) {
			o.NextBundle(t, func(b *wire.Bundle) { b.Floor = 4 })
			spec.Bundle = o.Bundle
		}},
		"a withdrawn release": {"order.release", func(o *factorytest.OEM, _ *factory.OrderSpec) { o.Withdraw(t) }},
		"what was never published": {"order.release", func(_ *factorytest.OEM, spec *factory.OrderSpec) {
			other := factorytest.NewOEM(t, "acme")
			spec.Bundle, spec.Release = other.Bundle, other.Release
		}},
	} {
		t.Run(name, func(t *testing.T) {
			o := factorytest.NewOEM(t, "acme")
			s, _ := softStation(t, "st-1", o)
			d, err := s.Descriptor("acme", o.Now)
			if err != nil {
				t.Fatal(err)
			}
			spec := o.Spec("ord-1", 1, d, s.ID())
			c.change(o, &spec)
			_, _, err = o.Service.CreateOrder(t.Context(), o.Caller, spec)
			wantCode(t, err, c.code)
			if o.CA.Orders != 0 {
				t.Error("a CA was made for it")
			}
		})
	}
}
