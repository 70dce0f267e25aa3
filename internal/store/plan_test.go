package store_test

import (
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/postgres"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
)

// crowdSQL fills the large tables with $1 devices and what is known of them. $2 is now in milliseconds, $3 any fact's entry.
var crowdSQL = []string{
	`SET synchronous_commit = off`,
	`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, key_origin, is_virtual, since, last_seen, release, doc, version, verdict, group_path, bundle)
		SELECT md5(i::text), CASE i % 4 WHEN 0 THEN 'valve' ELSE 'pump' END, 'A', CASE WHEN i % 1000 = 999 THEN 'quarantined' WHEN i % 50 = 1 THEN 'onboarded' ELSE 'active' END,
			'genuine', 'order-' || i / 5000, 's', 1, 'soft', 1, 1, $2 - (i % 7) * 3600000, CASE i % 10 WHEN 0 THEN '\xbb'::bytea ELSE '\xaa' END, '{}',
			CASE WHEN i % 2000 = 1 THEN '0.9.0' ELSE '1.0.0' END, CASE WHEN i % 1000 = 999 THEN 96 WHEN i % 3 = 0 THEN 0 ELSE 2 END,
			CASE i % 20 WHEN 0 THEN 'eu/berlin' ELSE '' END, 3 FROM generate_series(1, $1::int) i`,
	`INSERT INTO device_group (path, device_id) SELECT p, id FROM device, unnest(ARRAY[product || '/eu', product || '/eu/berlin']) p WHERE group_path <> ''`,
	`INSERT INTO verdict (uid, device_id, at, status, doc) SELECT decode(id, 'hex'), id, $2 - 1000, verdict, '{"at":"2026-01-02T03:04:05Z","word":"affirming"}' FROM device`,
	`INSERT INTO verdict_current (device_id, uid, at, status) SELECT device_id, uid, at, status FROM verdict`,
	`INSERT INTO finding (id, dedupe, kind, severity, product, subject, raised, closed, doc)
		SELECT md5('f' || i), 'checkin.overdue/' || md5(i::text), CASE i % 3 WHEN 0 THEN 'checkin.overdue' ELSE 'attest.overdue' END, CASE i % 9 WHEN 0 THEN 'high' ELSE 'low' END,
			'pump', md5(i::text), $2 - i * 1000, CASE WHEN i % 20 = 0 THEN 0 ELSE $2 END, '{}' FROM generate_series(1, $1::int / 5) i`,
	`INSERT INTO command (id, uid, digest, product, act, priority, issued, expires, doc)
		SELECT 'command-' || i, decode(md5('c' || i), 'hex'), decode(md5('d' || i), 'hex'), 'pump', CASE i % 2 WHEN 0 THEN 'install' ELSE 'configure' END, 1, $2 - i * 60000, $2 + 3600000, ''
		FROM generate_series(1, 1000) i`,
	`INSERT INTO command_device (command_id, device_id, state, at)
		SELECT 'command-' || (1 + i % 1000), md5(i::text), CASE WHEN i % 100 = 0 THEN 'pending' ELSE 'done' END, $2 FROM generate_series(1, $1::int) i`,
	`INSERT INTO cert (key, device, role, issuer, serial, request, not_before, not_after, ended, der)
		SELECT 'ca/' || id, id, 'ldevid', 'ca', id, decode(repeat('00', 32), 'hex'), 1, last_seen + 14 * 86400000::bigint, 0, '' FROM device`,
	`INSERT INTO audit (at, caller, action, resource, product, allowed)
		SELECT $2 - i, 'person:' || i % 50, CASE i % 5 WHEN 0 THEN 'device.read' ELSE 'fact.read' END, 'device/x', 'pump', 0 FROM generate_series(1, $1::int / 5) i`,
	`INSERT INTO production_order (id, product, state, created, doc) SELECT 'order-' || i, 'pump', 'open', i, '{"id": "order-' || i || '"}' FROM generate_series(0, $1::int / 5000) i`,
	`INSERT INTO production_record (order_id, seq, hash, prev, ticket, device, state, chip, identity, attest, envelope)
		SELECT 'order-' || i / 5000, i, '', '', i, md5(i::text), 'made', decode(md5('h' || i), 'hex'), decode(md5('i' || i), 'hex'), decode(md5('a' || i), 'hex'), '' FROM generate_series(1, $1::int) i`,
	`INSERT INTO entry (log, uid, kind, subject, at, data, idx)
		SELECT 'events', decode(md5('e' || i), 'hex'), CASE i % 10 WHEN 0 THEN 'device.state' ELSE 'attest.verdict' END, md5((i % ($1::int / 4))::text), $2 - i, $3, i - 1 FROM generate_series(1, $1::int) i`,
	`INSERT INTO entry (log, uid, kind, subject, at, data) SELECT 'events', decode(md5('p' || i), 'hex'), 'device.state', 'x', $2, $3 FROM generate_series(1, 300) i`,
	`INSERT INTO tlog_state (log, size, root) VALUES ('events', $1, decode(repeat('00', 32), 'hex'))`,
	`INSERT INTO checkpoint (log, size, root, note, published) SELECT 'events', i, '', '', 1 FROM generate_series(1, 5000) i`,
	`ANALYZE`,
}

