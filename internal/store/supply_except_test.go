package store_test

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/wire"
)

const because = "vulnerable_code_not_present"

// except takes in a statement of the gate's own signer.
func (g *gated) excepts(vex string) string {
	g.t.Helper()
	_, err := g.supply.TakeException(g.t.Context(), person("carol"), "pump", []byte(sealed(g.t.(*testing.T), g.except, "text/json", vex)))
	return codeOf(err)
}

// asks is what the gate would say of a version.
func (g *gated) asks(version string) string {
	g.t.Helper()
	r := g.good(version)
	m := wire.Release{ID: "ask", Product: "pump", Version: version, SBOM: r.SBOM, Provenance: r.Provenance}
	sum := sha256.Sum256([]byte("program " + version))
	m.Components = []wire.Component{{Name: "app", Digest: sum[:]}}
	d, err := g.supply.Gate(g.t.Context(), person("carol"), m)
	if err != nil {
		g.t.Fatal(err)
	}
	var codes []string
	for _, s := range d.Steps {
		if !s.OK {
			codes = append(codes, s.Code)
		}
	}
	return strings.Join(codes, " ")
}

// What excuses a flaw holds for the product that it names, in the version that it names, and for as long as its signer may say it.
func TestWhatAnExceptionIsAbout(t *testing.T) {
	g := newGated(t, supply.Enforce)
	g.fresh(advisoryText("GO-1", "Go", "acme.example/lib", "0", "1.1.0", g.now))
	of := func(product string) string {
		return strings.Replace(openVEX("CVE-2030-1", aboutLib, "not_affected", because, g.now), "pkg:generic/pump", product, 1)
	}
	for product, code := range map[string]string{"pkg:generic/valve": "vex.product", "https://acme.example/valve": "vex.product", "pkg:generic/pump@1.0.0": ""} {
		if got := g.excepts(of(product)); got != code {
			t.Errorf("%s: %q, want %q", product, got, code)
		}
	}
	if got := g.asks("1.0.0"); got != "" {
		t.Errorf("the version that it is about: %s", got)
	}
	if got := g.asks("1.0.1"); got != "advisories.open" {
		t.Errorf("another version: %s", got)
	}
	signer := g.policy.Exceptions
	for _, step := range []struct {
		keys [][]byte
		want string
	}{{[][]byte{spki(t, newKey(t))}, "advisories.open"}, {signer, ""}} {
		g.policy.Exceptions = step.keys
		if _, err := g.supply.SetPolicy(t.Context(), together("carol", "dora"), "pump", g.policy); err != nil {
			t.Fatal(err)
		}
		if got := g.asks("1.0.0"); got != step.want {
			t.Errorf("its signer's key out of the policy, or back: %q, want %q", got, step.want)
		}
	}
}

// An advisory of several flaws is several: what excuses one excuses no other.
func TestAnAdvisoryOfSeveralFlaws(t *testing.T) {
	g := newGated(t, supply.Enforce)
	both := strings.Replace(advisoryText("GO-1", "Go", "acme.example/lib", "0", "1.1.0", g.now), `"aliases":["CVE-2030-1"]`, `"upstream":["CVE-2030-1","CVE-2030-2"]`, 1)
	g.fresh(both)
	say := func(name string) string {
		return g.excepts(openVEX(name, aboutLib, "not_affected", because, g.now))
	}
	if got := say("GO-1"); got != "vex.several" {
		t.Errorf("a statement on both at once: %q", got)
	}
	for _, step := range []struct{ name, want string }{{"CVE-2030-1", "advisories.open"}, {"CVE-2030-2", ""}} {
		if got := say(step.name); got != "" {
			t.Fatal(got)
		}
		if got := g.asks("1.0.0"); got != step.want {
			t.Errorf("with %s excused: %q, want %q", step.name, got, step.want)
		}
	}
}

