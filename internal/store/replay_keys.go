package store

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/onboard/rekey"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/wire"
)

// replayVoucherEnded ends a voucher that a backup has as open. One that was given out since is not brought back: its secret is in no fact, so that
// nobody can use it, and it is asked for anew.
func replayVoucherEnded(tx *Tx, f ledger.Fact) (bool, error) {
	var d rekey.EndedData
	if err := json.Unmarshal(f.Data, &d); err != nil {
		return false, err
	}
	to := rekey.Revoked
	if d.Why == "guessed" {
		to = rekey.Locked
	}
	return did(tx.Exec(`UPDATE voucher SET state = $1, ended = $2 WHERE id = $3 AND state = 'open'`, string(to), Millis(f.At), d.Voucher))
}

// replaySpent ends a voucher that a backup has as open, and that was used since: by whom, so that the same keys are given the same answer, and others
// none.
func replaySpent(tx *Tx, d rekey.RekeyedData, claim wire.RekeyClaim, at time.Time) error {
	cert, err := x509.ParseCertificate(d.Certificate)
	if err != nil {
		return err
	}
	keys := rekey.KeysDigest(sha256.Sum256(cert.RawSubjectPublicKeyInfo), claim)
	_, err = tx.Exec(`UPDATE voucher SET state = 'used', ended = $1, keys = $2, cert = $3, identity = $4 WHERE id = $5 AND state = 'open'`,
		Millis(at), keys[:], pki.CertKey(cert), d.New, d.Voucher)
	return err
}

// replayForeignCA believes a CA of another maker again.
func replayForeignCA(tx *Tx, f ledger.Fact) (bool, error) {
	var t foreign.Trusted
	if err := json.Unmarshal(f.Data, &t); err != nil {
		return false, err
	}
	if len(t.Certificates) == 0 {
		return false, nil
	}
	cert, err := x509.ParseCertificate(t.Certificates[0])
	if err != nil {
		return false, err
	}
	c := foreign.CA{
		ID: t.ID, Product: t.Product, Hardware: t.Hardware, Subject: cert.Subject.String(), NotAfter: cert.NotAfter, Map: t.Map, Any: t.Any, By: f.Actor, At: f.At,
		Certificates: t.Certificates,
	}
	doc, err := json.Marshal(c)
	if err != nil {
		return false, err
	}
	err = putForeignCA(tx, c, doc)
	if errors.Is(err, foreign.ErrExists) {
		return false, nil
	}
	return err == nil, err
}

// replayForeignEnded: nothing that it signed is believed any more.
func replayForeignEnded(tx *Tx, f ledger.Fact) (bool, error) {
	return did(tx.Exec(`UPDATE foreign_ca SET ended = $1 WHERE id = $2 AND ended = 0`, Millis(f.At), f.Subject))
}

// replayImported puts a device of another maker on the list again, as far as the fact says what it is known by: a name is private.
func replayImported(tx *Tx, f ledger.Fact) (bool, error) {
	var i foreign.Imported
	if err := json.Unmarshal(f.Data, &i); err != nil {
		return false, err
	}
	key, err := hex.DecodeString(i.Identity)
	if err == nil && i.Assurance != "" {
		return replayAdmitted(tx, i, key, f.At)
	}
	if err != nil || i.Of == "" {
		return false, err
	}
	e := foreign.Entry{Device: i.Device, Product: i.Product, Hardware: i.Hardware, Name: i.Name, Kind: i.Kind, Of: i.Of, CA: i.CA, Key: key, Format: i.Format}
	o, err := standingOf(tx.QueryRow(foreignRef, e.Kind, e.Of), e)
	if err != nil || o != foreign.Taken {
		return false, err
	}
	return putForeign(tx, e, f.At)
}

