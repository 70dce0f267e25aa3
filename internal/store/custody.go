package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/custody"
)

// CustodyOf implements custody.Store.
func (db *DB) CustodyOf(ctx context.Context, device string) (custody.Origin, error) {
	var o custody.Origin
	err := db.Read().QueryRowContext(ctx, `SELECT product, group_path, order_id,
		(SELECT count(*) FROM entry WHERE subject = $1 AND idx IS NOT NULL), (SELECT count(*) FROM entry WHERE subject = $1 AND idx IS NULL)
		FROM device WHERE id = $1`, device).Scan(&o.Product, &o.Group, &o.Order, &o.Facts, &o.Unplaced)
	if errors.Is(err, sql.ErrNoRows) {
		return o, noDevice(device)
	}
	if err != nil {
		return o, db.dialect.Explain(err)
	}
	order, err := scanOrder(db.Read().QueryRowContext(ctx, orderColumns+` WHERE id = $1`, o.Order))
	if errors.Is(err, factory.ErrNotFound) {
		return o, nil
	}
	if err != nil {
		return o, err
	}
	o.Station = order.RecordKey
	o.Signer, _, err = db.orderSigner(ctx, order)
	return o, err
}

// FactsOf implements custody.Store.
func (db *DB) FactsOf(ctx context.Context, subject string, kind ledger.Kind, limit int) ([]custody.Placed, error) {
	query, args := `SELECT log, idx, data FROM entry WHERE subject = $1 AND idx IS NOT NULL`, []any{subject, limit}
	if kind != "" {
		query, args = query+` AND kind = $3`, append(args, string(kind))
	}
	return collect(ctx, db, func(row scanner) (custody.Placed, error) {
		var p custody.Placed
		var idx int64
		err := row.Scan(&p.Log, &idx, &p.Entry)
		p.Index = uint64(idx)
		return p, err
	}, query+` ORDER BY id DESC LIMIT $2`, args...)
}

// NamedIn implements custody.Store.
func (db *DB) NamedIn(ctx context.Context, device string) ([]string, error) {
	return collect(ctx, db, scanID, `SELECT command_id FROM command_device WHERE device_id = $1
		UNION SELECT w.id FROM warrant_device x JOIN warrant w ON w.uid = x.uid WHERE x.device_id = $1`, device)
}

// DevicesOf implements custody.Store.
func (db *DB) DevicesOf(ctx context.Context, uid [16]byte) ([]string, error) {
	return collect(ctx, db, scanID, `SELECT x.device_id FROM command_device x JOIN command c ON c.id = x.command_id WHERE c.uid = $1
		UNION ALL SELECT device_id FROM warrant_device WHERE uid = $1`, uid[:])
}

// ReleaseID implements custody.Store.
func (db *DB) ReleaseID(ctx context.Context, digest [32]byte) (string, error) {
	var id string
	err := db.Read().QueryRowContext(ctx, `SELECT id FROM release WHERE digest = $1`, digest[:]).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return id, db.dialect.Explain(err)
}
