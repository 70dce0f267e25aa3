package store_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/pkcs10"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

const crlBase = "http://crl.test"

// drawer holds keys by name.
type drawer map[string]*ecdsa.PrivateKey

func (d drawer) Signer(name string) (crypto.Signer, error) {
	if k, ok := d[name]; ok {
		return k, nil
	}
	return nil, fmt.Errorf("no key %q", name)
}

func (d drawer) GenerateP256(name string) (crypto.Signer, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	d[name] = k
	return k, err
}

// authorityWorld is a hierarchy over a store, at a time of its own.
type authorityWorld struct {
	t              testing.TB
	db             *store.DB
	now            time.Time
	root, order    *pki.Authority
	keys           drawer
	service        *pki.Service
	operational    *pki.Authority
	product, infra *pki.Authority
	silent         bool // the product asks for no OCSP
}

func newAuthorityWorld(t testing.TB) *authorityWorld { return authorityWorldOn(t, storetest.Open(t)) }

func authorityWorldOn(t testing.TB, db *store.DB) *authorityWorld {
	t.Helper()
	w := &authorityWorld{t: t, db: db, now: time.Now().UTC().Truncate(time.Second), keys: drawer{}}
	var err error
	if w.root, err = pki.NewRoot("acme", newKey(t), w.now); err != nil {
		t.Fatal(err)
	}
	w.product = w.sub(w.root, profile.Product, pki.Name{OEM: "acme", Product: "pump"})
	w.operational = w.sub(w.root, profile.Operational, pki.Name{OEM: "acme"})
	w.infra = w.sub(w.root, profile.Infra, pki.Name{OEM: "acme"})
	w.order = w.sub(w.product, profile.Order, pki.Name{OEM: "acme", Product: "pump", Unit: "ord-1"})
	w.service = w.node()
	return w
}