// replayAdmitted registers the device of a client. What the client is called is private, and the token that it was given then is kept nowhere: one that is not here, or that has no key,
// is let in anew when it asks, and what it had before counts no more.
func replayAdmitted(tx *Tx, i foreign.Imported, key []byte, at time.Time) (bool, error) {
	if err := putClientDevice(tx, i.Device, i.Product, i.Hardware, key, at); errors.Is(err, legacy.ErrExists) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return true, changeClient(tx, i.Device, func(c *legacy.Client) {
		c.Key, c.Secret, c.Details = key, nil, legacy.Details{By: c.By, Reason: c.Reason, Consent: c.Consent}
	})
}

// replayLegacy ends what was ended: a client by its device; of gateways, whose names are private, all of the product.
func replayLegacy(tx *Tx, f ledger.Fact) (bool, error) {
	var c legacy.Change
	if err := json.Unmarshal(f.Data, &c); err != nil {
		return false, err
	}
	switch c.Change {
	case "refused":
		return true, changeClient(tx, c.Device, func(c *legacy.Client) {
			c.State, c.Key, c.Secret, c.Details = legacy.Refused, nil, nil, legacy.Details{Consent: c.Consent}
		})
	case "ended":
		return did(tx.Exec(`DELETE FROM legacy_gateway WHERE product = $1`, c.Product))
	}
	return false, nil // the token of one that was added is kept nowhere
}

// changeClient changes the client of a device, if there is one.
func changeClient(tx *Tx, device string, change func(*legacy.Client)) error {
	c, err := scanClient(tx.QueryRow(clientColumns+` WHERE device = $1`, device))
	if errors.Is(err, legacy.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	change(&c)
	return saveClient(tx, c)
}

// replayRekeyed gives a device the keys that it got by a voucher. What the change revoked has facts of its own.
func replayRekeyed(tx *Tx, f ledger.Fact) (bool, error) {
	var d rekey.RekeyedData
	if err := json.Unmarshal(f.Data, &d); err != nil {
		return false, err
	}
	claim, err := replayedClaim(d)
	if err != nil {
		return false, err
	}
	if err := replaySpent(tx, d, claim, f.At); err != nil {
		return false, err
	}
	old, err := hex.DecodeString(d.Old)
	if err != nil {
		return false, err
	}
	next, err := hex.DecodeString(d.New)
	if err != nil {
		return false, err
	}
	var doc string
	var have, attest []byte
	err = tx.QueryRow(`SELECT doc, identity, attest_key FROM device WHERE id = $1`, d.Device).Scan(&doc, &have, &attest)
	if errors.Is(err, sql.ErrNoRows) || err == nil && !bytes.Equal(have, old) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var twin device.Twin
	if err := json.Unmarshal([]byte(doc), &twin); err != nil {
		return false, fmt.Errorf("stored twin of device %s: %w", d.Device, err)
	}
	forgetful(&twin)
	fresh, kit, err := TwinRow(twin)
	if err != nil {
		return false, err
	}
	if _, err := tx.Exec(`UPDATE device SET identity = $1, attest_key = $2, instance_id = $3, key_origin = $4, rekeyed = $5, acked_seq = 0, doc = $6,
		token = $7, token_anew = 0, kit = $9, `+stateOfRekeyed+` WHERE id = $8`,
		next, claim.Attest, instanceID(claim.Attest), d.Origin, Millis(f.At), fresh, device.TokenAwaited, d.Device, kit); err != nil {
		return false, err
	}
	sum := sha256.Sum256(attest)
	if _, err := tx.Exec(`INSERT INTO former_key (device, identity, attest, until, voucher) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		d.Device, old, sum[:], Millis(f.At), d.Voucher); err != nil {
		return false, err
	}
	return true, forgetOld(tx, d.Device)
}

func replayedClaim(d rekey.RekeyedData) (wire.RekeyClaim, error) {
	csr, err := x509.ParseCertificateRequest(d.Request)
	if err != nil {
		return wire.RekeyClaim{}, err
	}
	for _, e := range csr.Extensions {
		if e.Id.Equal(wire.OIDRekey()) {
			return wire.DecodeRekeyClaim(e.Value)
		}
	}
	return wire.RekeyClaim{}, errors.New("the request says nothing of the device")
}
