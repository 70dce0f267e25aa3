package store_test

import (
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/wire"
)

// disown is a warrant to let a device go.
func (x *sale) disown(name, id string, of []byte) wire.Warrant {
	x.t.Helper()
	set, err := wire.SetOf([]string{id})
	if err != nil {
		x.t.Fatal(err)
	}
	now := uint64(x.now.Unix())
	return wire.Warrant{ID: name, Product: "pump", Act: wire.ActDisown, Devices: set, Issued: now, Expires: now + 30*24*3600, Owner: of}
}

// letGo has the device say that it does.
func (x *sale) letGo(id string) {
	x.t.Helper()
	x.tick()
	all := x.commands(id, wire.ActDisown)
	x.says(id, x.rel, true, false, map[string]wire.Outcome{all[len(all)-1]: wire.OutcomeDone})
	x.tick()
}

// owns fails the test when a device belongs to somebody else.
func (x *sale) owns(id string, c access.Caller) {
	x.t.Helper()
	all, err := x.svc.Lineage(x.t.Context(), person("sam"), id)
	if err != nil || len(all) == 0 || !all[len(all)-1].Until.IsZero() {
		x.t.Errorf("the device belongs to nobody any more: %+v, %v", all, err)
	}
	if d, err := x.devices.Get(x.t.Context(), person("olga"), id); err != nil || d.Group != access.OwnerGroup(c.Owner) {
		x.t.Errorf("it is in %q, %v", d.Group, err)
	}
}

// A warrant ends the time of ownership that it was signed for, and no later one: neither that of a former owner's key, which is on record, nor a maker's that was used, or is over.
func TestAWarrantThatIsOnRecordTakesNothingFromTheNextOwner(t *testing.T) {
	x := newSale(t, 1)
	id := devN(0)
	key := newKey(t)
	if _, err := x.svc.Claim(t.Context(), x.a, owner.Claim{Device: id, Code: x.code(id), Key: spki(t, key)}); err != nil {
		t.Fatal(err)
	}
	x.a = x.member(x.a)
	seen, err := x.svc.Preview(t.Context(), x.a, []string{id})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := wire.EncodeWarrant(x.disown("of-a", id, seen[0].Digest))
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := wire.NewThreshold(wire.TypeWarrant, payload, key)
	if err != nil {
		t.Fatal(err)
	}
	begun, err := x.svc.Transfer(t.Context(), x.a, owner.Order{Devices: []string{id}, Kind: owner.Resale, Reason: "sold", Warrants: [][]byte{envelope}})
	if err != nil {
		t.Fatal(err)
	}
	x.letGo(id)
	x.now = x.now.Add(time.Hour)
	x.b = x.claim(x.b, id, begun[0].Code)

	makers := func(name string) []byte {
		payload, err := wire.EncodeWarrant(x.disown(name, id, nil))
		if err != nil {
			t.Fatal(err)
		}
		return x.sign(wire.TypeWarrant, payload, 0, 1)
	}
	take := func(warrant []byte) error {
		_, err := x.svc.Transfer(t.Context(), person("olga"), owner.Order{Devices: []string{id}, Kind: owner.Resale, Reason: "x", Warrants: [][]byte{warrant}})
		return err
	}
	over := makers("over")
	if _, err := x.devices.SubmitWarrant(t.Context(), person("sam"), over, []string{id}); err != nil {
		t.Fatal(err)
	}
	x.now = x.now.Add(31 * 24 * time.Hour)
	for what, w := range map[string][]byte{"a former owner's": envelope, "the maker's, which is over": over} {
		if err := take(w); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", what, err)
		}
		x.owns(id, x.b)
	}
	used := makers("used")
	if err := take(used); err != nil {
		t.Fatalf("the maker's own: %v", err)
	}
	x.letGo(id)
	x.now = x.now.Add(time.Hour)
	x.a = x.claim(x.a, id, x.code(id))
	if err := take(used); fault.KindOf(err) != fault.Invalid {
		t.Errorf("the same again, of the next owner: %v", err)
	}
	x.owns(id, x.a)
}

