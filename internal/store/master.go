package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/factory"
)

// KeepMaster implements factory.Masters.
func (db *DB) KeepMaster(ctx context.Context, m factory.KeptMaster) error {
	doc, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO kept_master (digest, product, hardware, created, doc, head, sbom, provenance) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (digest) DO NOTHING`, m.Digest, m.Product, m.Hardware, Millis(m.Created), string(doc), m.Head, m.SBOM.Size, m.Provenance.Size)
		return err
	})
}

// keptMasters are masters, each beside the one of its product and hardware of which orders were made last.
func keptMasters(head string) string {
	return `SELECT k.doc, ` + head + `, k.sbom, k.provenance, m.revision, m.digest
		FROM kept_master k LEFT JOIN master m ON m.product = k.product AND m.hardware = k.hardware`
}

func scanMaster(row scanner) (m factory.KeptMaster, err error) {
	var doc string
	var sbom, provenance int64
	var revision sql.NullInt64
	var digest sql.NullString
	err = row.Scan(&doc, &m.Head, &sbom, &provenance, &revision, &digest)
	if errors.Is(err, sql.ErrNoRows) {
		return m, factory.ErrNotFound
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal([]byte(doc), &m); err != nil {
		return m, fmt.Errorf("stored master: %w", err)
	}
	m.SBOM.Size, m.Provenance.Size = sbom, provenance
	if revision.Valid {
		m.Newer = &factory.MasterRef{Product: m.Product, Hardware: m.Hardware, Revision: uint32(revision.Int64), Digest: digest.String}
	}
	return m, nil
}

// Master implements factory.Masters.
func (db *DB) Master(ctx context.Context, digest string) (factory.KeptMaster, error) {
	return scanMaster(db.Read().QueryRowContext(ctx, keptMasters("k.head")+` WHERE k.digest = $1`, digest))
}

// Masters implements factory.Masters.
func (db *DB) Masters(ctx context.Context, product, after string, limit int) ([]factory.KeptMaster, error) {
	const at = `(SELECT created FROM kept_master WHERE digest = $2)`
	rows, err := db.Read().QueryContext(ctx, keptMasters("NULL")+` WHERE ($1 = '' OR k.product = $1) AND (k.digest > $2 AND k.created = `+at+` OR k.created < `+at+` OR length($2) = 0)
		ORDER BY k.created DESC, k.digest LIMIT $3`, product, after, atMost(limit))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []factory.KeptMaster{}
	for rows.Next() {
		m, err := scanMaster(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, rows.Err()
}

// KeepDocument implements factory.Masters.
func (db *DB) KeepDocument(ctx context.Context, digest string, kind factory.DocumentKind, size int64) error {
	return db.Write(ctx, func(tx *Tx) error {
		q := `UPDATE kept_master SET sbom = $2 WHERE digest = $1`
		if kind == factory.Provenance {
			q = `UPDATE kept_master SET provenance = $2 WHERE digest = $1`
		}
		done, err := did(tx.Exec(q, digest, size))
		if err == nil && !done {
			err = factory.ErrNotFound
		}
		return err
	})
}
