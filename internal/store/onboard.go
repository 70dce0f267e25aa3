package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// Onboard implements onboard.Store and onboard.Registry.
type Onboard struct {
	db    *DB
	rules *sync.Map // by product: readRules
}

// readRules are those of the product's document and trust bundle that were read last: products are few, and each enrolment asks.
type readRules struct {
	doc    string
	bundle int64
	rules  onboard.Rules
}

// Onboard gives the store of refusals, and how devices stand.
func (db *DB) Onboard() Onboard { return Onboard{db, &sync.Map{}} }

// Known implements onboard.Registry.
func (s Onboard) Known(ctx context.Context, id string) (onboard.Standing, error) {
	st := onboard.Standing{Known: true}
	var doc string
	var bundle int64
	err := s.db.Read().QueryRowContext(ctx, `SELECT d.product, d.hardware, d.group_path, d.state, d.legitimacy, d.identity, coalesce(p.doc, ''),
		(SELECT coalesce(max(b.version), 0) FROM bundle b WHERE b.product = d.product)
		FROM device d LEFT JOIN product p ON p.id = d.product WHERE d.id = $1`, id).
		Scan(&st.Product, &st.Hardware, &st.Group, &st.State, &st.Legitimacy, &st.Identity, &doc, &bundle)
	if errors.Is(err, sql.ErrNoRows) {
		return onboard.Standing{}, nil
	}
	if err != nil {
		return onboard.Standing{}, s.db.dialect.Explain(err)
	}
	st.Rules, err = s.rulesOf(ctx, st.Product, doc, bundle)
	return st, err
}

// Rules implements onboard.Registry.
func (s Onboard) Rules(ctx context.Context, productID string) (onboard.Rules, error) {
	var doc string
	var bundle int64
	err := s.db.Read().QueryRowContext(ctx, `SELECT doc, (SELECT coalesce(max(b.version), 0) FROM bundle b WHERE b.product = p.id) FROM product p WHERE id = $1`,
		productID).Scan(&doc, &bundle)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return onboard.Rules{}, s.db.dialect.Explain(err)
	}
	return s.rulesOf(ctx, productID, doc, bundle)
}

// rulesOf reads a product's document and, when it has one, its newest trust bundle, which never changes: which keys are certified is the
// bundle's to say, because the devices make theirs by it.
func (s Onboard) rulesOf(ctx context.Context, productID, doc string, bundle int64) (onboard.Rules, error) {
	if doc == "" {
		return onboard.Rules{}, nil
	}
	had, _ := s.rules.Load(productID)
	if had, ok := had.(readRules); ok && had.doc == doc && had.bundle == bundle {
		return had.rules, nil
	}
	p, err := decodeProduct(doc)
	if err != nil {
		return onboard.Rules{}, err
	}
	r := onboard.Rules{Suite: suite.ID(p.Suite), Enrolment: p.Enrolment}
	if bundle > 0 {
		if err := s.suitesOf(ctx, productID, bundle, &r); err != nil {
			return onboard.Rules{}, err
		}
	}
	s.rules.Store(productID, readRules{doc, bundle, r})
	return r, nil
}

func (s Onboard) suitesOf(ctx context.Context, productID string, version int64, r *onboard.Rules) error {
	var envelope []byte
	err := s.db.Read().QueryRowContext(ctx, `SELECT envelope FROM bundle WHERE product = $1 AND version = $2`, productID, version).Scan(&envelope)
	if err != nil {
		return s.db.dialect.Explain(err)
	}
	payload, _, err := wire.ThresholdPayload(wire.TypeBundle, envelope)
	if err != nil {
		return err
	}
	b, err := wire.DecodeBundle(payload)
	if err != nil {
		return err
	}
	newest, ok := suite.Newest(b.Suites)
	if !ok {
		return fmt.Errorf("trust bundle %d of product %s accepts %v: none of them is known here", version, productID, b.Suites)
	}
	r.Suite = newest.ID
	for _, id := range b.Suites {
		if id != string(newest.ID) {
			r.Accepts = append(r.Accepts, suite.ID(id))
		}
	}
	return nil
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
