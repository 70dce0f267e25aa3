package pki

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki/pkcs10"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Guard decides and audits; access.Guard is one.
type Guard interface {
	Check(ctx context.Context, caller access.Caller, action access.Action, res access.Resource) error
	Many(caller access.Caller, devices []string) bool // whether it takes a second person to act on those devices
}

// Config is what a Service works with.
type Config struct {
	Guard       Guard
	Store       Store
	Trust       *Trust
	Revocations *Revocations
	Held        *Held                                    // the CAs that sign here
	Operational *Authority                               // held as well; nil: what is in Held
	Product     func(product string) (*Authority, error) // the product's CA, for order CAs; nil: what is in Held
	Lists       ListStore                                // of published lists; nil: none are published
	CAs         CAStore                                  // what becomes of CAs; nil: none is added or ended here
	NewKey      KeyMaker                                 // makes and finds the keys of new CAs; nil: none is made here

	// OCSP says whether a product's certificates, from now on, name a responder (RFC 6960); nil: none do.
	OCSP func(ctx context.Context, product string) (bool, error)

	Targets  TargetStore                  // of what is revoked in bulk; nil: nothing is
	Instance string                       // how this instance calls itself in requests
	Warn     func(text string, err error) // told what a person should look at; nil: nobody
	Root     *x509.Certificate
	Life     time.Duration    // of an LDevID; 0: 14 days
	Grace    time.Duration    // how long a replaced LDevID still works, in case the answer was lost; 0: 24 h
	CRLBase  string           // http URL under which CRLs are published; empty: certificates name none
	Burst    int              // new certificates that a device gets at once, see pace; 0: 64
	Shards   int              // CRL shards of Operational; 0: DefaultShards. Fixed for its life
	Now      func() time.Time // nil: time.Now
}

// Service is the stage's verbs.
type Service struct {
	c      Config
	lister lister

	followed followed

	responder responder

	recent answers
	pace   pace
}

