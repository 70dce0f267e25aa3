package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/factory/chips"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Chips implements chips.Store.
type Chips struct{ db *DB }

// Chips gives the store of chips that came with keys.
func (db *DB) Chips() Chips { return Chips{db} }

// PutVendor implements chips.Store.
func (s Chips) PutVendor(ctx context.Context, v chips.Vendor, facts ...ledger.Fact) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`INSERT INTO chip_vendor (id, doc) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET ended = 0, doc = excluded.doc`,
			v.ID, string(doc)); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// EndVendor implements chips.Store.
func (s Chips) EndVendor(ctx context.Context, id string, at time.Time, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE chip_vendor SET ended = $1 WHERE id = $2 AND ended = 0`, Millis(at), id)
		if err != nil {
			return err
		}
		if err := one(res, chips.ErrNotFound); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// Vendors implements chips.Store.
func (s Chips) Vendors(ctx context.Context) ([]chips.Vendor, error) {
	return collect(ctx, s.db, func(row scanner) (v chips.Vendor, err error) {
		var known, used int
		v, err = scanVendor(row, &known, &used)
		v.Chips, v.Used = known, used
		return v, err
	}, `SELECT v.doc, v.ended, (SELECT count(*) FROM chip c WHERE c.vendor = v.id),
		(SELECT count(*) FROM chip c JOIN production_record r ON r.chip = c.uid AND r.state = 'made' WHERE c.vendor = v.id)
		FROM chip_vendor v ORDER BY v.id`)
}

// Vendor implements chips.Store.
func (s Chips) Vendor(ctx context.Context, id string) (chips.Vendor, error) {
	v, err := scanVendor(s.db.Read().QueryRowContext(ctx, `SELECT doc, ended FROM chip_vendor WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return v, chips.ErrNotFound
	}
	return v, s.db.dialect.Explain(err)
}

// scanVendor reads a vendor, and into more what else its row has.
func scanVendor(row scanner, more ...any) (v chips.Vendor, err error) {
	var doc string
	var ended int64
	if err := row.Scan(append([]any{&doc, &ended}, more...)...); err != nil {
		return v, err
	}
	if err := json.Unmarshal([]byte(doc), &v); err != nil {
		return v, fmt.Errorf("stored chip vendor: %w", err)
	}
	v.Ended = Time(ended)
	return v, nil
}

// Take implements chips.Store.
func (s Chips) Take(ctx context.Context, batch []chips.Chip, fact func([]chips.Chip) (ledger.Fact, error)) ([]chips.Standing, error) {
	out := make([]chips.Standing, len(batch))
	return out, s.db.Write(ctx, func(tx *Tx) error {
		var taken []chips.Chip
		for i, c := range batch {
			st, err := takeChip(tx, c)
			if err != nil {
				return err
			}
			if out[i] = st; st == chips.Taken {
				taken = append(taken, c)
			}
		}
		if len(taken) == 0 {
			return nil
		}
		f, err := fact(taken)
		if err != nil {
			return err
		}
		return tx.Append(f)
	})
}

func takeChip(tx *Tx, c chips.Chip) (chips.Standing, error) {
	uid, err := hex.DecodeString(c.UID)
	if err != nil {
		return "", fmt.Errorf("chip %q: %w", c.UID, err)
	}
	doc, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	var had []byte
	err = tx.QueryRow(`SELECT entry FROM chip WHERE uid = $1`, uid).Scan(&had)
	switch {
	case err == nil && bytes.Equal(had, c.Entry):
		return chips.Known, nil
	case err == nil:
		return chips.Other, nil
	case !errors.Is(err, sql.ErrNoRows):
		return "", err
	}
	_, err = tx.Exec(`INSERT INTO chip (uid, vendor, entry, keys, doc) VALUES ($1, $2, $3, $4, $5)`, uid, c.Vendor, c.Entry, bytes.Join(c.Keys, nil), string(doc))
	return chips.Taken, err
}

// Chip implements chips.Store.
func (s Chips) Chip(ctx context.Context, uid string) (c chips.Chip, err error) {
	id, err := hex.DecodeString(uid)
	if err != nil {
		return c, chips.ErrNotFound
	}
	var doc string
	var order, device sql.NullString
	err = s.db.Read().QueryRowContext(ctx, `SELECT c.doc, r.order_id, r.device FROM chip c
		LEFT JOIN production_record r ON r.chip = c.uid AND r.state = 'made' WHERE c.uid = $1`, id).Scan(&doc, &order, &device)
	if errors.Is(err, sql.ErrNoRows) {
		return c, chips.ErrNotFound
	}
	if err != nil {
		return c, s.db.dialect.Explain(err)
	}
	err = json.Unmarshal([]byte(doc), &c)
	c.Order, c.Device = order.String, device.String
	return c, err
}

// injected says why a record's piece is not one of the vendor's chips that its order demands, or that it cannot be told yet, because the chip is in no
// manifest that is here.
func injected(tx *Tx, c factory.Candidate) (bad, waits string, err error) {
	if c.Outcome != wire.Made || c.Chips == "" {
		return "", "", nil
	}
	var vendor string
	var keys []byte
	err = tx.QueryRow(`SELECT vendor, keys FROM chip WHERE uid = $1`, c.ChipUID).Scan(&vendor, &keys)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", fmt.Sprintf("chip %x is in no manifest of vendor %s that was imported", c.ChipUID, c.Chips), nil
	case err != nil:
		return "", "", err
	case vendor != c.Chips:
		return fmt.Sprintf("chip %x is of vendor %s, and the order demands chips of %s", c.ChipUID, vendor, c.Chips), "", nil
	}
	for ; len(keys) >= 32; keys = keys[32:] {
		if bytes.Equal(keys[:32], c.Identity) {
			return "", "", nil
		}
	}
	return fmt.Sprintf("its identity key is none of those that vendor %s signed for chip %x", vendor, c.ChipUID), "", nil
}
