package store

import (
	"context"
	"time"

	"github.com/hallmark-iot/hallmark/access"
)

// Recorded implements access.AuditStore.
func (db *DB) Recorded(ctx context.Context, f access.RecordedFilter, before int64, limit int) ([]access.Recorded, error) {
	denied := 0
	if f.Denied {
		denied = 1
	}
	query, args := `SELECT id, at, caller, action, resource, product, allowed FROM audit WHERE (id < $1 OR $1 = 0) AND ($2 = '' OR action = $2) AND ($3 = 0 OR allowed = 0)`,
		[]any{before, string(f.Action), denied}
	if f.Caller != "" {
		query, args = query+` AND caller = $4 ORDER BY id DESC LIMIT $5`, append(args, f.Caller, limit)
	} else {
		query, args = query+` ORDER BY id DESC LIMIT $4`, append(args, limit)
	}
	return collect(ctx, db, func(row scanner) (access.Recorded, error) {
		var r access.Recorded
		var at int64
		var allowed int
		err := row.Scan(&r.ID, &at, &r.Caller, &r.Action, &r.Resource, &r.Product, &allowed)
		r.At, r.Allowed = Time(at), allowed != 0
		return r, err
	}, query, args...)
}

// PruneAudit removes decisions of before old. When there are still more than most, however new, it removes each caller's oldest beyond a
// tenth of that, so that who floods the table pushes out only what they did themselves; then the oldest of all.
func (db *DB) PruneAudit(ctx context.Context, old time.Time, most int) error {
	return db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`DELETE FROM audit WHERE at < $1`, Millis(old)); err != nil {
			return err
		}
		var n int
		if err := tx.QueryRow(`SELECT count(*) FROM audit`).Scan(&n); err != nil || n <= most {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM audit WHERE id IN (SELECT id FROM (
			SELECT id, row_number() OVER (PARTITION BY caller ORDER BY id DESC) AS n FROM audit) AS counted WHERE n > $1)`, max(1, most/10)); err != nil {
			return err
		}
		_, err := tx.Exec(`DELETE FROM audit WHERE id <= (SELECT id FROM audit ORDER BY id DESC LIMIT 1 OFFSET $1)`, most)
		return err
	})
}
