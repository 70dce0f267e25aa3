package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/protect"
)

// ContentKeys keeps the keys of protected programs: it implements protect.Store.
type ContentKeys struct{ db *DB }

// ContentKeys gives the store of stage protect.
func (db *DB) ContentKeys() *ContentKeys { return &ContentKeys{db} }

// PutKey implements protect.Store.
func (s *ContentKeys) PutKey(ctx context.Context, k protect.Key) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO content_key (id, product, sealed, maker, made) VALUES ($1, $2, $3, $4, $5)`, k.ID, k.Product, k.Sealed, k.By, Millis(k.At))
		return err
	})
}

// Key implements protect.Store.
func (s *ContentKeys) Key(ctx context.Context, id []byte) (k protect.Key, err error) {
	var made int64
	err = s.db.Read().QueryRowContext(ctx, `SELECT id, product, sealed, maker, made FROM content_key WHERE id = $1`, id).Scan(&k.ID, &k.Product, &k.Sealed, &k.By, &made)
	if errors.Is(err, sql.ErrNoRows) {
		return k, protect.ErrNotFound
	}
	k.At = Time(made)
	return k, err
}

// Given implements protect.Store.
func (s *ContentKeys) Given(ctx context.Context, f ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error { return tx.Append(f) })
}
