package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// PutCommand implements device.Commands.
func (s *Devices) PutCommand(ctx context.Context, c device.Command, devices []string, fact ledger.Fact) error {
	payload, err := wire.EncodeCommand(c.Wire)
	if err != nil {
		return err
	}
	ids, err := listOf(devices)
	if err != nil {
		return err
	}
	within, err := listOf(c.Within)
	if err != nil {
		return err
	}
	var warrant []byte
	if c.Warrant != nil {
		warrant = c.Warrant[:]
	}
	hours := ""
	if c.Hours != nil {
		text, err := json.Marshal(c.Hours)
		if err != nil {
			return err
		}
		hours = string(text)
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Of(devices...).Exec(`INSERT INTO command (id, uid, digest, product, act, priority, warrant, issued, expires, doc, reason, config, rollout, wave, hours, manner, grace)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) ON CONFLICT (id) DO NOTHING`, c.ID, c.UID[:], c.Digest[:], c.Wire.Product,
			string(c.Wire.Act), c.Priority, warrant, Millis(c.Issued), Millis(c.Expires), payload, c.Reason, c.Config, c.Wire.Rollout, int64(c.Wire.Wave), hours, string(c.Manner), int64(c.Grace/time.Second))
		if err != nil {
			return err
		}
		if err := one(res, device.ErrExists); err != nil {
			return err
		}
		// Each device is looked up by its ID: coalesce keeps SQLite, which takes a product for a few devices, from walking along that for each of the list.
		res, err = tx.Of(devices...).Exec(`INSERT INTO command_device (command_id, device_id, state, at)
			SELECT $1, d.id, 'pending', $2 FROM list($3) AS l CROSS JOIN device d
			WHERE d.id = l.value AND coalesce(d.product, '') = $4 AND d.state NOT IN `+ended+`
			AND ($5 = '[]' OR EXISTS (SELECT 1 FROM list($5) AS s WHERE s.value = d.product
				OR EXISTS (SELECT 1 FROM device_group g WHERE g.path = s.value AND g.device_id = d.id)))`, c.ID, Millis(c.Issued), ids, c.Wire.Product, within)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return err
		}
		if n != int64(len(devices)) {
			return device.ErrForeign
		}
		if err := leaving(tx, c.Wire.Act, ids, n); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// leaving refuses to send devices away that nobody hands over any more: a handover can be given up at the moment at which it is told.
func leaving(tx *Tx, act wire.Act, ids string, n int64) error {
	if act != wire.ActRehome {
		return nil
	}
	var open int64
	err := tx.QueryRow(`SELECT count(*) FROM list($1) AS l CROSS JOIN ownership_transfer o WHERE o.device_id = l.value AND o.open = 1`, ids).Scan(&open)
	if err == nil && open != n {
		err = device.ErrForeign
	}
	return err
}

const commandColumns = `c.id, c.uid, c.digest, c.priority, c.warrant, c.issued, c.expires, c.ended, c.doc, c.reason, c.config, c.hours, c.manner, c.grace`

func scanCommand(row scanner) (device.Command, error) {
	var c device.Command
	var hours string
	var uid, digest, warrant, doc []byte
	var issued, expires, ended, grace int64
	err := row.Scan(&c.ID, &uid, &digest, &c.Priority, &warrant, &issued, &expires, &ended, &doc, &c.Reason, &c.Config, &hours, &c.Manner, &grace)
	if errors.Is(err, sql.ErrNoRows) {
		return c, device.ErrNotFound
	}
	if err != nil {
		return c, err
	}
	copy(c.UID[:], uid)
	copy(c.Digest[:], digest)
	if len(warrant) == 16 {
		w := [16]byte(warrant)
		c.Warrant = &w
	}
	c.Grace = time.Duration(grace) * time.Second
	c.Issued, c.Expires, c.Ended = Time(issued), Time(expires), Time(ended)
	if hours != "" {
		if err := json.Unmarshal([]byte(hours), &c.Hours); err != nil {
			return c, fmt.Errorf("stored command %s: its hours: %w", c.ID, errors.Join(err, errDamaged))
		}
	}
	c.Wire, err = wire.DecodeCommand(doc)
	return c, err
}

// Command implements device.Commands.
func (s *Devices) Command(ctx context.Context, id string) (device.Command, error) {
	return scanCommand(s.db.Read().QueryRowContext(ctx, `SELECT `+commandColumns+` FROM command c WHERE c.id = $1`, id))
}

// CommandTo implements device.Commands.
func (s *Devices) CommandTo(ctx context.Context, digest [32]byte, id string) (device.Command, device.Standing, error) {
	c, err := scanCommand(s.db.Read().QueryRowContext(ctx, `SELECT `+commandColumns+` FROM command c WHERE c.digest = $1`, digest[:]))
	if err != nil {
		return c, "", err
	}
	var standing device.Standing
	err = s.db.Read().QueryRowContext(ctx, `SELECT state FROM command_device WHERE command_id = $1 AND device_id = $2 AND attempts > 0`,
		c.ID, id).Scan(&standing)
	if errors.Is(err, sql.ErrNoRows) {
		return c, "", device.ErrNotFound
	}
	return c, standing, s.db.dialect.Explain(err)
}

// Outstanding implements device.Reports.
func (s *Devices) Outstanding(ctx context.Context, id string, now time.Time) ([]device.Command, error) {
	return collect(ctx, s.db, scanCommand, `SELECT `+commandColumns+` FROM command_device x JOIN command c ON c.id = x.command_id
		WHERE x.device_id = $1 AND x.state IN ('pending', 'delivered') AND c.ended = 0 AND c.expires > $2
		ORDER BY c.priority DESC, c.issued, c.id LIMIT 32`, id, Millis(now))
}

// CommandsFor implements device.Commands.
func (s *Devices) CommandsFor(ctx context.Context, product string, release []byte, now time.Time) ([]device.Command, error) {
	all, err := collect(ctx, s.db, scanCommand, `SELECT `+commandColumns+` FROM command c
		WHERE c.product = $1 AND c.act IN ('install', 'rollback', 'reprovision') AND c.ended = 0 AND c.expires > $2 ORDER BY c.issued, c.id`, product, Millis(now))
	return slices.DeleteFunc(all, func(c device.Command) bool { return !bytes.Equal(c.Wire.Release, release) }), err
}

// CancelCommand implements device.Commands.
func (s *Devices) CancelCommand(ctx context.Context, id string, at time.Time, fact ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE command SET ended = $1 WHERE id = $2 AND ended = 0`, Millis(at), id)
		if err != nil {
			return err
		}
		if err := one(res, device.ErrChanged); err != nil {
			return err
		}
		if _, err := tx.Exec(`UPDATE command_device SET state = 'cancelled', at = $1
			WHERE command_id = $2 AND state IN ('pending', 'delivered')`, Millis(at), id); err != nil {
			return err
		}
		if _, err := tx.Exec(`UPDATE rollout_place SET stirs = stirs + 1, due = 0
			WHERE open = 1 AND device_id IN (SELECT device_id FROM command_device WHERE command_id = $1)`, id); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

const commandDeviceQuery = `SELECT x.command_id, x.device_id, c.act, c.doc, x.state, x.attempts, x.code, x.text, x.at, c.expires, c.issued
	FROM command_device x JOIN command c ON c.id = x.command_id`

// commandDevices reads them as they stand at now: who did not answer while it was valid will not do it any more.
func commandDevices(now time.Time) func(scanner) (device.CommandDevice, error) {
	return func(row scanner) (device.CommandDevice, error) {
		c, expires, err := scanCommandDevice(row)
		if (c.Standing == device.Pending || c.Standing == device.Delivered) && !expires.After(now) {
			c.Standing = device.Expired
		}
		return c, err
	}
}

func scanCommandDevice(row scanner) (device.CommandDevice, time.Time, error) {
	var c device.CommandDevice
	var doc []byte
	var at, expires, issued int64
	if err := row.Scan(&c.Command, &c.Device, &c.Act, &doc, &c.Standing, &c.Attempts, &c.Code, &c.Text, &at, &expires, &issued); err != nil {
		return c, time.Time{}, err
	}
	w, err := wire.DecodeCommand(doc)
	if err != nil {
		return c, time.Time{}, err
	}
	c.Release, c.At, c.Issued = w.Release, Time(at), Time(issued)
	return c, Time(expires), nil
}

// CommandDevices implements device.Commands.
func (s *Devices) CommandDevices(ctx context.Context, id string, now time.Time, after string, limit int) ([]device.CommandDevice, error) {
	return collect(ctx, s.db, commandDevices(now),
		commandDeviceQuery+` WHERE x.command_id = $1 AND x.device_id > $2 ORDER BY x.device_id LIMIT $3`, id, after, atMost(limit))
}

// CommandSet implements device.Commands.
func (s *Devices) CommandSet(ctx context.Context, id string) ([]string, error) {
	return collect(ctx, s.db, scanID, `SELECT device_id FROM command_device WHERE command_id = $1 ORDER BY device_id`, id)
}

// CountCommand implements device.Commands.
func (s *Devices) CountCommand(ctx context.Context, id string, now time.Time) (map[device.Standing]int, error) {
	return counts[device.Standing](ctx, s.db, `SELECT CASE WHEN x.state IN ('pending', 'delivered') AND c.expires <= $2 THEN 'expired' ELSE x.state END, count(*)
		FROM command_device x JOIN command c ON c.id = x.command_id WHERE x.command_id = $1 GROUP BY 1`, id, Millis(now))
}

// DeviceCommands implements device.Commands.
func (s *Devices) DeviceCommands(ctx context.Context, id string, now time.Time, after string, limit int) ([]device.CommandDevice, error) {
	return collect(ctx, s.db, commandDevices(now), commandDeviceQuery+` WHERE x.device_id = $1 AND ($2 = ''
		OR c.issued < (SELECT issued FROM command WHERE id = $2) OR c.issued = (SELECT issued FROM command WHERE id = $2) AND c.id > $2)
		ORDER BY c.issued DESC, c.id LIMIT $3`, id, after, limit)
}

// PutBundle implements device.Trust.
func (s *Devices) PutBundle(ctx context.Context, b device.Bundle, fact ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		var current uint64
		if err := tx.QueryRow(`SELECT coalesce(max(version), 0) FROM bundle WHERE product = $1`, b.Wire.Product).Scan(&current); err != nil {
			return err
		}
		if b.Wire.Version != current+1 {
			return device.ErrChanged
		}
		if _, err := tx.Exec(`INSERT INTO bundle (product, version, uid, envelope) VALUES ($1, $2, $3, $4)`,
			b.Wire.Product, int64(b.Wire.Version), b.UID[:], b.Envelope); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// Bundle implements device.Trust.
func (s *Devices) Bundle(ctx context.Context, product string, version uint64) (device.Bundle, error) {
	var b device.Bundle
	var uid []byte
	err := s.db.Read().QueryRowContext(ctx, `SELECT uid, envelope FROM bundle WHERE product = $1 AND (version = $2 OR $2 = 0)
		ORDER BY version DESC LIMIT 1`, product, int64(version)).Scan(&uid, &b.Envelope)
	if errors.Is(err, sql.ErrNoRows) {
		return b, device.ErrNotFound
	}
	if err != nil {
		return b, err
	}
	copy(b.UID[:], uid)
	b.Wire, err = s.db.bundles.decode(b.Envelope)
	return b, err
}

// bundles remembers what trust bundles say, by their envelopes: every answer to a device that is told something needs one or two, and most of reading one
// is the look at each of its keys. Its zero value is empty and ready.
type bundles struct {
	mu sync.Mutex
	by map[string]wire.Bundle // guarded by mu; what they point to is never changed
}

// maxBundles bounds those that are remembered, of some kilobytes each.
const maxBundles = 256

func (m *bundles) decode(envelope []byte) (wire.Bundle, error) {
	m.mu.Lock()
	b, ok := m.by[string(envelope)]
	m.mu.Unlock()
	if ok {
		return b, nil
	}
	payload, _, err := wire.ThresholdPayload(wire.TypeBundle, envelope)
	if err != nil {
		return b, err
	}
	if b, err = wire.DecodeBundle(payload); err != nil {
		return b, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.by == nil || len(m.by) >= maxBundles {
		m.by = map[string]wire.Bundle{} // start over: simple, and rare
	}
	m.by[string(envelope)] = b
	return b, nil
}

func scanID(row scanner) (string, error) {
	var id string
	err := row.Scan(&id)
	return id, err
}

// DevicesBehind implements device.Trust.
func (s *Devices) DevicesBehind(ctx context.Context, product string, version uint64, now time.Time) ([]string, error) {
	var published int64 // whoever was told of the bundle before is told of this one at once
	if err := s.db.Read().QueryRowContext(ctx, `SELECT coalesce(max(e.at), 0) FROM bundle b JOIN entry e ON e.uid = b.uid
		WHERE b.product = $1 AND b.version = $2`, product, int64(version)).Scan(&published); err != nil {
		return nil, err
	}
	return collect(ctx, s.db, scanID, `SELECT id FROM device d WHERE product = $1 AND bundle < $2
		AND state IN `+inField+`
		AND (key_origin <> 'imported' OR bundle > 0) -- one without our agent has none, and takes none
		AND NOT EXISTS (SELECT 1 FROM command_device x JOIN command c ON c.id = x.command_id WHERE x.device_id = d.id AND c.act = 'bundle'
			AND (c.issued > $3 OR x.state IN ('pending', 'delivered') AND c.ended = 0 AND c.expires > $4))
		ORDER BY id LIMIT $5`, product, int64(version), max(published, Millis(now.Add(-time.Hour))), Millis(now), device.MaxBehind)
}

// PutWarrant implements device.Trust.
func (s *Devices) PutWarrant(ctx context.Context, w device.Warrant, devices []string, fact ledger.Fact) error {
	doc, err := json.Marshal(w.Wire)
	if err != nil {
		return err
	}
	ids, err := listOf(devices)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`INSERT INTO warrant (uid, id, product, doc) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING`,
			w.UID[:], w.Wire.ID, w.Wire.Product, string(doc))
		if err != nil {
			return err
		}
		if err := one(res, device.ErrExists); err != nil {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO warrant_device (uid, device_id) SELECT $1, l.value FROM list($2) AS l`, w.UID[:], ids); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// Warrant implements device.Trust.
func (s *Devices) Warrant(ctx context.Context, uid [16]byte) (device.Warrant, error) {
	var doc []byte
	err := s.db.Read().QueryRowContext(ctx, `SELECT doc FROM warrant WHERE uid = $1`, uid[:]).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return device.Warrant{}, device.ErrNotFound
	}
	if err != nil {
		return device.Warrant{}, err
	}
	w := device.Warrant{UID: uid}
	err = json.Unmarshal(doc, &w.Wire)
	return w, err
}

// Warrants implements device.Trust.
func (s *Devices) Warrants(ctx context.Context, product, after string, limit int) ([]device.Warrant, error) {
	return collect(ctx, s.db, func(row scanner) (device.Warrant, error) {
		var w device.Warrant
		var uid []byte
		var doc string
		if err := row.Scan(&uid, &doc); err != nil {
			return w, err
		}
		copy(w.UID[:], uid)
		return w, json.Unmarshal([]byte(doc), &w.Wire)
	}, `SELECT uid, doc FROM warrant WHERE ($1 = '' OR product = $1) AND id > $2 ORDER BY id LIMIT $3`,
		product, after, atMost(limit))
}

// WarrantDevices implements device.Trust.
func (s *Devices) WarrantDevices(ctx context.Context, uid [16]byte) ([]string, error) {
	return collect(ctx, s.db, scanID, `SELECT device_id FROM warrant_device WHERE uid = $1 ORDER BY device_id`, uid[:])
}
