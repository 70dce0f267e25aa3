package pki

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Adoption is a CA that may be believed, and is not yet: whoever has asked stores CA and Fact, in one write with what they came for, and then calls Believe.
type Adoption struct {
	CA   CA
	Cert *x509.Certificate
	Fact ledger.Fact // ca.created; it goes where the CA is new

	path []*x509.Certificate
}

// Believe believes from now on, in this process, what was stored. The others, and this one after a new start, read it there.
func (s *Service) Believe(a Adoption) { s.c.Trust.add(a.path) }

// Adopt finds a CA of this hierarchy good whose key is elsewhere, at a desk: a product CA, or one of an order below it. It is linted like what is signed
// here; who signed it must be believed here, and not revoked. It changes nothing.
func (s *Service) Adopt(ctx context.Context, caller access.Caller, role profile.Role, der []byte) (Adoption, error) {
	a, err := s.adopt(ctx, caller, role, der)
	if err != nil {
		return Adoption{}, err
	}
	a.CA = CA{SKI: SKIOf(a.Cert), Role: role, DER: a.Cert.Raw, Shards: DefaultShards}
	a.Fact = ledger.New(ledger.KindCACreated, s.c.Now(), caller.ID, a.CA.SKI, nil, a.Cert.Raw)
	return a, nil
}

func (s *Service) adopt(ctx context.Context, caller access.Caller, role profile.Role, der []byte) (a Adoption, err error) {
	if err := s.c.Guard.Check(ctx, caller, access.InstanceManage, access.Resource{Type: "ca"}); err != nil {
		return a, err
	}
	bad := func(format string, args ...any) error {
		return fault.Newf(fault.Denied, "ca.adopt", format, args...).With("take what the key ceremony wrote for this desk")
	}
	c, err := x509.ParseCertificate(der)
	if err != nil || !bytes.Equal(c.Raw, der) {
		return a, bad("no certificate of a CA: %w", err)
	}
	if got, err := RoleOf(c); err != nil || got != role || role != profile.Product && role != profile.Order {
		return a, bad("CA %q is not a %s CA", c.Subject, role)
	}
	above, ok := s.c.Trust.CA(c.AuthorityKeyId)
	if !ok {
		return a, fault.New(fault.Denied, "ca.adopt", fmt.Sprintf("CA %q is not by a CA that is believed here", c.Subject), "see `hallmark ca list`; another root of the OEM is believed with `hallmark ca trust`")
	}
	if err := profile.Lint(role, c, above); err != nil {
		return a, bad("the CA is not of its profile: %w", err)
	}
	if now := s.c.Now(); now.Add(profile.Backdate).Before(c.NotBefore) || !now.Before(c.NotAfter) {
		return a, bad("CA %q is valid from %s to %s", c.Subject, c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
	}
	if s.c.Revocations.issuerRevoked(SKIOf(c)) || s.c.Revocations.issuerRevoked(hex.EncodeToString(c.AuthorityKeyId)) {
		return a, bad("CA %q, or the one above it, is revoked", c.Subject)
	}
	if known, ok := s.c.Trust.CA(c.SubjectKeyId); ok && !known.Equal(c) {
		return a, fault.New(fault.Conflict, "ca.key-taken", fmt.Sprintf("the key of CA %q is that of another already", c.Subject), "make a key of its own for each CA")
	}
	held := s.c.Held != nil
	if held {
		_, held = s.c.Held.Get(SKIOf(c))
	}
	if held {
		return a, fault.New(fault.Denied, "ca.held", fmt.Sprintf("the key of CA %q is this instance's", c.Subject), "who signs elsewhere has a CA of its own")
	}
	a.Cert = c
	a.path, err = s.c.Trust.check(c)
	return a, err
}

// ProductOf is the product that a CA is for.
func ProductOf(c *x509.Certificate) string {
	_, product := idevid.SubjectOEM(c)
	return product
}
