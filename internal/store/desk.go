package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/custody"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/wire"
)

// Desks implements factory.DeskStore.
type Desks struct{ db *DB }

// Desks gives the store of desks.
func (db *DB) Desks() Desks { return Desks{db} }

// PutDesk implements factory.DeskStore.
func (s Desks) PutDesk(ctx context.Context, d factory.Desk, cas []factory.Adoption, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		if err := adoptCAs(tx, cas...); err != nil {
			return err
		}
		if err := putDesk(tx, d); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// adoptCAs stores what is believed by what it came with.
func adoptCAs(tx *Tx, cas ...factory.Adoption) error {
	for _, a := range cas {
		put, err := putCA(tx, pki.CA{SKI: a.SKI, Role: profile.Role(a.Role), DER: a.DER})
		if err != nil {
			return err
		}
		if put {
			err = tx.Append(a.Fact)
		} else {
			var same bool
			if same, err = tx.there(`SELECT count(*) FROM ca WHERE ski = $1 AND der = $2`, a.SKI, a.DER); err == nil && !same {
				err = fmt.Errorf("CA %s is another: %w", a.SKI, factory.ErrChanged)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ownCAs says whether no other desk has or had one of d's CAs.
func ownCAs(tx *Tx, d factory.Desk) (own bool, err error) {
	rows, err := tx.Query(`SELECT doc FROM desk WHERE name <> $1`, d.Name)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	own = true
	for rows.Next() {
		var doc string
		var other factory.Desk
		if err := rows.Scan(&doc); err != nil {
			return false, err
		}
		if err := json.Unmarshal([]byte(doc), &other); err != nil {
			return false, fmt.Errorf("stored desk: %w", err)
		}
		own = own && !slices.ContainsFunc(slices.Concat(other.CAs, other.Before), func(ca []byte) bool { return holds(d.CAs, ca) })
	}
	return own, rows.Err()
}

func holds(list [][]byte, b []byte) bool {
	return slices.ContainsFunc(list, func(have []byte) bool { return bytes.Equal(have, b) })
}

// before adds the CAs that the desk has here and has no more by d.
func before(tx *Tx, d *factory.Desk) error {
	var doc string
	err := tx.QueryRow(`SELECT doc FROM desk WHERE name = $1 AND order_key = $2 AND removed = 0`, d.Name, d.OrderKey).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	var was factory.Desk
	if err := json.Unmarshal([]byte(doc), &was); err != nil {
		return fmt.Errorf("stored desk: %w", err)
	}
	d.Before = nil
	for _, ca := range slices.Concat(was.Before, was.CAs) {
		if !holds(d.CAs, ca) && !holds(d.Before, ca) {
			d.Before = append(d.Before, ca)
		}
	}
	return nil
}

func putDesk(tx *Tx, d factory.Desk) error {
	if err := before(tx, &d); err != nil {
		return err
	}
	doc, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if own, err := ownCAs(tx, d); err != nil || !own {
		return cmp.Or(err, factory.ErrDeskCA)
	}
	changed, err := did(tx.Exec(`UPDATE desk SET quota = $1, doc = $2 WHERE name = $3 AND order_key = $4 AND removed = 0`, int64(d.Quota), string(doc), d.Name, d.OrderKey))
	if err != nil || changed {
		return err
	}
	var many int
	if err := tx.QueryRow(`SELECT count(*) FROM desk WHERE removed = 0`).Scan(&many); err != nil {
		return err
	}
	if many >= factory.MaxDesks {
		return factory.ErrDeskMany
	}
	put, err := did(tx.Exec(`INSERT INTO desk (name, order_key, quota, doc) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, d.Name, d.OrderKey, int64(d.Quota), string(doc)))
	if err == nil && !put {
		err = factory.ErrDeskTaken
	}
	return err
}

// RemoveDesk implements factory.DeskStore.
func (s Desks) RemoveDesk(ctx context.Context, name string, at time.Time, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE desk SET removed = $1 WHERE name = $2 AND removed = 0`, Millis(at), name)
		if err != nil {
			return err
		}
		if err := one(res, factory.ErrDeskUnknown); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

const deskColumns = `SELECT quota, ordered, removed, doc FROM desk`

func scanDesk(row scanner) (d factory.Desk, err error) {
	var doc string
	var quota, ordered, removed int64
	if err := row.Scan(&quota, &ordered, &removed, &doc); err != nil {
		return d, err
	}
	if err := json.Unmarshal([]byte(doc), &d); err != nil {
		return d, fmt.Errorf("stored desk: %w", err)
	}
	d.Quota, d.Ordered, d.Removed = uint32(quota), uint64(ordered), Time(removed)
	return d, nil
}

// Desk implements factory.DeskStore.
func (s Desks) Desk(ctx context.Context, name string) (factory.Desk, error) {
	d, err := scanDesk(s.db.Read().QueryRowContext(ctx, deskColumns+` WHERE name = $1`, name))
	if errors.Is(err, sql.ErrNoRows) {
		return d, factory.ErrDeskUnknown
	}
	return d, s.db.dialect.Explain(err)
}

// Desks implements factory.DeskStore.
func (s Desks) Desks(ctx context.Context) ([]factory.Desk, error) {
	return collect(ctx, s.db, scanDesk, deskColumns+` ORDER BY name`)
}

// RegisterOrder implements factory.DeskStore.
func (s Desks) RegisterOrder(ctx context.Context, o factory.Order, d factory.Desk, ca factory.Adoption, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		// The count first: it locks the desk against another registration, and against its removal.
		res, err := tx.Exec(`UPDATE desk SET ordered = ordered + $1 WHERE name = $2 AND order_key = $3 AND removed = $4 AND quota = $5`,
			int64(o.Quota), d.Name, d.OrderKey, Millis(d.Removed), int64(d.Quota))
		if err != nil {
			return err
		}
		if err := one(res, factory.ErrChanged); err != nil {
			return err
		}
		if err := putOrder(tx, o); err != nil {
			return err
		}
		over, err := tx.there(`SELECT count(*) FROM desk WHERE name = $1 AND ordered > quota`, d.Name)
		if err != nil {
			return err
		}
		if over {
			return factory.ErrDeskQuota
		}
		if err := adoptCAs(tx, ca); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// RestoreOrder implements factory.DeskStore.
func (s Desks) RestoreOrder(ctx context.Context, o factory.Order) error {
	doc, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		old, err := scanOrder(tx.QueryRow(orderColumns+` WHERE id = $1`, o.ID))
		if err != nil {
			return err
		}
		if len(old.Secret) != 0 {
			return factory.ErrChanged
		}
		_, err = tx.Exec(`UPDATE production_order SET state = $1, doc = $2 WHERE id = $3`, string(o.State), string(doc), o.ID)
		return err
	})
}

// replayDesk takes a desk in again: its CAs have facts of their own.
func replayDesk(tx *Tx, f ledger.Fact) (bool, error) {
	var a factory.DeskAdded
	if err := json.Unmarshal(f.Data, &a); err != nil {
		return false, err
	}
	err := putDesk(tx, factory.Desk{Name: a.Desk, OrderKey: a.OrderKey, CAs: a.CAs, Products: a.Products, Quota: a.Quota, By: f.Actor, At: f.At})
	if errors.Is(err, factory.ErrDeskTaken) || errors.Is(err, factory.ErrDeskMany) || errors.Is(err, factory.ErrDeskCA) {
		return false, nil
	}
	return err == nil, err
}

// replayDeskRemoved: no order that it makes is taken in any more.
func replayDeskRemoved(tx *Tx, f ledger.Fact) (bool, error) {
	return did(tx.Exec(`UPDATE desk SET removed = $1 WHERE name = $2 AND removed = 0`, Millis(f.At), f.Subject))
}

// deskOf finds the desk that signed an order; empty: none, so that it was wrapped here.
func deskOf(tx *Tx, envelope []byte) (name string, err error) {
	rows, err := tx.Query(`SELECT name, order_key FROM desk`)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var n string
		var spki []byte
		if err := rows.Scan(&n, &spki); err != nil {
			return "", err
		}
		key, err := wire.ParseKey(spki)
		if err != nil {
			return "", fmt.Errorf("stored desk %s: %w", n, err)
		}
		if _, err := wire.VerifyOrder(envelope, key); err == nil {
			name = n
		}
	}
	return name, rows.Err()
}

// Bundle implements factory.Published.
func (s Desks) Bundle(ctx context.Context, product string, digest [32]byte) (b, inForce wire.Bundle, err error) {
	envelopes, err := collect(ctx, s.db, func(row scanner) (b []byte, err error) {
		err = row.Scan(&b)
		return b, err
	}, `SELECT envelope FROM bundle WHERE product = $1 ORDER BY version DESC`, product)
	if err != nil {
		return b, inForce, err
	}
	i := slices.IndexFunc(envelopes, func(e []byte) bool { return sha256.Sum256(e) == digest })
	if i < 0 {
		return b, inForce, factory.ErrNotFound
	}
	if inForce, err = wire.VerifyBundle(nil, envelopes[0]); err != nil {
		return b, inForce, err
	}
	b, err = wire.VerifyBundle(nil, envelopes[i])
	return b, inForce, err
}

// Release implements factory.Published.
func (s Desks) Release(ctx context.Context, digest [32]byte) (envelope []byte, withdrawn bool, err error) {
	r, err := s.db.Releases().Release(ctx, digest)
	if errors.Is(err, release.ErrNotFound) || err == nil && r.Published.IsZero() {
		return nil, false, factory.ErrNotFound
	}
	return r.Envelope, r.Status != release.Published, err
}

// orderSigner finds the key that signed an order: the subject of the facts about it, and the first one. For an order that none of them signed it is the
// instance's first, which shows that.
func (db *DB) orderSigner(ctx context.Context, o factory.Order) (subject string, first []retire.LifeFact, err error) {
	type named struct {
		fact wire.Fact
		life retire.LifeFact
	}
	list, err := collect(ctx, db, func(row scanner) (n named, err error) {
		var entry, uid []byte
		var id int64
		if err := row.Scan(&n.life.Kind, &uid, &entry, &id); err != nil {
			return n, err
		}
		if len(uid) != 16 {
			return n, errDamaged
		}
		n.life.UID = [16]byte(uid)
		n.fact, err = wire.DecodeFact(entry)
		return n, err
	}, `SELECT kind, uid, data, id FROM entry WHERE subject = $1 AND kind = 'desk.added'
		UNION ALL SELECT kind, uid, data, id FROM entry WHERE subject = $2 AND kind = 'key.created'
		UNION ALL SELECT e.kind, e.uid, e.data, e.id FROM online_key k JOIN entry e ON e.subject = k.name AND e.kind = 'key.created' WHERE k.role = $2
		ORDER BY id`, o.Desk, custody.OrderKeyName)
	if err != nil {
		return "", nil, err
	}
	created := wire.Fact{Subject: o.ID, Data: o.Envelope}
	for _, n := range list {
		if _, _, err := (custody.OrderKeys{}).Learn(n.fact).Order(created, o.Product); err == nil {
			return n.fact.Subject, []retire.LifeFact{n.life}, nil
		}
	}
	for _, n := range list {
		if n.fact.Subject == custody.OrderKeyName {
			return n.fact.Subject, []retire.LifeFact{n.life}, nil
		}
	}
	return "", nil, nil
}
