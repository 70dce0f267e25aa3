package store_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/wire"
)

// offer is that of another instance, which has the product under the ID.
func (x *sale) offer(product string, managers ...wire.BootManager) []byte {
	x.t.Helper()
	payload, err := wire.EncodeBundle(wire.Bundle{
		Version: 4, Product: product, Root: x.role, Release: x.role, Warrant: x.role, Directive: wire.KeySet{Keys: x.role.Keys[:1], Threshold: 1},
		Control: wire.LogTrust{Origin: "own/c", Key: bytes.Repeat([]byte{3}, 32)}, Events: wire.LogTrust{Origin: "own/e", Key: bytes.Repeat([]byte{4}, 32)},
		Anchors: [][]byte{{1}}, Issued: uint64(x.now.Unix()), Suites: []string{"HM-P256-1"}, BootManagers: managers,
	})
	if err != nil {
		x.t.Fatal(err)
	}
	data, err := wire.EncodeHomeOffer(wire.HomeOffer{V: 1, Bundle: x.sign(wire.TypeBundle, payload, 0, 1), Server: "https://own.example"})
	if err != nil {
		x.t.Fatal(err)
	}
	return data
}

// leave is the warrant of people by which devices go where the offer is of.
func (x *sale) leave(offer []byte, devices []string, change func(w *wire.Warrant), who ...int) []byte {
	x.t.Helper()
	o, _, err := wire.DecodeHomeOffer(offer)
	if err != nil {
		x.t.Fatal(err)
	}
	home, err := o.Home()
	if err != nil {
		x.t.Fatal(err)
	}
	set, err := wire.SetOf(devices)
	if err != nil {
		x.t.Fatal(err)
	}
	w := wire.Warrant{ID: "h1", Product: "pump", Act: wire.ActRehome, Devices: set, Issued: uint64(x.now.Unix()), Expires: uint64(x.now.Add(time.Hour).Unix()), Home: &home}
	if change != nil {
		change(&w)
	}
	payload, err := wire.EncodeWarrant(w)
	if err != nil {
		x.t.Fatal(err)
	}
	return x.sign(wire.TypeWarrant, payload, who...)
}

