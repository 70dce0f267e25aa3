package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
)

func fact(subject string) ledger.Fact {
	return ledger.New(ledger.Events, ledger.KindDeviceHealthy, time.Now(), "test", subject, nil, []byte("{}"))
}

func count(t *testing.T, db *store.DB) (n int) {
	t.Helper()
	if err := db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM entry`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAFailingWriteUndoesItsOwnWorkOnly(t *testing.T) {
	db := storetest.Open(t)
	boom := errors.New("boom")
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			err := db.Write(t.Context(), func(tx *store.Tx) error {
				if err := tx.Append(fact(fmt.Sprint(i))); err != nil {
					return err
				}
				switch i % 3 {
				case 1:
					return boom
				case 2:
					panic("worse")
				}
				return nil
			})
			if (i%3 == 0) != (err == nil) || (i%3 == 1) != errors.Is(err, boom) {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n := count(t, db); n != 100 {
		t.Errorf("%d facts, want 100", n)
	}
}

func TestTheLedgerIsAppendOnly(t *testing.T) {
	db := storetest.Open(t)
	do := func(q string) error {
		return db.Write(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(q); return err })
	}
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.Append(fact("a"), fact("b")) }); err != nil {
		t.Fatal(err)
	}
	if err := do(`UPDATE entry SET idx = 0 WHERE subject = 'a'`); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{
		`DELETE FROM entry WHERE subject = 'a'`, `DELETE FROM entry WHERE subject = 'b'`,
		`UPDATE entry SET idx = 1 WHERE subject = 'a'`, `UPDATE entry SET idx = NULL WHERE subject = 'a'`,
		`UPDATE entry SET data = x'00', idx = 1 WHERE subject = 'b'`, `UPDATE entry SET idx = 0 WHERE subject = 'b'`,
	} {
		if do(q) == nil {
			t.Errorf("%s: allowed", q)
		}
	}
}
