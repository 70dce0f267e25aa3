package retire

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// OrderKeyName is the subject of the key.created fact of the key that signs production orders.
const OrderKeyName = "order"

// birth is what a proof shows of a device's making.
type birth struct {
	order, station string
	attest         []byte // SubjectPublicKeyInfo
}

// checkBirth finds the one production record of the device and everything that vouches for the attestation key in it:
//   - the order is signed by the key that the control log names as the one for orders, and is for the product;
//   - the order CA's chain ends in one of the trust bundle's anchors, and the order CA signed the device's certificate;
//   - the record is signed by the station key the order names by its digest;
//   - the device itself proved both keys of the record, with the certificate's key over the attestation key.
//
// See VerifyProof for what is trusted.
func checkBirth(b wire.Bundle, p Proof, one func(ledger.Kind) (wire.Fact, error)) (birth, error) {
	made, err := one(ledger.KindDeviceProvisioned)
	if err != nil {
		return birth{}, err
	}
	created, err := one(ledger.KindOrderCreated)
	if err != nil {
		return birth{}, err
	}
	orderKey, err := one(ledger.KindKeyCreated)
	if err != nil {
		return birth{}, err
	}
	order, err := orderOf(created, orderKey, p.Product)
	if err != nil {
		return birth{}, err
	}
	h := order.Header
	if sum := sha256.Sum256(p.Station); !bytes.Equal(sum[:], h.Station) {
		return birth{}, fmt.Errorf("order %s is not for the station of the proof", h.ID)
	}
	station, err := x509.ParsePKIXPublicKey(p.Station)
	if err != nil {
		return birth{}, fmt.Errorf("station key: %w", err)
	}
	payload, err := wire.Verify1(wire.TypeRecord, made.Data, station)
	if err != nil {
		return birth{}, fmt.Errorf("production record, by the station of order %s: %w", h.ID, err)
	}
	r, err := wire.DecodeRecord(payload)
	if err != nil {
		return birth{}, err
	}
	if made.Subject != p.Device || r.Device != p.Device || r.Outcome != wire.Made || r.Keys == nil || r.Chip == nil {
		return birth{}, fmt.Errorf("the production record is of device %s, which was %s, or has no keys", r.Device, r.Outcome)
	}
	if r.Order != h.ID || !bytes.Equal(r.Station, h.Station) || r.Ticket >= h.Quota {
		return birth{}, fmt.Errorf("the production record is of order %s, the proof has order %s", r.Order, h.ID)
	}
	if err := certified(b, h, r); err != nil {
		return birth{}, err
	}
	if err := r.Verify(); err != nil {
		return birth{}, fmt.Errorf("production record: %w", err)
	}
	return birth{order: h.ID, station: hex.EncodeToString(h.Station), attest: r.Keys.Attest}, nil
}

// orderOf verifies the order by the key that the control log names.
func orderOf(created, key wire.Fact, product string) (wire.Order, error) {
	var named struct {
		Name string `json:"name"`
		SPKI []byte `json:"spki"`
	}
	if err := json.Unmarshal(key.Data, &named); err != nil || key.Subject != OrderKeyName || named.Name != OrderKeyName {
		return wire.Order{}, fmt.Errorf("the key of the proof is %q, not the one for orders: %w", key.Subject, errors.Join(err, errBirth))
	}
	pub, err := x509.ParsePKIXPublicKey(named.SPKI)
	if err != nil {
		return wire.Order{}, fmt.Errorf("order key: %w", err)
	}
	o, err := wire.VerifyOrder(created.Data, pub)
	if err != nil {
		return wire.Order{}, fmt.Errorf("order, by the log's order key: %w", err)
	}
	if created.Subject != o.Header.ID || o.Header.Product != product {
		return wire.Order{}, fmt.Errorf("order %s is for product %s", o.Header.ID, o.Header.Product)
	}
	return o, nil
}

var errBirth = errors.New("nothing vouches for the making of the device")

// certified checks the device's certificate up to an anchor of the bundle. At the time all of it was valid, that is: an order's CA may
// have ended since.
func certified(b wire.Bundle, h wire.OrderHeader, r wire.Record) error {
	leaf, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return fmt.Errorf("the device's certificate: %w", err)
	}
	roots, between, at := x509.NewCertPool(), x509.NewCertPool(), leaf.NotBefore
	for _, der := range b.Anchors {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("anchor of the trust bundle: %w", err)
		}
		roots.AddCert(c)
	}
	var ca *x509.Certificate
	for i, der := range h.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("chain of order %s: %w", h.ID, err)
		}
		if i == 0 {
			ca = c
		}
		if c.NotBefore.After(at) {
			at = c.NotBefore
		}
		between.AddCert(c)
	}
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return fmt.Errorf("the device's certificate is not by the CA of order %s: %w", h.ID, err)
	}
	if _, err := idevid.HandledSAN(leaf).Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return fmt.Errorf("the device's certificate does not lead to the trust bundle's anchors: %w", err)
	}
	id, err := idevid.Parse(leaf)
	if err != nil {
		return fmt.Errorf("the device's certificate: %w", err)
	}
	want := idevid.Identity{Kind: idevid.IDevID, DeviceID: r.Device, OEM: h.OEM, Product: h.Product, HWRev: h.Hardware}
	if id != want || !bytes.Equal(leaf.RawSubjectPublicKeyInfo, r.Keys.IDevID) {
		return fmt.Errorf("the device's certificate names %+v, want %+v with the key of the production record", id, want)
	}
	return nil
}
