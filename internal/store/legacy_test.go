package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire/mender"
)

// clients is a rollout's world with a client of another update system in it, which says that it runs the old release.
type clients struct {
	*roll
	svc *legacy.Service
	id  string
}

func newClients(t *testing.T) *clients {
	t.Helper()
	c := &clients{roll: newRoll(t, 0)}
	var err error
	if c.svc, err = legacy.New(legacy.Config{Guard: c.guard, Store: c.db.Legacy(), Products: product.New(c.guard, c.db, nil), Now: func() time.Time { return c.now }}); err != nil {
		t.Fatal(err)
	}
	l, err := c.svc.Admit(t.Context(), person("sam"), legacy.Admission{Kind: legacy.DDI, Product: "pump", Name: "door-1"})
	if err != nil {
		t.Fatal(err)
	}
	c.id = l.Client.Device
	c.saysVersion("1.0.0")
	return c
}

func (c *clients) self() access.Caller { return access.DeviceCaller(c.id) }

func (c *clients) saysVersion(version string) {
	c.t.Helper()
	if err := errors.Join(c.devices.Runs(c.t.Context(), c.self(), c.id, version), c.devices.Flush(c.t.Context())); err != nil {
		c.t.Fatal(err)
	}
}

func (c *clients) offered() device.Offer {
	c.t.Helper()
	o, err := c.devices.Offer(c.t.Context(), c.self(), c.id)
	if err := errors.Join(err, c.devices.Flush(c.t.Context())); err != nil {
		c.t.Fatal(err)
	}
	return o
}

func (c *clients) answers(o device.Offer, said device.Said) {
	c.t.Helper()
	if err := c.devices.Answer(c.t.Context(), c.self(), c.id, device.Answer{Number: o.Number, Said: said, Text: "because"}); err != nil {
		c.t.Fatal(err)
	}
}

// brings starts a rollout of the new release, and gives what the client is offered by it.
func (c *clients) brings(id string) device.Offer {
	c.t.Helper()
	c.begin(rollout.Spec{
		ID: id, Product: "pump", Release: c.new.Digest[:], Selection: rollout.Selection{IDs: []string{c.id}}, Assurance: device.Says, Waves: []rollout.Wave{{Deadline: 3600}},
	})
	c.tick(time.Second)
	c.now = c.now.Add(time.Second)
	o := c.offered()
	if o.Number == 0 || o.Cancel || !bytes.Equal(o.Digest, c.new.Digest[:]) || o.Release.Version != "1.1.0" {
		c.t.Fatalf("it is offered %+v", o)
	}
	return o
}

// Success was recorded while the device still ran the old image, and the rollout went on (hawkbit#3185, rauc-hawkbit-updater#161).
func TestHawkbit3185SuccessIsNotWhatStillRunsTheOldImage(t *testing.T) {
	c := newClients(t)
	o := c.brings("r1")
	c.answers(o, device.Succeeded)
	if again := c.offered(); again.Number != 0 || !again.Unsure {
		t.Fatalf("after its success it is told %+v", again)
	}
	c.saysVersion("1.0.0") // it has not restarted yet
	c.tick(time.Minute)
	if r := c.phase("r1", rollout.Running, 1); r.Last.Good != 0 {
		t.Fatalf("a device that runs the old image is good: %+v", r.Last)
	}
	c.tick(time.Hour) // and never does
	if r := c.phase("r1", rollout.Halted, 1); r.Last.Failed != 1 {
		t.Fatalf("counts %+v", r.Last)
	}

	c = newClients(t)
	c.answers(c.brings("r2"), device.Succeeded)
	c.saysVersion("1.1.0")
	if now := c.offered(); now.Unsure {
		t.Error("it said what it runs, and is asked again")
	}
	c.tick(time.Second)
	if r := c.phase("r2", rollout.Completed, 1); r.Last.Good != 1 || r.Last.ByWord != 1 {
		t.Fatalf("counts %+v", r.Last)
	}
	if k := c.kinds(c.id); k[string(ledger.KindDeviceUpdated)] != 1 || k[string(ledger.KindDeviceHealthy)] != 2 {
		t.Errorf("facts %v", k)
	}
}

// Bricked devices never counted as failures (hawkbit#693).
func TestHawkbit693ABrickedDeviceIsAFailure(t *testing.T) {
	c := newClients(t)
	o := c.brings("r1")
	c.answers(o, device.Working) // and that is the last of it
	c.tick(30 * time.Minute)
	c.phase("r1", rollout.Running, 1)
	c.tick(31 * time.Minute)
	r := c.phase("r1", rollout.Halted, 1)
	if r.Last.Failed != 1 || r.Last.Good != 0 {
		t.Fatalf("counts %+v", r.Last)
	}
}

