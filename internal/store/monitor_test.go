package store_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
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
	told := func(kind ledger.Kind, data string) {
		f := ledger.New(ledger.Events, kind, time.Now(), "test", devN(0), nil, []byte(data))
		if found, ok := monitor.FromFact(f, ref(1)); ok {
			found.Product = "pump"
			if _, err := m.Raise(t.Context(), access.Internal("test"), found); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Cure(t.Context(), access.Internal("test"), f, ref(2)); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 2 {
		for range 2 {
			told(ledger.KindDeviceUnhealthy, `{"health":"it is hot"}`)
			told(ledger.KindDeviceUnhealthy, `{"act":"install","outcome":"failed","code":"sick","text":"no"}`)
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
		told(ledger.KindDeviceHealthy, `{}`)
		if got := openKinds(t, m); len(got) != 0 {
			t.Fatalf("round %d, healthy: open %v", round, got)
		}
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
		f, ok := monitor.FromFact(ledger.New(ledger.Events, kind, time.Now(), "test", "d", nil, []byte(c.data)), ref(3))
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
