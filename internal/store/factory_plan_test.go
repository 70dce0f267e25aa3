package store_test

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// orderOf makes an order that waits for records.
func orderOf(t testing.TB, db *store.DB, id string, quota int) {
	t.Helper()
	err := db.CreateOrder(t.Context(), factory.Order{ID: id, Product: "pump", Quota: uint32(quota), State: factory.Open, Created: time.UnixMilli(1)}, fact(id))
	if err != nil {
		t.Fatal(err)
	}
}

// candidates are n made pieces of an order, from record first on, whose chain begins behind prev; each envelope has size bytes.
func candidates(order string, first, n, size int, prev [32]byte) []factory.Candidate {
	out := make([]factory.Candidate, n)
	for i := range out {
		seq := uint32(first + i)
		mark := func(what string) []byte {
			sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d", order, what, seq))
			return sum[:]
		}
		id := fmt.Sprintf("%x", mark("device")[:16])
		c := factory.Candidate{
			Seq: seq, Prev: prev, Ticket: seq - 1, Serial: id, Outcome: wire.Made, ChipUID: mark("chip")[:12], Identity: mark("identity"), Attest: mark("attest"),
			Device: device.Device{ID: id, Product: "pump", Hardware: "A", Order: order, Station: "s", Made: time.UnixMilli(1), AttestKey: mark("key"), KeyOrigin: "soft"},
		}
		c.Envelope = append(mark("envelope"), make([]byte, size)...)
		c.Hash = sha256.Sum256(c.Envelope)
		c.Accept = ledger.New(ledger.KindDeviceProvisioned, time.UnixMilli(1), "person:frank", id, nil, c.Envelope)
		c.Alarm = func(reason string) ledger.Fact {
			return ledger.New(ledger.KindRecordRefused, time.UnixMilli(1), "person:frank", id, nil, []byte(reason))
		}
		out[i], prev = c, c.Hash
	}
	return out
}

// everyEnd brings in records of each kind, so that each statement is run which an import may run.
func everyEnd(t *testing.T, db *store.DB) {
	t.Helper()
	orderOf(t, db, "ord-1", 100)
	list := candidates("ord-1", 1, 6, 10, wire.RecordHash(nil))
	list[1].Outcome, list[1].Device = wire.Scrapped, device.Device{}
	list[2].Rework, list[2].ChipUID = 2, list[1].ChipUID
	list[3].Ticket = 0                  // used before
	list[4].Identity = list[0].Identity // a clone
	list[5].Chips = "acme"              // in no manifest
	want := []string{factory.Accepted, factory.NotMade, factory.Accepted, factory.Alarmed, factory.Alarmed, factory.Waiting}
	st, err := db.AddRecords(t.Context(), "ord-1", list)
	if err != nil || len(st) != len(want) {
		t.Fatalf("%v, %v", st, err)
	}
	for i, s := range st {
		if s.State != want[i] {
			t.Fatalf("record %d is %s (%s), want %s", s.Seq, s.State, s.Reason, want[i])
		}
	}
	if st, err = db.AddRecords(t.Context(), "ord-1", list[:1]); err != nil || st[0].State != factory.Known {
		t.Fatalf("%v, %v", st, err)
	}
}

// pointed are the ways to a row that do not grow with an order, or with how many were made: every column of a key is given.
var pointed = regexp.MustCompile(`USING (PRIMARY KEY \(order_id=\? AND (seq=\?|seq>\? AND seq<\?)\)|(COVERING )?INDEX production_record_(chip|identity|attest) \([a-z]+=\?\)|` +
	`(COVERING )?INDEX production_record_ticket \(order_id=\? AND ticket=\?\)|(COVERING )?INDEX production_record_rework \(order_id=\? AND rework=\?\))`)

// constant are rows that a statement brings along.
var constant = regexp.MustCompile(`^SCAN ([0-9]+-ROW VALUES CLAUSE|.*CONSTANT ROW)`)

// No statement of an import walks along the order, or reads any table whole: what a record costs does not grow with those before it.
func TestARecordCostsTheSameWhereverItStands(t *testing.T) {
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "hallmark.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	everyEnd(t, db)
	queries, err := db.Prepared(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, q := range queries {
		if word, _, _ := strings.Cut(q, " "); word != "SELECT" && word != "INSERT" && word != "UPDATE" {
			continue
		}
		args := make([]any, strings.Count(db.Rewritten(q), "?"))
		for line := range strings.Lines(plan(t, db, q, args)) {
			record := strings.Contains(line, "production_record")
			if record {
				asked++
			}
			if strings.HasPrefix(line, "SCAN") && !constant.MatchString(line) || record && !pointed.MatchString(line) {
				t.Errorf("%s\n\t%s", q, line)
			}
		}
	}
	if asked < 5 {
		t.Errorf("only %d plans look at records: %q", asked, queries)
	}
}

// An order is counted along indexes, without a look at its envelopes or at other orders.
func TestAnOrderIsCountedAlongItsIndexes(t *testing.T) {
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "hallmark.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for i, want := range []string{"SEARCH production_record USING COVERING INDEX production_record_tally (order_id=?)", "SEARCH device USING INDEX device_order (order_id=?)"} {
		if got := plan(t, db, store.TallyQueries[i], []any{"ord-1"}); got != want {
			t.Errorf("%s\n\t%s\n\twant %s", store.TallyQueries[i], got, want)
		}
	}
}

// BenchmarkRecords keeps b.N authentic records of one order, and counts them: the store's part of an import.
func BenchmarkRecords(b *testing.B) {
	db, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "hallmark.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	orderOf(b, db, "ord-1", b.N)
	const file = 1000            // as many as an import puts into a transaction
	prev := wire.RecordHash(nil) // of an order without an envelope
	b.ResetTimer()
	for at := 0; at < b.N; at += file {
		b.StopTimer()
		list := candidates("ord-1", at+1, min(file, b.N-at), 1200, prev)
		prev = list[len(list)-1].Hash
		b.StartTimer()
		st, err := db.AddRecords(b.Context(), "ord-1", list)
		if err != nil || st[len(st)-1].State != factory.Accepted {
			b.Fatalf("%+v, %v", st[len(st)-1], err)
		}
	}
	b.StopTimer()
	begun := time.Now()
	if t, err := db.Tally(b.Context(), "ord-1"); err != nil || int(t.Made) != b.N {
		b.Fatalf("%+v, %v", t, err)
	}
	b.ReportMetric(float64(time.Since(begun))/1e6, "tally-ms")
}
