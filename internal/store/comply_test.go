package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/comply"
	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/wire"
)

// What is measured is what the stages did: a release was published, devices run it and prove it, one does not.
func TestASnapshotCountsWhatTheStagesDid(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	rel := s.publish("1.0.0")
	for i := range 4 {
		s.make(devN(i), rel)
	}
	s.says(devN(0), rel, true, false, nil)
	s.says(devN(1), rel, true, false, nil)
	s.proves(devN(0), rel, attest.Affirming)
	s.proves(devN(1), rel, attest.Contraindicated)
	s.now = s.now.Add(-48 * time.Hour)
	s.proves(devN(2), rel, attest.Affirming) // two days ago
	s.now = s.now.Add(48 * time.Hour)
	other := ledger.New(ledger.KindDeviceRefused, s.now, "test", "of another product", nil, []byte(`{"code":"signature"}`))
	own := ledger.New(ledger.KindDeviceRefused, s.now, "test", devN(0), nil, []byte(`{"code":"signature"}`))
	err := s.db.Write(t.Context(), func(tx *store.Tx) error {
		for _, q := range []string{
			`UPDATE device SET identity = '1' WHERE id IN ('` + devN(0) + `', '` + devN(3) + `')`,
			`INSERT INTO finding (id, dedupe, kind, severity, product, subject, raised, doc) VALUES ('f', 'f', 'log.forked', 'critical', 'pump', 'x', 1000, '{}')`,
			`INSERT INTO cert (key, device, role, issuer, serial, request, not_before, not_after, ended, der)
				VALUES ('k', '` + devN(0) + `', 'ldevid', 'ca', '1', '', 1, 99999999999999, 0, ''), ('l', '` + devN(1) + `', 'ldevid', 'ca', '2', '', 1, 1000, 0, '')`,
			`INSERT INTO remedy_case (cause_log, cause_idx, device_id, product, phase, open, held, opened, rev, doc)
				SELECT 'events', i, d, 'pump', 'closed', 0, 0, e.at, 1, '{}' FROM (SELECT 901 i, '` + devN(0) + `' d UNION ALL SELECT 902, '` + devN(0) + `' UNION ALL SELECT 903, '` + devN(1) + `') c, (SELECT max(at) at FROM entry) e`,
			`INSERT INTO audit (at, caller, action, resource, product, allowed) SELECT max(at), 'x', 'y', 'z', 'pump', 0 FROM entry UNION ALL SELECT max(at), 'x', 'y', 'z', 'pump', 1 FROM entry`,
		} {
			if _, err := tx.Exec(q); err != nil {
				return err
			}
		}
		return tx.Append(other, own)
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.db.Comply().Measure(t.Context(), "pump", s.now.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	var sum comply.Devices
	for _, d := range got.Devices {
		sum.N, sum.Heard, sum.Good, sum.Bad, sum.Stale = sum.N+d.N, sum.Heard+d.Heard, sum.Good+d.Good, sum.Bad+d.Bad, sum.Stale+d.Stale
		sum.Certified, sum.Identified = sum.Certified+d.Certified, sum.Identified+d.Identified
	}
	if sum.N != 4 || sum.Heard != 2 || sum.Good != 1 || sum.Bad != 1 || sum.Stale != 1 || sum.Certified != 1 || sum.Identified != 2 {
		t.Errorf("devices: %+v of %+v", sum, got.Devices)
	}
	if got.Shared != 1 || got.Refusals["signature"] != 1 || got.Facts[ledger.KindDeviceRefused].N != 1 || got.Denials.N != 1 {
		t.Errorf("shared %d, refusals %v, denials %+v", got.Shared, got.Refusals, got.Denials)
	}
	if got.Cases.N != 3 || got.Cases.Devices != 2 {
		t.Errorf("cases: %+v", got.Cases)
	}
	if len(got.Findings) != 1 || got.Findings[0].Open != 1 || got.Findings[0].Kind != string(monitor.LogForked) {
		t.Errorf("an old finding that is open: %+v", got.Findings)
	}
	if len(got.Releases) != 1 || !got.Releases[0].Verified || got.Releases[0].Suite != "HM-P256-1" || got.Releases[0].Approvers != 2 || got.Releases[0].SBOM {
		t.Errorf("releases: %+v", got.Releases)
	}
	if got.Bundle.Version != 1 || got.Bundle.Threshold != 2 || got.Bundle.Signers != 3 {
		t.Errorf("bundle: %+v", got.Bundle)
	}
	if _, err := s.db.Comply().Measure(t.Context(), "none", s.now); !errors.Is(err, comply.ErrNoProduct) {
		t.Errorf("a product that is not there: %v", err)
	}
}

// A release whose bytes were changed in the database is found, though it was published properly.
func TestReleasesAreVerifiedAnew(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	rel := s.publish("1.0.0")
	err := s.db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE release SET envelope = $1 WHERE digest = $2`, s.sign(wire.TypeRelease, rel.Payload, 0), rel.Digest[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.db.Comply().Measure(t.Context(), "pump", s.now)
	if err != nil || len(got.Releases) != 1 || got.Releases[0].Verified {
		t.Errorf("%+v, %v", got.Releases, err)
	}
}

func words(text string, now time.Time) comply.Words {
	return comply.Words{Kind: comply.Fulfilled, Text: text, ReviewBy: now.AddDate(1, 0, 0)}
}

// A statement is on file at once, a newer one takes its place, and the ledger keeps both.
func TestAStatementIsReplacedAndNeverLost(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	svc, err := comply.NewService(comply.Config{Guard: s.guard, Store: s.db.Comply(), Now: func() time.Time { return s.now }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, who := t.Context(), access.Caller{ID: "person:sue", Kind: access.Person, Roles: []access.Role{access.Security}}
	tag := func() string {
		tag, err := s.db.Tag(ctx, once.Statement, "pump/etsi-en-303-645/5.12-1")
		if err != nil || tag == "" {
			t.Fatalf("tag %q, %v", tag, err)
		}
		return tag
	}
	none := tag()
	for i, text := range []string{"two steps", "one step"} {
		st, err := svc.State(ctx, who, "pump", "etsi-en-303-645", "5.12-1", words(text, s.now))
		if err != nil || st.Rev != int64(i+1) || st.By != "person:sue" {
			t.Fatalf("%+v, %v", st, err)
		}
	}
	if tag() == none {
		t.Error("the tag is the same with and without statements")
	}
	a, _, err := svc.Get(ctx, who, "pump", "etsi-en-303-645", "5.12-1")
	if err != nil || a.Standing != comply.Met || a.OnFile == nil || a.OnFile.Text != "one step" {
		t.Errorf("%+v, %v", a, err)
	}
	var texts []string
	rows, err := s.db.Read().QueryContext(ctx, `SELECT data FROM entry WHERE kind = 'compliance.stated' AND subject = 'pump' ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var data []byte
		if err := rows.Scan(&data); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(data))
	}
	if rows.Err() != nil || len(texts) != 2 || !strings.Contains(texts[0], "two steps") || !strings.Contains(texts[1], "one step") {
		t.Errorf("in the ledger: %q, %v", texts, rows.Err())
	}
	// A condition that does not hold writes nothing, be it about the first statement or a later one.
	cond, _ := once.Expect(ctx, once.Expectation{Thing: once.Statement, ID: "pump/etsi-en-303-645/5.12-1", Tags: []string{none}})
	if _, err := svc.State(cond, who, "pump", "etsi-en-303-645", "5.12-1", words("three", s.now)); !errors.Is(err, once.ErrChanged) {
		t.Errorf("a statement over one that was not seen: %v", err)
	}
	first, _ := once.Expect(ctx, once.Expectation{Thing: once.Statement, ID: "pump/etsi-en-303-645/5.12-2", Tags: []string{none}})
	if _, err := svc.State(first, who, "pump", "etsi-en-303-645", "5.12-2", words("guided", s.now)); err != nil {
		t.Errorf("the first of its control: %v", err)
	}
	if _, err := svc.State(ctx, access.Caller{ID: "person:audrey", Kind: access.Person, Roles: []access.Role{access.Auditor}}, "pump", "etsi-en-303-645", "5.12-1", words("x", s.now)); err == nil {
		t.Error("an auditor may state")
	}
}

// In a large fleet a snapshot takes one pass over the devices; run with -bench to see how long.
func BenchmarkMeasure(b *testing.B) {
	const n = 100_000
	db := populate(b, n)
	err := db.Write(b.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO product (id, doc) VALUES ('pump', '{"id":"pump","hardware":["A"]}')`)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Run(fmt.Sprintf("of %d devices", n), func(b *testing.B) {
		for b.Loop() {
			if _, err := db.Comply().Measure(b.Context(), "pump", time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