// Who stole a device has its owner's rights perhaps: what the maker has said of it does not end by them.
func TestNothingThatAnOwnerDoesFreesAStolenDevice(t *testing.T) {
	x := newSale(t, 1)
	id := devN(0)
	x.a = x.claim(x.a, id, x.code(id))
	command := func(act wire.Act, ttl time.Duration) error {
		_, err := x.devices.Command(t.Context(), x.a, device.Instruction{Product: "pump", Act: act, Devices: []string{id}, Reason: "x", TTL: ttl})
		return err
	}
	held := func() int { return len(x.commands(id, wire.ActQuarantine)) }
	// Their own quarantine, of a second, is not the maker's.
	if err := command(wire.ActQuarantine, time.Second); err != nil {
		t.Fatal(err)
	}
	// And their own mark does not keep the maker's out.
	if err := x.svc.Steal(t.Context(), x.a, id, "gone"); err != nil {
		t.Fatal(err)
	}
	before := held()
	if err := x.svc.Steal(t.Context(), person("sam"), id, "not paid"); err != nil {
		t.Errorf("the maker's mark over the owner's: %v", err)
	}
	if before != 2 {
		t.Errorf("told to hold still %d times, with their own", before)
	}
	if err := x.svc.Found(t.Context(), x.a, id, "here it is"); fault.KindOf(err) != fault.Denied {
		t.Errorf("they lift the maker's mark: %v", err)
	}
	for _, act := range []wire.Act{wire.ActRelease, wire.ActWake, wire.ActDormant} {
		if err := command(act, time.Second); fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: %v", act, err)
		}
	}
	for _, c := range x.commands(id, wire.ActQuarantine) {
		if err := x.devices.CancelCommand(t.Context(), x.a, c, "x"); fault.KindOf(err) != fault.Denied {
			t.Errorf("they cancel what holds it: %v", err)
		}
	}
	x.now = x.now.Add(5 * 24 * time.Hour)
	n := held()
	x.tick()
	if held() != n+1 {
		t.Error("the hold was not renewed")
	}
	for _, ev := range []device.Event{device.Maintain, device.Resume} {
		if _, err := x.devices.Move(t.Context(), x.a, id, ev, nil, "x"); err == nil {
			t.Errorf("%s", ev)
		}
	}
}

// What a recall says ends by the word of who may recall.
func TestNobodyJudgesAMarkAway(t *testing.T) {
	x := newSale(t, 1)
	id := devN(0)
	if err := x.svc.Steal(t.Context(), person("sam"), id, "gone"); err != nil {
		t.Fatal(err)
	}
	for _, l := range []device.Legitimacy{device.Genuine, device.Resold} {
		if err := x.devices.Judge(t.Context(), person("olga"), id, l, nil, "x"); fault.KindOf(err) != fault.Conflict {
			t.Errorf("judged %s: %v", l, err)
		}
	}
	for _, l := range []device.Legitimacy{device.Stolen, device.Recalled} {
		if err := x.devices.Judge(t.Context(), person("olga"), id, l, nil, "x"); fault.KindOf(err) != fault.Invalid {
			t.Errorf("judged %s, without a mark: %v", l, err)
		}
	}
	if d, err := x.devices.Get(t.Context(), person("olga"), id); err != nil || d.Legitimacy != device.Stolen {
		t.Errorf("%s, %v", d.Legitimacy, err)
	}
	if err := x.svc.Mended(t.Context(), person("sam"), id, "", "x"); fault.KindOf(err) != fault.NotFound {
		t.Error(err)
	}
	if d, err := x.devices.Get(t.Context(), person("olga"), id); err != nil || d.Legitimacy != device.Stolen {
		t.Errorf("mended of no recall: %s, %v", d.Legitimacy, err)
	}
	// A mark that is set while a sale is prepared is not sold over.
	if err := x.svc.Found(t.Context(), person("sam"), id, "here"); err != nil {
		t.Fatal(err)
	}
	x.a = x.claim(x.a, id, x.code(id))
	if err := x.svc.Steal(t.Context(), person("sam"), id, "not paid"); err != nil {
		t.Fatal(err)
	}
	if _, err := x.svc.Transfer(t.Context(), x.a, owner.Order{Devices: []string{id}, Kind: owner.Resale, Reason: "sold"}); fault.KindOf(err) != fault.Conflict {
		t.Errorf("sold while it is stolen: %v", err)
	}
}

// A suspicion ends by the maker's word alone.
func TestLosingAndFindingClearsNoSuspicion(t *testing.T) {
	x := newSale(t, 1)
	id := devN(0)
	if _, err := x.devices.Move(t.Context(), access.Internal("test"), id, device.Suspect, nil, "two of them"); err != nil {
		t.Fatal(err)
	}
	_, _ = x.devices.Move(t.Context(), person("olga"), id, device.Lose, nil, "x") // it may be lost; that is no answer to whether it is two
	_, _ = x.devices.Move(t.Context(), person("olga"), id, device.Find, nil, "x")
	if d, err := x.devices.Get(t.Context(), person("olga"), id); err != nil || d.State != device.Suspected {
		t.Errorf("%s, %v", d.State, err)
	}
}
