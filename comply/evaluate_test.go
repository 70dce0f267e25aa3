package comply

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// sound is a product of which everything is as it should be, in hardware, with every drill done yesterday.
func sound() Snapshot {
	lately, drill := now.Add(-time.Hour), now.Add(-24*time.Hour)
	ref := &ledger.Ref{Log: ledger.Events, Index: 7}
	group := Devices{
		State: "active", Hardware: "A", Release: "aa", Origin: "tpm", N: 100, Heard: 100, HeardFrom: lately, HeardTo: lately, Good: 99, Warned: 1,
		ProvenFrom: lately, ProvenTo: lately, Certified: 100, Current: 100, Logged: 100, Identified: 100,
	}
	return Snapshot{
		At: now,
		Product: product.Product{
			ID: "pump", Hardware: []string{"A"}, Model: wire.ModelBlob, Suite: "HM-P256-1", Created: now.AddDate(-1, 0, 0), EndOfSupport: now.AddDate(5, 0, 0),
			Isolation: wire.Layers(),
		},
		Devices: []Devices{group},
		Bundle:  Bundle{Version: 3, Threshold: 2, Signers: 3, Ref: ref},
		Releases: []Release{{
			Digest: "aa", Version: "1.2.0", Hardware: []string{"A"}, Published: now.AddDate(0, -2, 0), Verified: true, Suite: "HM-P256-1", Approvers: 2,
			SBOM: true, Provenance: true, Found: &Found{Passed: true, Components: 7}, Ref: ref,
		}},
		Commands: map[string]Told{
			"install":   {Commands: 1, Devices: 100, Done: 100, Hardware: map[string]int{"A": 100}, Newest: drill, Ref: ref},
			"configure": {Commands: 1, Devices: 5, Done: 5, Newest: drill, Ref: ref},
		},
		Findings: []Findings{{Kind: "enrol.refused", Severity: "high", N: 2, Newest: drill}},
		Cases:    Cases{N: 2, Devices: 2, Newest: drill, Ref: ref},
		Facts: map[ledger.Kind]Marks{
			ledger.KindDeviceRefused: {3, drill, ref}, ledger.KindDeviceQuarantined: {2, drill, ref},
			ledger.KindRetireWiped: {2, drill, ref}, ledger.KindTelemetryKeysDestroyed: {2, drill, ref},
		},
		Refusals: map[string]int{"signature": 2, "nonce": 1},
		Epochs:   Epochs{N: 10, Approved: 10, Streams: []string{"vibration"}, Newest: lately, Ref: ref},
		Retired:  map[string]Retired{"disposed": {N: 2}},
		Orders:   []Order{{ID: "o", Quota: 200, Devices: 100}},
		Denials:  Marks{N: 4, Newest: drill},
	}
}

// aged is what was sound, looked at after years in which nothing more was heard.
func aged() Snapshot {
	s := sound()
	s.At = now.AddDate(2, 0, 0)
	for i := range s.Devices {
		d := &s.Devices[i]
		d.Stale, d.Heard, d.Good, d.Warned = d.N, 0, 0, 0
		d.ProvenFrom, d.HeardFrom = time.Time{}, time.Time{}
	}
	return s
}

func each(change func(d *Devices)) func(*Snapshot) {
	return func(s *Snapshot) {
		for i := range s.Devices {
			change(&s.Devices[i])
		}
	}
}

func told(act string, t Told) func(*Snapshot) { return func(s *Snapshot) { s.Commands[act] = t } }

func without(kind ledger.Kind) func(*Snapshot) { return func(s *Snapshot) { delete(s.Facts, kind) } }

// evidence is, of each evaluator, what makes it bad, and what evidence can be missing.
type evidence struct {
	bad, absent func(*Snapshot)
	now         bool // it is verified, or counted, at the moment: there is no old evidence of it
}

