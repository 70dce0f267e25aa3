package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
)

// AddCA implements pki.Store.
func (s PKI) AddCA(ctx context.Context, ca pki.CA, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		if added, err := putCA(tx, ca); err != nil || !added {
			return err
		}
		if ca.Key != "" {
			if _, err := tx.Exec(`DELETE FROM ca_request WHERE key_name = $1`, ca.Key); err != nil {
				return err
			}
		}
		return tx.Append(facts...)
	})
}

func putCA(tx *Tx, ca pki.CA) (bool, error) {
	shards := ca.Shards
	if shards == 0 {
		shards = pki.DefaultShards
	}
	return did(tx.Exec(`INSERT INTO ca (ski, role, der, shards, key_name, place) VALUES ($1, $2, $3, $4, $5, (SELECT coalesce(max(place), 0) + 1 FROM ca))
		ON CONFLICT (ski) DO NOTHING`, ca.SKI, string(ca.Role), ca.DER, shards, ca.Key))
}

// AdoptCA implements pki.CAStore.
func (s PKI) AdoptCA(ctx context.Context, ca pki.CA) error {
	var there int
	if err := s.db.Read().QueryRowContext(ctx, `SELECT count(*) FROM ca WHERE ski = $1`, ca.SKI).Scan(&there); err != nil || there > 0 {
		return s.db.dialect.Explain(err)
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		_, err := putCA(tx, ca)
		return err
	})
}

const caColumns = `SELECT ski, role, der, shards, key_name, ended, place FROM ca `

func scanCA(row scanner) (ca pki.CA, err error) {
	var role string
	var ended int64
	err = row.Scan(&ca.SKI, &role, &ca.DER, &ca.Shards, &ca.Key, &ended, &ca.Place)
	ca.Role, ca.Ended = profile.Role(role), Time(ended)
	return ca, err
}

// CAs implements pki.Store.
func (s PKI) CAs(ctx context.Context) ([]pki.CA, error) {
	return collect(ctx, s.db, scanCA, caColumns+`ORDER BY place, ski`)
}

// CAsSince implements pki.CAStore.
func (s PKI) CAsSince(ctx context.Context, after int64) ([]pki.CA, error) {
	return collect(ctx, s.db, scanCA, caColumns+`WHERE place > $1 ORDER BY place, ski`, after)
}

// EndCA implements pki.CAStore.
func (s PKI) EndCA(ctx context.Context, ski string, now time.Time, facts ...ledger.Fact) (until time.Time, err error) {
	newest := func(q interface{ Scan(...any) error }) error {
		var ms sql.NullInt64
		err := q.Scan(&ms)
		until = Time(ms.Int64)
		return err
	}
	const query = `SELECT max(not_after) FROM cert WHERE issuer = $1 AND not_after > $2`
	if err := newest(s.db.Read().QueryRowContext(ctx, query, ski, Millis(now))); err != nil || !until.IsZero() {
		return until, s.db.dialect.Explain(err)
	}
	err = s.db.Write(ctx, func(tx *Tx) error { //nolint:contextcheck // the transaction has a context of its own
		if err := newest(tx.QueryRow(query, ski, Millis(now))); err != nil || !until.IsZero() {
			return err
		}
		ended, err := did(tx.Exec(`UPDATE ca SET ended = $1, place = (SELECT max(place) + 1 FROM ca) WHERE ski = $2 AND ended = 0`, Millis(now), ski))
		if err != nil || !ended {
			return err
		}
		return tx.Append(facts...)
	})
	return until, err
}

// PutCARequest implements pki.CAStore.
func (s PKI) PutCARequest(ctx context.Context, r pki.CARequested, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`INSERT INTO ca_request (key_id, key_name, role, product, unit, at, envelope) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			r.KeyID, r.Key, string(r.Role), r.Product, r.Unit, Millis(r.At), r.Envelope); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// CARequests implements pki.CAStore.
func (s PKI) CARequests(ctx context.Context) ([]pki.CARequested, error) {
	return collect(ctx, s.db, func(row scanner) (r pki.CARequested, err error) {
		var role string
		var at int64
		err = row.Scan(&r.KeyID, &r.Key, &role, &r.Product, &r.Unit, &at, &r.Envelope)
		r.Role, r.At = profile.Role(role), Time(at)
		return r, err
	}, `SELECT key_id, key_name, role, product, unit, at, envelope FROM ca_request ORDER BY at, key_id`)
}

// PutLists implements pki.ListStore.
func (s PKI) PutLists(ctx context.Context, lists []pki.List) error {
	if len(lists) == 0 {
		return nil
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		for _, l := range lists {
			if _, err := tx.Exec(`INSERT INTO crl (issuer, shard, number, through, made, next, der) VALUES ($1, $2, $3, $4, $5, $6, $7)
				ON CONFLICT (issuer, shard) DO UPDATE SET number = excluded.number, through = excluded.through, made = excluded.made,
					next = excluded.next, der = excluded.der WHERE crl.number < excluded.number AND crl.through <= excluded.through`,
				l.Issuer, l.Shard, l.Number, l.Through, Millis(l.Made), Millis(l.Next), l.DER); err != nil {
				return err
			}
		}
		return nil
	})
}

const listColumns = `SELECT issuer, shard, number, through, made, next`

func scanList(row scanner, more ...any) (l pki.List, err error) {
	var made, next int64
	err = row.Scan(append([]any{&l.Issuer, &l.Shard, &l.Number, &l.Through, &made, &next}, more...)...)
	l.Made, l.Next = Time(made), Time(next)
	return l, err
}

// List implements pki.ListStore.
func (s PKI) List(ctx context.Context, id pki.ListID) (pki.List, error) {
	var der []byte
	l, err := scanList(s.db.Read().QueryRowContext(ctx, listColumns+`, der FROM crl WHERE issuer = $1 AND shard = $2`, id.Issuer, id.Shard), &der)
	if errors.Is(err, sql.ErrNoRows) {
		return pki.List{}, pki.ErrNoList
	}
	l.DER = der
	return l, s.db.dialect.Explain(err)
}

// Lists implements pki.ListStore.
func (s PKI) Lists(ctx context.Context, issuer string) ([]pki.List, error) {
	return collect(ctx, s.db, func(row scanner) (pki.List, error) { return scanList(row) }, listColumns+` FROM crl WHERE issuer = $1 ORDER BY shard`, issuer)
}
