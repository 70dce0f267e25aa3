package store_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/genuine"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

// certs is an authority that has given every device two certificates: of the factory, and an operational one.
type certs struct{ revoked []string }

func (c *certs) Certificates(_ context.Context, _ access.Caller, id, _, after string, _ int) ([]pki.Issued, error) {
	if after != "" {
		return nil, nil
	}
	end := time.Now().AddDate(1, 0, 0)
	return []pki.Issued{{Key: "i" + id, Device: id, Role: profile.IDevID, NotAfter: end}, {Key: "l" + id, Device: id, Role: profile.LDevID, NotAfter: end}}, nil
}

func (c *certs) Revoke(_ context.Context, _ access.Caller, key string, _ int) error {
	c.revoked = append(c.revoked, key)
	return nil
}

// sale is a maker with devices, and two owners with one operator each.
type sale struct {
	*stages
	svc   *owner.Service
	certs *certs
	rel   release.Release
	a, b  access.Caller
}

func newSale(t *testing.T, n int) *sale {
	s := newStages(t, wire.ModelBlob)
	x := &sale{stages: s, certs: &certs{}, rel: s.publish("1.0.0")}
	for i := range n {
		s.make(devN(i), x.rel)
		s.says(devN(i), x.rel, true, false, nil)
	}
	x.open()
	x.a, x.b = x.buyer("a"), x.buyer("b")
	return x
}

// open is a start of the server.
func (x *sale) open() {
	x.t.Helper()
	o := x.db.Owners()
	var err error
	if x.svc, err = owner.NewService(owner.Config{
		Store: o, Codes: o, Transfers: o, Returns: o, Marks: o, Warrants: o, Devices: x.devices, Certificates: x.certs, Ledger: x.ledger, Guard: x.guard,
		Now: func() time.Time { return x.now },
	}); err != nil {
		x.t.Fatal(err)
	}
}

func (x *sale) buyer(name string) access.Caller {
	x.t.Helper()
	o, err := x.svc.Create(x.t.Context(), person("sam"), name)
	if err != nil {
		x.t.Fatal(err)
	}
	return x.member(access.Caller{ID: "person:" + name, Kind: access.Person, Roles: []access.Role{access.Operator}, Owner: o.ID})
}

// member gives the scope that its owner has now.
func (x *sale) member(c access.Caller) access.Caller {
	x.t.Helper()
	places, err := x.db.OwnerPlaces(x.t.Context(), c.Owner)
	if err != nil {
		x.t.Fatal(err)
	}
	if c.Scope = places; len(places) == 0 {
		c.Scope = []string{"?"}
	}
	return c
}

func (x *sale) code(id string) string {
	x.t.Helper()
	ls, _, err := x.svc.MakeCodes(x.t.Context(), person("sam"), owner.Labels{Product: "pump", Devices: []string{id}})
	if err != nil || len(ls) != 1 {
		x.t.Fatalf("%+v, %v", ls, err)
	}
	return ls[0].Code
}

func (x *sale) claim(c access.Caller, id, code string) access.Caller {
	x.t.Helper()
	if _, err := x.svc.Claim(x.t.Context(), c, owner.Claim{Device: id, Code: code}); err != nil {
		x.t.Fatal(err)
	}
	return x.member(c)
}

func (x *sale) tick() {
	x.t.Helper()
	if err := x.svc.Tick(x.t.Context()); err != nil {
		x.t.Fatal(err)
	}
}

