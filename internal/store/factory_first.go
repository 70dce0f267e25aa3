package store

import (
	"context"
	"errors"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// PutInspection implements factory.Inspections.
func (db *DB) PutInspection(ctx context.Context, order string, seq uint32, envelope []byte, fact ledger.Fact) error {
	hash := wire.RecordHash(envelope)
	return db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`INSERT INTO production_inspection (order_id, seq, hash, envelope) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
			order, int64(seq), hash[:], envelope)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err // it was here before
		}
		return tx.Append(fact)
	})
}

// Inspections implements factory.Inspections.
func (db *DB) Inspections(ctx context.Context, order string) (out [][]byte, err error) {
	rows, err := db.Read().QueryContext(ctx, `SELECT envelope FROM production_inspection WHERE order_id = $1 ORDER BY seq, hash`, order)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var e []byte
		if err := rows.Scan(&e); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, rows.Err()
}

// MadeAs implements factory.Inspections.
func (db *DB) MadeAs(ctx context.Context, order string, record []byte) (device string, err error) {
	err = db.Read().QueryRowContext(ctx, `SELECT coalesce(max(device), '') FROM production_record WHERE order_id = $1 AND hash = $2 AND state = 'made'`, order, record).Scan(&device)
	return device, err
}
