package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/internal/failpoint"
	"github.com/hallmark-iot/hallmark/internal/once"
)

// settling gives fn with what the context's request has open before it, in the same savepoint: when fn fails, its mark is undone
// with it. settled is to be called after the commit; nil: there is nothing to settle.
func (db *DB) settling(ctx context.Context, fn func(tx *Tx) error) (with func(tx *Tx) error, settled func()) {
	r := once.Of(ctx)
	if r == nil {
		return fn, nil
	}
	mark, expect, open := r.Open()
	if !open {
		return fn, nil
	}
	return func(tx *Tx) error {
			if expect != nil {
				tag, err := tagOf(tx, expect.Thing, expect.ID)
				if err != nil {
					return err
				}
				if !expect.Met(tag) {
					return once.ErrChanged
				}
			}
			if mark != nil {
				res, err := tx.Exec(`INSERT INTO request_mark (caller, key, request, at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
					mark.Caller, mark.Key, mark.Request[:], Millis(time.Now()))
				if err != nil {
					return err
				}
				if err := one(res, once.ErrRunning); err != nil {
					return err
				}
			}
			err := fn(tx)
			if mark != nil {
				failpoint.Hit("once.marked")
			}
			return err
		}, func() {
			if mark != nil {
				failpoint.Hit("once.settled")
			}
			r.Settle()
		}
}

// Kept implements once.Store.
func (db *DB) Kept(ctx context.Context, caller, key string) (once.Kept, bool, error) {
	k := once.Kept{Mark: once.Mark{Caller: caller, Key: key}}
	var request []byte
	a := &k.Answer
	err := db.Read().QueryRowContext(ctx, `SELECT request, status, type, tag, facts, fact_count, body FROM request_mark WHERE caller = $1 AND key = $2`,
		caller, key).Scan(&request, &a.Status, &a.Type, &a.Tag, &a.Facts, &a.FactCount, &a.Body)
	if errors.Is(err, sql.ErrNoRows) {
		return once.Kept{}, false, nil
	}
	if err == nil && len(request) != len(k.Request) {
		err = fmt.Errorf("stored mark of %s: request of %d bytes", caller, len(request))
	}
	if err != nil {
		return once.Kept{}, false, db.dialect.Explain(err)
	}
	k.Request, k.Done = [32]byte(request), a.Status != 0
	return k, true, nil
}

// PutAnswer implements once.Store.
func (db *DB) PutAnswer(ctx context.Context, m once.Mark, a once.Answer) error {
	return db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE request_mark SET status = $1, type = $2, tag = $3, facts = $4, fact_count = $5, body = $6
			WHERE caller = $7 AND key = $8 AND request = $9 AND status = 0`,
			a.Status, a.Type, a.Tag, a.Facts, a.FactCount, notNil(a.Body), m.Caller, m.Key, m.Request[:])
		if err != nil {
			return err
		}
		return one(res, fmt.Errorf("answer to a request of %s: its mark is not there", m.Caller))
	})
}

// ForgetMarks implements once.Store.
func (db *DB) ForgetMarks(ctx context.Context, before time.Time) error {
	return db.Write(ctx, func(tx *Tx) error {
		// That of an approved proposal says that it was begun: without it, it could be begun anew.
		_, err := tx.Exec(`DELETE FROM request_mark WHERE at < $1 AND NOT EXISTS
			(SELECT 1 FROM proposal p WHERE p.state = 'approved' AND p.proposer = request_mark.caller AND request_mark.key = 'proposal-' || p.id)`, Millis(before))
		return err
	})
}

// tags are the statements that give a thing's tag. What has a revision has it as its tag; the others have what of them changes.
var tags = map[once.Thing]string{
	once.Case: `SELECT cause_log || '.' || cause_idx || '.' || rev FROM remedy_case WHERE device_id = $1 AND open = 1`,
	once.Device: `SELECT state || '.' || since || '.' || legitimacy || '.' || coalesce(replaces, '') || '.' || coalesce(replaced_by, '')
		FROM device WHERE id = $1`,
	once.Enrolment:  `SELECT request || '.' || state FROM enrolment WHERE device = $1`,
	once.Finding:    `SELECT CASE WHEN closed = 0 THEN 'open' ELSE 'closed' END FROM finding WHERE id = $1`,
	once.Order:      `SELECT state || CASE WHEN job_end IS NULL THEN '' ELSE '.ended' END FROM production_order WHERE id = $1`,
	once.Lot:        `SELECT 'r' || rev FROM lot WHERE id = $1`,
	once.Part:       `SELECT 'r' || rev FROM part WHERE id = $1`,
	once.Supplier:   `SELECT 'r' || rev FROM supplier WHERE id = $1`,
	once.Member:     `SELECT 'r' || rev FROM member WHERE id = $1`,
	once.Product:    `SELECT doc FROM product WHERE id = $1`,
	once.Proposal:   `SELECT 'r' || rev FROM proposal WHERE id = $1`,
	once.Release:    `SELECT 'r' || rev FROM release WHERE digest = $1`,
	once.Retirement: `SELECT 'r' || rev FROM retirement WHERE device_id = $1`,
	once.Statement:  `SELECT coalesce((SELECT 'r' || rev FROM compliance_statement WHERE id = $1), 'none')`,
	once.Rollout:    `SELECT 'r' || rev FROM rollout WHERE id = $1`,
}

// Tag implements once.Store.
func (db *DB) Tag(ctx context.Context, thing once.Thing, id string) (string, error) {
	query, arg, err := tagQuery(thing, id)
	if err != nil {
		return "", err
	}
	return scanTag(db.Read().QueryRowContext(ctx, query, arg))
}

func tagOf(tx *Tx, thing once.Thing, id string) (string, error) {
	query, arg, err := tagQuery(thing, id)
	if err != nil {
		return "", err
	}
	return scanTag(tx.QueryRow(query, arg))
}

func tagQuery(thing once.Thing, id string) (string, any, error) {
	query, ok := tags[thing]
	if !ok {
		return "", nil, fmt.Errorf("things of kind %q have no tag", thing)
	}
	if thing != once.Release {
		return query, id, nil
	}
	digest, err := hex.DecodeString(id)
	return query, digest, err
}

func scanTag(row scanner) (string, error) {
	var tag string
	err := row.Scan(&tag)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(tag)) // nobody is to read a tag
	return hex.EncodeToString(sum[:12]), nil
}
