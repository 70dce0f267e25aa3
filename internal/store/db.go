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
	"sync"
	"time"

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
	// Aborts says whether the engine may have ended the whole transaction with err, savepoints and all.
	Aborts(err error) bool
	// Settle brings what was committed to where backups look for it; it is the last statement before closing.
	Settle(conn *sql.Conn) error
}

// DB is an open store. It is safe for concurrent use; Close waits for the writes under way.
type DB struct {
	read     *sql.DB
	writeDB  *sql.DB   // the pool of one that write is of
	write    *sql.Conn // the one write connection: only the writer goroutine uses it
	dialect  Dialect
	prepared map[string]*sql.Stmt // on the write connection; only the writer goroutine uses it
	reads    statements

	queue    chan *job
	stopping chan struct{}
	done     chan struct{}
	stop     sync.Once
	closing  sync.Once
	closed   error // of closing

	mu       sync.Mutex
	appended []func() // called after a commit that appended facts; guarded by mu
}

type job struct {
	ctx  context.Context
	fn   func(tx *Tx) error
	done chan error

	receipts *ledger.Receipts // nil: nobody asks
	facts    []ledger.Receipt // what fn appended, when somebody asks
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
		reads: statements{db: read, byText: map[string]*sql.Stmt{}},
		queue: make(chan *job, maxBatch), stopping: make(chan struct{}), done: make(chan struct{}),
	}
	go db.run()
	return db, nil
}

// Close ends the writer after the writes that were accepted. Closing again does nothing more.
func (db *DB) Close() error {
	db.stop.Do(func() { close(db.stopping) })
	<-db.done
	db.closing.Do(func() {
		var errs []error
		for _, st := range db.prepared {
			errs = append(errs, st.Close())
		}
		errs = append(errs, db.read.Close(), db.dialect.Settle(db.write), db.write.Close(), db.writeDB.Close())
		db.closed = errors.Join(errs...)
	})
	return db.closed
}

// OnAppend has fn called after each commit that appended facts: a hint to the sequencer, never the only way it learns.
func (db *DB) OnAppend(fn func()) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.appended = append(db.appended, fn)
}

// Write runs fn in a transaction and returns when its work is durable. fn runs at most once, in a savepoint of its own: its
// error undoes its own work only, and is what Write returns. When ctx ends first, whether the work was done is not known. What the
// context's request has open (package once) is settled in the same savepoint.
func (db *DB) Write(ctx context.Context, fn func(tx *Tx) error) error {
	fn, settled := db.settling(ctx, fn)
	err := db.enqueue(ctx, &job{ctx: ctx, fn: fn, done: make(chan error, 1), receipts: ledger.ReceiptsOf(ctx)})
	if err == nil && settled != nil {
		settled()
	}
	return err
}

func (db *DB) enqueue(ctx context.Context, j *job) error {
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
	tx := &Tx{ctx: context.Background(), db: db}
	errs := make([]error, len(jobs))
	if err := tx.commit(jobs, errs); err != nil {
		err = fmt.Errorf("store: commit: %w", db.dialect.Explain(err))
		_, rollback := db.write.ExecContext(tx.ctx, "ROLLBACK")
		_ = rollback // there may be no transaction to end; the commit's error is the one that matters
		for i := range errs {
			errs[i] = err
		}
		tx.appended = false
	}
	for i, j := range jobs {
		if errs[i] == nil && j.receipts != nil {
			j.receipts.Add(j.facts...)
		}
		j.done <- errs[i]
	}
	if !tx.appended {
		return
	}
	db.mu.Lock()
	fns := db.appended
	db.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}

// Read gives the read side.
func (db *DB) Read() Querier { return reader{db} }

type reader struct{ db *DB }

func (r reader) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
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
	if st := r.db.reads.get(ctx, query, r.db.rewrite); st != nil { //nolint:sqlclosecheck // kept prepared until Close
		return st.QueryRowContext(ctx, args...)
	}
	return r.db.read.QueryRowContext(ctx, r.db.rewrite(query), args...)
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