func TestATransferGoesOnUntilTheDeviceHasLetGo(t *testing.T) {
	x := newSale(t, 1)
	id := devN(0)
	x.a = x.claim(x.a, id, x.code(id))
	begun, err := x.svc.Transfer(t.Context(), x.a, owner.Order{Devices: []string{id}, Kind: owner.Resale, Reason: "sold"})
	if err != nil || begun[0].Code == "" {
		t.Fatalf("%+v, %v", begun, err)
	}
	if x.a = x.member(x.a); !slices.Equal(x.a.Scope, []string{"?"}) {
		t.Errorf("the old owner still has %v", x.a.Scope)
	}
	if !slices.Equal(x.certs.revoked, []string{"l" + id}) {
		t.Errorf("revoked: %v", x.certs.revoked)
	}
	next := func() error {
		_, err := x.svc.Claim(t.Context(), x.b, owner.Claim{Device: id, Code: begun[0].Code})
		return err
	}
	code := func(err error, want string) {
		t.Helper()
		if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for range 3 { // and the server starts again and again
		x.open()
		x.tick()
		code(next(), "claim.transfer")
	}
	cmds := x.commands(id, wire.ActDisown)
	if len(cmds) != 1 || len(x.certs.revoked) != 1 {
		t.Fatalf("told %v, revoked %v", cmds, x.certs.revoked)
	}
	x.says(id, x.rel, true, false, map[string]wire.Outcome{cmds[0]: wire.OutcomeRefused})
	x.tick()
	x.tick()
	if n := len(x.commands(id, wire.ActDisown)); n != 1 {
		t.Fatalf("it said no, and was told %d times at once", n)
	}
	x.now = x.now.Add(3 * time.Minute)
	x.tick()
	cmds = slices.DeleteFunc(x.commands(id, wire.ActDisown), func(c string) bool { return c == cmds[0] })
	if len(cmds) != 1 {
		t.Fatalf("it said no a while ago, and was told again by %v", cmds)
	}
	code(next(), "claim.transfer")
	x.says(id, x.rel, true, false, map[string]wire.Outcome{cmds[0]: wire.OutcomeDone})
	x.tick()
	if err := next(); err != nil {
		t.Fatal(err)
	}
	code(next(), "claim.refused")
	ps, err := x.svc.Lineage(t.Context(), x.member(x.b), id)
	if err != nil || len(ps) != 2 || ps[0].Owner != "" || ps[0].End != owner.Resale || ps[1].Owner != x.b.Owner || ps[1].How != "transfer" {
		t.Fatalf("%+v, %v", ps, err)
	}
	if d, err := x.devices.Get(t.Context(), person("olga"), id); err != nil || d.Legitimacy != device.Resold || d.State != device.Onboarded || d.Group != access.OwnerGroup(x.b.Owner) {
		t.Errorf("%+v, %v", d, err)
	}
	k := x.kinds(id)
	if k["device.claimed"] != 2 || k["device.transferred"] != 1 || k["device.transfer.done"] != 1 {
		t.Errorf("facts %v", k)
	}
}

func TestTheMakerTakesADeviceFromItsOwnerByTheWarrantKeysAlone(t *testing.T) {
	x := newSale(t, 2)
	id := devN(0)
	x.claim(x.a, id, x.code(id))
	order := owner.Order{Devices: []string{id}, Kind: owner.Refurbish, Reason: "bankrupt"}
	warrant := func(act wire.Act, ids []string, who ...int) []byte {
		set, err := wire.SetOf(ids)
		if err != nil {
			t.Fatal(err)
		}
		now := uint64(x.now.Unix())
		payload, err := wire.EncodeWarrant(wire.Warrant{ID: "w-" + string(act) + strings.Join(ids, ""), Product: "pump", Act: act, Devices: set, Issued: now, Expires: now + 3600})
		if err != nil {
			t.Fatal(err)
		}
		return x.sign(wire.TypeWarrant, payload, who...)
	}
	for what, w := range map[string][][]byte{
		"none": nil, "of one key": {warrant(wire.ActDisown, []string{id}, 0)}, "for a wipe": {warrant(wire.ActWipe, []string{id}, 0, 1)},
		"for another device": {warrant(wire.ActDisown, []string{devN(1)}, 0, 1)},
	} {
		order.Warrants = w
		if _, err := x.svc.Transfer(t.Context(), person("sam"), order); fault.KindOf(err) != fault.Invalid {
			t.Errorf("warrant %s: %v", what, err)
		}
	}
	order.Warrants = [][]byte{warrant(wire.ActDisown, []string{id}, 0, 1)}
	begun, err := x.svc.Transfer(t.Context(), person("sam"), order)
	if err != nil || begun[0].Code != "" || begun[0].Transfer.Warrant == nil {
		t.Fatalf("%+v, %v", begun, err)
	}
	if d, err := x.devices.Get(t.Context(), person("olga"), id); err != nil || d.Legitimacy != device.Refurbished || d.Group != "" {
		t.Errorf("%s in %q, %v", d.Legitimacy, d.Group, err)
	}
}

func TestNobodyGroupsADeviceIntoAnOwnersOrOutOfIt(t *testing.T) {
	x := newSale(t, 2)
	x.a = x.claim(x.a, devN(0), x.code(devN(0)))
	mine := access.OwnerGroup(x.a.Owner)
	for _, g := range []struct {
		who access.Caller
		id  string
		to  string
	}{
		{person("olga"), devN(1), mine},
		{person("olga"), devN(0), ""},
		{person("olga"), devN(0), "eu"},
		{person("olga"), devN(0), access.OwnerGroup(x.b.Owner)},
		{person("olga"), devN(1), "owner"},
		{x.a, devN(1), mine},
		{x.a, devN(0), ""},
	} {
		if err := x.devices.Group(t.Context(), g.who, []string{g.id}, g.to, "test"); err == nil {
			t.Errorf("%s put %s into %q", g.who.ID, g.id, g.to)
		}
	}
	if err := x.devices.Group(t.Context(), x.a, []string{devN(0)}, mine+"/ward-3", "ours"); err != nil {
		t.Errorf("an owner's own group: %v", err)
	}
	if _, err := x.svc.Transfer(t.Context(), x.a, owner.Order{Devices: []string{devN(0)}, Kind: owner.Refurbish, Reason: "back"}); err != nil {
		t.Errorf("from a group of the owner's: %v", err)
	}
}

func TestWhatADeviceIsWithItsMarks(t *testing.T) {
	x := newSale(t, 2)
	id, sam := devN(0), person("sam")
	x.a = x.claim(x.a, id, x.code(id))
	is := func(want device.Legitimacy) {
		t.Helper()
		if d, err := x.devices.Get(t.Context(), sam, id); err != nil || d.Legitimacy != want {
			t.Fatalf("it is %s, want %s, %v", d.Legitimacy, want, err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	recall := owner.Recall{Product: "pump", To: id, Reason: "leaks", Remedy: "mend it", Due: x.now.AddDate(0, 1, 0)}
	if r, err := x.svc.RecallDevices(t.Context(), sam, recall, true); err != nil || r.Devices != 1 || r.ID != "" {
		t.Fatalf("dry: %+v, %v", r, err)
	}
	is(device.Genuine)
	r, err := x.svc.RecallDevices(t.Context(), sam, recall, false)
	must(err)
	is(device.Recalled)
	if g, err := x.db.GenuineRecord(t.Context(), id); err != nil || g.Text[genuine.Recalled] != "leaks: mend it, until "+recall.Due.UTC().Format(time.DateOnly) {
		t.Errorf("who asks is told %q, %v", g.Text, err)
	}
	must(x.svc.Steal(t.Context(), x.a, id, "gone"))
	is(device.Stolen)
	if n := len(x.commands(id, wire.ActQuarantine)); n != 1 {
		t.Errorf("%d quarantines", n)
	}
	x.tick()
	if n := len(x.commands(id, wire.ActQuarantine)); n != 1 {
		t.Errorf("%d quarantines, a moment later", n)
	}
	x.now = x.now.Add(5 * 24 * time.Hour)
	x.tick()
	if n := len(x.commands(id, wire.ActQuarantine)); n != 2 {
		t.Errorf("%d quarantines, five days later", n)
	}
	if err := x.svc.Steal(t.Context(), x.b, id, "mine"); fault.KindOf(err) != fault.Denied {
		t.Errorf("marked by another owner: %v", err)
	}
	if _, err := x.svc.Transfer(t.Context(), x.a, owner.Order{Devices: []string{id}, Kind: owner.Resale, Reason: "sold"}); fault.KindOf(err) != fault.Conflict {
		t.Errorf("stolen, and handed on: %v", err)
	}
	if err := x.svc.Mended(t.Context(), x.a, id, r.ID, "I did"); fault.KindOf(err) != fault.Denied {
		t.Errorf("mended by its owner: %v", err)
	}
	if err := x.devices.Judge(t.Context(), x.a, id, device.Genuine, nil, "it is"); fault.KindOf(err) != fault.Denied {
		t.Errorf("judged by its owner: %v", err)
	}
	must(x.svc.Mended(t.Context(), sam, id, r.ID, "seal"))
	is(device.Stolen)
	must(x.svc.Found(t.Context(), x.a, id, "in the van"))
	is(device.Genuine)
	if d, err := x.devices.Get(t.Context(), sam, devN(1)); err != nil || d.Legitimacy != device.Genuine {
		t.Errorf("the other is %s, %v", d.Legitimacy, err)
	}
	if rs, err := x.svc.Recalls(t.Context(), sam, "pump"); err != nil || len(rs) != 1 || rs[0].Open != 0 {
		t.Errorf("%+v, %v", rs, err)
	}
}

func TestWrongCodesAreCounted(t *testing.T) {
	x := newSale(t, 1)
	id := devN(0)
	good, last := x.code(id), ""
	for range 22 {
		_, err := x.svc.Claim(t.Context(), x.b, owner.Claim{Device: id, Code: owner.NewCode()})
		f, ok := errors.AsType[*fault.Fault](err)
		if !ok {
			t.Fatal(err)
		}
		last = f.Code
	}
	if last != "claim.often" {
		t.Errorf("after many wrong codes: %s", last)
	}
	if _, err := x.svc.Claim(t.Context(), x.b, owner.Claim{Device: id, Code: good}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("the good one, from who has guessed: %v", err)
	}
	x.claim(x.a, id, good) // who has it is not kept out by who guesses
}

// A check-in that began before a device was handed on does not bring back what was forgotten for it.
func TestACheckinAcrossATransferBringsNothingBack(t *testing.T) {
	x := newSale(t, 1)
	id := devN(0)
	x.a = x.claim(x.a, id, x.code(id))
	before, err := x.db.Devices().Device(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	r := device.Report{From: before, State: before.State, Twin: before.Twin, AckedSeq: before.AckedSeq, Token: before.Token, At: x.now}
	r.Twin.Reported = []wire.ConfigEntry{{Name: "rate", Value: "12"}}
	if _, err := x.svc.Transfer(t.Context(), x.a, owner.Order{Devices: []string{id}, Kind: owner.Resale, Reason: "sold"}); err != nil {
		t.Fatal(err)
	}
	if err := x.db.Devices().ApplyReport(t.Context(), r); !errors.Is(err, device.ErrChanged) {
		t.Errorf("%v", err)
	}
	if d, err := x.db.Devices().Device(t.Context(), id); err != nil || len(d.Twin.Reported) != 0 {
		t.Errorf("%v, %v", d.Twin.Reported, err)
	}
}
