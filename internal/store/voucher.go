package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/rekey"
	"github.com/hallmark-iot/hallmark/pki"
)

// Vouchers implements rekey.Store.
type Vouchers struct{ db *DB }

// Vouchers gives the store of vouchers and of the keys that devices had.
func (db *DB) Vouchers() Vouchers { return Vouchers{db} }

const voucherColumns = `SELECT v.id, v.device, v.product, coalesce((SELECT d.group_path FROM device d WHERE d.id = v.device), ''), v.state, v.issuer, v.second,
	v.issued, v.expires, v.ended, v.attempts, v.hash, v.chip, v.record, v.keys, v.cert, v.identity FROM voucher v`

func scanVoucher(row scanner) (v rekey.Voucher, err error) {
	var hash, record, keys []byte
	var issued, expires, ended int64
	err = row.Scan(&v.ID, &v.Device, &v.Product, &v.Group, &v.State, &v.By, &v.Second, &issued, &expires, &ended, &v.Attempts, &hash, &v.Chip, &record, &keys,
		&v.Cert, &v.Identity)
	if errors.Is(err, sql.ErrNoRows) {
		return v, rekey.ErrNotFound
	}
	if err != nil {
		return v, err
	}
	if len(hash) != 32 || len(record) != 32 || len(keys) != 32 {
		return v, fmt.Errorf("stored voucher %s: %w", v.ID, errDamaged)
	}
	v.Hash, v.Record, v.Keys = [32]byte(hash), [32]byte(record), [32]byte(keys)
	v.Issued, v.Expires, v.Ended = Time(issued), Time(expires), Time(ended)
	return v, nil
}

