package store

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

// PutUpload implements telemetry.Store.
func (db *DB) PutUpload(ctx context.Context, device string, in telemetry.Incoming) error {
	return db.Write(ctx, func(tx *Tx) error {
		gone, err := tx.there(`SELECT count(*) FROM stream_destroyed WHERE device = $1`, device)
		if err != nil || gone {
			return cmp.Or(err, telemetry.ErrDestroyed)
		}
		if err := notEnded(tx, device, in); err != nil {
			return err
		}
		var facts []ledger.Fact // of what is here already there are some
		for _, e := range in.Epochs {
			added, err := putOnce(tx, e.Payload,
				`INSERT INTO stream_epoch (device, stream, epoch, payload, envelope, opened) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
				`SELECT payload FROM stream_epoch WHERE device = $1 AND stream = $2 AND epoch = $3`,
				[]any{device, e.Epoch.Stream, e.Epoch.Epoch}, e.Payload, e.Envelope, Millis(e.Fact.At))
			if err != nil {
				return err
			}
			if added {
				facts = append(facts, e.Fact)
			}
		}
		if err := few(tx, device, facts); err != nil {
			return err
		}
		if err := opened(tx, device, in); err != nil {
			return err
		}
		for _, r := range in.Records {
			if _, err := putOnce(tx, r.Data,
				`INSERT INTO stream_record (device, stream, epoch, seq, data) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
				`SELECT data FROM stream_record WHERE device = $1 AND stream = $2 AND epoch = $3 AND seq = $4`,
				[]any{device, r.Stream, r.Epoch, r.Seq}, r.Data); err != nil {
				return err
			}
		}
		for _, s := range in.Series {
			if err := putHead(tx, device, s); err != nil {
				return err
			}
		}
		return tx.Append(facts...)
	})
}

// few refuses more new epochs than a device may open in a day: each is a row and a fact for good.
func few(tx *Tx, device string, opened []ledger.Fact) error {
	if len(opened) == 0 {
		return nil
	}
	var n int
	if err := tx.QueryRow(`SELECT count(*) FROM stream_epoch WHERE device = $1 AND opened > $2`, device, Millis(opened[0].At.Add(-24*time.Hour))).Scan(&n); err != nil {
		return err
	}
	if n > telemetry.EpochsPerDay {
		return telemetry.ErrMany
	}
	return nil
}

// opened refuses what is of an epoch whose key is not here.
func opened(tx *Tx, device string, in telemetry.Incoming) error {
	type epoch struct {
		stream string
		number uint64
	}
	named := map[epoch]bool{}
	for _, r := range in.Records {
		named[epoch{r.Stream, r.Epoch}] = true
	}
	for _, s := range in.Series {
		named[epoch{s.Series.Stream, s.Series.Epoch}] = true
	}
	for e := range named {
		known, err := tx.there(`SELECT count(*) FROM stream_epoch WHERE device = $1 AND stream = $2 AND epoch = $3`, device, e.stream, e.number)
		if err != nil {
			return err
		}
		if !known {
			return fmt.Errorf("%w: %s/%d", telemetry.ErrUnopened, e.stream, e.number)
		}
	}
	return nil
}

// putHead keeps the newest head of an epoch. An older one says nothing new; another of the same number, or one behind a last one, is a fork.
func putHead(tx *Tx, device string, s telemetry.SignedSeries) error {
	n := s.Series
	var envelope []byte
	err := tx.QueryRow(`SELECT envelope FROM stream_series WHERE device = $1 AND stream = $2 AND epoch = $3`, device, n.Stream, n.Epoch).Scan(&envelope)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err == nil {
		had, err := headOf(envelope)
		switch {
		case err != nil:
			return fmt.Errorf("stored head of %s/%s/%d: %w", device, n.Stream, n.Epoch, err)
		case n.Last == had.Last && !bytes.Equal(n.Head, had.Head), n.Last > had.Last && had.Closed, n.Last < had.Last && n.Closed:
			return fmt.Errorf("%w: the heads of %s/%d after %d and %d records", telemetry.ErrForked, n.Stream, n.Epoch, had.Last, n.Last)
		case n.Last < had.Last, n.Last == had.Last && !n.Closed:
			return nil
		}
	}
	_, err = tx.Exec(`INSERT INTO stream_series (device, stream, epoch, last, closed, envelope) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (device, stream, epoch) DO UPDATE SET last = excluded.last, closed = excluded.closed, envelope = excluded.envelope`,
		device, n.Stream, n.Epoch, n.Last, n.Closed, s.Envelope)
	return err
}

func headOf(envelope []byte) (wire.Series, error) {
	p, err := wire.Parse1(wire.TypeSeries, envelope)
	if err != nil {
		return wire.Series{}, err
	}
	return wire.DecodeSeries(p.Payload)
}

// notEnded refuses data of a time whose owner has gone, and all while the device may still be sealing it.
func notEnded(tx *Tx, device string, in telemetry.Incoming) error {
	var last uint64
	var shut bool
	err := tx.QueryRow(`SELECT epoch, shut FROM stream_ended WHERE device = $1`, device).Scan(&last, &shut)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil || shut {
		return cmp.Or(err, telemetry.ErrDestroyed)
	}
	for _, e := range in.Epochs {
		if e.Epoch.Epoch <= last {
			return telemetry.ErrDestroyed
		}
	}
	for _, r := range in.Records {
		if r.Epoch <= last {
			return telemetry.ErrDestroyed
		}
	}
	for _, s := range in.Series {
		if s.Series.Epoch <= last {
			return telemetry.ErrDestroyed
		}
	}
	return nil
}

