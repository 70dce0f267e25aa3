package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/release"
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
func (s Blobs) KeepBlobSums(ctx context.Context, digest [32]byte, size int64, sums [32]byte, at time.Time) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		var leaving int
		if err := tx.QueryRow(`SELECT count(*) FROM blob_leaving WHERE digest = $1`, digest[:]).Scan(&leaving); err != nil {
			return err
		}
		if leaving > 0 {
			return release.ErrLeaving
		}
		_, err := tx.Exec(`INSERT INTO blob_sums (digest, size, sums, at) VALUES ($1, $2, $3, $4)
			ON CONFLICT (digest) DO UPDATE SET size = excluded.size, sums = excluded.sums, at = excluded.at`, digest[:], size, sums[:], Millis(at))
		return err
	})
}

// Leaving implements blob.Books.
func (s Blobs) Leaving(ctx context.Context) ([][32]byte, error) {
	return collect(ctx, s.db, scanDigest, `SELECT digest FROM blob_leaving ORDER BY digest LIMIT 100`)
}

// Left implements blob.Books.
func (s Blobs) Left(ctx context.Context, digest [32]byte) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`DELETE FROM blob_sums WHERE digest = $1`, digest[:]); err != nil { // of who read it whole while it left
			return err
		}
		_, err := tx.Exec(`DELETE FROM blob_leaving WHERE digest = $1`, digest[:])
		return err
	})
}

func scanDigest(row scanner) (digest [32]byte, err error) {
	var b []byte
	if err := row.Scan(&b); err != nil {
		return digest, err
	}
	if len(b) != len(digest) {
		return digest, errDamaged
	}
	return [32]byte(b), nil
}
