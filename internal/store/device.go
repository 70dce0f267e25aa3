package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Devices keeps devices, commands, bundles and warrants: it implements device.Registry, Reports, Commands and Trust.
type Devices struct{ db *DB }

// Devices gives the store of stage device.
func (db *DB) Devices() *Devices { return &Devices{db} }

// ProvisionedRow is a device as the factory's verified production record tells of it.
type ProvisionedRow struct {
	ID, Product, Hardware, Order, Station string
	At                                    time.Time
	Identity                              []byte // SHA-256 of the IDevID's SubjectPublicKeyInfo; empty: it has none
	AttestKey                             []byte // SubjectPublicKeyInfo (DER)
	KeyOrigin                             string // soft, isolated, tpm, pkcs11
	Virtual                               bool
	Release                               []byte // digest of what was programmed; may be empty
	Version                               string
	Bundle                                uint64 // version of the trust bundle it left with
}

// putProvisioned inserts a device the factory made; device.ErrExists: a record cannot be told twice. The fact is the caller's.
func putProvisioned(tx *Tx, p ProvisionedRow) error {
	twin, kit, err := TwinRow(device.Twin{Release: p.Release, Version: p.Version, Bundle: p.Bundle})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(p.AttestKey)
	res, err := tx.Of(p.ID).Exec(`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, attest_key, instance_id,
		key_origin, is_virtual, since, release, bundle, doc, identity, version, kit, findings)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $8, $13, $14, $15, $16, $17, $18,
			(SELECT count(*) FROM finding f WHERE f.subject = $1 AND f.closed = 0))
		ON CONFLICT (id) DO NOTHING`,
		p.ID, p.Product, p.Hardware, string(device.Provisioned), string(device.Genuine), p.Order, p.Station, Millis(p.At), p.AttestKey,
		append([]byte{1}, sum[:]...), p.KeyOrigin, p.Virtual, p.Release, int64(p.Bundle), twin, p.Identity, p.Version, kit)
	if err != nil {
		return fmt.Errorf("device %s: %w", p.ID, err)
	}
	if err := one(res, fmt.Errorf("device %s: %w", p.ID, device.ErrExists)); err != nil {
		return err
	}
	return stir(tx, p.ID)
}

// one answers otherwise unless exactly one row was changed.
func one(res sql.Result, otherwise error) error {
	n, err := res.RowsAffected()
	if err != nil {
		return err
	}
	if n != 1 {
		return otherwise
	}
	return nil
}

const deviceColumns = `id, product, hardware, state, legitimacy, order_id, station, made, attest_key, key_origin, is_virtual,
	coalesce(replaces, ''), coalesce(replaced_by, ''), counter, acked_seq, last_seen, since, guard_until, owned_since, group_path, token, token_anew, rekeyed, restored, assurance, doc`

type scanner interface{ Scan(dest ...any) error }

func scanDevice(row scanner) (device.Device, error) {
	var d device.Device
	var made, seen, since, guard, owned, anew, rekeyed, restored int64
	var doc []byte
	err := row.Scan(&d.ID, &d.Product, &d.Hardware, &d.State, &d.Legitimacy, &d.Order, &d.Station, &made, &d.AttestKey, &d.KeyOrigin,
		&d.Virtual, &d.Replaces, &d.ReplacedBy, &d.Counter, &d.AckedSeq, &seen, &since, &guard, &owned, &d.Group, &d.Token, &anew, &rekeyed, &restored, &d.Assurance, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return d, device.ErrNotFound
	}
	if err != nil {
		return d, err
	}
	d.Made, d.LastSeen, d.Since, d.GuardUntil, d.Owned, d.TokenAnew, d.Rekeyed = Time(made), Time(seen), Time(since), Time(guard), Time(owned), anew != 0, Time(rekeyed)
	d.Restored = Time(restored)
	if err := json.Unmarshal(doc, &d.Twin); err != nil {
		return d, fmt.Errorf("device %s: twin: %w", d.ID, err)
	}
	return d, nil
}

// Device implements device.Registry.
func (s *Devices) Device(ctx context.Context, id string) (device.Device, error) {
	return scanDevice(s.db.Read().QueryRowContext(ctx, `SELECT `+deviceColumns+` FROM device WHERE id = $1`, id))
}

// Schemas implements device.Registry.
func (s *Devices) Schemas(ctx context.Context, product string, devices []string) ([]wire.Schema, error) {
	list, err := listOf(devices)
	if err != nil {
		return nil, err
	}
	payloads, err := collect(ctx, s.db, func(row scanner) (p []byte, err error) { return p, row.Scan(&p) }, `SELECT r.payload FROM
		(SELECT DISTINCT d.release AS digest FROM list($1) AS l CROSS JOIN device d WHERE d.id = l.value AND d.product = $2) AS x LEFT JOIN release r ON r.digest = x.digest`, list, product)
	if err != nil {
		return nil, err
	}
	var out []wire.Schema
	for _, p := range payloads {
		if len(p) == 0 {
			of, err := s.db.Product(ctx, product)
			if err != nil {
				return nil, err
			}
			out = append(out, of.Parameters)
			continue
		}
		r, err := wire.DecodeRelease(p)
		if err != nil {
			return nil, fmt.Errorf("stored release: %w", err)
		}
		out = append(out, r.Parameters)
	}
	return out, nil
}

