package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// Rollouts keeps rollouts: it implements rollout.Store.
type Rollouts struct{ db *DB }

// Rollouts gives the store of stage rollout.
func (db *DB) Rollouts() *Rollouts { return &Rollouts{db} }

// PutRollout implements rollout.Store.
func (s *Rollouts) PutRollout(ctx context.Context, r rollout.Rollout, facts ...ledger.Fact) error {
	doc, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`INSERT INTO rollout (id, product, place, phase, open, created, rev, uid, doc) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (id) DO NOTHING`, r.Spec.ID, r.Spec.Product,
			access.Join(r.Spec.Product, r.Spec.Selection.Group), string(r.Phase), !r.Phase.Ended(), Millis(r.Created), r.Rev, r.UID[:], string(doc))
		if err != nil {
			return err
		}
		if err := one(res, rollout.ErrExists); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

const rolloutColumns = `SELECT id, rev, uid, doc FROM rollout`

func scanRollout(row scanner) (rollout.Rollout, error) {
	var r rollout.Rollout
	var id, doc string
	var uid []byte
	var rev int64
	err := row.Scan(&id, &rev, &uid, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return r, rollout.ErrNotFound
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(doc), &r); err != nil || len(uid) != 16 || r.Spec.ID != id {
		return r, fmt.Errorf("stored rollout %s: %w", id, errors.Join(err, errDamaged))
	}
	r.UID, r.Rev = [16]byte(uid), rev
	return r, nil
}

// Rollout implements rollout.Store.
func (s *Rollouts) Rollout(ctx context.Context, id string) (rollout.Rollout, error) {
	return scanRollout(s.db.Read().QueryRowContext(ctx, rolloutColumns+` WHERE id = $1`, id))
}

// Rollouts implements rollout.Store.
func (s *Rollouts) Rollouts(ctx context.Context, scope []string, open bool, after string, limit int) ([]rollout.Rollout, error) {
	list, err := listOf(scope)
	if err != nil {
		return nil, err
	}
	query := rolloutColumns + ` WHERE ` + placeInScope("rollout.place", 1) + behind("rollout", "id")
	if open {
		query += ` AND open = 1`
	}
	return collect(ctx, s.db, scanRollout, query+` ORDER BY created DESC, id LIMIT $3`, list, after, atMost(limit))
}

// StartRollout implements rollout.Store.
func (s *Rollouts) StartRollout(ctx context.Context, r rollout.Rollout, members []rollout.Member, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		if err := saveRollout(tx, r); err != nil {
			return err
		}
		for _, m := range members {
			res, err := tx.Exec(`INSERT INTO rollout_device (rollout_id, wave, device_id, previous, open) VALUES ($1, $2, $3, $4, 1)
				ON CONFLICT DO NOTHING`, r.Spec.ID, m.Wave, m.Device, notNil(m.Previous))
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil {
				return err
			} else if n == 0 {
				return busy(tx, m.Device)
			}
		}
		return tx.Append(facts...)
	})
}

func busy(tx *Tx, device string) error {
	b := &rollout.BusyError{Device: device}
	if err := tx.QueryRow(`SELECT rollout_id FROM rollout_device WHERE device_id = $1 AND open = 1`, device).Scan(&b.Rollout); err != nil {
		return fmt.Errorf("device %s: %w", device, err)
	}
	return b
}

