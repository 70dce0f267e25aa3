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

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard/rekey"
	"github.com/hallmark-iot/hallmark/wire"
)

// replayRekeyed gives a device the keys that it got by a voucher. The voucher itself is not brought back: its secret is not in the log, and one that was
// open is asked for anew. What the change revoked has facts of its own.
func replayRekeyed(tx *Tx, f ledger.Fact) (bool, error) {
	var d rekey.RekeyedData
	if err := json.Unmarshal(f.Data, &d); err != nil {
		return false, err
	}
	claim, err := replayedClaim(d)
	if err != nil {
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
	fresh, err := json.Marshal(twin)
	if err != nil {
		return false, err
	}
	if _, err := tx.Exec(`UPDATE device SET identity = $1, attest_key = $2, instance_id = $3, key_origin = $4, rekeyed = $5, acked_seq = 0, doc = $6,
		since = CASE WHEN state IN ('active', 'dormant') THEN $5 ELSE since END,
		state = CASE WHEN state IN ('active', 'dormant') THEN 'onboarded' ELSE state END WHERE id = $7`,
		next, claim.Attest, instanceID(claim.Attest), d.Origin, Millis(f.At), string(fresh), d.Device); err != nil {
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
