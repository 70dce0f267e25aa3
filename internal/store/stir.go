package store

import (
	"bytes"
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/device"
)

// Stir is a change of a device: of its product, group, state, hardware, owner or mark, of what it runs, believes, knows and has room for, or of what lists say of its evidence and findings.
type Stir struct {
	Seq    int64 // rises in the order in which the changes were committed, on all nodes
	Device string
}

// stir notes that a device changed, for those who look at what changed only, and has the rollouts that it is in look at it again.
func stir(tx *Tx, id string) error {
	if _, err := tx.Exec(`INSERT INTO device_stir (device, at) VALUES ($1, $2)`, id, Millis(time.Now())); err != nil {
		return err
	}
	return stirred(tx, id)
}

// turned reports whether a report changes what a device is to others: everything but its contact, health and progress.
func turned(r device.Report) bool {
	was, is := r.From.Twin, r.Twin
	return r.State != r.From.State || is.Trial != was.Trial || is.Version != was.Version || is.Bundle != was.Bundle || !bytes.Equal(is.Release, was.Release) ||
		!reflect.DeepEqual(is.Room, was.Room) || !slices.Equal(is.Knows, was.Knows) || !reflect.DeepEqual(is.Left, was.Left) ||
		!reflect.DeepEqual(is.Reported, was.Reported) || !bytes.Equal(is.Desired, was.Desired)
}

// Stirs gives what changed behind a place in the order, at most limit.
func (db *DB) Stirs(ctx context.Context, after int64, limit int) ([]Stir, error) {
	return collect(ctx, db, func(row scanner) (s Stir, err error) { return s, row.Scan(&s.Seq, &s.Device) },
		`SELECT seq, device FROM device_stir WHERE seq > $1 ORDER BY seq LIMIT $2`, after, limit)
}

// Stirred implements rollout.Book.
func (s *Rollouts) Stirred(ctx context.Context, after int64, limit int) (devices []string, upTo int64, err error) {
	some, err := s.db.Stirs(ctx, after, limit)
	for _, c := range some {
		devices, upTo = append(devices, c.Device), c.Seq
	}
	slices.Sort(devices)
	return slices.Compact(devices), upTo, err
}

// LastStir implements rollout.Book.
func (s *Rollouts) LastStir(ctx context.Context) (int64, error) { return s.db.LastStir(ctx) }

// LastStir gives the place of the latest change; 0: none.
func (db *DB) LastStir(ctx context.Context) (seq int64, err error) {
	err = db.Read().QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM device_stir`).Scan(&seq)
	return seq, db.dialect.Explain(err)
}

// PruneStirs forgets changes of before old, but for those that a rollout has still to look at, and the latest of all: from that the order goes on.
func (db *DB) PruneStirs(ctx context.Context, old time.Time) error {
	for n := int64(atOnce); n == atOnce; {
		if err := db.Write(ctx, func(tx *Tx) error {
			res, err := tx.Exec(`DELETE FROM device_stir WHERE seq IN (SELECT seq FROM (SELECT seq, at FROM device_stir ORDER BY seq LIMIT $1) AS eldest
				WHERE at < $2 AND seq < (SELECT max(seq) FROM device_stir)
				AND NOT EXISTS (SELECT 1 FROM rollout r WHERE r.open = 1 AND r.stir >= 0 AND r.stir < eldest.seq))`, int64(atOnce), Millis(old))
			if err != nil {
				return err
			}
			n, err = res.RowsAffected()
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}