func evidenceOf() map[string]evidence {
	const etsi, cra = "etsi-en-303-645/", "eu-cra-2024-2847/"
	nobody := func(s *Snapshot) { s.Devices = nil }
	unpublished := func(s *Snapshot) { s.Releases = nil }
	unsigned := func(s *Snapshot) { s.Releases[0].Verified = false }
	failing := each(func(d *Devices) { d.Good, d.Bad = 90, 9 })
	unproven := each(func(d *Devices) { d.Good, d.Warned = 10, 0 })
	late := func(s *Snapshot) { s.Devices[0].Release = "bb" }
	soft := each(func(d *Devices) { d.Origin = "soft" })
	copied := func(s *Snapshot) { s.Shared = 1 }
	unrecorded := each(func(d *Devices) { d.Identified = 3 })
	expired := each(func(d *Devices) { d.Certified = 90 })
	unforced := func(s *Snapshot) { s.Refusals = map[string]int{"nonce": 5} }
	failed := told("install", Told{Commands: 1, Devices: 10, Done: 1, Failed: 9, Newest: now, Hardware: map[string]int{"A": 1}})
	loose := each(func(d *Devices) { d.Bad = 1 })
	quiet := func(s *Snapshot) { s.Epochs = Epochs{} }
	foreign := func(s *Snapshot) { s.Epochs.Approved = 9 }
	forked := func(s *Snapshot) {
		s.Findings = append(s.Findings, Findings{Kind: "log.forked", Severity: "critical", N: 1, Open: 1, OldestOpen: now})
	}
	left := func(s *Snapshot) { s.Retired["wiped"] = Retired{N: 1, Unfinished: 1} }
	ended := func(s *Snapshot) { s.Product.EndOfSupport = now.AddDate(0, -1, 0) }
	neglected := func(s *Snapshot) {
		s.Findings = []Findings{{Kind: "enrol.refused", Severity: "high", N: 1, Open: 1, OldestOpen: now.AddDate(0, 0, -8)}}
	}
	return map[string]evidence{
		etsi + "5.1-1":   {bad: copied, absent: unrecorded, now: true},
		etsi + "5.1-2A":  {bad: expired, absent: nobody},
		etsi + "5.1-3":   {bad: expired, absent: nobody},
		etsi + "5.3-2":   {bad: failed, absent: unforced},
		etsi + "5.3-4A":  {bad: failed, absent: told("install", Told{})},
		etsi + "5.3-5":   {bad: each(func(d *Devices) { d.Heard = 50 }), absent: each(func(d *Devices) { d.Heard = 0 })},
		etsi + "5.3-7":   {bad: unsigned, absent: unpublished, now: true},
		etsi + "5.3-8":   {bad: late, absent: unpublished},
		etsi + "5.3-9":   {absent: unforced},
		etsi + "5.3-10":  {bad: unsigned, absent: each(func(d *Devices) { d.Current = 50 })},
		etsi + "5.3-13":  {bad: ended, now: true},
		etsi + "5.3-15A": {absent: without(ledger.KindDeviceQuarantined)},
		etsi + "5.4-1":   {bad: soft, absent: unproven},
		etsi + "5.4-2":   {bad: soft, absent: unproven},
		etsi + "5.4-4":   {bad: func(s *Snapshot) { s.Orders[0].Devices = 201 }, absent: unrecorded, now: true},
		etsi + "5.5-5":   {absent: told("configure", Told{})},
		etsi + "5.5-6":   {bad: foreign, absent: quiet},
		etsi + "5.5-7":   {bad: foreign, absent: quiet},
		etsi + "5.5-8":   {bad: left, absent: func(s *Snapshot) { s.Retired = nil }},
		etsi + "5.6-4A":  {bad: failing, absent: unproven},
		etsi + "5.6-7":   {bad: failing, absent: func(s *Snapshot) { s.Product.Isolation = s.Product.Isolation[1:] }},
		etsi + "5.6-9":   {bad: func(s *Snapshot) { s.Releases[0].Approvers = 1 }, absent: unpublished, now: true},
		etsi + "5.7-1":   {bad: failing, absent: unproven},
		etsi + "5.7-2":   {bad: loose, absent: func(s *Snapshot) { s.Cases = Cases{} }},
		etsi + "5.8-1":   {bad: foreign, absent: quiet},
		etsi + "5.8-2":   {bad: foreign, absent: quiet},
		etsi + "5.10-1":  {bad: neglected, absent: nobody},
		etsi + "5.11-1":  {bad: func(s *Snapshot) { s.Retired["written-off"] = Retired{N: 5} }, absent: without(ledger.KindRetireWiped)},
		etsi + "5.11-2":  {bad: left, absent: without(ledger.KindTelemetryKeysDestroyed)},
		etsi + "5.11-4":  {bad: func(s *Snapshot) { s.Retired["written-off"] = Retired{N: 5} }, absent: without(ledger.KindRetireWiped)},
		cra + "I.(2)(c)": {bad: late, absent: unproven},
		cra + "I.(2)(d)": {bad: neglected, absent: func(s *Snapshot) { s.Denials, s.Findings = Marks{}, nil }},
		cra + "I.(2)(e)": {bad: soft, absent: quiet},
		cra + "I.(2)(f)": {bad: forked, absent: unproven},
		cra + "I.(2)(k)": {bad: loose, absent: func(s *Snapshot) { s.Cases = Cases{} }},
		cra + "I.(2)(l)": {bad: forked, absent: each(func(d *Devices) { d.Logged = 10 })},
		cra + "I.(2)(m)": {bad: left, absent: without(ledger.KindRetireWiped)},
		cra + "II.(1)":   {bad: func(s *Snapshot) { s.Releases[0].SBOM = false }, absent: unpublished, now: true},
		cra + "II.(7)":   {bad: unsigned, absent: unproven},
		cra + "II.(8)":   {bad: late, absent: unpublished},
		cra + "Art13(8)": {bad: ended, now: true},
	}
}

