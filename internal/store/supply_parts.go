package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/parts"
)

// Parts implements parts.Catalogue and parts.Orders.
type Parts struct{ db *DB }

// Parts gives the store of suppliers, parts and lots.
func (db *DB) Parts() Parts { return Parts{db} }

// partRow is a row of suppliers, parts or lots: its table, its revision (0: it is new) and its columns; the last is the document.
type partRow struct {
	table, id string
	rev       int64
	columns   []string
	values    []any
}

// put stores a row.
func (k partRow) put(tx *Tx) error {
	args := append([]any{k.id}, k.values...)
	if k.rev == 0 {
		marks := make([]string, len(args))
		for i := range marks {
			marks[i] = fmt.Sprintf("$%d", i+1)
		}
		put, err := did(tx.Exec(`INSERT INTO `+k.table+` (id, `+strings.Join(k.columns, ", ")+`, rev) VALUES (`+strings.Join(marks, ", ")+`, 1) ON CONFLICT DO NOTHING`, args...))
		if err == nil && !put {
			err = parts.ErrExists
		}
		return err
	}
	put, err := did(tx.Exec(`UPDATE `+k.table+` SET doc = $2, rev = rev + 1 WHERE id = $1 AND rev = $3`, k.id, k.values[len(k.values)-1], k.rev))
	if err == nil && !put {
		err = parts.ErrChanged
	}
	return err
}

func rowOfSupplier(v parts.Supplier) (partRow, error) {
	doc, err := json.Marshal(v)
	return partRow{"supplier", v.ID, v.Rev, []string{"doc"}, []any{string(doc)}}, err
}

func rowOfPart(v parts.Part) (partRow, error) {
	doc, err := json.Marshal(v)
	return partRow{"part", v.ID, v.Rev, []string{"supplier", "doc"}, []any{v.Supplier, string(doc)}}, err
}

func rowOfLot(v parts.Lot) (partRow, error) {
	doc, err := json.Marshal(v)
	return partRow{"lot", v.ID, v.Rev, []string{"part", "number", "doc"}, []any{v.Part, v.Number, string(doc)}}, err
}

