package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
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
func (s *Attest) PutVerdict(ctx context.Context, v attest.Verdict, fact ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		if err := PutVerdict(tx, v); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// PutVerdict stores the verdict that is a device's current one from now on. Its fact is the caller's.
func PutVerdict(tx *Tx, v attest.Verdict) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(`INSERT INTO verdict (uid, device_id, at, status, doc) VALUES ($1, $2, $3, $4, $5)`,
		v.UID[:], v.Device, Millis(v.At), int(v.Status), string(doc)); err != nil {
		return err
	}
	if _, err := tx.Exec(`INSERT INTO verdict_current (device_id, uid, at, status) VALUES ($1, $2, $3, $4)
			ON CONFLICT (device_id) DO UPDATE SET uid = excluded.uid, at = excluded.at, status = excluded.status`,
		v.Device, v.UID[:], Millis(v.At), int(v.Status)); err != nil {
		return err
	}
	listed := listedVerdict(v.Status)
	_, err = tx.Exec(`UPDATE device SET verdict = $1 WHERE id = $2 AND verdict <> $1`, int(listed), v.Device)
	return err
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

// Verdict implements attest.Store.
func (s *Attest) Verdict(ctx context.Context, id string) (attest.Verdict, error) {
	return scanVerdict(s.db.Read().QueryRowContext(ctx,
		`SELECT v.uid, v.doc FROM verdict_current c JOIN verdict v ON v.uid = c.uid WHERE c.device_id = $1`, id))
}

// Verdicts implements attest.Store.
func (s *Attest) Verdicts(ctx context.Context, id string, limit int) ([]attest.Verdict, error) {
	return collect(ctx, s.db, scanVerdict, `SELECT uid, doc FROM verdict WHERE device_id = $1 ORDER BY at DESC LIMIT $2`, id, limit)
}
