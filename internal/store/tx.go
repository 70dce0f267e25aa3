package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/internal/failpoint"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Tx is one write's view of the transaction. It is valid only inside the closure it was given to.
type Tx struct {
	ctx context.Context
	w   *writer

	lone   bool  // one write is the whole batch, and the transaction its savepoint: see abandon
	begun  bool  // there is a transaction
	ending bool  // the commit may have been sent
	job    int   // which write of the batch runs
	saved  bool  // it has its savepoint: made when it first touches the database
	facts  []row // it appended these

	loose    []row // facts of the writes of this batch that did nothing but append: inserted together before the commit
	appended bool  // the batch has facts
	broken   error // why the batch cannot be committed any more: the engine may have ended the transaction under us

	wakes    wakes       // whom the batch's statements wake
	concerns *Concerning // whom the statement that runs concerns; nil: everybody
}

// row is a fact on its way into the database.
type row struct {
	job                int
	log, kind, subject string
	uid                [16]byte
	at                 int64
	data               []byte
}

// commit runs the jobs between BEGIN and COMMIT. errs takes the outcome of each; an error says that nothing was committed, as far as
// that is known.
func (tx *Tx) commit(jobs []*job, errs []error) error {
	tx.lone = len(jobs) == 1 && tx.w.db.dialect.Lease() == ""
	for i, j := range jobs {
		tx.job = i
		errs[i] = tx.run(j)
		if tx.broken != nil {
			return tx.broken
		}
	}
	if err := tx.flush(errs); err != nil || !tx.begun {
		return err
	}
	if err := tx.tellNodes(); err != nil {
		return err
	}
	failpoint.Hit("store.before-commit")
	tx.ending = true
	_, err := tx.w.conn.ExecContext(tx.ctx, "COMMIT")
	failpoint.Hit("store.after-commit")
	return err
}

// begin begins the transaction when the first write needs one. Facts alone are appended beside other nodes; whatever else a write
// does, it does alone, so that what it reads is what it changes.
func (tx *Tx) begin(alone bool) error {
	if tx.begun {
		return nil
	}
	tx.begun = true // also when it fails: a part of it may have been done
	if _, err := tx.w.conn.ExecContext(tx.ctx, tx.w.db.dialect.Begin(alone)); err != nil {
		tx.broken = err
		return err
	}
	return nil
}

func (tx *Tx) run(j *job) error {
	if j.ctx.Err() != nil {
		return j.ctx.Err()
	}
	tx.saved, tx.facts = false, tx.facts[:0]
	err := survive(j.fn, tx)
	if j.receipts != nil {
		for _, f := range tx.facts {
			j.facts = append(j.facts, ledger.Receipt{Log: ledger.Log(f.log), UID: f.uid})
		}
	}
	if err == nil && !tx.saved {
		tx.loose = append(tx.loose, tx.facts...)
		return nil
	}
	// State and facts stand or fall together, in the savepoint.
	if err == nil {
		err = tx.insert(tx.facts)
	}
	if err == nil && !tx.lone {
		_, err = tx.exec("RELEASE w")
	}
	if err == nil {
		tx.appended = tx.appended || len(tx.facts) > 0
		return nil
	}
	if tx.saved && tx.lone {
		tx.abandon(err)
	} else if tx.saved {
		tx.undo(err)
	}
	return tx.w.db.dialect.Explain(err)
}

// survive turns a panic of fn into its error.
func survive(fn func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: write panicked: %v", p)
		}
	}()
	return fn(tx)
}

// undo goes back to the savepoint after cause. When there is none any more, the engine has ended the transaction, and what
// would follow would be committed piece by piece: the batch ends.
func (tx *Tx) undo(cause error) {
	if tx.broken != nil {
		return
	}
	_, undo := tx.exec("ROLLBACK TO w")
	_, release := tx.exec("RELEASE w")
	if err := errors.Join(undo, release); err != nil && tx.broken == nil {
		tx.broken = errors.Join(cause, err)
	}
}

// abandon ends the transaction of a write that is alone in it, after cause. SQLite keeps a copy of each page that changes behind a savepoint,
// which a large write is better without. PostgreSQL has its savepoint: it takes the COMMIT of a transaction that failed without a word.
func (tx *Tx) abandon(cause error) {
	if tx.broken != nil {
		return
	}
	if _, err := tx.w.conn.ExecContext(tx.ctx, "ROLLBACK"); err != nil {
		tx.broken = errors.Join(cause, err)
		return
	}
	tx.begun = false
}

func (tx *Tx) savepoint() error {
	if tx.saved {
		return nil
	}
	if err := tx.begin(tx.w == tx.w.db.main); err != nil {
		return err
	}
	if tx.lone {
		tx.saved = true
		return nil
	}
	if _, err := tx.exec("SAVEPOINT w"); err != nil {
		return err
	}
	tx.saved = true
	return nil
}

// Exec runs a statement. Statements are prepared once and kept, so their text should come from a bounded set.
func (tx *Tx) Exec(query string, args ...any) (sql.Result, error) {
	if err := tx.savepoint(); err != nil {
		return nil, err
	}
	return tx.exec(query, args...)
}

func (tx *Tx) exec(query string, args ...any) (sql.Result, error) {
	if tx.broken != nil {
		return nil, tx.broken
	}
	args = plain(args)
	st, err := tx.stmt(query) //nolint:sqlclosecheck // kept prepared until Close
	if err != nil {
		return nil, tx.note(err)
	}
	var res sql.Result
	if st != nil {
		res, err = st.ExecContext(tx.ctx, args...)
	} else {
		res, err = tx.w.conn.ExecContext(tx.ctx, tx.w.db.rewrite(query), args...)
	}
	return res, tx.note(err)
}