// An alarm follows what is known: it ends when the flaw is excused, is back when that has expired, and is another one when the score is.
func TestAlarmsFollowExceptionsAndScores(t *testing.T) {
	g := newGated(t, supply.Warn)
	flaw := advisoryText("GO-1", "Go", "acme.example/lib", "0", "1.1.0", g.now)
	scored := func(vector string) string {
		return strings.Replace(flaw, `"summary"`, `"severity":[{"type":"CVSS_V3","score":"`+vector+`"}],"summary"`, 1)
	}
	const low, high = "CVSS:3.1/AV:L/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
	g.fresh(scored(low))
	if _, err := g.releases.Propose(t.Context(), person("carol"), g.good("1.0.0")); err != nil {
		t.Fatal(err)
	}
	excuse := func() {
		if got := g.excepts(openVEX("CVE-2030-1", aboutLib, "not_affected", because, g.now)); got != "" {
			t.Fatal(got)
		}
	}
	for _, step := range []struct {
		what string
		do   func()
		want string
	}{
		{"a flaw", func() {}, "1.0.0 has CVE-2030-1"},
		{"it is worse than was thought", func() { g.fresh(scored(high)) }, "1.0.0 is rid of CVE-2030-1: its score was 1.8, and is 9.8; 1.0.0 has CVE-2030-1"},
		{"it is excused", excuse, "1.0.0 is rid of CVE-2030-1: a signed document says that it is none here"},
		{"nothing new", func() {}, ""},
		{"which has expired", func() { g.now = g.now.Add(181 * 24 * time.Hour) }, "1.0.0 has CVE-2030-1"},
	} {
		step.do()
		if got := g.reassess(); got != step.want {
			t.Errorf("%s: %q, want %q", step.what, got, step.want)
		}
	}
}

// Who proposes a release does not bring what it is held against, and nobody alone takes most of that away while it stops releases.
func TestNobodyBlindsAGateThatEnforces(t *testing.T) {
	g := newGated(t, supply.Enforce)
	lib := advisoryText("GO-1", "Go", "acme.example/lib", "0", "1.1.0", g.now)
	g.fresh(many(20, g.now), lib)
	few := func(who access.Caller) string {
		_, err := g.supply.Import(t.Context(), who, "Go", true, strings.NewReader(advisoryText("GO-9", "Go", "acme.example/far", "0", "9.0.0", g.now.Add(time.Minute))))
		return codeOf(err)
	}
	carol := person("carol")
	carol.Roles = []access.Role{access.ReleaseManager}
	sam := person("sam")
	sam.Roles = []access.Role{access.Security}
	if got := few(carol); got != "access.denied" {
		t.Errorf("who proposes brings advisories: %q", got)
	}
	if got := few(sam); got != "advisories.enforced" {
		t.Errorf("most of them are taken away: %q", got)
	}
	if _, err := g.releases.Propose(t.Context(), carol, g.good("1.0.0")); codeOf(err) != "supply.gate" {
		t.Errorf("with a known flaw: %v", err)
	}
	warn := g.policy
	warn.Mode = supply.Warn
	if _, err := g.supply.SetPolicy(t.Context(), carol, "pump", warn); codeOf(err) != "access.four-eyes" {
		t.Errorf("one has it warn: %v", err)
	}
	if _, err := g.supply.SetPolicy(t.Context(), together("carol", "dora"), "pump", warn); err != nil {
		t.Fatal(err)
	}
	if got := few(sam); got != "" {
		t.Errorf("while it warns: %q", got)
	}
}

