package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/mender"
	"github.com/hallmark-iot/hallmark/wire/window"
)

// says is a rollout of a release to all clients.
func says(id string, rel release.Release) rollout.Spec {
	return rollout.Spec{ID: id, Product: "pump", Release: rel.Digest[:], Selection: rollout.Selection{All: true}, Assurance: device.Says, Waves: []rollout.Wave{{Deadline: 3600}}}
}

// A client judges nothing of what it is offered, so what changes after it was told is looked at at each poll: it is told to leave off, and what it was not offered yet it is not offered.
func TestAClientIsNotOfferedWhatADeviceWouldRefuse(t *testing.T) {
	for name, turns := range map[string]func(c *clients){
		"of other hardware": func(c *clients) {
			if _, err := c.svc.Admit(t.Context(), person("sam"), legacy.Admission{Kind: legacy.DDI, Product: "pump", Name: "door-1", Hardware: "B"}); err != nil {
				t.Fatal(err)
			}
		},
		"closed":               func(c *clients) { c.closes(2, 5) },
		"withdrawn":            func(c *clients) { c.withdrawn(c.new) },
		"of one that is lost":  func(c *clients) { c.moves(device.Lose) },
		"of a suspected clone": func(c *clients) { c.moves(device.Suspect) },
		"of one at its end":    func(c *clients) { c.moves(device.Retire) },
		"older than it runs":   func(c *clients) { c.publish("1.2.0", c.old); c.saysVersion("1.2.0") },
		"over who knows what":  func(c *clients) { c.saysVersion("build-77") },
		"not over what it has": func(c *clients) { c.saysVersion("0.9.0") },
	} {
		t.Run(name, func(t *testing.T) {
			for _, told := range []bool{true, false} {
				c := newClients(t)
				c.new = c.published("1.1.5", func(spec *release.Spec) {
					spec.Hardware, spec.Over = []string{"A"}, []wire.VersionRange{{From: "1.0.0"}}
				})
				c.begin(says("r1", c.new))
				c.tick(time.Second)
				var o device.Offer
				if told {
					if o = c.offered(); o.Number == 0 || o.Cancel {
						t.Fatalf("before: %+v", o)
					}
				}
				turns(c)
				now := c.offered()
				if !told {
					if now.Number != 0 {
						t.Errorf("it is offered %+v", now)
					}
					continue
				}
				if !now.Cancel || now.Number != o.Number {
					t.Errorf("it is told %+v, and not to leave off %d", now, o.Number)
				}
				if again, err := c.devices.Offered(t.Context(), c.self(), c.id, o.Number); err != nil || !again.Cancel {
					t.Errorf("by its number: %+v %v", again, err)
				}
				c.answers(o, device.GaveUp)
				if now = c.offered(); now.Number != 0 {
					t.Errorf("it left off, and is told %+v", now)
				}
			}
		})
	}
}

func (c *clients) moves(ev device.Event) {
	c.t.Helper()
	if _, err := c.devices.Move(c.t.Context(), access.Internal("t"), c.id, ev, nil, "x"); err != nil {
		c.t.Fatal(err)
	}
}

func (c *clients) withdrawn(rel release.Release) {
	c.t.Helper()
	if _, err := c.releases.Withdraw(c.t.Context(), person("rm"), rel.Digest, "bad"); err != nil {
		c.t.Fatal(err)
	}
}

// It goes back only where the approvers of what it says it runs allowed it.
func TestAClientGoesBackTheAllowedWay(t *testing.T) {
	for version, back := range map[string]bool{"1.1.0": true, "0.9.0": false, "1.2.0": false, "": false} {
		c := newClients(t)
		c.publish("1.2.0")
		c.begin(says("r1", c.new))
		c.tick(time.Second)
		c.answers(c.offered(), device.Succeeded)
		c.saysVersion("1.1.0")
		c.tick(time.Second)
		if _, err := c.roll.svc.Halt(t.Context(), person("op"), "r1", "it burns"); err != nil {
			t.Fatal(err)
		}
		c.tick(time.Second)
		c.tick(time.Second)
		c.saysVersion(version)
		if o := c.offered(); (o.Number != 0) != back || back && (o.Act != wire.ActRollback || o.Cancel || o.Release.Version != "1.0.0") {
			t.Errorf("it says that it runs %q, and is told %+v", version, o)
		}
	}
}

