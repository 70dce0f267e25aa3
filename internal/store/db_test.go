package store_test

import (
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
)

func fact(subject string) ledger.Fact {
	return ledger.New(ledger.KindDeviceHealthy, time.Now(), "test", subject, nil, []byte("{}"))
}

// count says how many facts there are.
func count(t *testing.T, db *store.DB) (n int) {
	t.Helper()
	if err := db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM entry`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