// SaveRollout implements rollout.Store.
func (s *Rollouts) SaveRollout(ctx context.Context, r rollout.Rollout, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		if err := saveRollout(tx, r); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

func saveRollout(tx *Tx, r rollout.Rollout) error {
	doc, err := json.Marshal(r)
	if err != nil {
		return err
	}
	res, err := tx.Exec(`UPDATE rollout SET phase = $1, open = $2, started = $3, uid = $4, doc = $5, rev = rev + 1 WHERE id = $6 AND rev = $7`,
		string(r.Phase), !r.Phase.Ended(), Millis(r.Started), r.UID[:], string(doc), r.Spec.ID, r.Rev)
	if err != nil {
		return err
	}
	if err := one(res, rollout.ErrChanged); err != nil {
		return err
	}
	if r.Phase.Ended() {
		_, err = tx.Exec(`UPDATE rollout_device SET open = 0 WHERE rollout_id = $1 AND open = 1`, r.Spec.ID)
	}
	return err
}

// RolloutCandidates implements rollout.Store.
func (s *Rollouts) RolloutCandidates(ctx context.Context, product string, sel rollout.Selection, state device.State) ([]rollout.Candidate, error) {
	scope, err := listOf([]string{access.Join(product, sel.Group)})
	if err != nil {
		return nil, err
	}
	const columns = `SELECT d.id, d.product, d.hardware, d.state, d.release, d.assurance, d.doc, coalesce(x.rollout_id, '') FROM device d
		LEFT JOIN rollout_device x ON x.device_id = d.id AND x.open = 1`
	if len(sel.IDs) == 0 {
		return collect(ctx, s.db, scanCandidate, columns+` WHERE d.product = $2 AND d.state = $3 AND`+inScope("d.product", "d.id")+` ORDER BY d.id`,
			scope, product, string(state))
	}
	list, err := listOf(sel.IDs)
	if err != nil {
		return nil, err
	}
	return collect(ctx, s.db, scanCandidate, columns+` WHERE d.id IN (SELECT l.value FROM list($2) AS l) AND`+inScope("d.product", "d.id")+` ORDER BY d.id`,
		scope, list)
}

func scanCandidate(row scanner) (rollout.Candidate, error) {
	var c rollout.Candidate
	var doc string
	if err := row.Scan(&c.ID, &c.Product, &c.Hardware, &c.State, &c.Release, &c.Assurance, &doc, &c.Busy); err != nil {
		return c, err
	}
	var t device.Twin
	err := json.Unmarshal([]byte(doc), &t)
	if err != nil {
		return c, fmt.Errorf("device %s: twin: %w", c.ID, err)
	}
	c.Trial, c.Version, c.Room, c.Left = t.Trial, t.Version, t.Room, t.Left
	c.Settings, err = device.Shown(t)
	return c, err
}

// RolloutSnapshot implements rollout.Store. Commands are found by what was signed, not by what the rollout noted of them.
func (s *Rollouts) RolloutSnapshot(ctx context.Context, id string, from, to int) ([]rollout.Status, error) {
	install, back, err := s.rolloutCommands(ctx, id, from, to)
	if err != nil {
		return nil, err
	}
	snap, err := collect(ctx, s.db, scanStatus, `SELECT d.id, x.wave, d.state, x.previous, d.assurance, d.doc, d.last_seen,
		v.doc FROM rollout_device x JOIN device d ON d.id = x.device_id
		LEFT JOIN verdict_current c ON c.device_id = d.id LEFT JOIN verdict v ON v.uid = c.uid
		WHERE x.rollout_id = $1 AND x.wave >= $2 AND x.wave <= $3 ORDER BY d.id`, id, from, to)
	if err != nil {
		return nil, err
	}
	at := make(map[string]int, len(snap))
	for i, st := range snap {
		at[st.Device] = i
	}
	for _, c := range install {
		if err := s.orders(ctx, c, at, func(i int, o rollout.Order) { snap[i].Install = o }); err != nil {
			return nil, err
		}
	}
	for _, c := range back {
		if err := s.orders(ctx, c, at, func(i int, o rollout.Order) {
			if snap[i].Back.Standing != device.Done { // who went back refuses what tells it to once more
				snap[i].Back = o
			}
		}); err != nil {
			return nil, err
		}
	}
	return snap, nil
}

type issued struct {
	id      string
	at      time.Time
	expires time.Time
	w       wire.Command
}

func scanIssued(row scanner) (issued, error) {
	var c issued
	var doc []byte
	var at, expires int64
	if err := row.Scan(&c.id, &at, &expires, &doc); err != nil {
		return c, err
	}
	c.at, c.expires = Time(at), Time(expires)
	var err error
	c.w, err = wire.DecodeCommand(doc)
	return c, err
}

// rolloutCommands finds the commands that brought the release to some waves, and those that send devices back, oldest first.
func (s *Rollouts) rolloutCommands(ctx context.Context, id string, from, to int) (install, back []issued, err error) {
	all, err := collect(ctx, s.db, scanIssued, `SELECT c.id, c.issued, c.expires, c.doc FROM command c
		WHERE c.rollout = $1 AND c.rollout <> '' AND c.act IN ('install', 'rollback') UNION ALL
		SELECT c.id, c.issued, c.expires, c.doc FROM rollout r JOIN command c ON c.product = r.product
		AND c.act IN ('install', 'rollback') AND c.issued >= r.started AND c.rollout IS NULL WHERE r.id = $1 AND r.started > 0 ORDER BY 2, 1`, id)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range all {
		switch {
		case c.w.Rollout != id:
		case c.w.Act == wire.ActInstall:
			if c.w.Wave >= uint(from) && c.w.Wave <= uint(to) {
				install = append(install, c)
			}
		default:
			back = append(back, c)
		}
	}
	return install, back, nil
}

type standing struct {
	device string
	rollout.Order
}

func (s *Rollouts) orders(ctx context.Context, c issued, at map[string]int, set func(int, rollout.Order)) error {
	rows, err := collect(ctx, s.db, func(row scanner) (standing, error) {
		var o standing
		var ms int64
		err := row.Scan(&o.device, &o.Standing, &o.Attempts, &ms)
		o.Command, o.Issued, o.Expires, o.At = c.id, c.at, c.expires, Time(ms)
		return o, err
	}, `SELECT device_id, state, attempts, at FROM command_device WHERE command_id = $1`, c.id)
	if err != nil {
		return err
	}
	for _, o := range rows {
		if i, ok := at[o.device]; ok {
			set(i, o.Order)
		}
	}
	return nil
}

func scanStatus(row scanner) (rollout.Status, error) {
	var s rollout.Status
	var doc string
	var seen int64
	var verdict sql.NullString
	if err := row.Scan(&s.Device, &s.Wave, &s.State, &s.Previous, &s.Assurance, &doc, &seen, &verdict); err != nil {
		return s, err
	}
	var t device.Twin
	if err := json.Unmarshal([]byte(doc), &t); err != nil {
		return s, fmt.Errorf("device %s: twin: %w", s.Device, err)
	}
	s.Running, s.Trial, s.Seen = t.Release, t.Trial, Time(seen)
	switch {
	case t.Sick:
		s.Health = rollout.Unhealthy
	case t.Healthy:
		s.Health = rollout.Healthy
	}
	if verdict.Valid {
		var v attest.Verdict
		if err := json.Unmarshal([]byte(verdict.String), &v); err != nil {
			return s, fmt.Errorf("device %s: verdict: %w", s.Device, err)
		}
		s.Verdict, s.VerdictAt, s.Proven = v.Status.String(), v.At, v.Release
	}
	return s, nil
}
