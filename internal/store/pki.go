package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
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
	c.Role, c.Request, c.NotBefore, c.NotAfter = profile.Role(role), [32]byte(request), Time(from), Time(to)
	return c, nil
}

// Issue implements pki.Store; see issueAll.
func (s PKI) Issue(ctx context.Context, c pki.Issued, now, until time.Time, facts ...ledger.Fact) (pki.Issued, error) {
	i := &issue{c: c, now: now, until: until, facts: facts}
	if err := s.db.issues.run(ctx, i); err != nil {
		return pki.Issued{}, err
	}
	return i.kept, i.refused
}

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
