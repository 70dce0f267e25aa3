package store

import (
	"context"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// FleetSummary implements fleet.Reader.
func (db *DB) FleetSummary(ctx context.Context, scope []string) (fleet.Summary, error) {
	s := fleet.Summary{Verdicts: map[string]int{}, Severity: map[string]int{}, At: time.Now().UTC()}
	list, err := scopeList(scope)
	if err != nil {
		return s, err
	}
	where, args := ``, []any(nil)
	if len(scope) > 0 {
		where, args = ` WHERE`+inScope("d.product", "d.id", 1), []any{list}
	}
	if s.States, err = counts[string](ctx, db, `SELECT d.state, count(*) FROM device d`+where+` GROUP BY 1`, args...); err != nil {
		return s, err
	}
	for _, n := range s.States {
		s.Total += n
	}
	if s.Versions, err = counts[string](ctx, db,
		`SELECT coalesce(json_extract(d.doc, '$.version'), ''), count(*) FROM device d`+where+` GROUP BY 1`, args...); err != nil {
		return s, err
	}
	if err := db.verdicts(ctx, &s, where, args); err != nil {
		return s, err
	}
	if s.Severity, err = counts[string](ctx, db, `SELECT d.severity, count(*) FROM finding d WHERE d.closed = 0 AND`+inScope("d.product", "d.subject", 1)+` GROUP BY 1`,
		list); err != nil {
		return s, err
	}
	for _, n := range s.Severity {
		s.Findings += n
	}
	s.Seen, err = db.ages(ctx, where, args, s.At)
	return s, err
}

func (db *DB) verdicts(ctx context.Context, s *fleet.Summary, where string, args []any) error {
	from := `verdict_current c`
	if where != "" {
		from += ` JOIN device d ON d.id = c.device_id`
	}
	byStatus, err := collect(ctx, db, func(row scanner) ([2]int, error) {
		var out [2]int
		return out, row.Scan(&out[0], &out[1])
	}, `SELECT c.status, count(*) FROM `+from+where+` GROUP BY 1`, args...)
	if err != nil {
		return err
	}
	s.Verdicts["unknown"] = s.Total
	for _, v := range byStatus {
		if word := attest.Tier(v[0]).String(); word != attest.None.String() {
			s.Verdicts[word] += v[1]
			s.Verdicts["unknown"] -= v[1]
		}
	}
	return nil
}

// reporting are the states in which a device is expected to report.
const reporting = `d.state IN ('onboarded', 'active', 'quarantined')`

// ages counts by how long ago devices were last seen.
func (db *DB) ages(ctx context.Context, where string, args []any, now time.Time) ([]fleet.Age, error) {
	if where == "" {
		where = ` WHERE ` + reporting
	} else {
		where += ` AND ` + reporting
	}
	var out []fleet.Age
	counted := 0
	for _, under := range []time.Duration{5 * time.Minute, time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 0} {
		query, with := `SELECT count(*) FROM device d`+where, args
		if under > 0 {
			with = append(append([]any{}, args...), Millis(now.Add(-under)))
			query += fmt.Sprintf(` AND d.last_seen > $%d`, len(with))
		}
		var n int
		if err := db.Read().QueryRowContext(ctx, query, with...).Scan(&n); err != nil {
			return nil, db.dialect.Explain(err)
		}
		out = append(out, fleet.Age{Under: under, Devices: n - counted})
		counted = n
	}
	return out, nil
}

// FleetFindings implements fleet.Reader.
func (db *DB) FleetFindings(ctx context.Context, q fleet.FindingQuery) ([]monitor.Finding, error) {
	list, err := scopeList(q.Scope)
	if err != nil {
		return nil, err
	}
	query, args := `SELECT d.doc, coalesce((SELECT o.group_path FROM device o WHERE o.id = d.subject), '') FROM finding d WHERE`+inScope("d.product", "d.subject", 1), []any{list}
	and := func(condition string, value any) {
		args = append(args, value)
		query += fmt.Sprintf(condition, len(args))
	}
	if q.Subject != "" {
		and(` AND d.subject = $%d`, q.Subject)
	} else {
		and(` AND d.closed = 0 AND d.severity = $%d`, string(q.Severity))
	}
	if !q.Before.IsZero() {
		and(` AND d.raised < $%d`, Millis(q.Before))
	}
	and(` ORDER BY d.raised DESC LIMIT $%d`, q.Limit)
	return collect(ctx, db, scanFinding, query, args...)
}

// FleetCertificates implements fleet.Reader.
func (db *DB) FleetCertificates(ctx context.Context, q fleet.CertQuery) ([]fleet.Certificate, error) {
	const columns = `SELECT device, role, serial, issuer, not_before, not_after, ended FROM cert WHERE `
	query, args := columns+`ended = 0 AND not_after > $1 AND not_after < $2 ORDER BY not_after LIMIT $3`,
		[]any{Millis(q.After), Millis(idevid.NoExpiry()), q.Limit}
	if q.Device != "" {
		query, args = columns+`device = $1 ORDER BY not_before DESC LIMIT $2`, []any{q.Device, q.Limit}
	}
	return collect(ctx, db, func(row scanner) (c fleet.Certificate, err error) {
		var from, to, ended int64
		err = row.Scan(&c.Device, &c.Role, &c.Serial, &c.Issuer, &from, &to, &ended)
		c.NotBefore, c.NotAfter = Time(from), Time(to)
		if ended != 0 {
			c.Ended = Time(ended)
		}
		return c, err
	}, query, args...)
}

// FleetExpiry implements fleet.Reader.
func (db *DB) FleetExpiry(ctx context.Context, now time.Time) (fleet.Expiry, error) {
	const days = 31
	day := 24 * time.Hour
	e := fleet.Expiry{At: now}
	today := now.UTC().Truncate(day)
	for i := range days {
		e.Days = append(e.Days, fleet.ExpiryDay{Day: today.Add(time.Duration(i) * day)})
	}
	const count = `SELECT count(*) FROM cert WHERE ended = 0 AND not_after > $1 AND not_after <= $2`
	for _, c := range []struct {
		from, to time.Time
		into     *int
	}{{time.UnixMilli(0), now, &e.Overdue}, {today.Add(days * day), idevid.NoExpiry().Add(-time.Hour), &e.Later}} {
		if err := db.Read().QueryRowContext(ctx, count, Millis(c.from), Millis(c.to)).Scan(c.into); err != nil {
			return e, db.dialect.Explain(err)
		}
	}
	byDay, err := collect(ctx, db, func(row scanner) ([2]int, error) {
		var out [2]int
		return out, row.Scan(&out[0], &out[1])
	}, `SELECT (not_after - $3) / 86400000, count(*) FROM cert WHERE ended = 0 AND not_after > $1 AND not_after <= $2 GROUP BY 1`,
		Millis(now), Millis(today.Add(days*day)), Millis(today))
	if err != nil {
		return e, err
	}
	for _, d := range byDay {
		if d[0] >= 0 && d[0] < days {
			e.Days[d[0]].Count = d[1]
		}
	}
	e.Authorities, err = collect(ctx, db, func(row scanner) (a fleet.Authority, err error) {
		var der []byte
		if err := row.Scan(&a.Role, &der); err != nil {
			return a, err
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return a, fmt.Errorf("stored CA: %w", err)
		}
		a.Name, a.NotAfter = c.Subject.CommonName, c.NotAfter
		return a, nil
	}, `SELECT role, der FROM ca ORDER BY role LIMIT 200`)
	return e, err
}

// FleetRuns implements fleet.Reader.
func (db *DB) FleetRuns(ctx context.Context, release []byte, scope []string) (map[string]int, error) {
	list, err := scopeList(scope)
	if err != nil {
		return nil, err
	}
	return counts[string](ctx, db, `SELECT d.state, count(*) FROM device d WHERE d.release = $1 AND`+inScope("d.product", "d.id", 2)+` GROUP BY 1`, release, list)
}

// maxStreams bounds the list: streams are named by the product's firmware, a handful of them.
const maxStreams = 100

// FleetStreams implements fleet.Reader. It jumps from name to name: there are few among many rows.
func (db *DB) FleetStreams(ctx context.Context) ([]fleet.Stream, error) {
	var out []fleet.Stream
	var s fleet.Stream
	for range maxStreams {
		err := db.Read().QueryRowContext(ctx, `SELECT stream FROM stream_epoch WHERE stream > $1 ORDER BY stream LIMIT 1`, s.Name).Scan(&s.Name)
		if errors.Is(err, sql.ErrNoRows) {
			break
		}
		if err == nil {
			err = db.Read().QueryRowContext(ctx, `SELECT count(DISTINCT device) FROM stream_epoch WHERE stream = $1`, s.Name).Scan(&s.Devices)
		}
		if err != nil {
			return nil, db.dialect.Explain(err)
		}
		out = append(out, s)
	}
	return out, nil
}

// FleetGrants implements fleet.Reader.
func (db *DB) FleetGrants(ctx context.Context, limit int) ([]telemetry.Grant, error) {
	return collect(ctx, db, func(row scanner) (g telemetry.Grant, err error) {
		var doc []byte
		if err := row.Scan(&doc); err != nil {
			return g, err
		}
		return g, json.Unmarshal(doc, &g)
	}, `SELECT doc FROM stream_grant ORDER BY id LIMIT $1`, limit)
}

// FleetBacklog implements fleet.Reader.
func (db *DB) FleetBacklog(ctx context.Context) (b fleet.Backlog, err error) {
	if b.Unplaced, err = counts[string](ctx, db, `SELECT log, count(*) FROM entry WHERE idx IS NULL GROUP BY log`); err != nil {
		return b, err
	}
	sizes, err := counts[string](ctx, db, `SELECT log, size FROM tlog_state`)
	if err != nil {
		return b, err
	}
	next, err := counts[string](ctx, db, `SELECT name, next FROM follower`)
	if err != nil {
		return b, err
	}
	b.Sequenced, b.Followers = map[string]uint64{}, map[string]uint64{}
	for k, n := range sizes {
		b.Sequenced[k] = uint64(n)
	}
	for k, n := range next {
		b.Followers[k] = uint64(n)
	}
	err = db.Read().QueryRowContext(ctx, `SELECT count(*) FROM command_device WHERE state IN ('pending', 'delivered')`).Scan(&b.Orders)
	return b, db.dialect.Explain(err)
}
