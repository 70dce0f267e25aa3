package link_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hallmark-iot/hallmark/agent/link"
	"github.com/hallmark-iot/hallmark/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pki is an authority that vouches for a server and a device.
type pki struct {
	ca   *x509.Certificate
	pool *x509.CertPool
	key  *ecdsa.PrivateKey
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{pool: x509.NewCertPool()}
	var err error
	if p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, p.key.Public(), p.key)
	if err != nil {
		t.Fatal(err)
	}
	if p.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	p.pool.AddCert(p.ca)
	return p
}

func (p *pki) issue(t *testing.T, name string, serial int64) *tls.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, p.ca, k.Public(), p.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
}

// serve is a server of the device API that wants a client certificate, under the name "localhost".
func (p *pki) serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{
		Certificates: []tls.Certificate{*p.issue(t, "localhost", 2)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: p.pool, MinVersion: tls.VersionTLS13,
	}
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return "https://localhost" + s.URL[strings.LastIndex(s.URL, ":"):]
}

func (p *pki) client(t *testing.T, server string, cert func() (*tls.Certificate, error)) *link.Client {
	t.Helper()
	if cert == nil {
		one := p.issue(t, "device", 3)
		cert = func() (*tls.Certificate, error) { return one, nil }
	}
	c, err := link.New(link.Config{Server: server, Roots: p.pool, Certificate: cert, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

var checkin = wire.Checkin{Nonce: make([]byte, 32), State: "active"}

func reply(w http.ResponseWriter, b []byte, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(b)
}

func TestEachCallSaysAndHearsWhatTheDeviceAPISays(t *testing.T) {
	p := newPKI(t)
	var calls []string
	c := p.client(t, p.serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		calls = append(calls, fmt.Sprintf("%s %s %s %s %d", r.Method, r.URL.Path, r.Header.Get("Content-Type"), r.TLS.PeerCertificates[0].Subject.CommonName, len(body)))
		switch r.URL.Path {
		case "/d/v1/checkin":
			if _, err := wire.DecodeCheckin(body); err != nil {
				t.Error(err)
			}
			b, err := wire.EncodeCheckinReply(wire.CheckinReply{Time: 5, Standing: "active"})
			reply(w, b, err)
		case "/d/v1/attest":
			b, err := wire.EncodeAttestReply(wire.AttestReply{Status: "affirming"})
			reply(w, b, err)
		case "/d/v1/log":
			b, err := wire.EncodeLogReply(wire.LogReply{Acked: 7})
			reply(w, b, err)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	}), nil)
	in, err := c.Checkin(t.Context(), checkin)
	if err != nil || in.Time != 5 {
		t.Errorf("check-in: %+v, %v", in, err)
	}
	verdict, err := c.Attest(t.Context(), []byte("evidence"))
	if err != nil || verdict.Status != "affirming" {
		t.Errorf("attest: %+v, %v", verdict, err)
	}
	log, err := c.Log(t.Context(), []byte("log"))
	if err != nil || log.Acked != 7 {
		t.Errorf("log: %+v, %v", log, err)
	}
	if err := errors.Join(c.Telemetry(t.Context(), []byte("up")), c.Receipt(t.Context(), []byte("r"))); err != nil {
		t.Error(err)
	}
	body, err := wire.EncodeCheckin(checkin)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("POST /d/v1/checkin application/cbor device %d\nPOST /d/v1/attest application/cose device 8\n"+
		"POST /d/v1/log application/cose device 3\nPOST /d/v1/telemetry application/cbor device 2\nPOST /d/v1/receipt application/cose device 1", len(body))
	if got := strings.Join(calls, "\n"); got != want {
		t.Errorf("it said\n%s\nwant\n%s", got, want)
	}
}

// What comes back is bounded and read strictly, whoever sends it.
func TestAnAnswerThatIsNoneIsAnError(t *testing.T) {
	p := newPKI(t)
	var answer http.HandlerFunc
	c := p.client(t, p.serve(t, func(w http.ResponseWriter, r *http.Request) { answer(w, r) }), nil)
	for name, s := range map[string]struct {
		answer http.HandlerFunc
		says   string
		final  bool
	}{
		"junk":      {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, "cbor", false},
		"nothing":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, "", false},
		"too large": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, wire.MaxCheckinReply+1)) }, "too large", false},
		"redirect":  {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, "does not redirect", false},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("x"))
		}, "EOF", false},
		"forbidden":   {status(403), "server answered 403: no because", true},
		"gone":        {status(410), "410", true},
		"conflict":    {status(409), "409", false},
		"slow down":   {status(429), "429", false},
		"unavailable": {status(503), "503", false},
		"created":     {status(201), "201", false},
	} {
		answer = s.answer
		_, err := c.Checkin(t.Context(), checkin)
		if err == nil || !strings.Contains(err.Error(), s.says) || link.Final(err) != s.final {
			t.Errorf("%s: %v, final %v", name, err, link.Final(err))
		}
		if len(fmt.Sprint(err)) > 1000 {
			t.Errorf("%s: an error of %d bytes", name, len(fmt.Sprint(err)))
		}
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "no because \xff"+strings.Repeat("long ", 1000))
	}
}

