package server

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
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	agentest "github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// theft is a running instance, one device of it, and the order CA that its station, or who stole from it, holds.
type theft struct {
	inst   *Instance
	url    string
	roots  *x509.CertPool
	order  *pki.Authority
	chain  [][]byte
	device string
	key    crypto.Signer // of the device's IDevID
}

const victim = "00112233445566778899aabbccddeeff"

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newTheft(t testing.TB) *theft { return newTheftAfter(t, func(Layout, *soft.Store) {}) }

// newTheftAfter has something done between the making of the instance and its first start.
func newTheftAfter(t testing.TB, do func(l Layout, online *soft.Store)) *theft {
	t.Helper()
	l := Layout{Dir: filepath.Join(t.TempDir(), "inst")}
	online, err := soft.Create(l.Keys(), "pass", 1000)
	if err != nil {
		t.Fatal(err)
	}
	offline, err := soft.Create(l.Offline(), "pass", 1000)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.API, cfg.Devices, cfg.Virtual = "127.0.0.1:0", "127.0.0.1:0", true
	if _, err := Init(t.Context(), l, InitOptions{
		Config: cfg, Approvers: []string{"a", "b", "c"}, Threshold: 2, Online: online, Offline: offline, Now: time.Now().UTC(),
		Product: product.Product{
			ID: "pump", OEM: cfg.OEM, Name: "Pump", Hardware: []string{"A"}, Model: "blob", Suite: "HM-P256-1", EndOfSupport: time.Now().AddDate(5, 0, 0),
		},
	}); err != nil {
		t.Fatal(err)
	}
	do(l, online)
	x := &theft{device: victim, key: newKey(t), roots: x509.NewCertPool()}
	if x.inst, err = Open(t.Context(), l, online, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	x.roots.AddCert(x.inst.auth.root)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- x.inst.Run(ctx, func(_, d string) { ready <- d }) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, x.inst.Close()); err != nil {
			t.Error(err)
		}
	})
	x.url = <-ready
	ca := newKey(t)
	if x.chain, err = x.inst.pki.IssueOrderCA(ctx, access.Internal("factory"), pki.Name{OEM: cfg.OEM, Product: "pump", Unit: "ord-B"}, ca.Public()); err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(x.chain[0])
	if err != nil {
		t.Fatal(err)
	}
	if x.order, err = pki.NewAuthority(profile.Order, cert, ca); err != nil {
		t.Fatal(err)
	}
	x.register(t)
	return x
}

