package est_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	agentest "github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/door"
	"github.com/hallmark-iot/hallmark/internal/est"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/pkcs10"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type registry struct {
	mu    sync.Mutex
	by    map[string]onboard.Standing
	rules onboard.Rules // of the product thermo
}

func (r *registry) Known(_ context.Context, id string) (onboard.Standing, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.by[id]
	if st.Product == "thermo" {
		st.Rules = r.rules
	}
	return st, nil
}

func (r *registry) Rules(_ context.Context, product string) (onboard.Rules, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if product != "thermo" {
		return onboard.Rules{}, nil
	}
	return r.rules, nil
}

func (r *registry) rule(suiteID suite.ID, e product.Enrolment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules = onboard.Rules{Suite: suiteID, Enrolment: e}
}

func (r *registry) set(id string, st onboard.Standing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.by[id] = st
}

type noAudit struct{}

func (noAudit) Record(context.Context, access.Decision) error { return nil }

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// world is a whole enrolment server on loopback TLS, with a real store.
type world struct {
	t        testing.TB
	clock    *clock
	db       *store.DB
	root     *pki.Authority
	product  *pki.Authority
	order    *pki.Authority
	op       *pki.Authority
	pki      *pki.Service
	onboard  *onboard.Service
	registry *registry
	server   *httptest.Server
	roots    *x509.CertPool
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{at: time.Now()}, db: storetest.Open(t), registry: &registry{by: map[string]onboard.Standing{}}}
	w.registry.rule(suite.P256, product.Enrolment{Mode: product.Automatic})
	now := w.clock.now()
	var err error
	w.root, err = pki.NewRoot("acme", newKey(t), now)
	must(t, err)
	w.product = w.ca(w.root, profile.Product, pki.Name{OEM: "acme", Product: "thermo"})
	w.order = w.ca(w.product, profile.Order, pki.Name{OEM: "acme", Product: "thermo", Unit: "o-1"})
	w.op = w.ca(w.root, profile.Operational, pki.Name{OEM: "acme"})
	infra := w.ca(w.root, profile.Infra, pki.Name{OEM: "acme"})
	trust, err := pki.NewTrust([]*x509.Certificate{w.root.Cert}, w.order.Cert, w.product.Cert, w.op.Cert, infra.Cert)
	must(t, err)
	guard, err := access.NewGuard(noAudit{})
	must(t, err)
	w.pki, err = pki.New(pki.Config{
		Guard: guard, Store: w.db.PKI(), Trust: trust, Revocations: pki.NewRevocations(time.Minute), Operational: w.op,
		Root: w.root.Cert, Now: w.clock.now, CRLBase: "http://crl.test", Shards: 4,
		Product: func(string) (*pki.Authority, error) { return w.product, nil },
	})
	must(t, err)
	must(t, w.pki.Refresh(t.Context()))
	w.onboard, err = onboard.New(onboard.Config{Guard: guard, PKI: w.pki, Registry: w.registry, Store: w.db.Onboard(), Now: w.clock.now})
	must(t, err)

	w.server = httptest.NewUnstartedServer(est.New(est.Config{Onboard: w.onboard, CACerts: w.pki.CACerts}))
	key := newKey(t)
	cert, err := infra.ServerTLS([]string{"127.0.0.1"}, key.Public(), now)
	must(t, err)
	w.server.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw, infra.Cert.Raw}, PrivateKey: key}},
		ClientAuth:   tls.RequestClientCert, MinVersion: tls.VersionTLS12, CipherSuites: door.Suites(),
		VerifyConnection: pki.VerifyConnection(trust, w.pki.Revocations(), w.clock.now),
	}
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	w.roots = x509.NewCertPool()
	w.roots.AddCert(w.root.Cert)
	return w
}

