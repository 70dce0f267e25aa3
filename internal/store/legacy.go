package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire/mender"
)

// Legacy keeps clients of other update systems: it implements legacy.Store and device.Offers.
type Legacy struct{ db *DB }

// Legacy gives the store of clients of other update systems.
func (db *DB) Legacy() Legacy { return Legacy{db} }

const clientColumns = `SELECT kind, product, name, state, device, token, key, asked, rev, doc FROM legacy_client`

func scanClient(row scanner) (legacy.Client, error) {
	var c legacy.Client
	var asked int64
	var doc []byte
	err := row.Scan(&c.Kind, &c.Product, &c.Name, &c.State, &c.Device, &c.Secret, &c.Key, &asked, &c.Rev, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return c, legacy.ErrNotFound
	}
	if err != nil {
		return c, err
	}
	c.Asked, c.Token = Time(asked), c.Secret != nil
	if err := json.Unmarshal(doc, &c.Details); err != nil {
		return c, fmt.Errorf("stored client %s/%s: %w", c.Kind, c.Name, err)
	}
	return c, nil
}

// Client implements legacy.Store.
func (s Legacy) Client(ctx context.Context, kind legacy.Kind, product, name string) (legacy.Client, error) {
	return scanClient(s.db.Read().QueryRowContext(ctx, clientColumns+` WHERE kind = $1 AND product = $2 AND name = $3`, string(kind), product, name))
}

// Clients implements legacy.Store.
func (s Legacy) Clients(ctx context.Context, product string, state legacy.State, after string, limit int) ([]legacy.Client, error) {
	kind, name, _ := strings.Cut(after, "/")
	return collect(ctx, s.db, scanClient, clientColumns+` WHERE product = $1 AND ($2 = '' OR state = $2) AND (kind > $3 OR kind = $3 AND name > $4)
		ORDER BY kind, name LIMIT $5`, product, string(state), kind, name, atMost(limit))
}

// Ask implements legacy.Store.
func (s Legacy) Ask(ctx context.Context, c legacy.Client, before time.Time, ofProduct, ofAll int) error {
	doc, err := json.Marshal(c.Details)
	if err != nil {
		return err
	}
	var known bool
	if err := s.db.Read().QueryRowContext(ctx, `SELECT count(*) > 0 FROM legacy_client WHERE kind = $1 AND product = $2 AND name = $3 AND (state <> 'pending' OR coalesce(key, $4) = $4)`,
		string(c.Kind), c.Product, c.Name, notNil(c.Key)).Scan(&known); err != nil {
		return s.db.dialect.Explain(err)
	}
	if known { // nothing is written for who asks again
		return legacy.ErrExists
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		strangers := tx.Of() // nobody's answer
		if _, err := strangers.Exec(`DELETE FROM legacy_client WHERE state = 'pending' AND asked < $1`, Millis(before)); err != nil {
			return err
		}
		var of, all int
		if err := tx.QueryRow(`SELECT count(*) FILTER (WHERE product = $1), count(*) FROM legacy_client WHERE state = 'pending'`, c.Product).Scan(&of, &all); err != nil {
			return err
		}
		if of >= ofProduct || all >= ofAll {
			return legacy.ErrFull
		}
		_, err := strangers.Exec(`INSERT INTO legacy_client (kind, product, name, state, key, asked, doc) VALUES ($1, $2, $3, 'pending', $4, $5, $6)
			ON CONFLICT (kind, product, name) DO UPDATE SET key = excluded.key, asked = excluded.asked, rev = legacy_client.rev + 1 WHERE legacy_client.state = 'pending'`,
			string(c.Kind), c.Product, c.Name, notEmpty(c.Key), Millis(c.Asked), string(doc))
		return err
	})
}

