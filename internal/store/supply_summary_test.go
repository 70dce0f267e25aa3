package store_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/comply"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/statement"
	"github.com/hallmark-iot/hallmark/wire"
)

// approved is a release that only has to be published.
func (g *gated) approved(spec release.Spec) release.Release {
	g.t.Helper()
	r, err := g.releases.Propose(g.t.Context(), person("carol"), spec)
	for i, who := range []string{"alice", "bob"} {
		if err == nil {
			r, err = g.releases.Approve(g.t.Context(), person(who), r.Digest, g.sign(wire.TypeRelease, r.Payload, i))
		}
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

func TestAReleaseIsPublishedWithASignedSummary(t *testing.T) {
	g := newGated(t, supply.Enforce)
	g.policy.Builders[0].Level = 2
	if _, err := g.supply.SetPolicy(t.Context(), together("carol", "dora"), "pump", g.policy); err != nil {
		t.Fatal(err)
	}
	g.fresh()
	r := g.approved(g.good("1.0.0"))
	key := g.summaries
	for code, broken := range map[string]func(){"supply.no-key": func() { g.summaries = nil }, "supply.seal": func() { g.summaries = noKey{key} }} {
		broken()
		if _, err := g.releases.Publish(t.Context(), person("carol"), r.Digest); codeOf(err) != code {
			t.Errorf("%v, want %s", err, code)
		}
		if k := g.kinds("pump-1.0.0"); k["release.published"]+k["supply.summary"] != 0 {
			t.Errorf("%s: facts %v", code, k)
		}
	}
	g.summaries = key
	r, err := g.releases.Publish(t.Context(), person("carol"), r.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if k := g.kinds("pump-1.0.0"); k["release.published"] != 1 || k["supply.summary"] != 1 {
		t.Errorf("facts %v", k)
	}
	stored, err := g.db.Releases().Release(t.Context(), r.Digest)
	if err != nil || !bytes.Equal(stored.Summary, r.Summary) {
		t.Fatalf("stored %s, %v", stored.Summary, err)
	}
	if _, err := statement.ReadSigned(r.Summary, [][]byte{spki(t, key)}, 1); err != nil {
		t.Fatal(err)
	}
	s, err := statement.ReadSummary(r.Summary)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Passed || !slices.Equal(s.Levels, []string{"SLSA_BUILD_LEVEL_2", "HALLMARK-SUPPLY-GATE"}) || s.Resource != "pkg:generic/pump@1.0.0" || s.Verifier != "https://hallmark.example" {
		t.Errorf("%+v", s)
	}
	if want := []statement.Subject{{Name: "pump-1.0.0", Digest: r.Digest}, {Name: "app", Digest: sha256.Sum256([]byte("program 1.0.0"))}}; !slices.Equal(s.Subjects, want) {
		t.Errorf("it is about %+v, want %+v", s.Subjects, want)
	}
	for what, digest := range map[string][]byte{"the bill of materials": r.Manifest.SBOM, "the provenance": r.Manifest.Provenance, "the decision": r.Manifest.Decision} {
		if !slices.ContainsFunc(s.Inputs, func(in statement.Reference) bool { return bytes.Equal(in.Digest[:], digest) }) {
			t.Errorf("%s is not among %+v", what, s.Inputs)
		}
	}
}

// noKey is a key that signs nothing, as one whose token was taken out.
type noKey struct{ crypto.Signer }

func (noKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the token is gone")
}

// Where a gate only warns, what does not pass is published, and its summary says so; without a gate there is none.
func TestASummaryIsHonest(t *testing.T) {
	g := newGated(t, supply.Warn)
	r, err := g.releases.Publish(t.Context(), person("carol"), g.approved(g.spec("1.0.0")).Digest)
	if err != nil {
		t.Fatal(err)
	}
	s, err := statement.ReadSummary(r.Summary)
	if err != nil || s.Passed || len(s.Levels) != 0 || !strings.Contains(string(payloadOf(t, g, r.Summary)), `"verificationResult":"FAILED","verifiedLevels":["FAILED"]`) {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := g.supply.SetPolicy(t.Context(), person("carol"), "pump", supply.Policy{Mode: supply.Off}); err != nil {
		t.Fatal(err)
	}
	g.summaries = nil
	if r, err = g.releases.Publish(t.Context(), person("carol"), g.approved(g.spec("1.1.0")).Digest); err != nil || len(r.Summary) != 0 {
		t.Errorf("without a gate: %s, %v", r.Summary, err)
	}
}

func payloadOf(t *testing.T, g *gated, envelope []byte) []byte {
	t.Helper()
	s, err := statement.ReadSigned(envelope, [][]byte{spki(t, g.summaries)}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return s.Payload
}

func TestASummaryComesBackFromTheLog(t *testing.T) {
	g := newGated(t, supply.Enforce)
	g.fresh()
	r, err := g.releases.Publish(t.Context(), person("carol"), g.approved(g.good("1.0.0")).Digest)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := g.db.Read().QueryContext(t.Context(), `SELECT data FROM entry WHERE kind IN ('release.proposed', 'release.published', 'supply.summary') ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var lost [][]byte
	for rows.Next() {
		var e []byte
		if err := rows.Scan(&e); err != nil {
			t.Fatal(err)
		}
		lost = append(lost, e)
	}
	if err := rows.Err(); err != nil || len(lost) != 3 {
		t.Fatalf("%d facts, %v", len(lost), err)
	}
	other, counts := newStages(t, wire.ModelBlob), map[ledger.Kind]store.Replayed{}
	if err := other.db.Replay(t.Context(), ledger.Control, 0, lost, counts); err != nil {
		t.Fatal(err)
	}
	if got, err := other.db.Releases().Release(t.Context(), r.Digest); err != nil || !bytes.Equal(got.Summary, r.Summary) || got.Status != release.Published || counts[ledger.KindSupplySummary].Applied != 1 {
		t.Errorf("%s, %v, %v", got.Summary, counts, err)
	}
}

// Compliance reads what the gate found, and not that documents are named.
func TestComplianceReadsTheDecisionAndTheSummary(t *testing.T) {
	g := newGated(t, supply.Warn)
	g.fresh()
	found := func() *comply.Found {
		t.Helper()
		s, err := g.db.Comply().Measure(t.Context(), "pump", g.now)
		if err != nil || len(s.Releases) == 0 {
			t.Fatalf("%+v, %v", s.Releases, err)
		}
		return s.Releases[0].Found
	}
	publish := func(spec release.Spec) release.Release {
		t.Helper()
		r, err := g.releases.Publish(t.Context(), person("carol"), g.approved(spec).Digest)
		if err != nil {
			t.Fatal(err)
		}
		g.now = g.now.Add(time.Second) // each is newer than the one before
		return r
	}
	publish(g.good("1.0.0"))
	if f := found(); f == nil || !f.Passed || f.Components != 1 || f.Unknown != 0 {
		t.Errorf("let through: %+v", f)
	}
	publish(g.spec("1.1.0"))
	if f := found(); f == nil || f.Passed {
		t.Errorf("warned of: %+v", f)
	}
	if _, err := g.supply.SetPolicy(t.Context(), person("carol"), "pump", supply.Policy{Mode: supply.Off}); err != nil {
		t.Fatal(err)
	}
	publish(g.good("1.2.0"))
	if f := found(); f != nil {
		t.Errorf("no gate: %+v", f)
	}
}
