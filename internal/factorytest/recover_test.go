package factorytest_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
)

// An order that came back from the log alone is still compared with what its station ended it with; what cannot be, for want of its secrets, says so.
func TestAnOrderThatCameBackFromTheLogIsReconciled(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "line-1", o)
	imported(t, o, s, "ord-1", 1)
	if _, _, err := run(t, o, s, "ord-1", 1, factorytest.NewPiece()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
		t.Fatal(err)
	}
	records := export(t, o, s, "ord-1")
	take(t, o, "ord-1", records)
	if _, err := o.Service.CloseOrder(t.Context(), o.Caller, "ord-1"); err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "recovered.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.KeepPrivate(storetest.Vault{})
	for _, log := range []ledger.Log{ledger.Control, ledger.Events} {
		var entries [][]byte
		_, err := o.DB.Sequence(t.Context(), log, 100, func(_ ledger.State, pending []ledger.Pending, _ func(int, uint64) ([]byte, error)) (ledger.Placement, error) {
			for _, p := range pending {
				entries = append(entries, p.Data)
			}
			return ledger.Placement{}, errors.New("only looked at")
		})
		if len(entries) == 0 {
			t.Fatal(err)
		}
		if err := db.Replay(t.Context(), log, 0, entries, map[ledger.Kind]store.Replayed{}); err != nil {
			t.Fatal(err)
		}
	}
	o.With(t, func(c *factory.Config) { c.Store, c.Inspections, c.Books = db, db, db })
	r, err := o.Service.Reconcile(t.Context(), o.Caller, "ord-1")
	if err != nil || r.State != factory.Closed || !r.JobEnd {
		t.Errorf("%+v, %v", r, err)
	}
	_, err = o.Service.ImportRecords(t.Context(), o.Caller, "ord-1", records)
	wantCode(t, err, "order.secrets-lost")
}
