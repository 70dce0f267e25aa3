// Package store keeps what the stages know, in one SQL for every engine.
//
// Under all stages. Every write goes through DB.Write: state and facts commit in one transaction, grouped with the writes that
// happen at the same moment, and are on the disk when Write returns nil. It trusts the engine's durability (SQLite with
// synchronous=FULL) and nothing above it: a closure that fails, or panics, undoes its own work only.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/internal/failpoint"
	"github.com/hallmark-iot/hallmark/ledger"
)

// maxBatch bounds how many writes share one commit.
const maxBatch = 512

// Querier reads.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Dialect is what differs between the engines.
type Dialect interface {
	// Rewrite turns a statement with $1 placeholders into the engine's own.
	Rewrite(query string) string
	// Explain turns a driver's error into one that names the thing and the remedy.
	Explain(err error) error
	// Settle brings what was committed to where backups look for it; it is the last statement before closing.
	Settle(conn *sql.Conn) error
}

// DB is an open store. It is safe for concurrent use; Close waits for the writes under way.
type DB struct {
	read     *sql.DB
	writeDB  *sql.DB   // the pool of one that write is of
	write    *sql.Conn // the one write connection: only the writer goroutine uses it
	dialect  Dialect
	rewrites sync.Map             // query text → rewritten text
	prepared map[string]*sql.Stmt // on the write connection; only the writer goroutine uses it

	queue    chan *job
	stopping chan struct{}
	done     chan struct{}
	stop     sync.Once

	mu       sync.Mutex
	appended []func() // called after a commit that appended facts; guarded by mu
}

type job struct {
	ctx  context.Context
	fn   func(tx *Tx) error
	done chan error
}

// ErrClosed is returned by writes after Close.
var ErrClosed = errors.New("the store is closed")

// New makes a DB of an engine's pools: one for reading, and one of a single connection for writing. The engine has migrated the
// schema already.
func New(ctx context.Context, read, write *sql.DB, dialect Dialect) (*DB, error) {
	conn, err := write.Conn(ctx)
	if err != nil {
		return nil, dialect.Explain(err)
	}
	db := &DB{
		read: read, writeDB: write, write: conn, dialect: dialect, prepared: map[string]*sql.Stmt{},
		queue: make(chan *job, maxBatch), stopping: make(chan struct{}), done: make(chan struct{}),
	}
	go db.run()
	return db, nil
}

// Close ends the writer after the writes that were accepted.
func (db *DB) Close() error {
	db.stop.Do(func() { close(db.stopping) })
	<-db.done
	var errs []error
	for _, st := range db.prepared {
		errs = append(errs, st.Close())
	}
	errs = append(errs, db.read.Close(), db.dialect.Settle(db.write), db.write.Close(), db.writeDB.Close())
	return errors.Join(errs...)
}

// OnAppend has fn called after each commit that appended facts: a hint to the sequencer, never the only way it learns.
func (db *DB) OnAppend(fn func()) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.appended = append(db.appended, fn)
}

// Write runs fn in a transaction and returns when its work is durable. fn runs at most once, in a savepoint of its own: its
// error undoes its own work only, and is what Write returns. When ctx ends first, whether the work was done is not known.
func (db *DB) Write(ctx context.Context, fn func(tx *Tx) error) error {
	j := &job{ctx: ctx, fn: fn, done: make(chan error, 1)}
	select {
	case <-db.stopping:
		return ErrClosed
	default:
	}
	select {
	case db.queue <- j:
	case <-db.stopping:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("store: write not begun: %w", ctx.Err())
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("store: outcome of the write not known: %w", ctx.Err())
	case <-db.done:
		select {
		case err := <-j.done:
			return err
		default:
			return ErrClosed
		}
	}
}

func (db *DB) run() {
	defer close(db.done)
	for {
		select {
		case j := <-db.queue:
			db.batch(db.gather(j))
		case <-db.stopping:
			for {
				select {
				case j := <-db.queue:
					db.batch(db.gather(j))
				default:
					return
				}
			}
		}
	}
}

func (db *DB) gather(first *job) []*job {
	jobs := []*job{first}
	for len(jobs) < maxBatch {
		select {
		case j := <-db.queue:
			jobs = append(jobs, j)
		default:
			return jobs
		}
	}
	return jobs
}

// batch runs the jobs in one transaction. A commit that fails fails them all: none of them was acknowledged.
func (db *DB) batch(jobs []*job) {
	ctx := context.Background()
	errs := make([]error, len(jobs))
	appended := false
	commit := func() error {
		if _, err := db.write.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
			return err
		}
		tx := &Tx{ctx: ctx, db: db}
		for i, j := range jobs {
			errs[i] = tx.run(j)
		}
		if err := tx.flush(); err != nil {
			return err
		}
		appended = len(tx.facts) > 0
		failpoint.Hit("store.before-commit")
		_, err := db.write.ExecContext(ctx, "COMMIT")
		failpoint.Hit("store.after-commit")
		return err
	}
	if err := commit(); err != nil {
		err = fmt.Errorf("store: commit: %w", db.dialect.Explain(err))
		_, rollback := db.write.ExecContext(ctx, "ROLLBACK")
		_ = rollback // there may be no transaction to end; the commit's error is the one that matters
		for i := range errs {
			errs[i] = err
		}
		appended = false
	}
	for i, j := range jobs {
		j.done <- errs[i]
	}
	if appended {
		db.mu.Lock()
		fns := db.appended
		db.mu.Unlock()
		for _, fn := range fns {
			fn()
		}
	}
}