// Admit implements legacy.Store.
func (s Legacy) Admit(ctx context.Context, c legacy.Client, hardware string, fact ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		if err := putClientDevice(tx, c.Device, c.Product, hardware, c.Key, fact.At); err != nil {
			return err
		}
		if c.Rev == 0 {
			doc, err := json.Marshal(c.Details)
			if err != nil {
				return err
			}
			res, err := tx.Of(c.Device).Exec(`INSERT INTO legacy_client (kind, product, name, state, device, token, key, asked, doc) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
				ON CONFLICT DO NOTHING`, string(c.Kind), c.Product, c.Name, string(c.State), c.Device, notEmpty(c.Secret), notEmpty(c.Key), Millis(c.Asked), string(doc))
			if err != nil {
				return err
			}
			if err := one(res, legacy.ErrChanged); err != nil {
				return err
			}
		} else if err := saveClient(tx, c); err != nil {
			return err
		}
		if _, err := tx.Of(c.Device).Exec(`UPDATE legacy_action SET doc = '{}', rev = rev + 1 WHERE device_id = $1 AND ended = 0`, c.Device); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// putClientDevice registers the device of a client, which is at work from then on: nothing that it could show would ever say more of it. Of one that is there is
// forgotten what it said: it is whoever was let in now, who has said nothing.
func putClientDevice(tx *Tx, id, product, hardware string, key []byte, at time.Time) error {
	twin, kit, err := TwinRow(device.Twin{})
	if err != nil {
		return err
	}
	if _, err := tx.Of(id).Exec(`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, identity, key_origin, is_virtual, since, doc, kit, assurance)
		VALUES ($1, $2, $3, $4, $5, '', '', 0, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (id) DO NOTHING`, id, product, hardware, string(device.Active),
		string(device.Imported), notEmpty(key), device.OriginImported, false, Millis(at), twin, kit, string(device.Says)); err != nil {
		return err
	}
	res, err := tx.Of(id).Exec(`UPDATE device SET hardware = $1, identity = $2, doc = $6, kit = $7, release = NULL, version = '' WHERE id = $3 AND product = $4 AND assurance = $5
		AND state NOT IN `+retiring, hardware, notEmpty(key), id, product, string(device.Says), twin, kit)
	if err != nil {
		return err
	}
	if err := one(res, legacy.ErrExists); err != nil {
		return err
	}
	return stir(tx, id)
}

func saveClient(tx *Tx, c legacy.Client) error {
	doc, err := json.Marshal(c.Details)
	if err != nil {
		return err
	}
	res, err := tx.Of(c.Device).Exec(`UPDATE legacy_client SET state = $1, device = $2, token = $3, key = $4, doc = $5, rev = rev + 1 WHERE kind = $6 AND product = $7 AND name = $8 AND rev = $9`,
		string(c.State), c.Device, notEmpty(c.Secret), notEmpty(c.Key), string(doc), string(c.Kind), c.Product, c.Name, c.Rev)
	if err != nil {
		return err
	}
	return one(res, legacy.ErrChanged)
}

// Save implements legacy.Store.
func (s Legacy) Save(ctx context.Context, c legacy.Client, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		if err := saveClient(tx, c); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// AddGateway implements legacy.Store.
func (s Legacy) AddGateway(ctx context.Context, g legacy.Gateway, token []byte, fact ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`INSERT INTO legacy_gateway (product, name, token, at, by) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
			g.Product, g.Name, token, Millis(g.At), g.By)
		if err != nil {
			return err
		}
		if err := one(res, legacy.ErrExists); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// EndGateway implements legacy.Store.
func (s Legacy) EndGateway(ctx context.Context, product, name string, fact ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`DELETE FROM legacy_gateway WHERE product = $1 AND name = $2`, product, name)
		if err != nil {
			return err
		}
		if err := one(res, legacy.ErrNotFound); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

const gatewayColumns = `SELECT product, name, at, by FROM legacy_gateway`

func scanGateway(row scanner) (legacy.Gateway, error) {
	var g legacy.Gateway
	var at int64
	err := row.Scan(&g.Product, &g.Name, &at, &g.By)
	if errors.Is(err, sql.ErrNoRows) {
		return g, legacy.ErrNotFound
	}
	g.At = Time(at)
	return g, err
}

// Gateways implements legacy.Store.
func (s Legacy) Gateways(ctx context.Context, product string) ([]legacy.Gateway, error) {
	return collect(ctx, s.db, scanGateway, gatewayColumns+` WHERE product = $1 ORDER BY name`, product)
}

// GatewayOf implements legacy.Store.
func (s Legacy) GatewayOf(ctx context.Context, product string, token []byte) (legacy.Gateway, error) {
	return scanGateway(s.db.Read().QueryRowContext(ctx, gatewayColumns+` WHERE token = $1 AND product = $2`, token, product))
}

// ClientOf implements legacy.Store.
func (s Legacy) ClientOf(ctx context.Context, kind legacy.Kind, token []byte) (legacy.Client, error) {
	return scanClient(s.db.Read().QueryRowContext(ctx, clientColumns+` WHERE token = $1 AND kind = $2`, token, string(kind)))
}

// KeepLog implements legacy.Store.
func (s Legacy) KeepLog(ctx context.Context, id string, l legacy.Log, before time.Time) error {
	body, err := json.Marshal(l.Messages)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`DELETE FROM legacy_log WHERE at < $1`, Millis(before)); err != nil {
			return err
		}
		res, err := tx.Exec(`INSERT INTO legacy_log (device_id, number, at, body) SELECT device_id, number, $1, $2 FROM legacy_action WHERE number = $3 AND device_id = $4
			ON CONFLICT (device_id, number) DO UPDATE SET at = excluded.at, body = excluded.body`, Millis(l.At), body, l.Number, id)
		if err != nil {
			return err
		}
		if err := one(res, legacy.ErrNotFound); err != nil {
			return err
		}
		_, err = tx.Exec(`DELETE FROM legacy_log WHERE device_id = $1 AND number NOT IN (SELECT number FROM legacy_log WHERE device_id = $1 ORDER BY number DESC LIMIT $2)`, id, legacy.MaxLogs)
		return err
	})
}

// Logs implements legacy.Store.
func (s Legacy) Logs(ctx context.Context, id string) ([]legacy.Log, error) {
	return collect(ctx, s.db, func(row scanner) (legacy.Log, error) {
		var l legacy.Log
		var at int64
		var body []byte
		if err := row.Scan(&l.Number, &at, &body); err != nil {
			return l, err
		}
		l.At = Time(at)
		return l, json.Unmarshal(body, &l.Messages)
	}, `SELECT number, at, body FROM legacy_log WHERE device_id = $1 ORDER BY number DESC LIMIT $2`, id, legacy.MaxLogs)
}

const actionColumns = `SELECT a.number, a.device_id, a.offered, a.ended, a.rev, a.doc, x.state, ` + commandColumns + `
	FROM legacy_action a JOIN command c ON c.id = a.command_id JOIN command_device x ON x.command_id = a.command_id AND x.device_id = a.device_id`

// prefixed scans what comes before a row's other columns.
type prefixed struct {
	row  scanner
	dest []any
}

func (p prefixed) Scan(dest ...any) error { return p.row.Scan(append(p.dest, dest...)...) }

func scanAction(row scanner) (device.Action, error) {
	var a device.Action
	var offered, ended int64
	var doc []byte
	var err error
	a.Command, err = scanCommand(prefixed{row, []any{&a.Number, &a.Device, &offered, &ended, &a.Rev, &doc, &a.Standing}})
	if err != nil {
		return a, err
	}
	a.Offered, a.Ended = Time(offered), timeOrZero(ended)
	if err := json.Unmarshal(doc, &a.Note); err != nil {
		return a, fmt.Errorf("stored action %d: %w", a.Number, err)
	}
	return a, nil
}

// Actions implements device.Offers.
func (s Legacy) Actions(ctx context.Context, id string, limit int) ([]device.Action, error) {
	return collect(ctx, s.db, scanAction, actionColumns+` WHERE a.device_id = $1 ORDER BY a.number DESC LIMIT $2`, id, limit)
}

// Action implements device.Offers.
func (s Legacy) Action(ctx context.Context, id string, number int32) (device.Action, error) {
	return scanAction(s.db.Read().QueryRowContext(ctx, actionColumns+` WHERE a.number = $1 AND a.device_id = $2`, number, id))
}

// NewAction implements device.Offers.
func (s Legacy) NewAction(ctx context.Context, id, command string, at time.Time) (device.Action, error) {
	var number int64
	if err := s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Of(id).Exec(`UPDATE command_device SET state = 'delivered', attempts = attempts + 1, at = $1
			WHERE command_id = $2 AND device_id = $3 AND state IN ('pending', 'delivered')`, Millis(at), command, id)
		if err != nil {
			return err
		}
		if err := one(res, device.ErrChanged); err != nil {
			return err
		}
		if err := tx.Of(id).QueryRow(`INSERT INTO legacy_action (device_id, command_id, offered, doc) VALUES ($1, $2, $3, '{}')
			ON CONFLICT (device_id, command_id) DO UPDATE SET offered = legacy_action.offered RETURNING number`, id, command, Millis(at)).Scan(&number); err != nil {
			return err
		}
		if number > math.MaxInt32 {
			return errors.New("all numbers that clients of other update systems understand have been given")
		}
		return nil
	}); err != nil {
		return device.Action{}, err
	}
	return s.Action(ctx, id, int32(number))
}

// NoteAction implements device.Offers.
func (s Legacy) NoteAction(ctx context.Context, a device.Action) error {
	return s.db.Write(ctx, func(tx *Tx) error { return noteAction(tx, a) })
}

func noteAction(tx *Tx, a device.Action) error {
	doc, err := json.Marshal(a.Note)
	if err != nil {
		return err
	}
	var ended int64
	if !a.Ended.IsZero() {
		ended = Millis(a.Ended)
	}
	res, err := tx.Of(a.Device).Exec(`UPDATE legacy_action SET ended = $1, doc = $2, rev = rev + 1 WHERE number = $3 AND device_id = $4 AND rev = $5`, ended, string(doc), a.Number, a.Device, a.Rev)
	if err != nil {
		return err
	}
	return one(res, device.ErrChanged)
}

// Doubted implements device.Offers.
func (s Legacy) Doubted(ctx context.Context, id string) (yes bool, err error) {
	err = s.db.Read().QueryRowContext(ctx, `SELECT count(*) > 0 FROM rollout_place WHERE device_id = $1 AND open = 1 AND mark = $2`, id, string(rollout.Proving)).Scan(&yes)
	return yes, s.db.dialect.Explain(err)
}

// Versioned implements device.Offers.
func (s Legacy) Versioned(ctx context.Context, product, version string) ([]byte, error) {
	var digest []byte
	err := s.db.Read().QueryRowContext(ctx, `SELECT digest FROM release WHERE product = $1 AND version = $2 AND published > 0`, product, version).Scan(&digest)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return digest, s.db.dialect.Explain(err)
}

// Sums gives what was kept of an artifact; false: nothing was.
func (s Legacy) Sums(ctx context.Context, digest [32]byte) (w legacy.Sums, ok bool, err error) {
	err = s.db.Read().QueryRowContext(ctx, `SELECT sha1, md5, suffix FROM artifact_weak WHERE digest = $1`, digest[:]).Scan(&w.SHA1, &w.MD5, &w.Suffix)
	if errors.Is(err, sql.ErrNoRows) {
		return w, false, nil
	}
	return w, err == nil, s.db.dialect.Explain(err)
}

// KeepSums keeps it. It follows from the digest: whoever was first said the same.
func (s Legacy) KeepSums(ctx context.Context, digest [32]byte, w legacy.Sums) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO artifact_weak (digest, sha1, md5, suffix) VALUES ($1, $2, $3, $4) ON CONFLICT (digest) DO NOTHING`, digest[:], w.SHA1, w.MD5, w.Suffix)
		return err
	})
}

