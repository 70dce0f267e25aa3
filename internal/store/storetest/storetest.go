// Package storetest opens stores for tests, and holds the conformance suite every engine must pass.
//
// Under all stages.
package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
)

// engine names the variable that chooses on which engine Open opens stores: sqlite, which is the default, or postgres.
const engine = "HALLMARK_TEST_ENGINE"

// OnPostgres reports whether this process's stores are on PostgreSQL.
func OnPostgres() bool { return os.Getenv(engine) == "postgres" }

// Open opens a fresh store that is closed with the test.
func Open(t testing.TB) *store.DB {
	t.Helper()
	if OnPostgres() {
		return OpenPostgres(t)
	}
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "hallmark.db"))
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, db)
}

func closing(t testing.TB, db *store.DB) *store.DB {
	db.KeepPrivate(Vault{})
	t.Cleanup(func() {
		kitsAre(t, db)
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// kitsAre holds every writer of a twin, of every test with a store, to what rollouts read in its place. A device that a test laid down itself may have no kit.
func kitsAre(t testing.TB, db *store.DB) {
	t.Helper()
	rows, err := db.Read().QueryContext(context.WithoutCancel(t.Context()), `SELECT id, doc, kit FROM device WHERE kit IS NOT NULL ORDER BY id LIMIT 1000`)
	if err != nil {
		return // the test has closed it, or broken it
	}
	defer rows.Close()
	for rows.Next() {
		var id, doc string
		var kit []byte
		if err := rows.Scan(&id, &doc, &kit); err != nil {
			return
		}
		var twin device.Twin
		if err := json.Unmarshal([]byte(doc), &twin); err != nil {
			t.Errorf("device %s: %v", id, err)
			continue
		}
		if _, want, err := store.TwinRow(twin); err != nil || !bytes.Equal(kit, want) {
			t.Errorf("device %s has kit %x, and its twin %x: %v", id, kit, want, err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Error(err)
	}
}

// AgainOnPostgres runs the package's tests once more, on the other engine, but for those that are about one of them.
func AgainOnPostgres(t *testing.T, except ...string) {
	t.Helper()
	if OnPostgres() {
		return // this is that run
	}
	need(t)
	args := []string{"-test.timeout=20m", "-test.skip=^(" + strings.Join(append(except, t.Name()), "|") + ")$", "-test.v"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), engine+"=postgres")
	out, err := cmd.CombinedOutput()
	ran, rest := 0, "" // of many hundred tests, those that failed are looked for
	for line := range strings.Lines(string(out)) {
		switch {
		case strings.HasPrefix(line, "--- PASS"):
			ran++
			continue
		case strings.HasPrefix(strings.TrimSpace(line), "--- PASS"), strings.HasPrefix(line, "=== "):
			continue
		case strings.HasPrefix(line, "--- SKIP"):
			t.Errorf("on PostgreSQL: %s", line)
		}
		rest += line
	}
	if err != nil || ran == 0 {
		t.Fatalf("%d passed on PostgreSQL: %v\n%s", ran, err, rest)
	}
	t.Logf("%d tests on PostgreSQL", ran)
}

// Vault is one that everybody can open.
type Vault struct{}

// Seal implements store.Vault.
func (Vault) Seal(label string, plain []byte) ([]byte, error) {
	return append([]byte(label+"|"), plain...), nil
}

// Open implements store.Vault.
func (Vault) Open(label string, sealed []byte) ([]byte, error) {
	plain, ok := bytes.CutPrefix(sealed, []byte(label+"|"))
	if !ok {
		return nil, errors.New("sealed under another label")
	}
	return plain, nil
}