func TestADeviceThatIsHandedOverHasItsCertificateUntilItHasGone(t *testing.T) {
	x := newSale(t, 3)
	id := devN(0)
	x.a = x.claim(x.a, id, x.code(id))
	two := person("sam")
	two.Seconded = "person:olga"
	offer := x.offer("pump")
	order := owner.Order{Devices: []string{id}, Kind: owner.Rehome, Reason: "their own", Offer: offer}
	refused := func(what, want string, caller access.Caller, change func(o *owner.Order)) {
		t.Helper()
		o := order
		o.Warrants = [][]byte{x.leave(offer, []string{id}, nil, 0, 1)}
		change(&o)
		_, err := x.svc.Transfer(t.Context(), caller, o)
		if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != want {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	refused("by one person", "access.four-eyes", person("sam"), func(*owner.Order) {})
	refused("without a warrant", "rehome.warrant", two, func(o *owner.Order) { o.Warrants = nil })
	refused("by one of the offline keys", "warrant.invalid", two, func(o *owner.Order) { o.Warrants = [][]byte{x.leave(offer, []string{id}, nil, 0)} })
	refused("by a warrant to somewhere else", "rehome.warrant", two, func(o *owner.Order) {
		o.Warrants = [][]byte{x.leave(offer, []string{id}, func(w *wire.Warrant) { w.Home.Server = "https://thief.example" }, 0, 1)}
	})
	refused("by a warrant of another ownership", "rehome.warrant", two, func(o *owner.Order) {
		o.Warrants = [][]byte{x.leave(offer, []string{id}, func(w *wire.Warrant) { w.Owner = bytes.Repeat([]byte{1}, 32) }, 0, 1)}
	})
	refused("by a warrant of other devices", "warrant.invalid", two, func(o *owner.Order) { o.Warrants = [][]byte{x.leave(offer, []string{devN(1)}, nil, 0, 1)} })
	refused("to another product", "rehome.product", two, func(o *owner.Order) { o.Offer = x.offer("kettle") })
	refused("with no offer", "transfer.kind", two, func(o *owner.Order) { o.Offer = nil })
	refused("with nonsense for an offer", "rehome.offer", two, func(o *owner.Order) { o.Offer = []byte("x") })
	refused("sold, with an offer", "transfer.kind", two, func(o *owner.Order) { o.Kind = owner.Resale })

	order.Warrants = [][]byte{x.leave(offer, []string{id}, nil, 0, 1)}
	begun, err := x.svc.Transfer(t.Context(), two, order)
	if err != nil || begun[0].Code != "" || begun[0].Transfer.Server != "https://own.example" || begun[0].Transfer.Offer != nil {
		t.Fatalf("%+v, %v", begun, err)
	}
	if x.a = x.member(x.a); x.a.Scope[0] != "?" {
		t.Errorf("its owner still has %v", x.a.Scope)
	}
	for range 3 { // and the server starts again and again
		x.open()
		x.tick()
	}
	cmds := x.commands(id, wire.ActRehome)
	if len(cmds) != 1 || len(x.certs.revoked) != 0 {
		t.Fatalf("told %v, revoked %v", cmds, x.certs.revoked)
	}
	x.says(id, x.rel, true, false, map[string]wire.Outcome{cmds[0]: wire.OutcomeDone})
	x.tick()
	if len(x.certs.revoked) != 1 || x.certs.revoked[0] != "l"+id {
		t.Errorf("revoked %v", x.certs.revoked)
	}
	if d, err := x.devices.Get(t.Context(), person("olga"), id); err != nil || d.State != device.Moved || d.Group != "" {
		t.Errorf("%+v, %v", d, err)
	}
	tr, err := x.svc.LastTransfer(t.Context(), person("sam"), id)
	if err != nil || tr.Done.IsZero() || tr.Offer != nil {
		t.Errorf("%+v, %v", tr, err)
	}
	if _, err := x.devices.Command(t.Context(), person("olga"), device.Instruction{Product: "pump", Act: wire.ActReset, Devices: []string{id}, Reason: "x"}); err == nil {
		t.Error("it is commanded after it has gone")
	}
	refused("once more", "transfer.state", two, func(*owner.Order) {})
}

// A device that demands a boot manager which its trust bundle names is not sent where none is named that could start it: that is said here, before anybody signs.
func TestADeviceGoesOnlyWhereItsBootManagerMayStart(t *testing.T) {
	x := newSale(t, 1)
	id, two := devN(0), person("sam")
	two.Seconded = "person:olga"
	d, err := x.devices.Get(t.Context(), person("olga"), id)
	if err != nil {
		t.Fatal(err)
	}
	manager := func(n byte, hardware ...string) wire.BootManager {
		return wire.BootManager{Digest: bytes.Repeat([]byte{n}, 32), Hardware: hardware}
	}
	asked := func(offer []byte) string {
		t.Helper()
		_, err := x.svc.Transfer(t.Context(), two, owner.Order{Devices: []string{id}, Kind: owner.Rehome, Reason: "their own", Offer: offer})
		return codeOf(err)
	}
	const goes = "rehome.warrant" // the next thing that is looked at
	if got := asked(x.offer("pump")); got != goes {
		t.Errorf("where nobody names any: %s", got)
	}
	x.publishBundle(2, manager(7, d.Hardware), manager(8, "another"))
	for what, c := range map[string]struct {
		there []wire.BootManager
		want  string
	}{
		"names none":                      {nil, "rehome.boot-manager"},
		"names others":                    {[]wire.BootManager{manager(9)}, "rehome.boot-manager"},
		"names it for other hardware":     {[]wire.BootManager{manager(7, "another")}, "rehome.boot-manager"},
		"names that of other hardware":    {[]wire.BootManager{manager(8)}, "rehome.boot-manager"},
		"names it":                        {[]wire.BootManager{manager(7)}, goes},
		"names it among others, for this": {[]wire.BootManager{manager(9), manager(7, "another", d.Hardware)}, goes},
	} {
		if got := asked(x.offer("pump", c.there...)); got != c.want {
			t.Errorf("to one that %s: %s, want %s", what, got, c.want)
		}
	}
}

// behind is what a node has read of handovers a while ago.
type behind struct {
	owner.Transfers
	open []owner.Transfer
}

func (b behind) OpenTransfers(context.Context, string, int) ([]owner.Transfer, error) {
	return b.open, nil
}

// A handover that is given up leaves the device with whom it was, unless it may have gone: who was told is never called back.
func TestAHandoverIsGivenUpUnlessTheDeviceMayHaveGone(t *testing.T) {
	x := newSale(t, 2)
	id, told := devN(0), devN(1)
	x.a = x.claim(x.a, id, x.code(id))
	x.a = x.claim(x.a, told, x.code(told))
	two, offer := together("sam", "olga"), x.offer("pump")
	two.Seconded = "person:olga"
	begin := func(id, name string) {
		t.Helper()
		w := x.leave(offer, []string{id}, func(w *wire.Warrant) { w.ID = name }, 0, 1)
		if _, err := x.svc.Transfer(t.Context(), two, owner.Order{Devices: []string{id}, Kind: owner.Rehome, Reason: "their own", Offer: offer, Warrants: [][]byte{w}}); err != nil {
			t.Fatal(err)
		}
	}
	giveUp := func(what, id, want string) {
		t.Helper()
		if _, err := x.svc.GiveUp(t.Context(), person("sam"), id, "they changed their mind"); codeOf(err) != want {
			t.Fatalf("%s: %v, want %q", what, err, want)
		}
	}
	giveUp("one that is not handed over", id, "rehome.none")
	begin(id, "g1")
	begin(told, "g2")
	cmds := x.commands(told, wire.ActRehome)
	if len(cmds) != 1 {
		t.Fatalf("told %v", cmds)
	}
	if _, err := x.db.Devices().NextCounter(t.Context(), told, cmds[0], 0, false, x.now); err != nil { // it is told
		t.Fatal(err)
	}
	giveUp("one that was told", told, "rehome.told")
	if x.a = x.member(x.a); x.a.Scope[0] != "?" {
		t.Errorf("its owner still has %v", x.a.Scope)
	}

	read, err := x.db.Owners().OpenTransfers(t.Context(), "", 10)
	if err != nil || len(read) != 2 {
		t.Fatalf("%+v, %v", read, err)
	}
	giveUp("one that was not", id, "")
	giveUp("again", id, "rehome.none")
	x.a = x.member(x.a)
	if d, err := x.devices.Get(t.Context(), x.a, id); err != nil || d.Group != "owner/"+x.a.Owner || d.Owned.IsZero() {
		t.Errorf("its owner sees %+v, %v", d, err)
	}
	for range 2 { // nothing tells it to go, not after a start either
		x.open()
		x.tick()
	}
	if out, err := x.db.Devices().Outstanding(t.Context(), id, x.now); err != nil || len(out) != 0 {
		t.Errorf("it is still told %+v, %v", out, err)
	}
	tr, err := x.svc.LastTransfer(t.Context(), person("sam"), id)
	if err != nil || tr.GivenUp.IsZero() || tr.Done.IsZero() || tr.From != "" {
		t.Errorf("%+v, %v", tr, err)
	}
	all, err := x.svc.Lineage(t.Context(), person("sam"), id)
	if err != nil || len(all) != 1 || !all[0].Until.IsZero() || all[0].End != "" {
		t.Errorf("%+v, %v", all, err)
	}

	// A node that had read the handover before cannot send the device away by it.
	o := x.db.Owners()
	late, err := owner.NewService(owner.Config{
		Store: o, Codes: o, Transfers: behind{o, read}, Returns: o, Marks: o, Warrants: o, Devices: x.devices, Certificates: x.certs, Ledger: x.ledger, Guard: x.guard,
		Now: func() time.Time { return x.now.Add(48 * time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	had := len(x.commands(id, wire.ActRehome))
	if err := late.Tick(t.Context()); codeOf(err) != "command.devices" || len(x.commands(id, wire.ActRehome)) != had {
		t.Errorf("a node that is behind: %v, told %v", err, x.commands(id, wire.ActRehome))
	}
	x.now = x.now.Add(time.Minute)
	begin(id, "g3") // and it can be handed over after all
}

func TestADeviceArrivesOnce(t *testing.T) {
	x := newSale(t, 1)
	a := foreign.Arrival{
		Device: devN(7), Product: "pump", Hardware: "A", Certificate: bytes.Repeat([]byte{1}, 32), Identity: bytes.Repeat([]byte{2}, 32), Attest: []byte{3}, KeyOrigin: "soft",
		Made: x.now.Add(-time.Hour), At: x.now,
	}
	arrives := func(what string, want foreign.Outcome, a foreign.Arrival) {
		t.Helper()
		f := ledger.New(ledger.KindDeviceImported, x.now, "person:frank", a.Device, nil, []byte("{}"))
		if got, err := x.db.Foreign().Arrive(t.Context(), a, f); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", what, got, err, want)
		}
	}
	arrives("the first time", foreign.Taken, a)
	arrives("again", foreign.Known, a)
	other := a
	other.Device = devN(8)
	arrives("another with its certificate", foreign.Other, other)
	ours := a
	ours.Device, ours.Certificate = devN(0), bytes.Repeat([]byte{9}, 32)
	arrives("one of ours", foreign.Other, ours)
	d, err := x.devices.Get(t.Context(), person("olga"), a.Device)
	if err != nil || d.State != device.Provisioned || d.Legitimacy != device.Imported || !bytes.Equal(d.AttestKey, a.Attest) || d.KeyOrigin != "soft" {
		t.Errorf("%+v, %v", d, err)
	}
	if n := x.kinds(a.Device)["device.imported"]; n != 1 {
		t.Errorf("%d facts", n)
	}
}
