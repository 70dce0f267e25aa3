package store

import (
	"context"
	"database/sql"
	"errors"
)

// Cursor gives the index of the next fact that a follower has to look at; 0 at first.
func (db *DB) Cursor(ctx context.Context, name string) (next uint64, err error) {
	err = db.Read().QueryRowContext(ctx, `SELECT next FROM follower WHERE name = $1`, name).Scan(&next)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return next, db.dialect.Explain(err)
}

// SetCursor moves it. What came before has been done; what comes after a crash is told again.
func (db *DB) SetCursor(ctx context.Context, name string, next uint64) error {
	return db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO follower (name, next) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET next = excluded.next`, name, next)
		return err
	})
}