// Head gives what was kept of an artifact's head; false: nothing was.
func (s Legacy) Head(ctx context.Context, digest [32]byte) (h mender.Head, ok bool, err error) {
	var types []byte
	err = s.db.Read().QueryRowContext(ctx, `SELECT name, types FROM mender_artifact WHERE digest = $1`, digest[:]).Scan(&h.Name, &types)
	if errors.Is(err, sql.ErrNoRows) {
		return h, false, nil
	}
	if err != nil {
		return h, false, s.db.dialect.Explain(err)
	}
	return h, true, json.Unmarshal(types, &h.DeviceTypes)
}

// KeepHead keeps it. It follows from the digest, as sums do.
func (s Legacy) KeepHead(ctx context.Context, digest [32]byte, h mender.Head) error {
	types, err := json.Marshal(h.DeviceTypes)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO mender_artifact (digest, name, types) VALUES ($1, $2, $3) ON CONFLICT (digest) DO NOTHING`, digest[:], h.Name, string(types))
		return err
	})
}

// Named gives the versions of a product's published releases that have an artifact of that name, at most two: which of them a client runs that says it, nobody can tell.
func (s Legacy) Named(ctx context.Context, product, name string) (versions []string, err error) {
	return collect(ctx, s.db, func(row scanner) (version string, err error) { return version, row.Scan(&version) },
		`SELECT DISTINCT r.version FROM mender_artifact a JOIN release_component c ON c.artifact = a.digest AND c.product = $1 JOIN release r ON r.digest = c.release
		WHERE a.name = $2 AND a.name <> '' AND r.published > 0 LIMIT 2`, product, name)
}

// Headless gives artifacts of a product's published releases of whose heads nothing is kept, at most limit.
func (s Legacy) Headless(ctx context.Context, product string, limit int) ([][32]byte, error) {
	return collect(ctx, s.db, func(row scanner) (d [32]byte, err error) {
		var digest []byte
		if err = row.Scan(&digest); err == nil && copy(d[:], digest) != len(d) {
			err = fmt.Errorf("stored digest of %d bytes", len(digest))
		}
		return d, err
	}, `SELECT DISTINCT c.artifact FROM release_component c JOIN release r ON r.digest = c.release LEFT JOIN mender_artifact a ON a.digest = c.artifact
		WHERE c.product = $1 AND r.published > 0 AND a.digest IS NULL LIMIT $2`, product, atMost(limit))
}

// forgetClient forgets what a client of another update system called itself, and what it said.
func forgetClient(tx *Tx, id string) error {
	for _, query := range []string{`DELETE FROM legacy_client WHERE device = $1`, `UPDATE legacy_action SET doc = '{}' WHERE device_id = $1`, `DELETE FROM legacy_log WHERE device_id = $1`} {
		if _, err := tx.Of(id).Exec(query, id); err != nil {
			return err
		}
	}
	return nil
}
