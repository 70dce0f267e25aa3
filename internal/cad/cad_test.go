package cad

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// wall is a hierarchy whose CA keys are behind a socket.
type wall struct {
	t      testing.TB
	dir    string
	socket string
	keys   *soft.Store
	root   *pki.Authority
	client *Client
	cfg    Config
	stop   func()

	operational, product, infra *pki.Authority // whose keys are in the process
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newWall(t testing.TB, change func(*Config)) *wall {
	t.Helper()
	w := &wall{t: t, dir: t.TempDir()}
	sockets, err := os.MkdirTemp("", "cad") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	w.socket = filepath.Join(sockets, "s")
	if w.keys, err = soft.Create(filepath.Join(w.dir, "keys"), "pass", 1000); err != nil {
		t.Fatal(err)
	}
	if w.root, err = pki.NewRoot("acme", newKey(t), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, RootFile), w.root.Cert.Raw, 0o600); err != nil {
		t.Fatal(err)
	}
	w.cfg = Config{Dir: w.dir, Keys: w.keys, Hosts: []string{"hallmark.acme.example"}, Life: 14 * 24 * time.Hour, UID: os.Getuid(), Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&w.cfg)
	}
	w.start()
	w.client = Dial(w.socket)
	t.Cleanup(func() { _ = w.client.Close() })
	for _, ca := range []struct {
		key  string
		role profile.Role
		name pki.Name
		to   **pki.Authority
	}{
		{"operational-ca", profile.Operational, pki.Name{OEM: "acme"}, &w.operational},
		{"infra-ca", profile.Infra, pki.Name{OEM: "acme"}, &w.infra},
		{"product-ca", profile.Product, pki.Name{OEM: "acme", Product: "pump"}, &w.product},
	} {
		if _, err := w.keys.GenerateP256(ca.key); err != nil {
			t.Fatal(err)
		}
		*ca.to = w.bind(ca.key, ca.role, ca.name)
	}
	return w
}

