package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/onboard"
)

// What is asked of an order's records: along its own indexes, and never a table whole.
const (
	recordColumns = `SELECT order_id, seq, state, '', hash, envelope FROM production_record WHERE `
	samePlace     = recordColumns + `order_id = $1 AND seq = $2 AND hash <> $3`
	sameTicket    = recordColumns + `order_id = $1 AND ticket = $2 AND hash <> $3 AND state <> 'refused'`
	sameChip      = recordColumns + `chip = $1 AND hash <> $2 AND state = 'made'`
	sameIdentity  = recordColumns + `identity = $1 AND hash <> $2 AND state = 'made'`
	sameAttest    = recordColumns + `attest = $1 AND hash <> $2 AND state = 'made'`

	everyOf   = recordColumns + `order_id = $1 AND seq > $2 ORDER BY seq LIMIT $3`
	madeOf    = recordColumns + `order_id = $1 AND state = 'made' AND seq > $2 ORDER BY seq LIMIT $3`
	reworksOf = recordColumns + `order_id = $1 AND rework <> 0 AND seq > $2 ORDER BY seq LIMIT $3`
	unseenOf  = `SELECT r.order_id, r.seq, r.state, '', r.hash, r.envelope FROM device d JOIN production_record r ON r.device = d.id
		WHERE d.order_id = $1 AND d.last_seen = 0 AND d.id > $2 AND r.order_id = $1 AND r.state = 'made' ORDER BY d.id LIMIT $3`
	placesBehind = `SELECT count(*), coalesce(max(seq), 0) FROM production_record WHERE order_id = $1 AND seq > $2`
	recordPlaces = `SELECT seq FROM production_record WHERE order_id = $1 AND seq > $2 ORDER BY seq`
	alarmsOf     = `SELECT a.order_id, a.seq, coalesce(r.state, ''), a.reason, a.hash, a.envelope FROM production_alarm a
		LEFT JOIN production_record r ON r.order_id = a.order_id AND r.seq = a.seq AND r.hash = a.hash
		WHERE a.order_id = $1 AND (a.seq > $2 OR (a.seq = $2 AND a.hash > $3)) ORDER BY a.seq, a.hash LIMIT $4`
	refusedOf = `SELECT a.order_id, a.seq, r.state, a.reason, a.hash, a.envelope FROM production_record r
		CROSS JOIN production_alarm a WHERE a.order_id = r.order_id AND a.seq = r.seq AND a.hash = r.hash
		AND r.order_id = $1 AND r.state = 'refused' AND r.seq > $2 ORDER BY r.seq LIMIT $3`
)

// AlarmsOf implements factory.Books.
func (db *DB) AlarmsOf(ctx context.Context, order string, refused bool, seq uint32, hash []byte, limit int) ([]factory.Kept, error) {
	if refused {
		return db.kept(ctx, refusedOf, order, int64(seq), limit)
	}
	if hash == nil {
		hash = []byte{}
	}
	return db.kept(ctx, alarmsOf, order, int64(seq), hash, limit)
}

// TwinOf implements factory.Books.
func (db *DB) TwinOf(ctx context.Context, m factory.Marks) (*factory.Twin, error) {
	for _, q := range []struct {
		by    factory.Question
		query string
		args  []any
	}{
		{factory.OverProduction, samePlace, []any{m.Order, int64(m.Seq), m.Hash}},
		{factory.OverProduction, sameTicket, []any{m.Order, int64(m.Ticket), m.Hash}},
		{factory.Clones, sameChip, []any{m.Chip, m.Hash}},
		{factory.Clones, sameIdentity, []any{m.Identity, m.Hash}},
		{factory.Clones, sameAttest, []any{m.Attest, m.Hash}},
	} {
		list, err := db.kept(ctx, q.query, q.args...)
		if err != nil {
			return nil, err
		}
		if len(list) > 0 {
			return &factory.Twin{Kept: list[0], By: q.by}, nil
		}
	}
	return nil, nil
}

// PlacesOf implements factory.Books.
func (db *DB) PlacesOf(ctx context.Context, order string, after uint32) (n, last uint32, err error) {
	return n, last, db.Read().QueryRowContext(ctx, placesBehind, order, int64(after)).Scan(&n, &last)
}

