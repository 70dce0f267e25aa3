package est_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	agentest "github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/pki/pkcs10"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

func onCurve(t testing.TB, c elliptic.Curve) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	must(t, err)
	return k
}

// Each is refused in one line of plain text that begins with a code, and nothing is issued.
func TestBadRequestsAreRefusedInOneLine(t *testing.T) {
	w := newWorld(t)
	id, idev := w.made(true)
	_, other := w.made(true)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 1024)
	must(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	good := request(t, idev, newKey(t), nil)
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	extension := func(e pkix.Extension) []byte {
		return request(t, idev, newKey(t), func(r *x509.CertificateRequest) { r.ExtraExtensions = append(r.ExtraExtensions, e) })
	}
	for name, c := range map[string]struct {
		csr  []byte
		code string
	}{
		"oversized":                {extension(pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, pkcs10.MaxCSR)}), "csr.size"},
		"RSA of 1024 bits":         {request(t, idev, rsaKey, nil), "csr.key"},
		"P-224":                    {request(t, idev, onCurve(t, elliptic.P224()), nil), "csr.key"},
		"P-521":                    {request(t, idev, onCurve(t, elliptic.P521()), nil), "csr.key"},
		"P-384, of another suite":  {request(t, idev, onCurve(t, elliptic.P384()), nil), "csr.suite"},
		"Ed25519":                  {request(t, idev, ed, nil), "csr.key"},
		"signature of another key": {forged, "csr.signature"},
		"SHA-1":                    {nil, "csr.signature"},
		"another device's subject": {request(t, other, newKey(t), nil), "csr.subject"},
		"foreign subject":          {request(t, idev, newKey(t), func(r *x509.CertificateRequest) { r.RawSubject, r.Subject = nil, pkix.Name{CommonName: "root"} }), "csr.subject"},
		"another's SAN":            {request(t, idev, newKey(t), func(r *x509.CertificateRequest) { r.ExtraExtensions = nil; r.DNSNames = []string{"server.test"} }), "csr.san"},
		"critical unknown":         {extension(pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}), "csr.extension"},
		"wants to be a CA":         {extension(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}), "csr.extension"},
		"two":                      {append(bytes.Clone(good), good...), "csr.parse"},
		"cut off":                  {good[:len(good)-7], "csr.parse"},
		"a certificate":            {idev.Certificate[0], "csr.parse"},
	} {
		if name == "SHA-1" { // Go makes none: the algorithm's number is changed, and the signature is none then
			c.csr = bytes.Replace(good, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2}, []byte{0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 1}, 1)
		}
		a := w.as(idev).post("simpleenroll", c.csr)
		if a.status != http.StatusBadRequest || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") || !strings.HasPrefix(a.text(), c.code+": ") ||
			strings.Count(a.text(), "\n") != 0 || len(a.text()) > 300 || strings.Contains(a.text(), "asn1:") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if n := w.facts("cert.issued", id); n != 0 {
		t.Errorf("%d certificates were issued", n)
	}
}

