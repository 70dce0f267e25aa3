package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
)

// Monitor implements monitor.Store.
type Monitor struct{ db *DB }

// Monitor gives the store of stage monitor.
func (db *DB) Monitor() *Monitor { return &Monitor{db} }

// PutFinding implements monitor.Store.
func (s *Monitor) PutFinding(ctx context.Context, f monitor.Finding, fact ledger.Fact) (monitor.Finding, error) {
	doc, err := json.Marshal(f)
	if err != nil {
		return f, err
	}
	var log, idx any // NULL: no fact led to it
	if f.Cause != nil {
		log, idx = string(f.Cause.Log), int64(f.Cause.Index)
	}
	out := f
	err = s.db.Write(ctx, func(tx *Tx) error {
		stored, err := did(tx.Exec(`INSERT INTO finding (id, dedupe, kind, severity, product, subject, raised, doc, cause_log, cause_idx)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING`,
			f.ID, f.Dedupe, string(f.Kind), string(f.Severity), f.Product, f.Subject, Millis(f.Raised), string(doc), log, idx))
		if err != nil {
			return err
		}
		if !stored { // the open one first: it is the trouble that lasts
			out, err = scanFinding(tx.QueryRow(findingColumns+` WHERE f.dedupe = $1 AND f.closed = 0 OR f.kind = $2 AND f.cause_log = $3 AND f.cause_idx = $4
				ORDER BY f.closed, f.id LIMIT 1`, f.Dedupe, string(f.Kind), log, idx))
			return err
		}
		if err := countFinding(tx, f.Subject, 1); err != nil {
			return err
		}
		if err := ageVerdict(tx, f); err != nil {
			return err
		}
		return tx.Append(fact)
	})
	return out, err
}