// Each evaluator says met of good evidence only: bad is not met, and what is missing or old is not known.
func TestOnlyFreshGoodEvidenceIsMet(t *testing.T) {
	cases := evidenceOf()
	for key, e := range evaluators() {
		c, ok := cases[key]
		if !ok {
			t.Errorf("%s has no evidence in this test", key)
			continue
		}
		check := func(what string, s Snapshot, want ...Status) {
			t.Helper()
			if j := e.measure(s); !slices.Contains(want, j.Status) || j.Reason == "" || len(j.Evidence) == 0 {
				t.Errorf("%s, %s: %+v, want %v", key, what, *j, want)
			}
		}
		check("good", sound(), Met)
		if c.bad != nil {
			s := sound()
			c.bad(&s)
			check("bad", s, NotMet)
		}
		if c.absent != nil {
			s := sound()
			c.absent(&s)
			check("absent", s, Unknown)
		}
		if !c.now {
			check("old", aged(), Unknown, NotMet)
		}
		if j := e.measure(Snapshot{At: now}); j.Status == Met {
			t.Errorf("%s of a product nobody knows anything of: %+v", key, *j)
		}
	}
}

// A figure or two decide each of these.
func TestWhereTheLineIs(t *testing.T) {
	for what, c := range map[string]struct {
		good, bad, of int
		want          Status
	}{
		"none":                    {0, 0, 0, Unknown},
		"all":                     {100, 0, 100, Met},
		"enough, few bad":         {95, 1, 100, Met},
		"enough, and too many":    {98, 2, 100, NotMet},
		"too few known":           {94, 0, 100, Unknown},
		"one bad of twenty":       {19, 1, 20, NotMet},
		"a million, a few bad":    {990_001, 9_999, 1_000_000, Met},
		"a million, half unknown": {500_000, 0, 1_000_000, Unknown},
	} {
		if got, reason := share(c.good, c.bad, c.of, "are good", "are bad"); got != c.want || reason == "" {
			t.Errorf("%s: %s: %s", what, got, reason)
		}
	}
}

// Of a device whose evidence is stale nobody knows whether it is bad: few of them leave it at that, more leave it open. One in quarantine is
// contained whatever it says.
func TestWhatIsNotKnownIsNotContained(t *testing.T) {
	for fresh, want := range map[int]Status{100: Met, 95: Met, 94: Unknown, 0: Unknown} {
		s := sound()
		s.Devices = []Devices{{State: "active", N: 100, Good: fresh, Stale: 100 - fresh}, {State: "quarantined", N: 50, Stale: 40, Bad: 10}, {State: "manufactured", N: 50}}
		if j := contained(s); j.Status != want {
			t.Errorf("%d of 100 with fresh evidence: %s: %s", fresh, j.Status, j.Reason)
		}
	}
}

// One device that was in trouble three times is one device.
func TestContainedCountsDevices(t *testing.T) {
	s := sound()
	s.Cases.N, s.Cases.Devices = 30, 10
	if j := contained(s); j.Status != Met || !strings.Contains(j.Reason, "10 devices") || strings.Contains(j.Reason, "30") {
		t.Errorf("%s: %s", j.Status, j.Reason)
	}
}

// A device that was written off was not seen to be wiped: few of them take nothing from what the others signed, more leave it open.
func TestWhatWasWrittenOffIsNotErased(t *testing.T) {
	for off, want := range map[int]Status{0: Met, 5: Met, 6: Unknown, 95: Unknown, 96: NotMet} {
		s := sound()
		s.Facts[ledger.KindRetireWiped] = Marks{95, now, nil}
		s.Retired["written-off"] = Retired{N: off}
		if j := erased(s); j.Status != want {
			t.Errorf("%d of %d written off: %s: %s", off, 95+off, j.Status, j.Reason)
		}
	}
}

