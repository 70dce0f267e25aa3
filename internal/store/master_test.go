package store_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
)

func master(hardware string, revision uint32, digest string) *factory.MasterRef {
	return &factory.MasterRef{Product: "pump", Hardware: hardware, Revision: revision, Digest: strings.Repeat(digest, 32)}
}

// An order of a master that does not follow the newest is not there; of another hardware, masters are counted apart.
func TestAnOrderOfAnOldMasterIsNotStored(t *testing.T) {
	db := storetest.Open(t)
	for i, c := range []struct {
		m       *factory.MasterRef
		refused uint32 // by the revision that is known
	}{
		{master("A", 2, "aa"), 0},
		{master("A", 2, "aa"), 0},
		{master("A", 2, "bb"), 2},
		{master("A", 1, "cc"), 2},
		{master("B", 1, "cc"), 0},
		{nil, 0},
		{master("A", 5, "dd"), 0},
		{master("A", 4, "aa"), 5},
		{master("A", 2, "aa"), 5},
		{master("B", 1, "cc"), 0},
		{master("A", 1<<32-1, "ee"), 0},
	} {
		id := "ord-" + string(rune('a'+i))
		err := db.CreateOrder(t.Context(), factory.Order{ID: id, Product: "pump", State: factory.Open, Created: time.UnixMilli(1), Master: c.m}, fact(id))
		old, is := errors.AsType[*factory.OldMasterError](err)
		if is != (c.refused > 0) || err != nil && !is {
			t.Errorf("order %d, of %+v: %v", i, c.m, err)
			continue
		}
		if is && (old.Known.Revision != c.refused || c.m.Follows(old.Known) == nil) {
			t.Errorf("order %d: %+v is known", i, old.Known)
		}
		got, err := db.Order(t.Context(), id)
		if errors.Is(err, factory.ErrNotFound) != is {
			t.Errorf("order %d: stored: %v, refused: %v", i, err, is)
		}
		if err == nil && c.m != nil && (got.Master == nil || *got.Master != *c.m) {
			t.Errorf("order %d is kept as of %+v", i, got.Master)
		}
	}
}

// Which master is the newest is known again after the database was lost.
func TestAReplayKnowsTheNewestMaster(t *testing.T) {
	r := newRig(t)
	r.grow(t, 5)
	old, m := r.backup(t), master("A", 7, "aa")
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	at := time.UnixMilli(1_800_000_000_000).UTC()
	f := ledger.New(ledger.KindOrderMastered, at, "person:a", "ord-1", nil, data)
	if err := r.db.CreateOrder(t.Context(), factory.Order{ID: "ord-1", Product: "pump", State: factory.Open, Created: at, Master: m}, oneLog(f)[0]); err != nil {
		t.Fatal(err)
	}
	if err := old.CreateOrder(t.Context(), factory.Order{ID: "ord-1", Product: "pump", State: factory.Closed, Created: at}); err != nil {
		t.Fatal(err) // as its own fact brings it back
	}
	r.grow(t, 1)
	if err := old.Replay(t.Context(), ledger.Events, 5, r.entries(t, 5), map[ledger.Kind]store.Replayed{}); err != nil {
		t.Fatal(err)
	}
	if got, err := old.Order(t.Context(), "ord-1"); err != nil || got.Master == nil || *got.Master != *m {
		t.Errorf("%+v, %v", got.Master, err)
	}
	err = old.CreateOrder(t.Context(), factory.Order{ID: "ord-2", Product: "pump", State: factory.Open, Created: at, Master: master("A", 6, "bb")}, fact("ord-2"))
	if _, is := errors.AsType[*factory.OldMasterError](err); !is {
		t.Errorf("an order of an older master: %v", err)
	}
}