// While nobody can tell what is revoked, a device is told to ask again, and not that its certificate is no good.
func TestATooOldListOfRevocationsRefusesNobodyForGood(t *testing.T) {
	w := newWorld(t)
	id, idev := w.made(true)
	csr := request(t, idev, newKey(t), nil)
	w.clock.add(2 * time.Minute)
	if a := w.as(idev).post("simpleenroll", csr); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || !strings.HasPrefix(a.text(), "cert.revocation-unknown: ") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if n := w.facts("cert.issued", id); n != 0 {
		t.Errorf("%d certificates were issued", n)
	}
	must(t, w.pki.Refresh(t.Context()))
	if a := w.as(idev).post("simpleenroll", csr); a.status != http.StatusOK {
		t.Errorf("once the list is fresh: %d %s", a.status, a.body)
	}
}

func (w *world) ca(above *pki.Authority, role profile.Role, name pki.Name) *pki.Authority {
	w.t.Helper()
	key := newKey(w.t)
	cert, err := above.Sub(role, name, key.Public(), w.clock.now())
	must(w.t, err)
	a, err := pki.NewAuthority(role, cert, key)
	must(w.t, err)
	return a
}

func deviceID(t testing.TB) string {
	t.Helper()
	b := make([]byte, 16)
	_, err := rand.Read(b)
	must(t, err)
	return hex.EncodeToString(b)
}

// identity is what a production record tells of a device's key.
func identity(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	sum := sha256.Sum256(der)
	return sum[:]
}

// made is a device fresh from the factory, registered unless the test says otherwise.
func (w *world) made(registered bool) (string, tls.Certificate) {
	w.t.Helper()
	id := idevid.Identity{Kind: idevid.IDevID, DeviceID: deviceID(w.t), OEM: "acme", Product: "thermo", HWRev: "B"}
	key := newKey(w.t)
	if registered {
		w.registry.set(id.DeviceID, onboard.Standing{
			Known: true, Product: "thermo", Hardware: "B", State: device.Provisioned, Legitimacy: device.Genuine, Identity: identity(w.t, key),
		})
	}
	cert, err := w.order.Device(id, key.Public(), w.clock.now(), idevid.NoExpiry(), nil)
	must(w.t, err)
	return id.DeviceID, tls.Certificate{Certificate: [][]byte{cert.Raw, w.order.Cert.Raw, w.product.Cert.Raw}, PrivateKey: key}
}

func (w *world) client() *agentest.Client {
	w.t.Helper()
	c, err := agentest.New(agentest.Config{Server: w.server.URL, Roots: w.roots, Now: w.clock.now})
	must(w.t, err)
	return c
}

func (w *world) facts(kind, subject string) int {
	w.t.Helper()
	var n int
	must(w.t, w.db.Read().QueryRowContext(w.t.Context(), `SELECT count(*) FROM entry WHERE kind = $1 AND subject = $2`, kind, subject).Scan(&n))
	return n
}

func TestEnrolThenRenew(t *testing.T) {
	w := newWorld(t)
	id, idev := w.made(true)
	key := newKey(t)
	chain, err := w.client().Enrol(t.Context(), agentest.Request{As: idev, Key: key})
	must(t, err)
	if w.facts("cert.issued", id) != 1 || w.facts("device.enrolled", id) != 1 {
		t.Fatalf("facts: %d issued, %d enrolled", w.facts("cert.issued", id), w.facts("device.enrolled", id))
	}
	ldev := tls.Certificate{Certificate: chain, PrivateKey: key}
	next := newKey(t)
	chain2, err := w.client().Enrol(t.Context(), agentest.Request{As: ldev, Key: next, Renew: true})
	must(t, err)
	if w.facts("cert.issued", id) != 2 || w.facts("device.enrolled", id) != 1 {
		t.Fatal("a renewal is one certificate more and no onboarding")
	}

	// The old one works through the grace, so that a lost answer strands nobody; then it does not.
	must(t, w.pki.Refresh(t.Context()))
	_, err = w.client().Enrol(t.Context(), agentest.Request{As: ldev, Key: newKey(t), Renew: true})
	must(t, err)
	w.clock.add(25 * time.Hour)
	must(t, w.pki.Refresh(t.Context()))
	for name, c := range map[string]tls.Certificate{"first": ldev, "second": {Certificate: chain2, PrivateKey: next}} {
		if _, err = w.client().Enrol(t.Context(), agentest.Request{As: c, Key: newKey(t), Renew: true}); err == nil {
			t.Errorf("the %s LDevID still renews after its grace", name)
		}
	}
}