func (s Parts) put(ctx context.Context, k partRow, facts []ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		if err := k.put(tx); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// scanPartRow reads a document and its revision.
func scanPartRow[T any](row scanner, rev func(*T) *int64) (v T, err error) {
	var doc string
	var n int64
	err = row.Scan(&doc, &n)
	if errors.Is(err, sql.ErrNoRows) {
		return v, parts.ErrNotFound
	}
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal([]byte(doc), &v); err != nil {
		return v, fmt.Errorf("stored %T: %w", v, errors.Join(err, errDamaged))
	}
	*rev(&v) = n
	return v, nil
}

func scanSupplier(row scanner) (parts.Supplier, error) {
	return scanPartRow(row, func(v *parts.Supplier) *int64 { return &v.Rev })
}

func scanPart(row scanner) (parts.Part, error) {
	return scanPartRow(row, func(v *parts.Part) *int64 { return &v.Rev })
}

func scanLot(row scanner) (parts.Lot, error) {
	return scanPartRow(row, func(v *parts.Lot) *int64 { return &v.Rev })
}

// PutSupplier implements parts.Catalogue.
func (s Parts) PutSupplier(ctx context.Context, v parts.Supplier, facts ...ledger.Fact) error {
	k, err := rowOfSupplier(v)
	if err != nil {
		return err
	}
	return s.put(ctx, k, facts)
}

// Supplier implements parts.Catalogue.
func (s Parts) Supplier(ctx context.Context, id string) (parts.Supplier, error) {
	return scanSupplier(s.db.Read().QueryRowContext(ctx, `SELECT doc, rev FROM supplier WHERE id = $1`, id))
}

// Suppliers implements parts.Catalogue.
func (s Parts) Suppliers(ctx context.Context, after string, limit int) ([]parts.Supplier, error) {
	return collect(ctx, s.db, scanSupplier, `SELECT doc, rev FROM supplier WHERE id > $1 ORDER BY id LIMIT $2`, after, atMost(limit))
}

// Allowing implements parts.Catalogue.
func (s Parts) Allowing(ctx context.Context, supplier string) ([]string, error) {
	return withPolicy(ctx, s.db, func(p supply.Policy) bool {
		return p.Mode != "" && p.Mode != supply.Off && slices.Contains(p.SupplierIDs, supplier)
	})
}

// PutPart implements parts.Catalogue.
func (s Parts) PutPart(ctx context.Context, v parts.Part, facts ...ledger.Fact) error {
	k, err := rowOfPart(v)
	if err != nil {
		return err
	}
	return s.put(ctx, k, facts)
}

// Part implements parts.Catalogue.
func (s Parts) Part(ctx context.Context, id string) (parts.Part, error) {
	return scanPart(s.db.Read().QueryRowContext(ctx, `SELECT doc, rev FROM part WHERE id = $1`, id))
}

// Parts implements parts.Catalogue.
func (s Parts) Parts(ctx context.Context, supplier, after string, limit int) ([]parts.Part, error) {
	return collect(ctx, s.db, scanPart, `SELECT doc, rev FROM part WHERE ($1 = '' OR supplier = $1) AND id > $2 ORDER BY id LIMIT $3`, supplier, after, atMost(limit))
}

// PutLot implements parts.Catalogue.
func (s Parts) PutLot(ctx context.Context, v parts.Lot, facts ...ledger.Fact) error {
	k, err := rowOfLot(v)
	if err != nil {
		return err
	}
	return s.put(ctx, k, facts)
}

// Lot implements parts.Catalogue.
func (s Parts) Lot(ctx context.Context, id string) (parts.Lot, error) {
	return scanLot(s.db.Read().QueryRowContext(ctx, `SELECT doc, rev FROM lot WHERE id = $1`, id))
}

// Lots implements parts.Catalogue.
func (s Parts) Lots(ctx context.Context, part, after string, limit int) ([]parts.Lot, error) {
	return collect(ctx, s.db, scanLot, `SELECT doc, rev FROM lot WHERE ($1 = '' OR part = $1) AND id > $2 ORDER BY id LIMIT $3`, part, after, atMost(limit))
}

// OrderPlace implements parts.Orders.
func (s Parts) OrderPlace(ctx context.Context, order string) (string, error) {
	return s.place(ctx, `SELECT product FROM production_order WHERE id = $1`, order)
}

// DevicePlace implements parts.Orders.
func (s Parts) DevicePlace(ctx context.Context, device string) (string, error) {
	return s.place(ctx, `SELECT product || CASE group_path WHEN '' THEN '' ELSE '/' || group_path END FROM device WHERE id = $1`, device)
}

func (s Parts) place(ctx context.Context, query, id string) (place string, err error) {
	err = s.db.Read().QueryRowContext(ctx, query, id).Scan(&place)
	if errors.Is(err, sql.ErrNoRows) {
		return "", parts.ErrNotFound
	}
	return place, s.db.dialect.Explain(err)
}

const lotsNamed = `SELECT l.doc, l.rev FROM order_lot o JOIN lot l ON l.id = o.lot WHERE o.order_id = `

// OrderLots implements parts.Orders.
func (s Parts) OrderLots(ctx context.Context, order string) ([]parts.Lot, error) {
	return collect(ctx, s.db, scanLot, lotsNamed+`$1 ORDER BY l.id`, order)
}

// DeviceLots implements parts.Orders.
func (s Parts) DeviceLots(ctx context.Context, device string) ([]parts.Lot, error) {
	return collect(ctx, s.db, scanLot, lotsNamed+`(SELECT d.order_id FROM device d WHERE d.id = $1) ORDER BY l.id`, device)
}

// Name implements parts.Orders.
func (s Parts) Name(ctx context.Context, order string, lots []string, fact ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		named, err := nameLots(tx, order, lots)
		if err != nil || !named {
			return err
		}
		var all int
		if err := tx.QueryRow(`SELECT count(*) FROM order_lot WHERE order_id = $1`, order).Scan(&all); err != nil {
			return err
		}
		if all > parts.MaxLots {
			return parts.ErrFull
		}
		return tx.Append(fact)
	})
}

// nameLots says whether one of them was not named before.
func nameLots(tx *Tx, order string, lots []string) (any bool, err error) {
	for _, l := range lots {
		new, err := did(tx.Exec(`INSERT INTO order_lot (lot, order_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`, l, order))
		if err != nil {
			return false, err
		}
		any = any || new
	}
	return any, nil
}

// buildIn names the lots that an order is created with: *factory.LotError for one that is not there, or was recalled.
func buildIn(tx *Tx, o factory.Order) error {
	for _, id := range o.Lots {
		l, err := scanLot(tx.QueryRow(`SELECT doc, rev FROM lot WHERE id = $1`, id))
		if errors.Is(err, parts.ErrNotFound) || err == nil && !l.Recalled.IsZero() {
			return &factory.LotError{Lot: id, Recalled: err == nil}
		}
		if err != nil {
			return err
		}
	}
	_, err := nameLots(tx, o.ID, o.Lots)
	return err
}

// Unname implements parts.Orders.
func (s Parts) Unname(ctx context.Context, order, lot string, fact ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		taken, err := did(tx.Exec(`DELETE FROM order_lot WHERE lot = $1 AND order_id = $2`, lot, order))
		if err != nil || !taken {
			return err
		}
		return tx.Append(fact)
	})
}

