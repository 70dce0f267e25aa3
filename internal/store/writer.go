package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
)

// maxBatch bounds how many writes share one commit.
const maxBatch = 512

// maxIdle is how long a connection may have been unused without a look at whether it still lives.
const maxIdle = time.Second

// ErrUnknown says that the connection broke while the database committed: the write may be stored, or not. Who asks again must be able
// to tell, by a key or an ID of its own.
var ErrUnknown = errors.New("whether it is stored is not known: look before you repeat it")

// writer runs writes one after the other on a connection of its own, those of one moment in one transaction. A connection that
// breaks is replaced; a write is never run again by itself.
type writer struct {
	db    *DB
	most  int // how many writes share a commit
	queue chan *job

	stopping chan struct{}
	done     chan struct{}
	once     sync.Once // of stopping

	// Of run's goroutine:
	conn     *sql.Conn // nil when there is none
	used     time.Time // last
	prepared map[string]*sql.Stmt
	waking   map[string]bool // see looksAt, by statement
}

type job struct {
	ctx  context.Context
	fn   func(tx *Tx) error
	done chan error

	receipts *ledger.Receipts // nil: nobody asks
	facts    []ledger.Receipt // what fn appended, when somebody asks
}

func newWriter(db *DB, most int) *writer {
	return &writer{db: db, most: most, queue: make(chan *job, most), stopping: make(chan struct{}), done: make(chan struct{}), waking: map[string]bool{}}
}

// connect makes sure of a connection that lives.
func (w *writer) connect(ctx context.Context) error {
	if w.conn != nil && w.db.dialect.Lease() != "" && time.Since(w.used) > maxIdle {
		if err := w.conn.PingContext(ctx); err != nil {
			w.drop()
		}
	}
	w.used = time.Now()
	if w.conn != nil {
		return nil
	}
	conn, err := w.db.writes.Conn(ctx)
	if err != nil {
		return w.db.dialect.Explain(err)
	}
	w.conn, w.prepared = conn, map[string]*sql.Stmt{}
	return nil
}

// drop forgets a connection that is of no use any more, with what was prepared on it.
func (w *writer) drop() {
	discard(w.conn)
	w.conn, w.prepared = nil, nil
}

// discard closes a connection, so that the pool does not take it back.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // it is what it is told here
	_ = conn.Close()                                           // nothing is expected of it any more
}

// stop ends run after the writes that were accepted.
func (w *writer) stop() {
	w.once.Do(func() { close(w.stopping) })
	<-w.done
}

func (w *writer) close() error {
	if w.conn == nil {
		return nil
	}
	var errs []error
	for _, st := range w.prepared {
		errs = append(errs, st.Close())
	}
	return errors.Join(append(errs, w.db.dialect.Settle(w.conn), w.conn.Close())...)
}

func (w *writer) write(ctx context.Context, fn func(tx *Tx) error) error {
	j := &job{ctx: ctx, fn: fn, done: make(chan error, 1), receipts: ledger.ReceiptsOf(ctx)}
	select {
	case <-w.stopping:
		return ErrClosed
	default:
	}
	select {
	case w.queue <- j:
	case <-w.stopping:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("store: write not begun: %w", ctx.Err())
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("store: outcome of the write not known: %w", ctx.Err())
	case <-w.done:
		select {
		case err := <-j.done:
			return err
		default:
			return ErrClosed
		}
	}
}

func (w *writer) run() {
	defer close(w.done)
	for {
		select {
		case j := <-w.queue:
			w.batch(w.gather(j))
		case <-w.stopping:
			for {
				select {
				case j := <-w.queue:
					w.batch(w.gather(j))
				default:
					return
				}
			}
		}
	}
}

func (w *writer) gather(first *job) []*job {
	jobs := []*job{first}
	for len(jobs) < w.most {
		select {
		case j := <-w.queue:
			jobs = append(jobs, j)
		default:
			return jobs
		}
	}
	return jobs
}

// batch runs the jobs in one transaction. A commit that fails fails them all: none of them was acknowledged.
func (w *writer) batch(jobs []*job) {
	tx := &Tx{ctx: context.Background(), w: w}
	errs := make([]error, len(jobs))
	err := w.connect(tx.ctx)
	if err == nil {
		err = tx.commit(jobs, errs)
	}
	if err != nil {
		err = fmt.Errorf("store: %w", w.failed(tx, err))
		for i := range errs {
			errs[i] = err
		}
		tx.appended = false
	}
	w.db.told(tx.wakes) // also when it failed: it may be stored
	for i, j := range jobs {
		if errs[i] == nil && j.receipts != nil {
			j.receipts.Add(j.facts...)
		}
		j.done <- errs[i]
	}
	if tx.appended {
		w.db.tell()
	}
}

// failed ends a transaction that was not committed, as far as that is known, and says why.
func (w *writer) failed(tx *Tx, cause error) error {
	d := w.db.dialect
	explained := d.Explain(cause)
	if tx.ending && d.Lost(cause) {
		explained = fmt.Errorf("commit: %w: %w", ErrUnknown, explained)
	}
	if w.conn == nil {
		return explained
	}
	var rollback error
	if tx.begun {
		_, rollback = w.conn.ExecContext(tx.ctx, "ROLLBACK")
	}
	if d.Lost(cause) || d.Lost(rollback) { // otherwise there may be no transaction to end; the cause is what matters
		w.drop()
	}
	return explained
}
