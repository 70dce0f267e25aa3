package store_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/wire"
)

func seqs(list []factory.Kept) (out []uint32) {
	for _, k := range list {
		out = append(out, k.Seq)
	}
	return out
}

func alike[T comparable](got []T, want ...T) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if got[i] != want[i] {
			return false
		}
	}
	return true
}

// What does not agree about an order is found, page by page, with what it contradicts.
func TestTheBooksOfAnOrder(t *testing.T) {
	db := storetest.Open(t)
	everyEnd(t, db)
	all, err := db.AlarmsOf(t.Context(), "ord-1", false, 0, nil, 10)
	if err != nil || !alike(seqs(all), 4, 5) || all[0].State != "refused" || all[0].Reason == "" {
		t.Fatalf("alarms: %+v, %v", all, err)
	}
	if next, err := db.AlarmsOf(t.Context(), "ord-1", true, all[0].Seq, all[0].Hash, 10); err != nil || !alike(seqs(next), 5) {
		t.Errorf("behind the first: %+v, %v", next, err)
	}
	list := candidates("ord-1", 1, 6, 10, wire.RecordHash(nil))
	for name, c := range map[string]struct {
		m    factory.Marks
		by   factory.Question
		seq  uint32
		none bool
	}{
		"its ticket was used": {factory.Marks{Order: "ord-1", Seq: 4, Ticket: 0, Hash: list[3].Hash[:]}, factory.OverProduction, 1, false},
		"its place is taken":  {factory.Marks{Order: "ord-1", Seq: 3, Ticket: 77, Hash: []byte("other")}, factory.OverProduction, 3, false},
		"its chip":            {factory.Marks{Order: "ord-2", Seq: 9, Ticket: 77, Hash: []byte("other"), Chip: list[0].ChipUID}, factory.Clones, 1, false},
		"its identity key":    {factory.Marks{Order: "ord-2", Seq: 9, Hash: []byte("other"), Identity: list[0].Identity}, factory.Clones, 1, false},
		"its attestation key": {factory.Marks{Order: "ord-2", Seq: 9, Hash: []byte("other"), Attest: list[2].Attest}, factory.Clones, 3, false},
		"nothing":             {factory.Marks{Order: "ord-2", Seq: 1, Hash: []byte("other"), Chip: []byte("new")}, "", 0, true},
		"itself":              {factory.Marks{Order: "ord-1", Seq: 1, Hash: list[0].Hash[:], Chip: list[0].ChipUID, Identity: list[0].Identity, Attest: list[0].Attest}, "", 0, true},
	} {
		twin, err := db.TwinOf(t.Context(), c.m)
		if err != nil || (twin == nil) != c.none || twin != nil && (twin.By != c.by || twin.Seq != c.seq) {
			t.Errorf("%s: %+v, %v", name, twin, err)
		}
	}
	var unseen []uint32 // by device, one a page
	for after := ""; ; {
		list, err := db.UnseenOf(t.Context(), "ord-1", after, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		var device string
		if err := db.Read().QueryRowContext(t.Context(), `SELECT device FROM production_record WHERE order_id = 'ord-1' AND seq = $1`, list[0].Seq).Scan(&device); err != nil || device <= after {
			t.Fatalf("device %q behind %q, %v", device, after, err)
		}
		unseen, after = append(unseen, list[0].Seq), device
	}
	if slices.Sort(unseen); !slices.Equal(unseen, []uint32{1, 3}) {
		t.Errorf("unseen: %v", unseen)
	}
	if list, err := db.UnseenOf(t.Context(), "ord-2", "", 10); err != nil || len(list) != 0 {
		t.Errorf("unseen of another order: %+v, %v", list, err)
	}
	if list, err := db.RecordsOf(t.Context(), "ord-1", factory.Reworks, 0, 10); err != nil || !alike(seqs(list), 3) {
		t.Errorf("reworks: %+v, %v", list, err)
	}
	if list, err := db.RecordsOf(t.Context(), "ord-1", factory.Made, 0, 10); err != nil || !alike(seqs(list), 1, 3) {
		t.Errorf("made: %+v, %v", list, err)
	}
	if list, err := db.RecordsOf(t.Context(), "ord-1", factory.Clones, 0, 10); err == nil {
		t.Errorf("of what is no kind of record: %+v", list)
	}
	if k, err := db.RecordOf(t.Context(), "ord-1", 2); err != nil || k == nil || k.State != "scrapped" {
		t.Errorf("a record: %+v, %v", k, err)
	}
	if k, err := db.RecordOf(t.Context(), "ord-1", 60); err != nil || k != nil {
		t.Errorf("no record: %+v, %v", k, err)
	}
}

func TestGapsInAnOrder(t *testing.T) {
	db := storetest.Open(t)
	orderOf(t, db, "ord-1", 100)
	list := candidates("ord-1", 1, 12, 10, wire.RecordHash(nil))
	some := []factory.Candidate{list[2], list[3], list[6], list[8]} // 3, 4, 7, 9
	if _, err := db.AddRecords(t.Context(), "ord-1", some); err != nil {
		t.Fatal(err)
	}
	all, err := db.GapsOf(t.Context(), "ord-1", 0, 10)
	if err != nil || !alike(all, factory.Gap{From: 1, To: 2}, factory.Gap{From: 5, To: 6}, factory.Gap{From: 8, To: 8}) {
		t.Fatalf("%+v, %v", all, err)
	}
	var paged []factory.Gap
	for after := uint32(0); ; {
		page, err := db.GapsOf(t.Context(), "ord-1", after, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		paged, after = append(paged, page...), page[0].To
	}
	if !alike(paged, all...) {
		t.Errorf("page by page: %+v", paged)
	}
}

// Who came with an order's certificate and is on no record is told of, until it is on record.
func TestWhoIsOnNoRecord(t *testing.T) {
	db := storetest.Open(t)
	s, now := db.Onboard(), time.UnixMilli(1_800_000_000_000).UTC()
	id := func(c string) string { return strings.Repeat(c, 32) }
	for _, r := range []onboard.Refusal{
		{Device: id("1"), Issuer: "ca", Code: onboard.Unordered, At: now},
		{Device: id("1"), Issuer: "ca", Code: onboard.Unordered, At: now.Add(time.Hour)},
		{Device: id("2"), Issuer: "ca", Code: "enrol.key", At: now},
		{Device: id("3"), Issuer: "another", Code: onboard.Unordered, At: now},
	} {
		if err := s.Refuse(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []time.Duration{0, time.Second, time.Hour} {
		if err := s.Planned(t.Context(), onboard.Planned{Device: id("4"), Issuer: "ca", At: now.Add(at)}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := db.StrangersOf(t.Context(), "ca", "", 10)
	if err != nil || !alike(got, factory.Stranger{Device: id("1"), Times: 2, Last: now.Add(time.Hour)},
		factory.Stranger{Device: id("4"), Planned: true, Times: 2, Last: now.Add(time.Hour)}) {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := db.StrangersOf(t.Context(), "ca", id("1"), 10); err != nil || len(got) != 1 {
		t.Errorf("the second page: %+v, %v", got, err)
	}
	row := store.ProvisionedRow{ID: id("4"), Product: "pump", Hardware: "A", Order: "o", Station: "s", At: now, Identity: []byte("i"), AttestKey: []byte("k"), KeyOrigin: "soft"}
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return store.PutProvisioned(tx, row) }); err != nil {
		t.Fatal(err)
	}
	if got, err := db.StrangersOf(t.Context(), "ca", "", 10); err != nil || len(got) != 1 {
		t.Errorf("its record came: %+v, %v", got, err)
	}
}

// No list of an order reads a table whole, and none but that of the gaps sorts what it reads.
func TestTheBooksAreReadAlongIndexes(t *testing.T) {
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "hallmark.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for name, q := range store.BookQueries {
		for line := range strings.Lines(plan(t, db, q, make([]any, strings.Count(db.Rewritten(q), "?")))) {
			if strings.HasPrefix(line, "SCAN") || strings.Contains(line, "TEMP B-TREE") {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}