// AddVoucher implements rekey.Store.
func (s Vouchers) AddVoucher(ctx context.Context, v rekey.Voucher, check func(rekey.Counts, []rekey.Voucher) ([]ledger.Fact, error)) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		var n rekey.Counts
		day := Millis(v.Issued.Add(-24 * time.Hour))
		if err := tx.QueryRow(`SELECT (SELECT count(*) FROM voucher WHERE device = $1 AND issued > $4), (SELECT count(*) FROM voucher WHERE second = $2 AND issued > $4),
			(SELECT count(*) FROM voucher WHERE product = $3 AND issued > $4)`, v.Device, v.Second, v.Product, day).Scan(&n.Device, &n.Second, &n.Product); err != nil {
			return err
		}
		var open []rekey.Voucher
		o, err := scanVoucher(tx.QueryRow(voucherColumns+` WHERE v.device = $1 AND v.state = 'open'`, v.Device))
		switch {
		case err == nil && o.Expires.After(v.Issued):
			open = append(open, o)
		case err != nil && !errors.Is(err, rekey.ErrNotFound):
			return err
		}
		facts, err := check(n, open)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(`UPDATE voucher SET state = 'revoked', ended = CASE WHEN expires < $2 THEN expires ELSE $2 END WHERE device = $1 AND state = 'open'`,
			v.Device, Millis(v.Issued)); err != nil {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO voucher (id, device, product, state, issuer, second, issued, expires, hash, chip, record, keys)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`, v.ID, v.Device, v.Product, string(rekey.Open), v.By, v.Second, Millis(v.Issued), Millis(v.Expires),
			v.Hash[:], v.Chip, v.Record[:], v.Keys[:]); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// Vouchers implements rekey.Store.
func (s Vouchers) Vouchers(ctx context.Context, q rekey.Query) ([]rekey.Voucher, error) {
	scope, err := listOf(q.Scope)
	if err != nil {
		return nil, err
	}
	open := int64(0)
	if q.Open {
		open = Millis(q.Now)
	}
	return collect(ctx, s.db, scanVoucher, voucherColumns+` WHERE`+inScope("v.product", "v.device")+` AND ($2 = '' OR v.device = $2)
		AND ($3 = 0 OR v.state = 'open' AND v.expires > $3) AND ($4 = '' OR v.id < $4) ORDER BY v.id DESC LIMIT $5`, scope, q.Device, open, q.Before, atMost(q.Limit))
}

// Voucher implements rekey.Store.
func (s Vouchers) Voucher(ctx context.Context, id string) (rekey.Voucher, error) {
	return scanVoucher(s.db.Read().QueryRowContext(ctx, voucherColumns+` WHERE v.id = $1`, id))
}

// EndVoucher implements rekey.Store.
func (s Vouchers) EndVoucher(ctx context.Context, id string, to rekey.State, at time.Time, facts ...ledger.Fact) error {
	return s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`UPDATE voucher SET state = $1, ended = $2 WHERE id = $3 AND state = 'open'`, string(to), Millis(at), id)
		if err != nil {
			return err
		}
		if err := one(res, rekey.ErrSpent); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
}

// Missed implements rekey.Store.
func (s Vouchers) Missed(ctx context.Context, id string, m rekey.Miss) error {
	count := `UPDATE voucher SET attempts = attempts + 1 WHERE id = $1 AND state = 'open' AND attempts < $2 RETURNING attempts`
	if m.Guess {
		count = `UPDATE voucher SET guesses = guesses + 1 WHERE id = $1 AND state = 'open' AND guesses < $2 RETURNING guesses`
	}
	if m.Guess { // a stranger's guesses cost no write any more once they are told
		var n int
		if err := s.db.Read().QueryRowContext(ctx, `SELECT guesses FROM voucher WHERE id = $1`, id).Scan(&n); err != nil || n >= m.Most {
			return s.db.dialect.Explain(err)
		}
	}
	return s.db.Write(ctx, func(tx *Tx) error {
		var n int
		err := tx.scan(count, []any{id, m.Most}, &n)
		if errors.Is(err, sql.ErrNoRows) || err == nil && n < m.Most {
			return nil
		}
		if err != nil {
			return err
		}
		if !m.Guess {
			if _, err := tx.Exec(`UPDATE voucher SET state = 'locked', ended = $1 WHERE id = $2`, Millis(m.At), id); err != nil {
				return err
			}
		}
		return tx.Append(m.Fact)
	})
}

// Subject implements rekey.Store.
func (s Vouchers) Subject(ctx context.Context, id string) (rekey.Subject, error) {
	var sub rekey.Subject
	err := s.db.Read().QueryRowContext(ctx, `SELECT d.product, d.group_path, d.state, d.legitimacy, d.identity, d.attest_key,
		(SELECT r.envelope FROM production_record r WHERE r.device = d.id AND r.state = 'made') FROM device d WHERE d.id = $1`, id).
		Scan(&sub.Product, &sub.Group, &sub.State, &sub.Legitimacy, &sub.Identity, &sub.AttestKey, &sub.Record)
	if errors.Is(err, sql.ErrNoRows) {
		return sub, rekey.ErrNotFound
	}
	return sub, s.db.dialect.Explain(err)
}

// Former implements rekey.Store.
func (s Vouchers) Former(ctx context.Context, id string) ([]rekey.Former, error) {
	return collect(ctx, s.db, func(row scanner) (f rekey.Former, err error) {
		var identity, attest []byte
		var until int64
		err = row.Scan(&f.Device, &identity, &attest, &until, &f.Voucher)
		f.Identity, f.Attest, f.Until = hex.EncodeToString(identity), hex.EncodeToString(attest), Time(until)
		return f, err
	}, `SELECT device, identity, attest, until, voucher FROM former_key WHERE device = $1 ORDER BY until DESC, identity`, id)
}

// Rekey implements rekey.Store. All of it is one transaction: whoever looks sees one key of the device, the former or the new.
func (s Vouchers) Rekey(ctx context.Context, c rekey.Change) (kept pki.Issued, err error) {
	err = s.db.Write(ctx, func(tx *Tx) error {
		v, err := scanVoucher(tx.QueryRow(voucherColumns+` WHERE v.id = $1`, c.Voucher.ID))
		if err != nil {
			return err
		}
		if v.State == rekey.Used && v.Keys == c.Voucher.Keys { // the same keys were faster
			kept, err = scanCert(tx.QueryRow(`SELECT `+certColumns+` FROM cert WHERE key = $1`, v.Cert))
			return err
		}
		if v.State != rekey.Open || !c.At.Before(v.Expires) {
			return rekey.ErrSpent
		}
		if again, err := rekeyedTo(tx, c); err != nil || again != nil { // its answer was lost, and so was the time of the voucher that it was for
			if again != nil {
				kept = *again
				return spend(tx, c, again.Key)
			}
			return err
		}
		if err := newKeys(tx, c); err != nil {
			return err
		}
		if err := spend(tx, c, c.Cert.Key); err != nil {
			return err
		}
		if err := replaceKeys(tx, c); err != nil {
			return err
		}
		revoked, err := endHeld(tx, c)
		if err != nil {
			return err
		}
		if err := putCert(tx, c.Cert); err != nil {
			return err
		}
		kept = c.Cert
		facts, err := c.Facts(revoked)
		if err != nil {
			return err
		}
		return tx.Append(facts...)
	})
	return kept, err
}

// rekeyedTo gives the certificate of the keys that are asked for, when the device has them since a voucher before; nil when it has others.
func rekeyedTo(tx *Tx, c rekey.Change) (*pki.Issued, error) {
	var key string
	err := tx.QueryRow(`SELECT v.cert FROM voucher v JOIN device d ON d.id = v.device WHERE v.device = $1 AND v.state = 'used' AND v.keys = $2 AND d.identity = $3
		ORDER BY v.id DESC LIMIT 1`, c.Voucher.Device, c.Voucher.Keys[:], c.Identity).Scan(&key)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	cert, err := scanCert(tx.QueryRow(`SELECT `+certColumns+` FROM cert WHERE key = $1`, key))
	return &cert, err
}

// newKeys refuses keys that a device has, or had.
func newKeys(tx *Tx, c rekey.Change) error {
	at := sha256.Sum256(c.Attest)
	known, err := tx.there(`SELECT (SELECT count(*) FROM production_record WHERE state = 'made' AND (identity = $1 OR attest = $1 OR identity = $2 OR attest = $2))
		+ (SELECT count(*) FROM former_key WHERE identity = $1 OR attest = $1 OR identity = $2 OR attest = $2)
		+ (SELECT count(*) FROM former_attest WHERE attest = $1 OR attest = $2) + (SELECT count(*) FROM device WHERE instance_id = $3)
		+ (SELECT count(*) FROM voucher v WHERE v.state = 'used' AND v.identity = $4)`, c.Identity, at[:], instanceID(c.Attest), hex.EncodeToString(c.Identity))
	if err == nil && known {
		return rekey.ErrKeyKnown
	}
	return err
}

// instanceID is how evidence names a key: wire.InstanceID of its SPKI.
func instanceID(spki []byte) []byte {
	sum := sha256.Sum256(spki)
	return append([]byte{1}, sum[:]...)
}

func spend(tx *Tx, c rekey.Change, cert string) error {
	res, err := tx.Exec(`UPDATE voucher SET state = 'used', ended = $1, keys = $2, cert = $3, identity = $4 WHERE id = $5 AND state = 'open'`,
		Millis(c.At), c.Voucher.Keys[:], cert, hex.EncodeToString(c.Identity), c.Voucher.ID)
	if err != nil {
		return err
	}
	return one(res, rekey.ErrSpent)
}

// replaceKeys makes the new keys the device's, and forgets what the device has forgotten: it counts its results and the directives it accepted from the
// beginning, and its own log begins anew under the new key. Who works has to prove itself again; who is contained stays so, and who was suspected
// of being two is contained: its copy has the keys of before.
func replaceKeys(tx *Tx, c rekey.Change) error {
	var doc string
	var old, attest []byte
	err := tx.QueryRow(`SELECT doc, identity, attest_key FROM device WHERE id = $1`, c.Voucher.Device).Scan(&doc, &old, &attest)
	if err != nil {
		return err
	}
	var twin device.Twin
	if err := json.Unmarshal([]byte(doc), &twin); err != nil {
		return fmt.Errorf("stored twin of device %s: %w", c.Voucher.Device, err)
	}
	forgetful(&twin)
	fresh, kit, err := TwinRow(twin)
	if err != nil {
		return err
	}
	res, err := tx.Exec(`UPDATE device SET identity = $1, attest_key = $2, instance_id = $3, key_origin = $4, rekeyed = $5, acked_seq = 0, doc = $6,
		token = $7, token_anew = 0, kit = $10, `+stateOfRekeyed+`
		WHERE id = $8 AND identity = $9 AND state IN ('provisioned', 'onboarded', 'active', 'quarantined', 'dormant', 'maintenance', 'suspected-clone')
		AND legitimacy IN ('genuine', 'recalled', 'refurbished', 'resold')`,
		c.Identity, c.Attest, instanceID(c.Attest), c.Origin, Millis(c.At), fresh, device.TokenAwaited, c.Voucher.Device, c.From, kit)
	if err != nil {
		return err
	}
	if err := one(res, rekey.ErrChanged); err != nil {
		return err
	}
	sum := sha256.Sum256(attest)
	if _, err := tx.Exec(`INSERT INTO former_key (device, identity, attest, until, voucher) VALUES ($1, $2, $3, $4, $5)`,
		c.Voucher.Device, old, sum[:], Millis(c.At), c.Voucher.ID); err != nil {
		return err
	}
	return forgetOld(tx, c.Voucher.Device)
}

// stateOfRekeyed is what becomes of the state of a device that is given new keys at $5.
const stateOfRekeyed = `since = CASE WHEN state IN ('active', 'dormant', 'suspected-clone') THEN $5 ELSE since END,
	guard_until = CASE WHEN state = 'dormant' THEN 0 ELSE guard_until END,
	state = CASE WHEN state IN ('active', 'dormant') THEN 'onboarded' WHEN state = 'suspected-clone' THEN 'quarantined' ELSE state END`

// forgetful takes out of a twin what the device does not know any more, and what a copy of it may have said.
func forgetful(t *device.Twin) {
	t.Accepted, t.Reported, t.Trial, t.Progress, t.Room, t.Left, t.Knows, t.Waits, t.BootCount, t.Bundle = 0, nil, false, nil, nil, nil, nil, nil, 0, 0
	t.Healthy, t.Sick, t.Told, t.Health, t.Suspect, t.Sides = false, false, "", "", "", nil
}

// forgetOld takes away what stands on a device's former key: the head of its log, and the verdict on its evidence.
func forgetOld(tx *Tx, id string) error {
	for _, q := range []string{
		`DELETE FROM device_log WHERE device = $1`, `DELETE FROM verdict_current WHERE device_id = $1`, `UPDATE device SET verdict = 0 WHERE id = $1`,
	} {
		if _, err := tx.Exec(q, id); err != nil {
			return err
		}
	}
	return stir(tx, id)
}

// endHeld revokes every certificate that the device held.
func endHeld(tx *Tx, c rekey.Change) (revoked []pki.Revocation, err error) {
	held, err := heldCerts(tx, c.Voucher.Device, c.At)
	if err != nil {
		return nil, err
	}
	end := map[string]pki.Revocation{c.Factory.ID: c.Factory}
	order := []string{c.Factory.ID}
	for _, o := range held {
		if _, twice := end[o.Key]; !twice {
			r := c.Factory
			r.ID, r.Issuer, r.Serial, r.Expires = o.Key, o.Issuer, o.Serial, o.NotAfter
			end[o.Key], order = r, append(order, o.Key)
		}
	}
	for _, id := range order {
		done, err := tx.there(`SELECT count(*) FROM revocation WHERE scope = $1 AND id = $2`, string(pki.ScopeCert), id)
		if err != nil {
			return nil, err
		}
		if done && id == c.Factory.ID { // it was replaced before
			continue
		}
		r, err := revoke(tx, end[id])
		if err != nil {
			return nil, err
		}
		revoked = append(revoked, r)
	}
	return revoked, nil
}

func heldCerts(tx *Tx, id string, at time.Time) (held []pki.Issued, err error) {
	rows, err := tx.Query(`SELECT `+certColumns+` FROM cert WHERE device = $1 AND not_after > $2 AND (ended = 0 OR ended > $2) ORDER BY id`, id, Millis(at))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }() // closed before the next statement
	for rows.Next() {
		o, err := scanCert(rows)
		if err != nil {
			return nil, err
		}
		held = append(held, o)
	}
	return held, rows.Err()
}

func putCert(tx *Tx, c pki.Issued) error {
	_, err := tx.Exec(`INSERT INTO cert (key, device, role, issuer, serial, request, not_before, not_after, ended, der)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9)`,
		c.Key, c.Device, string(c.Role), c.Issuer, c.Serial, c.Request[:], Millis(c.NotBefore), Millis(c.NotAfter), c.DER)
	return err
}
