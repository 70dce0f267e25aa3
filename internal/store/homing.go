package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"

	"github.com/hallmark-iot/hallmark/device"
)

// KeepRecord implements device.Records.
func (s *Devices) KeepRecord(ctx context.Context, id string, record []byte) error {
	have, err := s.Record(ctx, id)
	if err == nil && bytes.Equal(have, record) {
		return nil
	}
	if err != nil && !errors.Is(err, device.ErrNotFound) {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO trust_record (device, record) VALUES ($1, $2) ON CONFLICT (device) DO UPDATE SET record = excluded.record`, id, record)
		return err
	})
}

// Record implements device.Records.
func (s *Devices) Record(ctx context.Context, id string) (record []byte, err error) {
	err = s.db.Read().QueryRowContext(ctx, `SELECT record FROM trust_record WHERE device = $1`, id).Scan(&record)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, device.ErrNotFound
	}
	return record, err
}

func forgetRecord(tx *Tx, id string) error {
	_, err := tx.Exec(`DELETE FROM trust_record WHERE device = $1`, id)
	return err
}