var parameter = regexp.MustCompile(`\$[0-9]`)

// largeDatabase makes one whose plans are written to the cluster's log.
func largeDatabase(t *testing.T, n int) (db *store.DB, log string) {
	t.Helper()
	c := storetest.Shared(t)
	name := c.Create(t, true)
	raw, err := sql.Open("pgx", c.URL(name))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetMaxOpenConns(1)
	entry, err := fact("x").Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	all := []any{n, store.Millis(time.Now()), entry}
	for _, q := range crowdSQL {
		// Each parameter by itself, so that none is given that the statement does not have.
		var args []any
		at := map[string]string{}
		q = parameter.ReplaceAllStringFunc(q, func(p string) string {
			if at[p] == "" {
				i, _ := strconv.Atoi(p[1:])
				args = append(args, all[i-1])
				at[p] = fmt.Sprintf("$%d", len(args))
			}
			return at[p] + map[string]string{"$2": "::bigint"}[p]
		})
		if _, err := raw.ExecContext(t.Context(), q, args...); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	if err := c.Super("postgres", "ALTER DATABASE "+name+" SET session_preload_libraries = 'auto_explain'", "ALTER DATABASE "+name+" SET auto_explain.log_min_duration = 0",
		"ALTER DATABASE "+name+" SET auto_explain.log_analyze = on", "ALTER DATABASE "+name+" SET auto_explain.log_timing = off"); err != nil {
		t.Fatal(err)
	}
	if db, err = postgres.Open(t.Context(), c.URL(name)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db, filepath.Join(c.Dir, "server.log")
}

// large are the tables that grow with the fleet, or with time.
var large = regexp.MustCompile(`Seq Scan on (device|device_group|verdict|verdict_current|finding|command_device|cert|audit|production_record|entry)\b`)

var (
	sorted = regexp.MustCompile(`Sort  \(.*\(actual rows=([0-9]+)`)
	looked = regexp.MustCompile(`Rows Removed by (?:Filter|Join Filter): ([0-9]+)`)
)

// What a device, a page or a loop asks for walks along an index at any size: no large table is read whole, nothing long is sorted, and
// little is looked at in vain. The plans are those of the server for the calls themselves, as often as a prepared statement needs to get
// the plan it keeps.
func TestPostgresWalksAlongIndexes(t *testing.T) {
	n := 30_000
	if os.Getenv("HALLMARK_LONG") != "" {
		n = 1_000_000
	}
	db, log := largeDatabase(t, n)
	ctx := t.Context()
	someone := "c4ca4238a0b923820dcc509a6f75849b" // md5 of 1
	uid := [16]byte{}
	if _, err := hex.Decode(uid[:], []byte("d41d8cd98f00b204e9800998ecf8427e")); err != nil {
		t.Fatal(err)
	}
	devices, now, size := db.Devices(), time.Now(), uint64(n)
	page := func(q fleet.Query) func() error {
		return func() error { q.Limit, q.After = 50, "0000"; _, err := db.FleetDevices(ctx, q); return err }
	}
	findings := func(q monitor.Query) func() error {
		return func() error { q.Limit = 50; _, err := db.Monitor().Findings(ctx, q); return err }
	}
	severe := func(q fleet.FindingQuery) func() error {
		return func() error { q.Limit = 50; _, err := db.FleetFindings(ctx, q); return err }
	}
	facts := func(q fleet.FactQuery) func() error {
		return func() error { q.Log, q.Limit = "events", 50; _, err := db.FleetFacts(ctx, q); return err }
	}
	audits := func(f access.RecordedFilter) func() error {
		return func() error { _, err := db.Recorded(ctx, f, int64(n/5), 50); return err }
	}
	place := 20_000 // behind the records of order-1
	calls := map[string]func() error{
		"record": func() error {
			place += 2
			_, err := db.AddRecords(ctx, "order-1", candidates("order-1", place, 1, 10, [32]byte{}))
			return err
		},
		"count of an order": func() error { _, err := db.Tally(ctx, "order-1"); return err },
		"sequence": func() error {
			refused := errors.New("looked")
			_, err := db.Sequence(ctx, ledger.Events, 100, func(ledger.State, []ledger.Pending, func(int, uint64) ([]byte, error)) (ledger.Placement, error) {
				return ledger.Placement{}, refused
			})
			return ignore(err, refused)
		},
		"locate":              func() error { _, _, err := db.Locate(ctx, uid); return ignore(err, ledger.ErrNotFound) },
		"entries":             func() error { _, err := db.Entries(ctx, ledger.Events, size/2, size/2+256); return err },
		"published":           func() error { _, err := db.Published(ctx, ledger.Events); return err },
		"newest fact":         func() error { _, err := db.NewestFact(ctx); return err },
		"device":              func() error { _, err := devices.Device(ctx, someone); return err },
		"standing":            func() error { _, err := db.Onboard().Known(ctx, someone); return err },
		"verdict":             func() error { _, err := db.Attest().Verdict(ctx, someone); return err },
		"verdicts":            func() error { _, err := db.Attest().Verdicts(ctx, someone, 20); return err },
		"outstanding":         func() error { _, err := devices.Outstanding(ctx, someone, now); return err },
		"commands of one":     func() error { _, _ = devices.DeviceCommands(ctx, someone, now, "", 50); return nil }, // what they say cannot be read here
		"devices of one":      func() error { _, _ = devices.CommandDevices(ctx, "command-7", now, "", 50); return nil },
		"behind":              func() error { _, err := devices.DevicesBehind(ctx, "pump", 3, now); return err },
		"detail":              func() error { _, err := db.FleetDevice(ctx, someone); return err },
		"timeline":            func() error { _, err := db.FleetTimeline(ctx, someone, 50); return err },
		"certificates":        func() error { _, err := db.PKI().Certificates(ctx, someone, "", 50); return err },
		"ending certificates": func() error { _, err := db.FleetCertificates(ctx, fleet.CertQuery{Limit: 50}); return err },
		"orders":              func() error { _, err := db.Orders(ctx, "pump", "order-3", 50); return err },
		"last contacts":       func() error { return devices.MarkSeen(ctx, map[string]time.Time{someone: now}) },
		"counter": func() error {
			_, err := devices.NextCounter(ctx, "command-101", someone, 1, false, now)
			return ignore(err, device.ErrChanged)
		},

		"facts": facts(fleet.FactQuery{}), "facts before": facts(fleet.FactQuery{Before: size / 2}), "facts of a kind": facts(fleet.FactQuery{Kind: "device.state"}),
		"facts of one": facts(fleet.FactQuery{Subject: someone}), "facts of a kind before": facts(fleet.FactQuery{Kind: "device.state", Before: size / 2}),

		"all": page(fleet.Query{}), "of a product": page(fleet.Query{Scope: []string{"pump"}}), "of a state": page(fleet.Query{Filter: device.Filter{State: "quarantined"}}),
		"of a product and state": page(fleet.Query{Scope: []string{"pump"}, Filter: device.Filter{State: "active"}}), "of a group": page(fleet.Query{Scope: []string{"pump/eu"}}),
		"of a group and version": page(fleet.Query{Scope: []string{"pump/eu"}, Filter: device.Filter{Version: "0.9.0"}}), "of a verdict": page(fleet.Query{Filter: device.Filter{Verdict: "contraindicated"}}),
		"of a version": page(fleet.Query{Filter: device.Filter{Version: "0.9.0"}}), "of a release": page(fleet.Query{Filter: device.Filter{Release: strings.Repeat("bb", 32)}}), "of a prefix": page(fleet.Query{Filter: device.Filter{Prefix: "00ab"}}),
		"with findings": page(fleet.Query{Filter: device.Filter{Findings: true}}), "of two places": page(fleet.Query{Scope: []string{"pump/eu", "valve"}}),

		"findings": findings(monitor.Query{}), "open findings": findings(monitor.Query{OpenOnly: true}), "findings of a kind": findings(monitor.Query{Kind: monitor.NoCheckin}),
		"newest open of a kind": findings(monitor.Query{Kind: monitor.NoCheckin, OpenOnly: true, Newest: true, After: "z"}), "findings of one": findings(monitor.Query{Subject: someone}),
		"severe": severe(fleet.FindingQuery{Severity: monitor.High}), "severe before": severe(fleet.FindingQuery{Severity: monitor.Low, Before: now}),
		"severe of one": severe(fleet.FindingQuery{Subject: someone}),

		"denials": audits(access.RecordedFilter{}), "denials of one": audits(access.RecordedFilter{Caller: "person:7"}), "denials of an act": audits(access.RecordedFilter{Action: "device.read"}),
	}
	for name, call := range calls {
		before := lengthOf(t, log)
		for range 8 { // from the sixth on, a statement may keep one plan for any argument
			if err := call(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		data, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		plans := strings.Split(string(data[before:]), "Query Text: ")[1:]
		if len(plans) < 8 {
			t.Errorf("%s: only %d plans", name, len(plans))
		}
		for _, p := range plans {
			if bad := unbounded(p); bad != "" {
				t.Errorf("%s: %s:\n%s", name, bad, p)
				break
			}
		}
	}
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

func lengthOf(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// most is how many rows a walk may sort, or look at in vain.
const most = 3000

// unbounded says what of a plan grows with the tables.
func unbounded(plan string) string {
	if m := large.FindString(plan); m != "" {
		return m
	}
	for what, of := range map[string]*regexp.Regexp{"sorted": sorted, "looked at in vain": looked} {
		for _, m := range of.FindAllStringSubmatch(plan, -1) {
			if n, err := strconv.Atoi(m[1]); err != nil || n > most {
				return m[1] + " rows " + what
			}
		}
	}
	return ""
}
