package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard"
)

// Onboard implements onboard.Store.
type Onboard struct{ db *DB }

// Onboard gives the store of refusals.
func (db *DB) Onboard() Onboard { return Onboard{db} }

// Refuse implements onboard.Store.
func (s Onboard) Refuse(ctx context.Context, r onboard.Refusal, facts ...ledger.Fact) error {
	doc, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE enrol_refused SET count = count + 1, last = $1, doc = $2 WHERE device = $3`,
			Millis(r.At), string(doc), r.Device)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 1 {
			return err
		}
		res, err = tx.Exec(`INSERT INTO enrol_refused (device, issuer, count, last, doc)
			SELECT $1, $2, 1, $3, $4 WHERE (SELECT count(*) FROM enrol_refused WHERE issuer = $2) < $5`,
			r.Device, r.Issuer, Millis(r.At), string(doc), onboard.MaxRefusals)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err
		}
		return tx.Append(facts...)
	})
}

// Refusals implements onboard.Store.
func (s Onboard) Refusals(ctx context.Context, limit int) (out []onboard.Refusal, err error) {
	rows, err := s.db.Read().QueryContext(ctx, `SELECT count, doc FROM enrol_refused ORDER BY last DESC, device LIMIT $1`, limit)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var r onboard.Refusal
		var doc string
		var count int
		if err := rows.Scan(&count, &doc); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(doc), &r); err != nil {
			return nil, fmt.Errorf("stored refusal: %w", err)
		}
		r.Count = count
		out = append(out, r)
	}
	return out, rows.Err()
}
