package store

import (
	"context"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// FleetSummary implements fleet.Reader. It goes through each place of the scope once, along an index where there is one that has all that is
// counted.
func (db *DB) FleetSummary(ctx context.Context, scope []string) (fleet.Summary, error) {
	s := fleet.Summary{
		States: map[string]int{}, Versions: map[string]int{}, Verdicts: map[string]int{"unknown": 0}, Severity: map[string]int{}, At: time.Now().UTC(),
	}
	for _, under := range ages {
		s.Seen = append(s.Seen, fleet.Age{Under: under})
	}
	for _, place := range surveyed(scope) {
		if err := errors.Join(db.countDevices(ctx, &s, place), db.countAges(ctx, &s, place), db.countFindings(ctx, &s, place)); err != nil {
			return s, err
		}
	}
	return s, nil
}

// surveyed are the places of a scope that are not in another of them; one that is empty is everywhere.
func surveyed(scope []string) []string {
	if len(scope) == 0 {
		return []string{""}
	}
	var out []string
	for i, place := range scope {
		if !slices.ContainsFunc(scope, func(o string) bool { return o != place && strings.HasPrefix(place, o+"/") }) && !slices.Contains(scope[:i], place) {
			out = append(out, place)
		}
	}
	return out
}

// devicesAt are the devices d of a place, which is parameter 1; with a place that is everywhere there is none.
func devicesAt(place string) (from string, args []any) {
	switch {
	case place == "":
		return ` FROM device d WHERE 1 = 1`, nil
	case strings.Contains(place, "/"):
		return ` FROM device_group g CROSS JOIN device d WHERE g.path = $1 AND d.id = g.device_id`, []any{place}
	}
	return ` FROM device d WHERE d.product = $1`, []any{place}
}

func (db *DB) countDevices(ctx context.Context, s *fleet.Summary, place string) error {
	type cell struct {
		state, version string
		verdict        attest.Tier
		n              int
	}
	from, args := devicesAt(place)
	cells, err := collect(ctx, db, func(row scanner) (c cell, err error) {
		return c, row.Scan(&c.state, &c.version, &c.verdict, &c.n)
	}, `SELECT d.state, d.version, d.verdict, count(*)`+from+` GROUP BY d.state, d.version, d.verdict`, args...)
	for _, c := range cells {
		s.Total += c.n
		s.States[c.state] += c.n
		s.Versions[c.version] += c.n
		s.Verdicts[verdictWord(c.verdict)] += c.n
	}
	return err
}

func (db *DB) countFindings(ctx context.Context, s *fleet.Summary, place string) error {
	where, args := ``, []any(nil)
	if place != "" {
		text, with := placesOf([]string{place}, "f.product", "f.subject", 0)
		where, args = ` AND `+text, with
	}
	bySeverity, err := counts[string](ctx, db, `SELECT f.severity, count(*) FROM finding f WHERE f.closed = 0`+where+` GROUP BY f.severity`, args...)
	for severity, n := range bySeverity {
		s.Severity[severity] += n
		s.Findings += n
	}
	return err
}

// ages are what silence is sorted by; the last is all the rest.
var ages = []time.Duration{5 * time.Minute, time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 0}

// countAges counts by how long ago devices were last seen.
func (db *DB) countAges(ctx context.Context, s *fleet.Summary, place string) error {
	from, args := devicesAt(place)
	var query strings.Builder
	query.WriteString(`SELECT count(*)`)
	for _, under := range ages[:len(ages)-1] {
		args = append(args, Millis(s.At.Add(-under)))
		fmt.Fprintf(&query, `, count(*) FILTER (WHERE d.last_seen > $%d)`, len(args))
	}
	within := make([]int, len(ages))
	if err := db.Read().QueryRowContext(ctx, query.String()+from+` AND d.state IN `+reporting, args...).Scan(&within[len(ages)-1], &within[0], &within[1], &within[2], &within[3]); err != nil {
		return db.dialect.Explain(err)
	}
	counted := 0
	for i, n := range within {
		s.Seen[i].Devices += n - counted
		counted = n
	}
	return nil
}

// FleetFindings implements fleet.Reader.
func (db *DB) FleetFindings(ctx context.Context, q fleet.FindingQuery) ([]monitor.Finding, error) {
	query, args := findingsQuery(q)
	return collect(ctx, db, scanFinding, query, args...)
}

// findingsQuery walks from the newest on: along those of a severity that are open, or along the subject's.
func findingsQuery(q fleet.FindingQuery) (query string, args []any) {
	query = findingColumns + ` WHERE `
	and := func(condition string, value any) {
		args = append(args, value)
		query += fmt.Sprintf(condition, len(args))
	}
	if q.Subject != "" {
		and(`f.subject = $%d`, q.Subject)
	} else {
		and(`f.closed = 0 AND f.severity = $%d`, string(q.Severity))
	}
	if len(q.Scope) > 0 {
		text, with := placesOf(q.Scope, "f.product", "f.subject", len(args))
		query, args = query+` AND `+text, append(args, with...)
	}
	if !q.Before.IsZero() {
		and(` AND f.raised < $%d`, Millis(q.Before))
	}
	and(` ORDER BY f.raised DESC LIMIT $%d`, q.Limit)
	return query, args
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
	}, `SELECT role, der FROM ca WHERE ended = 0 ORDER BY CASE role WHEN 'order' THEN 1 ELSE 0 END, role, place DESC LIMIT 200`)
	return e, err
}

// FleetRuns implements fleet.Reader.
func (db *DB) FleetRuns(ctx context.Context, release []byte, scope []string) (map[string]int, error) {
	out := map[string]int{}
	for _, place := range surveyed(scope) {
		from, args := devicesAt(place)
		args = append(args, release)
		states, err := counts[string](ctx, db, `SELECT d.state, count(*)`+from+fmt.Sprintf(` AND d.release = $%d GROUP BY d.state`, len(args)), args...)
		if err != nil {
			return nil, err
		}
		for state, n := range states {
			out[state] += n
		}
	}
	return out, nil
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
