package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/devicelog"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

func noDevice(id string) error {
	return fault.New(fault.NotFound, "device.unknown", fmt.Sprintf("device %q is not registered", id),
		"a device is registered when its production record is imported")
}

// LogHead implements devicelog.Store.
func (db *DB) LogHead(ctx context.Context, id string) (h devicelog.Head, attest []byte, err error) {
	var head, anchor []byte
	var seq, heard sql.NullInt64
	err = db.Read().QueryRowContext(ctx, `SELECT d.attest_key, l.seq, l.head, l.anchor, coalesce(l.boots, 0), coalesce(l.counter, 0),
		l.heard, coalesce(l.gaps, 0), coalesce(l.lost, 0), coalesce(l.unexplained, 0) FROM device d
		LEFT JOIN device_log l ON l.device = d.id WHERE d.id = $1`, id).Scan(&attest, &seq, &head, &anchor, &h.Boots, &h.Counter,
		&heard, &h.Tally.Gaps, &h.Tally.Lost, &h.Tally.Unexplained)
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
	h.Seq, h.Head, h.Anchor, h.Heard = uint64(seq.Int64), [32]byte(head), [16]byte(anchor), Time(heard.Int64)
	return h, attest, nil
}

// lookBack is how many of a device's newest batches are looked through for an old head.
const lookBack = 64

// LoggedHead implements devicelog.Store.
func (db *DB) LoggedHead(ctx context.Context, id string, seq uint64) (head [32]byte, ok bool, err error) {
	batches, err := collect(ctx, db, scanBatch, `SELECT data FROM entry WHERE subject = $1 AND kind = $2 ORDER BY id DESC LIMIT $3`,
		id, string(ledger.KindDeviceLogAnchored), lookBack)
	if err != nil {
		return head, false, err
	}
	for _, b := range batches {
		if head, ok := b.HeadAt(seq); ok {
			return head, true, nil
		}
	}
	return head, false, nil
}

func scanBatch(row scanner) (wire.LogBatch, error) {
	var data []byte
	if err := row.Scan(&data); err != nil {
		return wire.LogBatch{}, err
	}
	f, err := wire.DecodeFact(data)
	if err != nil {
		return wire.LogBatch{}, err
	}
	o, err := wire.Parse1(wire.TypeDeviceLog, f.Data)
	if err != nil {
		return wire.LogBatch{}, err
	}
	return wire.DecodeLogBatch(o.Payload)
}

// AdvanceLog implements devicelog.Store.
func (db *DB) AdvanceLog(ctx context.Context, id string, from, to devicelog.Head, facts ...ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		query := `UPDATE device_log SET seq = $2, head = $3, anchor = $4, boots = $5, counter = $6, heard = $7, gaps = $8, lost = $9,
			unexplained = $10 WHERE device = $1 AND seq = $11 AND head = $12`
		args := []any{
			id, to.Seq, to.Head[:], to.Anchor[:], to.Boots, to.Counter, Millis(to.Heard), to.Tally.Gaps, to.Tally.Lost, to.Tally.Unexplained,
			from.Seq, from.Head[:],
		}
		if from.Seq == 0 {
			query = `INSERT INTO device_log (device, seq, head, anchor, boots, counter, heard, gaps, lost, unexplained)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING`
			args = args[:10]
		}
		res, err := tx.Exec(query, args...)
		if err != nil {
			return err
		}
		if err := one(res, devicelog.ErrChanged); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// HeardLog implements devicelog.Store. A device that has never sent an event has no row, and so was never heard of.
func (db *DB) HeardLog(ctx context.Context, id string, h devicelog.Head) error {
	return db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`UPDATE device_log SET boots = $2, counter = $3, heard = $4 WHERE device = $1 AND boots <= $2 AND seq = $5`,
			id, h.Boots, h.Counter, Millis(h.Heard), h.Seq)
		return err
	})
}

// fleetLog gives what a device's own log amounts to.
func (db *DB) fleetLog(ctx context.Context, id string) (l fleet.DeviceLog, err error) {
	h, _, err := db.LogHead(ctx, id)
	if err != nil {
		return l, err
	}
	l = fleet.DeviceLog{Events: h.Seq, Gaps: h.Tally.Gaps, Lost: h.Tally.Lost, Unexplained: h.Tally.Unexplained, Bound: h.Counter > 0}
	if h.Seq > 0 {
		l.Head, l.Heard = fmt.Sprintf("%x", h.Head), timeOrNil(Millis(h.Heard))
	}
	err = db.Read().QueryRowContext(ctx, `SELECT count(*) FROM device_log_alarm WHERE device = $1`, id).Scan(&l.Contradictions)
	return l, db.dialect.Explain(err)
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
func (db *DB) Origin(ctx context.Context, id string) (o telemetry.Origin, err error) {
	var spki []byte
	var product, group string
	var owned int64
	err = db.Read().QueryRowContext(ctx, `SELECT attest_key, product, group_path, owned_since FROM device WHERE id = $1`, id).Scan(&spki, &product, &group, &owned)
	if errors.Is(err, sql.ErrNoRows) {
		return o, noDevice(id)
	}
	if err != nil {
		return o, db.dialect.Explain(err)
	}
	if len(spki) == 0 { // another maker's that never enrolled, or a client that has none
		o.Place, o.Owned = access.Join(product, group), Time(owned)
		return o, nil
	}
	if o.Key, err = wire.ParseKey(spki); err != nil {
		return o, fmt.Errorf("device %s: its recorded attestation key: %w", id, err)
	}
	o.Place, o.Owned = access.Join(product, group), Time(owned)
	return o, nil
}
