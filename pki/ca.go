package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// KeyMaker makes the keys of new CAs, where this instance keeps such keys, and finds them.
type KeyMaker interface {
	Signer(name string) (crypto.Signer, error)
	GenerateP256(name string) (crypto.Signer, error)
}

// CARequested is a request that was made here and has no answer yet.
type CARequested struct {
	Key      string // name of the new key
	KeyID    string // wire.KeyID, hex
	Role     profile.Role
	Product  string
	Unit     string
	At       time.Time
	Envelope []byte // signed wire.CARequest
}

// keyPrefix begins the name of a requested key; its role follows.
const keyPrefix = "ca-"

// RequestedRole reads from the name of a key which role's CA it was made for; not, when it was not made by RequestCA.
func RequestedRole(key string) (profile.Role, bool) {
	name, ok := strings.CutPrefix(key, keyPrefix)
	role, _, found := strings.Cut(name, "-")
	return profile.Role(role), ok && found && slices.Contains([]profile.Role{profile.Product, profile.Operational, profile.Infra}, profile.Role(role))
}

// followed is how far LoadCAs has come.
type followed struct{ place atomic.Int64 }

// LoadCAs trusts the stored CAs, and holds those whose key is here. Call it at start, before Refresh, and often: it costs one small query
// when there is nothing new, and another node may have taken a CA in.
func (s *Service) LoadCAs(ctx context.Context) error {
	if s.c.CAs == nil {
		cas, err := s.c.Store.CAs(ctx)
		if err != nil {
			return err
		}
		return s.loadCAs(cas)
	}
	cas, err := s.c.CAs.CAsSince(ctx, s.followed.place.Load())
	if err != nil || len(cas) == 0 {
		return err
	}
	if err := s.loadCAs(cas); err != nil {
		return err
	}
	s.followed.place.Store(cas[len(cas)-1].Place)
	return nil
}