// GapsOf implements factory.Books. It goes along the places, and no further than it must.
func (db *DB) GapsOf(ctx context.Context, order string, after uint32, limit int) (out []factory.Gap, err error) {
	rows, err := db.Read().QueryContext(ctx, recordPlaces, order, int64(after))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for before := after; len(out) < limit && rows.Next(); {
		var seq uint32
		if err := rows.Scan(&seq); err != nil {
			return nil, err
		}
		if seq > before+1 {
			out = append(out, factory.Gap{From: before + 1, To: seq - 1})
		}
		before = seq
	}
	return out, rows.Err()
}

// UnseenOf implements factory.Books.
func (db *DB) UnseenOf(ctx context.Context, order, after string, limit int) ([]factory.Kept, error) {
	return db.kept(ctx, unseenOf, order, after, limit)
}

// RecordsOf implements factory.Books.
func (db *DB) RecordsOf(ctx context.Context, order string, of factory.Question, after uint32, limit int) ([]factory.Kept, error) {
	query := map[factory.Question]string{
		factory.Every:   everyOf,
		factory.Made:    madeOf,
		factory.Reworks: reworksOf,
	}[of]
	if query == "" {
		return nil, fmt.Errorf("no records of an order are %q", of)
	}
	return db.kept(ctx, query, order, int64(after), limit)
}

// RecordOf implements factory.Books.
func (db *DB) RecordOf(ctx context.Context, order string, seq uint32) (*factory.Kept, error) {
	list, err := db.kept(ctx, `SELECT order_id, seq, state, '', hash, envelope FROM production_record WHERE order_id = $1 AND seq = $2`, order, int64(seq))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// RecordAs implements factory.Books.
func (db *DB) RecordAs(ctx context.Context, device string) (*factory.Kept, error) {
	list, err := db.kept(ctx, recordColumns+`device = $1 AND state = 'made'`, device)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

func (db *DB) kept(ctx context.Context, query string, args ...any) (out []factory.Kept, err error) {
	rows, err := db.Read().QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var k factory.Kept
		if err := rows.Scan(&k.Order, &k.Seq, &k.State, &k.Reason, &k.Hash, &k.Envelope); err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, rows.Err()
}

// StrangersOf implements factory.Books: who was refused because nobody knows it, and who was asked to come again because its record has not come.
func (db *DB) StrangersOf(ctx context.Context, ca, after string, limit int) (out []factory.Stranger, err error) {
	rows, err := db.Read().QueryContext(ctx, `SELECT x.device, x.planned, x.times, x.last FROM (
			SELECT r.device AS device, 0 AS planned, r.count AS times, r.last AS last FROM enrol_refused r
				WHERE r.issuer = $1 AND r.device > $2 AND ' ' || r.codes || ' ' LIKE $3
			UNION ALL SELECT p.device, 1, p.count, p.last FROM enrol_planned p
				WHERE p.issuer = $1 AND p.device > $2 AND NOT EXISTS (SELECT 1 FROM enrol_refused r WHERE r.device = p.device)
		) AS x WHERE NOT EXISTS (SELECT 1 FROM device d WHERE d.id = x.device) ORDER BY x.device LIMIT $4`,
		ca, after, "% "+onboard.Unordered+" %", limit)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var s factory.Stranger
		var planned, last int64
		if err := rows.Scan(&s.Device, &planned, &s.Times, &last); err != nil {
			return nil, err
		}
		s.Planned, s.Last = planned != 0, Time(last)
		out = append(out, s)
	}
	return out, rows.Err()
}

// Planned implements onboard.Store. It is counted once a minute, so that who asks again and again writes little.
func (s Onboard) Planned(ctx context.Context, p onboard.Planned) error {
	var last int64
	err := s.db.Read().QueryRowContext(ctx, `SELECT last FROM enrol_planned WHERE device = $1`, p.Device).Scan(&last)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err == nil && Millis(p.At) < last+60_000 {
		return nil
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO enrol_planned (device, issuer, count, last) VALUES ($1, $2, 1, $3)
			ON CONFLICT (device) DO UPDATE SET count = enrol_planned.count + 1, last = excluded.last`, p.Device, p.Issuer, Millis(p.At))
		return err
	})
}