// bind has the root sign for a key of the process, and tells it.
func (w *wall) bind(key string, role profile.Role, name pki.Name) *pki.Authority {
	w.t.Helper()
	signer, err := w.client.Signer(key)
	if err != nil {
		w.t.Fatal(err)
	}
	cert, err := w.root.Sub(role, name, signer.Public(), time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.client.Bind(key, cert); err != nil {
		w.t.Fatal(err)
	}
	a, err := pki.NewAuthority(role, cert, signer)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// start runs the process; stop kills it as far as a test can.
func (w *wall) start() {
	w.t.Helper()
	s, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = os.Remove(w.socket)
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(w.stop)
}

func ldevid() idevid.Identity {
	return idevid.Identity{Kind: idevid.LDevID, DeviceID: strings.Repeat("ab", 16), OEM: "acme", Product: "pump", HWRev: "A"}
}

func TestItSignsWhatTheCASigns(t *testing.T) {
	w := newWall(t, func(c *Config) { c.Orders = true })
	now := time.Now()
	cert, err := w.operational.Device(ldevid(), newKey(t).Public(), now, now.Add(time.Hour), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.CheckSignatureFrom(w.operational.Cert); err != nil {
		t.Error(err)
	}
	if _, err := w.infra.ServerTLS([]string{"hallmark.acme.example"}, newKey(t).Public(), now); err != nil {
		t.Error(err)
	}
	if _, err := w.product.Sub(profile.Order, pki.Name{OEM: "acme", Product: "pump", Unit: "ord-1"}, newKey(t).Public(), now); err != nil {
		t.Error(err)
	}
	signer, err := w.client.Signer("operational-ca")
	if err != nil {
		t.Fatal(err)
	}
	list := &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: now, NextUpdate: now.Add(24 * time.Hour), RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: cert.SerialNumber, RevocationTime: now}}}
	if _, err := x509.CreateRevocationList(rand.Reader, list, w.operational.Cert, signer); err != nil {
		t.Error(err)
	}
	record, err := os.ReadFile(filepath.Join(w.dir, "signed.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"role":"ldevid"`, `"role":"server"`, `"role":"order"`, `"kind":"list"`, cert.SerialNumber.Text(16)} {
		if !strings.Contains(string(record), want) {
			t.Errorf("the record does not tell of %s:\n%s", want, record)
		}
	}
}

// Whoever has the server asks for what they like, with their own client; the process signs none of it.
func TestWhatAThiefOfTheServerDoesNotGet(t *testing.T) {
	w := newWall(t, nil)
	now := time.Now().UTC().Truncate(time.Second)
	key := newKey(t)
	for name, attempt := range map[string]struct {
		ca    *pki.Authority
		key   string
		tmpl  func() *x509.Certificate
		check string
	}{
		"a CA": {w.operational, "operational-ca", func() *x509.Certificate {
			return &x509.Certificate{
				Subject: pkix.Name{CommonName: "mine", Organization: []string{"acme"}}, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
				ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, Policies: []x509.OID{idevid.PolicyLDevID()},
			}
		}, ""},
		"a CA of an order": {w.product, "product-ca", func() *x509.Certificate {
			return &x509.Certificate{
				Subject: pkix.Name{CommonName: "order x", Organization: []string{"acme"}, OrganizationalUnit: []string{"pump"}}, IsCA: true, MaxPathLenZero: true,
				KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, Policies: []x509.OID{idevid.PolicyIDevID()}, NotAfter: idevid.NoExpiry(),
			}
		}, "no CAs are signed here"},
		"a server of another name":    {w.infra, "infra-ca", func() *x509.Certificate { return serverOf(t, "bank.example") }, "not one of this instance's names"},
		"a server of any name":        {w.infra, "infra-ca", func() *x509.Certificate { return serverOf(t, "*") }, ""},
		"a server by a CA of devices": {w.operational, "operational-ca", func() *x509.Certificate { return serverOf(t, "hallmark.acme.example") }, ""},
		"whom no profile names": {w.infra, "infra-ca", func() *x509.Certificate {
			c := serverOf(t, "")
			c.DNSNames, c.ExtKeyUsage, c.Subject = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, pkix.Name{CommonName: "admin"}
			c.Policies = []x509.OID{oid(t, "2.25.167220276490353515837251553509781489679")}
			return c
		}, "of no profile that"},
		"a device for years": {w.operational, "operational-ca", func() *x509.Certificate { return deviceOf(t, ldevid(), now.AddDate(0, 0, 60)) }, "at most"},
		"a device of another maker": {w.operational, "operational-ca", func() *x509.Certificate {
			id := ldevid()
			id.OEM = "other"
			return deviceOf(t, id, now.Add(time.Hour))
		}, "does not sign for"},
		"a device that was there long ago": {w.operational, "operational-ca", func() *x509.Certificate {
			c := deviceOf(t, ldevid(), now.Add(time.Hour))
			c.NotBefore = now.AddDate(0, 0, -5)
			return c
		}, "it begins"},
	} {
		t.Run(name, func(t *testing.T) {
			signer, err := w.client.Signer(attempt.key)
			if err != nil {
				t.Fatal(err)
			}
			tmpl := attempt.tmpl()
			if tmpl.SerialNumber, err = idevid.RandomSerial(); err != nil {
				t.Fatal(err)
			}
			tmpl.BasicConstraintsValid = true
			if tmpl.NotBefore.IsZero() {
				tmpl.NotBefore = now
			}
			if tmpl.NotAfter.IsZero() {
				tmpl.NotAfter = now.Add(time.Hour)
			}
			_, err = x509.CreateCertificate(rand.Reader, tmpl, attempt.ca.Cert, key.Public(), signer)
			if fault.KindOf(err) != fault.Denied || !strings.Contains(err.Error(), attempt.check) {
				t.Errorf("%v", err)
			}
		})
	}
}

func oid(t *testing.T, s string) x509.OID {
	t.Helper()
	o, err := x509.ParseOID(s)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func serverOf(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: "hallmark server"}, DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, Policies: []x509.OID{oid(t, "2.25.88181947125876542225777665440525250992")},
	}
}