// A tenth less, time after time, comes to the same as all at once: it is held against the most that there were, until somebody says that there are fewer.
func TestAFewLessEachTimeIsMany(t *testing.T) {
	g := newGated(t, supply.Enforce)
	bring := func(n int, fewer bool) string {
		_, err := g.supply.Import(t.Context(), person("sam"), "Go", fewer, strings.NewReader(many(n, g.now)))
		return codeOf(err)
	}
	for _, c := range []struct {
		n     int
		fewer bool
		want  string
	}{{100, false, ""}, {91, false, ""}, {90, false, ""}, {89, false, "advisories.fewer"}, {89, true, "advisories.enforced"}, {95, false, ""}, {110, false, ""}, {98, false, "advisories.fewer"}} {
		if got := bring(c.n, c.fewer); got != c.want {
			t.Errorf("%d, fewer %v: %q, want %q", c.n, c.fewer, got, c.want)
		}
	}
	warn := g.policy
	warn.Mode = supply.Warn
	if _, err := g.supply.SetPolicy(t.Context(), together("carol", "dora"), "pump", warn); err != nil {
		t.Fatal(err)
	}
	if got := bring(50, true); got != "" {
		t.Error(got)
	}
	if got := bring(46, false); got != "" {
		t.Errorf("of what there are by now: %q", got)
	}
	if got := bring(44, false); got != "advisories.fewer" {
		t.Error(got)
	}
}

func TestAdvisoriesThatAreOldOrFew(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	r := s.billed("1.0.0", "pkg:golang/acme.example/lib@v1.0.0")
	bring := func(fewer bool, text string) string {
		_, err := s.supply.Import(t.Context(), person("eve"), "Go", fewer, strings.NewReader(text))
		return codeOf(err)
	}
	lots := many(100, s.now)
	if got := bring(false, lots); got != "" {
		t.Fatal(got)
	}
	if got := bring(false, many(89, s.now)); got != "advisories.fewer" {
		t.Errorf("a file that was cut: %q", got)
	}
	if got := bring(false, many(90, s.now)) + bring(true, many(3, s.now)); got != "" {
		t.Errorf("a few fewer, and many fewer that somebody knows of: %q", got)
	}
	// A job that brings the same file each day.
	for range 31 {
		s.now = s.now.Add(24 * time.Hour)
		if got := bring(false, many(3, s.now.Add(-31*24*time.Hour))); got != "" && got != "advisories.older" {
			t.Fatal(got)
		}
	}
	got := s.answers(r)
	if len(got) != 1 || !strings.Contains(got[0], "unknown") {
		t.Errorf("with advisories of a month ago: %v", got)
	}
}

// Who says what a product asks for has seen what it asked for before.
func TestTwoWhoChangeThePolicyAtOnce(t *testing.T) {
	g := newGated(t, supply.Off)
	fact := ledger.New(ledger.KindSupplyPolicyChanged, g.now, "person:carol", "pump", nil, []byte("{}"))
	if err := g.db.Supply().PutPolicy(t.Context(), "pump", supply.Policy{Mode: supply.Off}, supply.Policy{Mode: supply.Warn}, fact); err == nil || !strings.Contains(err.Error(), supply.ErrChanged.Error()) {
		t.Errorf("over what was never seen: %v", err)
	}
	had, err := g.db.Supply().Policy(t.Context(), "pump")
	if err != nil || had.Mode != supply.Off || len(had.Builders) != 1 {
		t.Errorf("%+v, %v", had, err)
	}
}

// A log that is replayed gives a release its decision back, which its approvers signed.
func TestADecisionComesBackFromTheLog(t *testing.T) {
	g := newGated(t, supply.Warn)
	g.fresh()
	r, err := g.releases.Propose(t.Context(), person("carol"), g.good("1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	other := newStages(t, wire.ModelBlob)
	lost := g.entriesOf(ledger.KindReleaseProposed, ledger.KindSupplyDecided)
	counts := map[ledger.Kind]store.Replayed{}
	if err := other.db.Replay(t.Context(), ledger.Control, 0, lost, counts); err != nil {
		t.Fatal(err)
	}
	if counts[ledger.KindSupplyDecided].Applied != 1 {
		t.Errorf("%v", counts)
	}
	if got, err := other.db.Releases().Release(t.Context(), r.Digest); err != nil || !bytes.Equal(got.Decision, r.Decision) {
		t.Errorf("%x, %v", got.Decision, err)
	}
}
