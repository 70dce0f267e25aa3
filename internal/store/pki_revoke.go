package store

import (
	"context"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
)

// Revoke implements pki.Store.
func (s PKI) Revoke(ctx context.Context, rs []pki.Revocation, facts ...ledger.Fact) (kept []pki.Revocation, err error) {
	err = s.db.Write(ctx, func(tx *Tx) error {
		more, err := taken(tx, rs)
		if err != nil {
			return err
		}
		if kept, err = revokeAll(tx, append(more, rs...)); err != nil {
			return err
		}
		return tx.Append(facts...)
	})
	return kept, err
}

// taken gives what goes with rs: the certificates of devices that still hold, and those of CAs.
func taken(tx *Tx, rs []pki.Revocation) (more []pki.Revocation, err error) {
	by := map[string]pki.Revocation{}
	var devices []string
	for _, r := range rs {
		switch r.Scope {
		case pki.ScopeDevice:
			by[r.ID] = r
			devices = append(devices, r.ID)
		case pki.ScopeIssuer:
			ca, err := caEntry(tx, r)
			if err != nil {
				return nil, err
			}
			more = append(more, ca...)
		case pki.ScopeCert:
		}
	}
	if len(devices) == 0 {
		return more, nil
	}
	ids, err := json.Marshal(devices)
	if err != nil {
		return nil, err
	}
	at := Millis(by[devices[0]].At)
	rows, err := tx.Query(`SELECT key, device, issuer, serial, not_after FROM cert
		WHERE device IN (SELECT l.value FROM list($1) AS l) AND not_after > $2 AND (ended = 0 OR ended > $2)`, string(ids), at)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }() // closed before the next statement
	for rows.Next() {
		var c pki.Revocation
		var until int64
		if err := rows.Scan(&c.ID, &c.Device, &c.Issuer, &c.Serial, &until); err != nil {
			return nil, err
		}
		of := by[c.Device]
		c.Scope, c.Reason, c.At, c.By, c.Expires = pki.ScopeCert, of.Reason, of.At, of.By, Time(until)
		more = append(more, c)
	}
	return more, rows.Err()
}

// caEntry is the entry of a CA's own certificate in the list of the CA above it; none where the certificate is not stored.
func caEntry(tx *Tx, r pki.Revocation) ([]pki.Revocation, error) {
	var der []byte
	err := tx.scan(`SELECT der FROM ca WHERE ski = $1`, []any{r.ID}, &der)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("stored CA %s: %w", r.ID, err)
	}
	e := pki.Revocation{
		Scope: pki.ScopeCert, ID: pki.CertKey(cert), Reason: r.Reason, At: r.At, By: r.By, CA: true,
		Issuer: hex.EncodeToString(cert.AuthorityKeyId), Serial: cert.SerialNumber.Text(16), Expires: cert.NotAfter,
	}
	return []pki.Revocation{e}, nil
}

// revocationSizes are how many entries one statement inserts: few texts, to be prepared once.
var revocationSizes = [...]int{64, 8, 1}

// revokeAll inserts entries of one moment and gives them back with their Seq.
func revokeAll(tx *Tx, rs []pki.Revocation) ([]pki.Revocation, error) {
	var ended []string
	for _, r := range rs {
		if r.Scope == pki.ScopeCert {
			ended = append(ended, r.ID)
		}
	}
	if len(ended) > 0 {
		keys, err := json.Marshal(ended)
		if err != nil {
			return nil, err
		}
		at := Millis(rs[0].At) // entries of one call have one moment
		if _, err := tx.Exec(`UPDATE cert SET ended = $1 WHERE key IN (SELECT l.value FROM list($2) AS l) AND (ended = 0 OR ended > $1)`, at, string(keys)); err != nil {
			return nil, err
		}
	}
	out := rs
	for rest := rs; len(rest) > 0; {
		n := revocationSizes[len(revocationSizes)-1]
		for _, size := range revocationSizes {
			if size <= len(rest) {
				n = size
				break
			}
		}
		if err := insertRevocations(tx, rest[:n]); err != nil {
			return nil, err
		}
		rest = rest[n:]
	}
	return out, nil
}