// putOnce inserts, or finds that the same content is there already; other content is ErrForked.
func putOnce(tx *Tx, content []byte, insert, find string, key []any, values ...any) (added bool, err error) {
	res, err := tx.Exec(insert, append(key, values...)...)
	if err != nil {
		return false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 1 {
		return true, err
	}
	var have []byte
	if err := tx.QueryRow(find, key...).Scan(&have); err != nil {
		return false, err
	}
	if !bytes.Equal(have, content) {
		return false, fmt.Errorf("%w: %v", telemetry.ErrForked, key[1:])
	}
	return false, nil
}

const maxHoles = 100

// Epochs implements telemetry.Store.
func (db *DB) Epochs(ctx context.Context, device, stream string, from uint64, limit telemetry.Limit) (page []telemetry.Range, more bool, err error) {
	if from > math.MaxInt64 {
		return nil, false, nil
	}
	page, err = collect(ctx, db, func(row scanner) (r telemetry.Range, err error) {
		var last sql.NullInt64
		var closed sql.NullBool
		var head []byte
		if err := row.Scan(&r.Payload, &r.Opened, &last, &closed, &head); err != nil {
			return r, err
		}
		if r.Epoch, err = wire.DecodeEpoch(r.Payload); err != nil {
			return r, fmt.Errorf("stored epoch of %s/%s: %w", device, stream, err)
		}
		r.Proven, r.Closed = uint64(last.Int64), closed.Bool
		if head != nil {
			r.Heads = [][]byte{head}
		}
		return r, nil
	}, `SELECT e.payload, e.envelope, s.last, s.closed, s.envelope FROM stream_epoch e
		LEFT JOIN stream_series s ON s.device = e.device AND s.stream = e.stream AND s.epoch = e.epoch
		WHERE e.device = $1 AND e.stream = $2 AND e.epoch >= $3 ORDER BY e.epoch LIMIT $4`, device, stream, int64(from), limit.Epochs+1)
	if err != nil {
		return nil, false, err
	}
	records := 0
	for i := range page {
		if i == limit.Epochs || records >= limit.Records {
			return page[:i], true, nil
		}
		if err := db.records(ctx, device, stream, &page[i]); err != nil {
			return nil, false, err
		}
		records += len(page[i].Records)
	}
	return page, false, nil
}

func (db *DB) records(ctx context.Context, device, stream string, r *telemetry.Range) error {
	rows, err := db.Read().QueryContext(ctx, `SELECT seq, data FROM stream_record WHERE device = $1 AND stream = $2 AND epoch = $3
		ORDER BY seq`, device, stream, r.Epoch.Epoch)
	if err != nil {
		return err
	}
	defer rows.Close()
	next := uint64(1)
	for rows.Next() {
		s := wire.Sealed{Stream: stream, Epoch: r.Epoch.Epoch}
		if err := rows.Scan(&s.Seq, &s.Data); err != nil {
			return err
		}
		for ; next < s.Seq && len(r.Holes) < maxHoles; next++ {
			r.Holes = append(r.Holes, next)
		}
		next = s.Seq + 1
		r.Records = append(r.Records, s)
	}
	for ; next <= r.Proven && len(r.Holes) < maxHoles; next++ {
		r.Holes = append(r.Holes, next)
	}
	return rows.Err()
}

// PutGrant implements telemetry.Store.
func (db *DB) PutGrant(ctx context.Context, g telemetry.Grant, facts ...ledger.Fact) error {
	doc, err := json.Marshal(g)
	if err != nil {
		return err
	}
	return db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`INSERT INTO stream_grant (id, reader, product, doc) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
			g.ID, g.Reader, g.Product, string(doc))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fault.New(fault.Conflict, "grant.exists", fmt.Sprintf("grant %q exists", g.ID), "choose another id"))
		}
		return tx.Append(facts...)
	})
}

// Grants implements telemetry.Store.
func (db *DB) Grants(ctx context.Context, q telemetry.GrantQuery) ([]telemetry.Grant, error) {
	rows, err := db.Read().QueryContext(ctx, `SELECT doc FROM stream_grant WHERE ($1 = '' OR reader = $1) AND ($2 = '' OR product = $2) AND id > $3
		ORDER BY id LIMIT $4`, q.Reader, q.Product, q.After, atMost(q.Limit))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []telemetry.Grant
	for rows.Next() {
		var doc string
		var g telemetry.Grant
		if err := rows.Scan(&doc); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(doc), &g); err != nil {
			return nil, fmt.Errorf("stored grant: %w", err)
		}
		out = append(out, g)
	}
	return out, rows.Err()
}

// RevokeGrant implements telemetry.Store.
func (db *DB) RevokeGrant(ctx context.Context, product, id string, facts ...ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`DELETE FROM stream_grant WHERE id = $1 AND product = $2`, id, product)
		if err != nil {
			return err
		}
		if err := one(res, telemetry.ErrNoGrant); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// Decide implements telemetry.Store.
func (db *DB) Decide(ctx context.Context, f ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error { return tx.Append(f) })
}

// DestroyKeys implements telemetry.Store.
func (db *DB) DestroyKeys(ctx context.Context, device string, fact ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`INSERT INTO stream_destroyed (device, at) VALUES ($1, $2) ON CONFLICT (device) DO NOTHING`, device, Millis(fact.At))
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil || n == 0 {
			return err // it is done
		}
		if _, err := tx.Exec(`DELETE FROM stream_epoch WHERE device = $1`, device); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}
