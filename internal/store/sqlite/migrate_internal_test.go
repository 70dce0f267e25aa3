package sqlite

import (
	"database/sql"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/pressly/goose/v3"
)

// A database that stopped at any version is brought up to date, and every step can be taken back.
func TestEveryEarlierDatabaseIsBroughtUpToDate(t *testing.T) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	provider := func(path string) *goose.Provider {
		db, err := sql.Open("sqlite", dsn(path, "rwc"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		p, err := goose.NewProvider(goose.DialectSQLite3, db, sub)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, s := range provider(filepath.Join(t.TempDir(), "list")).ListSources() {
		path := filepath.Join(t.TempDir(), "old.db")
		p := provider(path)
		if _, err := p.UpTo(t.Context(), s.Version); err != nil {
			t.Fatalf("version %d: %v", s.Version, err)
		}
		db, err := Open(t.Context(), path)
		if err != nil {
			t.Fatalf("from version %d: %v", s.Version, err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		if _, err := p.DownTo(t.Context(), 0); err != nil {
			t.Errorf("back from the newest to nothing: %v", err)
		}
	}
}

// What was proposed before groups limited what is seen is where its resource is.
func TestAnOldProposalHasAPlace(t *testing.T) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", dsn(filepath.Join(t.TempDir(), "old.db"), "rwc"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	p, err := goose.NewProvider(goose.DialectSQLite3, db, sub)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(t.Context(), 164); err != nil {
		t.Fatal(err)
	}
	for id, old := range map[string][2]string{
		"":               {"", `{"resource":{"type":"member"}}`},
		"pump":           {"pump", `{"resource":{"type":"device","product":"pump"}}`},
		"pump/eu/berlin": {"pump", `{"resource":{"type":"device","product":"pump","group":"eu/berlin"}}`},
	} {
		if _, err := db.ExecContext(t.Context(), `INSERT INTO proposal (id, product, state, proposer, expires, rev, doc) VALUES ($1, $2, 'open', 'x', 1, 1, $3)`, id, old[0], old[1]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	var wrong int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM proposal WHERE place <> id`).Scan(&wrong); err != nil || wrong != 0 {
		t.Errorf("%d are elsewhere, %v", wrong, err)
	}
}
