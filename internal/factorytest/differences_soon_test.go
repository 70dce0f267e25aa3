package factorytest_test

import (
	"os"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/internal/store"
)

// pageTime is how long a page of what does not agree may take, whatever else is in the order; ten times as long where others use the machine.
const pageTime = 50 * time.Millisecond

// manyRecords has an order with n records that are one record n times over, but for what must not come twice; every seventh place is missing, and every tenth
// record is a rework. Of the devices all were seen. There are as many alarms as records, none of which contradicts anything.
func manyRecords(t testing.TB, n int) *factorytest.OEM {
	t.Helper()
	o := factorytest.NewOEM(t, "acme")
	s := benchStation(t, o)
	ordered(t, o, s, 1)
	made(t, o, s, 1, false, nil)
	if rep, err := o.Service.ImportRecords(t.Context(), o.Caller, "ord-1", exported(t, o, s)); err != nil || rep.Accepted != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	const count = `WITH RECURSIVE i (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM i WHERE n < $1) `
	for _, q := range []string{
		`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, key_origin, is_virtual, since, last_seen, doc)
			` + count + `SELECT 'd' || n, d.product, d.hardware, d.state, d.legitimacy, d.order_id, d.station, d.made, d.key_origin, d.is_virtual, d.since, 1, d.doc FROM i, device d WHERE d.order_id = 'ord-1'`,
		`INSERT INTO production_record (order_id, seq, hash, prev, ticket, device, state, chip, identity, attest, envelope, rework)
			` + count + `SELECT r.order_id, n + n / 7, randomblob(32), r.prev, n, 'd' || n, 'made', randomblob(8), randomblob(32), randomblob(32), r.envelope, CASE n % 10 WHEN 0 THEN 1 ELSE 0 END
			FROM i, production_record r WHERE r.order_id = 'ord-1' AND r.seq = 1`,
		`UPDATE device SET last_seen = 1`,
		`INSERT INTO production_alarm (order_id, seq, hash, reason, envelope)
			` + count + `SELECT r.order_id, n, randomblob(32), 'a test', r.envelope FROM i, production_record r WHERE r.order_id = 'ord-1' AND r.seq = 1`,
	} {
		if err := o.DB.Write(t.Context(), func(tx *store.Tx) error {
			args := []any{n}
			if q[0] == 'U' {
				args = nil
			}
			_, err := tx.Exec(q, args...)
			return err
		}); err != nil {
			t.Fatalf("%.60s: %v", q, err)
		}
	}
	return o
}

// Every list of what does not agree comes page by page, and each page soon: of a hundred thousand records in the long run, of some thousands else.
func TestDifferencesComeSoon(t *testing.T) {
	n := 5000
	if os.Getenv("HALLMARK_LONG") != "" {
		n = 100_000
	}
	o := manyRecords(t, n)
	for _, q := range factory.Questions() {
		after, rows, worst := "", 0, time.Duration(0)
		for range 4 {
			begun := time.Now()
			list, next, err := o.Service.Differences(t.Context(), o.Caller, "ord-1", q, after, 50)
			if err != nil {
				t.Fatalf("%s: %v", q, err)
			}
			worst = max(worst, time.Since(begun))
			rows += len(list)
			if after = next; next == "" {
				break
			}
		}
		t.Logf("%-16s %d rows, the slowest page in %s", q, rows, worst)
		if worst > 10*pageTime {
			t.Errorf("%s: a page took %s, more than %s", q, worst, pageTime)
		}
	}
}