// CloseFinding implements monitor.Store.
func (s *Monitor) CloseFinding(ctx context.Context, f monitor.Finding, fact ledger.Fact) error {
	doc, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE finding SET closed = $1, doc = $2 WHERE id = $3 AND closed = 0`, Millis(f.Closed), string(doc), f.ID)
		if err != nil {
			return err
		}
		if err := one(res, monitor.ErrClosed); err != nil {
			return err
		}
		if err := countFinding(tx, f.Subject, -1); err != nil {
			return err
		}
		if err := ageVerdict(tx, f); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}

// countFinding keeps the number of open findings in the row of the device they are about, if they are about one.
func countFinding(tx *Tx, subject string, by int) error {
	res, err := tx.Of(subject).Exec(`UPDATE device SET findings = findings + $1 WHERE id = $2`, by, subject)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	return stir(tx, subject)
}

// ageVerdict has lists and counts read unknown for good evidence that is overdue, for as long as the finding is open that says so: what it said
// then is not what is so now. Bad evidence does not get better with age.
func ageVerdict(tx *Tx, f monitor.Finding) error {
	if f.Kind != monitor.NoAttestation {
		return nil
	}
	if f.Closed.IsZero() {
		_, err := tx.Of(f.Subject).Exec(`UPDATE device SET verdict = $1 WHERE id = $2 AND verdict <> $3`, int(attest.None), f.Subject, int(attest.Contraindicated))
		return err // the finding is a change of the device already
	}
	var status int
	err := tx.QueryRow(`SELECT status FROM verdict_current WHERE device_id = $1`, f.Subject).Scan(&status)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = list(tx, f.Subject, listedVerdict(attest.Tier(status)))
	return err
}

const findingColumns = `SELECT f.doc, coalesce((SELECT o.group_path FROM device o WHERE o.id = f.subject), '') FROM finding f`

func scanFinding(row scanner) (monitor.Finding, error) {
	var f monitor.Finding
	var doc []byte
	var group string
	err := row.Scan(&doc, &group)
	if errors.Is(err, sql.ErrNoRows) {
		return f, monitor.ErrNotFound
	}
	if err != nil {
		return f, err
	}
	err = json.Unmarshal(doc, &f)
	f.Group = group
	return f, err
}

// Finding implements monitor.Store.
func (s *Monitor) Finding(ctx context.Context, id string) (monitor.Finding, error) {
	return scanFinding(s.db.Read().QueryRowContext(ctx, findingColumns+` WHERE f.id = $1`, id))
}

// OpenFinding implements monitor.Store.
func (s *Monitor) OpenFinding(ctx context.Context, dedupe string) (monitor.Finding, error) {
	return scanFinding(s.db.Read().QueryRowContext(ctx, findingColumns+` WHERE f.dedupe = $1 AND f.closed = 0`, dedupe))
}

// Findings implements monitor.Store.
func (s *Monitor) Findings(ctx context.Context, q monitor.Query) ([]monitor.Finding, error) {
	query, args := findingPage(q)
	return collect(ctx, s.db, scanFinding, query, args...)
}

// findingPage walks along the IDs, those of a subject, or those that are open of a kind.
func findingPage(q monitor.Query) (query string, args []any) {
	query = findingColumns + ` WHERE 1 = 1`
	and := func(condition string, value any) {
		args = append(args, value)
		query += fmt.Sprintf(condition, len(args))
	}
	behind, order := ` AND f.id > $%d`, `f.id`
	if q.Newest {
		behind, order = ` AND f.id < $%d`, `f.id DESC`
	}
	if q.After != "" {
		and(behind, q.After)
	}
	if len(q.Scope) > 0 {
		text, with := placesOf(q.Scope, "f.product", "f.subject", len(args))
		query, args = query+` AND `+text, append(args, with...)
	}
	if q.Subject != "" {
		and(` AND f.subject = $%d`, q.Subject)
	}
	if q.Kind != "" {
		and(` AND f.kind = $%d`, string(q.Kind))
	}
	if q.OpenOnly {
		query += ` AND f.closed = 0`
	}
	and(` ORDER BY `+order+` LIMIT $%d`, q.Limit)
	return query, args
}

// Heard implements monitor.Store.
func (s *Monitor) Heard(ctx context.Context, kind monitor.Kind, limit int) ([]monitor.Finding, error) {
	last, join, err := silenceOf(kind)
	if err != nil {
		return nil, err
	}
	return collect(ctx, s.db, scanFinding, `SELECT f.doc, d.group_path FROM finding f JOIN device d ON d.id = f.subject`+join+`
		WHERE f.closed = 0 AND f.kind = $1 AND `+last+` > f.raised ORDER BY f.id LIMIT $2`, string(kind), limit)
}

// silenceOf gives the time that a kind of silence is measured from, and what must be joined for it.
func silenceOf(kind monitor.Kind) (last, join string, err error) {
	switch kind {
	case monitor.NoCheckin:
		return `d.last_seen`, ``, nil
	case monitor.NoAttestation:
		return `coalesce(v.at, 0)`, ` LEFT JOIN verdict_current v ON v.device_id = d.id`, nil
	case monitor.NoLog:
		return `coalesce(l.heard, 0)`, ` LEFT JOIN device_log l ON l.device = d.id`, nil
	default:
		return ``, ``, fmt.Errorf("silence of kind %q", kind)
	}
}

// Silent implements monitor.Store.
func (s *Monitor) Silent(ctx context.Context, kind monitor.Kind, before time.Time, limit int) ([]monitor.Silence, error) {
	last, join, err := silenceOf(kind)
	if err != nil {
		return nil, err
	}
	and := ``
	if kind == monitor.NoAttestation || kind == monitor.NoLog {
		and = ` AND d.assurance <> 'says'` // a client of another update system gives neither, and is shown as one that only says what it runs
	}
	if kind == monitor.NoLog {
		and += ` AND d.last_seen >= $1` // one that is not heard of at all is a finding of its own
	}
	return collect(ctx, s.db, func(row scanner) (monitor.Silence, error) {
		var out monitor.Silence
		var at int64
		err := row.Scan(&out.Device, &out.Product, &at)
		out.Last = Time(at)
		return out, err
	}, `SELECT d.id, d.product, `+last+` FROM device d`+join+`
		WHERE d.state IN `+reporting+` AND d.since < $1 AND `+last+` < $1`+and+`
		AND (d.key_origin <> 'imported' OR d.last_seen > 0) -- one without our agent says nothing, ever
		AND NOT EXISTS (SELECT 1 FROM finding f WHERE f.closed = 0 AND f.dedupe = $2 || '/' || d.id) ORDER BY d.id LIMIT $3`,
		Millis(before), string(kind), limit)
}

// OverdueBundles implements monitor.Bundles.
func (s *Monitor) OverdueBundles(ctx context.Context, now time.Time) ([]monitor.Overdue, error) {
	products, err := s.db.Products(ctx)
	if err != nil {
		return nil, err
	}
	var out []monitor.Overdue
	for _, p := range products {
		o := monitor.Overdue{Product: p.ID, Days: p.BundleDays()}
		var version, at int64
		err := s.db.Read().QueryRowContext(ctx, `SELECT b.version, e.at FROM bundle b JOIN entry e ON e.uid = b.uid
			WHERE b.product = $1 AND e.at <= $2 ORDER BY b.version DESC LIMIT 1`, p.ID, Millis(now.AddDate(0, 0, -o.Days))).Scan(&version, &at)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, s.db.dialect.Explain(err)
		}
		o.Version, o.Published = uint64(version), Time(at)
		out = append(out, o)
	}
	return out, nil
}

// Laggards implements monitor.Bundles.
func (s *Monitor) Laggards(ctx context.Context, o monitor.Overdue, limit int) ([]monitor.Laggard, error) {
	return collect(ctx, s.db, func(row scanner) (l monitor.Laggard, err error) {
		var version int64
		err = row.Scan(&l.Device, &version)
		l.Bundle = uint64(version)
		return l, err
	}, `SELECT d.id, d.bundle FROM device d WHERE d.product = $1 AND d.bundle < $2 AND d.last_seen >= $3
		AND d.state IN `+inField+`
		AND (d.key_origin <> 'imported' OR d.bundle > 0) -- one without our agent has none
		AND NOT EXISTS (SELECT 1 FROM finding f WHERE f.closed = 0 AND f.dedupe = $4 || '/' || d.id) ORDER BY d.id LIMIT $5`,
		o.Product, int64(o.Version), Millis(o.Published.AddDate(0, 0, o.Days)), string(monitor.BundleBehind), limit)
}

// CaughtUp implements monitor.Bundles.
func (s *Monitor) CaughtUp(ctx context.Context, o monitor.Overdue, limit int) ([]monitor.Finding, error) {
	return collect(ctx, s.db, scanFinding, `SELECT f.doc, d.group_path FROM finding f JOIN device d ON d.id = f.subject
		WHERE f.closed = 0 AND f.kind = $1 AND d.product = $2 AND d.bundle >= $3 ORDER BY f.id LIMIT $4`, string(monitor.BundleBehind), o.Product, int64(o.Version), limit)
}
