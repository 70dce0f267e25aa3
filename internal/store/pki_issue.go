package store

import (
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

// issue is one certificate that is to be stored, and what came of it.
type issue struct {
	c          pki.Issued
	now, until time.Time
	facts      []ledger.Fact

	kept    pki.Issued
	refused error // why it was not stored, when nothing failed
	old     []pki.Issued
	wrote   []ledger.Receipt // the facts that were appended for it
}

// issueAll stores certificates, or finds the answers that their requests had. Two for one device are stored one after the other: the later
// supersedes the earlier.
func issueAll(tx *Tx, all []*issue) error {
	for len(all) > 0 {
		var now, later []*issue
		seen := map[string]bool{}
		for _, i := range all {
			if seen[i.c.Device] || i.c.Role != all[0].c.Role {
				later = append(later, i)
				continue
			}
			seen[i.c.Device] = true
			i.kept, i.refused, i.old, i.wrote = pki.Issued{}, nil, nil, nil
			now = append(now, i)
		}
		if err := issueEach(tx, now); err != nil {
			return err
		}
		all = later
	}
	return nil
}

// issueEach stores those of one role, each for another device.
func issueEach(tx *Tx, all []*issue) error {
	if err := askedBy(tx, all); err != nil {
		return err
	}
	if err := holding(tx, all); err != nil {
		return err
	}
	fresh := slices.DeleteFunc(slices.Clone(all), func(i *issue) bool { return i.refused != nil || i.kept.Key != "" })
	var again []string
	for _, i := range fresh {
		if err := supersede(tx, i); err != nil {
			return err
		}
		if enrolsAgain(i.facts) {
			again = append(again, i.c.Device)
		}
		i.kept = i.c
	}
	if err := insertCerts(tx, fresh); err != nil {
		return err
	}
	if len(again) > 0 { // it may have lost its memory, and with it the rolling token
		list, err := listOf(again)
		if err != nil {
			return err
		}
		if _, err := tx.Of(again...).Exec(`UPDATE device SET token_anew = 1 WHERE id IN (SELECT l.value FROM list($1) AS l) AND token <> ''`, list); err != nil {
			return err
		}
	}
	for _, i := range fresh {
		if err := tx.Append(i.facts...); err != nil {
			return err
		}
		for _, f := range i.facts {
			i.wrote = append(i.wrote, ledger.Receipt{Log: f.Log, UID: f.UID})
		}
	}
	return nil
}

// askedBy refuses a certificate to who asked with one that is revoked by now, also on another node: what is revoked must not have left
// anything new behind.
func askedBy(tx *Tx, all []*issue) (err error) {
	by := map[string][]*issue{} // scope and ID of what must not be revoked
	var certs, devices, issuers []string
	for _, i := range all {
		if i.c.By == "" {
			continue
		}
		issuer, _, _ := strings.Cut(i.c.By, "/")
		certs, devices = append(certs, i.c.By), append(devices, i.c.Device)
		if !slices.Contains(issuers, issuer) {
			issuers = append(issuers, issuer)
		}
		for scope, id := range map[pki.Scope]string{pki.ScopeCert: i.c.By, pki.ScopeDevice: i.c.Device, pki.ScopeIssuer: issuer} {
			key := string(scope) + " " + id
			by[key] = append(by[key], i)
		}
	}
	if len(by) == 0 {
		return nil
	}
	lists, err := listsOf(certs, devices, issuers)
	if err != nil {
		return err
	}
	rows, err := tx.Query(`SELECT scope, id, doc FROM revocation WHERE scope = 'cert' AND id IN (SELECT l.value FROM list($1) AS l)
		UNION ALL SELECT scope, id, doc FROM revocation WHERE scope = 'device' AND id IN (SELECT l.value FROM list($2) AS l)
		UNION ALL SELECT scope, id, doc FROM revocation WHERE scope = 'issuer' AND id IN (SELECT l.value FROM list($3) AS l)`, lists...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }() // closed before the next statement
	for rows.Next() {
		var scope, id, doc string
		if err := rows.Scan(&scope, &id, &doc); err != nil {
			return err
		}
		var r pki.Revocation
		if err := json.Unmarshal([]byte(doc), &r); err != nil {
			return fmt.Errorf("stored revocation of %s %s: %w", scope, id, err)
		}
		for _, i := range by[scope+" "+id] {
			if r.Holds(i.now) {
				i.refused = pki.ErrRevoked
			}
		}
	}
	return rows.Err()
}

// holding gives each the device's certificate of its role that answers the same request, or those that have no end yet.
func holding(tx *Tx, all []*issue) (err error) {
	of := make(map[string]*issue, len(all))
	devices := make([]string, 0, len(all))
	earliest := all[0].now
	for _, i := range all {
		of[i.c.Device] = i
		devices = append(devices, i.c.Device)
		if i.now.Before(earliest) {
			earliest = i.now
		}
	}
	list, err := listOf(devices)
	if err != nil {
		return err
	}
	rows, err := tx.Query(`SELECT `+certColumns+`, ended FROM cert
		WHERE device IN (SELECT l.value FROM list($1) AS l) AND role = $2 AND not_after > $3 AND (ended = 0 OR ended > $3) ORDER BY id`,
		list, string(all[0].c.Role), Millis(earliest))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }() // closed before the next statement
	for rows.Next() {
		var ended int64
		o, err := scanCert(ending{rows, &ended})
		if err != nil {
			return err
		}
		i := of[o.Device]
		if !o.NotAfter.After(i.now) || ended != 0 && ended <= Millis(i.now) {
			continue
		}
		if o.Request == i.c.Request && i.refused == nil {
			i.kept = o
		}
		if ended == 0 {
			i.old = append(i.old, o)
		}
	}
	return rows.Err()
}

// ending scans one column more.
type ending struct {
	rows *sql.Rows
	to   *int64
}

func (e ending) Scan(dest ...any) error { return e.rows.Scan(append(dest, e.to)...) }

// supersede ends the certificates that the new one takes the place of.
func supersede(tx *Tx, i *issue) error {
	var replaced []pki.Revocation
	for _, o := range i.old {
		replaced = append(replaced, pki.Revocation{
			Scope: pki.ScopeCert, ID: o.Key, Issuer: o.Issuer, Serial: o.Serial, Reason: pki.Superseded, At: i.until.UTC(), By: i.c.Key, Expires: o.NotAfter,
		})
	}
	_, err := revokeAll(tx, replaced)
	return err
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

var insertCert = rowsInserted("cert (key, device, role, issuer, serial, request, not_before, not_after, ended, der)", 10)

func insertCerts(tx *Tx, all []*issue) error {
	var args []any
	for rest := all; len(rest) > 0; {
		n, query := insertCert.next(len(rest))
		args = args[:0]
		for _, i := range rest[:n] {
			c := &i.c
			args = append(args, c.Key, c.Device, string(c.Role), c.Issuer, c.Serial, c.Request[:], Millis(c.NotBefore), Millis(c.NotAfter), int64(0), c.DER)
		}
		if _, err := tx.Exec(query, args...); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}
