package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/genuine"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/custody"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

// lastingKinds is the condition of the index entry_lasting, word by word: else it is not used, and all that a device ever did is read.
const lastingKinds = `kind IN ('device.provisioned', 'device.imported', 'device.state.changed', 'device.quarantined', 'device.released',
  'device.inconsistent', 'device.replaced', 'device.rekeyed', 'retire.wiped', 'retire.disposed')`

// maxRestsOn is how many facts of one kind a verdict rests on, the newest; of changes of state there are more, because each says another thing.
const (
	maxRestsOn       = 1
	maxRestsOnStates = 8
)

// GenuineRecord implements genuine.Store.
func (db *DB) GenuineRecord(ctx context.Context, id string) (genuine.Record, error) {
	r := genuine.Record{Since: map[genuine.Word]time.Time{}, Text: map[genuine.Word]string{}}
	d, err := db.Devices().Device(ctx, id)
	if errors.Is(err, device.ErrNotFound) {
		return r, nil
	}
	if err != nil {
		return r, db.dialect.Explain(err)
	}
	r.Known, r.Device, r.Product = true, d, d.Product
	p, err := db.Product(ctx, d.Product)
	if err != nil && !errors.Is(err, product.ErrNotFound) {
		return r, err
	}
	if err == nil {
		r.Product, r.Support = p.Name, p.EndOfSupport
	}
	err = db.Read().QueryRowContext(ctx, `SELECT count(*) FROM entry WHERE subject = $1 AND idx IS NULL`, id).Scan(&r.Unplaced)
	if err != nil {
		return r, db.dialect.Explain(err)
	}
	placed, err := collect(ctx, db, func(row scanner) (custody.Placed, error) {
		var p custody.Placed
		var idx int64
		err := row.Scan(&p.Log, &idx, &p.Entry)
		p.Index = uint64(idx)
		return p, err
	}, `SELECT log, idx, data FROM entry WHERE subject = $1 AND idx IS NOT NULL AND `+lastingKinds+` ORDER BY id DESC LIMIT 256`, id)
	if err != nil {
		return r, err
	}
	taken := map[string]int{}
	for _, p := range placed { // the newest first
		if err := restOn(&r, p, taken); err != nil {
			return r, err
		}
	}
	if d.Legitimacy == device.Recalled {
		r.Text[genuine.Recalled], err = db.recalledFor(ctx, id)
	}
	return r, err
}

// recalledFor says why a device is recalled and what to do, by the newest recall that it has not been mended for.
func (db *DB) recalledFor(ctx context.Context, id string) (string, error) {
	rs, err := collect(ctx, db, func(row scanner) (r owner.Recall, err error) {
		var doc string
		if err := row.Scan(&doc); err != nil {
			return r, err
		}
		return r, json.Unmarshal([]byte(doc), &r)
	}, `SELECT r.doc FROM device_mark m JOIN recall r ON r.id = m.recall WHERE m.device_id = $1 ORDER BY r.made DESC, r.id LIMIT 1`, id)
	if err != nil || len(rs) == 0 {
		return "", err
	}
	return fmt.Sprintf("%s: %s, until %s", rs[0].Reason, rs[0].Remedy, rs[0].Due.UTC().Format(time.DateOnly)), nil
}