// A client that says no version, or none that can be compared, is in no rollout: it might be newer.
func TestWhoSaysNoVersionIsLeftOut(t *testing.T) {
	for _, version := range []string{"", "v2.0.0", "2.0.0.1", "build-77", "2024-11"} {
		c := newClients(t)
		c.saysVersion(version)
		res, err := c.roll.svc.DryRun(t.Context(), person("op"), says("r1", c.new))
		if codeOf(err) != "rollout.empty" {
			t.Errorf("version %q: for %d, %v", version, len(res.Members), err)
		}
	}
}

// One that was told to leave off and does not is not offered the bad release again, and not kept from the next for ever.
func TestWhoKeepsOnIsOfferedNothingMoreOfIt(t *testing.T) {
	c := newClients(t)
	next := c.publish("1.2.0", c.old)
	o := c.brings("r1")
	if _, err := c.roll.svc.Halt(t.Context(), person("op"), "r1", "it burns"); err != nil {
		t.Fatal(err)
	}
	c.tick(time.Second)
	off := c.offered()
	if !off.Cancel || off.Number != o.Number {
		t.Fatalf("it is told %+v", off)
	}
	c.answers(off, device.KeepsOn)
	c.answers(off, device.KeepsOn)
	c.begin(says("r2", next))
	for range 2 {
		c.tick(time.Minute)
		if now := c.offered(); now.Number != 0 {
			t.Fatalf("it keeps on, and is told %+v", now)
		}
		if again, err := c.devices.Offered(t.Context(), c.self(), c.id, o.Number); err != nil || !again.Cancel {
			t.Fatalf("by its number: %+v %v", again, err)
		}
	}
	c.answers(o, device.Working)
	c.now = c.now.Add(23 * time.Hour)
	if now := c.offered(); now.Number != 0 {
		t.Fatalf("it keeps on for a day less an hour, and is told %+v", now)
	}
	c.now = c.now.Add(2 * time.Hour)
	now := c.offered()
	if _, err := c.devices.Offered(t.Context(), c.self(), c.id, o.Number); codeOf(err) != "offer.ended" {
		t.Errorf("after a day: %+v %v", now, err)
	}
	if now.Number == o.Number {
		t.Errorf("after a day it is told %+v", now)
	}
	if err := c.devices.Answer(t.Context(), c.self(), c.id, device.Answer{Number: o.Number, Said: device.Succeeded}); codeOf(err) != "offer.ended" {
		t.Error(fmt.Errorf("too late: %w", err))
	}
}

// Between its success and its restart a client runs what it ran before, and says so: it has not settled, and is sent back once it shows that it runs what was halted.
func TestAClientThatIsAboutToRestartHasNotSettled(t *testing.T) {
	c := newClients(t)
	c.answers(c.brings("r1"), device.Succeeded)
	if _, err := c.roll.svc.Halt(t.Context(), person("op"), "r1", "it burns"); err != nil {
		t.Fatal(err)
	}
	c.now = c.now.Add(time.Second)
	if o := c.offered(); o.Number != 0 || !o.Unsure {
		t.Errorf("it is told %+v", o)
	}
	c.saysVersion("1.0.0")
	c.tick(time.Second)
	c.phase("r1", rollout.Halted, 1)
	c.now = c.now.Add(time.Minute)
	c.saysVersion("1.1.0") // it has restarted
	for range 3 {
		c.tick(time.Minute)
	}
	o := c.offered()
	if o.Act != wire.ActRollback || o.Cancel || o.Release.Version != "1.0.0" {
		t.Fatalf("it runs what burns, and is told %+v", o)
	}
	c.answers(o, device.Succeeded)
	c.saysVersion("1.0.0")
	c.tick(time.Minute)
	c.phase("r1", rollout.RolledBack, 1)

	c = newClients(t)
	c.answers(c.brings("r2"), device.Succeeded)
	if _, err := c.roll.svc.Halt(t.Context(), person("op"), "r2", "it burns"); err != nil {
		t.Fatal(err)
	}
	c.now = c.now.Add(11 * time.Minute)
	c.saysVersion("1.0.0") // long after it: it fell back
	c.tick(time.Second)
	c.phase("r2", rollout.RolledBack, 1)
}

