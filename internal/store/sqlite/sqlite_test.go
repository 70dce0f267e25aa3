package sqlite_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) *store.DB { return storetest.Open(t) })
}

func fact(data []byte) ledger.Fact {
	return ledger.New(ledger.KindDeviceHealthy, time.Now(), "test", "s", nil, data)
}

// On a full disk every write fails or is there whole: never its state without its fact. With room again, it goes on.
func TestAFullDiskAcknowledgesNothingItDoesNotHold(t *testing.T) {
	db := storetest.Open(t)
	exec := func(q string) {
		t.Helper()
		if err := db.Write(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(q); return err }); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE TABLE state (k TEXT PRIMARY KEY, v BLOB)`)
	var pages int
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.QueryRow(`PRAGMA page_count`).Scan(&pages) }); err != nil {
		t.Fatal(err)
	}
	// The engine's own bound stands for the disk's: it gives the same error.
	exec(fmt.Sprintf(`PRAGMA max_page_count = %d`, pages+60))
	var mu sync.Mutex
	stored, refused := map[string]bool{}, 0
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 40 {
				k := fmt.Sprint(w, " ", i)
				err := db.Write(t.Context(), func(tx *store.Tx) error {
					if _, err := tx.Exec(`INSERT INTO state (k, v) VALUES ($1, $2)`, k, make([]byte, 1500)); err != nil && i%2 == 0 {
						return err // the others do not even look
					}
					f := fact(bytes.Repeat([]byte("x"), 1500))
					f.Subject = k
					return tx.Append(f)
				})
				mu.Lock()
				if err == nil {
					stored[k] = true
				} else if refused++; !strings.Contains(err.Error(), "the disk is full") {
					t.Errorf("%s: %v", k, err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if refused == 0 || len(stored) == 0 {
		t.Fatalf("%d stored, %d refused: the disk was never full", len(stored), refused)
	}
	var states, facts, both int
	row := db.Read().QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM state), (SELECT count(*) FROM entry),
		(SELECT count(*) FROM state JOIN entry ON k = subject)`)
	if err := row.Scan(&states, &facts, &both); err != nil {
		t.Fatal(err)
	}
	if states != len(stored) || facts != len(stored) || both != len(stored) {
		t.Errorf("%d acknowledged; %d states, %d facts, %d together", len(stored), states, facts, both)
	}
	exec(`PRAGMA max_page_count = 1000000`)
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.Append(fact([]byte("{}"))) }); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestErrorsNameTheFileAndTheRemedy(t *testing.T) {
	dir := t.TempDir()
	damaged := filepath.Join(dir, "damaged.db")
	if err := os.WriteFile(damaged, bytes.Repeat([]byte("not a database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	nowhere := filepath.Join(dir, "no", "such", "hallmark.db")
	for path, want := range map[string]string{damaged: "restore", nowhere: nowhere} {
		db, err := sqlite.Open(t.Context(), path)
		if err == nil {
			t.Errorf("%s: opened", path)
			err = db.Close()
		}
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Damage within the file is an error of the read that meets it, with what to do.
func TestADamagedPageIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hallmark.db")
	db, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Write(t.Context(), func(tx *store.Tx) error {
		for range 400 {
			if err := tx.Append(fact(bytes.Repeat([]byte("x"), 900))); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 60 * 4096; i < len(data)-4096; i += 4096 {
		copy(data[i:], bytes.Repeat([]byte{0xff}, 64)) // the heads of the pages
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if db, err = sqlite.Open(t.Context(), path); err == nil {
		err = db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE entry SET idx = id WHERE log = $1`, "events")
			return err
		})
		_ = db.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "restore the last backup") || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
}
