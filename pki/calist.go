package pki

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
)

// offlineListLife is how long a list may be used that people have to come together for.
const offlineListLife = 400 * day

// rootOf finds a CA whose key is offline: a root.
func (s *Service) rootOf(ski string) (*x509.Certificate, error) {
	raw, err := hex.DecodeString(ski)
	if err == nil {
		if ca, ok := s.c.Trust.CA(raw); ok {
			if role, err := RoleOf(ca); err == nil && role == profile.Root {
				return ca, nil
			}
		}
	}
	return nil, fault.New(fault.NotFound, "ca.unknown", fmt.Sprintf("no root CA %q", ski), "take the ID of a CA of role root from `hallmark ca list`; the lists of the others are signed here by themselves")
}

// RequestCAList writes what a root has to sign so that others hear of the CAs below it that were revoked: for the ceremony.
func (s *Service) RequestCAList(ctx context.Context, caller access.Caller, ski, purpose string) ([]byte, error) {
	if err := s.c.Guard.Check(ctx, caller, access.InstanceManage, access.Resource{Type: "ca", ID: ski}); err != nil {
		return nil, err
	}
	root, err := s.rootOf(ski)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	cas, err := s.c.Store.CAs(ctx)
	if err != nil {
		return nil, err
	}
	for _, ca := range cas {
		cert, err := x509.ParseCertificate(ca.DER)
		if err != nil {
			return nil, fmt.Errorf("stored CA %s: %w", ca.SKI, err)
		}
		names[CertKey(cert)] = cert.Subject.String()
	}
	now := s.c.Now()
	entries, _ := s.c.Revocations.of(ListID{ski, CAList}, now)
	old, err := s.c.Lists.List(ctx, ListID{ski, CAList})
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return nil, err
	}
	r := wire.CRLRequest{
		Issuer: root.Raw, Number: uint64(max(old.Number+1, now.UnixMilli())), Instance: s.c.Instance, Purpose: purpose,
		From: uint64(now.Unix()), Until: uint64(now.Add(offlineListLife).Unix()),
	}
	for _, e := range entries {
		number := trimmed(e.serial)
		name := names[ski+"/"+new(big.Int).SetBytes(number).Text(16)]
		if name == "" {
			name = "a CA that is not stored here"
		}
		r.Revoked = append(r.Revoked, wire.CARevoked{Serial: number, At: uint64(e.at / 1000), Reason: uint(e.reason), Name: name})
	}
	out, err := wire.EncodeCRLRequest(r)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "crl.request", "%w", err).With("correct what is asked for: `hallmark ca list-request`")
	}
	return out, nil
}

// PutCAList publishes the list that a root has signed: it is checked against the root, must be newer than the one before, and may not leave out
// what is revoked here.
func (s *Service) PutCAList(ctx context.Context, caller access.Caller, ski string, der []byte) (List, error) {
	if err := s.c.Guard.Check(ctx, caller, access.InstanceManage, access.Resource{Type: "ca", ID: ski}); err != nil {
		return List{}, err
	}
	root, err := s.rootOf(ski)
	if err != nil {
		return List{}, err
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return List{}, fault.Newf(fault.Invalid, "crl.malformed", "no list of revocations: %w", err).With("take the file as the ceremony wrote it")
	}
	has := map[serial]bool{}
	for _, e := range l.RevokedCertificateEntries {
		if key, ok := serialOf(e.SerialNumber); ok {
			has[key] = true
		}
	}
	entries, _ := s.c.Revocations.of(ListID{ski, CAList}, s.c.Now())
	for _, e := range entries {
		if !has[e.serial] && (e.expires == 0 || time.UnixMilli(e.expires).After(s.c.Now())) {
			return List{}, fault.New(fault.Conflict, "crl.misses", fmt.Sprintf("the list leaves out the certificate with serial number %s, which is revoked here", new(big.Int).SetBytes(e.serial[:]).Text(16)),
				"have one signed that was requested after it was revoked: `hallmark ca list-request`")
		}
	}
	return s.putCAList(ctx, root, der)
}

func trimmed(s serial) []byte {
	out := s[:]
	for len(out) > 1 && out[0] == 0 {
		out = out[1:]
	}
	return out
}