// After the soak a client has to say once more what it runs: that it calls does not say that. It is asked for it then, and at no other poll.
func TestAClientSaysAgainAfterTheSoak(t *testing.T) {
	for version, want := range map[string]rollout.Phase{"1.1.0": rollout.Completed, "1.0.0": rollout.Halted, "": rollout.Halted} {
		c := newClients(t)
		spec := says("r1", c.new)
		spec.Waves[0].Soak, spec.Waves[0].MaxErrors = 7200, 0
		c.begin(spec)
		c.tick(time.Second)
		c.now = c.now.Add(time.Second)
		c.answers(c.offered(), device.Succeeded)
		c.saysVersion("1.1.0")
		c.tick(time.Second)
		asked := false
		for range 150 {
			if o := c.offered(); o.Unsure {
				if mustRollout(t, c.roll, "r1").Waves[0].Asked.IsZero() {
					t.Fatal("it is asked before the soak is over")
				}
				if asked = true; version != "" {
					c.saysVersion(version)
				}
			}
			c.tick(time.Minute)
		}
		if got := mustRollout(t, c.roll, "r1").Phase; !asked || got != want && (want != rollout.Halted || got == rollout.Completed) {
			t.Errorf("it says %q after the soak: %s, asked %v", version, got, asked)
		}
	}
}

// Two writes beside each other: what a client said is not overwritten by an end of an action that was read before it.
func TestAWordThatWasTakenStays(t *testing.T) {
	c := newClients(t)
	d, err := c.devices.Get(t.Context(), access.Internal("t"), c.id)
	if err != nil {
		t.Fatal(err)
	}
	c.saysVersion("1.1.0")
	stale := device.Report{From: d, State: d.State, GuardUntil: d.GuardUntil, Twin: d.Twin, AckedSeq: d.AckedSeq, Token: d.Token, At: c.now}
	if err := c.db.Devices().ApplyReport(t.Context(), stale); !errors.Is(err, device.ErrChanged) {
		t.Errorf("a report from before: %v", err)
	}
	if d, err = c.devices.Get(t.Context(), access.Internal("t"), c.id); err != nil || d.Twin.Version != "1.1.0" {
		t.Errorf("it said 1.1.0, and is shown with %q: %v", d.Twin.Version, err)
	}
}

// Whose end was decided is given no bytes any more.
func TestARetiredClientDownloadsNothing(t *testing.T) {
	for _, events := range [][]device.Event{{device.Retire}, {device.Retire, device.Wiped}} {
		c := newClients(t)
		open := func() error {
			_, f, err := c.releases.Open(t.Context(), c.self(), "", [32]byte(c.new.Manifest.Components[0].Digest))
			if err == nil {
				err = f.Close()
			}
			return err
		}
		if err := open(); err != nil {
			t.Fatal(err)
		}
		for _, ev := range events {
			c.moves(ev)
		}
		if err := open(); fault.KindOf(err) != fault.NotFound {
			t.Errorf("after %v: %v", events, err)
		}
	}
}

// What a former holder agreed to, and said, is not the next one's.
func TestConsentEndsWithItsHolder(t *testing.T) {
	for _, refused := range []bool{true, false} {
		c := newClients(t)
		ctx := t.Context()
		o := c.brings("r1")
		c.answers(o, device.Agrees)
		cl, err := c.db.Legacy().Client(ctx, legacy.DDI, "pump", "door-1")
		if err != nil {
			t.Fatal(err)
		}
		if cl, err = c.svc.Attributes(ctx, cl, legacy.Merge, map[string]string{"owner": "ann"}); err != nil {
			t.Fatal(err)
		}
		cl.Rev++
		if err := c.svc.AgreesToAll(ctx, cl, true); err != nil {
			t.Fatal(err)
		}
		if refused {
			if _, err := c.svc.Refuse(ctx, person("sam"), legacy.DDI, "pump", "door-1", "sold"); err != nil {
				t.Fatal(err)
			}
		}
		l, err := c.svc.Admit(ctx, person("sam"), legacy.Admission{Kind: legacy.DDI, Product: "pump", Name: "door-1", Consent: true})
		if err != nil || l.Client.Auto || len(l.Client.Attributes) != 0 || !l.Client.Consent {
			t.Errorf("refused %v: %+v %v", refused, l.Client.Details, err)
		}
		if kept, err := c.db.Legacy().Client(ctx, legacy.DDI, "pump", "door-1"); err != nil || kept.Auto || len(kept.Attributes) != 0 {
			t.Errorf("refused %v: %+v %v", refused, kept.Details, err)
		}
		if again := c.offered(); again.Number != o.Number || again.Note.Agreed {
			t.Errorf("refused %v: it is offered %+v", refused, again)
		}
	}
}