// GenuineVersion implements genuine.Store.
func (db *DB) GenuineVersion(ctx context.Context, id string) (uint64, error) {
	var v int64
	err := db.Read().QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM entry WHERE subject = $1`, id).Scan(&v)
	return uint64(v), db.dialect.Explain(err)
}

// restOn takes what a fact dates.
func restOn(r *genuine.Record, p custody.Placed, taken map[string]int) error {
	f, err := wire.DecodeFact(p.Entry)
	if err != nil {
		return err
	}
	kind, most := ledger.Kind(f.Kind), maxRestsOn
	if kind == ledger.KindDeviceState {
		most = maxRestsOnStates
	}
	if taken[f.Kind]++; taken[f.Kind] > most {
		return nil
	}
	at := time.UnixMilli(f.At).UTC()
	first := func(w genuine.Word) {
		if _, ok := r.Since[w]; !ok {
			r.Since[w] = at
		}
	}
	switch kind { //nolint:exhaustive // those of lastingKinds
	case ledger.KindDeviceProvisioned:
		r.Since[genuine.Genuine] = at
	case ledger.KindDeviceImported:
		r.Imported = true
		r.Since[genuine.Imported] = at
	case ledger.KindDeviceState:
		var c struct {
			To         device.State      `json:"to"`
			Legitimacy device.Legitimacy `json:"legitimacy_to"`
		}
		if err := json.Unmarshal(f.Data, &c); err != nil {
			return err
		}
		word, ok := map[string]genuine.Word{
			string(device.Suspected): genuine.SuspectedClone, string(device.Lost): genuine.Lost, string(device.Decommissioning): genuine.Decommissioned, string(device.Moved): genuine.Moved,
			string(device.Stolen): genuine.Stolen, string(device.Recalled): genuine.Recalled, string(device.Refurbished): genuine.Refurbished,
			string(device.Resold): genuine.Resold,
		}[string(c.To)+string(c.Legitimacy)]
		if !ok {
			return nil
		}
		first(word)
	case ledger.KindDeviceQuarantined:
		first(genuine.HeldBack)
	case ledger.KindDeviceInconsistent:
		first(genuine.SuspectedClone)
	case ledger.KindDeviceReplaced:
		first(genuine.Replaced)
	case ledger.KindDeviceRekeyed:
		r.Rekeyed = at
	case ledger.KindRetireWiped, ledger.KindRetireDisposed:
		first(genuine.Decommissioned)
	}
	r.Facts = append(r.Facts, genuine.Fact{Log: string(p.Log), Index: p.Index, Kind: string(kind)})
	return nil
}

const questionColumns = `id, device, nonce, asked, expires, answered, word, evidence, key`

func scanQuestion(row scanner) (genuine.Question, error) {
	var q genuine.Question
	var asked, expires, answered int64
	err := row.Scan(&q.ID, &q.Device, &q.Nonce, &asked, &expires, &answered, &q.Word, &q.Evidence, &q.Key)
	if errors.Is(err, sql.ErrNoRows) {
		return q, genuine.ErrNotFound
	}
	q.Asked, q.Expires, q.Answered = Time(asked), Time(expires), Time(answered)
	return q, err
}

// AskDevice implements genuine.Store.
func (db *DB) AskDevice(ctx context.Context, q genuine.Question, since time.Time, most int) error {
	return db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`DELETE FROM genuine_question WHERE asked < $1`, Millis(since)); err != nil {
			return err
		}
		var open, all int
		if err := tx.QueryRow(`SELECT count(CASE WHEN answered = 0 AND expires > $2 THEN 1 END), count(*) FROM genuine_question WHERE device = $1`,
			q.Device, Millis(q.Asked)).Scan(&open, &all); err != nil {
			return err
		}
		switch {
		case open > 0:
			return genuine.ErrBusy
		case all >= most:
			return genuine.ErrEnough
		}
		_, err := tx.Exec(`INSERT INTO genuine_question (id, device, nonce, asked, expires) VALUES ($1, $2, $3, $4, $5)`,
			q.ID, q.Device, q.Nonce, Millis(q.Asked), Millis(q.Expires))
		return err
	})
}

// Question implements genuine.Store.
func (db *DB) Question(ctx context.Context, id string) (genuine.Question, error) {
	return scanQuestion(db.Read().QueryRowContext(ctx, `SELECT `+questionColumns+` FROM genuine_question WHERE id = $1`, id))
}

// OpenQuestions implements genuine.Store.
func (db *DB) OpenQuestions(ctx context.Context, now time.Time, limit int) ([]genuine.Question, error) {
	return collect(ctx, db, scanQuestion, `SELECT `+questionColumns+` FROM genuine_question WHERE answered = 0 AND expires > $1 ORDER BY expires LIMIT $2`,
		Millis(now), limit)
}

// AnswerQuestion implements genuine.Store.
func (db *DB) AnswerQuestion(ctx context.Context, q genuine.Question) error {
	return db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE genuine_question SET answered = $1, word = $2, evidence = $3, key = $4 WHERE id = $5 AND answered = 0`,
			Millis(q.Answered), q.Word, q.Evidence, q.Key, q.ID)
		if err != nil {
			return err
		}
		return one(res, genuine.ErrNotFound)
	})
}