func TestAskingTwiceGivesOneCertificate(t *testing.T) {
	w := newWorld(t)
	id, idev := w.made(true)
	key := newKey(t)
	leaf, err := x509.ParseCertificate(idev.Certificate[0])
	must(t, err)
	csr, err := agentest.NewCSR(leaf, key)
	must(t, err)
	const askers = 8
	got := make([][]byte, askers)
	var wg sync.WaitGroup
	for i := range askers {
		wg.Go(func() {
			chain, err := w.client().EnrolCSR(t.Context(), agentest.Request{As: idev, Key: key}, csr)
			if err != nil {
				t.Error(err)
				return
			}
			got[i] = chain[0]
		})
	}
	wg.Wait()
	for i := range got {
		if !bytes.Equal(got[i], got[0]) {
			t.Fatalf("answer %d differs", i)
		}
	}
	if n := w.facts("cert.issued", id); n != 1 {
		t.Fatalf("%d facts for one certificate", n)
	}
}

func TestWhoIsNotLetIn(t *testing.T) {
	w := newWorld(t)
	status := func(as tls.Certificate, renew bool) (int, string) {
		t.Helper()
		_, err := w.client().Enrol(t.Context(), agentest.Request{As: as, Key: newKey(t), Renew: renew})
		var s *agentest.Status
		if !errors.As(err, &s) {
			t.Fatalf("error %v, want a status", err)
		}
		return s.Code, s.Text
	}

	unknown, idev := w.made(false)
	for range 3 {
		if code, text := status(idev, false); code != http.StatusForbidden || !strings.HasPrefix(text, "enrol.unknown") {
			t.Fatalf("unknown serial: %d %s", code, text)
		}
	}
	if n := w.facts("enrol.refused", unknown); n != 1 {
		t.Errorf("%d facts for one refused device", n)
	}
	list, err := w.onboard.Refusals(t.Context(), access.Internal("test"), 10)
	if err != nil || len(list) != 1 || list[0].Count != 3 || list[0].Device != unknown {
		t.Errorf("refusals %+v, %v", list, err)
	}

	id, idev := w.made(true)
	if code, text := status(idev, true); code != http.StatusForbidden || !strings.HasPrefix(text, "enrol.kind") {
		t.Errorf("renewal with an IDevID: %d %s", code, text)
	}
	st := onboard.Standing{Known: true, Product: "thermo", Hardware: "B", State: device.Provisioned, Legitimacy: device.Genuine, Identity: identity(t, idev.PrivateKey.(crypto.Signer))}
	for code, change := range map[string]func(*onboard.Standing){
		"enrol.state":      func(s *onboard.Standing) { s.State = device.Disposed },
		"enrol.legitimacy": func(s *onboard.Standing) { s.Legitimacy = device.Stolen },
		"enrol.other":      func(s *onboard.Standing) { s.Hardware = "C" },
		"enrol.key":        func(s *onboard.Standing) { s.Identity = []byte("another") },
		"enrol.key ":       func(s *onboard.Standing) { s.Identity = nil }, // no record of a key vouches for nobody
	} {
		bad := st
		change(&bad)
		w.registry.set(id, bad)
		if got, text := status(idev, false); got != http.StatusForbidden || !strings.HasPrefix(text, strings.TrimSpace(code)) {
			t.Errorf("%s: %d %s", code, got, text)
		}
	}
	unjudged := st
	unjudged.Legitimacy = ""
	w.registry.set(id, unjudged)
	if got, _ := status(idev, false); got != http.StatusForbidden {
		t.Error("a device of no known legitimacy was let in")
	}
}

// tryTLS makes a handshake and one call, and says what went wrong.
func (w *world) tryTLS(conf *tls.Config) (resumed bool, err error) {
	conf.RootCAs, conf.Time = w.roots, w.clock.now
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: conf}}
	defer h.CloseIdleConnections()
	resp, err := h.Get(w.server.URL + est.Prefix + "cacerts")
	if err != nil {
		return false, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.TLS.DidResume, errors.Join(err, resp.Body.Close())
}

