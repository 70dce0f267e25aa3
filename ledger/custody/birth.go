package custody

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

var errBirth = errors.New("nothing vouches for the making of the device")

// Made verifies the production record of a device.provisioned fact, and everything that vouches for the keys in it: the record is signed
// by the station (SPKI) that the order names by its digest; the order CA's chain ends in one of the anchors (DER), and the order CA signed
// the device's certificate; the device itself proved both keys, with the certificate's key over the attestation key.
func Made(anchors [][]byte, h wire.OrderHeader, station []byte, made wire.Fact) (wire.Record, error) {
	if sum := sha256.Sum256(station); !bytes.Equal(sum[:], h.Station) {
		return wire.Record{}, fmt.Errorf("order %s is not for the station that is given", h.ID)
	}
	key, err := wire.ParseKey(station)
	if err != nil {
		return wire.Record{}, fmt.Errorf("station key: %w", err)
	}
	payload, err := wire.Verify1(wire.TypeRecord, made.Data, key)
	if err != nil {
		return wire.Record{}, fmt.Errorf("production record, by the station of order %s: %w", h.ID, err)
	}
	r, err := wire.DecodeRecord(payload)
	if err != nil {
		return wire.Record{}, err
	}
	if made.Subject != r.Device || r.Outcome != wire.Made || r.Keys == nil || r.Chip == nil {
		return wire.Record{}, fmt.Errorf("the production record is of device %s, which was %s, or has no keys", r.Device, r.Outcome)
	}
	if r.Order != h.ID || !bytes.Equal(r.Station, h.Station) || r.Ticket >= h.Quota {
		return wire.Record{}, fmt.Errorf("the production record is of order %s, not of order %s", r.Order, h.ID)
	}
	if err := certified(anchors, h, r); err != nil {
		return wire.Record{}, err
	}
	if err := r.Verify(); err != nil {
		return wire.Record{}, fmt.Errorf("production record: %w", err)
	}
	return r, nil
}

// certified checks the device's certificate up to an anchor. At the time all of it was valid, that is: an order's CA may have ended since.
func certified(anchors [][]byte, h wire.OrderHeader, r wire.Record) error {
	leaf, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return fmt.Errorf("the device's certificate: %w", err)
	}
	between, at := x509.NewCertPool(), leaf.NotBefore
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
	roots, err := pool(anchors)
	if err != nil {
		return err
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

func pool(anchors [][]byte) (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	for _, der := range anchors {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("anchor of the trust bundle: %w", err)
		}
		roots.AddCert(c)
	}
	return roots, nil
}
