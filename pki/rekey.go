package pki

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/pki/pkcs10"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Rekeyer signs factory identities for devices that lost theirs. For that each product has a CA for each year, with the profile of an order's: it may
// sign IDevIDs of that product and nothing else. It is made when it is first needed, its key is where the other CA keys are, and what it has signed
// can be told, and revoked, apart from what factories made.
type Rekeyer struct {
	s *Service

	mu sync.Mutex
	by map[string]*Authority // by the name of its key; guarded by mu
}

// Rekeyer gives the one of s.
func (s *Service) Rekeyer() *Rekeyer { return &Rekeyer{s: s, by: map[string]*Authority{}} }

// Renewed is a new factory identity that was signed and is not stored yet.
type Renewed struct {
	Cert   *x509.Certificate
	Issued Issued
}

// Sign makes the new IDevID of the device id for the key of req. It is nobody's until the store has it. The certificate of the CA is stored, with its
// fact, before it signs anything.
func (r *Rekeyer) Sign(ctx context.Context, id idevid.Identity, req pkcs10.Request, now time.Time) (Renewed, error) {
	ca, _, err := r.Authority(ctx, id.Product, now)
	if err != nil {
		return Renewed{}, err
	}
	id.Kind = idevid.IDevID
	cert, err := ca.Device(id, req.CSR.PublicKey, now, idevid.NoExpiry(), nil)
	if err != nil {
		return Renewed{}, err
	}
	return Renewed{Cert: cert, Issued: issued(cert, profile.IDevID, id.DeviceID, req.Digest)}, nil
}

// Authority gives the CA of a product for the year of now, and the chain above its certificates, itself first, without the root (DER).
func (r *Rekeyer) Authority(ctx context.Context, product string, now time.Time) (*Authority, [][]byte, error) {
	if r.s.c.Product == nil {
		return nil, nil, fault.New(fault.Unavailable, "pki.no-product-ca", "this instance holds no product CAs", "ask the one that does")
	}
	above, err := r.s.c.Product(product)
	if err != nil {
		return nil, nil, err
	}
	unit := fmt.Sprintf("rekey %d", now.UTC().Year())
	sum := sha256.Sum256([]byte(product)) // a product's name may be longer than a key's
	name := fmt.Sprintf("rekey-ca-%d-%x", now.UTC().Year(), sum[:12])
	r.mu.Lock()
	defer r.mu.Unlock()
	ca := r.by[name]
	if ca == nil {
		if ca, err = r.open(ctx, above, name, unit, product, now); err != nil {
			return nil, nil, fmt.Errorf("re-key CA of product %s: %w", product, err)
		}
		r.by[name] = ca
	}
	return ca, [][]byte{ca.Cert.Raw, above.Cert.Raw}, nil
}

// keyOf opens the key called name, or makes it.
func (r *Rekeyer) keyOf(name string) (crypto.Signer, error) {
	if r.s.c.NewKey == nil {
		return nil, fault.New(fault.Unavailable, "pki.no-keys", "no key of a CA can be made here", "ask the instance that holds the product's CA")
	}
	key, opened := r.s.c.NewKey.Signer(name)
	if opened == nil {
		return key, nil
	}
	key, err := r.s.c.NewKey.GenerateP256(name)
	if err != nil {
		return nil, errors.Join(err, opened)
	}
	return key, nil
}

// open finds the CA whose key is called name, or makes it. Of two nodes with keys of their own each has a CA of its own.
func (r *Rekeyer) open(ctx context.Context, above *Authority, name, unit, product string, now time.Time) (*Authority, error) {
	key, err := r.keyOf(name)
	if err != nil {
		return nil, err
	}
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return nil, errors.New("its key cannot be compared")
	}
	cas, err := r.s.c.Store.CAs(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range cas {
		if c.Role != profile.Order {
			continue
		}
		cert, err := x509.ParseCertificate(c.DER)
		if err != nil {
			return nil, fmt.Errorf("stored CA %s: %w", c.SKI, err)
		}
		if pub.Equal(cert.PublicKey) {
			if err := r.s.c.Trust.AddCA(cert); err != nil {
				return nil, err
			}
			if err := r.s.bind(name, cert); err != nil {
				return nil, err
			}
			return NewAuthority(profile.Order, cert, key)
		}
	}
	oem, _ := idevid.SubjectOEM(above.Cert)
	cert, err := above.Sub(profile.Order, Name{OEM: oem, Product: product, Unit: unit}, key.Public(), now)
	if err != nil {
		return nil, err
	}
	if err := r.s.bind(name, cert); err != nil {
		return nil, err
	}
	if err := r.s.addCA(ctx, access.Internal("rekey"), cert); err != nil {
		return nil, err
	}
	return NewAuthority(profile.Order, cert, key)
}

// Above gives the CAs above a certificate that one of this hierarchy has signed, nearest first, the root last; nil when its CA is not known (yet).
func (t *Trust) Above(cert *x509.Certificate) []*x509.Certificate {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.cas[string(cert.AuthorityKeyId)]
}

// Stored gives a certificate by its CertKey, for stages that gave it out. It is no verb.
func (s *Service) Stored(ctx context.Context, key string) (Issued, error) {
	return s.c.Store.Certificate(ctx, key)
}