func TestRevokedIsOutOnResumedConnectionsToo(t *testing.T) {
	w := newWorld(t)
	id, idev := w.made(true)
	for name, version := range map[string]uint16{"TLS 1.3": tls.VersionTLS13, "TLS 1.2": tls.VersionTLS12} {
		conf := &tls.Config{Certificates: []tls.Certificate{idev}, MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
		if _, err := w.tryTLS(conf.Clone()); err != nil {
			t.Fatal(err)
		}
		if resumed, err := w.tryTLS(conf.Clone()); err != nil || !resumed {
			t.Fatalf("%s: resumed %v, %v: this test needs resumption", name, resumed, err)
		}
		t.Cleanup(func() {
			if _, err := w.tryTLS(conf.Clone()); err == nil {
				t.Errorf("%s: a revoked device was let in", name)
			}
		})
	}
	must(t, w.pki.RevokeDevice(t.Context(), access.Internal("test"), id, "thermo", pki.KeyCompromise))
	if w.facts("cert.revoked", id) != 1 {
		t.Error("no fact")
	}
}

// The forms that clients in the field send, and what they need to get back.
func TestTolerantInStrictOut(t *testing.T) {
	w := newWorld(t)
	_, idev := w.made(true)
	leaf, err := x509.ParseCertificate(idev.Certificate[0])
	must(t, err)
	csr, err := agentest.NewCSR(leaf, newKey(t))
	must(t, err)
	b64 := base64.StdEncoding.EncodeToString(csr)
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{idev}}}}
	defer h.CloseIdleConnections()
	for name, body := range map[string]string{
		"one line":   b64,
		"76 CRLF":    b64[:76] + "\r\n" + b64[76:] + "\r\n",
		"blanks":     " \t" + b64[:5] + " \t\n" + b64[5:] + "\n\n",
		"PEM":        string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
		"DER":        string(csr),
		"PEM, blank": "\n" + string(pem.EncodeToMemory(&pem.Block{Type: "NEW CERTIFICATE REQUEST", Bytes: csr})) + "\n",
	} {
		resp, err := h.Post(w.server.URL+est.Prefix+"simpleenroll", "application/pkcs10", strings.NewReader(body))
		must(t, err)
		out, err := io.ReadAll(resp.Body)
		must(t, errors.Join(err, resp.Body.Close()))
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", name, resp.StatusCode, out)
			continue
		}
		if ct := resp.Header.Get("Content-Type"); ct != "application/pkcs7-mime; smime-type=certs-only" {
			t.Errorf("content type %q", ct)
		}
		if resp.ContentLength != int64(len(out)) || len(resp.TransferEncoding) != 0 {
			t.Errorf("length %d, encoding %v", resp.ContentLength, resp.TransferEncoding)
		}
		lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		for i, l := range lines {
			if len(l) > 64 || (i < len(lines)-1 && len(l) != 64) {
				t.Errorf("line %d has %d columns", i, len(l))
			}
		}
		certs, err := agentest.DecodeCerts(out)
		if err != nil || len(certs) != 1 {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
	}
	for name, body := range map[string]string{"empty": "", "no base64": "!!!", "large": strings.Repeat("A", 40<<10), "not a CSR": "AAAA"} {
		resp, err := h.Post(w.server.URL+est.Prefix+"simpleenroll", "application/pkcs10", strings.NewReader(body))
		must(t, err)
		must(t, resp.Body.Close())
		if resp.StatusCode < 400 || resp.StatusCode > 499 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d %s", name, resp.StatusCode, resp.Header.Get("Content-Type"))
		}
	}
}

func FuzzDecodeCSR(f *testing.F) {
	f.Add([]byte("MIIB"))
	f.Add([]byte{0x30, 0x03, 1, 2, 3})
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		der, err := est.DecodeCSR(b)
		if err == nil && (len(der) == 0 || len(der) > pkcs10.MaxCSR) {
			t.Fatalf("%d bytes let through", len(der))
		}
		if err == nil {
			_, _ = pkcs10.Parse(der, idevid.Identity{DeviceID: strings.Repeat("0", 32), OEM: "a", Product: "b", HWRev: "c"}, false)
		}
	})
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := idevid.RandomSerial()
	must(t, err)
	return n
}
