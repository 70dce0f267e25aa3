package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/wire"
)

// Owners keeps whom devices belong to: it implements the stores of stage owner.
type Owners struct{ db *DB }

// Owners gives the stores of stage owner.
func (db *DB) Owners() *Owners { return &Owners{db} }

// OwnerPlaces implements signin.OwnerStore.
func (db *DB) OwnerPlaces(ctx context.Context, id string) ([]string, error) {
	var ended int64
	err := db.Read().QueryRowContext(ctx, `SELECT ended FROM owner WHERE id = $1`, id).Scan(&ended)
	if errors.Is(err, sql.ErrNoRows) || err == nil && ended != 0 {
		return nil, signin.ErrNoOwner
	}
	if err != nil {
		return nil, db.dialect.Explain(err)
	}
	return collect(ctx, db, scanID, `SELECT g.path FROM product p JOIN group_size g ON g.path = p.id || '/' || $1 ORDER BY g.path`, access.OwnerGroup(id))
}

const ownerColumns = `SELECT o.id, o.rev, o.doc, (SELECT count(*) FROM ownership p WHERE p.owner = o.id AND p.ended = 0) FROM owner o`

func scanOwner(row scanner) (owner.Owner, error) {
	var o owner.Owner
	var id, doc string
	var rev int64
	var devices int
	err := row.Scan(&id, &rev, &doc, &devices)
	if errors.Is(err, sql.ErrNoRows) {
		return o, owner.ErrNotFound
	}
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal([]byte(doc), &o); err != nil || o.ID != id {
		return o, fmt.Errorf("stored owner %s: %w", id, errors.Join(err, errDamaged))
	}
	o.Rev, o.Devices = rev, devices
	return o, nil
}

// PutOwner implements owner.Store.
func (s *Owners) PutOwner(ctx context.Context, o owner.Owner, facts ...ledger.Fact) error {
	doc, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`INSERT INTO owner (id, ended, rev, doc) VALUES ($1, $2, 1, $3)`, o.ID, Millis(o.Ended), string(doc)); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// Owner implements owner.Store.
func (s *Owners) Owner(ctx context.Context, id string) (owner.Owner, error) {
	return scanOwner(s.db.Read().QueryRowContext(ctx, ownerColumns+` WHERE o.id = $1`, id))
}

// Owners implements owner.Store.
func (s *Owners) Owners(ctx context.Context, after string, limit int) ([]owner.Owner, error) {
	return collect(ctx, s.db, scanOwner, ownerColumns+` WHERE o.id > $1 ORDER BY o.id LIMIT $2`, after, limit)
}

