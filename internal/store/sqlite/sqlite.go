// Package sqlite opens the store on an embedded SQLite: one file, no server, up to some 10⁵ devices on one node.
//
// Under all stages. WAL with synchronous=FULL: what was acknowledged survives the power. One process writes at a time; others
// wait for the lock.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/hallmark-iot/hallmark/internal/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// readers bounds the read pool: more only contend for the same two cores' cache.
const readers = 8

// Open opens, and if need be creates and migrates, the database in the file at path.
func Open(ctx context.Context, path string) (*store.DB, error) {
	d := dialect{path: path}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // SQLite itself would let others read it
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	write, err := sql.Open("sqlite", dsn(path, "rwc"))
	if err != nil {
		return nil, d.Explain(err)
	}
	write.SetMaxOpenConns(1)
	if err := migrate(ctx, write); err != nil {
		return nil, errors.Join(d.Explain(err), write.Close())
	}
	read, err := sql.Open("sqlite", dsn(path, "rw")+"&_pragma=query_only(1)")
	if err != nil {
		return nil, errors.Join(d.Explain(err), write.Close())
	}
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)
	db, err := store.New(ctx, read, write, d)
	if err != nil {
		return nil, errors.Join(err, read.Close(), write.Close())
	}
	return db, nil
}

func dsn(path, mode string) string {
	v := url.Values{"mode": {mode}, "_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "secure_delete(1)", "temp_store(MEMORY)", "cache_size(-32768)", "wal_autocheckpoint(4000)",
	}}
	return (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: v.Encode()}).String()
}

func migrate(ctx context.Context, db *sql.DB) error {
	p, err := provider(db)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

func provider(db *sql.DB) (*goose.Provider, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectSQLite3, db, sub, goose.WithGoMigrations(goose.NewGoMigration(494, &goose.GoFunc{RunTx: store.FillKits}, nil)))
}

type dialect struct{ path string }

var (
	placeholder = regexp.MustCompile(`\$([0-9]+)`)
	list        = regexp.MustCompile(`\blist\((\$[0-9]+)\)`)
)

// Rewrite turns $1, which SQLite takes for a name, into ?1; or into ? where all come once and in order, because the driver
// looks up a numbered parameter by its name, in time that grows with the square of their number.
func (dialect) Rewrite(query string) string {
	query = strings.ReplaceAll(list.ReplaceAllString(query, "json_each($1)"), " FOR UPDATE", "") // the write lock is every row's
	inOrder := true
	for i, m := range placeholder.FindAllStringSubmatch(query, -1) {
		inOrder = inOrder && m[1] == strconv.Itoa(i+1)
	}
	if inOrder {
		return placeholder.ReplaceAllString(query, "?")
	}
	return placeholder.ReplaceAllString(query, "?$1")
}

// Begin takes the lock that one writer has.
func (dialect) Begin(bool) string { return "BEGIN IMMEDIATE" }

// Lost implements store.Dialect: there is no connection to lose.
func (dialect) Lost(error) bool { return false }

// Lease implements store.Dialect: one process serves a data directory.
func (dialect) Lease() string { return "" }

// Aborts implements store.Dialect (sqlite.org/lang_transaction.html, "response to errors within a transaction").
func (dialect) Aborts(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_CORRUPT:
		return true
	}
	return false
}

// Settle moves the write-ahead log into the database file, so that the file alone is the database.
func (d dialect) Settle(conn *sql.Conn) error {
	_, err := conn.ExecContext(context.Background(), "PRAGMA wal_checkpoint(TRUNCATE)")
	return d.Explain(err)
}

// purgeTries bounds how often Purge waits for readers of the write-ahead log, each time for the busy timeout.
const purgeTries = 3

// Purge empties the write-ahead log, which has pages as they were; in the file itself deleted bytes are overwritten (secure_delete).
func (d dialect) Purge(ctx context.Context, read *sql.DB) error {
	for range purgeTries {
		var busy, frames, moved int
		if err := read.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved); err != nil {
			return err
		}
		if busy == 0 {
			return nil
		}
	}
	return errors.New("somebody reads the write-ahead log all the time")
}

// Explain names the file and the remedy for what an operator can mend.
func (d dialect) Explain(err error) error {
	var e *sqlite.Error
	if err == nil || !errors.As(err, &e) {
		return err
	}
	say := func(text string) error { return fmt.Errorf("database %s: %s: %w", d.path, text, err) }
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return say("the disk is full; nothing was acknowledged that is not stored; free space and try again")
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return say("the file is damaged or is no database; stop, keep a copy of it, and restore the last backup: " +
			"the ledger's export will tell what is missing")
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return say("it cannot be written; give the user that runs hallmark write access to the file and its directory")
	case sqlite3.SQLITE_CANTOPEN:
		if _, stat := os.Stat(d.path); stat != nil {
			return say("it cannot be opened; is the data directory right? `hallmark init --dir DIR` makes one")
		}
		return say("it cannot be opened; check the permissions of the file and its directory")
	case sqlite3.SQLITE_BUSY:
		return say("another process holds its lock; only one `hallmark serve` may use a data directory")
	case sqlite3.SQLITE_IOERR:
		return say("reading or writing failed; check the disk")
	}
	return err
}
