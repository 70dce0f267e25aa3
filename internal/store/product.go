package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

// PutProduct implements product.Store.
func (db *DB) PutProduct(ctx context.Context, p product.Product, fact ledger.Fact) error {
	doc, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`INSERT INTO product (id, doc) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING`, p.ID, string(doc))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, product.ErrExists)
		}
		return tx.Append(fact)
	})
}

// Product implements product.Store.
func (db *DB) Product(ctx context.Context, id string) (product.Product, error) {
	var doc string
	err := db.Read().QueryRowContext(ctx, `SELECT doc FROM product WHERE id = $1`, id).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return product.Product{}, product.ErrNotFound
	}
	if err != nil {
		return product.Product{}, err
	}
	return decodeProduct(doc)
}

func decodeProduct(doc string) (product.Product, error) {
	var p product.Product
	if err := json.Unmarshal([]byte(doc), &p); err != nil {
		return product.Product{}, fmt.Errorf("stored product: %w", err)
	}
	if p.Enrolment.Mode == "" { // of before there was another
		p.Enrolment.Mode = product.Automatic
	}
	return p, nil
}

// Products implements product.Store.
func (db *DB) Products(ctx context.Context) ([]product.Product, error) {
	rows, err := db.Read().QueryContext(ctx, `SELECT doc FROM product ORDER BY id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []product.Product{}
	for rows.Next() {
		var doc string
		if err := rows.Scan(&doc); err != nil {
			return nil, err
		}
		p, err := decodeProduct(doc)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

// SetEnrolment implements product.Store.
func (db *DB) SetEnrolment(ctx context.Context, id string, e product.Enrolment, fact ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		if err := changeProduct(tx, id, func(p *product.Product) { p.Enrolment = e }); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// SetSchema implements product.Store.
func (db *DB) SetSchema(ctx context.Context, id string, schema wire.Schema, fact ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		if err := changeProduct(tx, id, func(p *product.Product) { p.Parameters = schema }); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// SetBundleDue implements product.Store.
func (db *DB) SetBundleDue(ctx context.Context, id string, days int, fact ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		if err := changeProduct(tx, id, func(p *product.Product) { p.BundleDue = days }); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// SetIsolation implements product.Store.
func (db *DB) SetIsolation(ctx context.Context, id string, layers []wire.Layer, fact ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		if err := changeProduct(tx, id, func(p *product.Product) { p.Isolation = layers }); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

func changeProduct(tx *Tx, id string, change func(*product.Product)) error {
	var doc string
	err := tx.QueryRow(`SELECT doc FROM product WHERE id = $1`, id).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return product.ErrNotFound
	}
	if err != nil {
		return err
	}
	p, err := decodeProduct(doc)
	if err != nil {
		return err
	}
	change(&p)
	changed, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE product SET doc = $1 WHERE id = $2`, string(changed), id)
	return err
}
