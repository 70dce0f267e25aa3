package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Blobs keeps what is known of blobs: it implements blob.Books.
type Blobs struct{ db *DB }

// Blobs gives the store of what is known of blobs.
func (db *DB) Blobs() Blobs { return Blobs{db} }

// BlobSums implements blob.Books.
func (s Blobs) BlobSums(ctx context.Context, digest [32]byte) (size int64, sums [32]byte, ok bool, err error) {
	var b []byte
	err = s.db.Read().QueryRowContext(ctx, `SELECT size, sums FROM blob_sums WHERE digest = $1`, digest[:]).Scan(&size, &b)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, sums, false, nil
	}
	if err != nil {
		return 0, sums, false, s.db.dialect.Explain(err)
	}
	if len(b) != len(sums) {
		return 0, sums, false, fmt.Errorf("stored sums of blob %x: %w", digest, errDamaged)
	}
	return size, [32]byte(b), true, nil
}

// KeepBlobSums implements blob.Books.
func (s Blobs) KeepBlobSums(ctx context.Context, digest [32]byte, size int64, sums [32]byte) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO blob_sums (digest, size, sums) VALUES ($1, $2, $3)
			ON CONFLICT (digest) DO UPDATE SET size = excluded.size, sums = excluded.sums`, digest[:], size, sums[:])
		return err
	})
}
