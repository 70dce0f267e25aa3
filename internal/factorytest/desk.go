package factorytest

import (
	"bytes"
	"context"
	"crypto/hpke"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Published is what an OEM has published. It implements factory.Published.
type Published struct {
	Bundles   map[[32]byte]wire.Bundle
	InForce   wire.Bundle
	Releases  map[[32]byte][]byte // envelopes
	Withdrawn map[[32]byte]bool
}

// Bundle implements factory.Published.
func (p *Published) Bundle(_ context.Context, product string, digest [32]byte) (b, inForce wire.Bundle, err error) {
	b, ok := p.Bundles[digest]
	if !ok || b.Product != product {
		return b, inForce, factory.ErrNotFound
	}
	return b, p.InForce, nil
}

// Release implements factory.Published.
func (p *Published) Release(_ context.Context, digest [32]byte) (envelope []byte, withdrawn bool, err error) {
	r, ok := p.Releases[digest]
	if !ok {
		return nil, false, factory.ErrNotFound
	}
	return r, p.Withdrawn[digest], nil
}

// ProductCA implements factory.DeskCAs.
func (c *CA) ProductCA(_ context.Context, der []byte) (factory.Adoption, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return factory.Adoption{}, err
	}
	return c.adoption(cert, "product", func() { c.Desks++ }), cert.CheckSignatureFrom(c.root)
}

// OrderCA implements factory.DeskCAs.
func (c *CA) OrderCA(_ context.Context, der []byte) (factory.Adoption, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return factory.Adoption{}, err
	}
	for _, above := range c.desks {
		if cert.CheckSignatureFrom(above) == nil {
			return c.adoption(cert, "order", func() { c.Adopted++ }), nil
		}
	}
	return factory.Adoption{}, errors.New("nobody that is known has signed it")
}

func (c *CA) adoption(cert *x509.Certificate, role string, believe func()) factory.Adoption {
	ski := hex.EncodeToString(cert.SubjectKeyId)
	return factory.Adoption{
		SKI: ski, Role: role, DER: cert.Raw, Product: Product, Believe: believe,
		Fact: ledger.New(ledger.KindCACreated, cert.NotBefore, "test", ski, nil, cert.Raw),
	}
}

// SealKey is an instance's one key for registrations. It implements factory.SealKeys.
type SealKey struct{ Key hpke.PrivateKey }

// NewSealKey makes one.
func NewSealKey(t testing.TB) SealKey {
	t.Helper()
	k, err := hpke.MLKEM768P256().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return SealKey{k}
}

// Public implements factory.SealKeys.
func (s SealKey) Public() ([]byte, error) { return s.Key.PublicKey().Bytes(), nil }

// Private implements factory.SealKeys.
func (s SealKey) Private(id []byte) ([]byte, error) {
	if string(wire.SealKeyID(s.Key.PublicKey().Bytes())) != string(id) {
		return nil, factory.ErrNotFound
	}
	b, err := s.Key.Bytes()
	return bytes.Clone(b), err
}

// Desk makes a desk of the OEM, with keys and a CA of its own. It is not taken in yet.
func (o *OEM) Desk(t testing.TB, name string) *Desk {
	t.Helper()
	d := &Desk{Name: name, Of: o, CA: &CA{root: o.CA.root, productKey: Key(t)}}
	var err error
	if d.CA.product, err = issue(pkix.Name{CommonName: o.ID + " product CA desk-" + name}, 1, d.CA.productKey.Public(), o.CA.root, o.CA.rootKey); err != nil {
		t.Fatal(err)
	}
	o.CA.desks = append(o.CA.desks, d.CA.product)
	d.Maker = factory.Maker{OEM: o.ID, Root: o.Root.Raw, OrderKey: Key(t), CA: d.CA}
	if d.File, err = wire.SignDesk(wire.Desk{Name: name, OEM: o.ID, CAs: [][]byte{d.CA.product.Raw}, Issued: uint64(o.Now.Unix())}, d.Maker.OrderKey); err != nil {
		t.Fatal(err)
	}
	return d
}

// Desk is one whose directory nobody needs.
type Desk struct {
	Name  string
	Of    *OEM
	Maker factory.Maker
	CA    *CA
	File  []byte
}

// CAs are the desk's product CAs (DER).
func (d *Desk) CAs() [][]byte { return [][]byte{d.CA.product.Raw} }

// Registration is that of an order which was wrapped by the desk's keys.
func (d *Desk) Registration(t testing.TB, w *factory.Wrapped, spec factory.OrderSpec) []byte {
	t.Helper()
	to, err := d.Of.Seal.Public()
	if err != nil {
		t.Fatal(err)
	}
	reg, err := w.Registration(d.Name, spec.Descriptor, to, d.Maker.OrderKey)
	if err != nil {
		t.Fatal(err)
	}
	return reg
}
