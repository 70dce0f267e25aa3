package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/comply"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/product"
)

// Comply keeps statements, and counts: it implements comply.Store.
type Comply struct{ db *DB }

// Comply gives the store of stage comply.
func (db *DB) Comply() *Comply { return &Comply{db} }

// Statements implements comply.Store.
func (s *Comply) Statements(ctx context.Context, productID string) ([]comply.Statement, error) {
	return collect(ctx, s.db, func(row scanner) (comply.Statement, error) {
		var st comply.Statement
		var doc string
		var log sql.NullString
		var index sql.NullInt64
		if err := row.Scan(&doc, &log, &index); err != nil {
			return st, err
		}
		if err := json.Unmarshal([]byte(doc), &st); err != nil {
			return st, fmt.Errorf("stored statement of product %s: %w", productID, errors.Join(err, errDamaged))
		}
		if ref := refOf(log, index); ref != nil {
			st.Evidence = &comply.Link{Text: "the statement", Fact: ref}
		}
		return st, nil
	}, `SELECT s.doc, e.log, e.idx FROM compliance_statement s LEFT JOIN entry e ON e.uid = s.uid WHERE s.product = $1 ORDER BY s.id`, productID)
}

// refOf gives a fact's place; nil when it has none yet.
func refOf(log sql.NullString, index sql.NullInt64) *ledger.Ref {
	if !log.Valid || !index.Valid || index.Int64 < 0 {
		return nil
	}
	return &ledger.Ref{Log: ledger.Log(log.String), Index: uint64(index.Int64)}
}

// PutStatement implements comply.Store.
func (s *Comply) PutStatement(ctx context.Context, st comply.Statement, fact func(comply.Statement) (ledger.Fact, error)) (comply.Statement, error) {
	err := s.db.Write(ctx, func(tx *Tx) error {
		var there int
		if err := tx.QueryRow(`SELECT count(*) FROM product WHERE id = $1`, st.Product).Scan(&there); err != nil {
			return err
		}
		if there == 0 {
			return comply.ErrNoProduct
		}
		err := tx.QueryRow(`SELECT rev FROM compliance_statement WHERE id = $1`, st.Key()).Scan(&st.Rev)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		st.Rev++
		f, err := fact(st)
		if err != nil {
			return err
		}
		doc, err := json.Marshal(st)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO compliance_statement (id, product, rev, uid, doc) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (id) DO UPDATE SET rev = excluded.rev, uid = excluded.uid, doc = excluded.doc`,
			st.Key(), st.Product, st.Rev, f.UID[:], string(doc)); err != nil {
			return err
		}
		return tx.Append(f)
	})
	return st, err
}

// Measure implements comply.Store. Of what grows without end only the newest is looked at; of devices there is one pass.
func (s *Comply) Measure(ctx context.Context, productID string, now time.Time) (comply.Snapshot, error) {
	out := comply.Snapshot{At: now, Commands: map[string]comply.Told{}, Facts: map[ledger.Kind]comply.Marks{}, Refusals: map[string]int{}, Retired: map[string]comply.Retired{}}
	p, err := s.db.Product(ctx, productID)
	if errors.Is(err, product.ErrNotFound) {
		return out, comply.ErrNoProduct
	}
	if err != nil {
		return out, err
	}
	out.Product = p
	m := measuring{Comply: s, out: &out}
	for _, part := range []func(context.Context) error{
		m.bundle, m.releases, m.devices, m.shared, m.commands, m.findings, m.cases, m.facts, m.epochs, m.retired, m.orders, m.rest,
	} {
		if err := part(ctx); err != nil {
			return out, s.db.dialect.Explain(err)
		}
	}
	return out, nil
}