func (s *Service) loadCAs(cas []CA) error {
	for _, role := range []profile.Role{profile.Root, profile.Product, profile.Order, profile.Operational, profile.Infra} { // issuers first
		for _, ca := range cas {
			if ca.Role != role {
				continue
			}
			cert, err := x509.ParseCertificate(ca.DER)
			if err != nil {
				return fmt.Errorf("stored CA %s: %w", ca.SKI, err)
			}
			if err := s.loadCA(ca, cert); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) loadCA(ca CA, cert *x509.Certificate) error {
	if !ca.Ended.IsZero() {
		s.c.Held.Drop(ca.SKI)
		s.c.Trust.Drop(cert)
		return nil
	}
	if ca.Role == profile.Root {
		return s.c.Trust.AddRoot(cert)
	}
	if err := s.c.Trust.AddCA(cert); err != nil {
		return err
	}
	if ca.Shards != 0 {
		s.c.Revocations.setShards(ca.SKI, ca.Shards)
	}
	if _, held := s.c.Held.Get(ca.SKI); held || ca.Key == "" || s.c.NewKey == nil {
		return nil
	}
	key, err := s.c.NewKey.Signer(ca.Key)
	if err != nil {
		s.missing(ca, err)
		return nil
	}
	if err := s.bind(ca.Key, cert); err != nil {
		s.missing(ca, err)
		return nil
	}
	a, err := NewAuthority(ca.Role, cert, key)
	if err != nil {
		return err
	}
	s.c.Held.Add(a)
	return nil
}

// missing tells of a CA whose key ought to be here. The others go on signing.
func (s *Service) missing(ca CA, err error) {
	if s.c.Warn != nil {
		s.c.Warn(fmt.Sprintf("the key %q of the %s CA %s cannot be used here", ca.Key, ca.Role, ca.SKI), err)
	}
}

// RequestCA makes a key for a new CA where this instance keeps its keys, and gives the request over it for the ceremony. product is for
// product CAs only; unit tells CAs of one role apart in their names. Nothing signs with the key before InstallCA.
func (s *Service) RequestCA(ctx context.Context, caller access.Caller, r wire.CARequest) ([]byte, error) {
	if err := s.c.Guard.Check(ctx, caller, access.InstanceManage, access.Resource{Type: "ca", Product: r.Product}); err != nil {
		return nil, err
	}
	if s.c.NewKey == nil || s.c.CAs == nil {
		return nil, fault.New(fault.Unavailable, "ca.no-keys", "this instance makes no keys of CAs", "ask the one that does")
	}
	r.OEM, _ = idevid.SubjectOEM(s.c.Trust.Roots()[0])
	r.Issued, r.Instance, r.CRL = uint64(max(0, s.c.Now().Unix())), s.c.Instance, s.rootList()
	if old, err := s.c.Held.Issuing(profile.Role(r.Role), r.Product, s.c.Now()); err == nil {
		r.Replaces = old.Cert.SubjectKeyId
	}
	if err := requestable(r); err != nil {
		return nil, err
	}
	name := make([]byte, 4)
	_, _ = rand.Read(name)
	key := CARequested{Key: keyPrefix + r.Role + "-" + hex.EncodeToString(name), Role: profile.Role(r.Role), Product: r.Product, Unit: r.Unit, At: s.c.Now().UTC()}
	signer, err := s.c.NewKey.GenerateP256(key.Key)
	if err != nil {
		return nil, fmt.Errorf("make the key of the new CA: %w", err)
	}
	if key.Envelope, err = s.signRequest(key.Key, r, signer); err != nil {
		return nil, err
	}
	kid, err := wire.KeyIDOf(signer.Public())
	if err != nil {
		return nil, err
	}
	key.KeyID = hex.EncodeToString(kid[:])
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(map[string]any{"name": key.Key, "purpose": "requested for a " + r.Role + " CA", "spki": spki})
	if err != nil {
		return nil, err
	}
	return key.Envelope, s.c.CAs.PutCARequest(ctx, key, ledger.New(ledger.KindKeyCreated, key.At, caller.ID, key.Key, nil, data))
}

// signRequest has the new key sign the request; where keys are kept apart, they are told what it is.
func (s *Service) signRequest(name string, r wire.CARequest, key crypto.Signer) ([]byte, error) {
	if apart, ok := s.c.NewKey.(interface {
		SignCARequest(name string, r wire.CARequest) ([]byte, error)
	}); ok {
		return apart.SignCARequest(name, r)
	}
	return wire.SignCARequest(r, key)
}

// bind tells where keys are kept apart which certificate a key has.
func (s *Service) bind(name string, cert *x509.Certificate) error {
	if apart, ok := s.c.NewKey.(interface {
		Bind(name string, cert *x509.Certificate) error
	}); ok {
		return apart.Bind(name, cert)
	}
	return nil
}

// rootList is where the root's list of revoked CAs is published.
func (s *Service) rootList() string {
	if s.c.Root == nil {
		return ""
	}
	return s.listURL(ListID{hex.EncodeToString(s.c.Root.SubjectKeyId), CAList})
}

// requestable is the request's own check, with a key that stands in: before one is made.
func requestable(r wire.CARequest) error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if r.SPKI, err = x509.MarshalPKIXPublicKey(k.Public()); err != nil {
		return err
	}
	if _, err := wire.EncodeCARequest(r); err != nil {
		return fault.Newf(fault.Invalid, "ca.request", "%w", err).With("correct what is asked for: `hallmark ca request`")
	}
	return nil
}

// InstallCA takes in the ceremony's answer to a request that was made here. The chain is verified up to a root that is believed already, and
// held against the request; then the new CA takes over from the one before. The root's signature is the permission of many; the caller's is
// that of who runs the instance.
func (s *Service) InstallCA(ctx context.Context, caller access.Caller, grant []byte) (CA, error) {
	if err := s.c.Guard.Check(ctx, caller, access.InstanceManage, access.Resource{Type: "ca"}); err != nil {
		return CA{}, err
	}
	if s.c.NewKey == nil || s.c.CAs == nil {
		return CA{}, fault.New(fault.Unavailable, "ca.no-keys", "this instance holds no keys of CAs that were requested", "install it where it was requested")
	}
	g, err := wire.DecodeCAGrant(grant)
	if err != nil {
		return CA{}, fault.Newf(fault.Invalid, "ca.grant", "no answer to a request for a CA: %w", err).With("take the file as the ceremony wrote it")
	}
	cert, role, err := s.granted(g)
	if err != nil {
		return CA{}, err
	}
	asked, err := s.answers(ctx, g, cert, role)
	if err != nil {
		return CA{}, err
	}
	key, err := s.c.NewKey.Signer(asked.Key)
	if err != nil {
		return CA{}, fault.Newf(fault.Unavailable, "ca.key", "the key %q of the new CA cannot be used here: %w", asked.Key, err).With("put the key where it was when the CA was asked for, or ask anew: `hallmark ca request`")
	}
	a, err := NewAuthority(role, cert, key)
	if err != nil {
		return CA{}, fault.Newf(fault.Denied, "ca.grant", "%w", err).With("take the answer to this request: `hallmark ca list` names it")
	}
	path, err := s.c.Trust.check(cert)
	if err != nil {
		return CA{}, err
	}
	if err := s.bind(asked.Key, cert); err != nil {
		return CA{}, err
	}
	ca := CA{SKI: a.SKI(), Role: role, DER: cert.Raw, Shards: DefaultShards, Key: asked.Key}
	if err := s.c.Store.AddCA(ctx, ca, ledger.New(ledger.KindCACreated, s.c.Now(), caller.ID, ca.SKI, nil, cert.Raw)); err != nil {
		return CA{}, err
	}
	s.c.Trust.add(path)
	s.c.Held.Add(a)
	return ca, nil
}

// granted checks the chain of a grant by itself.
func (s *Service) granted(g wire.CAGrant) (*x509.Certificate, profile.Role, error) {
	var chain []*x509.Certificate
	for i, der := range g.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil || !bytes.Equal(c.Raw, der) {
			return nil, "", fault.Newf(fault.Invalid, "ca.grant", "certificate %d of the chain: %w", i, err).With("take the file as the ceremony wrote it")
		}
		chain = append(chain, c)
	}
	root, ok := s.c.Trust.CA(chain[len(chain)-1].SubjectKeyId)
	if !ok || !root.Equal(chain[len(chain)-1]) {
		return nil, "", fault.New(fault.Denied, "ca.root", fmt.Sprintf("the chain ends at root %q, which is not believed here", chain[len(chain)-1].Subject),
			"have two people believe it first, when it is the OEM's new root: `hallmark ca trust FILE`")
	}
	cert := chain[0]
	role, err := RoleOf(cert)
	if err != nil {
		return nil, "", fault.Newf(fault.Denied, "ca.grant", "%w", err).With("take the answer of a root that is trusted here")
	}
	if len(chain) != 2 {
		return nil, "", fault.New(fault.Invalid, "ca.grant", fmt.Sprintf("a chain of %d certificates", len(chain)), "it is the new CA and the root that signed it")
	}
	if err := profile.Lint(role, cert, root); err != nil {
		return nil, "", fault.Newf(fault.Denied, "ca.grant", "the CA is not of its profile: %w", err).With("have the ceremony run again, on the request as it was written")
	}
	if now := s.c.Now(); now.Before(cert.NotBefore) || !now.Before(cert.NotAfter) {
		return nil, "", fault.New(fault.Denied, "ca.grant", fmt.Sprintf("the CA is valid from %s to %s", cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339)), "look at the clocks, here and at the ceremony")
	}
	return cert, role, nil
}