// A release that has just come out is on its way, and neither met nor neglected.
func TestANewReleaseIsOnItsWay(t *testing.T) {
	s := sound()
	s.Releases = append([]Release{{Digest: "bb", Version: "1.3.0", Published: now.AddDate(0, 0, -3), Verified: true, Suite: "x"}}, s.Releases...)
	if j := timelyUpdate(s); j.Status != Unknown {
		t.Errorf("%+v", j)
	}
	s.Releases[0].Published = now.AddDate(0, 0, -31)
	if j := timelyUpdate(s); j.Status != NotMet {
		t.Errorf("%+v", j)
	}
	s.Releases[0].Hardware = []string{"B"} // it is not for them
	if j := timelyUpdate(s); j.Status != Met {
		t.Errorf("%+v", j)
	}
}

// What is simulated is called so.
func TestSimulationsAreCalledSo(t *testing.T) {
	s := sound()
	s.Devices[0].Virtual = true
	if j := hardwareKeys(s); j.Status != NotMet {
		t.Errorf("keys of simulations: %+v", j)
	}
	if j := attested(s); j.Status != Met || j.Reason == attested(sound()).Reason {
		t.Errorf("evidence of simulations: %+v", j)
	}
}

// What a process keeps, or a station has made, is in no hardware; neither is what nobody knows of.
func TestKeysThatNoHardwareKeepsDoNotCount(t *testing.T) {
	for _, origin := range []string{"soft", "isolated", wire.OriginStation, "", "moon"} {
		s := sound()
		for i := range s.Devices {
			s.Devices[i].Origin = origin
		}
		if j := hardwareKeys(s); j.Status != NotMet {
			t.Errorf("origin %q: %+v", origin, j)
		}
	}
	if j := hardwareKeys(sound()); j.Status != Met {
		t.Errorf("in hardware: %+v", j)
	}
}

// Of one thing nothing is said in the plural, whatever the judgement.
func TestOneIsSaidOfOne(t *testing.T) {
	wrong := regexp.MustCompile(`\b1 ([a-z]+ )?(cases|devices|events|findings|keys|logs|orders|people|records|times|updates)\b`)
	one := func(s *Snapshot) {
		s.Devices = []Devices{{
			State: "active", Hardware: "A", Release: "aa", Origin: "tpm", N: 1, Heard: 1, HeardFrom: s.At, HeardTo: s.At, Good: 1, ProvenFrom: s.At, ProvenTo: s.At,
			Certified: 1, Current: 1, Logged: 1, Identified: 1,
		}}
		s.Refusals, s.Cases.N, s.Cases.Devices, s.Denials.N, s.Epochs.N, s.Epochs.Approved = map[string]int{"signature": 1}, 1, 1, 1, 1, 1
		s.Findings = []Findings{{Kind: "enrol.refused", Severity: "high", N: 1, Newest: s.At}}
		for kind, m := range s.Facts {
			m.N = 1
			s.Facts[kind] = m
		}
		for act, told := range s.Commands {
			told.Devices, told.Done = 1, 1
			s.Commands[act] = told
		}
		s.Retired = map[string]Retired{"disposed": {N: 1}}
	}
	changes := map[string]func(*Snapshot){"as it should be": func(*Snapshot) {}, "loose and held": func(s *Snapshot) { s.Devices[0].Bad, s.Cases.Held = 1, 1 }, "late": func(s *Snapshot) { s.Behind = 1 }}
	for key, e := range evidenceOf() {
		for what, change := range map[string]func(*Snapshot){" bad": e.bad, " absent": e.absent} {
			if change != nil {
				changes[key+what] = change
			}
		}
	}
	for what, change := range changes {
		s := sound()
		one(&s)
		change(&s)
		for key, e := range evaluators() {
			if j := e.measure(s); j != nil && wrong.MatchString(j.Reason) && !strings.Contains(j.Reason, " of 1 devices") {
				t.Errorf("%s, %s: %s", key, what, j.Reason)
			}
		}
	}
}

// That documents are named is not to know what they say: what counts is what the supply gate found in them.
func TestDocumentsCountForWhatTheGateFound(t *testing.T) {
	for what, c := range map[string]struct {
		found *Found
		want  Status
	}{
		"let through":             {&Found{Passed: true, Components: 3}, Met},
		"published regardless":    {&Found{Components: 3, Unknown: 3}, NotMet},
		"no gate, nobody read it": {nil, Unknown},
	} {
		s := sound()
		s.Releases[0].Found = c.found
		for _, j := range []Judgement{components(s), reviewedReleases(s)} {
			if j.Status != c.want || j.Reason == "" {
				t.Errorf("%s: %+v, want %s", what, j, c.want)
			}
		}
	}
}
