package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/owner"
)

// ownersActs are the acts that an owner's people command. What brings code or trust, and what contains or ends a device, goes on whoever
// owns it.
const ownersActs = `('attest', 'configure', 'dormant', 'wake', 'reset', 'adopt', 'disown')`

// ownRollout finds the open rollout of the device's owner that the device is in, or held for: one of the owner's group, or of one in it.
const ownRollout = `SELECT r.id FROM device d JOIN rollout r ON r.open = 1 AND r.product = d.product JOIN rollout_place x ON x.rollout_id = r.id AND x.device_id = d.id
	WHERE d.id = $1 AND (x.open = 1 OR x.mark = 'held') AND substr(r.place, 1, length(d.product) + 7) = d.product || '/owner/' ORDER BY r.id LIMIT 1`

// Begin implements owner.Transfers.
func (s *Owners) Begin(ctx context.Context, leaving []owner.Leaving, facts ...ledger.Fact) error {
	err := s.db.Write(ctx, func(tx *Tx) error {
		for _, l := range leaving {
			if err := leave(tx, l); err != nil {
				return err
			}
		}
		return tx.Append(facts...)
	})
	return err
}

// Purge implements owner.Transfers.
func (s *Owners) Purge(ctx context.Context) error {
	return s.db.dialect.Explain(s.db.dialect.Purge(ctx, s.db.read))
}

