package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/wire"
)

// canary is what somebody said that is nobody's business.
const canary = "mrs-smith-of-ward-3"

// traces tells where in the database the canary is.
func traces(t *testing.T, db *store.DB) []string {
	t.Helper()
	var out []string
	for _, table := range []string{
		"entry", "device", "command", "command_device", "finding", "remedy_case", "retirement", "proposal", "private", "private_key",
		"device_group", "group_size", "stream_epoch", "stream_record", "stream_series", "audit",
	} {
		out = append(out, tracesIn(t, db, table)...)
	}
	return out
}

func tracesIn(t *testing.T, db *store.DB, table string) []string {
	t.Helper()
	rows, err := db.Read().QueryContext(t.Context(), `SELECT * FROM `+table)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for rows.Next() {
		cells := make([]any, len(names))
		for i := range cells {
			cells[i] = new(any)
		}
		if err := rows.Scan(cells...); err != nil {
			t.Fatal(err)
		}
		for i, c := range cells {
			v := *c.(*any)
			text := fmt.Sprint(v)
			if b, ok := v.([]byte); ok {
				text = string(b)
			}
			if strings.Contains(text, canary) {
				out = append(out, table+"."+names[i])
			}
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// gossip has everything said of a device that can be said in words.
func gossip(t *testing.T, s *stages, id string) {
	t.Helper()
	ctx := t.Context()
	config, err := wire.EncodeConfig([]wire.ConfigEntry{{Name: "room", Value: canary}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.devices.Group(ctx, person("op"), []string{id}, canary, "she is "+canary); err != nil {
		t.Fatal(err)
	}
	if _, err := s.devices.Command(ctx, person("op"), device.Instruction{
		Product: "pump", Act: wire.ActConfigure, Devices: []string{id}, Reason: "for " + canary, Config: config,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.devices.Move(ctx, person("op"), id, device.Maintain, nil, "broken by "+canary); err != nil {
		t.Fatal(err)
	}
	f := monitor.Finding{ID: "f1", Dedupe: "f1", Kind: monitor.Unhealthy, Severity: monitor.High, Product: "pump", Subject: id, Text: canary, Raised: s.now}
	if _, err := s.db.Monitor().PutFinding(ctx, f, ledger.New(ledger.KindFindingRaised, s.now, "test", id, nil, []byte(`{"text":"`+canary+`"}`))); err != nil {
		t.Fatal(err)
	}
	c := remedy.Case{Device: id, Product: "pump", Cause: ledger.Ref{Log: ledger.Events, Index: 3}, Reason: canary, Phase: remedy.Contained, Opened: s.now, Rev: 1}
	if err := s.db.Remedies().OpenCase(ctx, c, remedy.Limit{Most: 1}, ledger.New(ledger.KindRemedyDecided, s.now, "test", id, nil, []byte(`{"reason":"`+canary+`"}`))); err != nil {
		t.Fatal(err)
	}
	p := proposal.Proposal{
		ID: "p1", State: proposal.Open, By: "person:op", Reason: canary, Made: s.now, Expires: s.now.Add(time.Hour),
		Asked: proposal.Asked{Path: "/devices/" + id + "/moves", Body: []byte(`{"reason":"` + canary + `"}`)},
	}
	if err := s.db.PutProposal(ctx, p, ledger.New(ledger.KindProposalMade, s.now, "test", p.ID, nil, []byte(`{"reason":"`+canary+`"}`))); err != nil {
		t.Fatal(err)
	}
}

func TestAForgottenDeviceIsGoneFromEverythingButTheLog(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	rel := s.publish("1.0.0")
	s.make(devN(0), rel)
	s.make(devN(1), rel)
	s.says(devN(0), rel, true, false, nil)
	gossip(t, s, devN(0))
	if where := traces(t, s.db); len(where) < 6 {
		t.Fatalf("the test says too little: %v", where)
	}
	for _, where := range traces(t, s.db) {
		if strings.HasPrefix(where, "entry.") || strings.HasPrefix(where, "private") {
			t.Errorf("what was said is in %s", where)
		}
	}
	facts := entries(t, s.db)

	if _, err := s.devices.Forget(t.Context(), person("sec"), devN(0)); !isFault(err, "device.living") {
		t.Fatalf("a living device is forgotten: %v", err)
	}
	if err := s.db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE device SET state = 'decommissioned' WHERE id = $1`, devN(0))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.devices.Forget(t.Context(), access.Caller{ID: "person:op", Kind: access.Person, Roles: []access.Role{access.Operator}}, devN(0)); !isFault(err, "access.denied") {
		t.Fatalf("who may not, may: %v", err)
	}
	d, err := s.devices.Forget(t.Context(), person("sec"), devN(0))
	if err != nil || d.Twin.Forgotten.IsZero() || d.Group != "" {
		t.Fatalf("%+v, %v", d, err)
	}
	if where := traces(t, s.db); len(where) > 0 {
		t.Errorf("it is still in %v", where)
	}
	after := entries(t, s.db)
	if len(after) != len(facts)+1 || strings.Join(after[:len(facts)], "") != strings.Join(facts, "") {
		t.Errorf("the log was changed: %d entries, %d before", len(after), len(facts))
	}
	lines, err := s.db.FleetTimeline(t.Context(), devN(0), 50)
	if err != nil || len(lines) < 5 {
		t.Fatalf("the timeline: %v, %v", lines, err)
	}
	gone := 0
	for _, l := range lines {
		if strings.Contains(l.Text, fleet.Absent) {
			gone++
		}
	}
	if gone < 4 {
		t.Errorf("%d lines say that something was forgotten: %+v", gone, lines)
	}
	if _, err := s.devices.Forget(t.Context(), person("sec"), devN(0)); err != nil {
		t.Errorf("again: %v", err)
	}
	if n := len(entries(t, s.db)); n != len(after) {
		t.Errorf("again made %d facts", n-len(after))
	}
}

// entries are the bytes of all facts, in their order.
func entries(t *testing.T, db *store.DB) []string {
	t.Helper()
	rows, err := db.Read().QueryContext(t.Context(), `SELECT data FROM entry ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			t.Fatal(err)
		}
		out = append(out, string(b))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func isFault(err error, code string) bool {
	var f *fault.Fault
	return errors.As(err, &f) && f.Code == code
}

func TestWithoutAVaultNothingIsSaidInPrivate(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	s.make(devN(0), s.publish("1.0.0"))
	s.db.KeepPrivate(nil)
	before := len(entries(t, s.db))
	if err := s.devices.Group(t.Context(), person("op"), []string{devN(0)}, canary, ""); err == nil {
		t.Error("it was said, and where?")
	}
	if n := len(entries(t, s.db)); n != before {
		t.Errorf("%d facts came of what failed", n-before)
	}
}
