package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/wire"
)

const fleetColumns = `d.id, d.product, d.hardware, d.state, d.legitimacy, d.last_seen, d.order_id, d.made, d.key_origin, d.is_virtual,
	d.group_path, d.owned_since, d.rekeyed, d.assurance, d.doc, d.verdict, v.doc, d.findings,
	d.findings > 0 AND EXISTS (SELECT 1 FROM finding f WHERE f.closed = 0 AND f.dedupe = '` + string(monitor.NoCheckin) + `/' || d.id),
	(SELECT r.chip FROM production_record r WHERE r.device = d.id AND r.state = 'made')`

const fleetJoins = ` LEFT JOIN verdict_current c ON c.device_id = d.id LEFT JOIN verdict v ON v.uid = c.uid`

func scanFleet(row scanner) (fleet.Detail, error) {
	var d fleet.Detail
	var seen, made, owned, rekeyed int64
	var twinDoc []byte
	var verdictDoc sql.NullString
	var chip []byte
	var verdict int
	var silent bool
	err := row.Scan(&d.ID, &d.Product, &d.Hardware, &d.State, &d.Legitimacy, &seen, &d.Order, &made, &d.KeyOrigin, &d.Virtual,
		&d.Group, &owned, &rekeyed, &d.Assurance, &twinDoc, &verdict, &verdictDoc, &d.Findings, &silent, &chip)
	if err != nil {
		return d, err
	}
	var twin device.Twin
	if err := json.Unmarshal(twinDoc, &twin); err != nil {
		return d, fmt.Errorf("device %s: twin: %w", d.ID, err)
	}
	d.Version, d.Release, d.Trial = twin.Version, hex.EncodeToString(twin.Release), twin.Trial
	d.Bundle, d.BootCount, d.HealthText = twin.Bundle, twin.BootCount, twin.Health
	d.Room, d.Knows, d.Zone, d.Waits = twin.Room, twin.Knows, twin.Zone, twin.Waits
	for _, release := range twin.Left {
		d.Left = append(d.Left, hex.EncodeToString(release))
	}
	d.Suspect, d.Sides = twin.Suspect, twin.Sides
	d.Owned, d.Rekeyed = timeOrNil(owned), timeOrNil(rekeyed)
	if !twin.Carried.IsZero() {
		d.Carried = &twin.Carried
	}
	if !twin.Forgotten.IsZero() {
		d.Forgotten = &twin.Forgotten
	}
	switch d.Health = "unknown"; {
	case seen == 0, silent && twin.Healthy: // what it said long ago is not how it is
	case twin.Healthy:
		d.Health = "healthy"
	case twin.Sick:
		d.Health = "unhealthy"
	}
	d.LastSeen, d.Made, d.ChipUID, d.Verdict = timeOrNil(seen), timeOrNil(made), hex.EncodeToString(chip), verdictWord(attest.Tier(verdict))
	if verdictDoc.Valid {
		var v struct {
			At      time.Time `json:"at"`
			Word    string    `json:"word"`
			Reasons []string  `json:"reasons"`

			Isolation *wire.Isolation `json:"isolation"`
		}
		if err := json.Unmarshal([]byte(verdictDoc.String), &v); err != nil {
			return d, fmt.Errorf("device %s: verdict: %w", d.ID, err)
		}
		d.VerdictAt, d.Reasons = &v.At, v.Reasons
		if v.Word != "" && v.Word != d.Verdict && v.Word != attest.None.String() {
			d.LastVerdict = v.Word
		}
		if d.Verdict != "unknown" && d.LastVerdict == "" { // what held them once is not what holds them
			d.Isolation = v.Isolation
		}
	}
	return d, nil
}

// verdictWord is what lists call a verdict; none is unknown.
func verdictWord(t attest.Tier) string {
	if t == attest.None {
		return "unknown"
	}
	return t.String()
}

func timeOrNil(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	t := Time(ms)
	return &t
}

// FleetDevice implements fleet.Reader.
func (db *DB) FleetDevice(ctx context.Context, id string) (fleet.Detail, error) {
	d, err := scanFleet(db.Read().QueryRowContext(ctx, `SELECT `+fleetColumns+` FROM device d`+fleetJoins+` WHERE d.id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return d, noDevice(id)
	}
	if err != nil {
		return d, db.dialect.Explain(err)
	}
	d.Log, err = db.fleetLog(ctx, id)
	return d, err
}

// FleetTimeline implements fleet.Reader: the facts about the device itself, and the commands it was named in.
func (db *DB) FleetTimeline(ctx context.Context, id string, limit int) ([]fleet.Line, error) {
	return collect(ctx, db, db.scanLine, lineColumns+` FROM (SELECT * FROM (
			SELECT * FROM (SELECT * FROM entry WHERE subject = $1 ORDER BY id DESC LIMIT $2) AS own
			UNION
			SELECT * FROM (SELECT e.* FROM command_device cd JOIN command c ON c.id = cd.command_id JOIN entry e ON e.uid = c.uid
				WHERE cd.device_id = $1 ORDER BY cd.at DESC LIMIT $2) AS ordered
		) AS both_kinds ORDER BY at DESC, id DESC LIMIT $2) AS e`+keptJoins+` ORDER BY e.at, e.id`, id, limit)
}

// FleetFacts implements fleet.Reader.
func (db *DB) FleetFacts(ctx context.Context, q fleet.FactQuery) ([]fleet.Line, error) {
	query, args := factsQuery(q)
	return collect(ctx, db, db.scanLine, query, args...)
}

// factsQuery walks backwards: along the places, or with a subject or a kind along the rows of it. A log's facts get their
// places in the order of their rows, so both are the same order.
func factsQuery(q fleet.FactQuery) (query string, args []any) {
	along := q.Subject != "" || q.Kind != ""
	query, args = lineColumns+` FROM entry e`+keptJoins+` WHERE e.log = $1`, []any{q.Log}
	if !q.Waiting || !along {
		query += ` AND e.idx IS NOT NULL`
	}
	and := func(condition string, value any) {
		args = append(args, value)
		query += fmt.Sprintf(condition, len(args))
	}
	order, before := `e.idx`, ` AND e.idx < $%d`
	if along {
		order, before = `e.id`, ` AND e.id < (SELECT id FROM entry WHERE log = $1 AND idx = $%d)`
	}
	if q.Subject != "" {
		and(` AND e.subject = $%d`, q.Subject)
	}
	if q.Kind != "" {
		and(` AND e.kind = $%d`, q.Kind)
	}
	if q.Before > 0 {
		and(before, int64(min(q.Before, math.MaxInt64)))
	}
	and(` ORDER BY `+order+` DESC LIMIT $%d`, q.Limit)
	return query, args
}

const lineColumns = `SELECT e.log, e.idx, e.kind, e.subject, e.at, e.data, ` + keptColumns

func (db *DB) scanLine(row scanner) (fleet.Line, error) {
	var l fleet.Line
	var at int64
	var idx sql.NullInt64
	var data []byte
	var k kept
	if err := row.Scan(&l.Log, &idx, &l.Kind, &l.Subject, &at, &data, &k.subject, &k.salt, &k.data, &k.secret); err != nil {
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
	private, err := db.open(f, k)
	if err != nil {
		return l, err
	}
	l.Actor, l.Text = ledger.Unveil(f.Actor, private), fleet.Describe(f, private)
	if f.Cause != nil {
		l.Cause = &ledger.Ref{Log: ledger.Log(f.Cause.Log), Index: f.Cause.Index}
	}
	return l, nil
}
