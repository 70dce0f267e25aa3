package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/server"
)

// works is an instance whose console has TLS, and machines around it.
type works struct {
	t     *testing.T
	api   string
	roots *x509.CertPool
	admin *client.Client
}

func newWorks(t *testing.T) *works {
	t.Helper()
	l := initialise(t)
	edit(t, l, `"api": "127.0.0.1:0"`, `"api": "0.0.0.0:0"`)
	api, _ := start(t, l)
	u, err := url.Parse(api)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(l.Cert("oem-root"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(root)
	if err != nil {
		t.Fatal(err)
	}
	w := &works{t: t, api: "https://" + net.JoinHostPort("127.0.0.1", u.Port()), roots: x509.NewCertPool()}
	w.roots.AddCert(cert)
	token, err := os.ReadFile(l.AdminToken())
	if err != nil {
		t.Fatal(err)
	}
	w.admin = w.as(strings.TrimSpace(string(token)))
	for _, name := range []string{"machine:ci", "machine:other"} {
		w.token(name)
	}
	return w
}

func edit(t *testing.T, l server.Layout, from, to string) {
	t.Helper()
	data, err := os.ReadFile(l.Config())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), from) {
		t.Fatalf("config.json has no %s", from)
	}
	if err := os.WriteFile(l.Config(), []byte(strings.Replace(string(data), from, to, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *works) as(token string, own ...tls.Certificate) *client.Client {
	return client.New(w.api, token, &tls.Config{RootCAs: w.roots, Certificates: own, ClientSessionCache: tls.NewLRUClientSessionCache(4)})
}

func (w *works) token(name string) string {
	w.t.Helper()
	secret, err := w.admin.Token(w.t.Context(), httpapi.TokenSpec{Caller: name, Kind: access.Machine, Roles: []access.Role{access.Viewer}, Use: signin.UseToken, Seconds: 3600})
	if err != nil {
		w.t.Fatal(err)
	}
	return secret
}

// make makes a key and a certificate of it.
func (w *works) make(from, to time.Time, key *ecdsa.PrivateKey) (tls.Certificate, string) {
	w.t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			w.t.Fatal(err)
		}
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ci"}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func (w *works) bound(member string) (tls.Certificate, httpapi.CredentialView) {
	w.t.Helper()
	own, text := w.make(time.Now().Add(-time.Hour), time.Now().Add(time.Hour), nil)
	v, err := w.admin.BindCertificate(w.t.Context(), member, text)
	if err != nil {
		w.t.Fatal(err)
	}
	return own, v
}

// is says who the server takes c for; empty when for nobody.
func (w *works) is(c *client.Client) (id, via string) {
	w.t.Helper()
	me, err := c.Self(w.t.Context())
	if _, refused := err.(*client.Problem); err != nil && !refused { //nolint:errorlint // as the client gives it
		w.t.Fatal(err)
	}
	return me.ID, me.Via
}

func TestAMachineIsKnownByItsCertificate(t *testing.T) {
	w := newWorks(t)
	ci, v := w.bound("machine:ci")
	stranger, _ := w.make(time.Now().Add(-time.Hour), time.Now().Add(time.Hour), nil)
	expired, _ := w.make(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour), ci.PrivateKey.(*ecdsa.PrivateKey))
	renewed, _ := w.make(time.Now().Add(-time.Hour), time.Now().Add(48*time.Hour), ci.PrivateKey.(*ecdsa.PrivateKey))
	other := w.token("machine:other")
	for name, c := range map[string]struct {
		cl      *client.Client
		id, via string
	}{
		"its certificate":                                {w.as("", ci), "machine:ci", "mtls"},
		"another certificate of the key":                 {w.as("", renewed), "machine:ci", "mtls"},
		"an expired one of the key":                      {w.as("", expired), "", ""},
		"a certificate nobody bound":                     {w.as("", stranger), "", ""},
		"nothing":                                        {w.as(""), "", ""},
		"a token of another machine beside: it wins":     {w.as(other, ci), "machine:other", "token"},
		"a token that is wrong beside: it is not mended": {w.as("hmk_wrong", ci), "", ""},
	} {
		if id, via := w.is(c.cl); id != c.id || via != c.via {
			t.Errorf("%s: %q via %q, want %q via %q", name, id, via, c.id, c.via)
		}
	}
	if time.Until(v.Expires) > time.Hour {
		t.Errorf("the binding outlives the certificate: %s", v.Expires)
	}
	if resp := post(t, w, url.Values{"token": {string(spki(t, ci))}}); resp.StatusCode != http.StatusForbidden {
		t.Errorf("the public key as a token at the sign-in page: %d", resp.StatusCode)
	}
}

func spki(t *testing.T, own tls.Certificate) []byte {
	t.Helper()
	c, err := x509.ParseCertificate(own.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return c.RawSubjectPublicKeyInfo
}

func post(t *testing.T, w *works, form url.Values) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.api+"/login", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.roots}}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	return resp
}

