package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
)

// PKI implements pki.Store.
type PKI struct{ db *DB }

// PKI gives the store of certificates.
func (db *DB) PKI() PKI { return PKI{db} }

// certColumns has with a certificate the group its device is in now, so that it moves with it.
const certColumns = `key, device, coalesce((SELECT d.group_path FROM device d WHERE d.id = cert.device), ''), role, issuer, serial, request, not_before, not_after, der`

func scanCert(row interface{ Scan(...any) error }) (c pki.Issued, err error) {
	var role string
	var request []byte
	var from, to int64
	err = row.Scan(&c.Key, &c.Device, &c.Group, &role, &c.Issuer, &c.Serial, &request, &from, &to, &c.DER)
	if errors.Is(err, sql.ErrNoRows) {
		return c, pki.ErrNotFound
	}
	if err != nil {
		return c, err
	}
	if len(request) != len(c.Request) {
		return c, fmt.Errorf("stored certificate %s: request of %d bytes", c.Key, len(request))
	}
	c.Role, c.Request, c.NotBefore, c.NotAfter = pki.Role(role), [32]byte(request), Time(from), Time(to)
	return c, nil
}

// Issue implements pki.Store. One look at the device's certificates that hold finds the answer to the same request, or those that
// the new one supersedes.
func (s PKI) Issue(ctx context.Context, c pki.Issued, now, until time.Time, facts ...ledger.Fact) (kept pki.Issued, err error) {
	err = s.db.Write(ctx, func(tx *Tx) error {
		if err := askedBy(tx, c, now); err != nil {
			return err
		}
		same, old, err := holding(tx, c, now)
		if err != nil {
			return err
		}
		if same != nil {
			kept = *same
			return nil
		}
		var replaced []pki.Revocation
		for _, o := range old {
			replaced = append(replaced, pki.Revocation{
				Scope: pki.ScopeCert, ID: o.Key, Issuer: o.Issuer, Serial: o.Serial, Reason: pki.Superseded, At: until.UTC(), By: c.Key, Expires: o.NotAfter,
			})
		}
		if _, err := revokeAll(tx, replaced); err != nil {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO cert (key, device, role, issuer, serial, request, not_before, not_after, ended, der)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9)`,
			c.Key, c.Device, string(c.Role), c.Issuer, c.Serial, c.Request[:], Millis(c.NotBefore), Millis(c.NotAfter), c.DER); err != nil {
			return err
		}
		kept = c
		if enrolsAgain(facts) { // it may have lost its memory, and with it the rolling token
			if _, err := tx.Exec(`UPDATE device SET token_anew = 1 WHERE id = $1 AND token <> ''`, c.Device); err != nil {
				return err
			}
		}
		return tx.Append(facts...)
	})
	return kept, err
}

// askedBy refuses a certificate to who asked with one that is revoked by now, also on another node: what is revoked must not have left
// anything new behind.
func askedBy(tx *Tx, c pki.Issued, now time.Time) error {
	if c.By == "" {
		return nil
	}
	issuer, _, _ := strings.Cut(c.By, "/")
	docs, err := texts(tx, `SELECT doc FROM revocation WHERE scope = 'cert' AND id = $1 OR scope = 'device' AND id = $2 OR scope = 'issuer' AND id = $3`,
		c.By, c.Device, issuer)
	if err != nil {
		return err
	}
	for _, doc := range docs {
		var r pki.Revocation
		if err := json.Unmarshal([]byte(doc), &r); err != nil {
			return fmt.Errorf("stored revocation of %s: %w", c.By, err)
		}
		if r.Holds(now) {
			return pki.ErrRevoked
		}
	}
	return nil
}

// enrolsAgain reports whether a device that was let in before has shown its factory identity.
func enrolsAgain(facts []ledger.Fact) bool {
	return slices.ContainsFunc(facts, func(f ledger.Fact) bool {
		var data struct {
			Again bool `json:"again"`
		}
		return f.Kind == ledger.KindDeviceEnrolled && json.Unmarshal(f.Data, &data) == nil && data.Again
	})
}

// holding gives the device's certificate of c's role that answers the same request, and those that have no end yet.
func holding(tx *Tx, c pki.Issued, now time.Time) (same *pki.Issued, old []pki.Issued, err error) {
	rows, err := tx.Query(`SELECT `+certColumns+`, ended FROM cert
		WHERE device = $1 AND role = $2 AND not_after > $3 AND (ended = 0 OR ended > $3) ORDER BY id`, c.Device, string(c.Role), Millis(now))
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }() // closed before the next statement
	for rows.Next() {
		var ended int64
		o, err := scanCert(ending{rows, &ended})
		if err != nil {
			return nil, nil, err
		}
		if o.Request == c.Request {
			same = &o
		}
		if ended == 0 {
			old = append(old, o)
		}
	}
	return same, old, rows.Err()
}

// ending scans one column more.
type ending struct {
	rows *sql.Rows
	to   *int64
}

func (e ending) Scan(dest ...any) error { return e.rows.Scan(append(dest, e.to)...) }

// scan runs a statement that returns one row.
func (tx *Tx) scan(query string, args []any, dst ...any) error {
	if err := tx.savepoint(); err != nil {
		return err
	}
	return tx.QueryRow(query, args...).Scan(dst...)
}

// Certificate implements pki.Store.
func (s PKI) Certificate(ctx context.Context, key string) (pki.Issued, error) {
	return scanCert(s.db.Read().QueryRowContext(ctx, `SELECT `+certColumns+` FROM cert WHERE key = $1`, key))
}

// Certificates implements pki.Store.
func (s PKI) Certificates(ctx context.Context, device, after string, limit int) ([]pki.Issued, error) {
	return collect(ctx, s.db, func(row scanner) (c pki.Issued, err error) {
		var ended int64
		c, err = scanCert(endingOne{row, &ended})
		c.Ended = Time(ended)
		return c, err
	}, `SELECT `+certColumns+`, ended FROM cert WHERE device = $1 AND key > $2 ORDER BY key LIMIT $3`, device, after, atMost(limit))
}

// endingOne scans one column more.
type endingOne struct {
	row scanner
	to  *int64
}

func (e endingOne) Scan(dest ...any) error { return e.row.Scan(append(dest, e.to)...) }