// answers finds the request that a grant answers, and holds the certificate against it.
func (s *Service) answers(ctx context.Context, g wire.CAGrant, cert *x509.Certificate, role profile.Role) (CARequested, error) {
	kid, err := wire.KeyIDOf(cert.PublicKey)
	if err != nil {
		return CARequested{}, fault.Newf(fault.Denied, "ca.grant", "%w", err).With("take the answer to a request of this instance: `hallmark ca list`")
	}
	all, err := s.c.CAs.CARequests(ctx)
	if err != nil {
		return CARequested{}, err
	}
	for _, asked := range all {
		if asked.KeyID != hex.EncodeToString(kid[:]) {
			continue
		}
		r, payload, err := wire.OpenCARequest(asked.Envelope)
		if err != nil {
			return CARequested{}, fmt.Errorf("stored request %s: %w", asked.Key, err)
		}
		oem, product := idevid.SubjectOEM(cert)
		if sum := sha256.Sum256(payload); !bytes.Equal(sum[:], g.Request) || profile.Role(r.Role) != role || r.OEM != oem || r.Product != product {
			return CARequested{}, fault.New(fault.Denied, "ca.grant", "the certificate is not what was requested for this key", "compare request and answer at the ceremony")
		}
		return asked, nil
	}
	return CARequested{}, fault.New(fault.NotFound, "ca.request-unknown", "this instance has not asked for a CA with this key, or has it already", "see `hallmark ca list`")
}

