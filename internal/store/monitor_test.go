package store_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

func openKinds(t *testing.T, m *monitor.Service) map[monitor.Kind]int {
	t.Helper()
	fs, err := m.List(t.Context(), person("op"), monitor.Query{OpenOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	out := map[monitor.Kind]int{}
	for _, f := range fs {
		out[f.Kind]++
	}
	return out
}

// A finding is open once, closes when what it tells of is over, and opens again when it comes again.
func TestAFindingEndsWithItsTrouble(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	s.make(devN(0), s.publish("1.0.0"))
	m, err := monitor.NewService(monitor.Config{Store: s.db.Monitor(), Guard: s.guard})
	if err != nil {
		t.Fatal(err)
	}
	at := uint64(0)
	told := func(kind ledger.Kind, data string) {
		f := ledger.New(kind, time.Now(), "test", devN(0), nil, []byte(data))
		at++
		if found, ok := monitor.FromFact(f, ref(at)); ok {
			found.Product = "pump"
			if _, err := m.Raise(t.Context(), access.Internal("test"), found); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Cure(t.Context(), access.Internal("test"), f, ref(at)); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 2 {
		for range 2 {
			told(ledger.KindDeviceUnhealthy, `{"health":"it is hot"}`)
			told(ledger.KindDeviceUnhealthy, `{"act":"install","outcome":"failed","code":"sick","text":"no","release":"22"}`)
			told(ledger.KindVerdict, `{"word":"contraindicated","reasons":["x"]}`)
		}
		if got := openKinds(t, m); got[monitor.Unhealthy] != 1 || got[monitor.FailedUpdate] != 1 || got[monitor.BadVerdict] != 1 {
			t.Fatalf("round %d: open %v", round, got)
		}
		told(ledger.KindVerdict, `{"word":"none"}`)
		told(ledger.KindVerdict, `{"word":"warning"}`)
		if got := openKinds(t, m); got[monitor.BadVerdict] != 0 || got[monitor.Unhealthy] != 1 {
			t.Fatalf("round %d, after good evidence: open %v", round, got)
		}
		told(ledger.KindDeviceHealthy, `{"release":"11","version":"1.0.0"}`) // fallen back
		if got := openKinds(t, m); len(got) != 1 || got[monitor.FailedUpdate] != 1 {
			t.Fatalf("round %d, healthy on what it ran before: open %v", round, got)
		}
		told(ledger.KindDeviceHealthy, `{"release":"22","version":"1.1.0"}`)
		if got := openKinds(t, m); len(got) != 0 {
			t.Fatalf("round %d, healthy: open %v", round, got)
		}
	}
}

// What ends a failed update is the release that failed, or a newer one; a person may decide that it is no matter.
func TestAFailedUpdateIsOverWhenTheUpdateIsThere(t *testing.T) {
	healthy := func(release, version string) string {
		return fmt.Sprintf(`{"release":%q,"version":%q}`, release, version)
	}
	for name, c := range map[string]struct {
		act, release string
		kind         ledger.Kind
		data         string
		over         bool
	}{
		"back on the old one":                 {"install", "22", ledger.KindDeviceHealthy, healthy("11", "1.0.0"), false},
		"there after all":                     {"install", "22", ledger.KindDeviceHealthy, healthy("22", "1.1.0"), true},
		"beyond it":                           {"install", "22", ledger.KindDeviceHealthy, healthy("33", "1.2.0"), true},
		"another of its version":              {"install", "22", ledger.KindDeviceHealthy, healthy("33", "1.1.0"), false},
		"does not say what it runs":           {"install", "22", ledger.KindDeviceHealthy, healthy("", ""), false},
		"made anew with it":                   {"reprovision", "22", ledger.KindDeviceHealthy, healthy("22", "1.1.0"), true},
		"would not go back, and is ahead":     {"rollback", "22", ledger.KindDeviceHealthy, healthy("33", "1.2.0"), false},
		"went back after all":                 {"rollback", "22", ledger.KindDeviceHealthy, healthy("22", "1.1.0"), true},
		"configured at last":                  {"configure", "", ledger.KindDeviceUpdated, `{"act":"configure"}`, true},
		"configured, and an update is due":    {"install", "22", ledger.KindDeviceUpdated, `{"act":"install","release":"22"}`, false},
		"something else was done":             {"configure", "", ledger.KindDeviceUpdated, `{"act":"attest"}`, false},
		"well, but was not configured":        {"configure", "", ledger.KindDeviceHealthy, healthy("22", "1.1.0"), false},
		"well, what failed brought no code":   {"", "", ledger.KindDeviceHealthy, healthy("22", "1.1.0"), false},
		"a later fact that cannot be read":    {"install", "22", ledger.KindDeviceHealthy, `no`, false},
		"good evidence says nothing about it": {"install", "22", ledger.KindVerdict, `{"word":"affirming"}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStages(t, wire.ModelBlob)
			m, err := monitor.NewService(monitor.Config{Store: s.db.Monitor(), Guard: s.guard})
			if err != nil {
				t.Fatal(err)
			}
			f := monitor.Finding{Kind: monitor.FailedUpdate, Product: "pump", Subject: devN(0), Text: "x", Act: c.act, Release: c.release, Version: "1.1.0"}
			if _, err := m.Raise(t.Context(), reactions(), f); err != nil {
				t.Fatal(err)
			}
			if err := m.Cure(t.Context(), reactions(), ledger.New(c.kind, time.Now(), "test", devN(0), nil, []byte(c.data)), ref(7)); err != nil {
				t.Fatal(err)
			}
			if over := openKinds(t, m)[monitor.FailedUpdate] == 0; over != c.over {
				t.Errorf("over: %v", over)
			}
		})
	}
}

// A crash before a reaction's cursor is stored tells a fact again, perhaps after a person has closed what it raised.
func TestAFactRaisesOneFinding(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	m, err := monitor.NewService(monitor.Config{Store: s.db.Monitor(), Guard: s.guard})
	if err != nil {
		t.Fatal(err)
	}
	raise := func(at ledger.Ref, kind monitor.Kind) monitor.Finding {
		t.Helper()
		f, err := m.Raise(t.Context(), reactions(), monitor.Finding{Kind: kind, Product: "pump", Subject: devN(0), Cause: &at, Text: "x"})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	one := raise(ref(5), monitor.BadVerdict)
	if err := m.Close(t.Context(), person("op"), one.ID, "seen to", nil); err != nil {
		t.Fatal(err)
	}
	if again := raise(ref(5), monitor.BadVerdict); again.ID != one.ID || again.Closed.IsZero() {
		t.Errorf("told again it raised %+v", again)
	}
	other := raise(ref(6), monitor.BadVerdict)
	if other.ID == one.ID {
		t.Error("another fact of the same kind raised none")
	}
	if again := raise(ref(5), monitor.BadVerdict); again.ID != other.ID {
		t.Errorf("with one open that is not told: %+v", again)
	}
	if raise(ref(5), monitor.Unhealthy).ID == one.ID {
		t.Error("a finding of another kind was not raised")
	}
	if n := kinds(t, s.db, "finding.raised"); n != 3 {
		t.Errorf("%d facts of findings, want 3", n)
	}
}

// More devices than one lot are silent, and are heard again.
func TestASweepTakesAllOfThem(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	rel := s.publish("1.0.0")
	for i := range 7 {
		s.make(devN(i), rel)
		s.says(devN(i), rel, true, false, nil)
	}
	m, err := monitor.NewService(monitor.Config{Store: s.db.Monitor(), Guard: s.guard, Now: func() time.Time { return s.now }, SweepAtOnce: 3})
	if err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(2 * time.Hour)
	if _, err := m.Sweep(t.Context(), s.now); err != nil || openKinds(t, m)[monitor.NoCheckin] != 7 {
		t.Fatalf("open %v, %v", openKinds(t, m), err)
	}
	s.now = s.now.Add(time.Minute)
	for i := range 7 {
		s.says(devN(i), rel, true, false, nil)
	}
	if _, err := m.Sweep(t.Context(), s.now.Add(time.Second)); err != nil || openKinds(t, m)[monitor.NoCheckin] != 0 {
		t.Fatalf("open %v, %v", openKinds(t, m), err)
	}
}

// believes has a device check in with a version of its trust bundle.
func (s *stages) believes(id string, version uint64) {
	s.t.Helper()
	s.boots[id]++
	in := wire.Checkin{Nonce: bytes.Repeat([]byte{9}, 32), State: "active", BootCount: s.boots[id], Healthy: true, Bundle: version}
	if _, err := s.devices.Checkin(s.t.Context(), access.DeviceCaller(id), id, in); err != nil {
		s.t.Fatal(err)
	}
	if err := s.devices.Flush(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// A device that is heard of and does not follow the product's trust bundle is a finding after the days that the product allows, until it has followed. One
// that is silent, or has time left, is not.
func TestWhoStaysBehindATrustBundleIsFound(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	m, err := monitor.NewService(monitor.Config{Store: s.db.Monitor(), Bundles: s.db.Monitor(), Guard: s.guard, Now: func() time.Time { return s.now }, SweepAtOnce: 1})
	if err != nil {
		t.Fatal(err)
	}
	stays, stays2, follows, silent := devN(0), devN(1), devN(2), devN(3)
	rel := s.publish("1.0.0")
	for _, id := range []string{stays, stays2, follows, silent} {
		s.make(id, rel)
		s.believes(id, 1)
	}
	day := func() { s.now = s.now.AddDate(0, 0, 1) }
	behind := func() (ids []string) {
		t.Helper()
		if _, err := m.Sweep(t.Context(), s.now); err != nil {
			t.Fatal(err)
		}
		fs, err := m.List(t.Context(), person("op"), monitor.Query{OpenOnly: true, Kind: monitor.BundleBehind})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fs {
			ids = append(ids, f.Subject)
		}
		slices.Sort(ids)
		return ids
	}
	products := product.New(s.guard, s.db, []string{"HM-P256-1"})
	if _, err := products.SetBundleDue(t.Context(), access.Internal("test"), "pump", 3); err != nil {
		t.Fatal(err)
	}
	s.publishBundle(2)
	s.publishBundle(3) // another one at once gives nobody more time
	for range 2 {
		day()
		s.believes(stays, 1)
		s.believes(follows, 3)
	}
	if got := behind(); got != nil {
		t.Errorf("who has time left is behind: %v", got)
	}
	day()
	day()
	s.believes(stays, 1)
	s.believes(stays2, 2)
	s.believes(follows, 3)
	if got := behind(); !slices.Equal(got, []string{stays, stays2}) {
		t.Errorf("behind: %v, want %v", got, []string{stays, stays2})
	}
	if got := behind(); len(got) != 2 {
		t.Errorf("looked at again: %v", got)
	}
	s.believes(stays2, 3)
	if got := behind(); !slices.Equal(got, []string{stays}) {
		t.Errorf("once one has followed: %v", got)
	}
	s.believes(silent, 1) // it comes back, and has not followed yet
	if got := behind(); !slices.Contains(got, silent) {
		t.Errorf("once the silent one is back: %v", got)
	}
}

// closing is a store in which somebody else closes every finding just before.
type closing struct{ *store.Monitor }

func (c closing) CloseFinding(ctx context.Context, f monitor.Finding, fact ledger.Fact) error {
	other := fact
	other.UID[0] ^= 1
	return errors.Join(c.Monitor.CloseFinding(ctx, f, other), monitor.ErrClosed)
}

func TestWhatAPersonClosesMeanwhileHoldsNothingUp(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	m, err := monitor.NewService(monitor.Config{Store: closing{s.db.Monitor()}, Guard: s.guard})
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range []monitor.Kind{monitor.BadVerdict, monitor.NoAttestation} {
		at := ref(uint64(i))
		if _, err := m.Raise(t.Context(), reactions(), monitor.Finding{Kind: k, Product: "pump", Subject: devN(0), Cause: &at, Text: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	good := ledger.New(ledger.KindVerdict, time.Now(), "test", devN(0), nil, []byte(`{"word":"affirming"}`))
	if err := m.Cure(t.Context(), reactions(), good, ref(9)); err != nil || len(openKinds(t, m)) != 0 {
		t.Errorf("open %v, %v", openKinds(t, m), err)
	}
}

func TestWhatIsSaidInTheOpenIsAFindingToo(t *testing.T) {
	for kind, c := range map[ledger.Kind]struct {
		data string
		want monitor.Kind
		how  monitor.Severity
	}{
		ledger.KindEnrolRefused:       {`{"code":"enrol.unknown","text":"never ordered"}`, monitor.EnrolRefused, monitor.Critical},
		ledger.KindRecordRefused:      {`{"reason":"the chip is another device's"}`, monitor.RecordRefused, monitor.Critical},
		ledger.KindDeviceLogForked:    {`{"device":"x"}`, monitor.LogForked, monitor.Critical},
		ledger.KindDeviceRefused:      {`not JSON`, monitor.Refusals, monitor.High},
		ledger.KindDeviceInconsistent: {`{"device":"d","had":2,"said":1,"what":"boot count went back"}`, monitor.CloneSuspected, monitor.Critical},
	} {
		f, ok := monitor.FromFact(ledger.New(kind, time.Now(), "test", "d", nil, []byte(c.data)), ref(3))
		if !ok || f.Kind != c.want || f.Severity != c.how || f.Text == "" || f.Cause == nil {
			t.Errorf("%s: %+v", kind, f)
		}
		if readable := json.Valid([]byte(c.data)); readable == strings.Contains(f.Text, "cannot be read") {
			t.Errorf("%s, %s, says: %s", kind, c.data, f.Text)
		}
	}
}

func TestSilenceIsAFindingUntilTheDeviceIsHeard(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	rel := s.publish("1.0.0")
	s.make(devN(0), rel)
	s.says(devN(0), rel, true, false, nil)
	m, err := monitor.NewService(monitor.Config{Store: s.db.Monitor(), Guard: s.guard, Now: func() time.Time { return s.now }})
	if err != nil {
		t.Fatal(err)
	}
	later := s.now.Add(2 * time.Hour)
	if n, err := m.Sweep(t.Context(), later); err != nil || n == 0 {
		t.Fatalf("%d silent, %v", n, err)
	}
	if got := openKinds(t, m); got[monitor.NoCheckin] != 1 {
		t.Fatalf("open %v", got)
	}
	s.now = later
	s.says(devN(0), rel, true, false, nil)
	if _, err := m.Sweep(t.Context(), s.now.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := openKinds(t, m); got[monitor.NoCheckin] != 0 {
		t.Fatalf("heard, and open %v", got)
	}
}

// What a device showed and said long ago is not how it is: where it is overdue, lists and counts read unknown, until it is heard of again.
func TestGoodNewsThatIsOverdueReadsUnknown(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	rel := s.publish("1.0.0")
	words := []string{"affirming", "warning", "contraindicated"}
	for i, tier := range []attest.Tier{attest.Affirming, attest.Warning, attest.Contraindicated} {
		s.make(devN(i), rel)
		s.says(devN(i), rel, true, false, nil)
		s.proves(devN(i), rel, tier)
	}
	m, err := monitor.NewService(monitor.Config{Store: s.db.Monitor(), Guard: s.guard, Now: func() time.Time { return s.now }})
	if err != nil {
		t.Fatal(err)
	}
	look := func(when, health string, verdicts ...string) {
		t.Helper()
		counts := map[string]int{"unknown": 0}
		for i, want := range verdicts {
			d, err := s.db.FleetDevice(t.Context(), devN(i))
			if err != nil || d.Verdict != want || d.Health != health {
				t.Errorf("%s: device %d is %s, %s; want %s, %s (%v)", when, i, d.Verdict, d.Health, want, health, err)
			}
			if last := d.LastVerdict; (last == "") != (want == words[i]) {
				t.Errorf("%s: device %d is %s, and was %q", when, i, d.Verdict, last)
			}
			page, err := s.db.FleetDevices(t.Context(), fleet.Query{Limit: 10, Filter: device.Filter{Verdict: want}})
			if err != nil || !slices.ContainsFunc(page, func(x fleet.Device) bool { return x.ID == devN(i) && x.Verdict == want && x.Health == health }) {
				t.Errorf("%s: device %d is not in the list of %s: %+v, %v", when, i, want, page, err)
			}
			counts[want]++
		}
		sum, err := s.db.FleetSummary(t.Context(), nil)
		if err != nil || !maps.Equal(sum.Verdicts, counts) {
			t.Errorf("%s: counted %v, want %v, %v", when, sum.Verdicts, counts, err)
		}
	}
	look("at first", "healthy", words...)
	if _, err := m.Sweep(t.Context(), s.now.Add(4*time.Hour)); err != nil {
		t.Fatal(err)
	}
	look("overdue", "unknown", "unknown", "unknown", "contraindicated")
	s.now = s.now.Add(5 * time.Hour)
	for i, tier := range []attest.Tier{attest.Affirming, attest.Warning, attest.Contraindicated} {
		s.says(devN(i), rel, true, false, nil)
		s.proves(devN(i), rel, tier)
	}
	if _, err := m.Sweep(t.Context(), s.now.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	look("heard of again", "healthy", words...)
}

// A release that was withdrawn while a device is told to take it keeps nothing else from the device.
func TestAWithdrawnReleaseDoesNotBlockItsDevices(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	rel := s.publish("1.0.0")
	s.make(devN(0), rel)
	s.says(devN(0), rel, true, false, nil)
	next := s.publish("1.1.0")
	if _, err := s.devices.Command(t.Context(), access.Internal("test"), device.Instruction{
		Product: "pump", Act: wire.ActReprovide, Devices: []string{devN(0)}, Release: next.Digest[:], Reason: "why",
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.releases.Withdraw(t.Context(), person("carol"), next.Digest, "it leaks"); err != nil {
		t.Fatal(err)
	}
	s.says(devN(0), rel, true, false, nil) // fails the test when the check-in does
}

// How many findings of a device are open stands in its row, whenever they were raised: before it was known, twice, or closed since.
func TestADevicesOpenFindingsAreCounted(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	m, err := monitor.NewService(monitor.Config{Store: s.db.Monitor(), Guard: s.guard})
	if err != nil {
		t.Fatal(err)
	}
	raise := func(kind monitor.Kind) {
		t.Helper()
		if _, err := m.Raise(t.Context(), access.Internal("test"), monitor.Finding{
			Dedupe: string(kind) + devN(0), Kind: kind, Severity: monitor.High, Product: "pump", Subject: devN(0), Text: "x",
		}); err != nil {
			t.Fatal(err)
		}
	}
	count := func(want int) {
		t.Helper()
		d, err := s.db.FleetDevice(t.Context(), devN(0))
		if err != nil || d.Findings != want {
			t.Errorf("%d open findings, want %d: %v", d.Findings, want, err)
		}
	}
	raise(monitor.EnrolRefused)
	s.make(devN(0), s.publish("1.0.0"))
	count(1)
	raise(monitor.Unhealthy)
	raise(monitor.Unhealthy)
	count(2)
	fs, err := m.List(t.Context(), person("op"), monitor.Query{Subject: devN(0), OpenOnly: true})
	if err != nil || len(fs) != 2 {
		t.Fatal(fs, err)
	}
	for i, f := range fs {
		if err := m.Close(t.Context(), access.Internal("test"), f.ID, "seen", nil); err != nil {
			t.Fatal(err)
		}
		count(1 - i)
	}
}

// A device that calls but keeps its own log to itself may be one whose log somebody cuts.
func TestADeviceThatKeepsItsLogToItselfIsAFinding(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	rel := s.publish("1.0.0")
	s.make(devN(0), rel)
	s.make(devN(1), rel) // is silent altogether: another finding
	m, err := monitor.NewService(monitor.Config{Store: s.db.Monitor(), Guard: s.guard, Now: func() time.Time { return s.now }})
	if err != nil {
		t.Fatal(err)
	}
	sweep := func(want int) {
		t.Helper()
		if _, err := m.Sweep(t.Context(), s.now.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if got := openKinds(t, m); got[monitor.NoLog] != want {
			t.Fatalf("open %v, want %d of %s", got, want, monitor.NoLog)
		}
	}
	s.now = s.now.Add(4 * time.Hour)
	s.says(devN(0), rel, true, false, nil)
	sweep(1)
	s.now = s.now.Add(time.Minute)
	head, _, err := s.db.LogHead(t.Context(), devN(0))
	if err != nil {
		t.Fatal(err)
	}
	next := head
	next.Seq, next.Heard, next.Anchor = 1, s.now, [16]byte{1}
	if err := s.db.AdvanceLog(t.Context(), devN(0), head, next); err != nil {
		t.Fatal(err)
	}
	sweep(0)
	s.now = s.now.Add(4 * time.Hour)
	s.says(devN(0), rel, true, false, nil)
	sweep(1)
	next.Heard = s.now.Add(time.Second) // a heartbeat
	if err := s.db.HeardLog(t.Context(), devN(0), next); err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(time.Minute)
	sweep(0)
}
