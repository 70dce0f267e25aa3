package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/suite"
)

// Onboard implements onboard.Store and onboard.Registry.
type Onboard struct {
	db    *DB
	rules *atomic.Pointer[readRules]
}

// readRules are those of the product's document that was read last: a fleet is of few products, and each enrolment asks.
type readRules struct {
	doc   string
	rules onboard.Rules
}

// Onboard gives the store of refusals, and how devices stand.
func (db *DB) Onboard() Onboard { return Onboard{db, &atomic.Pointer[readRules]{}} }

// Known implements onboard.Registry.
func (s Onboard) Known(ctx context.Context, id string) (onboard.Standing, error) {
	st := onboard.Standing{Known: true}
	var doc string
	err := s.db.Read().QueryRowContext(ctx, `SELECT d.product, d.hardware, d.group_path, d.state, d.legitimacy, d.identity, coalesce(p.doc, '')
		FROM device d LEFT JOIN product p ON p.id = d.product WHERE d.id = $1`, id).
		Scan(&st.Product, &st.Hardware, &st.Group, &st.State, &st.Legitimacy, &st.Identity, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return onboard.Standing{}, nil
	}
	if err != nil {
		return onboard.Standing{}, s.db.dialect.Explain(err)
	}
	st.Rules, err = s.rulesOf(doc)
	return st, err
}

// Rules implements onboard.Registry.
func (s Onboard) Rules(ctx context.Context, productID string) (onboard.Rules, error) {
	var doc string
	err := s.db.Read().QueryRowContext(ctx, `SELECT doc FROM product WHERE id = $1`, productID).Scan(&doc)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return onboard.Rules{}, s.db.dialect.Explain(err)
	}
	return s.rulesOf(doc)
}

func (s Onboard) rulesOf(doc string) (onboard.Rules, error) {
	if doc == "" {
		return onboard.Rules{}, nil
	}
	if had := s.rules.Load(); had != nil && had.doc == doc {
		return had.rules, nil
	}
	p, err := decodeProduct(doc)
	if err != nil {
		return onboard.Rules{}, err
	}
	r := onboard.Rules{Suite: suite.ID(p.Suite), Enrolment: p.Enrolment}
	s.rules.Store(&readRules{doc, r})
	return r, nil
}

// Refuse implements onboard.Store.
func (s Onboard) Refuse(ctx context.Context, r onboard.Refusal, facts ...ledger.Fact) error {
	doc, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		codes, known, err := refusedFor(tx, r.Device)
		if err != nil {
			return err
		}
		fresh := !slices.Contains(codes, r.Code)
		if fresh {
			codes = append(codes, r.Code)
		}
		if known {
			if _, err := tx.Exec(`UPDATE enrol_refused SET count = count + 1, last = $1, doc = $2, codes = $3 WHERE device = $4`,
				Millis(r.At), string(doc), strings.Join(codes, " "), r.Device); err != nil || !fresh {
				return err
			}
			return tx.Append(facts...)
		}
		res, err := tx.Exec(`INSERT INTO enrol_refused (device, issuer, count, last, doc, codes)
			SELECT $1, $2, 1, $3, $4, $5 WHERE $6 = 0 OR (SELECT count(*) FROM enrol_refused WHERE issuer = $2) < $7`,
			r.Device, r.Issuer, Millis(r.At), string(doc), r.Code, flag(r.Code == onboard.Unordered), onboard.MaxRefusals)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err
		}
		return tx.Append(facts...)
	})
}

// refusedFor gives the codes that a device was refused with; those of before they were kept are in the document of the last one.
func refusedFor(tx *Tx, id string) (codes []string, known bool, err error) {
	var doc, all string
	err = tx.QueryRow(`SELECT doc, codes FROM enrol_refused WHERE device = $1`, id).Scan(&doc, &all)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	var last onboard.Refusal
	if err := json.Unmarshal([]byte(doc), &last); err != nil {
		return nil, false, fmt.Errorf("stored refusal: %w", err)
	}
	if codes = strings.Fields(all); len(codes) == 0 {
		codes = []string{last.Code}
	}
	return codes, true, nil
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
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

const waitingColumns = `SELECT w.doc, coalesce(d.group_path, '') FROM enrolment w LEFT JOIN device d ON d.id = w.device`

func scanWaiting(row scanner) (w onboard.Waiting, err error) {
	var doc string
	if err := row.Scan(&doc, &w.Group); errors.Is(err, sql.ErrNoRows) {
		return w, onboard.ErrNotWaiting
	} else if err != nil {
		return w, err
	}
	if err := json.Unmarshal([]byte(doc), &w); err != nil {
		return w, fmt.Errorf("stored enrolment: %w", err)
	}
	return w, nil
}

// waitingDoc is what is kept of it: not the group, in which the device may be no more when it is read.
func waitingDoc(w onboard.Waiting) (string, error) {
	w.Group = ""
	doc, err := json.Marshal(w)
	return string(doc), err
}

// Waiting implements onboard.Store.
func (s Onboard) Waiting(ctx context.Context, device string) (onboard.Waiting, error) {
	return scanWaiting(s.db.Read().QueryRowContext(ctx, waitingColumns+` WHERE w.device = $1`, device))
}

// Waitings implements onboard.Store.
func (s Onboard) Waitings(ctx context.Context, scope []string, state onboard.Word, after string, now time.Time, limit int) ([]onboard.Waiting, error) {
	list, err := listOf(scope)
	if err != nil {
		return nil, err
	}
	return collect(ctx, s.db, scanWaiting, waitingColumns+` WHERE`+inScope("w.product", "w.device")+` AND w.device > $2 AND w.until > $3
		AND ($4 = '' OR w.state = $4) ORDER BY w.device LIMIT $5`, list, after, Millis(now), string(state), atMost(limit))
}

// Wait implements onboard.Store. What has lapsed makes room first.
func (s Onboard) Wait(ctx context.Context, w onboard.Waiting) error {
	doc, err := waitingDoc(w)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`DELETE FROM enrolment WHERE until <= $1 OR device = $2`, Millis(w.Asked), w.Device); err != nil {
			return err
		}
		res, err := tx.Exec(`INSERT INTO enrolment (device, product, request, state, until, doc) SELECT $1, $2, $3, $4, $5, $6
			WHERE (SELECT count(*) FROM enrolment) < $7`, w.Device, w.Product, w.Request, string(w.State), Millis(w.Until), doc, onboard.MaxWaiting)
		if err != nil {
			return err
		}
		return one(res, fault.New(fault.Unavailable, "enrolment.full", fmt.Sprintf("%d enrolments wait already", onboard.MaxWaiting), "have them decided on: `hallmark enrolment list`"))
	})
}

// Decide implements onboard.Store.
func (s Onboard) Decide(ctx context.Context, w onboard.Waiting, fact ledger.Fact) error {
	doc, err := waitingDoc(w)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE enrolment SET state = $1, until = $2, doc = $3 WHERE device = $4 AND request = $5 AND state = $6`,
			string(w.State), Millis(w.Until), doc, w.Device, w.Request, string(onboard.Waits))
		if err != nil {
			return err
		}
		if err := one(res, onboard.ErrNotWaiting); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// forgetEnrolment forgets what a device asked for, and what was said of it.
func forgetEnrolment(tx *Tx, device string) error {
	_, err := tx.Exec(`DELETE FROM enrolment WHERE device = $1`, device)
	return err
}