// Devices implements device.Registry.
func (s *Devices) Devices(ctx context.Context, q device.Query) ([]device.Device, error) {
	where, args := ` WHERE id > $1`, []any{q.After}
	and := func(clause string, arg any) {
		args = append(args, arg)
		where += fmt.Sprintf(clause, len(args))
	}
	if q.Product != "" {
		and(` AND product = $%d`, q.Product)
	}
	if q.State != "" {
		and(` AND state = $%d`, string(q.State))
	}
	if len(q.Release) > 0 {
		and(` AND release = $%d`, q.Release)
	}
	if len(q.IDs) > 0 {
		ids, err := listOf(q.IDs)
		if err != nil {
			return nil, err
		}
		and(` AND id IN (SELECT l.value FROM list($%d) AS l)`, ids)
	}
	limit := q.Limit
	if limit <= 0 || limit > device.MaxPage {
		limit = device.MaxPage
	}
	args = append(args, limit)
	return collect(ctx, s.db, scanDevice, `SELECT `+deviceColumns+` FROM device`+where+fmt.Sprintf(` ORDER BY id LIMIT $%d`, len(args)), args...)
}

func collect[T any](ctx context.Context, db *DB, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := db.Read().QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // reading only: rows.Err below has what matters
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// MoveDevice implements device.Registry.
func (s *Devices) MoveDevice(ctx context.Context, c device.Change) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Of(c.Device).Exec(`UPDATE device SET state = $1, since = $2, guard_until = $3 WHERE id = $4 AND state = $5`,
			string(c.To), Millis(c.At), Millis(c.GuardUntil), c.Device, string(c.From))
		if err != nil {
			return err
		}
		if err := one(res, device.ErrChanged); err != nil {
			return err
		}
		if c.Absolve {
			if err := absolve(tx, c.Device); err != nil {
				return err
			}
		}
		if err := stir(tx, c.Device); err != nil {
			return err
		}
		return tx.Append(c.Fact)
	})
}

// absolve forgets what a device was suspected of.
func absolve(tx *Tx, id string) error {
	d, err := scanDevice(tx.QueryRow(`SELECT `+deviceColumns+` FROM device WHERE id = $1`, id))
	if err != nil {
		return err
	}
	accepted := d.Twin.Accepted // directives are given out above it
	d.Twin.Suspect, d.Twin.Sides, d.Twin.BootCount, d.Twin.Accepted, d.Twin.Bundle = "", nil, 0, 0, 0
	twin, kit, err := TwinRow(d.Twin)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(`DELETE FROM verdict_current WHERE device_id = $1`, id); err != nil { // whose evidence that was nobody knows
		return err
	}
	_, err = tx.Exec(`UPDATE device SET doc = $1, token = $2, token_anew = 0, acked_seq = 0, verdict = 0, counter = CASE WHEN counter < $3 THEN $3 ELSE counter END, kit = $5
		WHERE id = $4`, twin, device.TokenAwaited, int64(accepted), id, kit)
	return err
}

// Restored notes that what is known of every device is a backup's, until it calls: what it was left with since is not known here. It gives how many
// there are.
func (db *DB) Restored(ctx context.Context, at time.Time) (n int64, err error) {
	return n, db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE device SET restored = $1 WHERE state NOT IN `+ended, Millis(at))
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
}

// JudgeDevice implements device.Registry.
func (s *Devices) JudgeDevice(ctx context.Context, id string, from, to device.Legitimacy, fact ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE device SET legitimacy = $1 WHERE id = $2 AND legitimacy = $3
			AND NOT EXISTS (SELECT 1 FROM device_mark m WHERE m.device_id = $2)`, string(to), id, string(from))
		if err != nil {
			return err
		}
		if err := one(res, device.ErrChanged); err != nil {
			return err
		}
		if err := stir(tx, id); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// ReplaceDevice implements device.Registry.
func (s *Devices) ReplaceDevice(ctx context.Context, before, after string, fact ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		for _, q := range []struct{ text, with, id string }{
			{`UPDATE device SET replaced_by = $1 WHERE id = $2 AND replaced_by IS NULL`, after, before},
			{`UPDATE device SET replaces = $1 WHERE id = $2 AND replaces IS NULL`, before, after},
		} {
			res, err := tx.Exec(q.text, q.with, q.id)
			if err != nil {
				return err
			}
			if err := one(res, device.ErrChanged); err != nil {
				return err
			}
		}
		return tx.Append(fact)
	})
}

