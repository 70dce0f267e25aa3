package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard"
)

// Onboard implements onboard.Store and onboard.Registry.
type Onboard struct{ db *DB }

// Onboard gives the store of refusals, and how devices stand.
func (db *DB) Onboard() Onboard { return Onboard{db} }

// Known implements onboard.Registry.
func (s Onboard) Known(ctx context.Context, id string) (onboard.Standing, error) {
	st := onboard.Standing{Known: true}
	err := s.db.Read().QueryRowContext(ctx, `SELECT product, hardware, state, legitimacy, identity FROM device WHERE id = $1`, id).
		Scan(&st.Product, &st.Hardware, &st.State, &st.Legitimacy, &st.Identity)
	if errors.Is(err, sql.ErrNoRows) {
		return onboard.Standing{}, nil
	}
	if err != nil {
		return onboard.Standing{}, s.db.dialect.Explain(err)
	}
	return st, nil
}

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
