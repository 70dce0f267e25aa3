package store

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// CreateOrder implements factory.Store.
func (db *DB) CreateOrder(ctx context.Context, o factory.Order, facts ...ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		if err := putOrder(tx, o); err != nil {
			return err
		}
		if o.Master != nil {
			if err := putMaster(tx, *o.Master); err != nil {
				return err
			}
		}
		if err := buildIn(tx, o); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// putMaster remembers the newest master of a product's hardware; *factory.OldMasterError for one that does not follow it.
func putMaster(tx *Tx, m factory.MasterRef) error {
	put, err := did(tx.Exec(`INSERT INTO master (product, hardware, revision, digest) VALUES ($1, $2, $3, $4)
		ON CONFLICT (product, hardware) DO UPDATE SET revision = excluded.revision, digest = excluded.digest
		WHERE master.revision < excluded.revision OR (master.revision = excluded.revision AND master.digest = excluded.digest)`,
		m.Product, m.Hardware, int64(m.Revision), m.Digest))
	if err != nil || put {
		return err
	}
	known := factory.MasterRef{Product: m.Product, Hardware: m.Hardware}
	if err := tx.QueryRow(`SELECT revision, digest FROM master WHERE product = $1 AND hardware = $2`, m.Product, m.Hardware).Scan(&known.Revision, &known.Digest); err != nil {
		return err
	}
	return &factory.OldMasterError{Known: known}
}

// putOrder stores an order; factory.ErrExists for an ID that is taken.
func putOrder(tx *Tx, o factory.Order) error {
	doc, err := json.Marshal(o)
	if err != nil {
		return err
	}
	put, err := did(tx.Exec(`INSERT INTO production_order (id, product, state, created, doc) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (id) DO NOTHING`, o.ID, o.Product, string(o.State), Millis(o.Created), string(doc)))
	if err == nil && !put {
		err = factory.ErrExists
	}
	return err
}

const orderColumns = `SELECT state, job_end, doc FROM production_order`

func scanOrder(row interface{ Scan(...any) error }) (factory.Order, error) {
	var state, doc string
	var end []byte
	err := row.Scan(&state, &end, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return factory.Order{}, factory.ErrNotFound
	}
	if err != nil {
		return factory.Order{}, err
	}
	var o factory.Order
	if err := json.Unmarshal([]byte(doc), &o); err != nil {
		return factory.Order{}, fmt.Errorf("stored order: %w", err)
	}
	o.State, o.JobEnd = factory.State(state), end
	return o, nil
}

// Order implements factory.Store.
func (db *DB) Order(ctx context.Context, id string) (factory.Order, error) {
	return scanOrder(db.Read().QueryRowContext(ctx, orderColumns+` WHERE id = $1`, id))
}

// Orders implements factory.Store.
func (db *DB) Orders(ctx context.Context, product, after string, limit int) ([]factory.Order, error) {
	rows, err := db.Read().QueryContext(ctx, orderColumns+` WHERE ($1 = '' OR product = $1)`+behind("production_order", "id")+` ORDER BY created DESC, id LIMIT $3`,
		product, after, atMost(limit))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []factory.Order{}
	for rows.Next() {
		o, err := scanOrder(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, rows.Err()
}

// AddRecords implements factory.Store.
func (db *DB) AddRecords(ctx context.Context, order string, batch []factory.Candidate) ([]factory.Standing, error) {
	var out []factory.Standing
	err := db.Write(ctx, func(tx *Tx) error {
		o, err := scanOrder(tx.QueryRow(orderColumns+` WHERE id = $1`, order))
		if err != nil {
			return err
		}
		end, err := o.End()
		if err != nil {
			return err
		}
		for _, c := range batch {
			st, err := addRecord(tx, o, end, c)
			if err != nil {
				return fmt.Errorf("record %d: %w", c.Seq, err)
			}
			out = append(out, st)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func addRecord(tx *Tx, o factory.Order, end factory.End, c factory.Candidate) (factory.Standing, error) {
	order := o.ID
	st := factory.Standing{Seq: c.Seq, State: factory.Known}
	known, clash, err := placed(tx, o, end, c)
	if err != nil || known {
		return st, err
	}
	if clash != "" { // the place is another's or behind the end, or the chain is broken: evidence, but no part of the chain
		return alarm(tx, order, c, clash)
	}
	bad := c.Bad
	if bad == "" {
		if bad, err = repeated(tx, order, c); err != nil {
			return st, err
		}
	}
	if bad == "" {
		if bad, err = reworked(tx, order, c); err != nil {
			return st, err
		}
	}
	if bad == "" {
		var waits string
		if bad, waits, err = injected(tx, c); err != nil {
			return st, err
		}
		if waits != "" {
			return factory.Standing{Seq: c.Seq, State: factory.Waiting, Reason: waits}, nil
		}
	}
	row := string(c.Outcome)
	if bad != "" {
		row = "refused"
	}
	if _, err := tx.Exec(`INSERT INTO production_record (order_id, seq, hash, prev, ticket, device, state, chip, identity, attest, envelope, rework)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`, order, int64(c.Seq), c.Hash[:], c.Prev[:], int64(c.Ticket), c.Serial, row,
		c.ChipUID, c.Identity, c.Attest, c.Envelope, int64(c.Rework)); err != nil {
		return st, err
	}
	if bad != "" {
		return alarm(tx, order, c, bad)
	}
	if c.Outcome != wire.Made {
		st.State = factory.NotMade
		return st, nil
	}
	st.State = factory.Accepted
	if err := registerMade(tx, c); err != nil {
		return st, err
	}
	return st, tx.Append(c.Accept)
}

// registerMade adds the device of an accepted record to the registry.
func registerMade(tx *Tx, c factory.Candidate) error {
	d := c.Device
	return putProvisioned(tx, ProvisionedRow{
		ID: d.ID, Product: d.Product, Hardware: d.Hardware, Order: d.Order, Station: d.Station, At: d.Made, Identity: c.Identity, AttestKey: d.AttestKey,
		KeyOrigin: d.KeyOrigin, Virtual: d.Virtual, Release: d.Twin.Release, Version: d.Twin.Version, Bundle: d.Twin.Bundle,
	})
}

// placed looks at the record's place in the chain: whether it is here already, as a record or as an alarm, and whether another has its
// place or what stands beside it is not linked with it. The first record follows the order itself.
func placed(tx *Tx, o factory.Order, end factory.End, c factory.Candidate) (known bool, clash string, err error) {
	rows, err := tx.Query(`SELECT seq, hash, prev FROM production_record WHERE order_id = $1 AND seq >= $2 AND seq <= $3
		UNION ALL SELECT 0, hash, hash FROM production_alarm WHERE order_id = $1 AND seq = $4 AND hash = $5`,
		o.ID, int64(c.Seq)-1, int64(c.Seq)+1, int64(c.Seq), c.Hash[:])
	if err != nil {
		return false, "", err
	}
	defer rows.Close()
	var taken, unlinked string
	if c.Seq == 1 && c.Prev != wire.RecordHash(o.Envelope) {
		unlinked = "record 1 does not follow the order"
	}
	for rows.Next() {
		var seq int64
		var hash, prev []byte
		if err := rows.Scan(&seq, &hash, &prev); err != nil {
			return false, "", err
		}
		switch {
		case seq == 0, seq == int64(c.Seq) && bytes.Equal(hash, c.Hash[:]):
			known = true
		case seq == int64(c.Seq):
			taken = fmt.Sprintf("record %d exists with other contents: the station's state was rolled back", c.Seq)
		case seq < int64(c.Seq) && !bytes.Equal(hash, c.Prev[:]):
			unlinked = fmt.Sprintf("record %d does not follow record %d", c.Seq, c.Seq-1)
		case seq > int64(c.Seq) && !bytes.Equal(prev, c.Hash[:]) && unlinked == "":
			unlinked = fmt.Sprintf("record %d does not follow record %d", c.Seq+1, c.Seq)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || known {
		return known, "", err
	}
	return false, cmp.Or(taken, end.Refuses(c.Seq, c.Hash), unlinked), nil
}

// repeated looks for the ticket in the order, and for chip and keys in every order.
func repeated(tx *Tx, order string, c factory.Candidate) (string, error) {
	only := []any{nil, nil, nil} // pieces that were not made have no part in this: what they are may come again
	if c.Outcome == wire.Made {
		only = []any{c.ChipUID, c.Identity, c.Attest}
	}
	rows, err := tx.Query(`SELECT 0, order_id, seq FROM production_record WHERE order_id = $1 AND ticket = $2 AND state <> 'refused'
		UNION ALL SELECT 1, order_id, seq FROM production_record WHERE chip = $3 AND state = 'made'
		UNION ALL SELECT 2, order_id, seq FROM production_record WHERE identity = $4 AND state = 'made'
		UNION ALL SELECT 3, order_id, seq FROM production_record WHERE attest = $5 AND state = 'made'`,
		append([]any{order, int64(c.Ticket)}, only...)...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	whats := [...]string{"ticket", "chip UID", "identity key", "attestation key"}
	first, bad := len(whats), ""
	for rows.Next() {
		var what int
		var other string
		var seq int64
		if err := rows.Scan(&what, &other, &seq); err != nil {
			return "", err
		}
		if what >= first {
			continue
		}
		if first, bad = what, fmt.Sprintf("its %s is that of record %d of order %s: a clone", whats[what], seq, other); what == 0 {
			bad = fmt.Sprintf("ticket %d was used before", c.Ticket)
		}
	}
	return bad, errors.Join(rows.Err(), rows.Close())
}

// reworked holds a record against the one it says it is the rework of, whichever of the two came first: both are of one chip, and the
// earlier one is of a piece that was not made.
func reworked(tx *Tx, order string, c factory.Candidate) (string, error) {
	var chip []byte
	var seq int64
	var state string
	if c.Rework > 0 {
		err := tx.QueryRow(`SELECT chip, state FROM production_record WHERE order_id = $1 AND seq = $2`, order, int64(c.Rework)).Scan(&chip, &state)
		switch {
		case errors.Is(err, sql.ErrNoRows): // it comes later: the gap keeps the order open
		case err != nil:
			return "", err
		case state != string(wire.Scrapped) && state != string(wire.Interrupted):
			return fmt.Sprintf("it is the rework of record %d, whose piece is %s: a device is not made anew", c.Rework, state), nil
		case !bytes.Equal(chip, c.ChipUID):
			return fmt.Sprintf("it is the rework of record %d, which is of another chip", c.Rework), nil
		}
	}
	err := tx.QueryRow(`SELECT chip, seq FROM production_record WHERE order_id = $1 AND rework = $2 AND rework <> 0 ORDER BY seq LIMIT 1`,
		order, int64(c.Seq)).Scan(&chip, &seq)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", nil
	case err != nil:
		return "", err
	case c.Outcome == wire.Made || !bytes.Equal(chip, c.ChipUID):
		return fmt.Sprintf("record %d says it is the rework of this one, which is of another chip or was made", seq), nil
	}
	return "", nil
}

func alarm(tx *Tx, order string, c factory.Candidate, reason string) (factory.Standing, error) {
	if _, err := tx.Exec(`INSERT INTO production_alarm (order_id, seq, hash, reason, envelope) VALUES ($1, $2, $3, $4, $5)`,
		order, int64(c.Seq), c.Hash[:], reason, c.Envelope); err != nil {
		return factory.Standing{}, err
	}
	return factory.Standing{Seq: c.Seq, State: factory.Alarmed, Reason: reason}, tx.Append(c.Alarm(reason))
}

// Tally implements factory.Store.
func (db *DB) Tally(ctx context.Context, order string) (t factory.Tally, err error) {
	if err := db.count(ctx, order, &t); err != nil {
		return t, err
	}
	err = db.Read().QueryRowContext(ctx, `SELECT hash FROM production_record WHERE order_id = $1 AND seq = $2`, order, int64(t.LastSeq)).Scan(&t.Last)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return t, err
	}
	if err := db.Read().QueryRowContext(ctx, `SELECT count(*) FROM production_alarm WHERE order_id = $1`, order).Scan(&t.Alarms); err != nil {
		return t, err
	}
	err = db.Read().QueryRowContext(ctx, firstSeen, order).Scan(&t.FirstSeen)
	return t, err
}

const (
	countRecords = `SELECT state, count(*), max(seq), count(*) FILTER (WHERE rework > 0) FROM production_record WHERE order_id = $1 GROUP BY state`
	// Devices lie as they were registered: along their order, not along their IDs.
	firstSeen = `SELECT count(*) FROM device WHERE order_id = $1 AND last_seen > 0`
)

// count counts the records.
func (db *DB) count(ctx context.Context, order string, t *factory.Tally) error {
	rows, err := db.Read().QueryContext(ctx, countRecords, order)
	if err != nil {
		return err
	}
	defer rows.Close()
	of := map[string]*uint32{"made": &t.Made, "scrapped": &t.Scrapped, "interrupted": &t.Interrupted, "refused": &t.Refused}
	for rows.Next() {
		var state string
		var n, last, reworks uint32
		if err := rows.Scan(&state, &n, &last, &reworks); err != nil {
			return err
		}
		if of[state] == nil {
			return fmt.Errorf("order %s: %d records are %q: %w", order, n, state, errDamaged)
		}
		*of[state], t.Records, t.LastSeq, t.Reworked = n, t.Records+n, max(t.LastSeq, last), t.Reworked+reworks
	}
	return errors.Join(rows.Err(), rows.Close())
}

// PutJobEnd implements factory.Store.
func (db *DB) PutJobEnd(ctx context.Context, order string, envelope []byte, alarm func(record []byte, reason string) (ledger.Fact, error)) error {
	return db.Write(ctx, func(tx *Tx) error {
		o, err := scanOrder(tx.QueryRow(orderColumns+` WHERE id = $1`, order))
		if err != nil {
			return err
		}
		if len(o.JobEnd) > 0 {
			if !bytes.Equal(o.JobEnd, envelope) {
				return factory.ErrChanged
			}
			return nil
		}
		o.JobEnd = envelope
		end, err := o.End()
		if err != nil {
			return err
		}
		if _, err := tx.Exec(`UPDATE production_order SET job_end = $2 WHERE id = $1`, order, envelope); err != nil {
			return err
		}
		return deny(tx, order, end, alarm)
	})
}

// deny puts an alarm to each record that is here and that end refuses. Its device is registered: what becomes of it is not the
// store's to say.
func deny(tx *Tx, order string, end factory.End, alarm func(record []byte, reason string) (ledger.Fact, error)) error {
	type row struct {
		seq            int64
		hash, envelope []byte
	}
	var late []row
	rows, err := tx.Query(`SELECT seq, hash, envelope FROM production_record WHERE order_id = $1 AND seq >= $2 ORDER BY seq`, order, int64(end.Records))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.seq, &r.hash, &r.envelope); err != nil {
			return err
		}
		late = append(late, r)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, r := range late {
		if len(r.hash) != 32 {
			return fmt.Errorf("stored record %d of order %s: %w", r.seq, order, errDamaged)
		}
		reason := end.Refuses(uint32(r.seq), [32]byte(r.hash))
		if reason == "" {
			continue
		}
		f, err := alarm(r.envelope, reason)
		if err != nil {
			return err
		}
		res, err := tx.Exec(`INSERT INTO production_alarm (order_id, seq, hash, reason, envelope) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT DO NOTHING`, order, r.seq, r.hash, reason, r.envelope)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return err
		}
		if n == 0 {
			continue // it has one, for another reason
		}
		if err := tx.Append(f); err != nil {
			return err
		}
	}
	return nil
}

// EndOrder implements factory.Store.
func (db *DB) EndOrder(ctx context.Context, order string, to factory.State, at time.Time, fact ledger.Fact) error {
	return db.Write(ctx, func(tx *Tx) error {
		o, err := scanOrder(tx.QueryRow(orderColumns+` WHERE id = $1`, order))
		if err != nil {
			return err
		}
		if o.State != factory.Open {
			return factory.ErrChanged
		}
		if to == factory.Cancelled {
			used, err := tx.there(`SELECT count(*) FROM production_record WHERE order_id = $1`, order)
			if err != nil || used || len(o.JobEnd) > 0 {
				return cmp.Or(err, factory.ErrUsed)
			}
		}
		o.State, o.Closed, o.ClosedUID = to, at, fact.UID
		doc, err := json.Marshal(o)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(`UPDATE production_order SET state = $2, doc = $3 WHERE id = $1`, order, string(o.State), string(doc)); err != nil {
			return err
		}
		return tx.Append(fact)
	})
}