func (w *authorityWorld) sub(above *pki.Authority, role profile.Role, name pki.Name) *pki.Authority {
	w.t.Helper()
	k := newKey(w.t)
	cert, err := above.Sub(role, name, k.Public(), w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	a, err := pki.NewAuthority(role, cert, k)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// node is a service of its own over the same store, as another node or the next start is.
func (w *authorityWorld) node() *pki.Service {
	w.t.Helper()
	guard, err := access.NewGuard(silentAudit{})
	if err != nil {
		w.t.Fatal(err)
	}
	trust, err := pki.NewTrust([]*x509.Certificate{w.root.Cert}, w.product.Cert, w.operational.Cert, w.infra.Cert, w.order.Cert)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := pki.New(pki.Config{
		Guard: guard, Store: w.db.PKI(), Trust: trust, Revocations: pki.NewRevocations(100 * 365 * 24 * time.Hour), Held: pki.NewHeld(w.operational, w.product),
		Lists: w.db.PKI(), CAs: w.db.PKI(), Targets: w.db.PKI(), NewKey: w.keys, Instance: "hallmark.test", Root: w.root.Cert,
		CRLBase: crlBase, OCSP: func(_ context.Context, product string) (bool, error) { return product == "pump" && !w.silent, nil }, Now: func() time.Time { return w.now },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range []*pki.Authority{w.root, w.product, w.operational, w.infra} {
		if err := w.db.PKI().AdoptCA(w.t.Context(), pki.CA{SKI: a.SKI(), Role: a.Role, DER: a.Cert.Raw}); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := errors.Join(s.LoadCAs(w.t.Context()), s.Refresh(w.t.Context())); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// issue gives a device a certificate by s.
func (w *authorityWorld) issue(s *pki.Service, id string) *x509.Certificate {
	w.t.Helper()
	who := idevid.Identity{Kind: idevid.IDevID, DeviceID: id, OEM: "acme", Product: "pump", HWRev: "A"}
	cert, err := w.order.Device(who, newKey(w.t).Public(), w.now, idevid.NoExpiry(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	d, err := s.Trust().VerifyDevice([]*x509.Certificate{cert}, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	who.Kind = idevid.LDevID
	tmpl, err := idevid.RequestTemplate(who)
	if err != nil {
		w.t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, newKey(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	req, err := pkcs10.Parse(der, who, true)
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := s.Issue(w.t.Context(), access.DeviceCaller(id), d, req)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func deviceID(i int) string {
	sum := sha256.Sum256([]byte{byte(i >> 8), byte(i)})
	return hex.EncodeToString(sum[:16])
}

// listOf gives the list that a certificate names, as it is published, verified against its CA.
func (w *authorityWorld) listOf(s *pki.Service, cert *x509.Certificate, ca *pki.Authority) (pki.List, *x509.RevocationList) {
	w.t.Helper()
	if len(cert.CRLDistributionPoints) != 1 {
		w.t.Fatalf("distribution points %v", cert.CRLDistributionPoints)
	}
	rest, ok := strings.CutPrefix(cert.CRLDistributionPoints[0], crlBase+"/crl/")
	issuer, file, _ := strings.Cut(rest, "/")
	id, known := pki.ParseListFile(issuer, file)
	if !ok || !known {
		w.t.Fatalf("distribution point %q", cert.CRLDistributionPoints[0])
	}
	l, err := s.List(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	parsed, err := x509.ParseRevocationList(l.DER)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := parsed.CheckSignatureFrom(ca.Cert); err != nil {
		w.t.Fatal(err)
	}
	return l, parsed
}

func listed(l *x509.RevocationList, serial *big.Int) bool {
	for _, e := range l.RevokedCertificateEntries {
		if e.SerialNumber.Cmp(serial) == 0 {
			return true
		}
	}
	return false
}

func TestARevokedDeviceIsInTheListThatItsCertificateNames(t *testing.T) {
	w := newAuthorityWorld(t)
	s := w.service
	var certs []*x509.Certificate
	for i := range 8 {
		certs = append(certs, w.issue(s, deviceID(i)))
	}
	if err := s.KeepLists(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := map[int]pki.List{}
	for i, c := range certs {
		l, parsed := w.listOf(s, c, w.operational)
		if before[i] = l; len(parsed.RevokedCertificateEntries) != 0 {
			t.Fatalf("list %s of a fresh CA has entries", l.File())
		}
	}
	w.now = w.now.Add(time.Minute)
	if err := s.RevokeDevice(t.Context(), access.Internal("test"), deviceID(3), "pump", pki.KeyCompromise); err != nil {
		t.Fatal(err)
	}
	other := w.node() // the lists are kept by another node than revoked
	if err := other.KeepLists(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, c := range certs {
		l, parsed := w.listOf(s, c, w.operational)
		changed := l.Shard == before[3].Shard
		if listed(parsed, c.SerialNumber) != (i == 3) || (l.Number > before[i].Number) != changed || !changed && l.Number != before[i].Number {
			t.Errorf("device %d: listed %v, number %d after %d", i, listed(parsed, c.SerialNumber), l.Number, before[i].Number)
		}
	}
	if err := s.KeepLists(t.Context()); err != nil { // there is nothing to do
		t.Fatal(err)
	}
	if l, _ := w.listOf(s, certs[3], w.operational); l.Number != func() int64 { l, _ := w.listOf(other, certs[3], w.operational); return l.Number }() {
		t.Error("two nodes publish different lists")
	}
	w.opensslAgrees(s, certs[3], certs[0])
}

// opensslAgrees has openssl check two certificates by their lists: it takes a list only where the address in it is the certificate's.
func (w *authorityWorld) opensslAgrees(s *pki.Service, revoked, good *x509.Certificate) {
	w.t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		w.t.Skip("openssl is not installed")
	}
	dir := w.t.TempDir()
	file := func(name, typ string, der ...[]byte) string {
		var all []byte
		for _, d := range der {
			all = append(all, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: d})...)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, all, 0o600); err != nil {
			w.t.Fatal(err)
		}
		return path
	}
	check := func(cert *x509.Certificate, list *x509.Certificate) string {
		l, _ := w.listOf(s, list, w.operational)
		out, err := exec.CommandContext(w.t.Context(), "openssl", "verify", "-crl_check", "-CAfile", file("root.pem", "CERTIFICATE", w.root.Cert.Raw),
			"-untrusted", file("ca.pem", "CERTIFICATE", w.operational.Cert.Raw), "-CRLfile", file("list.pem", "X509 CRL", l.DER),
			file("cert.pem", "CERTIFICATE", cert.Raw)).CombinedOutput()
		return fmt.Sprint(string(out), err)
	}
	if out := check(revoked, revoked); !strings.Contains(out, "certificate revoked") {
		w.t.Errorf("revoked, by its list: %s", out)
	}
	if out := check(good, good); !strings.Contains(out, ": OK") {
		w.t.Errorf("good, by its list: %s", out)
	}
	if out := check(good, revoked); strings.Contains(out, ": OK") {
		w.t.Errorf("good, by the list of another shard: %s", out)
	}
}

// An entry leaves the lists after the certificate has ended, and was on one list past its end (RFC 5280 §3.3); so they are bounded by what is alive.
func TestWhatHasEndedLeavesTheLists(t *testing.T) {
	w := newAuthorityWorld(t)
	s := w.service
	cert := w.issue(s, deviceID(1))
	if err := s.RevokeDevice(t.Context(), access.Internal("test"), deviceID(1), "pump", pki.KeyCompromise); err != nil {
		t.Fatal(err)
	}
	on := func() bool {
		t.Helper()
		if err := errors.Join(s.Refresh(t.Context()), s.KeepLists(t.Context())); err != nil {
			t.Fatal(err)
		}
		_, l := w.listOf(s, cert, w.operational)
		return listed(l, cert.SerialNumber)
	}
	if !on() {
		t.Fatal("it is not listed")
	}
	w.now = cert.NotAfter.Add(time.Second)
	if !on() {
		t.Error("it left with its end: no list past the end had it")
	}
	w.now = w.now.Add(13 * time.Hour)
	if on() {
		t.Error("it is listed for ever")
	}
	w.now = w.now.Add(72 * time.Hour)
	if on() || s.Revocations().Size() != 0 {
		t.Errorf("%d entries are still in memory", s.Revocations().Size())
	}
}

// A list that has run out is not given: it would call good what was revoked since.
func TestAnOldListIsNotGiven(t *testing.T) {
	w := newAuthorityWorld(t)
	if err := w.service.KeepLists(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := pki.ListID{Issuer: w.operational.SKI()}
	first, err := w.service.List(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	w.now = first.Next
	if _, err := w.service.List(t.Context(), id); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("%v", err)
	}
	if _, err := w.service.List(t.Context(), pki.ListID{Issuer: w.operational.SKI(), Shard: 9999}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("%v", err)
	}
	if err := w.node().KeepLists(t.Context()); err != nil { // the next start
		t.Fatal(err)
	}
	second, err := w.service.List(t.Context(), id)
	if err != nil || second.Number <= first.Number {
		t.Errorf("number %d after %d, %v", second.Number, first.Number, err)
	}
}

// A node that has not heard of the newest revocations signs no list without them.
func TestANodeThatKnowsLessSignsNoList(t *testing.T) {
	w := newAuthorityWorld(t)
	behind := w.node()
	cert := w.issue(w.service, deviceID(1))
	if err := w.service.RevokeDevice(t.Context(), access.Internal("test"), deviceID(1), "pump", pki.KeyCompromise); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.service.Refresh(t.Context()), w.service.KeepLists(t.Context())); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(13 * time.Hour) // due by its age
	if err := behind.KeepLists(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, l := w.listOf(w.service, cert, w.operational); !listed(l, cert.SerialNumber) {
		t.Error("a list without what was revoked took the place of one with it")
	}
}

func (w *authorityWorld) register(ids ...string) {
	w.t.Helper()
	if err := w.db.Write(w.t.Context(), func(tx *store.Tx) error {
		for _, id := range ids {
			if _, err := tx.Exec(`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, key_origin, is_virtual, since, doc)
				VALUES ($1, 'pump', 'A', 'active', 'genuine', 'o', 's', 1, 'soft', 1, 1, '{}')`, id); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
}

func TestMuchIsRevokedAtOnce(t *testing.T) {
	w := newAuthorityWorld(t)
	s := w.service
	var ids []string
	for i := range 130 {
		ids = append(ids, deviceID(i))
	}
	w.register(ids...)
	held := w.issue(s, ids[0])
	security := access.Caller{ID: "person:sue", Kind: access.Person, Roles: []access.Role{access.Security}, Fresh: true}
	if done, err := s.RevokeMany(t.Context(), security, pki.Bulk{Devices: append(ids[:100:100], "nobody"), Reason: pki.KeyCompromise}, true); err != nil || done.Devices != 100 || len(done.Unknown) != 1 {
		t.Fatalf("dry run: %+v, %v", done, err)
	}
	if _, err := s.RevokeMany(t.Context(), security, pki.Bulk{Devices: []string{ids[0], "nobody"}, Reason: pki.KeyCompromise}, false); fault.KindOf(err) != fault.NotFound {
		t.Errorf("with one that nobody knows: %v", err)
	}
	if err := s.Revocations().Check(held, ids[0], w.now); err != nil {
		t.Errorf("refused, and yet revoked: %v", err)
	}
	var second *access.SecondNeededError
	if _, err := s.RevokeMany(t.Context(), security, pki.Bulk{Devices: ids, Reason: pki.KeyCompromise}, false); !errors.As(err, &second) {
		t.Errorf("130 devices by one person: %v", err)
	}
	viewer := access.Caller{ID: "person:vic", Kind: access.Person, Roles: []access.Role{access.Viewer}, Fresh: true}
	if _, err := s.RevokeMany(t.Context(), viewer, pki.Bulk{Devices: ids[:1], Reason: 1}, true); fault.KindOf(err) != fault.Denied {
		t.Errorf("by who may not: %v", err)
	}
	security.Seconded = "person:tom"
	done, err := s.RevokeMany(t.Context(), security, pki.Bulk{Devices: ids, Certificates: []string{pki.CertKey(held)}, Reason: pki.KeyCompromise}, false)
	if err != nil || done.Devices != 130 || done.Certificates != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	if err := s.Revocations().Check(held, ids[0], w.now); fault.KindOf(err) != fault.Denied {
		t.Errorf("revoked, and let in: %v", err)
	}
	if done, err = s.RevokeMany(t.Context(), security, pki.Bulk{Devices: ids, Reason: pki.KeyCompromise}, false); err != nil || done.Already != 130 || done.Devices != 0 {
		t.Errorf("again: %+v, %v", done, err)
	}
	facts := 0
	if err := w.db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM entry WHERE kind = $1`, string(ledger.KindCertRevoked)).Scan(&facts); err != nil || facts != 131 {
		t.Errorf("%d facts, want one for each: %v", facts, err)
	}
}

// grant has the ceremony answer a request.
func (w *authorityWorld) grant(envelope []byte, change func(*wire.CARequest)) []byte {
	w.t.Helper()
	r, payload, err := wire.OpenCARequest(envelope)
	if err != nil {
		w.t.Fatal(err)
	}
	if change != nil {
		change(&r)
	}
	pub, err := x509.ParsePKIXPublicKey(r.SPKI)
	if err != nil {
		w.t.Fatal(err)
	}
	cert, err := w.root.Sub(profile.Role(r.Role), pki.Name{OEM: r.OEM, Product: r.Product, Unit: r.Unit}, pub, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	sum := sha256.Sum256(payload)
	out, err := wire.EncodeCAGrant(wire.CAGrant{Request: sum[:], Chain: [][]byte{cert.Raw, w.root.Cert.Raw}})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

var admin = access.Caller{ID: "person:admin", Kind: access.Person, Roles: []access.Role{access.Admin}, Fresh: true}

func TestANewAuthorityTakesOverAndTheOldOneEnds(t *testing.T) {
	w := newAuthorityWorld(t)
	s, other := w.service, w.node()
	old := w.issue(s, deviceID(1))
	w.now = w.now.Add(time.Hour)
	req, err := s.RequestCA(t.Context(), admin, wire.CARequest{Role: wire.CAOperational, Unit: "2027", Purpose: "the old one is worn"})
	if err != nil {
		t.Fatal(err)
	}
	ca, err := s.InstallCA(t.Context(), admin, w.grant(req, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := other.LoadCAs(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, node := range map[string]*pki.Service{"here": s, "at the other node": other} {
		fresh := w.issue(node, deviceID(2))
		if got := hex.EncodeToString(fresh.AuthorityKeyId); got != ca.SKI {
			t.Errorf("%s: issued by %s, want the new CA %s", name, got, ca.SKI)
		}
		if err := errors.Join(node.Refresh(t.Context()), node.KeepLists(t.Context())); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*x509.Certificate{old, fresh} {
			if _, err := node.Trust().VerifyDevice([]*x509.Certificate{c}, w.now); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	w.listOf(s, old, w.operational) // it keeps its lists
	if err := s.EndCAs(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Trust().VerifyDevice([]*x509.Certificate{old}, w.now); err != nil {
		t.Errorf("its CA was ended while it is valid: %v", err)
	}
	w.now = old.NotAfter.Add(48 * time.Hour)
	if err := s.EndCAs(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := other.LoadCAs(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Whoever stole the old key makes a certificate with it that has not ended.
	forged, err := w.operational.Device(idevid.Identity{Kind: idevid.LDevID, DeviceID: deviceID(1), OEM: "acme", Product: "pump", HWRev: "A"}, newKey(t).Public(), w.now, w.now.Add(time.Hour), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, node := range map[string]*pki.Service{"here": s, "at the other node": other, "after a start": w.node()} {
		if _, err := node.Trust().VerifyDevice([]*x509.Certificate{forged, w.operational.Cert}, w.now); err == nil {
			t.Errorf("%s: a CA that was taken out of service is believed", name)
		}
	}
	var ended int
	if err := w.db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM entry WHERE kind = $1`, string(ledger.KindCAEnded)).Scan(&ended); err != nil || ended != 1 {
		t.Errorf("%d facts of its end: %v", ended, err)
	}
}

func TestGrantsThatAreNotInstalled(t *testing.T) {
	w := newAuthorityWorld(t)
	s := w.service
	req, err := s.RequestCA(t.Context(), admin, wire.CARequest{Role: wire.CAProduct, Product: "valve", Purpose: "a second product"})
	if err != nil {
		t.Fatal(err)
	}
	good := w.grant(req, nil)
	stranger := newAuthorityWorld(t)
	foreign, err := wire.SignCARequest(wire.CARequest{Role: wire.CAOperational, OEM: "acme", Instance: "x", Purpose: "p", Issued: 1}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, grant := range map[string][]byte{
		"of another role":         w.grant(req, func(r *wire.CARequest) { r.Role, r.Product = wire.CAOperational, "" }),
		"of another product":      w.grant(req, func(r *wire.CARequest) { r.Product = "pump" }),
		"by another root":         stranger.grant(req, nil),
		"for a key of others":     w.grant(foreign, nil),
		"that is no grant":        []byte("x"),
		"that answers another":    w.changed(good, func(g *wire.CAGrant) { g.Request = make([]byte, 32) }),
		"with a chain in between": w.changed(good, func(g *wire.CAGrant) { g.Chain = [][]byte{g.Chain[0], w.product.Cert.Raw, g.Chain[1]} }),
		"of a CA we have":         w.changed(good, func(g *wire.CAGrant) { g.Chain[0] = w.operational.Cert.Raw }),
	} {
		if _, err := s.InstallCA(t.Context(), admin, grant); err == nil {
			t.Errorf("a grant %s was installed", name)
		}
	}
	operator := access.Caller{ID: "person:op", Kind: access.Person, Roles: []access.Role{access.Operator}, Fresh: true}
	if _, err := s.InstallCA(t.Context(), operator, good); fault.KindOf(err) != fault.Denied {
		t.Errorf("by who may not: %v", err)
	}
	if _, err := s.InstallCA(t.Context(), admin, good); err != nil {
		t.Fatal(err)
	}
	if _, err := s.IssueOrderCA(t.Context(), access.Internal("factory"), pki.Name{OEM: "acme", Product: "valve", Unit: "ord-9"}, newKey(t).Public()); err != nil {
		t.Errorf("the second product's CA signs no order: %v", err)
	}
	if _, err := s.IssueOrderCA(t.Context(), access.Internal("factory"), pki.Name{OEM: "acme", Product: "lamp", Unit: "ord-9"}, newKey(t).Public()); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a product without a CA: %v", err)
	}
	if _, err := s.InstallCA(t.Context(), admin, good); err == nil {
		t.Error("it was installed twice")
	}
}

func (w *authorityWorld) changed(grant []byte, change func(*wire.CAGrant)) []byte {
	w.t.Helper()
	g, err := wire.DecodeCAGrant(grant)
	if err != nil {
		w.t.Fatal(err)
	}
	change(&g)
	out, err := wire.EncodeCAGrant(g)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// A certificate does not outlive its CA: it is shortened near the CA's end, and refused at it.
func TestNothingOutlivesItsAuthority(t *testing.T) {
	w := newAuthorityWorld(t)
	w.now = w.operational.Cert.NotAfter.Add(-36 * time.Hour)
	if c := w.issue(w.service, deviceID(1)); !c.NotAfter.Equal(w.operational.Cert.NotAfter) {
		t.Errorf("valid until %s, its CA until %s", c.NotAfter, w.operational.Cert.NotAfter)
	}
}