// renewals are held to the present certificate's names exactly.
func TestARenewalHasTheNamesItHad(t *testing.T) {
	w := newWorld(t)
	_, idev := w.made(true)
	key := newKey(t)
	chain, err := w.client().Enrol(t.Context(), agentest.Request{As: idev, Key: key})
	must(t, err)
	ldev := tls.Certificate{Certificate: chain, PrivateKey: key}
	for name, change := range map[string]func(*x509.CertificateRequest){
		"no subject": func(r *x509.CertificateRequest) { r.RawSubject = []byte{0x30, 0} },
		"no SAN":     func(r *x509.CertificateRequest) { r.ExtraExtensions = nil },
	} {
		if a := w.as(ldev).post("simplereenroll", request(t, idev, newKey(t), change)); a.status != http.StatusBadRequest || !strings.HasPrefix(a.text(), "csr.s") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	before, err := x509.ParseCertificate(chain[0])
	must(t, err)
	w.clock.add(time.Hour)
	must(t, w.pki.Refresh(t.Context()))
	renewed := w.as(ldev).post("simplereenroll", request(t, idev, key, nil)).cert(t)
	if before.SerialNumber.Cmp(renewed.SerialNumber) == 0 || !renewed.NotAfter.After(before.NotAfter) {
		t.Errorf("renewed: serial %x until %s, before it %x until %s", renewed.SerialNumber, renewed.NotAfter, before.SerialNumber, before.NotAfter)
	}
	if again := w.as(ldev).post("simplereenroll", request(t, idev, key, nil)).cert(t); !again.Equal(renewed) {
		t.Error("whose answer was lost got another certificate")
	}
	w.clock.add(time.Hour)
	must(t, w.pki.Refresh(t.Context()))
	ldev.Certificate[0] = renewed.Raw
	if next := w.as(ldev).post("simplereenroll", request(t, idev, key, nil)).cert(t); !next.NotAfter.After(renewed.NotAfter) {
		t.Errorf("renewed once more: until %s, before it %s", next.NotAfter, renewed.NotAfter)
	}
	rekeyed := w.as(ldev).post("simplereenroll", request(t, idev, newKey(t), nil)).cert(t)
	if !bytes.Equal(before.RawSubjectPublicKeyInfo, renewed.RawSubjectPublicKeyInfo) ||
		bytes.Equal(before.RawSubjectPublicKeyInfo, rekeyed.RawSubjectPublicKeyInfo) || !bytes.Equal(before.RawSubject, rekeyed.RawSubject) {
		t.Error("a renewal has another key, or a re-key the same, or other names")
	}
}

// Ten thousand damaged requests, the same ones each time: never an error of the server's, never a certificate for another device or key.
func TestTenThousandMutatedRequests(t *testing.T) {
	mutations := 10_000
	if testing.Short() {
		mutations = 1000
	}
	w := newWorld(t)
	id, idev := w.made(true)
	l := w.as(idev)
	key := newKey(t)
	seeds := [][]byte{request(t, idev, key, nil), bound(t, idev, key, "AAAA", nil), request(t, idev, onCurve(t, elliptic.P384()), nil)}
	random := mathrand.New(mathrand.NewPCG(1, 2)) // the same each time
	before := memory()
	statuses := map[int]int{}
	for range mutations {
		csr := mutate(random, seeds)
		a := l.post("simpleenroll", csr)
		statuses[a.status]++
		if a.status >= 500 {
			t.Fatalf("%d %s\n%x", a.status, a.body, csr)
		}
		if a.status != http.StatusOK {
			continue
		}
		cert := a.cert(t)
		got, err := idevid.Parse(cert)
		parsed, err2 := x509.ParseCertificateRequest(csr)
		if err != nil || err2 != nil || got.DeviceID != id || !bytes.Equal(cert.RawSubjectPublicKeyInfo, parsed.RawSubjectPublicKeyInfo) || parsed.CheckSignature() != nil {
			t.Fatalf("a certificate for %s, %v %v\n%x", got.DeviceID, err, err2, csr)
		}
	}
	if more := memory() - before; more > 64<<20 {
		t.Errorf("%d MB more", more>>20)
	}
	t.Logf("%d: %v", mutations, statuses)
	if statuses[http.StatusBadRequest] < mutations*8/10 {
		t.Error("the mutations are hardly any")
	}
}

// mutate changes one request in one to three places: bits, bytes, lengths, pieces cut out, doubled or moved in from another.
func mutate(r *mathrand.Rand, seeds [][]byte) []byte {
	b := bytes.Clone(seeds[r.IntN(len(seeds))])
	for range 1 + r.IntN(3) {
		at := r.IntN(len(b))
		n := min(1+r.IntN(16), len(b)-at)
		switch r.IntN(6) {
		case 0:
			b[at] ^= 1 << r.IntN(8)
		case 1:
			b[at] = []byte{0, 0x7f, 0x80, 0x81, 0x82, 0x84, 0xff, 0x30, 0x31, 0xa0}[r.IntN(10)]
		case 2:
			b = append(b[:at:at], b[at+n:]...)
		case 3:
			b = append(b[:at+n:at+n], b[at:]...)
		case 4:
			other := seeds[r.IntN(len(seeds))]
			copy(b[at:], other[min(at, len(other)-1):min(at+n, len(other))])
		case 5:
			b = b[:max(at, 1)]
		}
		if len(b) == 0 {
			return []byte{0x30}
		}
	}
	return b
}

// Certificates that are not good, each in its way, open no session that could ask for anything.
func TestBadCertificatesAreShutOut(t *testing.T) {
	w := newWorld(t)
	_, idev := w.made(true)
	key := newKey(t)
	chain, err := w.client().Enrol(t.Context(), agentest.Request{As: idev, Key: key})
	must(t, err)
	stranger := newWorld(t)
	_, foreign := stranger.made(true)
	id := idevid.Identity{Kind: idevid.LDevID, DeviceID: deviceID(t), OEM: "acme", Product: "thermo", HWRev: "B"}
	later := newKey(t)
	early, err := w.op.Device(id, later.Public(), w.clock.now().Add(48*time.Hour), w.clock.now().Add(72*time.Hour), nil)
	must(t, err)
	self := func() tls.Certificate {
		k := newKey(t)
		tmpl, err := idevid.Template(idevid.Identity{Kind: idevid.IDevID, DeviceID: deviceID(t), OEM: "acme", Product: "thermo", HWRev: "B"}, serial(t), w.clock.now(), idevid.NoExpiry())
		must(t, err)
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
		must(t, err)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
	}()
	bad := map[string]tls.Certificate{
		"of another maker's CA": foreign,
		"not yet valid":         {Certificate: [][]byte{early.Raw}, PrivateKey: later},
		"signed by itself":      self,
	}
	for name, c := range bad {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if _, err := w.tryTLS(&tls.Config{Certificates: []tls.Certificate{c}, MaxVersion: version}); err == nil {
				t.Errorf("%s: let in by TLS %x", name, version)
			}
		}
	}
	w.clock.add(15 * 24 * time.Hour)
	must(t, w.pki.Refresh(t.Context()))
	if _, err := w.tryTLS(&tls.Config{Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: key}}}); err == nil {
		t.Error("expired: let in")
	}
	if _, err := w.tryTLS(&tls.Config{Certificates: []tls.Certificate{idev}}); err != nil {
		t.Errorf("the way back, by the factory's: %v", err)
	}
}

// A body that is too large is not read to its end.
func TestALargeBodyIsNotRead(t *testing.T) {
	w := newWorld(t)
	_, idev := w.made(true)
	if a := w.as(idev).post("simpleenroll", make([]byte, 1<<20)); a.status != http.StatusRequestEntityTooLarge || !a.last {
		t.Errorf("%d %s", a.status, a.body)
	}
	csr := base64.StdEncoding.EncodeToString(request(t, idev, newKey(t), nil))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.server.URL+"/.well-known/est/simpleenroll", strings.NewReader(csr))
	must(t, err)
	req.Header.Set("Content-Type", "text/html")
	resp, err := w.as(idev).client.Do(req)
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("another kind of body: %d", resp.StatusCode)
	}
}
