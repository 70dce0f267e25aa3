package store

import (
	"context"

	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Keyring implements keyring.Store.
type Keyring struct{ db *DB }

// Keyring keeps which online keys are used.
func (db *DB) Keyring() *Keyring { return &Keyring{db} }

// OnlineKeys implements keyring.Store.
func (s *Keyring) OnlineKeys(ctx context.Context) ([]keyring.Key, error) {
	return collect(ctx, s.db, func(row scanner) (keyring.Key, error) {
		var k keyring.Key
		var created, retired int64
		err := row.Scan(&k.Name, &k.Role, &k.KID, &k.SPKI, &created, &retired)
		k.Created, k.Retired = Time(created), Time(retired)
		return k, err
	}, `SELECT name, role, kid, spki, created, retired FROM online_key ORDER BY created, name`)
}

// PutOnlineKey implements keyring.Store.
func (s *Keyring) PutOnlineKey(ctx context.Context, k keyring.Key, f ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`INSERT INTO online_key (name, role, kid, spki, created) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING`,
			k.Name, string(k.Role), k.KID, k.SPKI, Millis(k.Created))
		if err != nil {
			return err
		}
		if err := one(res, keyring.ErrExists); err != nil {
			return err
		}
		return tx.Append(f)
	})
}

// RetireOnlineKey implements keyring.Store.
func (s *Keyring) RetireOnlineKey(ctx context.Context, k keyring.Key, f ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`INSERT INTO online_key (name, role, kid, spki, created, retired) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (name) DO UPDATE SET retired = excluded.retired WHERE online_key.retired = 0`,
			k.Name, string(k.Role), k.KID, k.SPKI, Millis(k.Created), Millis(k.Retired))
		if err != nil {
			return err
		}
		if err := one(res, keyring.ErrChanged); err != nil {
			return err
		}
		return tx.Append(f)
	})
}