// What ends a certificate ends it on connections that are open, and on those that resume an older one.
func TestACertificateEndsOnOpenConnections(t *testing.T) {
	for name, end := range map[string]func(w *works, v httpapi.CredentialView) error{
		"revoked": func(w *works, v httpapi.CredentialView) error {
			return w.admin.RevokeSecret(w.t.Context(), "machine:ci", v.ID)
		},
		"its machine ended": func(w *works, _ httpapi.CredentialView) error {
			_, err := w.admin.EndMember(w.t.Context(), "machine:ci")
			return err
		},
	} {
		w := newWorks(t)
		own, v := w.bound("machine:ci")
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{own}, ClientSessionCache: tls.NewLRUClientSessionCache(4)}}
		hc := &http.Client{Transport: transport}
		ask := func(want int, resumed bool) {
			t.Helper()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.api+"/api/v1/me", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := hc.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			var buf [4096]byte
			for err == nil {
				_, err = resp.Body.Read(buf[:])
			}
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
			if resp.StatusCode != want || resp.TLS.DidResume != resumed {
				t.Errorf("%s: %d, resumed %t; want %d, %t", name, resp.StatusCode, resp.TLS.DidResume, want, resumed)
			}
		}
		ask(200, false)
		transport.CloseIdleConnections()
		ask(200, true) // the session's ticket brings the certificate with it
		if err := end(w, v); err != nil {
			t.Fatal(err)
		}
		ask(401, true)
		transport.CloseIdleConnections()
		ask(401, true)
	}
}

func TestWhatCertificateIsNotBound(t *testing.T) {
	w := newWorks(t)
	now := time.Now()
	_, good := w.make(now.Add(-time.Hour), now.Add(time.Hour), nil)
	_, past := w.make(now.Add(-2*time.Hour), now.Add(-time.Hour), nil)
	_, future := w.make(now.Add(time.Hour), now.Add(2*time.Hour), nil)
	_, first := w.make(now.Add(-time.Hour), now.Add(time.Hour), nil)
	if _, err := w.admin.BindCertificate(t.Context(), "machine:other", first); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ member, text, code string }{
		"expired":            {"machine:ci", past, "certificate.dates"},
		"not yet valid":      {"machine:ci", future, "certificate.dates"},
		"of a person":        {"person:admin", good, "certificate.machine"},
		"of nobody":          {"machine:nobody", good, "access.no-member"},
		"no certificate":     {"machine:ci", "nonsense", "certificate.malformed"},
		"two":                {"machine:ci", good + past, "certificate.malformed"},
		"another machine's":  {"machine:ci", first, "certificate.known"},
		"the same once more": {"machine:other", first, "certificate.known"},
	} {
		if _, err := w.admin.BindCertificate(t.Context(), c.member, c.text); client.Code(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
}