// note remembers an error after which the transaction may be gone.
func (tx *Tx) note(err error) error {
	if err != nil && tx.broken == nil && tx.w.db.dialect.Aborts(err) {
		tx.broken = err
	}
	return err
}

// stmt gives the prepared statement of query, or nil when there are too many already. Each statement passes here.
func (tx *Tx) stmt(query string) (*sql.Stmt, error) {
	tx.w.db.traced(query)
	tx.looksAt(query)
	if st, ok := tx.w.prepared[query]; ok || len(tx.w.prepared) >= maxPrepared {
		return st, nil
	}
	st, err := tx.w.conn.PrepareContext(tx.ctx, tx.w.db.rewrite(query))
	if err != nil {
		return nil, err
	}
	tx.w.prepared[query] = st
	return st, nil
}

// Query reads within the transaction; the rows must be closed before the next statement. Facts appended by the same write are
// not yet to be seen.
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	if err := tx.savepoint(); err != nil {
		return nil, err
	}
	args = plain(args)
	st, err := tx.stmt(query) //nolint:sqlclosecheck // kept prepared until Close
	if err != nil {
		return nil, tx.note(err)
	}
	var rows *sql.Rows
	if st != nil {
		rows, err = st.QueryContext(tx.ctx, args...)
	} else {
		rows, err = tx.w.conn.QueryContext(tx.ctx, tx.w.db.rewrite(query), args...)
	}
	return rows, tx.note(err)
}

// over has ended: no statement is run with it.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// QueryRow reads one row within the transaction, or writes it: with RETURNING.
func (tx *Tx) QueryRow(query string, args ...any) *sql.Row {
	ctx := tx.ctx
	args = plain(args)
	if err := tx.savepoint(); err != nil {
		ctx = over // the row's Scan fails, and so does the batch: see broken
	}
	if st, err := tx.stmt(query); err == nil && st != nil { //nolint:sqlclosecheck // kept prepared until Close
		return st.QueryRowContext(ctx, args...)
	}
	return tx.w.conn.QueryRowContext(ctx, tx.w.db.rewrite(query), args...)
}

// Append adds facts. They have no place yet: the sequencer gives it, after the commit. A fact that is there already makes the
// write fail.
func (tx *Tx) Append(facts ...ledger.Fact) error {
	for _, f := range facts {
		if f.Log != ledger.Control && f.Log != ledger.Events {
			return fmt.Errorf("fact %s about %s: there is no log %q", f.Kind, f.Subject, f.Log)
		}
		commitment, err := tx.seal(f)
		if err != nil {
			return err
		}
		data, err := f.Encode(commitment)
		if err != nil {
			return err
		}
		tx.facts = append(tx.facts, row{
			job: tx.job, log: string(f.Log), kind: string(f.Kind), subject: f.Subject, uid: f.UID, at: f.At.UnixMilli(), data: data,
		})
	}
	return nil
}

// flush inserts the loose facts, many to a statement. When that fails, it inserts them write by write, so that only the one to
// blame fails.
func (tx *Tx) flush(errs []error) error {
	if len(tx.loose) == 0 {
		return nil
	}
	if done, err := tx.flushAtOnce(); done || err != nil {
		return err
	}
	if err := tx.begin(false); err != nil {
		return err
	}
	if _, err := tx.exec("SAVEPOINT w"); err != nil {
		return err
	}
	err := tx.insert(tx.loose)
	if err == nil {
		tx.appended = true
		_, err = tx.exec("RELEASE w")
		return err
	}
	tx.undo(err)
	for rest := tx.loose; len(rest) > 0 && tx.broken == nil; {
		job := rest[0].job
		n := slices.IndexFunc(rest, func(r row) bool { return r.job != job })
		if n < 0 {
			n = len(rest)
		}
		if _, err := tx.exec("SAVEPOINT w"); err != nil {
			return err
		}
		if err := tx.insert(rest[:n]); err != nil {
			errs[job] = tx.w.db.dialect.Explain(err)
			tx.undo(err)
		} else if _, err := tx.exec("RELEASE w"); err != nil {
			return err
		} else {
			tx.appended = true
		}
		rest = rest[n:]
	}
	return tx.broken
}

// flushAtOnce inserts the loose facts by one statement that is its own transaction, when nothing else is to be committed with them and
// one statement holds them. When it is refused, it has done nothing.
func (tx *Tx) flushAtOnce() (done bool, err error) {
	if n, _ := insertFacts.next(len(tx.loose)); tx.begun || n != len(tx.loose) {
		return false, nil
	}
	failpoint.Hit("store.before-commit")
	err = tx.insert(tx.loose)
	failpoint.Hit("store.after-commit")
	switch {
	case err == nil:
		tx.appended = true
		return true, nil
	case tx.broken != nil: // it may have been made
		tx.ending = true
		return false, err
	}
	return false, nil
}

// insertFacts are the statements that insert facts.
var insertFacts = rowsInserted("entry (log, uid, kind, subject, at, data)", 6)

func (tx *Tx) insert(rows []row) error {
	var args []any
	for rest := rows; len(rest) > 0; {
		n, query := insertFacts.next(len(rest))
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
