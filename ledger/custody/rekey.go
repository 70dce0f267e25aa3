package custody

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// rekeying is what a device.rekeyed fact says; package onboard/rekey writes it.
type rekeying struct {
	Device      string `json:"device"`
	Voucher     string `json:"voucher"`
	Record      string `json:"record"`
	Old         string `json:"old"`
	New         string `json:"new"`
	Certificate []byte `json:"certificate"`
	Request     []byte `json:"request"`
}

// vouched notes a voucher.
func (j *judge) vouched(l *Line) error {
	var v struct {
		Voucher string `json:"voucher"`
		Device  string `json:"device"`
		Second  string `json:"second"`
	}
	if err := json.Unmarshal(l.Fact.Data, &v); err != nil {
		return err
	}
	if v.Device != j.c.Device || l.Subject != j.c.Device {
		return fmt.Errorf("the voucher is for device %s", v.Device)
	}
	if v.Second == "" || v.Second == l.Actor {
		return errors.New("nobody but who asked for the voucher agreed to it")
	}
	if j.vouchers == nil {
		j.vouchers = map[string]*Line{}
	}
	j.vouchers[v.Voucher] = l
	return nil
}

// rekeyed verifies that a device's keys were changed in the middle of its life: a voucher for it was issued before, and is used once; a CA of its product
// signed the new identity; the device proved both new keys, and says that it is the chip of the production record. From here on the new
// attestation key is the device's, and its own log begins anew.
func (j *judge) rekeyed(l *Line) (string, error) {
	var d rekeying
	if err := json.Unmarshal(l.Fact.Data, &d); err != nil {
		return "", err
	}
	if j.record == nil || j.order == nil || d.Device != j.c.Device || l.Subject != j.c.Device {
		return "", errors.New("new keys of another device, or of one whose production record is not here")
	}
	voucher := j.vouchers[d.Voucher]
	if voucher == nil {
		return "", fmt.Errorf("voucher %s was not issued before it, or was used before", d.Voucher)
	}
	delete(j.vouchers, d.Voucher)
	j.rests(l, voucher.Ref)
	j.rests(l, j.recordAt)
	if sum := wire.RecordHash(j.at[j.recordAt].Fact.Data); d.Record != hex.EncodeToString(sum[:]) {
		return "", errors.New("it rests on another production record")
	}
	if j.identity == nil {
		sum := sha256.Sum256(j.record.Keys.IDevID)
		j.identity = sum[:]
	}
	if d.Old != hex.EncodeToString(j.identity) {
		return "", errors.New("the key that it replaces is not the one that the device had")
	}
	leaf, err := j.renewed(l, d)
	if err != nil {
		return "", err
	}
	claim, err := claimed(leaf, d)
	if err != nil {
		return "", err
	}
	if claim.Device != j.c.Device || !bytes.Equal(claim.ChipUID, j.record.Chip.ChipUID) {
		return "", errors.New("the chip that got the new keys is not the one of the production record")
	}
	if j.attest, err = wire.ParseKey(claim.Attest); err != nil {
		return "", err
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	j.identity, j.head, j.logged, j.anchored = sum[:], wire.LogOrigin(j.c.Device, claim.Attest), 0, false
	j.factory, j.origin = leaf.Raw, claim.Origin
	if j.state == "active" || j.state == "dormant" { // it has to prove itself again
		j.state = "onboarded"
	}
	return fmt.Sprintf("by voucher %s, which two people gave; its certificate is by %s and leads to the maker's root; the device proved its new keys", d.Voucher, leaf.Issuer.CommonName), nil
}

// NewKeys reads a device.rekeyed fact: what the device said when it got new keys by a voucher, and proved with both of them. Whether the voucher was given, and who
// signed the new identity, is for a whole chain of custody to say.
func NewKeys(fact []byte, device string, chip []byte) (wire.RekeyClaim, error) {
	var d rekeying
	if err := json.Unmarshal(fact, &d); err != nil {
		return wire.RekeyClaim{}, err
	}
	leaf, err := x509.ParseCertificate(d.Certificate)
	if err != nil {
		return wire.RekeyClaim{}, err
	}
	claim, err := claimed(leaf, d)
	if err == nil && (d.Device != device || claim.Device != device || !bytes.Equal(claim.ChipUID, chip)) {
		err = errors.New("the chip that got the new keys is not the one of the production record")
	}
	return claim, err
}

// attestKey verifies that a device changed its attestation key: the one before it, the factory identity and the new one have signed. The
// device's own log goes on; what comes after is signed by the new key.
func (j *judge) attestKey(l *Line) (string, error) {
	if j.record == nil {
		return "", errors.New("a new attestation key of a device whose production record is not here")
	}
	from, err := wire.SPKIOf(j.attest)
	if err != nil {
		return "", err
	}
	n, err := wire.OpenNewAttestKey(l.Fact.Data, from)
	if err != nil {
		return "", err
	}
	if n.Device != j.c.Device || l.Subject != j.c.Device || bytes.Equal(n.New, from) {
		return "", fmt.Errorf("the new attestation key is of device %s, or the one that it has", n.Device)
	}
	identity := j.identity
	if identity == nil {
		sum := sha256.Sum256(j.record.Keys.IDevID)
		identity = sum[:]
	}
	if sum := sha256.Sum256(n.Identity); !bytes.Equal(sum[:], identity) {
		return "", errors.New("another factory identity than the device's vouches for the new attestation key")
	}
	if j.attest, err = wire.ParseKey(n.New); err != nil {
		return "", err
	}
	set, err := suite.Of(j.attest)
	if err != nil {
		return "", err
	}
	j.rests(l, j.recordAt)
	return fmt.Sprintf("of suite %s; the key before it, the factory identity and the key itself signed", set.ID), nil
}

// renewed checks the new identity up to an anchor.
func (j *judge) renewed(l *Line, d rekeying) (*x509.Certificate, error) {
	leaf, err := x509.ParseCertificate(d.Certificate)
	if err != nil {
		return nil, err
	}
	ca, ok := j.cas[string(leaf.AuthorityKeyId)]
	if !ok {
		return nil, fmt.Errorf("the CA that signed the new identity, %s, is not here", leaf.Issuer.CommonName)
	}
	j.rests(l, ca.Ref)
	if err := leaf.CheckSignatureFrom(ca.Certificate); err != nil {
		return nil, err
	}
	at := leaf.NotBefore
	if ca.NotBefore.After(at) {
		at = ca.NotBefore
	}
	if len(j.bundles) == 0 {
		return nil, errors.New("there is no trust bundle to anchor it")
	}
	roots, err := pool(j.bundles[len(j.bundles)-1].Anchors)
	if err != nil {
		return nil, err
	}
	if _, err := idevid.HandledSAN(leaf).Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: j.between(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return nil, fmt.Errorf("the new identity does not lead to the trust bundle's anchors: %w", err)
	}
	id, err := idevid.Parse(leaf)
	if err != nil {
		return nil, err
	}
	h := j.order.Header
	if want := (idevid.Identity{Kind: idevid.IDevID, DeviceID: j.c.Device, OEM: h.OEM, Product: h.Product, HWRev: h.Hardware}); id != want {
		return nil, fmt.Errorf("the new identity names %+v, want %+v", id, want)
	}
	return leaf, nil
}

// between are the CAs that may stand between a certificate and an anchor: the product's is above that of the order, and above one for re-keying.
func (j *judge) between() *x509.CertPool {
	out := x509.NewCertPool()
	for _, c := range j.cas {
		out.AddCert(c.Certificate)
	}
	if j.order == nil {
		return out
	}
	for _, der := range j.order.Header.Chain {
		if c, err := x509.ParseCertificate(der); err == nil { // one that does not parse vouches for nobody
			out.AddCert(c)
		}
	}
	return out
}

// claimed reads what the device said, and checks that it holds both keys.
func claimed(leaf *x509.Certificate, d rekeying) (wire.RekeyClaim, error) {
	csr, err := x509.ParseCertificateRequest(d.Request)
	if err != nil {
		return wire.RekeyClaim{}, err
	}
	if err := csr.CheckSignature(); err != nil {
		return wire.RekeyClaim{}, fmt.Errorf("the device's request: %w", err)
	}
	sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	if !bytes.Equal(csr.RawSubjectPublicKeyInfo, leaf.RawSubjectPublicKeyInfo) || d.New != hex.EncodeToString(sum[:]) {
		return wire.RekeyClaim{}, errors.New("the device asked for another key")
	}
	for _, e := range csr.Extensions {
		if e.Id.Equal(wire.OIDRekey()) {
			c, err := wire.DecodeRekeyClaim(e.Value)
			if err != nil {
				return c, err
			}
			return c, c.Verify(csr.RawSubjectPublicKeyInfo)
		}
	}
	return wire.RekeyClaim{}, errors.New("the device's request does not say which chip it is")
}