func insertRevocations(tx *Tx, rs []pki.Revocation) (err error) {
	var b strings.Builder
	b.WriteString(`INSERT INTO revocation (scope, id, doc, expires, passing) VALUES `)
	var args []any
	at := map[string]int{}
	for i, r := range rs {
		doc, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if i > 0 {
			b.WriteString(", ")
		}
		k := 5 * i
		fmt.Fprintf(&b, "($%d, $%d, $%d, $%d, $%d)", k+1, k+2, k+3, k+4, k+5)
		args = append(args, string(r.Scope), r.ID, string(doc), Millis(r.Expires), r.Scope == pki.ScopeCert && r.Reason == pki.Superseded && !r.Expires.IsZero())
		at[string(r.Scope)+" "+r.ID] = i
	}
	b.WriteString(` RETURNING seq, scope, id`)
	rows, err := tx.Query(b.String(), args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var seq int64
		var scope, id string
		if err := rows.Scan(&seq, &scope, &id); err != nil {
			return err
		}
		rs[at[scope+" "+id]].Seq = seq
	}
	return rows.Err()
}

// RevocationTargets implements pki.TargetStore.
func (s PKI) RevocationTargets(ctx context.Context, devices, certs []string) ([]pki.Target, error) {
	by := map[string]pki.Target{}
	read := func(query string, ids []string, scan func(scanner) (pki.Target, error)) error {
		list, err := json.Marshal(ids)
		if err != nil {
			return err
		}
		found, err := collect(ctx, s.db, scan, query, string(list))
		for _, t := range found {
			by[t.ID] = t
		}
		return err
	}
	if len(devices) > 0 {
		if err := read(`SELECT d.id, d.product, d.group_path, EXISTS (SELECT 1 FROM revocation r WHERE r.scope = 'device' AND r.id = d.id)
			FROM device d WHERE d.id IN (SELECT l.value FROM list($1) AS l)`, devices, func(row scanner) (t pki.Target, err error) {
			err = row.Scan(&t.ID, &t.Product, &t.Group, &t.Revoked)
			t.Device, t.Known = t.ID, true
			return t, err
		}); err != nil {
			return nil, err
		}
	}
	if len(certs) > 0 {
		now := time.Now()
		if err := read(`SELECT c.key, c.device, c.issuer, c.serial, c.not_after, c.ended, coalesce(d.product, ''), coalesce(d.group_path, '')
			FROM cert c LEFT JOIN device d ON d.id = c.device WHERE c.key IN (SELECT l.value FROM list($1) AS l)`, certs, func(row scanner) (t pki.Target, err error) {
			var until, ended int64
			err = row.Scan(&t.ID, &t.Device, &t.Issuer, &t.Serial, &until, &ended, &t.Product, &t.Group)
			t.Expires, t.Known, t.Revoked = Time(until), true, ended != 0 && !Time(ended).After(now)
			return t, err
		}); err != nil {
			return nil, err
		}
	}
	out := make([]pki.Target, 0, len(devices)+len(certs))
	for _, id := range append(append([]string(nil), devices...), certs...) {
		t, ok := by[id]
		if !ok {
			t.ID = id
		}
		out = append(out, t)
	}
	return out, nil
}

// DropRevocations implements pki.ListStore.
func (s PKI) DropRevocations(ctx context.Context, before time.Time, limit int) (n int, err error) {
	var due int
	if err := s.db.Read().QueryRowContext(ctx, `SELECT count(*) FROM (SELECT 1 FROM revocation WHERE passing = 1 AND expires < $1 LIMIT 1) AS due`, Millis(before)).Scan(&due); err != nil || due == 0 {
		return 0, s.db.dialect.Explain(err)
	}
	err = s.db.Write(ctx, func(tx *Tx) error {
		res, err := tx.Exec(`DELETE FROM revocation WHERE seq IN (SELECT seq FROM revocation WHERE passing = 1 AND expires < $1 LIMIT $2)`, Millis(before), limit)
		if err != nil {
			return err
		}
		gone, err := res.RowsAffected()
		n = int(gone)
		return err
	})
	return n, err
}

// revoke is revokeAll of one entry.
func revoke(tx *Tx, r pki.Revocation) (pki.Revocation, error) {
	kept, err := revokeAll(tx, []pki.Revocation{r})
	if err != nil {
		return r, err
	}
	return kept[0], nil
}

// RevokedSince implements pki.Store.
func (s PKI) RevokedSince(ctx context.Context, after int64, limit int) ([]pki.Revocation, error) {
	return collect(ctx, s.db, func(row scanner) (pki.Revocation, error) {
		var r pki.Revocation
		var seq, expires int64
		var doc string
		if err := row.Scan(&seq, &doc, &expires); err != nil {
			return r, err
		}
		if err := json.Unmarshal([]byte(doc), &r); err != nil {
			return r, fmt.Errorf("stored revocation %d: %w", seq, err)
		}
		r.Seq, r.Expires = seq, Time(expires)
		return r, nil
	}, `SELECT seq, doc, expires FROM revocation WHERE seq > $1 ORDER BY seq LIMIT $2`, after, limit)
}
