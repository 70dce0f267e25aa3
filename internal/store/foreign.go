package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/pki"
)

// Foreign implements foreign.Store.
type Foreign struct{ db *DB }

// Foreign gives the store of other makers' CAs and devices.
func (db *DB) Foreign() Foreign { return Foreign{db} }

// AddCA implements foreign.Store. One that was ended may be believed again.
func (s Foreign) AddCA(ctx context.Context, c foreign.CA, facts ...ledger.Fact) error {
	doc, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		if err := putForeignCA(tx, c, doc); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

func putForeignCA(tx *Tx, c foreign.CA, doc []byte) error {
	res, err := tx.Exec(`INSERT INTO foreign_ca (id, product, at, doc) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE SET
		product = excluded.product, at = excluded.at, ended = 0, doc = excluded.doc WHERE foreign_ca.ended > 0`, c.ID, c.Product, Millis(c.At), string(doc))
	if err != nil {
		return err
	}
	return one(res, foreign.ErrExists)
}

// EndCA implements foreign.Store.
func (s Foreign) EndCA(ctx context.Context, id string, at time.Time, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE foreign_ca SET ended = $1 WHERE id = $2 AND ended = 0`, Millis(at), id)
		if err != nil {
			return err
		}
		if err := one(res, foreign.ErrNotFound); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// CAs implements foreign.Store.
func (s Foreign) CAs(ctx context.Context) ([]foreign.CA, error) {
	return collect(ctx, s.db, func(row scanner) (c foreign.CA, err error) {
		var doc string
		var ended int64
		if err := row.Scan(&doc, &ended, &c.Devices); err != nil {
			return c, err
		}
		n := c.Devices
		if err := json.Unmarshal([]byte(doc), &c); err != nil {
			return c, fmt.Errorf("stored foreign CA: %w", err)
		}
		c.Ended, c.Devices = Time(ended), n
		return c, nil
	}, `SELECT c.doc, c.ended, (SELECT count(*) FROM foreign_device d WHERE d.ca = c.id) FROM foreign_ca c ORDER BY c.at DESC, c.id`)
}

// Take implements foreign.Store.
func (s Foreign) Take(ctx context.Context, batch []foreign.Entry, facts []ledger.Fact, dry bool) ([]foreign.Outcome, error) {
	out := make([]foreign.Outcome, len(batch))
	if dry {
		seen := map[[2]string]bool{}
		for i, e := range batch {
			o, err := standingOf(s.db.Read().QueryRowContext(ctx, foreignRef, e.Kind, e.Of), e)
			if err != nil {
				return nil, s.db.dialect.Explain(err)
			}
			if ref := [2]string{e.Kind, e.Of}; o == foreign.Taken && seen[ref] {
				o = foreign.Known
			} else {
				seen[ref] = true
			}
			out[i] = o
		}
		return out, nil
	}
	return out, s.db.Write(ctx, func(tx *Tx) error {
		for i, e := range batch {
			o, err := standingOf(tx.QueryRow(foreignRef, e.Kind, e.Of), e)
			if err != nil {
				return err
			}
			if out[i] = o; o != foreign.Taken {
				continue
			}
			taken, err := putForeign(tx, e, facts[i].At)
			if err != nil {
				return err
			}
			if !taken {
				out[i] = foreign.Other
				continue
			}
			if err := tx.Append(facts[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

const foreignRef = `SELECT f.device FROM foreign_device f WHERE f.kind = $1 AND f.ref = $2`

// standingOf says what an entry would become, given the row of its reference.
func standingOf(row scanner, e foreign.Entry) (foreign.Outcome, error) {
	var id string
	err := row.Scan(&id)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return foreign.Taken, nil
	case err != nil:
		return "", err
	case id == e.Device:
		return foreign.Known, nil
	}
	return foreign.Other, nil
}

// putForeign registers a device; not, when a device has its ID already.
func putForeign(tx *Tx, e foreign.Entry, at time.Time) (bool, error) {
	twin, kit, err := TwinRow(device.Twin{})
	if err != nil {
		return false, err
	}
	res, err := tx.Exec(`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, identity, key_origin, is_virtual, since, doc, kit)
		VALUES ($1, $2, $3, $4, $5, '', '', 0, $6, $7, $8, $9, $10, $11) ON CONFLICT (id) DO NOTHING`, e.Device, e.Product, e.Hardware, string(device.Provisioned),
		string(device.Imported), notEmpty(e.Key), device.OriginImported, false, Millis(at), twin, kit)
	if err != nil {
		return false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	if _, err = tx.Exec(`INSERT INTO foreign_device (device, kind, ref, name, ca, format) VALUES ($1, $2, $3, $4, $5, $6)`,
		e.Device, e.Kind, e.Of, e.Name, e.CA, string(e.Format)); err != nil {
		return false, err
	}
	return true, stir(tx, e.Device)
}

// Arrive implements foreign.Store.
func (s Foreign) Arrive(ctx context.Context, a foreign.Arrival, fact ledger.Fact) (out foreign.Outcome, err error) {
	e := foreign.Entry{
		Device: a.Device, Product: a.Product, Hardware: a.Hardware, Kind: pki.ForeignCert, Of: hex.EncodeToString(a.Certificate), Key: a.Identity, Format: foreign.Custody,
	}
	return out, s.db.Write(ctx, func(tx *Tx) error {
		if out, err = standingOf(tx.QueryRow(foreignRef, e.Kind, e.Of), e); err != nil || out != foreign.Taken {
			return err
		}
		taken, err := putForeign(tx, e, a.At)
		if err != nil {
			return err
		}
		if !taken {
			out = foreign.Other
			return nil
		}
		sum := sha256.Sum256(a.Attest)
		res, err := tx.Exec(`UPDATE device SET attest_key = $1, instance_id = $2, key_origin = $3, is_virtual = $4, made = $5 WHERE id = $6`,
			a.Attest, append([]byte{1}, sum[:]...), a.KeyOrigin, a.Virtual, Millis(a.Made), a.Device)
		if err != nil {
			return err
		}
		if err := one(res, foreign.ErrNotFound); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// notEmpty is NULL for what is not known.
func notEmpty(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// Find implements foreign.Store.
func (s Foreign) Find(ctx context.Context, refs [][2]string) (e foreign.Entry, err error) {
	var where []string
	var args []any
	for i, r := range refs {
		where = append(where, fmt.Sprintf(`(f.kind = $%d AND f.ref = $%d)`, 2*i+1, 2*i+2))
		args = append(args, r[0], r[1])
	}
	if len(where) == 0 {
		return e, foreign.ErrNotFound
	}
	err = s.db.Read().QueryRowContext(ctx, `SELECT f.device, d.product, d.hardware, f.name, f.kind, f.ref, f.ca, f.format FROM foreign_device f
		JOIN device d ON d.id = f.device WHERE `+strings.Join(where, ` OR `)+` ORDER BY f.kind LIMIT 1`, args...).
		Scan(&e.Device, &e.Product, &e.Hardware, &e.Name, &e.Kind, &e.Of, &e.CA, &e.Format)
	if errors.Is(err, sql.ErrNoRows) {
		return e, foreign.ErrNotFound
	}
	return e, s.db.dialect.Explain(err)
}

// Bind implements foreign.Store.
func (s Foreign) Bind(ctx context.Context, id string, key []byte) (bool, error) {
	var has bool
	err := s.db.Read().QueryRowContext(ctx, `SELECT identity IS NOT NULL FROM device WHERE id = $1`, id).Scan(&has)
	if errors.Is(err, sql.ErrNoRows) {
		return false, foreign.ErrNotFound
	}
	if err != nil || has {
		return false, s.db.dialect.Explain(err)
	}
	return true, s.db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`UPDATE device SET identity = $1 WHERE id = $2 AND identity IS NULL`, key, id)
		return err
	})
}