// EndOwner implements owner.Store.
func (s *Owners) EndOwner(ctx context.Context, o owner.Owner, facts ...ledger.Fact) error {
	doc, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE owner SET ended = $1, rev = rev + 1, doc = $2 WHERE id = $3 AND rev = $4
			AND NOT EXISTS (SELECT 1 FROM ownership p WHERE p.owner = $3 AND p.ended = 0)`, Millis(o.Ended), string(doc), o.ID, o.Rev)
		if err != nil {
			return err
		}
		if err := one(res, owner.ErrChanged); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

const periodColumns = `SELECT device_id, period, rev, doc FROM ownership`

func scanPeriod(row scanner) (owner.Period, error) {
	var p owner.Period
	var id, doc string
	var n int
	var rev int64
	if err := row.Scan(&id, &n, &rev, &doc); err != nil {
		return p, err
	}
	if err := json.Unmarshal([]byte(doc), &p); err != nil || p.Device != id || p.Number != n {
		return p, fmt.Errorf("stored ownership of device %s: %w", id, errors.Join(err, errDamaged))
	}
	p.Rev = rev
	return p, nil
}

// Lineage implements owner.Store.
func (s *Owners) Lineage(ctx context.Context, device string) ([]owner.Period, error) {
	return collect(ctx, s.db, scanPeriod, periodColumns+` WHERE device_id = $1 ORDER BY period`, device)
}

// Unheld implements owner.Store.
func (s *Owners) Unheld(ctx context.Context) ([]owner.Period, error) {
	return collect(ctx, s.db, scanPeriod, periodColumns+` WHERE waits = 1 ORDER BY device_id, period`)
}

// waits reports whether a device has yet to say that it defends its owner.
func waits(p owner.Period) bool { return len(p.Key) > 0 && !p.Holds && p.Until.IsZero() }

// SavePeriod implements owner.Store.
func (s *Owners) SavePeriod(ctx context.Context, p owner.Period) error {
	return s.db.Write(ctx, func(tx *Tx) error { return savePeriod(tx, p) })
}

func savePeriod(tx *Tx, p owner.Period) error {
	doc, err := json.Marshal(p)
	if err != nil {
		return err
	}
	res, err := tx.Exec(`UPDATE ownership SET ended = $1, waits = $2, rev = rev + 1, doc = $3 WHERE device_id = $4 AND period = $5 AND rev = $6`,
		Millis(p.Until), waits(p), string(doc), p.Device, p.Number, p.Rev)
	if err != nil {
		return err
	}
	return one(res, owner.ErrChanged)
}

// Unclaimed implements owner.Codes.
func (s *Owners) Unclaimed(ctx context.Context, product, order string, ids []string, after string, limit int) ([]string, error) {
	list, err := listOf(ids)
	if err != nil {
		return nil, err
	}
	return collect(ctx, s.db, scanID, `SELECT d.id FROM device d WHERE d.product = $1 AND ($2 = '' OR d.order_id = $2)
		AND ($3 = '[]' OR d.id IN (SELECT l.value FROM list($3) AS l)) AND d.id > $4 AND d.owned_since = 0
		AND d.state NOT IN `+retiring+`
		AND NOT EXISTS (SELECT 1 FROM ownership_transfer t WHERE t.device_id = d.id AND t.open = 1)
		ORDER BY d.id LIMIT $5`, product, order, list, after, limit)
}

// PutCodes implements owner.Codes.
func (s *Owners) PutCodes(ctx context.Context, hashes map[string][32]byte, at time.Time, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		for id, h := range hashes {
			// A code for who has an owner would let the next one in without a transfer.
			free, err := tx.there(`SELECT count(*) FROM device d WHERE d.id = $1 AND d.owned_since = 0
				AND NOT EXISTS (SELECT 1 FROM ownership_transfer t WHERE t.device_id = d.id AND t.open = 1)`, id)
			if err == nil && !free {
				err = owner.ErrChanged
			}
			if err != nil {
				return err
			}
			if err := putCode(tx, id, h, false, at); err != nil {
				return err
			}
		}
		return tx.Append(facts...)
	})
}

func putCode(tx *Tx, id string, hash [32]byte, transfer bool, at time.Time) error {
	_, err := tx.Exec(`INSERT INTO claim_code (device_id, hash, transfer, made) VALUES ($1, $2, $3, $4) ON CONFLICT (device_id)
		DO UPDATE SET hash = excluded.hash, transfer = excluded.transfer, made = excluded.made`, id, hash[:], transfer, Millis(at))
	return err
}

// Code implements owner.Codes.
func (s *Owners) Code(ctx context.Context, device string) (hash [32]byte, transfer bool, err error) {
	var h []byte
	err = s.db.Read().QueryRowContext(ctx, `SELECT hash, transfer FROM claim_code WHERE device_id = $1`, device).Scan(&h, &transfer)
	if errors.Is(err, sql.ErrNoRows) {
		return hash, false, owner.ErrNotFound
	}
	if err == nil && len(h) != len(hash) {
		err = errDamaged
	}
	copy(hash[:], h)
	return hash, transfer, s.db.dialect.Explain(err)
}

// Claim implements owner.Codes.
func (s *Owners) Claim(ctx context.Context, p owner.Period, hash [32]byte, product, from, group string, facts ...ledger.Fact) error {
	doc, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`DELETE FROM claim_code WHERE device_id = $1 AND hash = $2
			AND NOT EXISTS (SELECT 1 FROM ownership_transfer t WHERE t.device_id = $1 AND t.open = 1)
			AND NOT EXISTS (SELECT 1 FROM ownership o WHERE o.device_id = $1 AND o.ended = 0)
			AND EXISTS (SELECT 1 FROM owner w WHERE w.id = $3 AND w.ended = 0)
			AND NOT EXISTS (SELECT 1 FROM device d WHERE d.id = $1 AND d.legitimacy = 'stolen')`, p.Device, hash[:], p.Owner)
		if err != nil {
			return err
		}
		if err := one(res, owner.ErrChanged); err != nil {
			return err
		}
		if err := regroup(tx, product, p.Device, from, group, p.From); err != nil {
			return err
		}
		if p.Number > 1 { // what a check-in that was under way brought back of the owner before
			if err := unset(tx, p.Device); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(`INSERT INTO ownership (device_id, period, owner, began, ended, waits, rev, doc) VALUES ($1, $2, $3, $4, 0, $5, 1, $6)`,
			p.Device, p.Number, p.Owner, Millis(p.From), waits(p), string(doc)); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// regroup takes a device from one group to another, where it is owned since; zero: by nobody.
func regroup(tx *Tx, product, id, from, to string, since time.Time) error {
	res, err := tx.Exec(`UPDATE device SET group_path = $1, owned_since = $2 WHERE id = $3 AND group_path = $4`, to, Millis(since), id, from)
	if err != nil {
		return err
	}
	if err := one(res, owner.ErrChanged); err != nil {
		return err
	}
	for _, path := range access.Paths(product, from)[1:] {
		if err := leaveGroup(tx, path, id); err != nil {
			return err
		}
	}
	for _, path := range access.Paths(product, to)[1:] {
		if err := JoinGroup(tx, path, id); err != nil {
			return err
		}
	}
	return stir(tx, id)
}

// KnownWarrant implements owner.Warrants.
func (s *Owners) KnownWarrant(ctx context.Context, id string) (device.Warrant, []string, error) {
	var w device.Warrant
	var uid []byte
	var doc string
	err := s.db.Read().QueryRowContext(ctx, `SELECT uid, doc FROM warrant WHERE id = $1`, id).Scan(&uid, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return w, nil, device.ErrNotFound
	}
	if err != nil {
		return w, nil, s.db.dialect.Explain(err)
	}
	if err := json.Unmarshal([]byte(doc), &w.Wire); err != nil || len(uid) != 16 {
		return w, nil, fmt.Errorf("stored warrant %s: %w", id, errors.Join(err, errDamaged))
	}
	w.UID = [16]byte(uid)
	ids, err := s.db.Devices().WarrantDevices(ctx, w.UID)
	return w, ids, err
}

// Answer implements owner.Transfers.
func (s *Owners) Answer(ctx context.Context, id string, act wire.Act, since time.Time) (device.CommandDevice, error) {
	c, err := commandDevices(time.Now())(s.db.Read().QueryRowContext(ctx, commandDeviceQuery+` WHERE x.device_id = $1 AND c.act = $2 AND c.issued >= $3
		ORDER BY c.issued DESC, c.id LIMIT 1`, id, string(act), Millis(since)))
	if errors.Is(err, sql.ErrNoRows) {
		return c, owner.ErrNotFound
	}
	return c, err
}
