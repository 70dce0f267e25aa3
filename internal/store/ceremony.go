package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/wire"
)

// Ceremonies is the part of the database that keeps transcripts of key ceremonies, and what was asked of one.
type Ceremonies struct{ db *DB }

// Ceremonies gives it.
func (db *DB) Ceremonies() Ceremonies { return Ceremonies{db} }

// PutCeremony implements ceremony.Store.
func (s Ceremonies) PutCeremony(ctx context.Context, h ceremony.Held, fact ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		added, err := putCeremony(tx, h)
		if err == nil && !added {
			err = ceremony.ErrExists
		}
		if err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

func putCeremony(tx *Tx, h ceremony.Held) (bool, error) {
	return did(tx.Exec(`INSERT INTO ceremony (digest, uid, name, at, envelope) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (digest) DO NOTHING`,
		h.Digest, h.UID, h.Name, Millis(h.At), h.Envelope))
}

// replayCeremony puts a transcript on record again. What was asked of ceremonies is not in the ledger: it is asked again.
func replayCeremony(tx *Tx, f ledger.Fact) (bool, error) {
	t, err := wire.OpenTranscript(f.Data)
	if err != nil {
		return false, err
	}
	sum := sha256.Sum256(f.Data)
	return putCeremony(tx, ceremony.Held{Digest: hex.EncodeToString(sum[:]), UID: hex.EncodeToString(f.UID[:]), Name: t.Ceremony, At: f.At, Envelope: f.Data})
}

// Ceremonies implements ceremony.Store.
func (s Ceremonies) Ceremonies(ctx context.Context, after string, limit int) ([]ceremony.Held, error) {
	return collect(ctx, s.db, func(row scanner) (h ceremony.Held, err error) {
		var at int64
		err = row.Scan(&h.Digest, &h.UID, &h.Name, &at, &h.Envelope)
		h.At = Time(at)
		return h, err
	}, `SELECT digest, uid, name, at, envelope FROM ceremony WHERE digest > $1 ORDER BY digest LIMIT $2`, after, limit)
}

// PutAsking implements ceremony.Store.
func (s Ceremonies) PutAsking(ctx context.Context, a ceremony.Asking) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO ceremony_asking (product, request, at) VALUES ($1, $2, $3)
			ON CONFLICT (product) DO UPDATE SET request = excluded.request, at = excluded.at`, a.Product, a.Request, Millis(a.At))
		return err
	})
}

// Asking implements ceremony.Store.
func (s Ceremonies) Asking(ctx context.Context, product string) (ceremony.Asking, error) {
	a := ceremony.Asking{Product: product}
	var at int64
	err := s.db.Read().QueryRowContext(ctx, `SELECT request, at FROM ceremony_asking WHERE product = $1`, product).Scan(&a.Request, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return a, ceremony.ErrNotFound
	}
	a.At = Time(at)
	return a, s.db.dialect.Explain(err)
}