// TrustRoot believes another root: the OEM's new one. It takes two people, because who has a root has everything below it.
func (s *Service) TrustRoot(ctx context.Context, caller access.Caller, der []byte) (CA, error) {
	cert, bad := x509.ParseCertificate(der)
	ski := ""
	if bad == nil {
		ski = hex.EncodeToString(cert.SubjectKeyId)
	}
	if err := s.c.Guard.Check(ctx, caller, access.InstanceManage, access.Resource{Type: "ca", ID: ski, Grave: true}); err != nil {
		return CA{}, err
	}
	if bad != nil { // whether it reads is for who might have it believed
		return CA{}, fault.Newf(fault.Invalid, "ca.root", "no certificate: %w", bad).With("give a certificate in PEM or DER")
	}
	if role, err := RoleOf(cert); err != nil || role != profile.Root {
		return CA{}, fault.New(fault.Invalid, "ca.root", fmt.Sprintf("%q is no root CA", cert.Subject), "take the certificate that the ceremony gave out for the root")
	}
	if err := cert.CheckSignatureFrom(cert); err != nil {
		return CA{}, fault.Newf(fault.Invalid, "ca.root", "root %q: %w", cert.Subject, err).With("give a root's certificate, self-signed and of a suite that is taken here")
	}
	if oem, _ := idevid.SubjectOEM(cert); oem != oemOf(s.c.Trust.Roots()[0]) {
		return CA{}, fault.New(fault.Denied, "ca.root", fmt.Sprintf("root %q is of OEM %q", cert.Subject, oem), "an instance is of one OEM; devices of another maker come by `hallmark foreign-ca`")
	}
	ca := CA{SKI: ski, Role: profile.Root, DER: cert.Raw}
	if err := s.c.Store.AddCA(ctx, ca, ledger.New(ledger.KindCACreated, s.c.Now(), caller.ID, ski, nil, cert.Raw)); err != nil {
		return CA{}, err
	}
	return ca, s.c.Trust.AddRoot(cert)
}

func oemOf(c *x509.Certificate) string {
	oem, _ := idevid.SubjectOEM(c)
	return oem
}

// EndCAs takes operational CAs out of service that another has taken over from and of which nothing is valid any more. Call it now and then,
// on one node. It is no verb: time has decided.
func (s *Service) EndCAs(ctx context.Context) error {
	if s.c.CAs == nil {
		return nil
	}
	now := s.c.Now().UTC()
	for _, a := range s.c.Held.All() {
		if a.Role != profile.Operational {
			continue
		}
		if issuing, err := s.c.Held.Issuing(a.Role, a.Product(), now); err != nil || issuing.SKI() == a.SKI() {
			continue
		}
		data, err := json.Marshal(map[string]any{"ski": a.SKI(), "role": a.Role, "cause": "replaced, and nothing that it has signed is valid any more"})
		if err != nil {
			return err
		}
		until, err := s.c.CAs.EndCA(ctx, a.SKI(), now.Add(-s.c.Grace), ledger.New(ledger.KindCAEnded, now, "system:pki", a.SKI(), nil, data))
		if err != nil {
			return err
		}
		if until.IsZero() {
			s.c.Held.Drop(a.SKI())
			s.c.Trust.Drop(a.Cert)
		}
	}
	return nil
}

// Standing is a CA as people see it.
type Standing struct {
	CA
	Cert    *x509.Certificate
	Held    bool // its key is here
	Issuing bool // it signs what is new
	Revoked bool
}

// Authorities lists the CAs with how they stand, and the requests that have no answer.
func (s *Service) Authorities(ctx context.Context, caller access.Caller) ([]Standing, []CARequested, error) {
	cas, err := s.Issuers(ctx, caller)
	if err != nil {
		return nil, nil, err
	}
	now := s.c.Now()
	var out []Standing
	for _, ca := range cas {
		cert, err := x509.ParseCertificate(ca.DER)
		if err != nil {
			return nil, nil, fmt.Errorf("stored CA %s: %w", ca.SKI, err)
		}
		st := Standing{CA: ca, Cert: cert, Revoked: s.c.Revocations.issuerRevoked(ca.SKI)}
		_, st.Held = s.c.Held.Get(ca.SKI)
		if a, err := s.c.Held.Issuing(ca.Role, ProductOf(cert), now); err == nil {
			st.Issuing = st.Held && a.SKI() == ca.SKI
		}
		out = append(out, st)
	}
	if s.c.CAs == nil {
		return out, nil, nil
	}
	asked, err := s.c.CAs.CARequests(ctx)
	return out, asked, err
}
