package postgres_test

import (
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pressly/goose/v3"

	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
)

func names(t *testing.T, dir fs.FS) (out []string) {
	t.Helper()
	files, err := fs.Glob(dir, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestBothEnginesHaveTheSameMigrations(t *testing.T) {
	ours, theirs := names(t, os.DirFS(".")), names(t, os.DirFS("../sqlite"))
	if !slices.Equal(ours, theirs) || len(ours) == 0 {
		t.Errorf("PostgreSQL has\n%v\nSQLite\n%v", ours, theirs)
	}
}

func open(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func provider(t *testing.T, dialect goose.Dialect, db *sql.DB, dir string) *goose.Provider {
	t.Helper()
	p, err := goose.NewProvider(dialect, db, os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// lines gives the rows of a query, their columns as text.
func lines(t *testing.T, db *sql.DB, query string, args ...any) (out [][]string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		line, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range line {
			into[i] = &line[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		var text []string
		for _, c := range line {
			text = append(text, c.String)
		}
		out = append(out, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

var (
	cast  = regexp.MustCompile(`::[a-z]+`)
	below = regexp.MustCompile(`'(-[0-9]+)'`) // PostgreSQL quotes a negative number that is a default
	anyOf = regexp.MustCompile(`= ANY \(ARRAY\[([^]]*)\]\)`)
	noise = strings.NewReplacer(" ", "", "(", "", ")", "", "\n", "")
)

// condition writes an index's condition, or a default, as neither engine does.
func condition(text string) string {
	return noise.Replace(anyOf.ReplaceAllString(below.ReplaceAllString(cast.ReplaceAllString(text, ""), "$1"), "IN ($1)"))
}

// sqliteSchema says what a database has, a line each.
func sqliteSchema(t *testing.T, db *sql.DB) (out []string) {
	t.Helper()
	for _, table := range lines(t, db, `SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name NOT LIKE 'goose%'`) {
		for _, c := range lines(t, db, `SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info($1)`, table[0]) {
			null := "null"
			if c[2] == "1" || c[4] != "0" {
				null = "not null"
			}
			out = append(out, fmt.Sprintf("column %s.%s %s %s %s", table[0], c[0], map[string]string{"INTEGER": "number", "TEXT": "text", "BLOB": "bytes"}[c[1]], null, condition(c[3])))
		}
		var key []string
		for _, c := range lines(t, db, `SELECT name FROM pragma_table_info($1) WHERE pk > 0 ORDER BY pk`, table[0]) {
			key = append(key, c[0])
		}
		out = append(out, fmt.Sprintf("key %s(%s)", table[0], strings.Join(key, ",")))
		for _, f := range lines(t, db, `SELECT "from", "table", "to" FROM pragma_foreign_key_list($1)`, table[0]) {
			out = append(out, fmt.Sprintf("reference %s.%s %s.%s", table[0], f[0], f[1], f[2]))
		}
		for _, x := range lines(t, db, `SELECT l.name, l."unique", l.origin, coalesce(m.sql, '') FROM pragma_index_list($1) l JOIN sqlite_master m ON m.name = l.name`, table[0]) {
			var columns []string
			for _, c := range lines(t, db, `SELECT coalesce(name, 'expression') FROM pragma_index_info($1) ORDER BY seqno`, x[0]) {
				columns = append(columns, c[0])
			}
			_, where, _ := strings.Cut(x[3], " WHERE ")
			name := x[0]
			if x[2] != "c" {
				name = "" // the engine's own
			}
			if x[2] != "pk" {
				out = append(out, fmt.Sprintf("index %s %s(%s) unique %s where %s", name, table[0], strings.Join(columns, ","), x[1], condition(where)))
			}
		}
	}
	slices.Sort(out)
	return out
}

func postgresSchema(t *testing.T, db *sql.DB) (out []string) {
	t.Helper()
	for _, c := range lines(t, db, `SELECT table_name, column_name, data_type, is_nullable, coalesce(column_default, ''), coalesce(collation_name, '')
		FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE 'goose%'`) {
		null := "not null"
		if c[3] == "YES" {
			null = "null"
		}
		kind := map[string]string{"bigint": "number", "text": "text", "bytea": "bytes"}[c[2]]
		if kind == "text" && c[5] != "C" {
			t.Errorf("%s.%s sorts by the database's locale, not by its bytes", c[0], c[1])
		}
		out = append(out, fmt.Sprintf("column %s.%s %s %s %s", c[0], c[1], kind, null, condition(c[4])))
	}
	for _, r := range lines(t, db, `SELECT conrelid::regclass, a.attname, confrelid::regclass, b.attname FROM pg_constraint
		JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = conkey[1] JOIN pg_attribute b ON b.attrelid = confrelid AND b.attnum = confkey[1] WHERE contype = 'f'`) {
		out = append(out, fmt.Sprintf("reference %s.%s %s.%s", r[0], r[1], r[2], r[3]))
	}
	for _, x := range lines(t, db, `SELECT i.indexrelid::regclass, i.indrelid::regclass, i.indisunique::int, i.indisprimary::int, coalesce(pg_get_expr(i.indpred, i.indrelid), ''),
			(SELECT string_agg(pg_get_indexdef(i.indexrelid, n, true), ',' ORDER BY n) FROM generate_series(1, i.indnatts) n),
			EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u'))::int
		FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = 'public'::regnamespace AND c.relname NOT LIKE 'goose%'`) {
		if x[3] == "1" {
			out = append(out, fmt.Sprintf("key %s(%s)", x[1], x[5]))
			continue
		}
		name := x[0]
		if x[6] == "1" {
			name = ""
		}
		out = append(out, fmt.Sprintf("index %s %s(%s) unique %s where %s", name, x[1], x[5], x[2], condition(x[4])))
	}
	slices.Sort(out)
	return out
}

func TestBothEnginesHaveTheSameSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hallmark.db")
	embedded, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := embedded.Close(); err != nil {
		t.Fatal(err)
	}
	theirs := sqliteSchema(t, open(t, "sqlite", path))
	ours := postgresSchema(t, open(t, "pgx", storetest.Postgres(t)))
	if len(ours) < 200 {
		t.Fatalf("only %d things were found", len(ours))
	}
	for _, line := range ours {
		if !slices.Contains(theirs, line) {
			t.Errorf("only PostgreSQL has %s", line)
		}
	}
	for _, line := range theirs {
		if !slices.Contains(ours, line) {
			t.Errorf("only SQLite has %s", line)
		}
	}
}

// Every step can be taken, taken back, and taken again; at the end there is what a new database has, and what a database that stopped
// at an earlier version is brought up to.
func TestEveryStepCanBeTakenBack(t *testing.T) {
	c := storetest.Shared(t)
	want := postgresSchema(t, open(t, "pgx", storetest.Postgres(t)))
	url := c.URL(c.Create(t, false))
	raw := open(t, "pgx", url)
	p := provider(t, goose.DialectPostgres, raw, "migrations")
	before := int64(0)
	var was []string
	for _, s := range p.ListSources() {
		if _, err := p.UpTo(t.Context(), s.Version); err != nil {
			t.Fatalf("up to %d: %v", s.Version, err)
		}
		if _, err := p.DownTo(t.Context(), before); err != nil {
			t.Fatalf("back from %d: %v", s.Version, err)
		}
		if have := postgresSchema(t, raw); !slices.Equal(have, was) {
			t.Fatalf("back from %d, it is not what it was before", s.Version)
		}
		if _, err := p.UpTo(t.Context(), s.Version); err != nil {
			t.Fatalf("up to %d again: %v", s.Version, err)
		}
		before, was = s.Version, postgresSchema(t, raw)
	}
	if !slices.Equal(was, want) {
		t.Error("step by step, another schema came of it")
	}
}
