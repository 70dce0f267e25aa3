package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/statement"
	"github.com/hallmark-iot/hallmark/wire"
)

// Policy implements supply.Store.
func (s Supply) Policy(ctx context.Context, product string) (p supply.Policy, err error) {
	p, err = policyOf(s.db.Read().QueryRowContext(ctx, supplyPolicy, product))
	if err != nil {
		return p, s.db.dialect.Explain(err)
	}
	return p, nil
}

const supplyPolicy = `SELECT doc FROM supply_policy WHERE product = $1`

func policyOf(row scanner) (p supply.Policy, err error) {
	var doc string
	err = row.Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return supply.Policy{Mode: supply.Off}, nil
	}
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal([]byte(doc), &p)
}

// Enforcing implements supply.Store.
func (s Supply) Enforcing(ctx context.Context) ([]string, error) {
	return withPolicy(ctx, s.db, func(p supply.Policy) bool { return p.Mode == supply.Enforce })
}

// withPolicy gives the products whose policy is such, by name. There are as many policies as products.
func withPolicy(ctx context.Context, db *DB, such func(p supply.Policy) bool) ([]string, error) {
	type rule struct{ product, doc string }
	all, err := collect(ctx, db, func(row scanner) (r rule, err error) { return r, row.Scan(&r.product, &r.doc) }, `SELECT product, doc FROM supply_policy ORDER BY product`)
	var products []string
	for _, r := range all {
		var p supply.Policy
		if err := json.Unmarshal([]byte(r.doc), &p); err != nil {
			return nil, fmt.Errorf("stored supply policy of %s: %w", r.product, err)
		}
		if such(p) {
			products = append(products, r.product)
		}
	}
	return products, err
}

// PutPolicy implements supply.Store.
func (s Supply) PutPolicy(ctx context.Context, product string, had, p supply.Policy, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		now, err := policyOf(tx.QueryRow(supplyPolicy, product))
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(now, had) {
			return supply.ErrChanged
		}
		switch done, err := setSupplyPolicy(tx, product, p); {
		case err != nil:
			return err
		case !done:
			return supply.ErrNotFound
		}
		return tx.Append(facts...)
	})
}

// setSupplyPolicy says whether there is such a product.
func setSupplyPolicy(tx *Tx, product string, p supply.Policy) (bool, error) {
	doc, err := json.Marshal(p)
	if err != nil {
		return false, err
	}
	return did(tx.Exec(`INSERT INTO supply_policy (product, doc) SELECT id, $2 FROM product WHERE id = $1 ON CONFLICT (product) DO UPDATE SET doc = excluded.doc`, product, string(doc)))
}

// Exceptions implements supply.Store.
func (s Supply) Exceptions(ctx context.Context, product string) ([]supply.Exception, error) {
	return collect(ctx, s.db, func(row scanner) (e supply.Exception, err error) {
		var digest []byte
		var doc string
		if err := row.Scan(&digest, &doc); err != nil {
			return e, err
		}
		if err := json.Unmarshal([]byte(doc), &e); err != nil || len(digest) != 32 {
			return e, fmt.Errorf("stored exception %x: %w", digest, errors.Join(err, errDamaged))
		}
		e.Digest = [32]byte(digest)
		return e, nil
	}, `SELECT digest, doc FROM supply_exception WHERE product = $1 ORDER BY digest`, product)
}

// PutException implements supply.Store.
func (s Supply) PutException(ctx context.Context, product string, e supply.Exception, facts ...ledger.Fact) error {
	doc, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		stored, err := did(tx.Exec(`INSERT INTO supply_exception (product, digest, doc) VALUES ($1, $2, $3) ON CONFLICT (product, digest) DO NOTHING`, product, e.Digest[:], string(doc)))
		if err != nil || !stored {
			return err
		}
		return tx.Append(facts...)
	})
}

// Tell implements supply.Store.
func (s Supply) Tell(ctx context.Context, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error { return tx.Append(facts...) })
}

// replaySupplyPolicy makes a product's policy again: forgotten, it would let everything through.
func replaySupplyPolicy(tx *Tx, f ledger.Fact) (bool, error) {
	var c supply.PolicyChange
	if err := json.Unmarshal(f.Data, &c); err != nil {
		return false, err
	}
	return setSupplyPolicy(tx, f.Subject, c.Policy)
}

// replaySupplyDecision gives a release its decision back, by the digest that its approvers signed. One that no release was proposed with says why there is none.
func replaySupplyDecision(tx *Tx, f ledger.Fact) (bool, error) {
	d, err := wire.DecodeGateDecision(f.Data)
	if err != nil {
		return false, err
	}
	r, err := scanRelease(tx.QueryRow(releaseColumns+` WHERE product = $1 AND id = $2`, d.Product, f.Subject))
	sum := sha256.Sum256(f.Data)
	if errors.Is(err, release.ErrNotFound) || err == nil && !bytes.Equal(r.Manifest.Decision, sum[:]) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return changeRelease(tx, r.Digest[:], func(r *release.Release) error {
		r.Decision = f.Data
		return nil
	})
}

// replaySupplySummary gives a release the summary back that was signed when it was published.
func replaySupplySummary(tx *Tx, f ledger.Fact) (bool, error) {
	s, err := statement.ReadSummary(f.Data)
	if err != nil {
		return false, err
	}
	for _, sub := range s.Subjects {
		done, err := changeRelease(tx, sub.Digest[:], func(r *release.Release) error {
			r.Summary = f.Data
			return nil
		})
		if done || err != nil {
			return done, err
		}
	}
	return false, nil
}