func TestAnArtifactGoesOnFromAnyOffset(t *testing.T) {
	p := newPKI(t)
	code := bytes.Repeat([]byte("0123456789"), 1000)
	sum := sha256.Sum256(code)
	var ranges func(w http.ResponseWriter, r *http.Request)
	c := p.client(t, p.serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != fmt.Sprintf("/d/v1/artifact/%x", sum) {
			http.NotFound(w, r)
			return
		}
		ranges(w, r)
	}), nil)
	for name, serve := range map[string]func(w http.ResponseWriter, r *http.Request){
		"ranges": func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(code))
		},
		"no ranges": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(code) },
	} {
		ranges = serve
		for _, off := range []int64{0, 1, 777, int64(len(code)) - 1} {
			r, err := c.Artifact(t.Context(), sum[:], off)
			if err != nil {
				t.Fatalf("%s at %d: %v", name, off, err)
			}
			got, err := io.ReadAll(r)
			if err = errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, code[off:]) {
				t.Errorf("%s at %d: %d bytes, %v", name, off, len(got), err)
			}
		}
	}
	ranges = func(w http.ResponseWriter, _ *http.Request) { // another stretch than the one asked for
		w.Header().Set("Content-Range", "bytes 7-9/10000")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(code[7:10])
	}
	if r, err := c.Artifact(t.Context(), sum[:], 70); err == nil {
		t.Error("bytes from elsewhere were taken")
		r.Close()
	}
	if _, err := c.Artifact(t.Context(), []byte{1}, 0); !link.Final(err) {
		t.Errorf("an artifact that is not there: %v", err)
	}
}

func TestOnlyTheNamedServerIsSpokenTo(t *testing.T) {
	mine, other := newPKI(t), newPKI(t)
	heard := false
	url := other.serve(t, func(http.ResponseWriter, *http.Request) { heard = true })
	if _, err := mine.client(t, url, nil).Checkin(t.Context(), checkin); !errors.As(err, new(*tls.CertificateVerificationError)) || heard {
		t.Errorf("a server of another authority: %v, it heard something: %v", err, heard)
	}
	url = mine.serve(t, func(http.ResponseWriter, *http.Request) { heard = true })
	if _, err := mine.client(t, strings.Replace(url, "localhost", "127.0.0.1", 1), nil).Checkin(t.Context(), checkin); err == nil || heard {
		t.Errorf("a server of another name: %v", err)
	}
	if _, err := mine.client(t, url, func() (*tls.Certificate, error) { return nil, errors.New("not enrolled") }).Checkin(t.Context(), checkin); err == nil || heard {
		t.Errorf("without a certificate: %v", err)
	}
	for _, server := range []string{"http://host", "host:443", "https://", "", "https://%zz"} {
		if _, err := link.New(link.Config{Server: server, Roots: mine.pool, Certificate: func() (*tls.Certificate, error) { return nil, nil }}); err == nil {
			t.Errorf("server %q was taken", server)
		}
	}
	if _, err := link.New(link.Config{Server: "https://host", Certificate: func() (*tls.Certificate, error) { return nil, nil }}); err == nil {
		t.Error("no anchors: the system's would be believed")
	}
}

// A device whose time is far behind knows a server by its name and chain; one whose time is later than the server's certificate does not.
func TestADeviceThatIsBehindKnowsItsServer(t *testing.T) {
	p, other := newPKI(t), newPKI(t)
	one := p.issue(t, "device", 3)
	url := p.serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	call := func(roots *x509.CertPool, server string, now time.Time) error {
		c, err := link.New(link.Config{
			Server: server, Roots: roots, Certificate: func() (*tls.Certificate, error) { return one, nil }, Now: func() time.Time { return now },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.Telemetry(t.Context(), nil)
	}
	for name, now := range map[string]time.Time{"right": time.Now(), "1970": time.Unix(0, 0), "a year behind": time.Now().AddDate(-1, 0, 0)} {
		if err := call(p.pool, url, now); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"server's certificate has run out": call(p.pool, url, time.Now().Add(2*time.Hour)),
		"another authority's server":       call(other.pool, url, time.Unix(0, 0)),
		"a server of another name":         call(p.pool, strings.Replace(url, "localhost", "127.0.0.1", 1), time.Unix(0, 0)),
	} {
		if !errors.As(err, new(*tls.CertificateVerificationError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A renewed certificate is shown after Close; a call ends with its context.
func TestARenewalTakesEffectAndACallCanBeGivenUp(t *testing.T) {
	p := newPKI(t)
	old, renewed := p.issue(t, "old", 10), p.issue(t, "renewed", 11)
	cert := old
	var seen []string
	hang := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	c := p.client(t, p.serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/d/v1/log" {
			cancel()
			<-hang
			return
		}
		seen = append(seen, r.TLS.PeerCertificates[0].Subject.CommonName)
		w.WriteHeader(http.StatusNoContent)
	}), func() (*tls.Certificate, error) { return cert, nil })
	defer close(hang)
	for i := range 3 {
		if i == 2 {
			cert = renewed
			c.Close()
		}
		if err := c.Telemetry(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(seen, " "); got != "old old renewed" {
		t.Errorf("the server saw %s", got)
	}
	if _, err := c.Log(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a call given up: %v", err)
	}
}