// CountDevices implements device.Registry.
func (s *Devices) CountDevices(ctx context.Context, product string) (map[device.State]int, error) {
	return counts[device.State](ctx, s.db, `SELECT state, count(*) FROM device WHERE $1 = '' OR product = $1 GROUP BY state`, product)
}

func counts[K ~string](ctx context.Context, db *DB, query string, args ...any) (map[K]int, error) {
	rows, err := db.Read().QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // reading only: rows.Err below has what matters
	out := map[K]int{}
	for rows.Next() {
		var k string
		var n int
		if err := rows.Scan(&k, &n); err != nil {
			return nil, err
		}
		out[K(k)] = n
	}
	return out, rows.Err()
}

// ApplyReport implements device.Reports.
func (s *Devices) ApplyReport(ctx context.Context, r device.Report) error {
	twin, kit, err := TwinRow(r.Twin)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		since := r.From.Since
		if r.State != r.From.State {
			since = r.At
		}
		res, err := tx.Of(r.From.ID).Exec(`UPDATE device SET state = $1, since = $2, guard_until = $3, release = $4, bundle = $5, doc = $6,
			acked_seq = $7, last_seen = CASE WHEN last_seen > $8 THEN last_seen ELSE $8 END, version = $12, token = $13,
			token_anew = CASE WHEN token = $13 THEN token_anew ELSE 0 END, restored = 0, kit = $19
			WHERE id = $9 AND state = $10 AND acked_seq = $11 AND token = $14 AND restored = $15 AND owned_since = $16
			AND (assurance <> 'says' OR version = $17 AND coalesce(release, $18) = $18)`, // what was forgotten for a new owner stays forgotten; a client's words have no numbers
			string(r.State), Millis(since), Millis(r.GuardUntil), r.Twin.Release, int64(r.Twin.Bundle), twin,
			int64(r.AckedSeq), Millis(r.Said()), r.From.ID, string(r.From.State), int64(r.From.AckedSeq), r.Twin.Version, r.Token, r.From.Token, Millis(r.From.Restored), Millis(r.From.Owned),
			r.From.Twin.Version, notNil(r.From.Twin.Release), kit)
		if err != nil {
			return err
		}
		if err := one(res, device.ErrChanged); err != nil {
			return err
		}
		for _, c := range r.Results {
			standing := `$1`
			if c.Standing == device.Pending { // a refusal that may pass: until it has not, often enough
				standing = fmt.Sprintf(`CASE WHEN attempts >= %d THEN 'refused' ELSE $1 END`, device.MaxAttempts)
			}
			if _, err := tx.Of(c.Device).Exec(`UPDATE command_device SET state = `+standing+`, code = $2, text = $3, at = $4
				WHERE command_id = $5 AND device_id = $6 AND state IN ('pending', 'delivered', 'cancelled')`,
				string(c.Standing), c.Code, c.Text, Millis(c.At), c.Command, c.Device); err != nil {
				return err
			}
		}
		note := stirred
		if turned(r) {
			note = stir
		}
		if err := note(tx, r.From.ID); err != nil {
			return err
		}
		if r.Action != nil {
			if err := noteAction(tx, *r.Action); err != nil {
				return err
			}
		}
		return tx.Append(r.Facts...)
	})
}

// NextCounter implements device.Reports.
func (s *Devices) NextCounter(ctx context.Context, id, command string, floor uint64, carried bool, at time.Time) (uint64, error) {
	attempts := `attempts + 1`
	if carried {
		attempts = `CASE WHEN attempts = 0 THEN 1 ELSE attempts END`
	}
	var counter uint64
	err := s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Of(id).Exec(`UPDATE command_device SET state = 'delivered', attempts = `+attempts+`, at = $1
			WHERE command_id = $2 AND device_id = $3 AND state IN ('pending', 'delivered')`, Millis(at), command, id)
		if err != nil {
			return err
		}
		if err := one(res, device.ErrChanged); err != nil {
			return err
		}
		return tx.Of(id).QueryRow(`UPDATE device SET counter = CASE WHEN counter > $1 THEN counter ELSE $1 END + 1 WHERE id = $2 RETURNING counter`, int64(floor), id).Scan(&counter)
	})
	return counter, err
}

// MarkSeen implements device.Reports. When a device was seen last is in no answer to it. They are written in the order in which they lie.
func (s *Devices) MarkSeen(ctx context.Context, seen map[string]time.Time) error {
	ids := slices.Sorted(maps.Keys(seen))
	list, err := listOf(ids)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		for _, id := range ids {
			if _, err := tx.Of().Exec(`UPDATE device SET last_seen = $1 WHERE id = $2 AND last_seen < $1`, Millis(seen[id]), id); err != nil {
				return err
			}
		}
		return heard(tx, list)
	})
}