// After a fall-back to the old bank the server refused to offer the same again (hawkbit#446, #1399).
func TestHawkbit446ADeviceThatFellBackIsOfferedAgain(t *testing.T) {
	c := newClients(t)
	first := c.brings("r1")
	c.answers(first, device.Succeeded)
	c.saysVersion("1.1.0")
	c.tick(time.Second)
	c.phase("r1", rollout.Completed, 1)
	c.saysVersion("1.0.0") // it fell back by itself
	second := c.brings("r2")
	if second.Number <= first.Number {
		t.Errorf("action %d comes after action %d", second.Number, first.Number)
	}
	c.answers(second, device.Failing)
	c.tick(time.Second)
	c.phase("r2", rollout.RolledBack, 1) // it runs the old one: nothing has to be sent back
	c.brings("r3")                       // what failed is offered again as well
}

// What is answered late, twice, to the contrary or for others changes nothing.
func TestAnswersOfClients(t *testing.T) {
	c := newClients(t)
	o := c.brings("r1")
	if c.offered().Number != o.Number {
		t.Fatal("it is offered something else before it answered")
	}
	ctx, before := t.Context(), c.kinds(c.id)
	other, err := c.svc.Admit(ctx, person("sam"), legacy.Admission{Kind: legacy.DDI, Product: "pump", Name: "door-2"})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		id     string
		number int32
		said   device.Said
		code   string
	}{
		{c.id, o.Number + 1000, device.Succeeded, "offer.unknown"},
		{other.Client.Device, o.Number, device.Succeeded, "offer.unknown"},
		{c.id, o.Number, "exploded", "offer.answer"},
		{c.id, o.Number, device.Working, ""},
		{c.id, o.Number, device.Working, ""},
	} {
		if err := c.devices.Answer(ctx, access.DeviceCaller(x.id), x.id, device.Answer{Number: x.number, Said: x.said}); codeOf(err) != x.code {
			t.Errorf("%+v: %v", x, err)
		}
	}
	if err := c.devices.Answer(ctx, access.DeviceCaller(other.Client.Device), c.id, device.Answer{Number: o.Number, Said: device.Succeeded}); codeOf(err) != "device.other" {
		t.Errorf("in another's name: %v", err)
	}
	if now := c.kinds(c.id); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("facts %v, and %v before", now, before)
	}
	c.answers(o, device.Succeeded)
	for _, x := range []struct {
		said device.Said
		code string
	}{{device.Succeeded, ""}, {device.Working, ""}, {device.Failing, "offer.ended"}, {device.GaveUp, "offer.ended"}} {
		if err := c.devices.Answer(ctx, c.self(), c.id, device.Answer{Number: o.Number, Said: x.said}); codeOf(err) != x.code {
			t.Errorf("after the end, %s: %v", x.said, err)
		}
	}
	if k := c.kinds(c.id); k[string(ledger.KindDeviceUpdated)] != 1 {
		t.Errorf("facts %v", k)
	}
	if _, err := c.devices.Offered(ctx, c.self(), c.id, o.Number); codeOf(err) != "offer.ended" {
		t.Errorf("what has ended is offered: %v", err)
	}
}

// A client is told to leave off; one that is too far goes on, and its word counts.
func TestClientsLeaveOff(t *testing.T) {
	for _, far := range []bool{false, true} {
		c := newClients(t)
		o := c.brings("r1")
		if _, err := c.roll.svc.Abort(t.Context(), person("op"), "r1", "another first"); err != nil {
			t.Fatal(err)
		}
		c.tick(time.Second)
		c.phase("r1", rollout.Aborted, 1)
		off := c.offered()
		if !off.Cancel || off.Number != o.Number {
			t.Fatalf("it is told %+v", off)
		}
		if !far {
			c.answers(off, device.GaveUp)
			if now := c.offered(); now.Number != 0 {
				t.Errorf("it left off, and is told %+v", now)
			}
			continue
		}
		c.answers(off, device.KeepsOn)
		if on := c.offered(); on.Number != 0 {
			t.Fatalf("it keeps on, and is told %+v", on)
		}
		c.answers(o, device.Succeeded)
		c.saysVersion("1.1.0")
		d, err := c.devices.Get(t.Context(), person("op"), c.id)
		if err != nil || d.Twin.Version != "1.1.0" || !bytes.Equal(d.Twin.Release, c.new.Digest[:]) {
			t.Errorf("it runs %s: %v", d.Twin.Version, err)
		}
	}
}