// Read gives the read side.
func (db *DB) Read() Querier { return reader{db} }

type reader struct{ db *DB }

func (r reader) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	rows, err := r.db.read.QueryContext(ctx, r.db.rewrite(query), args...)
	return rows, r.db.dialect.Explain(err)
}

func (r reader) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return r.db.read.QueryRowContext(ctx, r.db.rewrite(query), args...)
}

func (db *DB) rewrite(query string) string {
	if q, ok := db.rewrites.Load(query); ok {
		return q.(string)
	}
	q := db.dialect.Rewrite(query)
	db.rewrites.Store(query, q)
	return q
}

// Tx is one write's view of the transaction. It is valid only inside the closure it was given to.
type Tx struct {
	ctx   context.Context
	db    *DB
	facts []row // of all writes of this batch that succeeded; inserted together before the commit
	saved bool  // this write has its savepoint: made when it first touches the database
}

// row is a fact on its way into the database.
type row struct {
	log, kind, subject string
	uid                [16]byte
	at                 int64
	data               []byte
}

func (tx *Tx) run(j *job) (err error) {
	if j.ctx.Err() != nil {
		return j.ctx.Err()
	}
	before := len(tx.facts)
	tx.saved = false
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: write panicked: %v", p)
		}
		if err == nil && tx.saved {
			_, err = tx.exec("RELEASE w")
		}
		if err == nil {
			return
		}
		tx.facts = tx.facts[:before]
		err = tx.db.dialect.Explain(err)
		if tx.saved {
			_, undo := tx.exec("ROLLBACK TO w")
			_, release := tx.exec("RELEASE w")
			if undo != nil || release != nil {
				err = errors.Join(err, undo, release)
			}
		}
	}()
	return j.fn(tx)
}

func (tx *Tx) savepoint() error {
	if tx.saved {
		return nil
	}
	if _, err := tx.exec("SAVEPOINT w"); err != nil {
		return err
	}
	tx.saved = true
	return nil
}

// Exec runs a statement. Statements are prepared once and kept, so their text must come from a bounded set.
func (tx *Tx) Exec(query string, args ...any) (sql.Result, error) {
	if err := tx.savepoint(); err != nil {
		return nil, err
	}
	return tx.exec(query, args...)
}

func (tx *Tx) exec(query string, args ...any) (sql.Result, error) {
	st, err := tx.stmt(query)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(tx.ctx, args...)
}

func (tx *Tx) stmt(query string) (*sql.Stmt, error) {
	if st, ok := tx.db.prepared[query]; ok {
		return st, nil
	}
	st, err := tx.db.write.PrepareContext(tx.ctx, tx.db.rewrite(query))
	if err != nil {
		return nil, err
	}
	tx.db.prepared[query] = st
	return st, nil
}

// Query reads within the transaction; the rows must be closed before the next statement.
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	if err := tx.savepoint(); err != nil {
		return nil, err
	}
	return tx.db.write.QueryContext(tx.ctx, tx.db.rewrite(query), args...)
}

// QueryRow reads one row within the transaction.
func (tx *Tx) QueryRow(query string, args ...any) *sql.Row {
	return tx.db.write.QueryRowContext(tx.ctx, tx.db.rewrite(query), args...)
}

// Append adds facts. They have no place yet: the sequencer gives it, after the commit.
func (tx *Tx) Append(facts ...ledger.Fact) error {
	for _, f := range facts {
		data, err := f.Encode()
		if err != nil {
			return err
		}
		tx.facts = append(tx.facts, row{
			log: string(f.Log), kind: string(f.Kind), subject: f.Subject, uid: f.UID, at: f.At.UnixMilli(), data: data,
		})
	}
	return nil
}

// flushRows is how many facts one statement inserts.
const flushRows = 32

var (
	insertOne  = insertFacts(1)
	insertMany = insertFacts(flushRows)
)

func insertFacts(n int) string {
	var b strings.Builder
	b.WriteString("INSERT INTO entry (log, uid, kind, subject, at, data) VALUES ")
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		k := 6 * i
		fmt.Fprintf(&b, "($%d, $%d, $%d, $%d, $%d, $%d)", k+1, k+2, k+3, k+4, k+5, k+6)
	}
	return b.String()
}

// flush inserts the batch's facts, many to a statement.
func (tx *Tx) flush() error {
	args := make([]any, 0, 6*flushRows)
	for rest := tx.facts; len(rest) > 0; {
		n, query := 1, insertOne
		if len(rest) >= flushRows {
			n, query = flushRows, insertMany
		}
		args = args[:0]
		for i := range rest[:n] {
			f := &rest[i]
			args = append(args, f.log, f.uid[:], f.kind, f.subject, f.at, f.data)
		}
		if _, err := tx.exec(query, args...); err != nil {
			return fmt.Errorf("append facts: %w", err)
		}
		rest = rest[n:]
	}
	return nil
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
