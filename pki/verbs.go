package pki

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// placed is a device as a resource; place is its product, or with its group as access.Join names it.
func placed(device, place string) access.Resource {
	res := access.In("device", place)
	res.ID = device
	return res
}

// Certificates lists a device's certificates, place as access.Join names it, by their key, from behind after on, at most limit.
func (s *Service) Certificates(ctx context.Context, caller access.Caller, device, place, after string, limit int) ([]Issued, error) {
	if err := s.c.Guard.Check(ctx, caller, access.CertRead, placed(device, place)); err != nil {
		return nil, err
	}
	return s.c.Store.Certificates(ctx, device, after, limit)
}

// Revoked lists what was revoked, in that order, from behind the entry after on, at most limit.
func (s *Service) Revoked(ctx context.Context, caller access.Caller, after int64, limit int) ([]Revocation, error) {
	if err := s.c.Guard.Check(ctx, caller, access.CertRead, access.Resource{Type: "certificate"}); err != nil {
		return nil, err
	}
	return s.c.Store.RevokedSince(ctx, after, limit)
}

// Issuers lists the CAs.
func (s *Service) Issuers(ctx context.Context, caller access.Caller) ([]CA, error) {
	if err := s.c.Guard.Check(ctx, caller, access.CertRead, access.Resource{Type: "ca"}); err != nil {
		return nil, err
	}
	return s.c.Store.CAs(ctx)
}

// Revoke revokes one certificate that this service issued, named by its CertKey, in the scope of the product it names itself and the group
// its device is in.
func (s *Service) Revoke(ctx context.Context, caller access.Caller, key string, reason int) error {
	c, err := s.c.Store.Certificate(ctx, key)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return err
	}
	res := access.Resource{Type: "certificate", ID: key}
	if err == nil {
		if res.Product, err = productOf(c.DER); err != nil {
			return err
		}
		res.Group = c.Group
	}
	if denied := s.c.Guard.Check(ctx, caller, access.CertRevoke, res); denied != nil {
		return denied
	}
	if c.Key == "" {
		return ErrNotFound
	}
	return s.revoke(ctx, caller, reason, Revocation{Scope: ScopeCert, ID: key, Device: c.Device, Issuer: c.Issuer, Serial: c.Serial, Expires: c.NotAfter})
}

func productOf(der []byte) (string, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return "", fmt.Errorf("stored certificate: %w", err)
	}
	id, err := idevid.Parse(cert)
	if err != nil {
		return "", fmt.Errorf("stored certificate: %w", err)
	}
	return id.Product, nil
}

// RevokeOrderCA takes everything that a CA has signed, named by its subject key ID: an order's, for a station's key that was stolen, or an
// operational one that another has taken over from: then its devices enrol again with what they have from the factory; or a desk's product CA, for a
// desk that was stolen, with the devices of all of its orders. The other CAs carry
// the whole fleet and are replaced by a ceremony, not by a call.
func (s *Service) RevokeOrderCA(ctx context.Context, caller access.Caller, ski string, reason int) error {
	if err := s.c.Guard.Check(ctx, caller, access.CertRevoke, access.Resource{Type: "ca", ID: ski, Grave: true}); err != nil {
		return err
	}
	cas, err := s.c.Store.CAs(ctx)
	if err != nil {
		return err
	}
	for _, ca := range cas {
		if ca.SKI != ski {
			continue
		}
		issuing, err := s.c.Held.Issuing(ca.Role, "", s.c.Now())
		replaced := ca.Role == profile.Operational && err == nil && issuing.SKI() != ski
		_, held := s.c.Held.Get(ski)
		desks := ca.Role == profile.Product && ca.Key == "" && !held // its key is at a desk
		if ca.Role != profile.Order && !replaced && !desks {
			return fault.New(fault.Conflict, "ca.role", fmt.Sprintf("CA %s is the CA of role %s", ski, ca.Role),
				"only the CA of an order, a desk's, and an operational one that another has taken over from, is revoked by a call; replace this one by a key ceremony")
		}
		cert, err := x509.ParseCertificate(ca.DER)
		if err != nil {
			return fmt.Errorf("stored CA %s: %w", ski, err)
		}
		if !desks {
			return s.RevokeIssuer(ctx, caller, cert, reason)
		}
		rs := []Revocation{{Scope: ScopeIssuer, ID: ski}}
		for _, below := range cas { // devices are checked against the CA that signed them: those of its orders
			c, err := x509.ParseCertificate(below.DER)
			if err != nil {
				return fmt.Errorf("stored CA %s: %w", below.SKI, err)
			}
			if below.Role == profile.Order && hex.EncodeToString(c.AuthorityKeyId) == ski && !s.c.Revocations.issuerRevoked(below.SKI) {
				rs = append(rs, Revocation{Scope: ScopeIssuer, ID: below.SKI})
			}
		}
		return s.revoke(ctx, caller, reason, rs...)
	}
	return fault.New(fault.NotFound, "ca.unknown", fmt.Sprintf("no CA %q", ski), "see `hallmark ca list`")
}