// New makes a service. It does not read the store: call Refresh before the first check.
func New(c Config) (*Service, error) {
	if c.Guard == nil || c.Store == nil || c.Trust == nil || c.Revocations == nil {
		return nil, errors.New("pki: guard, store, trust and revocations are needed")
	}
	if c.Held == nil {
		c.Held = NewHeld()
	}
	if c.Operational != nil {
		if c.Operational.Role != profile.Operational {
			return nil, fmt.Errorf("pki: a %s CA as operational CA", c.Operational.Role)
		}
		c.Held.Add(c.Operational)
		if c.Shards != 0 {
			c.Revocations.setShards(c.Operational.SKI(), c.Shards)
		}
	}
	if c.Life == 0 {
		c.Life = 14 * day
	}
	if c.Grace == 0 {
		c.Grace = day
	}
	if c.Burst == 0 {
		c.Burst = paceBurst
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Product == nil {
		held, now := c.Held, c.Now
		c.Product = func(product string) (*Authority, error) { return held.Issuing(profile.Product, product, now()) }
	}
	if p, _ := profile.Of(profile.LDevID); c.Life > p.Life || c.Life < time.Minute {
		return nil, fmt.Errorf("pki: LDevIDs of %s, want a minute to %s", c.Life, p.Life)
	}
	return &Service{c: c}, nil
}

// Trust and Revocations are what the listeners check with.
func (s *Service) Trust() *Trust { return s.c.Trust }

// Revocations gives the list that Refresh keeps fresh.
func (s *Service) Revocations() *Revocations { return s.c.Revocations }

// Issue gives the LDevID that answers req, by the verified device d. The same request by the same device gives the same
// certificate for as long as that holds, whatever was lost on the way; with the next certificate it is another request, a renewal. also are facts that belong to the same moment; they are
// written only when a certificate is really new. cert.issued and they are durable when Issue returns.
func (s *Service) Issue(ctx context.Context, caller access.Caller, d Device, req pkcs10.Request, also ...ledger.Fact) (*x509.Certificate, error) {
	id := d.Identity
	if err := s.c.Guard.Check(ctx, caller, access.DeviceEnrol, access.Resource{Type: "device", ID: id.DeviceID, Product: id.Product}); err != nil {
		return nil, err
	}
	now := s.c.Now()
	if err := s.c.Revocations.Check(d.Cert, id.DeviceID, now); err != nil {
		return nil, err
	}
	request := requestKey(d, req)
	if cert := s.recent.get(request); cert != nil && now.Before(cert.NotAfter) && s.c.Revocations.Check(cert, id.DeviceID, now) == nil {
		return cert, nil
	}
	untake, err := s.pace.take(paced{id.DeviceID, id.Kind}, s.c.Burst, now)
	if err != nil {
		return nil, err
	}
	kept, err := s.issue(ctx, caller, d, req, request, now, also)
	if err != nil && ctx.Err() == nil || err == nil && !kept.fresh { // who went away may have been given one
		untake()
	}
	return kept.cert, err
}

// answered is a certificate that answers a request; fresh: it was not there before.
type answered struct {
	cert  *x509.Certificate
	fresh bool
}

// issue signs and stores.
func (s *Service) issue(ctx context.Context, caller access.Caller, d Device, req pkcs10.Request, request [32]byte, now time.Time, also []ledger.Fact) (answered, error) {
	id, none := d.Identity, answered{}
	id.Kind = idevid.LDevID
	ca, err := s.c.Held.Issuing(profile.Operational, "", now)
	if err != nil {
		return none, err
	}
	until, err := ca.until(now, s.c.Life)
	if err != nil {
		return none, err
	}
	status, err := s.statusURL(ctx, id.Product)
	if err != nil {
		return none, err
	}
	cert, err := ca.device(id, req.CSR.PublicKey, now, until, s.distributionPoint(ca), status)
	if err != nil {
		return none, err
	}
	facts := append([]ledger.Fact{ledger.New(ledger.KindCertIssued, now, caller.ID, id.DeviceID, nil, cert.Raw)}, also...)
	c := issued(cert, profile.LDevID, id.DeviceID, request)
	c.By = CertKey(d.Cert)
	kept, err := s.c.Store.Issue(ctx, c, now, now.Add(s.c.Grace), facts...)
	if err != nil {
		return none, err
	}
	fresh := kept.Key == CertKey(cert)
	if !fresh { // the same request was answered before
		if cert, err = x509.ParseCertificate(kept.DER); err != nil {
			return none, fmt.Errorf("stored certificate %s: %w", kept.Key, err)
		}
	}
	s.recent.put(request, cert)
	return answered{cert, fresh}, nil
}

// answers remembers the latest answers, so that a storm of repeated requests costs neither a signature nor a look at the store
// each. Which answer stands is for the store to say.
type answers struct {
	mu sync.Mutex
	by map[[32]byte]*x509.Certificate // guarded by mu
}

// maxAnswers bounds them: some MB.
const maxAnswers = 4096

func (a *answers) get(request [32]byte) *x509.Certificate {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.by[request]
}

func (a *answers) put(request [32]byte, c *x509.Certificate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.by == nil || len(a.by) >= maxAnswers {
		a.by = map[[32]byte]*x509.Certificate{}
	}
	a.by[request] = c
}

// requestKey is what a request is known by. One for the next LDevID is made with the present one, and that is part of it: who lost the
// answer asks with the same certificate, and who renews for the same key, time after time, with another.
func requestKey(d Device, req pkcs10.Request) [32]byte {
	key := append([]byte("ldevid "+d.Identity.DeviceID+" "), req.Digest[:]...)
	if d.Identity.Kind == idevid.LDevID {
		sum := sha256.Sum256(d.Cert.Raw)
		key = append(key, sum[:]...)
	}
	return sha256.Sum256(key)
}

func issued(c *x509.Certificate, role profile.Role, device string, request [32]byte) Issued {
	return Issued{
		Key: CertKey(c), Request: request, Device: device, Role: role,
		Issuer: hex.EncodeToString(c.AuthorityKeyId), Serial: c.SerialNumber.Text(16),
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, DER: c.Raw,
	}
}

// IssueOrderCA signs an order CA for key under the product's CA, stores it with its fact, and trusts it. The chain is the new
// certificate first, the OEM root last (DER).
func (s *Service) IssueOrderCA(ctx context.Context, caller access.Caller, name Name, key crypto.PublicKey) ([][]byte, error) {
	if err := s.c.Guard.Check(ctx, caller, access.OrderCreate, access.Resource{Type: "order", ID: name.Unit, Product: name.Product}); err != nil {
		return nil, err
	}
	if s.c.Product == nil {
		return nil, fault.New(fault.Unavailable, "pki.no-product-ca", "this instance holds no product CAs", "ask the one that does")
	}
	above, err := s.c.Product(name.Product)
	if err != nil {
		return nil, err
	}
	ca, err := above.Sub(profile.Order, name, key, s.c.Now())
	if err != nil {
		return nil, err
	}
	if err := s.addCA(ctx, caller, ca); err != nil {
		return nil, err
	}
	return [][]byte{ca.Raw, above.Cert.Raw, s.c.Root.Raw}, nil
}

// AddCA stores and trusts a CA certificate of this hierarchy whose issuer is known already.
func (s *Service) AddCA(ctx context.Context, caller access.Caller, ca *x509.Certificate) error {
	if err := s.c.Guard.Check(ctx, caller, access.InstanceManage, access.Resource{Type: "instance", ID: ca.Subject.String()}); err != nil {
		return err
	}
	return s.addCA(ctx, caller, ca)
}

// addCA verifies, then stores, then trusts: what is believed in memory is in the store and in the ledger.
func (s *Service) addCA(ctx context.Context, caller access.Caller, ca *x509.Certificate) error {
	role, err := RoleOf(ca)
	if err != nil {
		return err
	}
	path, err := s.c.Trust.check(ca)
	if err != nil {
		return err
	}
	ski := hex.EncodeToString(ca.SubjectKeyId)
	if err := s.c.Store.AddCA(ctx, CA{SKI: ski, Role: role, DER: ca.Raw, Shards: DefaultShards},
		ledger.New(ledger.KindCACreated, s.c.Now(), caller.ID, ski, nil, ca.Raw)); err != nil {
		return err
	}
	s.c.Trust.add(path)
	return nil
}

// refreshPage bounds one read of the list.
const refreshPage = 10_000

// Refresh reads what is new in the list of revocations. Call it at start and every few seconds; checks fail when it has not
// succeeded for the list's maximum age. It is no verb: it decides nothing and tells nobody anything.
func (s *Service) Refresh(ctx context.Context) error {
	for {
		asOf := s.c.Now()
		page, err := s.c.Store.RevokedSince(ctx, s.c.Revocations.newest(), refreshPage)
		if err != nil {
			return fmt.Errorf("refresh revocations: %w", err)
		}
		if len(page) == refreshPage {
			asOf = time.Time{} // not the whole list yet
		}
		s.c.Revocations.add(asOf, true, page...)
		if len(page) < refreshPage {
			return nil
		}
	}
}

// CACerts is what EST's /cacerts answers: the operational CAs of which something may be valid, the issuing one first, then the roots.
func (s *Service) CACerts() []*x509.Certificate {
	now := s.c.Now()
	var out []*x509.Certificate
	for _, a := range s.c.Held.All() {
		if a.Role == profile.Operational && now.Before(a.Cert.NotAfter) {
			out = append(out, a.Cert)
		}
	}
	slices.SortStableFunc(out, func(a, b *x509.Certificate) int { return b.NotBefore.Compare(a.NotBefore) })
	if s.c.Root != nil {
		out = append(out, s.c.Root)
	}
	for _, r := range s.c.Trust.Roots() {
		if s.c.Root == nil || !r.Equal(s.c.Root) {
			out = append(out, r)
		}
	}
	return out
}

// distributionPoint gives the function that names the list a serial number of ca belongs to; nil when none is published.
func (s *Service) distributionPoint(ca *Authority) func(serial []byte) string {
	if s.c.CRLBase == "" {
		return nil
	}
	ski := ca.SKI()
	n := s.shards(ski)
	return func(serial []byte) string { return s.listURL(ListID{ski, shardOf(new(big.Int).SetBytes(serial), n)}) }
}

// statusURL is where a product's certificates are answered for by OCSP; none where it did not ask for that.
func (s *Service) statusURL(ctx context.Context, product string) ([]string, error) {
	if s.c.CRLBase == "" || s.c.OCSP == nil {
		return nil, nil
	}
	if asks, err := s.c.OCSP(ctx, product); err != nil || !asks {
		return nil, err
	}
	return []string{s.c.CRLBase + "/ocsp"}, nil
}

func (s *Service) shards(ski string) int { return s.c.Revocations.shardCount(ski) }
