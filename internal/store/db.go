// Package store keeps what the stages know, in one SQL for every engine.
//
// Under all stages. Every write goes through DB.Write: state and facts commit in one transaction, grouped with the writes that
// happen at the same moment, and are on the disk when Write returns nil. It trusts the engine's durability (SQLite with
// synchronous=FULL, PostgreSQL with synchronous_commit) and nothing above it: a closure that fails, or panics, undoes its own work
// only.
package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
	"time"
)

// Querier reads.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Dialect is what differs between the engines. The stages' SQL is one: $1 placeholders, list($1) for the rows of a JSON list, FOR
// UPDATE where a row's lock is a fence.
type Dialect interface {
	// Rewrite turns a statement into the engine's own.
	Rewrite(query string) string
	// Explain turns a driver's error into one that names the thing and the remedy.
	Explain(err error) error
	// Begin is the statement that begins a write. With alone, nobody else begins one alone until it has ended; without, it may run
	// beside others.
	Begin(alone bool) string
	// Aborts says whether the engine may have ended the whole transaction with err, savepoints and all.
	Aborts(err error) bool
	// Lost says whether err is the end of the connection. A commit that meets it may have been made.
	Lost(err error) bool
	// Lease is the statement that takes the lock whose number is $1 for as long as the connection lives, and tells whether it got
	// it; empty: no other node writes to this database.
	Lease() string
	// Settle brings what was committed to where backups look for it; it is the last statement before closing.
	Settle(conn *sql.Conn) error
	// Purge brings it about that what was deleted or overwritten is in no file of the database any more. read is the read pool.
	Purge(ctx context.Context, read *sql.DB) error
}

// DB is an open store. It is safe for concurrent use; Close waits for the writes under way.
type DB struct {
	read    *sql.DB
	writes  *sql.DB
	dialect Dialect
	reads   statements
	main    *writer // of everything
	aside   *writer // of what has a fence of its own; main itself where one writes at a time anyhow
	leases  leases
	ears    ears
	trace   func(query string) // told of each statement; nil but in tests, which set it before there are any
	vault   Vault              // see KeepPrivate
	issues  *issuing
	bundles bundles

	closing sync.Once
	closed  error // of closing

	mu       sync.Mutex
	appended []func() // called after a commit that appended facts; guarded by mu
}

// ErrClosed is returned by writes after Close.
var ErrClosed = errors.New("the store is closed")

// New makes a DB of an engine's pools: one for reading, and one whose connections write. The engine has migrated the schema already.
func New(ctx context.Context, read, write *sql.DB, dialect Dialect) (*DB, error) {
	db := &DB{read: read, writes: write, dialect: dialect, reads: statements{db: read, byText: map[string]*sql.Stmt{}}}
	db.issues = &issuing{db: db, do: issueAll}
	db.main = newWriter(db, maxBatch)
	db.aside = db.main
	if dialect.Lease() != "" {
		db.aside = newWriter(db, 1)
	}
	for _, w := range db.writers() {
		if err := w.connect(ctx); err != nil {
			return nil, err
		}
	}
	for _, w := range db.writers() {
		go w.run()
	}
	return db, nil
}

func (db *DB) writers() []*writer {
	if db.aside == db.main {
		return []*writer{db.main}
	}
	return []*writer{db.main, db.aside}
}

// Close ends the writers after the writes that were accepted. Closing again does nothing more.
func (db *DB) Close() error {
	db.closing.Do(func() {
		var errs []error
		for _, w := range db.writers() {
			w.stop()
		}
		db.leases.close()
		errs = append(errs, db.read.Close())
		for _, w := range db.writers() {
			errs = append(errs, w.close())
		}
		db.closed = errors.Join(append(errs, db.writes.Close())...)
	})
	return db.closed
}

// OnAppend has fn called after each commit that appended facts: a hint to the sequencer, never the only way it learns. Of what
// another node appends, nobody is told.
func (db *DB) OnAppend(fn func()) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.appended = append(db.appended, fn)
}

func (db *DB) tell() {
	db.mu.Lock()
	fns := db.appended
	db.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}

// Write runs fn in a transaction and returns when its work is durable. fn runs at most once, in a savepoint of its own: its
// error undoes its own work only, and is what Write returns. What fn reads, nobody changes until the commit, on whatever node: writes
// that touch more than facts happen one after the other. When ctx ends first, or the error is ErrUnknown, whether the work was done
// is not known. What the context's request has open (package once) is settled in the same savepoint.
func (db *DB) Write(ctx context.Context, fn func(tx *Tx) error) error {
	fn, settled := db.settling(ctx, fn)
	err := db.main.write(ctx, fn)
	if err == nil && settled != nil {
		settled()
	}
	return err
}

// Read gives the read side.
func (db *DB) Read() Querier { return reader{db} }

type reader struct{ db *DB }

func (r reader) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	r.db.traced(query)
	args = plain(args)
	var rows *sql.Rows
	var err error
	if st := r.db.reads.get(ctx, query, r.db.rewrite); st != nil { //nolint:sqlclosecheck // kept prepared until Close
		rows, err = st.QueryContext(ctx, args...)
	} else {
		rows, err = r.db.read.QueryContext(ctx, r.db.rewrite(query), args...)
	}
	return rows, r.db.dialect.Explain(err)
}

func (r reader) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	r.db.traced(query)
	args = plain(args)
	if st := r.db.reads.get(ctx, query, r.db.rewrite); st != nil { //nolint:sqlclosecheck // kept prepared until Close
		return st.QueryRowContext(ctx, args...)
	}
	return r.db.read.QueryRowContext(ctx, r.db.rewrite(query), args...)
}

func (db *DB) traced(query string) {
	if db.trace != nil {
		db.trace(query)
	}
}

// maxPrepared bounds how many statements are kept prepared; those that come later are prepared each time.
const maxPrepared = 512

// statements are the read pool's prepared statements: preparing costs more than most reads do.
type statements struct {
	db *sql.DB

	mu     sync.RWMutex // guards byText
	byText map[string]*sql.Stmt
}

// get gives the statement of query, or nil when it is to be run as it is: also when it does not prepare, so that the caller
// meets the error.
func (s *statements) get(ctx context.Context, query string, rewrite func(string) string) *sql.Stmt {
	s.mu.RLock()
	st, ok := s.byText[query]
	full := len(s.byText) >= maxPrepared
	s.mu.RUnlock()
	if ok || full {
		return st
	}
	st, err := s.db.PrepareContext(ctx, rewrite(query))
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, ok := s.byText[query]; ok {
		_ = st.Close() //nolint:sqlclosecheck // somebody was faster: ours goes, theirs stays
		return other
	}
	s.byText[query] = st
	return st
}

// plain has truths as the numbers 1 and 0, which is what columns hold on every engine.
func plain(args []any) []any {
	for i, a := range args {
		if truth, ok := a.(bool); ok {
			args = slices.Clone(args) // it may be the caller's own
			args[i] = 0
			if truth {
				args[i] = 1
			}
		}
	}
	return args
}

func (db *DB) rewrite(query string) string {
	return db.dialect.Rewrite(query)
}

// Millis stores a time: milliseconds since 1970, 0 for none.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Time reads what Millis stored.
func Time(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
