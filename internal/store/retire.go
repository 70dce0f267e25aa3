package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/retire"
)

// Retirements keeps retirements: it implements retire.Store.
type Retirements struct{ db *DB }

// Retirements gives the store of stage retire.
func (db *DB) Retirements() *Retirements { return &Retirements{db} }

// PutRetirements implements retire.Store.
func (s *Retirements) PutRetirements(ctx context.Context, rs []retire.Retirement, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		for _, r := range rs {
			doc, err := json.Marshal(r)
			if err != nil {
				return err
			}
			res, err := tx.Exec(`INSERT INTO retirement (device_id, phase, open, warrant_uid, order_uid, end_uid, rev, doc)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (device_id) DO NOTHING`, r.Device, string(r.Phase), openRetirement(r),
				r.WarrantUID[:], r.OrderUID[:], r.EndUID[:], r.Rev, string(doc))
			if err != nil {
				return err
			}
			if err := one(res, retire.ErrExists); err != nil {
				return err
			}
		}
		return tx.Append(facts...)
	})
}

// openRetirement reports whether the server has something left to do by itself.
func openRetirement(r retire.Retirement) bool {
	switch r.Phase {
	case retire.Ordered:
		return true
	case retire.Wiped, retire.WrittenOff:
		return !r.Moved || !r.Revoked || !r.KeysGone
	case retire.Disposed:
		return !r.Settled
	case retire.Wiping:
	}
	return false
}

const retirementColumns = `SELECT device_id, warrant_uid, order_uid, end_uid, rev, doc FROM retirement`

func scanRetirement(row scanner) (retire.Retirement, error) {
	var r retire.Retirement
	var id, doc string
	var warrant, order, end []byte
	var rev int64
	err := row.Scan(&id, &warrant, &order, &end, &rev, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return r, retire.ErrNotFound
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(doc), &r); err != nil || len(warrant) != 16 || len(order) != 16 || len(end) != 16 || r.Device != id {
		return r, fmt.Errorf("stored retirement of device %s: %w", id, errors.Join(err, errDamaged))
	}
	r.WarrantUID, r.OrderUID, r.EndUID, r.Rev = [16]byte(warrant), [16]byte(order), [16]byte(end), rev
	return r, nil
}

// Retirement implements retire.Store.
func (s *Retirements) Retirement(ctx context.Context, device string) (retire.Retirement, error) {
	return scanRetirement(s.db.Read().QueryRowContext(ctx, retirementColumns+` WHERE device_id = $1`, device))
}

// OpenRetirements implements retire.Store.
func (s *Retirements) OpenRetirements(ctx context.Context) ([]retire.Retirement, error) {
	return collect(ctx, s.db, scanRetirement, retirementColumns+` WHERE open = 1 ORDER BY device_id`)
}

// Retirements implements retire.Store.
func (s *Retirements) Retirements(ctx context.Context, scope []string, after string, limit int) ([]retire.Retirement, error) {
	list, err := listOf(scope)
	if err != nil {
		return nil, err
	}
	return collect(ctx, s.db, scanRetirement, `SELECT r.device_id, r.warrant_uid, r.order_uid, r.end_uid, r.rev, r.doc FROM retirement r
		JOIN device d ON d.id = r.device_id WHERE`+inScope("d.product", "d.id")+` AND r.device_id > $2 ORDER BY r.device_id LIMIT $3`,
		list, after, atMost(limit))
}

// SaveRetirements implements retire.Store.
func (s *Retirements) SaveRetirements(ctx context.Context, rs []retire.Retirement, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		for _, r := range rs {
			doc, err := json.Marshal(r)
			if err != nil {
				return err
			}
			res, err := tx.Exec(`UPDATE retirement SET phase = $1, open = $2, end_uid = $3, rev = rev + 1, doc = $4 WHERE device_id = $5 AND rev = $6`,
				string(r.Phase), openRetirement(r), r.EndUID[:], string(doc), r.Device, r.Rev)
			if err != nil {
				return err
			}
			if err := one(res, retire.ErrChanged); err != nil {
				return err
			}
		}
		return tx.Append(facts...)
	})
}

// KnownWarrant implements retire.Store.
func (s *Retirements) KnownWarrant(ctx context.Context, id string) (device.Warrant, error) {
	var w device.Warrant
	var uid []byte
	var doc string
	err := s.db.Read().QueryRowContext(ctx, `SELECT uid, doc FROM warrant WHERE id = $1`, id).Scan(&uid, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return w, retire.ErrNotFound
	}
	if err != nil {
		return w, err
	}
	if err := json.Unmarshal([]byte(doc), &w.Wire); err != nil || len(uid) != 16 {
		return w, fmt.Errorf("stored warrant %s: %w", id, errors.Join(err, errDamaged))
	}
	w.UID = [16]byte(uid)
	return w, nil
}

// WipeCommand implements retire.Store.
func (s *Retirements) WipeCommand(ctx context.Context, warrant [16]byte) (retire.Command, error) {
	var c retire.Command
	var digest, uid []byte
	err := s.db.Read().QueryRowContext(ctx, `SELECT id, digest, uid FROM command WHERE warrant = $1 AND act = 'wipe'
		ORDER BY issued LIMIT 1`, warrant[:]).Scan(&c.ID, &digest, &uid)
	if errors.Is(err, sql.ErrNoRows) {
		return c, retire.ErrNotFound
	}
	if err != nil {
		return c, err
	}
	if len(digest) != 32 || len(uid) != 16 {
		return c, fmt.Errorf("stored command %s: %w", c.ID, errDamaged)
	}
	c.Digest, c.UID = [32]byte(digest), [16]byte(uid)
	return c, nil
}

// Life implements retire.Store.
func (s *Retirements) Life(ctx context.Context, device string) (retire.Life, error) {
	var l retire.Life
	var err error
	l.Facts, err = collect(ctx, s.db, scanLifeFact, `SELECT kind, uid FROM entry WHERE subject = $1
		AND kind IN ('device.provisioned', 'device.attest-key', 'cert.revoked', 'retire.wiped', 'retire.written-off', 'retire.disposed') ORDER BY id`, device)
	if err != nil {
		return l, err
	}
	o, err := scanOrder(s.db.Read().QueryRowContext(ctx, orderColumns+` WHERE id = (SELECT order_id FROM device WHERE id = $1)`, device))
	if errors.Is(err, factory.ErrNotFound) {
		return l, nil // its making cannot be proven: it can be written off
	}
	if err != nil {
		return l, err
	}
	_, key, err := s.db.orderSigner(ctx, o)
	if err != nil {
		return l, err
	}
	l.Station = o.RecordKey
	l.Facts = append(append(l.Facts, retire.LifeFact{Kind: ledger.KindOrderCreated, UID: o.UID}), key...)
	return l, err
}

func scanLifeFact(row scanner) (retire.LifeFact, error) {
	var f retire.LifeFact
	var uid []byte
	err := row.Scan(&f.Kind, &uid)
	if err == nil && len(uid) != 16 {
		err = errDamaged
	}
	if err == nil {
		f.UID = [16]byte(uid)
	}
	return f, err
}
