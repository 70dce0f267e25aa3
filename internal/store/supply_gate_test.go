package store_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/wire"
)

// sealed is a DSSE envelope, as its protocol has it.
func sealed(t *testing.T, k *ecdsa.PrivateKey, kind, payload string) string {
	t.Helper()
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(payload), payload))
	sig, err := ecdsa.SignASN1(rand.Reader, k, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(map[string]any{
		"payload": base64.StdEncoding.EncodeToString([]byte(payload)), "payloadType": kind,
		"signatures": []any{map[string]string{"keyid": "whatever", "sig": base64.StdEncoding.EncodeToString(sig)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func provenanceOf(program, builder, source string) string {
	sum := sha256.Sum256([]byte(program))
	return fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"app","digest":{"sha256":%q}}],"predicateType":"https://slsa.dev/provenance/v1",
		"predicate":{"buildDefinition":{"buildType":"https://acme.example/make","resolvedDependencies":[{"uri":%q}]},"runDetails":{"builder":{"id":%q}}}}`, hex.EncodeToString(sum[:]), source, builder)
}

const (
	inToto  = "application/vnd.in-toto+json"
	builder = "https://ci.acme.example/1"
	source  = "git+https://git.acme.example/pump@refs/heads/main"
)

// gated is a product whose releases go through the gate.
type gated struct {
	*stages
	build, except *ecdsa.PrivateKey
	policy        supply.Policy
}

func newGated(t *testing.T, mode supply.Mode) *gated {
	t.Helper()
	g := &gated{stages: newStages(t, wire.ModelBlob), build: newKey(t), except: newKey(t)}
	g.summaries = newKey(t)
	g.policy = supply.Policy{
		Mode: mode, Exceptions: [][]byte{spki(t, g.except)},
		Builders: []supply.Builder{{ID: builder, Keys: [][]byte{spki(t, g.build)}, BuildTypes: []string{"https://acme.example/make"}, Sources: []string{"git+https://git.acme.example/", "git+https://other.example/pump"}}},
	}
	if _, err := g.supply.SetPolicy(t.Context(), person("carol"), "pump", g.policy); err != nil {
		t.Fatal(err)
	}
	return g
}

// spec has documents; an empty one is left out.
func (g *gated) with(version, sbom, provenance string) release.Spec {
	spec := g.spec(version)
	if sbom != "" {
		d := g.upload(sbom)
		spec.SBOM = d.Digest[:]
	}
	if provenance != "" {
		d := g.upload(provenance)
		spec.Provenance = d.Digest[:]
	}
	return spec
}

func (g *gated) good(version string) release.Spec {
	return g.with(version, billOf("program "+version, "pkg:golang/acme.example/lib@v1.0.0"), sealed(g.t.(*testing.T), g.build, inToto, provenanceOf("program "+version, builder, source)))
}

func (g *gated) fresh(more ...string) {
	g.t.Helper()
	if _, err := g.imports("Go", advisoryText("GO-9", "Go", "acme.example/far", "0", "9.0.0", g.now)+strings.Join(more, "")); err != nil {
		g.t.Fatal(err)
	}
}

func openVEX(flaw, purl, status, why string, at time.Time) string {
	return fmt.Sprintf(`{"@context":"https://openvex.dev/ns/v0.2.0","timestamp":%q,"statements":[{"vulnerability":{"name":%q},"products":[{"@id":"pkg:generic/pump","subcomponents":[{"@id":%q}]}],"status":%q,"justification":%q}]}`,
		at.Format(time.RFC3339), flaw, purl, status, why)
}

const aboutLib = "pkg:golang/acme.example/lib@v1.0.0"

func TestWhatTheGateDoesNotLetThrough(t *testing.T) {
	g := newGated(t, supply.Enforce)
	g.fresh()
	other := newKey(t)
	bill := func(v string) string { return billOf("program "+v, aboutLib) }
	for i, c := range []struct{ name, code, sbom, provenance string }{
		{"nothing at all", "sbom.missing", "", ""},
		{"no provenance", "provenance.missing", bill("1.0.1"), ""},
		{"provenance of another's key", "provenance.signature", bill("1.0.2"), sealed(t, other, inToto, provenanceOf("program 1.0.2", builder, source))},
		{"another builder", "provenance.builder", bill("1.0.3"), sealed(t, g.build, inToto, provenanceOf("program 1.0.3", "https://laptop.example", source))},
		{"another source", "provenance.source", bill("1.0.4"), sealed(t, g.build, inToto, provenanceOf("program 1.0.4", builder, "git+https://evil.example/pump"))},
		{"provenance of other bytes", "digest.provenance", bill("1.0.5"), sealed(t, g.build, inToto, provenanceOf("another program", builder, source))},
		{"a bill of other bytes", "digest.sbom", billOf("another program", aboutLib), sealed(t, g.build, inToto, provenanceOf("program 1.0.6", builder, source))},
		{"a component without a name", "sbom.unnamed", strings.Replace(billOf("program 1.0.7", aboutLib), `"purl":"`+aboutLib+`"`, `"version":"1"`, 1), sealed(t, g.build, inToto, provenanceOf("program 1.0.7", builder, source))},
		{"a bill in which nothing is", "sbom.empty", billOf("program 1.0.8"), sealed(t, g.build, inToto, provenanceOf("program 1.0.8", builder, source))},
		{"a source whose name begins alike", "provenance.source", bill("1.0.9"), sealed(t, g.build, inToto, provenanceOf("program 1.0.9", builder, "git+https://other.example/pump-evil"))},
		{"a source that leads upwards", "provenance.source", bill("1.0.10"), sealed(t, g.build, inToto, provenanceOf("program 1.0.10", builder, source+"/../evil"))},
		{"an ecosystem without advisories", "advisories.database", billOf("program 1.0.11", "pkg:npm/left-pad@1.0.0"), sealed(t, g.build, inToto, provenanceOf("program 1.0.11", builder, source))},
	} {
		version := fmt.Sprintf("1.0.%d", i)
		_, err := g.releases.Propose(t.Context(), person("carol"), g.with(version, c.sbom, c.provenance))
		if codeOf(err) != "supply.gate" || !strings.Contains(err.Error(), c.code) {
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		}
		if k := g.kinds("pump-" + version); k["supply.decided"] != 1 || k["release.proposed"] != 0 {
			t.Errorf("%s: facts %v", c.name, k)
		}
	}
	// What is known against it, and advisories that are too old to say.
	if _, err := g.releases.Propose(t.Context(), person("carol"), g.good("1.1.0")); err != nil {
		t.Errorf("what has all is refused: %v", err)
	}
	g.now = g.now.Add(8 * 24 * time.Hour)
	if _, err := g.releases.Propose(t.Context(), person("carol"), g.good("1.2.0")); err == nil || !strings.Contains(err.Error(), "advisories.database") {
		t.Errorf("advisories of eight days ago: %v", err)
	}
	g.fresh(advisoryText("GO-1", "Go", "acme.example/lib", "0", "1.1.0", g.now))
	if _, err := g.releases.Propose(t.Context(), person("carol"), g.good("1.2.0")); err == nil || !strings.Contains(err.Error(), "advisories.open") {
		t.Errorf("with a known flaw: %v", err)
	}
}

func TestWhoApprovesAReleaseSignsTheGatesDecision(t *testing.T) {
	g := newGated(t, supply.Enforce)
	g.fresh()
	r, err := g.releases.Propose(t.Context(), person("carol"), g.good("1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(r.Decision)
	m, err := wire.DecodeRelease(r.Payload)
	if err != nil || !bytes.Equal(m.Decision, sum[:]) {
		t.Fatalf("what is signed has decision %x, and it is %x: %v", m.Decision, sum, err)
	}
	d, err := wire.DecodeGateDecision(r.Decision)
	if err != nil || !d.OK || len(d.Steps) != 5 || d.Components != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	for i, who := range []string{"alice", "bob"} {
		if _, err := g.releases.Approve(t.Context(), person(who), r.Digest, g.sign(wire.TypeRelease, r.Payload, i)); err != nil {
			t.Fatal(err)
		}
	}
	// A flaw that became known between proposal and publication.
	flaw := advisoryText("GO-1", "Go", "acme.example/lib", "0", "1.1.0", g.now)
	g.fresh(flaw)
	if _, err := g.releases.Publish(t.Context(), person("carol"), r.Digest); codeOf(err) != "supply.gate" {
		t.Errorf("published with a known flaw: %v", err)
	}
	if _, err := g.supply.TakeException(t.Context(), person("carol"), "pump", []byte(sealed(t, g.except, "text/json", openVEX("CVE-2030-1", aboutLib, "not_affected", "vulnerable_code_not_present", g.now)))); err != nil {
		t.Fatal(err)
	}
	if _, err := g.releases.Publish(t.Context(), person("carol"), r.Digest); err != nil {
		t.Errorf("with the flaw excused: %v", err)
	}
	if got, err := g.db.Releases().Release(t.Context(), r.Digest); err != nil || !bytes.Equal(got.Decision, r.Decision) {
		t.Errorf("stored: %x, %v", got.Decision, err)
	}
	if k := g.kinds("pump-1.0.0"); k["supply.decided"] != 1 || k["release.published"] != 1 {
		t.Errorf("facts: %v", k)
	}
}

func TestExceptionsAreSignedMatchAndExpire(t *testing.T) {
	g := newGated(t, supply.Enforce)
	g.fresh(advisoryText("GO-1", "Go", "acme.example/lib", "0", "1.1.0", g.now))
	why := "vulnerable_code_not_present"
	for name, c := range map[string]struct {
		key  *ecdsa.PrivateKey
		vex  string
		code string
	}{
		"another's key":         {newKey(t), openVEX("CVE-2030-1", aboutLib, "not_affected", why, g.now), "vex.signature"},
		"a flaw nobody knows":   {g.except, openVEX("CVE-2031-7", aboutLib, "not_affected", why, g.now), "vex.nothing"},
		"another component":     {g.except, openVEX("CVE-2030-1", "pkg:golang/acme.example/other@v1.0.0", "not_affected", why, g.now), "vex.nothing"},
		"a version without it":  {g.except, openVEX("CVE-2030-1", "pkg:golang/acme.example/lib@v1.5.0", "not_affected", why, g.now), "vex.nothing"},
		"without a reason":      {g.except, openVEX("CVE-2030-1", aboutLib, "not_affected", "", g.now), "vex.unreadable"},
		"of a time to come":     {g.except, openVEX("CVE-2030-1", aboutLib, "not_affected", why, g.now.Add(2*time.Hour)), "vex.time"},
		"another kind of thing": {g.except, `{"statements":[]}`, "vex.unreadable"},
	} {
		if _, err := g.supply.TakeException(t.Context(), person("carol"), "pump", []byte(sealed(t, c.key, "text/json", c.vex))); codeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	viewer := access.Caller{ID: "person:v", Kind: access.Person, Roles: []access.Role{access.Viewer}}
	good := []byte(sealed(t, g.except, "text/json", openVEX("CVE-2030-1", aboutLib, "not_affected", why, g.now)))
	if _, err := g.supply.TakeException(t.Context(), viewer, "pump", good); codeOf(err) != "access.denied" {
		t.Errorf("a viewer: %v", err)
	}
	propose := func(version string) string {
		_, err := g.releases.Propose(t.Context(), person("carol"), g.good(version))
		if err == nil {
			return ""
		}
		return err.Error()
	}
	if got := propose("1.0.0"); !strings.Contains(got, "advisories.open") {
		t.Errorf("before: %s", got)
	}
	for range 2 {
		if _, err := g.supply.TakeException(t.Context(), person("carol"), "pump", good); err != nil {
			t.Fatal(err)
		}
	}
	if got := propose("1.0.0"); got != "" {
		t.Errorf("excused: %s", got)
	}
	g.now = g.now.Add(181 * 24 * time.Hour)
	g.fresh(advisoryText("GO-1", "Go", "acme.example/lib", "0", "1.1.0", g.now))
	if got := propose("1.1.0"); !strings.Contains(got, "vex.expired") || !strings.Contains(got, "advisories.open") {
		t.Errorf("after it has expired: %s", got)
	}
	// What is said later counts: it is one after all.
	if _, err := g.supply.TakeException(t.Context(), person("carol"), "pump", []byte(sealed(t, g.except, "text/json", openVEX("CVE-2030-1", aboutLib, "affected", "", g.now)))); err != nil {
		t.Fatal(err)
	}
	if got := propose("1.1.0"); strings.Contains(got, "vex.expired") || !strings.Contains(got, "advisories.open") {
		t.Errorf("taken back: %s", got)
	}
	if k := g.kinds("pump"); k["vex.taken"] != 2 {
		t.Errorf("facts: %v", k)
	}
}

func TestWithoutAGateAllIsAsItWas(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	if r := s.publish("1.0.0"); len(r.Decision) != 0 || len(r.Manifest.Decision) != 0 {
		t.Errorf("%+v", r)
	}
	g := newGated(t, supply.Warn)
	r, err := g.releases.Propose(t.Context(), person("carol"), g.spec("1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	if d, err := wire.DecodeGateDecision(r.Decision); err != nil || d.OK {
		t.Errorf("a gate that warns: %+v, %v", d, err)
	}
	// It has to hold from now on: what was decided badly, or not at all, is not published any more.
	if _, err := g.supply.SetPolicy(t.Context(), person("carol"), "pump", supply.Policy{Mode: supply.Enforce}); err != nil {
		t.Fatal(err)
	}
	for i, who := range []string{"alice", "bob"} {
		if _, err := g.releases.Approve(t.Context(), person(who), r.Digest, g.sign(wire.TypeRelease, r.Payload, i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.releases.Publish(t.Context(), person("carol"), r.Digest); codeOf(err) != "supply.gate" {
		t.Errorf("published: %v", err)
	}
	// To ask for less takes two.
	if _, err := g.supply.SetPolicy(t.Context(), person("carol"), "pump", supply.Policy{Mode: supply.Off}); err == nil {
		t.Error("one person ends the gate")
	}
	if _, err := g.supply.SetPolicy(t.Context(), together("carol", "dora"), "pump", supply.Policy{Mode: supply.Off}); err != nil {
		t.Errorf("two people: %v", err)
	}
	for name, p := range map[string]supply.Policy{
		"no mode": {}, "a builder without a key": {Mode: supply.Warn, Builders: []supply.Builder{{ID: "b", Sources: []string{"x"}}}},
		"no key": {Mode: supply.Warn, Exceptions: [][]byte{{1}}}, "a builder without a source": {Mode: supply.Warn, Builders: []supply.Builder{{ID: "b", Keys: g.policy.Exceptions}}},
	} {
		if _, err := g.supply.SetPolicy(t.Context(), person("carol"), "pump", p); codeOf(err) != "supply.policy" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := g.supply.SetPolicy(t.Context(), person("carol"), "none", supply.Policy{Mode: supply.Warn}); codeOf(err) != "product.unknown" {
		t.Errorf("no such product: %v", err)
	}
}

// One flaw that is known and excused does not cover another of which nobody knows whether it is one; and case does not hide a component from its advisories.
func TestWhatIsDoubtfulIsNotCoveredByWhatIsExcused(t *testing.T) {
	g := newGated(t, supply.Enforce)
	known := advisoryText("GO-1", "Go", "acme.example/Lib", "0", "1.1.0", g.now)
	doubtful := `{"id":"GO-2","modified":"` + g.now.Format(time.RFC3339) + `","aliases":["CVE-2030-2"],"affected":[{"package":{"ecosystem":"Go","name":"acme.example/Lib"},"ranges":[{"type":"GIT","repo":"https://acme.example/lib","events":[{"introduced":"0"}]}]}]}`
	g.fresh(known)
	if _, err := g.releases.Propose(t.Context(), person("carol"), g.good("1.0.0")); err == nil || !strings.Contains(err.Error(), "advisories.open") {
		t.Errorf("a flaw of a component that its advisory writes with a capital: %v", err)
	}
	if _, err := g.supply.TakeException(t.Context(), person("carol"), "pump", []byte(sealed(t, g.except, "text/json", openVEX("CVE-2030-1", aboutLib, "not_affected", "vulnerable_code_not_present", g.now)))); err != nil {
		t.Fatal(err)
	}
	g.now = g.now.Add(time.Minute)
	g.fresh(known, doubtful)
	if _, err := g.releases.Propose(t.Context(), person("carol"), g.good("1.0.0")); err == nil || !strings.Contains(err.Error(), "advisories.unknown") {
		t.Errorf("a doubt beside what is excused: %v", err)
	}
	if _, err := g.imports("Go", advisoryText("GO-3", "Go", "acme.example/lib", "0", "1.1.0", g.now.Add(48*time.Hour))); codeOf(err) != "advisories.time" {
		t.Errorf("advisories of a time to come: %v", err)
	}
}

// Who may supply what is inside is asked of each component but what was built here; one whose supplier is not named has none that is allowed.
func TestOnlyAllowedSuppliersPass(t *testing.T) {
	g := newGated(t, supply.Enforce)
	g.fresh()
	g.policy.Suppliers = []string{"Acme"}
	if _, err := g.supply.SetPolicy(t.Context(), together("carol", "dora"), "pump", g.policy); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("program 1.0.0"))
	own := fmt.Sprintf(`{"type":"application","bom-ref":"own","name":"app","version":"1","purl":"pkg:generic/app@1","hashes":[{"alg":"SHA-256","content":"%x"}]},{"type"`, sum)
	for supplier, want := range map[string]string{`"supplier":{"name":"Acme"},`: "", `"supplier":{"name":"Acme Evil"},`: "part-0 (Acme Evil)", ``: "part-0 (of nobody that is named)"} {
		bill := strings.Replace(billOf("program 1.0.0", aboutLib), `"bom-ref":"c0",`, `"bom-ref":"c0",`+supplier, 1)
		d, err := g.supply.Gate(t.Context(), person("carol"), g.manifest("1.0.0", strings.Replace(bill, `[{"type":"library"`, `[`+own+`:"library"`, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if step := d.Steps[1]; step.N != 2 || step.OK != (want == "") || !step.OK && (step.Code != "sbom.supplier" || !strings.Contains(step.Text, "1 components") || !strings.Contains(step.Text, want)) {
			t.Errorf("%s: %+v", supplier, step)
		}
	}
	g.policy.Suppliers = []string{""}
	if _, err := g.supply.SetPolicy(t.Context(), together("carol", "dora"), "pump", g.policy); codeOf(err) != "supply.policy" {
		t.Errorf("nobody is allowed by name: %v", err)
	}
}

// manifest is what the gate is asked about before anything is proposed.
func (g *gated) manifest(version, bill string) wire.Release {
	g.t.Helper()
	spec, sum := g.with(version, bill, ""), sha256.Sum256([]byte("program "+version))
	return wire.Release{ID: spec.ID, Product: "pump", Version: version, SBOM: spec.SBOM, Components: []wire.Component{{Name: "app", Digest: sum[:]}}}
}
