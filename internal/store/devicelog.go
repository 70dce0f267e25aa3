package store

import (
	"context"
	"crypto"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/devicelog"
	"github.com/hallmark-iot/hallmark/wire"
)

func noDevice(id string) error {
	return fault.New(fault.NotFound, "device.unknown", fmt.Sprintf("device %q is not registered", id),
		"a device is registered when its production record is imported")
}

// LogHead implements devicelog.Store.
func (db *DB) LogHead(ctx context.Context, id string) (h devicelog.Head, attest []byte, err error) {
	var head, anchor []byte
	var seq sql.NullInt64
	err = db.Read().QueryRowContext(ctx, `SELECT d.attest_key, l.seq, l.head, l.anchor FROM device d
		LEFT JOIN device_log l ON l.device = d.id WHERE d.id = $1`, id).Scan(&attest, &seq, &head, &anchor)
	if errors.Is(err, sql.ErrNoRows) {
		return h, nil, noDevice(id)
	}
	if err != nil {
		return h, nil, db.dialect.Explain(err)
	}
	if !seq.Valid {
		return devicelog.Head{Head: wire.LogOrigin(id, attest)}, attest, nil
	}
	if len(head) != 32 || len(anchor) != 16 {
		return h, nil, fmt.Errorf("stored log head of device %s is malformed", id)
	}
	return devicelog.Head{Seq: uint64(seq.Int64), Head: [32]byte(head), Anchor: [16]byte(anchor)}, attest, nil
}

// AdvanceLog implements devicelog.Store.
func (db *DB) AdvanceLog(ctx context.Context, id string, from, to devicelog.Head, fact ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		query := `UPDATE device_log SET seq = $2, head = $3, anchor = $4 WHERE device = $1 AND seq = $5 AND head = $6`
		args := []any{id, to.Seq, to.Head[:], to.Anchor[:], from.Seq, from.Head[:]}
		if from.Seq == 0 {
			query = `INSERT INTO device_log (device, seq, head, anchor) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`
			args = args[:4]
		}
		res, err := tx.Exec(query, args...)
		if err != nil {
			return err
		}
		if err := one(res, devicelog.ErrChanged); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// AlarmLog implements devicelog.Store.
func (db *DB) AlarmLog(ctx context.Context, id string, seq uint64, fact ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`INSERT INTO device_log_alarm (device, seq) VALUES ($1, $2) ON CONFLICT DO NOTHING`, id, seq)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err
		}
		return tx.Append(fact)
	})
}

// Origin implements telemetry.Store.
func (db *DB) Origin(ctx context.Context, id string) (key crypto.PublicKey, place string, err error) {
	var spki []byte
	var product, group string
	err = db.Read().QueryRowContext(ctx, `SELECT attest_key, product, group_path FROM device WHERE id = $1`, id).Scan(&spki, &product, &group)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, "", noDevice(id)
	}
	if err != nil {
		return nil, "", db.dialect.Explain(err)
	}
	if key, err = x509.ParsePKIXPublicKey(spki); err != nil {
		return nil, "", fmt.Errorf("device %s: its recorded attestation key: %w", id, err)
	}
	return key, access.Join(product, group), nil
}
