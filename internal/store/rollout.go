package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/rollout"
)

// Rollouts keeps rollouts: it implements rollout.Store.
type Rollouts struct{ db *DB }

// Rollouts gives the store of stage rollout.
func (db *DB) Rollouts() *Rollouts { return &Rollouts{db} }

// PutRollout implements rollout.Store.
func (s *Rollouts) PutRollout(ctx context.Context, r rollout.Rollout, facts ...ledger.Fact) error {
	doc, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`INSERT INTO rollout (id, product, place, phase, open, created, stir, rev, uid, doc) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
			ON CONFLICT (id) DO NOTHING`, r.Spec.ID, r.Spec.Product,
			access.Join(r.Spec.Product, r.Spec.Selection.Group), string(r.Phase), !r.Phase.Ended(), Millis(r.Created), r.Stir, r.Rev, r.UID[:], string(doc))
		if err != nil {
			return err
		}
		if err := one(res, rollout.ErrExists); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

const rolloutColumns = `SELECT id, rev, uid, stir, doc FROM rollout`

func scanRollout(row scanner) (rollout.Rollout, error) {
	var r rollout.Rollout
	var id, doc string
	var uid []byte
	var rev, at int64
	err := row.Scan(&id, &rev, &uid, &at, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return r, rollout.ErrNotFound
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(doc), &r); err != nil || len(uid) != 16 || r.Spec.ID != id {
		return r, fmt.Errorf("stored rollout %s: %w", id, errors.Join(err, errDamaged))
	}
	r.UID, r.Rev, r.Stir = [16]byte(uid), rev, at
	for i := range r.Waves { // of before there were tranches
		if w := &r.Waves[i]; w.Command != "" && len(w.Tranches) == 0 {
			w.Tranches = []rollout.Tranche{{Command: w.Command, Devices: w.Devices, At: w.Started, Issued: true}}
		}
	}
	return r, nil
}

// Rollout implements rollout.Store.
func (s *Rollouts) Rollout(ctx context.Context, id string) (rollout.Rollout, error) {
	return scanRollout(s.db.Read().QueryRowContext(ctx, rolloutColumns+` WHERE id = $1`, id))
}

// SpecOf implements rollout.Store.
func (s *Rollouts) SpecOf(ctx context.Context, device string) (spec rollout.Spec, in bool, err error) {
	r, err := scanRollout(s.db.Read().QueryRowContext(ctx, rolloutColumns+` WHERE id = (SELECT rollout_id FROM rollout_place WHERE device_id = $1 AND open = 1)`, device))
	if errors.Is(err, rollout.ErrNotFound) {
		return spec, false, nil
	}
	return r.Spec, err == nil, err
}

// Rollouts implements rollout.Store.
func (s *Rollouts) Rollouts(ctx context.Context, scope []string, open bool, after string, limit int) ([]rollout.Rollout, error) {
	list, err := listOf(scope)
	if err != nil {
		return nil, err
	}
	query := rolloutColumns + ` WHERE ` + placeInScope("rollout.place", 1) + behind("rollout", "id")
	if open {
		query += ` AND open = 1`
	}
	return collect(ctx, s.db, scanRollout, query+` ORDER BY created DESC, id LIMIT $3`, list, after, atMost(limit))
}

// SaveRollout implements rollout.Store.
func (s *Rollouts) SaveRollout(ctx context.Context, r rollout.Rollout, facts ...ledger.Fact) error {
	if err := s.db.Write(ctx, func(tx *Tx) error {
		if err := saveRollout(tx, r); err != nil {
			return err
		}
		return tx.Append(facts...)
	}); err != nil || !r.Phase.Ended() {
		return err
	}
	return s.free(ctx, r.Spec.ID)
}

// FreeEnded implements rollout.Book.
func (s *Rollouts) FreeEnded(ctx context.Context) error {
	ended, err := collect(ctx, s.db, scanID, `SELECT id FROM rollout WHERE open = 0 AND id IN (SELECT rollout_id FROM rollout_place WHERE open = 1)`)
	if err != nil {
		return err
	}
	for _, id := range ended {
		if err := s.free(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// atOnce bounds the rows of one write.
const atOnce = 5000

// free lets go of the devices of a rollout that has ended, some at a time: other writes have their turn between.
func (s *Rollouts) free(ctx context.Context, id string) error {
	for n := int64(atOnce); n == atOnce; {
		if err := s.db.Write(ctx, func(tx *Tx) error {
			res, err := tx.Exec(`UPDATE rollout_place SET open = 0 WHERE rollout_id = $1 AND device_id IN
				(SELECT device_id FROM rollout_place WHERE rollout_id = $1 AND open = 1 LIMIT $2)`, id, int64(atOnce))
			if err != nil {
				return err
			}
			n, err = res.RowsAffected()
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func saveRollout(tx *Tx, r rollout.Rollout) error {
	doc, err := json.Marshal(r)
	if err != nil {
		return err
	}
	res, err := tx.Exec(`UPDATE rollout SET phase = $1, open = $2, started = $3, uid = $4, doc = $5, stir = $6, rev = rev + 1 WHERE id = $7 AND rev = $8`,
		string(r.Phase), !r.Phase.Ended(), Millis(r.Started), r.UID[:], string(doc), r.Stir, r.Spec.ID, r.Rev)
	if err != nil {
		return err
	}
	return one(res, rollout.ErrChanged)
}

// Listened implements rollout.Book.
func (s *Rollouts) Listened(ctx context.Context) (time.Time, error) {
	var at int64
	err := s.db.Read().QueryRowContext(ctx, `SELECT coalesce(max(at), 0) FROM rollout_ear`).Scan(&at)
	return Time(at), err
}

// Listens implements rollout.Book.
func (s *Rollouts) Listens(ctx context.Context, now time.Time) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO rollout_ear (id, at) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET at = excluded.at`, Millis(now))
		return err
	})
}

// PutPoint implements rollout.Book.
func (s *Rollouts) PutPoint(ctx context.Context, id string, p rollout.Point) error {
	doc, err := json.Marshal(p.Counts)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO rollout_point (rollout_id, at, doc) VALUES ($1, $2, $3) ON CONFLICT (rollout_id, at) DO UPDATE SET doc = excluded.doc`, id, Millis(p.At), string(doc))
		return err
	})
}

// Points implements rollout.Book.
func (s *Rollouts) Points(ctx context.Context, id string) ([]rollout.Point, error) {
	return collect(ctx, s.db, func(row scanner) (p rollout.Point, err error) {
		var at int64
		var doc string
		if err := row.Scan(&at, &doc); err != nil {
			return p, err
		}
		p.At = Time(at)
		return p, json.Unmarshal([]byte(doc), &p.Counts)
	}, `SELECT at, doc FROM rollout_point WHERE rollout_id = $1 ORDER BY at`, id)
}
