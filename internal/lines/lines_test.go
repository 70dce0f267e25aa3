package lines_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/lines"
	"github.com/hallmark-iot/hallmark/pki"
)

// bench is a server over TLS that keeps its lines in a registry, and a list of devices whose lines are cut.
type bench struct {
	reg  *lines.Registry
	url  string
	hold chan struct{} // a call of /hold has begun

	mu  sync.Mutex
	out map[string]bool // by common name; guarded by mu
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{hold: make(chan struct{}, 1), out: map[string]bool{}}
	b.reg = lines.New(func(chain []*x509.Certificate) (string, lines.Verdict) {
		b.mu.Lock()
		defer b.mu.Unlock()
		name := chain[0].Subject.CommonName
		if b.out[name] {
			return name, lines.Cut
		}
		return name, lines.Stay
	})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			b.hold <- struct{}{}
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, "ok")
	}))
	s.Config.ConnState = b.reg.ConnState
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	b.url = s.URL
	return b
}

func (b *bench) revoke(name string, entries ...pki.Revocation) {
	b.mu.Lock()
	b.out[name] = true
	b.mu.Unlock()
	b.reg.Revoked(entries)
}

func device(t *testing.T, name string, serial int64) (tls.Certificate, *x509.Certificate) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, AuthorityKeyId: []byte{7}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, c
}

// dial opens a line that is kept, and asks once on it.
func (b *bench) dial(t *testing.T, cert tls.Certificate) *tls.Conn {
	t.Helper()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}}}
	c, err := d.DialContext(t.Context(), "tcp", b.url[len("https://"):])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	ask(t, c.(*tls.Conn), "/")
	return c.(*tls.Conn)
}

func ask(t *testing.T, c *tls.Conn, path string) {
	t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	if path == "/hold" {
		return
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}

// over waits for the end of a line.
func over(t *testing.T, c *tls.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, c); err != nil {
		if e, ok := err.(interface{ Timeout() bool }); ok && e.Timeout() {
			t.Error("the line was not cut")
		}
	}
}

func TestARevokedDevicesLinesAreCut(t *testing.T) {
	for name, entry := range map[string]func(c *x509.Certificate) pki.Revocation{
		"as a device": func(*x509.Certificate) pki.Revocation { return pki.Revocation{Scope: pki.ScopeDevice, ID: "bad"} },
		"by its certificate": func(c *x509.Certificate) pki.Revocation {
			return pki.Revocation{Scope: pki.ScopeCert, ID: pki.CertKey(c)}
		},
		"with all of its CA's": func(*x509.Certificate) pki.Revocation { return pki.Revocation{Scope: pki.ScopeIssuer, ID: "07"} },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			bad, cert := device(t, "bad", 1)
			good, _ := device(t, "good", 2)
			idle, busy, other := b.dial(t, bad), b.dial(t, bad), b.dial(t, good)
			ask(t, busy, "/hold")
			<-b.hold
			b.revoke("bad", entry(cert))
			over(t, idle)
			over(t, busy) // its call is over too
			ask(t, other, "/")
		})
	}
}

func TestAHintCutsNobodyInGoodStanding(t *testing.T) {
	b := newBench(t)
	good, cert := device(t, "good", 2)
	c := b.dial(t, good)
	b.reg.Revoked([]pki.Revocation{{Scope: pki.ScopeDevice, ID: "good"}, {Scope: pki.ScopeCert, ID: pki.CertKey(cert)}})
	ask(t, c, "/")
	if b.reg.Len() != 1 {
		t.Errorf("%d lines", b.reg.Len())
	}
	b.revoke("good")
	ask(t, c, "/") // no hint was given for it
	b.reg.Sweep()
	over(t, c)
}

func TestLinesThatEndAreForgotten(t *testing.T) {
	b := newBench(t)
	cert, _ := device(t, "good", 2)
	for range 3 {
		_ = b.dial(t, cert).Close()
	}
	for end := time.Now().Add(time.Minute); b.reg.Len() != 0; {
		if time.Now().After(end) {
			t.Fatalf("%d lines are still known", b.reg.Len())
		}
		<-time.After(time.Millisecond)
	}
}