// A log that goes on behind a backup ends the clients and gateways that were ended since: neither their tokens nor their keys are good again.
func TestAReplayEndsClientsAndGateways(t *testing.T) {
	ctx := t.Context()
	for _, again := range []bool{false, true} {
		c := newClients(t)
		old, err := c.svc.Admit(ctx, person("sam"), legacy.Admission{Kind: legacy.DDI, Product: "pump", Name: "door-1"})
		if err != nil {
			t.Fatal(err)
		}
		_, gateway, err := c.svc.AddGateway(ctx, person("sam"), "pump", "hall")
		if err != nil {
			t.Fatal(err)
		}
		in := func(p legacy.Proof) error {
			_, err := c.svc.Identify(ctx, legacy.DDI, "pump", "door-1", p)
			return err
		}
		if err := errors.Join(in(legacy.Proof{Token: old.Token}), in(legacy.Proof{Gateway: gateway})); err != nil {
			t.Fatal(err)
		}
		log, facts := ledger.Control, []ledger.Fact{
			c.fact(ledger.KindLegacyChanged, c.id, legacy.Change{Product: "pump", Device: c.id, Change: "refused"}),
			c.fact(ledger.KindLegacyChanged, "pump", legacy.Change{Product: "pump", Change: "ended"}),
		}
		if again {
			log, facts = ledger.Events, []ledger.Fact{
				c.fact(ledger.KindDeviceImported, c.id, foreign.Imported{Device: c.id, Product: "pump", Hardware: "A", Assurance: string(device.Says)}),
			}
		}
		var entries [][]byte
		for _, f := range facts {
			e, err := f.Encode(nil)
			if err != nil {
				t.Fatal(err)
			}
			entries = append(entries, e)
		}
		st, err := c.db.State(ctx, log)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.db.Replay(ctx, log, st.Size, entries, map[ledger.Kind]store.Replayed{}); err != nil {
			t.Fatal(err)
		}
		if err := in(legacy.Proof{Token: old.Token}); !errors.Is(err, legacy.ErrStranger) {
			t.Errorf("let in again since %v: the old token: %v", again, err)
		}
		if err := in(legacy.Proof{Gateway: gateway}); again != (err == nil) {
			t.Errorf("let in again since %v: the gateway: %v", again, err)
		}
	}
}

func (c *clients) fact(kind ledger.Kind, subject string, data any) ledger.Fact {
	c.t.Helper()
	b, err := json.Marshal(data)
	if err != nil {
		c.t.Fatal(err)
	}
	return ledger.New(kind, c.now, "person:sam", subject, nil, b)
}

// What was offered in its hours and not begun waits for the next of them; what was begun goes on.
func TestAClientIsOfferedNothingOutsideItsHours(t *testing.T) {
	c := newClients(t)
	c.now = time.Date(2026, 7, 15, 12, 0, 0, 0, time.UTC)
	spec := says("r1", c.new)
	spec.Waves[0].Deadline = 36 * 3600
	spec.Window = &window.Hours{Window: window.Window{From: 13 * 60, Minutes: 60}}
	c.begin(spec)
	c.tick(time.Second)
	if o := c.offered(); o.Number != 0 {
		t.Fatalf("before they open it is told %+v", o)
	}
	c.tick(90 * time.Minute)
	o := c.offered()
	if o.Number == 0 || o.Shut {
		t.Fatalf("while they are open it is told %+v", o)
	}
	for _, said := range []device.Said{"", device.Agrees, device.Declines} {
		if said != "" {
			c.answers(o, said)
		}
		c.now = time.Date(2026, 7, 15, 16, 30, 0, 0, time.UTC)
		if now := c.offered(); now.Number != o.Number || !now.Shut || now.Cancel {
			t.Errorf("when they are shut and it said %q, it is told %+v", said, now)
		}
	}
	c.now = time.Date(2026, 7, 16, 13, 30, 0, 0, time.UTC)
	if now := c.offered(); now.Number != o.Number || now.Shut {
		t.Fatalf("the next day it is told %+v", now)
	}
	c.answers(o, device.Working)
	c.now = time.Date(2026, 7, 16, 16, 30, 0, 0, time.UTC)
	if now := c.offered(); now.Number != o.Number || now.Shut {
		t.Errorf("it was at it when they shut, and is told %+v", now)
	}
}