func deviceOf(t *testing.T, id idevid.Identity, until time.Time) *x509.Certificate {
	t.Helper()
	serial, err := idevid.RandomSerial()
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := idevid.Template(id, serial, time.Now(), until)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func TestNothingElseIsSigned(t *testing.T) {
	w := newWall(t, nil)
	signer, err := w.client.Signer("operational-ca")
	if err != nil {
		t.Fatal(err)
	}
	ms := signer.(crypto.MessageSigner)
	directive, err := wire.Marshal([]any{"Signature1", []byte{1}, []byte{}, []byte("wipe all")})
	if err != nil {
		t.Fatal(err)
	}
	for name, message := range map[string][]byte{
		"a text": []byte("I agree"), "nothing": {}, "a directive": directive, "a digest": make([]byte, 32),
		"a certificate with something behind it": append(w.operational.Cert.RawTBSCertificate, 0),
		"its own certificate again":              w.operational.Cert.RawTBSCertificate,
	} {
		if _, err := ms.SignMessage(nil, message, crypto.SHA256); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
	if _, err := signer.Sign(rand.Reader, make([]byte, 32), crypto.SHA256); err == nil {
		t.Error("a digest was signed")
	}
	// A key that is not a CA's, or has no certificate, signs nothing at all; keys of other kinds are not made.
	fresh, err := w.client.GenerateP256("ca-operational-0011aabb")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.(crypto.MessageSigner).SignMessage(nil, w.operational.Cert.RawTBSCertificate, crypto.SHA256); err == nil {
		t.Error("a key without a certificate signed")
	}
	if _, err := w.client.GenerateP256("directive"); err == nil {
		t.Error("a key of another kind was made")
	}
	if _, err := w.client.GenerateP256("ca-operational-0011aabb"); err == nil {
		t.Error("a key was made twice")
	}
	// Nor are keys made without end by who has the server: each is a file, or a place in a token.
	made := 1
	for ; made < 1000; made++ {
		if _, err := w.client.GenerateP256(fmt.Sprintf("ca-operational-%08x", made)); err != nil {
			break
		}
	}
	if made != 32 {
		t.Errorf("%d keys were made within a day", made)
	}
	// A thief has his own root sign for the key.
	other, err := pki.NewRoot("acme", newKey(t), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := other.Sub(profile.Infra, pki.Name{OEM: "acme"}, fresh.Public(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.client.Bind("ca-operational-0011aabb", cert); err == nil {
		t.Error("a certificate of another root was believed")
	}
	if _, err := w.client.SignCARequest("operational-ca", wire.CARequest{Role: wire.CAOperational, OEM: "acme", Instance: "x", Purpose: "p", Issued: 1}); err == nil {
		t.Error("a key in use signed a request")
	}
	env, err := w.client.SignCARequest("ca-operational-0011aabb", wire.CARequest{Role: wire.CAOperational, OEM: "acme", Instance: "x", Purpose: "p", Issued: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := wire.OpenCARequest(env); err != nil {
		t.Error(err)
	}
}

func TestThereAreLimits(t *testing.T) {
	w := newWall(t, func(c *Config) { c.PerMinute = 3 })
	now := time.Now()
	var err error
	signed := 0
	for range 10 {
		if _, err = w.operational.Device(ldevid(), newKey(t).Public(), now, now.Add(time.Hour), nil); err == nil {
			signed++
		}
	}
	if signed < 3 || signed > 4 || fault.KindOf(err) != fault.Unavailable {
		t.Errorf("%d signed, %v", signed, err)
	}
}

func TestOthersAreNotLetIn(t *testing.T) {
	w := newWall(t, nil)
	w.stop()
	w.cfg.UID = os.Getuid() + 1
	w.start()
	if _, err := w.client.Signer("operational-ca"); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("%v", err)
	}
}

// The process dies and comes back: who asks meanwhile is told to come again, and nobody has to start anew.
func TestItMayDieAndComeBack(t *testing.T) {
	w := newWall(t, nil)
	now := time.Now()
	issue := func() error {
		_, err := w.operational.Device(ldevid(), newKey(t).Public(), now, now.Add(time.Hour), nil)
		return err
	}
	if err := issue(); err != nil {
		t.Fatal(err)
	}
	w.stop()
	if err := issue(); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("while it is away: %v", err)
	}
	w.start()
	if err := issue(); err != nil {
		t.Errorf("after it came back: %v", err)
	}
}

func FuzzDecodeRequest(f *testing.F) {
	for _, r := range []request{{Op: opSign, Key: "operational-ca", Message: []byte{0x30, 0}}, {Op: opPublic, Key: "k"}} {
		data, err := wire.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = decodeRequest(data)
		_, _ = decodeReply(data)
	})
}

// FuzzJudge has the judge read anything: whatever it lets through is a certificate or a list that crypto/x509 reads in the same way.
func FuzzJudge(f *testing.F) {
	root, err := pki.NewRoot("acme", newKey(f), time.Now())
	if err != nil {
		f.Fatal(err)
	}
	k := newKey(f)
	cert, err := root.Sub(profile.Operational, pki.Name{OEM: "acme"}, k.Public(), time.Now())
	if err != nil {
		f.Fatal(err)
	}
	op, err := pki.NewAuthority(profile.Operational, cert, k)
	if err != nil {
		f.Fatal(err)
	}
	leaf, err := op.Device(ldevid(), newKey(f).Public(), time.Now(), time.Now().Add(time.Hour), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(leaf.RawTBSCertificate)
	f.Add(root.Cert.RawTBSCertificate)
	f.Add([]byte{0x30, 0})
	now := time.Now()
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := pki.Allowed{CA: cert}.Judge(data, now)
		if err == nil && m.Role != profile.LDevID && m.Kind != "list" {
			t.Errorf("let through: %+v", m)
		}
	})
}

// BenchmarkSign is a device's certificate signed behind the wall, and by a key in this process.
func BenchmarkSign(b *testing.B) {
	w := newWall(b, func(c *Config) { c.PerMinute = 1 << 30 })
	k := newKey(b)
	cert, err := w.root.Sub(profile.Operational, pki.Name{OEM: "acme"}, k.Public(), time.Now())
	if err != nil {
		b.Fatal(err)
	}
	near, err := pki.NewAuthority(profile.Operational, cert, k)
	if err != nil {
		b.Fatal(err)
	}
	for name, ca := range map[string]*pki.Authority{"apart": w.operational, "here": near} {
		b.Run(name, func(b *testing.B) {
			pub := newKey(b).Public()
			now := time.Now()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := ca.Device(ldevid(), pub, now, now.Add(time.Hour), nil); err != nil {
						b.Error(fmt.Errorf("sign: %w", err))
						return
					}
				}
			})
		})
	}
}
