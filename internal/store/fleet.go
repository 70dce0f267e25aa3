package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// FleetSummary implements fleet.Reader.
func (db *DB) FleetSummary(ctx context.Context) (fleet.Summary, error) {
	s := fleet.Summary{States: map[string]int{}, Versions: map[string]int{}, Verdicts: map[string]int{}, At: time.Now().UTC()}
	var err error
	if s.States, err = counts[string](ctx, db, `SELECT state, count(*) FROM device GROUP BY state`); err != nil {
		return s, err
	}
	for _, n := range s.States {
		s.Total += n
	}
	if s.Versions, err = counts[string](ctx, db,
		`SELECT coalesce(json_extract(doc, '$.version'), ''), count(*) FROM device GROUP BY 1`); err != nil {
		return s, err
	}
	if s.Verdicts, err = counts[string](ctx, db, `SELECT coalesce(json_extract(v.doc, '$.word'), 'unknown'), count(*) FROM device d
		LEFT JOIN verdict_current c ON c.device_id = d.id LEFT JOIN verdict v ON v.uid = c.uid GROUP BY 1`); err != nil {
		return s, err
	}
	err = db.Read().QueryRowContext(ctx, `SELECT count(*) FROM finding WHERE closed = 0`).Scan(&s.Findings)
	return s, db.dialect.Explain(err)
}

const fleetColumns = `d.id, d.product, d.hardware, d.state, d.legitimacy, d.last_seen, d.order_id, d.made, d.key_origin, d.is_virtual,
	d.doc, v.doc, (SELECT count(*) FROM finding f WHERE f.subject = d.id AND f.closed = 0),
	(SELECT r.chip FROM production_record r WHERE r.device = d.id AND r.state = 'made')`

const fleetTables = ` FROM device d LEFT JOIN verdict_current c ON c.device_id = d.id LEFT JOIN verdict v ON v.uid = c.uid `

func scanFleet(row scanner) (fleet.Detail, error) {
	var d fleet.Detail
	var seen, made int64
	var twinDoc []byte
	var verdictDoc sql.NullString
	var chip []byte
	err := row.Scan(&d.ID, &d.Product, &d.Hardware, &d.State, &d.Legitimacy, &seen, &d.Order, &made, &d.KeyOrigin, &d.Virtual,
		&twinDoc, &verdictDoc, &d.Findings, &chip)
	if err != nil {
		return d, err
	}
	var twin device.Twin
	if err := json.Unmarshal(twinDoc, &twin); err != nil {
		return d, fmt.Errorf("device %s: twin: %w", d.ID, err)
	}
	d.Version, d.Release, d.Trial = twin.Version, hex.EncodeToString(twin.Release), twin.Trial
	d.Bundle, d.BootCount, d.HealthText = twin.Bundle, twin.BootCount, twin.Health
	d.Health = "unknown"
	if seen != 0 {
		d.Health = "unhealthy"
		if twin.Healthy {
			d.Health = "healthy"
		}
	}
	d.LastSeen, d.Made, d.ChipUID, d.Verdict = timeOrNil(seen), timeOrNil(made), hex.EncodeToString(chip), "unknown"
	if verdictDoc.Valid {
		var v struct {
			At      time.Time `json:"at"`
			Word    string    `json:"word"`
			Reasons []string  `json:"reasons"`
		}
		if err := json.Unmarshal([]byte(verdictDoc.String), &v); err != nil {
			return d, fmt.Errorf("device %s: verdict: %w", d.ID, err)
		}
		d.Verdict, d.VerdictAt, d.Reasons = v.Word, &v.At, v.Reasons
	}
	return d, nil
}

func timeOrNil(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	t := Time(ms)
	return &t
}

// FleetDevices implements fleet.Reader.
func (db *DB) FleetDevices(ctx context.Context, q fleet.Query) ([]fleet.Device, error) {
	query, args := `SELECT `+fleetColumns+fleetTables+`WHERE d.id > $1`, []any{q.After}
	for _, f := range []struct{ column, value string }{{"product", q.Product}, {"state", q.State}} {
		if f.value != "" {
			args = append(args, f.value)
			query += fmt.Sprintf(" AND d.%s = $%d", f.column, len(args))
		}
	}
	args = append(args, q.Limit)
	details, err := collect(ctx, db, scanFleet, query+fmt.Sprintf(` ORDER BY d.id LIMIT $%d`, len(args)), args...)
	out := make([]fleet.Device, 0, len(details))
	for _, d := range details {
		out = append(out, d.Device)
	}
	return out, err
}

// FleetDevice implements fleet.Reader.
func (db *DB) FleetDevice(ctx context.Context, id string) (fleet.Detail, error) {
	d, err := scanFleet(db.Read().QueryRowContext(ctx, `SELECT `+fleetColumns+fleetTables+`WHERE d.id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return d, noDevice(id)
	}
	return d, db.dialect.Explain(err)
}

// FleetTimeline implements fleet.Reader: the facts about the device itself, and the commands it was named in.
func (db *DB) FleetTimeline(ctx context.Context, id string, limit int) ([]fleet.Line, error) {
	return collect(ctx, db, scanLine, `SELECT log, idx, kind, subject, at, data FROM (
			SELECT * FROM entry WHERE subject = $1
			UNION
			SELECT e.* FROM command_device cd JOIN command c ON c.id = cd.command_id JOIN entry e ON e.uid = c.uid WHERE cd.device_id = $1
		) ORDER BY at, id LIMIT $2`, id, limit)
}

// FleetFacts implements fleet.Reader.
func (db *DB) FleetFacts(ctx context.Context, q fleet.FactQuery) ([]fleet.Line, error) {
	query, args := `SELECT log, idx, kind, subject, at, data FROM entry WHERE log = $1 AND idx IS NOT NULL`, []any{q.Log}
	and := func(condition string, value any) {
		args = append(args, value)
		query += fmt.Sprintf(condition, len(args))
	}
	if q.Subject != "" {
		and(` AND subject = $%d`, q.Subject)
	}
	if q.Kind != "" {
		and(` AND kind = $%d`, q.Kind)
	}
	if q.Before > 0 {
		and(` AND idx < $%d`, q.Before)
	}
	and(` ORDER BY idx DESC LIMIT $%d`, q.Limit)
	return collect(ctx, db, scanLine, query, args...)
}

func scanLine(row scanner) (fleet.Line, error) {
	var l fleet.Line
	var at int64
	var idx sql.NullInt64
	var data []byte
	if err := row.Scan(&l.Log, &idx, &l.Kind, &l.Subject, &at, &data); err != nil {
		return l, err
	}
	l.At = Time(at)
	if idx.Valid {
		i := uint64(idx.Int64)
		l.Index = &i
	}
	f, err := wire.DecodeFact(data)
	if err != nil {
		return l, fmt.Errorf("%s entry %d: %w", l.Log, idx.Int64, err)
	}
	l.Actor, l.Text = f.Actor, fleet.Describe(ledger.Kind(f.Kind), f.Data)
	return l, nil
}