// Nothing is offered that a device of ours would not be given, and nobody who enforces what it is told is offered anything.
func TestWhatClientsAreNotOffered(t *testing.T) {
	c := newClients(t)
	c.begin(rollout.Spec{ID: "r1", Product: "pump", Release: c.new.Digest[:], Selection: rollout.Selection{IDs: []string{c.id}}, Assurance: device.Says, Waves: []rollout.Wave{{Deadline: 3600}}})
	c.tick(time.Second)
	c.ledger.witnessed = false
	if o := c.offered(); o.Number != 0 {
		t.Fatalf("before the witnesses saw it: %+v", o)
	}
	c.ledger.witnessed = true
	if o := c.offered(); o.Number == 0 {
		t.Fatal("it is offered nothing")
	}
	if _, err := c.releases.Withdraw(t.Context(), person("rm"), c.new.Digest, "bad"); err != nil {
		t.Fatal(err)
	}
	if o := c.offered(); !o.Cancel {
		t.Fatalf("what was withdrawn: %+v", o)
	}
	c.make(devN(0), c.old)
	if _, err := c.devices.Offer(t.Context(), access.DeviceCaller(devN(0)), devN(0)); codeOf(err) != "offer.enforces" {
		t.Errorf("a device of ours asks: %v", err)
	}
}

func TestStrangersAreRememberedWithinABound(t *testing.T) {
	db := storetest.Open(t)
	s := db.Legacy()
	now := time.Now()
	ask := func(product, name string, at time.Time) error {
		return s.Ask(t.Context(), legacy.Client{Kind: legacy.DDI, Product: product, Name: name, Asked: at}, at.Add(-time.Hour), 3, 5)
	}
	for i := range 5 {
		if err, want := ask("pump", fmt.Sprint("n", i), now), map[bool]error{true: legacy.ErrFull, false: nil}[i >= 3]; !errors.Is(err, want) {
			t.Errorf("stranger %d: %v, want %v", i, err, want)
		}
		if err, want := ask("lock", fmt.Sprint("n", i), now), map[bool]error{true: legacy.ErrFull, false: nil}[i >= 2]; !errors.Is(err, want) {
			t.Errorf("stranger %d of another product: %v, want %v", i, err, want)
		}
	}
	if err := ask("pump", "n0", now); !errors.Is(err, legacy.ErrExists) {
		t.Errorf("who asked before: %v", err)
	}
	list, err := s.Clients(t.Context(), "pump", legacy.Pending, "ddi/n0", 10)
	if err != nil || len(list) != 2 || list[0].Name != "n1" {
		t.Errorf("behind the first: %+v %v", list, err)
	}
	if err := ask("pump", "n9", now.Add(2*time.Hour)); err != nil {
		t.Errorf("when the others were forgotten: %v", err)
	}
	if list, err = s.Clients(t.Context(), "pump", "", "", 10); err != nil || len(list) != 1 || list[0].Name != "n9" {
		t.Errorf("who asked long ago and was not let in: %+v %v", list, err)
	}
}

// A client is let in again under the ID that it had, by another token.
func TestAClientIsLetInAgain(t *testing.T) {
	c := newClients(t)
	d, err := c.devices.Get(t.Context(), person("op"), c.id)
	if err != nil || d.Assurance != device.Says || d.Legitimacy != device.Imported || d.State != device.Active {
		t.Fatalf("%+v %v", d, err)
	}
	l, err := c.svc.Admit(t.Context(), person("sam"), legacy.Admission{Kind: legacy.DDI, Product: "pump", Name: "door-1"})
	if err != nil || l.Client.Device != c.id || l.Token == "" {
		t.Fatalf("again: %+v %v", l, err)
	}
	if _, err := c.svc.Identify(t.Context(), legacy.DDI, "pump", "door-1", legacy.Proof{Token: l.Token}); err != nil {
		t.Error(err)
	}
	for what, p := range map[string]legacy.Proof{"nothing": {}, "another token": {Token: "x"}, "a key": {Key: make([]byte, 32)}, "a gateway": {Gateway: l.Token}} {
		if _, err := c.svc.Identify(t.Context(), legacy.DDI, "pump", "door-1", p); !errors.Is(err, legacy.ErrStranger) {
			t.Errorf("by %s: %v", what, err)
		}
	}
}