func leave(tx *Tx, l owner.Leaving) error {
	t := l.Transfer
	if t.Period > 0 {
		p, err := scanPeriod(tx.QueryRow(periodColumns+` WHERE device_id = $1 AND period = $2 AND ended = 0`, t.Device, t.Period))
		if errors.Is(err, sql.ErrNoRows) {
			return owner.ErrChanged
		}
		if err != nil {
			return err
		}
		p.Until, p.End = t.Begun, t.Kind
		if err := savePeriod(tx, p); err != nil {
			return err
		}
	}
	doc, err := json.Marshal(t)
	if err != nil {
		return err
	}
	res, err := tx.Exec(`INSERT INTO ownership_transfer (device_id, begun, open, uid, rev, doc) SELECT $1, $2, 1, $3, 1, $4
		WHERE NOT EXISTS (SELECT 1 FROM ownership_transfer o WHERE o.device_id = $1 AND o.open = 1)`, t.Device, Millis(t.Begun), t.BegunUID[:], string(doc))
	if err != nil {
		return err
	}
	if err := one(res, owner.ErrChanged); err != nil {
		return err
	}
	var rollout string
	if err := tx.QueryRow(ownRollout, t.Device).Scan(&rollout); !errors.Is(err, sql.ErrNoRows) {
		return cmp.Or(err, owner.ErrChanged)
	}
	if err := regroup(tx, t.Product, t.Device, l.From, "", time.Time{}); err != nil {
		return err
	}
	if !l.Stays {
		if err := setBase(tx, t.Device, l.Base, l.Legitimacy); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(`DELETE FROM claim_code WHERE device_id = $1`, t.Device); err != nil {
		return err
	}
	if l.Code != nil {
		if err := putCode(tx, t.Device, *l.Code, true, t.Begun); err != nil {
			return err
		}
	}
	return forgetOwned(tx, t.Device, t.Begun)
}

// GiveUp implements owner.Returns.
func (s *Owners) GiveUp(ctx context.Context, t owner.Transfer, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		if err := saveTransfer(tx, t); err != nil {
			return err
		}
		const ofIt = `device_id = $1 AND command_id IN (SELECT c.id FROM command c WHERE c.act = 'rehome' AND c.issued >= $2)`
		if _, err := tx.Exec(`UPDATE command_device SET state = 'cancelled', at = $3 WHERE `+ofIt+` AND state = 'pending'`, t.Device, Millis(t.Begun), Millis(t.GivenUp)); err != nil {
			return err
		}
		given, err := tx.there(`SELECT count(*) FROM command_device WHERE `+ofIt+` AND state IN ('delivered', 'done')`, t.Device, Millis(t.Begun))
		if err != nil || given {
			return cmp.Or(err, owner.ErrChanged)
		}
		if err := stay(tx, t); err != nil {
			return err
		}
		if err := reopenStreams(tx, t.Device); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// stay puts a device back where it was when its handover began.
func stay(tx *Tx, t owner.Transfer) error {
	var now string
	if err := tx.QueryRow(`SELECT group_path FROM device WHERE id = $1`, t.Device).Scan(&now); err != nil {
		return err
	}
	if t.Period == 0 {
		if now != "" || t.From == "" { // it was put elsewhere meanwhile
			return nil
		}
		return regroup(tx, t.Product, t.Device, "", t.From, time.Time{})
	}
	p, err := scanPeriod(tx.QueryRow(periodColumns+` WHERE device_id = $1 AND period = $2 AND ended = $3`, t.Device, t.Period, Millis(t.Begun)))
	if errors.Is(err, sql.ErrNoRows) {
		return owner.ErrChanged
	}
	if err != nil {
		return err
	}
	p.Until, p.End = time.Time{}, ""
	if err := savePeriod(tx, p); err != nil {
		return err
	}
	return regroup(tx, t.Product, t.Device, now, t.From, p.From)
}

// reopenStreams lets data in again, of epochs above those that were destroyed.
func reopenStreams(tx *Tx, id string) error {
	_, err := tx.Exec(`UPDATE stream_ended SET shut = 0 WHERE device = $1`, id)
	return err
}

// forgetOwned destroys what is kept of an owner's time: sealed data with its keys, settings, and commands that were not answered.
func forgetOwned(tx *Tx, id string, at time.Time) error {
	if _, err := tx.Exec(`INSERT INTO stream_ended (device, epoch, shut) SELECT $1, coalesce(max(e.epoch), 0), 1 FROM stream_epoch e WHERE e.device = $1
		ON CONFLICT (device) DO UPDATE SET shut = 1, epoch = CASE WHEN stream_ended.epoch > excluded.epoch THEN stream_ended.epoch ELSE excluded.epoch END`, id); err != nil {
		return err
	}
	if err := forgetStreams(tx, id); err != nil {
		return err
	}
	if _, err := tx.Exec(`UPDATE command_device SET state = 'cancelled', at = $1 WHERE device_id = $2 AND state IN ('pending', 'delivered')
		AND command_id IN (SELECT c.id FROM command c WHERE c.act IN `+ownersActs+`)`, Millis(at), id); err != nil {
		return err
	}
	return unset(tx, id)
}

// unset forgets what a device was configured with.
func unset(tx *Tx, id string) error {
	d, err := scanDevice(tx.QueryRow(`SELECT `+deviceColumns+` FROM device WHERE id = $1`, id))
	if err != nil {
		return err
	}
	d.Twin.Desired, d.Twin.Reported = nil, nil
	twin, kit, err := TwinRow(d.Twin)
	if err != nil {
		return err
	}
	if _, err = tx.Exec(`UPDATE device SET doc = $1, kit = $2 WHERE id = $3`, twin, kit, id); err != nil {
		return err
	}
	return stir(tx, id)
}

func scanTransfer(row scanner) (owner.Transfer, error) {
	var t owner.Transfer
	var id, doc string
	var uid []byte
	var rev int64
	err := row.Scan(&id, &uid, &rev, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return t, owner.ErrNotFound
	}
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal([]byte(doc), &t); err != nil || t.Device != id || len(uid) != 16 {
		return t, fmt.Errorf("stored transfer of device %s: %w", id, errors.Join(err, errDamaged))
	}
	t.BegunUID, t.Rev = [16]byte(uid), rev
	return t, nil
}

const transferColumns = `SELECT device_id, uid, rev, doc FROM ownership_transfer`

// Transfer implements owner.Transfers.
func (s *Owners) Transfer(ctx context.Context, id string) (owner.Transfer, error) {
	return scanTransfer(s.db.Read().QueryRowContext(ctx, transferColumns+` WHERE device_id = $1 ORDER BY begun DESC LIMIT 1`, id))
}

// OpenTransfers implements owner.Transfers.
func (s *Owners) OpenTransfers(ctx context.Context, after string, limit int) ([]owner.Transfer, error) {
	return collect(ctx, s.db, scanTransfer, transferColumns+` WHERE open = 1 AND device_id > $1 ORDER BY device_id LIMIT $2`, after, limit)
}

// SaveTransfer implements owner.Transfers.
func (s *Owners) SaveTransfer(ctx context.Context, t owner.Transfer) error {
	return s.db.Write(ctx, func(tx *Tx) error { return saveTransfer(tx, t) })
}

func saveTransfer(tx *Tx, t owner.Transfer) error {
	doc, err := json.Marshal(t)
	if err != nil {
		return err
	}
	res, err := tx.Exec(`UPDATE ownership_transfer SET open = $1, rev = rev + 1, doc = $2 WHERE device_id = $3 AND begun = $4 AND rev = $5`,
		t.Done.IsZero(), string(doc), t.Device, Millis(t.Begun), t.Rev)
	if err != nil {
		return err
	}
	return one(res, owner.ErrChanged)
}

// Finish implements owner.Transfers.
func (s *Owners) Finish(ctx context.Context, t owner.Transfer, epoch uint64, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		if err := saveTransfer(tx, t); err != nil {
			return err
		}
		if err := unset(tx, t.Device); err != nil { // what it was told before, it may have answered since
			return err
		}
		if err := endEpochs(tx, t.Device, epoch); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// endEpochs lets data of epochs above epoch in again.
func endEpochs(tx *Tx, id string, epoch uint64) error {
	_, err := tx.Exec(`INSERT INTO stream_ended (device, epoch, shut) VALUES ($1, $2, 0) ON CONFLICT (device) DO UPDATE SET shut = 0,
		epoch = CASE WHEN stream_ended.epoch > excluded.epoch THEN stream_ended.epoch ELSE excluded.epoch END`, id, int64(epoch))
	return err
}

// Weight implements owner.Transfers.
func (s *Owners) Weight(ctx context.Context, id string) (w owner.Weight, err error) {
	err = s.db.Read().QueryRowContext(ctx, `SELECT coalesce((`+ownRollout+`), ''),
		(SELECT count(*) FROM command_device x JOIN command c ON c.id = x.command_id WHERE x.device_id = $1 AND x.state IN ('pending', 'delivered')
			AND c.ended = 0 AND c.act IN `+ownersActs+`),
		(SELECT count(*) FROM stream_epoch WHERE device = $1), (SELECT count(*) FROM stream_record WHERE device = $1)`, id).
		Scan(&w.Rollout, &w.Commands, &w.Epochs, &w.Records)
	return w, s.db.dialect.Explain(err)
}

// setBase sets what a device will be without its marks, and what it is; what has been stolen meanwhile is not handed on.
func setBase(tx *Tx, id string, base, is device.Legitimacy) error {
	marks, err := saidOf(tx, id)
	if err != nil {
		return err
	}
	if len(marks) > 0 && marks[0].Recall == "" {
		return owner.ErrChanged
	}
	if len(marks) > 0 {
		is = with(marks, base)
	}
	for _, m := range marks {
		m.Was = base
		if err := putMark(tx, m, true); err != nil {
			return err
		}
	}
	if _, err = tx.Exec(`UPDATE device SET legitimacy = $1 WHERE id = $2`, string(is), id); err != nil {
		return err
	}
	return stir(tx, id)
}
