package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/owner"
)

func scanMark(row scanner) (owner.Mark, error) {
	var m owner.Mark
	var doc string
	if err := row.Scan(&doc); err != nil {
		return m, err
	}
	if err := json.Unmarshal([]byte(doc), &m); err != nil {
		return m, fmt.Errorf("stored mark: %w", err)
	}
	return m, nil
}

// Marks implements owner.Marks.
func (s *Owners) Marks(ctx context.Context, id string) ([]owner.Mark, error) {
	return collect(ctx, s.db, scanMark, `SELECT doc FROM device_mark WHERE device_id = $1 ORDER BY recall`, id)
}

func saidOf(tx *Tx, id string) ([]owner.Mark, error) {
	docs, err := texts(tx, `SELECT doc FROM device_mark WHERE device_id = $1 ORDER BY recall`, id)
	if err != nil {
		return nil, err
	}
	out := make([]owner.Mark, 0, len(docs))
	for _, doc := range docs {
		var m owner.Mark
		if err := json.Unmarshal([]byte(doc), &m); err != nil {
			return nil, fmt.Errorf("stored mark of device %s: %w", id, err)
		}
		out = append(out, m)
	}
	return out, nil
}

func putMark(tx *Tx, m owner.Mark, known bool) error {
	doc, err := json.Marshal(m)
	if err != nil {
		return err
	}
	query := `INSERT INTO device_mark (device_id, recall, doc) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`
	if known {
		query = `UPDATE device_mark SET doc = $3 WHERE device_id = $1 AND recall = $2`
	}
	res, err := tx.Exec(query, m.Device, m.Recall, string(doc))
	if err != nil {
		return err
	}
	return one(res, owner.ErrChanged)
}

// with is what a device is with marks: stolen before recalled before what it was without any.
func with(marks []owner.Mark, base device.Legitimacy) device.Legitimacy {
	switch {
	case len(marks) == 0:
		return base
	case marks[0].Recall == "":
		return device.Stolen
	}
	return device.Recalled
}

// remark adds a mark to a device, or takes it away, and sets what it is then; the fact is of that. A device that is what it is already has
// a fact all the same: that it was said is on record.
func remark(tx *Tx, id string, add *owner.Mark, lift string, maker bool, fact func(from, to device.Legitimacy) (ledger.Fact, error)) error {
	var now device.Legitimacy
	err := tx.QueryRow(`SELECT legitimacy FROM device WHERE id = $1`, id).Scan(&now)
	if errors.Is(err, sql.ErrNoRows) {
		return owner.ErrNotFound
	}
	if err != nil {
		return err
	}
	marks, err := saidOf(tx, id)
	if err != nil {
		return err
	}
	base := now
	if len(marks) > 0 {
		base = marks[0].Was
	}
	theft := len(marks) > 0 && marks[0].Recall == ""
	if add != nil {
		add.Was = base
		if err := putMark(tx, *add, theft && add.Recall == "" && add.Maker && !marks[0].Maker); err != nil {
			return err
		}
	} else {
		if theft && lift == "" && marks[0].Maker && !maker {
			return owner.ErrForeign
		}
		res, err := tx.Exec(`DELETE FROM device_mark WHERE device_id = $1 AND recall = $2`, id, lift)
		if err != nil {
			return err
		}
		if err := one(res, owner.ErrNotFound); err != nil {
			return err
		}
	}
	if marks, err = saidOf(tx, id); err != nil {
		return err
	}
	to := with(marks, base)
	if _, err := tx.Exec(`UPDATE device SET legitimacy = $1 WHERE id = $2`, string(to), id); err != nil {
		return err
	}
	if err := stir(tx, id); err != nil {
		return err
	}
	f, err := fact(now, to)
	if err != nil {
		return err
	}
	return tx.Append(f)
}

// PutMark implements owner.Marks.
func (s *Owners) PutMark(ctx context.Context, m owner.Mark, fact func(from, to device.Legitimacy) (ledger.Fact, error)) error {
	return s.db.Write(ctx, func(tx *Tx) error { return remark(tx, m.Device, &m, "", m.Maker, fact) })
}

// LiftMark implements owner.Marks.
func (s *Owners) LiftMark(ctx context.Context, id, recall string, maker bool, fact func(from, to device.Legitimacy) (ledger.Fact, error)) error {
	return s.db.Write(ctx, func(tx *Tx) error { return remark(tx, id, nil, recall, maker, fact) })
}

// Stolen implements owner.Marks.
func (s *Owners) Stolen(ctx context.Context) ([]string, error) {
	return collect(ctx, s.db, scanID, `SELECT m.device_id FROM device_mark m JOIN device d ON d.id = m.device_id WHERE m.recall = ''
		AND d.state IN `+inField+` ORDER BY m.device_id`)
}

// Recallable implements owner.Marks.
func (s *Owners) Recallable(ctx context.Context, r owner.Recall, limit int) ([]string, error) {
	return collect(ctx, s.db, scanID, `SELECT id FROM device WHERE product = $1 AND ($2 = '' OR hardware = $2) AND ($3 = '' OR order_id = $3)
		AND id >= $4 AND ($5 = '' OR id <= $5) AND state NOT IN `+ended+` ORDER BY id LIMIT $6`,
		r.Product, r.Hardware, r.Order, r.From, r.To, limit)
}

// PutRecall implements owner.Marks.
func (s *Owners) PutRecall(ctx context.Context, r owner.Recall, devices []string, whole ledger.Fact,
	each func(device string, from, to device.Legitimacy) (ledger.Fact, error),
) error {
	doc, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`INSERT INTO recall (id, product, made, doc) VALUES ($1, $2, $3, $4)`, r.ID, r.Product, Millis(r.Made), string(doc)); err != nil {
			return err
		}
		if err := tx.Append(whole); err != nil {
			return err
		}
		for _, id := range devices {
			m := owner.Mark{Device: id, Recall: r.ID, At: r.Made, By: r.By}
			if err := remark(tx, id, &m, "", true, func(from, to device.Legitimacy) (ledger.Fact, error) { return each(id, from, to) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// Recalls implements owner.Marks.
func (s *Owners) Recalls(ctx context.Context, product, id string, limit int) ([]owner.Recall, error) {
	return collect(ctx, s.db, func(row scanner) (owner.Recall, error) {
		var r owner.Recall
		var doc string
		var open int
		if err := row.Scan(&doc, &open); err != nil {
			return r, err
		}
		if err := json.Unmarshal([]byte(doc), &r); err != nil {
			return r, fmt.Errorf("stored recall: %w", err)
		}
		r.Open = open
		return r, nil
	}, `SELECT r.doc, (SELECT count(*) FROM device_mark m WHERE m.recall = r.id) FROM recall r
		WHERE ($1 = '' OR r.product = $1) AND ($2 = '' OR r.id = $2) ORDER BY r.made DESC, r.id LIMIT $3`, product, id, limit)
}