// Whoever is let in anew may be another device by that name: nothing is known of what it runs before it says so.
func TestWhoIsLetInAnewHasSaidNothing(t *testing.T) {
	c := newClients(t)
	c.saysVersion("1.1.0")
	if _, err := c.svc.Admit(t.Context(), person("sam"), legacy.Admission{Kind: legacy.DDI, Product: "pump", Name: "door-1"}); err != nil {
		t.Fatal(err)
	}
	d, err := c.db.Devices().Device(t.Context(), c.id)
	if err != nil || d.Twin.Version != "" || d.Twin.Release != nil || d.Twin.Healthy || !d.Twin.Said.IsZero() {
		t.Errorf("it is taken to run %q: %+v %v", d.Twin.Version, d.Twin, err)
	}
	if running, err := c.db.Releases().RunningReleases(t.Context(), "pump"); err != nil || len(running) != 0 {
		t.Errorf("it is counted: %v %v", running, err)
	}
	c.saysVersion("1.0.0")
	if d, err = c.db.Devices().Device(t.Context(), c.id); err != nil || d.Twin.Version != "1.0.0" {
		t.Errorf("it says 1.0.0, and runs %q: %v", d.Twin.Version, err)
	}
}

// A client of Mender's says the name of an artifact. When releases of two versions have one of that name, it runs neither for certain.
func TestANameOfTwoVersionsIsNeither(t *testing.T) {
	c := newClients(t)
	s := c.db.Legacy()
	for i, rel := range []release.Release{c.old, c.new} {
		if err := s.KeepHead(t.Context(), [32]byte(rel.Manifest.Components[0].Digest), mender.Head{Name: "app", DeviceTypes: []string{"A"}}); err != nil {
			t.Fatal(err)
		}
		versions, err := s.Named(t.Context(), "pump", "app")
		if err != nil || len(versions) != i+1 {
			t.Errorf("with %d releases it is of %q: %v", i+1, versions, err)
		}
	}
}

// Of a device the logs of a few actions are kept, whatever it was told in its life and however often it writes.
func TestLogsOfADeviceAreBounded(t *testing.T) {
	c := newClients(t)
	s := c.db.Legacy()
	var numbers []int32
	for i := range 5 {
		o := c.brings(fmt.Sprint("r", i))
		numbers = append(numbers, o.Number)
		c.answers(o, device.GaveUp)
		if _, err := c.roll.svc.Abort(t.Context(), person("op"), fmt.Sprint("r", i), "the next one"); err != nil {
			t.Fatal(err)
		}
		c.tick(time.Second)
	}
	for range 2 {
		for _, n := range numbers {
			if err := s.KeepLog(t.Context(), c.id, legacy.Log{Number: n, At: c.now, Messages: []legacy.Message{{Text: "it failed"}}}, c.now.Add(-time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var kept int
	if err := c.db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM legacy_log`).Scan(&kept); err != nil || kept != legacy.MaxLogs {
		t.Errorf("%d logs are kept: %v", kept, err)
	}
	if logs, err := s.Logs(t.Context(), c.id); err != nil || len(logs) != legacy.MaxLogs || logs[0].Number != numbers[4] {
		t.Errorf("of %v there are %+v: %v", numbers, logs, err)
	}
	many := make([]legacy.Message, 1<<20)
	client, err := c.svc.Admitted(t.Context(), legacy.DDI, "pump", "door-1")
	if err == nil {
		err = c.svc.KeepLog(t.Context(), client, numbers[4], many)
	}
	if codeOf(err) != "legacy.log" {
		t.Errorf("a million messages that say nothing: %v", err)
	}
}
