package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Attest implements attest.Store.
type Attest struct{ db *DB }

// Attest gives the store of stage attest.
func (db *DB) Attest() *Attest { return &Attest{db} }

// Device implements attest.Store.
func (s *Attest) Device(ctx context.Context, id string) (device.Device, error) {
	return s.db.Devices().Device(ctx, id)
}

// PutVerdict implements attest.Store.
func (s *Attest) PutVerdict(ctx context.Context, v attest.Verdict, by []byte, fact ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		has, err := tx.there(`SELECT count(*) FROM device WHERE id = $1 AND attest_key = $2`, v.Device, by)
		if err != nil || !has {
			return cmp.Or(err, attest.ErrChanged)
		}
		if err := PutVerdict(tx, v); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// PutVerdict stores a verdict, which is the device's current one from now on unless there is a newer: two judgements may end in the other order. Its
// fact is the caller's.
func PutVerdict(tx *Tx, v attest.Verdict) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := tx.Of(v.Device).Exec(`INSERT INTO verdict (uid, device_id, at, status, doc) VALUES ($1, $2, $3, $4, $5)`,
		v.UID[:], v.Device, Millis(v.At), int(v.Status), string(doc)); err != nil {
		return err
	}
	res, err := tx.Of(v.Device).Exec(`INSERT INTO verdict_current (device_id, uid, at, status) VALUES ($1, $2, $3, $4)
			ON CONFLICT (device_id) DO UPDATE SET uid = excluded.uid, at = excluded.at, status = excluded.status WHERE verdict_current.at <= excluded.at`,
		v.Device, v.UID[:], Millis(v.At), int(v.Status))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	listed := listedVerdict(v.Status)
	turned, err := list(tx, v.Device, listed)
	if err != nil || turned {
		return err
	}
	return stirred(tx, v.Device)
}

// list has a device listed under another verdict. If it was not listed so before, it changed.
func list(tx *Tx, id string, t attest.Tier) (turned bool, err error) {
	res, err := tx.Of(id).Exec(`UPDATE device SET verdict = $1 WHERE id = $2 AND verdict <> $1`, int(t), id)
	if err != nil {
		return false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	return true, stir(tx, id)
}

// listedVerdict is the tier under which lists have a device: of those that have one word, one, and None for all that say nothing.
func listedVerdict(t attest.Tier) attest.Tier {
	switch t.String() {
	case attest.None.String(), "":
		return attest.None
	case attest.Contraindicated.String():
		return attest.Contraindicated
	}
	return t
}

func scanVerdict(row scanner) (attest.Verdict, error) {
	var v attest.Verdict
	var uid, doc []byte
	err := row.Scan(&uid, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return v, attest.ErrNotFound
	}
	if err != nil {
		return v, err
	}
	err = json.Unmarshal(doc, &v)
	copy(v.UID[:], uid)
	return v, err
}

// ReplaceKey implements attest.Store.
func (s *Attest) ReplaceKey(ctx context.Context, c attest.KeyChange, fact ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		sum := sha256.Sum256(c.To)
		known, err := tx.there(`SELECT (SELECT count(*) FROM production_record WHERE state = 'made' AND (identity = $1 OR attest = $1))
			+ (SELECT count(*) FROM former_key WHERE identity = $1 OR attest = $1) + (SELECT count(*) FROM former_attest WHERE attest = $1)
			+ (SELECT count(*) FROM device WHERE instance_id = $2)`, sum[:], instanceID(c.To))
		if err == nil && known {
			err = attest.ErrKeyKnown
		}
		if err != nil {
			return err
		}
		res, err := tx.Exec(`UPDATE device SET attest_key = $1, instance_id = $2 WHERE id = $3 AND attest_key = $4 AND identity = $5
			AND EXISTS (SELECT 1 FROM device_log l WHERE l.device = device.id AND l.seq > 0)`,
			c.To, instanceID(c.To), c.Device, c.From, c.Identity)
		if err != nil {
			return err
		}
		if err := one(res, attest.ErrChanged); err != nil {
			return err
		}
		if err := formerAttest(tx, c.Device, c.From, c.At); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// formerAttest remembers an attestation key (SPKI) that goes: it is nobody's any more.
func formerAttest(tx *Tx, device string, spki []byte, at time.Time) error {
	sum := sha256.Sum256(spki)
	_, err := tx.Exec(`INSERT INTO former_attest (attest, device, until) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, sum[:], device, Millis(at))
	return err
}

// replayAttestKey gives a device the attestation key that it changed to.
func replayAttestKey(tx *Tx, f ledger.Fact) (bool, error) {
	var have []byte
	err := tx.QueryRow(`SELECT attest_key FROM device WHERE id = $1`, f.Subject).Scan(&have)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	n, err := wire.OpenNewAttestKey(f.Data, have)
	if err != nil {
		return false, err
	}
	if bytes.Equal(n.New, have) {
		return false, nil
	}
	if err := formerAttest(tx, f.Subject, have, f.At); err != nil {
		return false, err
	}
	return did(tx.Exec(`UPDATE device SET attest_key = $1, instance_id = $2 WHERE id = $3`, n.New, instanceID(n.New), f.Subject))
}

// Verdict implements attest.Store.
func (s *Attest) Verdict(ctx context.Context, id string) (attest.Verdict, error) {
	return scanVerdict(s.db.Read().QueryRowContext(ctx,
		`SELECT v.uid, v.doc FROM verdict_current c JOIN verdict v ON v.uid = c.uid WHERE c.device_id = $1`, id))
}

// Verdicts implements attest.Store.
func (s *Attest) Verdicts(ctx context.Context, id string, limit int) ([]attest.Verdict, error) {
	return collect(ctx, s.db, scanVerdict, `SELECT uid, doc FROM verdict WHERE device_id = $1 ORDER BY at DESC LIMIT $2`, id, limit)
}
