package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/internal/failpoint"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Sequence implements ledger.SequenceStore.
func (db *DB) Sequence(ctx context.Context, log ledger.Log, limit int,
	place func(ledger.State, []ledger.Pending, func(int, uint64) ([]byte, error)) (ledger.Placement, error),
) (n int, err error) {
	if idle, err := db.nothingPending(ctx, log); err != nil || idle {
		return 0, err
	}
	err = db.aside.write(ctx, func(tx *Tx) error { // the state's lock is the fence, and appends go on beside it
		state, err := tx.lockState(log)
		if err != nil {
			return err
		}
		pending, err := tx.pending(log, limit) // as of now, not of before the lock
		if err != nil || len(pending) == 0 {
			return err
		}
		p, err := place(state, pending, func(level int, index uint64) ([]byte, error) {
			var data []byte
			err := tx.QueryRow(`SELECT data FROM tile WHERE log = $1 AND level = $2 AND idx = $3`, string(log), level, index).Scan(&data)
			if errors.Is(err, sql.ErrNoRows) {
				return nil, nil
			}
			return data, err
		})
		if err != nil {
			return err
		}
		n = len(pending)
		return tx.putPlacement(log, state, pending, p)
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

func (db *DB) nothingPending(ctx context.Context, log ledger.Log) (bool, error) {
	var one int
	err := db.Read().QueryRowContext(ctx, `SELECT 1 FROM entry WHERE log = $1 AND idx IS NULL LIMIT 1`, string(log)).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	}
	return false, db.dialect.Explain(err)
}

// lockState gives the log's state, which is this transaction's until it ends.
func (tx *Tx) lockState(log ledger.Log) (ledger.State, error) {
	var s ledger.State
	var root []byte
	err := tx.QueryRow(`SELECT size, root FROM tlog_state WHERE log = $1 FOR UPDATE`, string(log)).Scan(&s.Size, &root)
	if errors.Is(err, sql.ErrNoRows) { // there must be a row to lock
		if _, err := tx.Exec(`INSERT INTO tlog_state (log, size, root) VALUES ($1, 0, $2) ON CONFLICT DO NOTHING`, string(log), s.Root[:]); err != nil {
			return s, err
		}
		return tx.lockState(log)
	}
	if err == nil && len(root) != 32 {
		err = fmt.Errorf("state of the %s log: root of %d bytes", log, len(root))
	}
	if err == nil {
		s.Root = [32]byte(root)
	}
	return s, err
}

func (tx *Tx) pending(log ledger.Log, limit int) ([]ledger.Pending, error) {
	rows, err := tx.Query(`SELECT id, data FROM entry WHERE log = $1 AND idx IS NULL ORDER BY id LIMIT $2`, string(log), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []ledger.Pending
	for rows.Next() {
		var p ledger.Pending
		if err := rows.Scan(&p.ID, &p.Data); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

func (tx *Tx) putPlacement(log ledger.Log, was ledger.State, pending []ledger.Pending, p ledger.Placement) error {
	if p.First != was.Size {
		return fmt.Errorf("placement begins at %d, the %s log has %d entries", p.First, log, was.Size)
	}
	ids := make([]int64, len(pending))
	for i, e := range pending {
		ids[i] = e.ID
	}
	list, err := listOf(ids)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(`UPDATE entry SET idx = CAST($1 AS BIGINT) + s.key FROM list($2) AS s WHERE entry.id = CAST(s.value AS BIGINT)`,
		p.First, list); err != nil {
		return err
	}
	failpoint.Hit("sequence.placed")
	for _, t := range p.Tiles {
		if _, err := tx.Exec(`INSERT INTO tile (log, level, idx, data) VALUES ($1, $2, $3, $4)
			ON CONFLICT (log, level, idx) DO UPDATE SET data = excluded.data`, string(log), t.Level, t.Index, t.Data); err != nil {
			return err
		}
	}
	_, err = tx.Exec(`UPDATE tlog_state SET size = $1, root = $2 WHERE log = $3`, p.Size, p.Root[:], string(log))
	return err
}

// Locate implements ledger.ReadStore.
func (db *DB) Locate(ctx context.Context, uid [16]byte) (ref ledger.Ref, ok bool, err error) {
	var log string
	var idx sql.NullInt64
	err = db.Read().QueryRowContext(ctx, `SELECT log, idx FROM entry WHERE uid = $1`, uid[:]).Scan(&log, &idx)
	if errors.Is(err, sql.ErrNoRows) {
		return ledger.Ref{}, false, fmt.Errorf("fact %x: %w", uid, ledger.ErrNotFound)
	}
	return ledger.Ref{Log: ledger.Log(log), Index: uint64(idx.Int64)}, idx.Valid, db.dialect.Explain(err)
}

// Entries implements ledger.ReadStore.
func (db *DB) Entries(ctx context.Context, log ledger.Log, from, to uint64) ([][]byte, error) {
	if to > from+4096 {
		to = from + 4096
	}
	rows, err := db.Read().QueryContext(ctx, `SELECT data FROM entry WHERE log = $1 AND idx >= $2 AND idx < $3 ORDER BY idx`,
		string(log), from, to)
	if err != nil {
		return nil, db.dialect.Explain(err)
	}
	defer rows.Close()
	var out [][]byte
	for rows.Next() {
		var data []byte
		if err := rows.Scan(&data); err != nil {
			return nil, err
		}
		out = append(out, data)
	}
	return out, db.dialect.Explain(rows.Err())
}

// Tile implements ledger.ReadStore.
func (db *DB) Tile(ctx context.Context, log ledger.Log, level int, index uint64) ([]byte, error) {
	var data []byte
	err := db.Read().QueryRowContext(ctx, `SELECT data FROM tile WHERE log = $1 AND level = $2 AND idx = $3`,
		string(log), level, index).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%s tile %d/%d: %w", log, level, index, ledger.ErrNotFound)
	}
	return data, db.dialect.Explain(err)
}

// State implements ledger.ReadStore.
func (db *DB) State(ctx context.Context, log ledger.Log) (ledger.State, error) {
	var s ledger.State
	var root []byte
	err := db.Read().QueryRowContext(ctx, `SELECT size, root FROM tlog_state WHERE log = $1`, string(log)).Scan(&s.Size, &root)
	if errors.Is(err, sql.ErrNoRows) {
		return s, nil
	}
	copy(s.Root[:], root)
	return s, db.dialect.Explain(err)
}

// Published implements ledger.ReadStore.
func (db *DB) Published(ctx context.Context, log ledger.Log) (ledger.Published, error) {
	var p ledger.Published
	var root []byte
	var note string
	err := db.Read().QueryRowContext(ctx,
		`SELECT size, root, note FROM checkpoint WHERE log = $1 AND published > 0 ORDER BY size DESC LIMIT 1`, string(log)).Scan(&p.Size, &root, &note)
	if errors.Is(err, sql.ErrNoRows) {
		return p, fmt.Errorf("checkpoint of the %s log: %w: %w", log, ledger.ErrNotFound, ledger.ErrNotYetWitnessed)
	}
	copy(p.Root[:], root)
	p.Note = []byte(note)
	return p, db.dialect.Explain(err)
}

// PutCheckpoint implements ledger.CheckpointStore.
func (db *DB) PutCheckpoint(ctx context.Context, log ledger.Log, s ledger.State, note []byte) error {
	return db.Write(ctx, func(tx *Tx) error {
		var root []byte
		err := tx.QueryRow(`SELECT root FROM checkpoint WHERE log = $1 AND size = $2`, string(log), s.Size).Scan(&root)
		if err == nil {
			if string(root) != string(s.Root[:]) {
				return fmt.Errorf("%w: another root at size %d of the %s log", ledger.ErrForked, s.Size, log)
			}
			return nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		_, err = tx.Exec(`INSERT INTO checkpoint (log, size, root, note) VALUES ($1, $2, $3, $4)`, string(log), s.Size, s.Root[:], string(note))
		return err
	})
}

// Publish implements ledger.CheckpointStore.
func (db *DB) Publish(ctx context.Context, log ledger.Log, s ledger.State, note []byte) error {
	return db.Write(ctx, func(tx *Tx) error {
		var newest uint64
		if err := tx.QueryRow(`SELECT coalesce(max(size), 0) FROM checkpoint WHERE log = $1 AND published > 0`, string(log)).Scan(&newest); err != nil {
			return err
		}
		if s.Size < newest {
			return fmt.Errorf("checkpoint of size %d comes after one of size %d", s.Size, newest)
		}
		res, err := tx.Exec(`UPDATE checkpoint SET note = $1, published = $2 WHERE log = $3 AND size = $4 AND root = $5`,
			string(note), time.Now().UnixMilli(), string(log), s.Size, s.Root[:])
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, fmt.Errorf("%w: no checkpoint of size %d of the %s log with this root was stored", ledger.ErrForked, s.Size, log))
		}
		return nil
	})
}

// NewestFact gives the latest time among the facts that were written last; zero when there are none.
func (db *DB) NewestFact(ctx context.Context) (time.Time, error) {
	var at sql.NullInt64
	err := db.Read().QueryRowContext(ctx, `SELECT max(at) FROM (SELECT at FROM entry ORDER BY id DESC LIMIT 64) AS newest`).Scan(&at)
	if err != nil || !at.Valid {
		return time.Time{}, db.dialect.Explain(err)
	}
	return Time(at.Int64), nil
}