// lotDevices walks along the orders of lot $2, and then along each order's devices, in scope $1. Where nothing is limited the index says it all.
func lotDevices(scope []string) (string, []any, error) {
	limits := ` $1 = '[]'`
	if len(scope) > 0 {
		limits = inScope("d.product", "d.id")
	}
	list, err := listOf(scope)
	return ` FROM order_lot l JOIN device d ON d.order_id = l.order_id WHERE l.lot = $2 AND` + limits, []any{list}, err
}

// Devices implements parts.Orders: the rest of the order in which the page before ended, and then the orders behind it. Each walk goes on where it was.
func (s Parts) Devices(ctx context.Context, lot string, scope []string, after string, limit int) ([]parts.Built, error) {
	order, id, _ := strings.Cut(after, "/")
	rest, err := s.devices(ctx, ` AND l.order_id = $3 AND d.id > $4`, lot, scope, limit, order, id)
	if err != nil || len(rest) == limit {
		return rest, err
	}
	more, err := s.devices(ctx, ` AND l.order_id > $3`, lot, scope, limit-len(rest), order)
	return append(rest, more...), err
}

func (s Parts) devices(ctx context.Context, behind, lot string, scope []string, limit int, key ...any) ([]parts.Built, error) {
	from, args, err := lotDevices(scope)
	if err != nil {
		return nil, err
	}
	args = append(append(args, lot), key...)
	return collect(ctx, s.db, func(row scanner) (b parts.Built, err error) {
		return b, row.Scan(&b.Device, &b.Product, &b.Order, &b.State)
	}, `SELECT d.id, d.product, d.order_id, d.state`+from+behind+fmt.Sprintf(` ORDER BY l.order_id, d.id LIMIT $%d`, len(args)+1), append(args, limit)...)
}

// Count implements parts.Orders.
func (s Parts) Count(ctx context.Context, lot string, scope []string) (n int64, err error) {
	from, args, err := lotDevices(scope)
	if err != nil {
		return 0, err
	}
	args = append(args, lot, string(device.Decommissioned), string(device.Disposed), string(device.Moved))
	err = s.db.Read().QueryRowContext(ctx, `SELECT count(*)`+from+` AND d.state NOT IN ($3, $4, $5)`, args...).Scan(&n)
	return n, s.db.dialect.Explain(err)
}

// SupplierNames implements supply.Store.
func (s Supply) SupplierNames(ctx context.Context, ids []string) (map[string][]string, error) {
	list, err := listOf(ids)
	if err != nil {
		return nil, err
	}
	all, err := collect(ctx, s.db, scanSupplier, `SELECT doc, rev FROM supplier WHERE id IN (SELECT l.value FROM list($1) AS l)`, list)
	names := map[string][]string{}
	for _, v := range all {
		if names[v.ID] = nil; v.Ended.IsZero() {
			names[v.ID] = append(slices.Clone(v.Names), v.Name)
		}
	}
	return names, err
}

// replayPartRow makes a row again, or anew, as a fact tells it. What is private of it is not there: the names of suppliers and parts are missing until somebody says them again.
func replayPartRow(tx *Tx, k partRow, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	err = tx.QueryRow(`SELECT rev FROM `+k.table+` WHERE id = $1`, k.id).Scan(&k.rev)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, err
	}
	err = k.put(tx)
	if errors.Is(err, parts.ErrExists) { // another has its number
		return false, nil
	}
	return err == nil, err
}

func replaySupplier(tx *Tx, f ledger.Fact) (bool, error) {
	var v parts.Supplier
	if err := json.Unmarshal(f.Data, &v); err != nil {
		return false, err
	}
	k, err := rowOfSupplier(v)
	return replayPartRow(tx, k, err)
}

func replayPart(tx *Tx, f ledger.Fact) (bool, error) {
	var v parts.Part
	if err := json.Unmarshal(f.Data, &v); err != nil {
		return false, err
	}
	k, err := rowOfPart(v)
	return replayPartRow(tx, k, err)
}

func replayLot(tx *Tx, f ledger.Fact) (bool, error) {
	var v parts.Lot
	if err := json.Unmarshal(f.Data, &v); err != nil {
		return false, err
	}
	k, err := rowOfLot(v)
	return replayPartRow(tx, k, err)
}

func replayLotsNamed(tx *Tx, f ledger.Fact) (bool, error) {
	var n parts.Naming
	if err := json.Unmarshal(f.Data, &n); err != nil {
		return false, err
	}
	return nameLots(tx, n.Order, n.Lots)
}

func replayLotsTaken(tx *Tx, f ledger.Fact) (done bool, err error) {
	var n parts.Naming
	if err := json.Unmarshal(f.Data, &n); err != nil {
		return false, err
	}
	for _, l := range n.Lots {
		taken, err := did(tx.Exec(`DELETE FROM order_lot WHERE lot = $1 AND order_id = $2`, l, n.Order))
		if err != nil {
			return false, err
		}
		done = done || taken
	}
	return done, nil
}
