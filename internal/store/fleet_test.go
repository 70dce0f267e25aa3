package store_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
)

// populate fills a store with n devices, of which few are in trouble.
func populate(t testing.TB, n int) *store.DB {
	t.Helper()
	db := storetest.Open(t)
	now := store.Millis(time.Now())
	err := db.Write(t.Context(), func(tx *store.Tx) error {
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprintf("%032x", i)
		}
		list, err := json.Marshal(all)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, key_origin, is_virtual, since, last_seen, release, doc, version, verdict)
			SELECT id, CASE i % 4 WHEN 0 THEN 'valve' ELSE 'pump' END, 'A', CASE WHEN i % 1000 = 999 THEN 'quarantined' ELSE 'active' END,
				'genuine', 'o', 's', 1, 'soft', 1, 1, $2 - (i % 7) * 3600000, $3, '{"version":"' || version || '"}', version, CASE WHEN i % 1000 = 999 THEN 96 ELSE 2 END
			FROM (SELECT l.value AS id, l.key AS i, CASE WHEN l.key % 500 = 1 THEN '0.9.0' ELSE '1.0.0' END AS version FROM list($1) AS l) AS made`,
			string(list), now, bytes.Repeat([]byte{0xaa}, 32)); err != nil {
			return err
		}
		for _, id := range all {
			if _, err := tx.Exec(`INSERT INTO verdict (uid, device_id, at, status, doc) SELECT $1, id, $2, verdict,
				'{"at":"2026-01-02T03:04:05Z","word":"' || CASE WHEN state = 'quarantined' THEN 'contraindicated' ELSE 'affirming' END || '"}' FROM device WHERE id = $3`,
				[]byte(id), now, id); err != nil {
				return err
			}
		}
		for _, q := range []string{
			`INSERT INTO verdict_current (device_id, uid, at, status) SELECT device_id, uid, at, status FROM verdict WHERE at <= $1`,
			`INSERT INTO finding (id, dedupe, kind, severity, product, subject, raised, doc)
				SELECT id, id, 'checkin.overdue', CASE WHEN product = 'valve' THEN 'high' ELSE 'low' END, product, id, CAST($1 AS BIGINT), '{"id":"' || id || '","severity":"low"}'
				FROM device WHERE state = 'quarantined'`,
			`UPDATE device SET findings = 1 WHERE state = 'quarantined' AND last_seen <= $1`,
			`INSERT INTO cert (key, device, role, issuer, serial, request, not_before, not_after, ended, der)
				SELECT id, id, 'ldevid', 'ca', id, '', CAST($1 AS BIGINT), last_seen + 14 * 86400000, 0, '' FROM device`,
		} {
			if _, err := tx.Exec(q, now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func ids(ds []fleet.Device) (out []string) {
	for _, d := range ds {
		out = append(out, d.ID)
	}
	return out
}

func TestTheFleetIsCounted(t *testing.T) {
	db := populate(t, 4000)
	all, err := db.FleetSummary(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if all.Total != 4000 || all.States["quarantined"] != 4 || all.Verdicts["affirming"] != 3996 || all.Verdicts["contraindicated"] != 4 ||
		all.Verdicts["unknown"] != 0 || all.Findings != 4 || all.Versions["0.9.0"] != 8 {
		t.Errorf("%+v", all)
	}
	seen := 0
	for _, a := range all.Seen {
		seen += a.Devices
	}
	if seen != 4000 || all.Seen[0].Devices == 0 || all.Seen[2].Devices == 0 {
		t.Errorf("by age: %+v", all.Seen)
	}
	valves, err := db.FleetSummary(t.Context(), []string{"valve"})
	if err != nil || valves.Total != 1000 || valves.Findings != 0 || valves.Verdicts["affirming"] != 1000 {
		t.Errorf("one product: %+v, %v", valves, err)
	}
	e, err := db.FleetExpiry(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ends := e.Overdue + e.Later
	for _, d := range e.Days {
		ends += d.Count
	}
	if ends != 4000 || e.Later != 0 || len(e.Days) != 31 {
		t.Errorf("calendar: %d of 4000, %d overdue, %d later", ends, e.Overdue, e.Later)
	}
}

// Every filter gives what it says, page by page, and nothing twice.
func TestPagesOfTheFleet(t *testing.T) {
	db := populate(t, 4000)
	for name, c := range map[string]struct {
		q    fleet.Query
		want int
	}{
		"all":              {fleet.Query{}, 4000},
		"a product":        {fleet.Query{Scope: []string{"valve"}}, 1000},
		"two products":     {fleet.Query{Scope: []string{"valve", "pump"}}, 4000},
		"a state":          {fleet.Query{Filter: device.Filter{State: "quarantined"}}, 4},
		"good evidence":    {fleet.Query{Filter: device.Filter{Verdict: "affirming"}}, 3996},
		"bad evidence":     {fleet.Query{Filter: device.Filter{Verdict: "contraindicated"}}, 4},
		"no evidence":      {fleet.Query{Filter: device.Filter{Verdict: "unknown"}}, 0},
		"a version":        {fleet.Query{Filter: device.Filter{Version: "0.9.0"}}, 8},
		"a release":        {fleet.Query{Filter: device.Filter{Release: strings.Repeat("aa", 32), State: "active"}}, 3996},
		"a trust bundle":   {fleet.Query{Filter: device.Filter{Bundle: "7"}}, 0},
		"with findings":    {fleet.Query{Filter: device.Filter{Findings: true}}, 4},
		"how an ID begins": {fleet.Query{Filter: device.Filter{Prefix: fmt.Sprintf("%031x", 0x3e)}}, 16},
		"together":         {fleet.Query{Scope: []string{"pump"}, Filter: device.Filter{State: "quarantined", Verdict: "contraindicated", Findings: true}}, 4},
	} {
		var got []string
		q := c.q
		q.Limit = 700
		for {
			page, err := db.FleetDevices(t.Context(), q)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got = append(got, ids(page)...)
			if len(page) < q.Limit {
				break
			}
			q.After = page[len(page)-1].ID
		}
		if len(got) != c.want || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Errorf("%s: %d devices, want %d", name, len(got), c.want)
		}
	}
	for _, q := range []fleet.Query{{Filter: device.Filter{Verdict: "splendid"}}, {Filter: device.Filter{Release: "zz"}}, {Filter: device.Filter{Bundle: "x"}}, {Filter: device.Filter{Bundle: "-1"}}} {
		if _, err := db.FleetDevices(t.Context(), q); err == nil {
			t.Errorf("%+v was taken", q)
		}
	}
}

func plan(t testing.TB, db *store.DB, query string, args []any) string {
	t.Helper()
	rows, err := db.Read().QueryContext(t.Context(), db.Rewritten(`EXPLAIN QUERY PLAN `+query), args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var id, parent, x int
		var detail string
		if err := rows.Scan(&id, &parent, &x, &detail); err != nil {
			t.Fatal(err)
		}
		out = append(out, detail)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

// A page is a walk along an index: no table is read whole, and nothing is sorted.
func TestListsWalkAlongIndexes(t *testing.T) {
	db := populate(t, 2000)
	for _, q := range []fleet.Query{
		{},
		{Scope: []string{"pump"}},
		{Filter: device.Filter{State: "quarantined"}},
		{Scope: []string{"pump"}, Filter: device.Filter{State: "active"}},
		{Scope: []string{"pump/eu"}},
		{Scope: []string{"pump/eu/berlin"}, Filter: device.Filter{State: "active", Version: "0.9.0"}},
		{Scope: []string{"pump/eu"}, Filter: device.Filter{Verdict: "warning"}},
		{Scope: []string{"pump/eu"}, Filter: device.Filter{Prefix: "00ab"}},
		{Filter: device.Filter{Verdict: "contraindicated"}},
		{Scope: []string{"pump"}, Filter: device.Filter{Verdict: "warning"}},
		{Filter: device.Filter{Version: "0.9.0"}},
		{Filter: device.Filter{Version: "0.9.0", State: "active"}},
		{Filter: device.Filter{Release: strings.Repeat("aa", 32), State: "active"}},
		{Filter: device.Filter{Prefix: "00ab"}},
		{Filter: device.Filter{Findings: true}},
		{Filter: device.Filter{Findings: true, State: "quarantined"}},
	} {
		q.Limit, q.After = 50, "0000"
		queries, args, err := store.DevicesQueries(q)
		if err != nil {
			t.Fatal(err)
		}
		for i, query := range queries {
			if p := plan(t, db, query, args[i]); strings.Contains(p, "SCAN") || strings.Contains(p, "TEMP B-TREE") || strings.Contains(p, "AUTOMATIC") {
				t.Errorf("%+v, along condition %d:\n%s", q, i, p)
			}
		}
	}
	for _, scope := range [][]string{nil, {"pump"}, {"pump/eu"}, {"pump", "valve/eu"}} {
		type asked struct {
			query string
			args  []any
		}
		var all []asked
		for _, q := range []fleet.FindingQuery{{Severity: monitor.High}, {Severity: monitor.Low, Before: time.Now()}, {Subject: "x"}} {
			q.Scope, q.Limit = scope, 50
			query, args := store.FindingsQuery(q)
			all = append(all, asked{query, args})
		}
		for _, q := range []monitor.Query{{}, {After: "a"}, {OpenOnly: true}, {Kind: monitor.NoCheckin}, {Kind: monitor.NoCheckin, OpenOnly: true, Newest: true, After: "z"}} {
			q.Scope, q.Limit = scope, 50
			query, args := store.FindingPage(q)
			all = append(all, asked{query, args})
		}
		for _, a := range all {
			for l := range strings.SplitSeq(plan(t, db, a.query, a.args), "\n") {
				whole := strings.HasPrefix(l, "SCAN") && !strings.Contains(l, "USING INDEX") // a walk along all, in order, that ends at the limit
				if whole || strings.Contains(l, "TEMP B-TREE") {
					t.Errorf("%s\n%s", a.query, l)
				}
			}
		}
	}
	for _, q := range []fleet.FactQuery{{Log: "events"}, {Log: "events", Kind: "attest.verdict"}, {Log: "events", Subject: "x"}, {Log: "events", Kind: "k", Before: 9}, {Log: "events", Kind: "k", Waiting: true}} {
		q.Limit = 50
		query, args := store.FactsQuery(q)
		if p := plan(t, db, query, args); strings.Contains(p, "SCAN") || strings.Contains(p, "TEMP B-TREE") {
			t.Errorf("%+v:\n%s", q, p)
		}
	}
}

func TestFactsAreFoundByKindPageByPage(t *testing.T) {
	r := newRig(t)
	r.grow(t, 300)
	var got []uint64
	q := fleet.FactQuery{Log: string(ledger.Events), Kind: string(fact("x").Kind), Limit: 70}
	for {
		page, err := r.db.FleetFacts(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range page {
			got = append(got, *l.Index)
		}
		if len(page) < q.Limit {
			break
		}
		q.Before = *page[len(page)-1].Index
	}
	if len(got) < 300 || !slices.IsSortedFunc(got, func(a, b uint64) int { return int(b) - int(a) }) {
		t.Errorf("%d facts, sorted %v", len(got), got[:min(5, len(got))])
	}
	if err := r.db.Write(t.Context(), func(tx *store.Tx) error { return tx.Append(fact("waits")) }); err != nil {
		t.Fatal(err)
	}
	q.Before, q.Limit = 0, 2
	placed, err := r.db.FleetFacts(t.Context(), q)
	if err != nil || len(placed) != 2 || placed[0].Index == nil || *placed[0].Index != got[0] {
		t.Errorf("of those that have their place: %+v, %v", placed, err)
	}
	q.Waiting = true
	if all, err := r.db.FleetFacts(t.Context(), q); err != nil || len(all) != 2 || all[0].Index != nil || all[1].Index == nil || *all[1].Index != got[0] {
		t.Errorf("with the one that waits for its: %+v, %v", all, err)
	}
	if none, err := r.db.FleetFindings(t.Context(), fleet.FindingQuery{Severity: monitor.High, Limit: 5}); err != nil || len(none) != 0 {
		t.Errorf("findings of nothing: %v, %v", none, err)
	}
}

// BenchmarkFleetPage is a page of the list among 100,000 devices, by filter.
func BenchmarkFleetPage(b *testing.B) {
	db := populate(b, 100_000)
	for name, q := range map[string]fleet.Query{
		"all": {}, "product": {Scope: []string{"pump"}}, "state": {Filter: device.Filter{State: "quarantined"}}, "verdict": {Filter: device.Filter{Verdict: "contraindicated"}},
		"version": {Filter: device.Filter{Version: "0.9.0"}}, "findings": {Filter: device.Filter{Findings: true}}, "unknown": {Filter: device.Filter{Verdict: "unknown"}},
	} {
		q.Limit = 50
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := db.FleetDevices(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("summary", func(b *testing.B) {
		for b.Loop() {
			if _, err := db.FleetSummary(b.Context(), nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}
