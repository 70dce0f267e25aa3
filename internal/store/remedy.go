package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// Remedies keeps cases: it implements remedy.Store.
type Remedies struct{ db *DB }

// Remedies gives the store of stage remedy.
func (db *DB) Remedies() *Remedies { return &Remedies{db} }

// OpenCase implements remedy.Store.
func (s *Remedies) OpenCase(ctx context.Context, c remedy.Case, limit remedy.Limit, facts ...ledger.Fact) error {
	doc, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		var n int
		if err := tx.QueryRow(`SELECT count(*) FROM remedy_case WHERE product = $1 AND opened > $2 AND held = 0`, c.Product, Millis(limit.Since)).Scan(&n); err != nil {
			return err
		}
		held := c.Phase == remedy.Held
		res, err := tx.Exec(`INSERT INTO remedy_case (cause_log, cause_idx, device_id, product, phase, open, held, opened, rev, doc)
			VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $8, $9) ON CONFLICT DO NOTHING`, string(c.Cause.Log), int64(c.Cause.Index), c.Device, c.Product,
			string(c.Phase), held, Millis(c.Opened), c.Rev, string(doc))
		if err != nil {
			return err
		}
		if err := one(res, remedy.ErrExists); err != nil {
			return err
		}
		if !held && n >= limit.Most {
			return remedy.ErrMany
		}
		return tx.Append(facts...)
	})
}

func scanCase(row scanner) (remedy.Case, error) {
	var c remedy.Case
	var rev int64
	var doc string
	err := row.Scan(&rev, &doc, &c.Group)
	if errors.Is(err, sql.ErrNoRows) {
		return c, remedy.ErrNotFound
	}
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal([]byte(doc), &c); err != nil {
		return c, fmt.Errorf("stored case: %w", err)
	}
	c.Rev = rev
	return c, nil
}

const caseColumns = `SELECT c.rev, c.doc, d.group_path FROM remedy_case c JOIN device d ON d.id = c.device_id`

// Case implements remedy.Store.
func (s *Remedies) Case(ctx context.Context, device string) (remedy.Case, error) {
	return scanCase(s.db.Read().QueryRowContext(ctx, caseColumns+` WHERE c.device_id = $1 AND c.open = 1`, device))
}

// SaveCase implements remedy.Store.
func (s *Remedies) SaveCase(ctx context.Context, c remedy.Case, facts ...ledger.Fact) error {
	doc, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE remedy_case SET phase = $1, open = $2, held = CASE WHEN $3 = 1 THEN held ELSE 0 END, rev = rev + 1, doc = $4
			WHERE cause_log = $5 AND cause_idx = $6 AND rev = $7`, string(c.Phase), c.Phase != remedy.Closed,
			c.Phase == remedy.Held || c.Phase == remedy.Closed, string(doc), string(c.Cause.Log), int64(c.Cause.Index), c.Rev)
		if err != nil {
			return err
		}
		if err := one(res, remedy.ErrChanged); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// OpenCases implements remedy.Store.
func (s *Remedies) OpenCases(ctx context.Context, scope []string, after string, limit int) ([]remedy.Case, error) {
	list, err := listOf(scope)
	if err != nil {
		return nil, err
	}
	return collect(ctx, s.db, scanCase, caseColumns+` WHERE c.open = 1 AND`+inScope("c.product", "c.device_id")+` AND c.device_id > $2
		ORDER BY c.device_id LIMIT $3`, list, after, atMost(limit))
}

// GoodRelease implements remedy.Store.
func (s *Remedies) GoodRelease(ctx context.Context, id string) ([]byte, error) {
	d, err := s.db.Devices().Device(ctx, id)
	if err != nil {
		return nil, err
	}
	all, err := collect(ctx, s.db, scanRelease, releaseColumns+` WHERE product = $1 AND status = 'published' ORDER BY published DESC, digest`, d.Product)
	if err != nil {
		return nil, err
	}
	proven, sick, err := s.rolledOut(ctx, d.Product)
	if err != nil {
		return nil, err
	}
	meant, err := s.meantFor(ctx, d)
	if err != nil {
		return nil, err
	}
	var newest []byte
	for _, r := range all {
		digest := string(r.Digest[:])
		switch {
		case !r.Manifest.RunsOn(d.Hardware):
		case string(d.Twin.Good) == digest:
			return r.Digest[:], nil
		case newest == nil && !sick[digest] && (proven[digest] || meant[digest]):
			newest = r.Digest[:]
		}
	}
	if newest == nil {
		return nil, remedy.ErrNotFound
	}
	return newest, nil
}

// rolledOut gives the releases that a rollout of the product came to its end with, and those that one was halted or rolled back with.
func (s *Remedies) rolledOut(ctx context.Context, product string) (proven, sick map[string]bool, err error) {
	rs, err := collect(ctx, s.db, scanRollout, rolloutColumns+` WHERE product = $1 AND phase IN ($2, $3, $4)`,
		product, string(rollout.Completed), string(rollout.Halted), string(rollout.RolledBack))
	proven, sick = map[string]bool{}, map[string]bool{}
	for _, r := range rs {
		if r.Phase == rollout.Completed {
			proven[string(r.Spec.Release)] = true
		} else {
			sick[string(r.Spec.Release)] = true
		}
	}
	return proven, sick, err
}

// meantFor gives the releases that the device was made with, or was told to have.
func (s *Remedies) meantFor(ctx context.Context, d device.Device) (map[string]bool, error) {
	told, err := collect(ctx, s.db, scanWire, `SELECT c.doc FROM command_device x JOIN command c ON c.id = x.command_id
		WHERE x.device_id = $1 AND x.attempts > 0 AND c.act IN ('install', 'rollback', 'reprovision')`, d.ID)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, c := range told {
		out[string(c.Release)] = true
	}
	o, err := scanOrder(s.db.Read().QueryRowContext(ctx, orderColumns+` WHERE id = $1`, d.Order))
	if errors.Is(err, factory.ErrNotFound) { // a device of another maker
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	made, err := hex.DecodeString(o.Release)
	if err != nil {
		return nil, fmt.Errorf("stored order %s: release %q: %w", o.ID, o.Release, err)
	}
	out[string(made)] = true
	return out, nil
}

// scanWire reads a command as it was signed.
func scanWire(row scanner) (wire.Command, error) {
	var doc []byte
	if err := row.Scan(&doc); err != nil {
		return wire.Command{}, err
	}
	return wire.DecodeCommand(doc)
}