// register puts the device on record, as its production record would.
func (x *theft) register(t testing.TB) {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(x.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(spki)
	if err := x.inst.db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, identity, attest_key,
			instance_id, key_origin, is_virtual, since, release, bundle, doc)
			VALUES ($1, 'pump', 'A', 'active', 'genuine', 'ord-A', 'station-A', 1, $2, $3, $3, 'soft', 1, 1, x'', 1, '{}')`, x.device, sum[:], spki)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// idevid has the order CA vouch for the device with a key.
func (x *theft) idevid(t *testing.T, key crypto.Signer) tls.Certificate {
	t.Helper()
	id := idevid.Identity{Kind: idevid.IDevID, DeviceID: x.device, OEM: x.inst.cfg.OEM, Product: "pump", HWRev: "A"}
	cert, err := x.order.Device(id, key.Public(), time.Now(), idevid.NoExpiry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: append([][]byte{cert.Raw}, x.chain...), PrivateKey: key}
}

func (x *theft) enrol(t testing.TB, as tls.Certificate) (tls.Certificate, error) {
	t.Helper()
	c, err := agentest.New(agentest.Config{Server: x.url, Roots: x.roots})
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	chain, err := c.Enrol(t.Context(), agentest.Request{As: as, Key: key})
	return tls.Certificate{Certificate: chain, PrivateKey: key}, err
}

// line is a client that keeps its connection alive.
func (x *theft) line(as tls.Certificate) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: x.roots, Certificates: []tls.Certificate{as}, MinVersion: tls.VersionTLS13}}}
}

func (x *theft) post(t *testing.T, c *http.Client, path string, body []byte) (int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, x.url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body) // else the connection is not used again
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}

func checkin(t *testing.T) []byte {
	t.Helper()
	in, err := wire.EncodeCheckin(wire.Checkin{Nonce: bytes.Repeat([]byte{7}, 32), State: "active", BootCount: 1, Version: "1.0.0", Healthy: true})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// A key of an order CA, in the hands of a thief or a dishonest station, vouches for devices with keys of the thief's own. None of
// them is let in as a device that is on record with another key.
func TestAStolenOrderKeyTakesOverNoDevice(t *testing.T) {
	x := newTheft(t)
	_, err := x.enrol(t, x.idevid(t, newKey(t)))
	if err == nil || !strings.Contains(err.Error(), "enrol.key") {
		t.Fatalf("forged with another key: %v, want enrol.key", err)
	}
	if _, err := x.enrol(t, x.idevid(t, x.key)); err != nil {
		t.Fatalf("the device itself: %v", err)
	}
}

// Who is revoked is out at once, on the connection that is open already too.
func TestRevocationReachesOpenConnections(t *testing.T) {
	x := newTheft(t)
	ldev, err := x.enrol(t, x.idevid(t, x.key))
	if err != nil {
		t.Fatal(err)
	}
	c := x.line(ldev)
	defer c.CloseIdleConnections()
	for range 4 { // until it is answered from memory
		if code, err := x.post(t, c, "/d/v1/checkin", checkin(t)); err != nil || code != http.StatusOK {
			t.Fatalf("before: %d, %v", code, err)
		}
	}
	if err := x.inst.pki.RevokeDevice(t.Context(), access.Internal("test"), x.device, "pump", pki.KeyCompromise); err != nil {
		t.Fatal(err)
	}
	if code, err := x.post(t, c, "/d/v1/checkin", checkin(t)); err == nil && code != http.StatusForbidden { // it was cut, or is refused on the way there
		t.Fatalf("on the open connection: %d", code)
	}
	c.CloseIdleConnections()
	if code, err := x.post(t, c, "/d/v1/checkin", checkin(t)); err == nil {
		t.Fatalf("on a new connection: %d", code)
	}
}

// A device whose life ended in good order may not have heard that its receipt arrived: it is let in to bring it again, and told by
// 410 that its life is over otherwise.
func TestADeviceThatEndedIsToldSo(t *testing.T) {
	x := newTheft(t)
	ldev, err := x.enrol(t, x.idevid(t, x.key))
	if err != nil {
		t.Fatal(err)
	}
	if err := x.inst.pki.RevokeDevice(t.Context(), access.Internal("test"), x.device, "pump", pki.Cessation); err != nil {
		t.Fatal(err)
	}
	c := x.line(ldev)
	defer c.CloseIdleConnections()
	for path, want := range map[string]int{
		"/d/v1/checkin": http.StatusGone, "/d/v1/telemetry": http.StatusGone, "/d/v1/log": http.StatusGone, "/d/v1/attest": http.StatusGone,
		"/d/v1/receipt": http.StatusNotFound, // let in, but there is no retirement of it
	} {
		if code, err := x.post(t, c, path, checkin(t)); err != nil || code != want {
			t.Errorf("%s: %d, %v, want %d", path, code, err, want)
		}
	}
	if _, err := x.enrol(t, x.idevid(t, x.key)); err == nil {
		t.Error("it enrols after its end")
	}
}

// The server's certificate is renewed while it runs, long before it runs out.
func TestTheServersCertificateIsRenewed(t *testing.T) {
	x := newTheft(t)
	now := time.Now()
	c := &ownCertificate{inst: x.inst, now: func() time.Time { return now }}
	first, err := c.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	life := first.Leaf.NotAfter.Sub(now)
	now = now.Add(life / 2)
	if again, err := c.get(nil); err != nil || again != first {
		t.Errorf("halfway there is another one: %v", err)
	}
	now = now.Add(life / 4)
	next, err := c.get(nil)
	if err != nil || next == first || !next.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Errorf("with a quarter of its life left it is not renewed: %v", err)
	}
}

// Whose certificate was revoked is told so; while nobody can tell, nobody's life is over.
func TestThatNobodyCanTellIsNoEnd(t *testing.T) {
	x := newTheft(t)
	var chain []*x509.Certificate
	for _, der := range x.idevid(t, x.key).Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, c)
	}
	never := pki.NewRevocations(time.Minute) // which has not heard of the store yet
	if p, err := identify(x.inst.auth.trust, never, chain, time.Now()); fault.KindOf(err) != fault.Unavailable || p.Ended {
		t.Errorf("nobody can tell: %+v %v", p, err)
	}
	if p, err := x.inst.identify(chain); err != nil || p.Ended || p.Device != victim {
		t.Errorf("a good one: %+v %v", p, err)
	}
	if err := x.inst.pki.RevokeDevice(t.Context(), access.Internal("test"), victim, "pump", pki.Cessation); err != nil {
		t.Fatal(err)
	}
	if p, err := x.inst.identify(chain); err != nil || !p.Ended {
		t.Errorf("one whose life has ended: %+v %v", p, err)
	}
}