// A client has no trust bundle and takes none: it is not told, again and again, of one that it never answers for.
func TestAClientIsToldOfNoTrustBundle(t *testing.T) {
	c := newClients(t)
	if err := c.devices.DistributeBundle(t.Context(), access.Internal("test"), "pump"); err != nil {
		t.Fatal(err)
	}
	if cs, err := c.devices.DeviceCommands(t.Context(), person("olga"), c.id); err != nil || len(cs) != 0 {
		t.Errorf("%+v, %v", cs, err)
	}
}

// What artifacts are called is read once, and by it a client says what it runs; what it wrote of an action is kept for a while.
func TestHeadsAndLogs(t *testing.T) {
	c := newClients(t)
	s := c.db.Legacy()
	headless, err := s.Headless(t.Context(), "pump", 16)
	if err != nil || len(headless) == 0 {
		t.Fatalf("%x %v", headless, err)
	}
	for i, d := range headless {
		if _, ok, err := s.Head(t.Context(), d); ok || err != nil {
			t.Fatalf("something is kept: %v", err)
		}
		h := mender.Head{}
		if i == 0 {
			h = mender.Head{Name: "pump-a", DeviceTypes: []string{"board"}}
		}
		for range 2 {
			if err := s.KeepHead(t.Context(), d, h); err != nil {
				t.Fatal(err)
			}
		}
		if got, ok, err := s.Head(t.Context(), d); err != nil || !ok || got.Name != h.Name || len(got.DeviceTypes) != len(h.DeviceTypes) {
			t.Errorf("kept %+v, %v %v", got, ok, err)
		}
	}
	if again, err := s.Headless(t.Context(), "pump", 16); err != nil || len(again) != 0 {
		t.Errorf("again %x %v", again, err)
	}
	for _, x := range [][3]string{{"pump", "pump-a", "1."}, {"pump", "pump-b", ""}, {"pump", "", ""}, {"valve", "pump-a", ""}} {
		versions, err := s.Named(t.Context(), x[0], x[1])
		if version := strings.Join(versions, " "); err != nil || (version == "") != (x[2] == "") || !strings.HasPrefix(version, x[2]) {
			t.Errorf("%s of %s is version %q: %v", x[1], x[0], version, err)
		}
	}

	o := c.brings("r1")
	l := legacy.Log{Number: o.Number, At: c.now, Messages: []legacy.Message{{At: "t", Level: "error", Text: "it failed"}}}
	if err := s.KeepLog(t.Context(), c.id, l, c.now.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := s.KeepLog(t.Context(), "another", l, c.now); !errors.Is(err, legacy.ErrNotFound) {
		t.Errorf("a log of another's action: %v", err)
	}
	if got, err := s.Logs(t.Context(), c.id); err != nil || len(got) != 1 || got[0].Messages[0] != l.Messages[0] {
		t.Errorf("kept %+v %v", got, err)
	}
	l.Number, l.At = o.Number, c.now.Add(2*time.Hour)
	if err := s.KeepLog(t.Context(), c.id, l, c.now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Logs(t.Context(), c.id); err != nil || len(got) != 1 || !got[0].At.After(c.now) {
		t.Errorf("in place of the one before: %+v %v", got, err)
	}
}

// A client with a key gets a token for a week; whoever shows another key, or comes later, does not.
func TestATokenForAWhile(t *testing.T) {
	c := newClients(t)
	key := bytes.Repeat([]byte{7}, 32)
	if _, err := c.svc.Admit(t.Context(), person("sam"), legacy.Admission{Kind: legacy.Mender, Product: "pump", Name: "serial=1", Key: key}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.svc.Enter(t.Context(), legacy.Mender, "pump", "serial=1", bytes.Repeat([]byte{8}, 32)); !errors.Is(err, legacy.ErrStranger) {
		t.Errorf("by another key: %v", err)
	}
	token, err := c.svc.Enter(t.Context(), legacy.Mender, "pump", "serial=1", key)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []legacy.Kind{legacy.Mender, legacy.DDI} {
		if _, err := c.svc.Entered(t.Context(), kind, token); (err == nil) != (kind == legacy.Mender) {
			t.Errorf("as %s: %v", kind, err)
		}
	}
	c.now = c.now.Add(7*24*time.Hour - time.Second)
	if _, err := c.svc.Entered(t.Context(), legacy.Mender, token); err != nil {
		t.Errorf("a week later: %v", err)
	}
	c.now = c.now.Add(time.Second)
	if _, err := c.svc.Entered(t.Context(), legacy.Mender, token); !errors.Is(err, legacy.ErrStranger) {
		t.Errorf("after its time: %v", err)
	}
}
