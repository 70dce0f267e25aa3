package est_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	agentest "github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/est"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// answered is what a call got.
type answered struct {
	status int
	header http.Header
	body   []byte
	last   bool // the connection ends with it
}

func (a answered) text() string { return strings.TrimSpace(string(a.body)) }

// cert is the one certificate of an answer.
func (a answered) cert(t testing.TB) *x509.Certificate {
	t.Helper()
	certs, err := agentest.DecodeCerts(a.body)
	if a.status != http.StatusOK || err != nil || len(certs) != 1 {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return certs[0]
}

// line is a client that makes calls over one connection.
type line struct {
	w      *world
	client *http.Client
}

func (w *world) line(conf *tls.Config) *line {
	w.t.Helper()
	conf.RootCAs, conf.Time = w.roots, w.clock.now
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, MaxConnsPerHost: 1}}
	w.t.Cleanup(h.CloseIdleConnections)
	return &line{w, h}
}

// as is a line on which a device shows its certificate.
func (w *world) as(c tls.Certificate) *line {
	w.t.Helper()
	return w.line(&tls.Config{Certificates: []tls.Certificate{c}})
}

func (l *line) call(method, path string, csr []byte) answered {
	l.w.t.Helper()
	req, err := http.NewRequestWithContext(l.w.t.Context(), method, l.w.server.URL+est.Prefix+path, strings.NewReader(base64.StdEncoding.EncodeToString(csr)))
	must(l.w.t, err)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/pkcs10")
	}
	resp, err := l.client.Do(req)
	must(l.w.t, err)
	body, err := io.ReadAll(resp.Body)
	must(l.w.t, errors.Join(err, resp.Body.Close()))
	return answered{resp.StatusCode, resp.Header, body, resp.Close}
}

func (l *line) post(path string, csr []byte) answered {
	l.w.t.Helper()
	return l.call(http.MethodPost, path, csr)
}

// state is how the line was made, after a call.
func (l *line) state() *tls.ConnectionState {
	l.w.t.Helper()
	var state tls.ConnectionState
	ctx := httptrace.WithClientTrace(l.w.t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		state = i.Conn.(*tls.Conn).ConnectionState()
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.w.server.URL+est.Prefix+"cacerts", nil)
	must(l.w.t, err)
	resp, err := l.client.Do(req)
	must(l.w.t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	must(l.w.t, errors.Join(err, resp.Body.Close()))
	return &state
}

// request makes a CSR of the device that c is of; change may change its template.
func request(t testing.TB, c tls.Certificate, key crypto.Signer, change func(*x509.CertificateRequest)) []byte {
	t.Helper()
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	must(t, err)
	id, err := idevid.Parse(leaf)
	must(t, err)
	tmpl, err := idevid.RequestTemplate(id)
	must(t, err)
	if change != nil {
		change(tmpl)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	must(t, err)
	return der
}

// bound is request, with a challengePassword.
func bound(t testing.TB, c tls.Certificate, key crypto.Signer, password string, change func(*x509.CertificateRequest)) []byte {
	t.Helper()
	der, err := agentest.BindCSR(request(t, c, key, change), key, password)
	must(t, err)
	return der
}

func TestLabelsNameTheProduct(t *testing.T) {
	w := newWorld(t)
	_, idev := w.made(true)
	l := w.as(idev)
	csr := request(t, idev, newKey(t), nil)
	if a := l.post("thermo/simpleenroll", csr); a.status != http.StatusOK {
		t.Errorf("its own product: %d %s", a.status, a.body)
	}
	if a := l.post("pump/simpleenroll", csr); a.status != http.StatusForbidden || !strings.HasPrefix(a.text(), "enrol.label") {
		t.Errorf("another product: %d %s", a.status, a.body)
	}
	nobody := w.line(&tls.Config{})
	for path, want := range map[string]int{
		"thermo/cacerts": 200, "thermo/csrattrs": 200, "cacerts": 200, "csrattrs": 200, "pump/csrattrs": 404, "thermo/simpleenroll": 405, "thermo/other": 404,
	} {
		if a := nobody.call(http.MethodGet, path, nil); a.status != want {
			t.Errorf("%s without a certificate: %d, want %d", path, a.status, want)
		}
	}
	if a := nobody.post("simpleenroll", csr); a.status != http.StatusUnauthorized || !strings.Contains(a.text(), "certificate from the factory") {
		t.Errorf("to enrol without a certificate: %d %s", a.status, a.body)
	}
	if a := l.post("fullcmc", csr); a.status != http.StatusNotImplemented {
		t.Errorf("full CMC: %d", a.status)
	}
}

// attrsOf reads CsrAttrs as RFC 7030 has it: OIDs, and attributes by their type.
func attrsOf(t *testing.T, a answered) (oids []string, attrs map[string][]asn1.RawValue) {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(a.body), "\n", ""))
	must(t, err)
	var list []asn1.RawValue
	rest, err := asn1.Unmarshal(der, &list)
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/csrattrs" || err != nil || len(rest) != 0 {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	attrs = map[string][]asn1.RawValue{}
	for _, item := range list {
		if item.Tag == asn1.TagOID {
			var oid asn1.ObjectIdentifier
			_, err := asn1.Unmarshal(item.FullBytes, &oid)
			must(t, err)
			oids = append(oids, oid.String())
			continue
		}
		typ, values := attribute(t, item.FullBytes)
		attrs[typ] = values
	}
	return oids, attrs
}

func attribute(t *testing.T, der []byte) (string, []asn1.RawValue) {
	t.Helper()
	var a struct {
		Type   asn1.ObjectIdentifier
		Values []asn1.RawValue `asn1:"set"`
	}
	_, err := asn1.Unmarshal(der, &a)
	must(t, err)
	return a.Type.String(), a.Values
}

const (
	oidKey      = "1.2.840.10045.2.1"
	oidTemplate = "1.2.840.113549.1.9.16.2.61"
	oidExtReq   = "1.2.840.113549.1.9.14"
	oidExtTmpl  = "1.2.840.113549.1.9.16.2.62"
	oidPassword = "1.2.840.113549.1.9.7"
)

// templateOf reads CertificationRequestInfoTemplate (RFC 9908).
func templateOf(t *testing.T, attrs map[string][]asn1.RawValue) (subject []byte, curve string, inside map[string][]asn1.RawValue) {
	t.Helper()
	if len(attrs[oidTemplate]) != 1 {
		t.Fatalf("%d templates", len(attrs[oidTemplate]))
	}
	var tmpl struct {
		Version int
		Subject asn1.RawValue
		Key     struct {
			Algorithm struct{ ID, Curve asn1.ObjectIdentifier }
		} `asn1:"tag:0"`
		Attributes []asn1.RawValue `asn1:"set,tag:1"`
	}
	rest, err := asn1.Unmarshal(attrs[oidTemplate][0].FullBytes, &tmpl)
	if err != nil || len(rest) != 0 || tmpl.Version != 0 || tmpl.Key.Algorithm.ID.String() != oidKey {
		t.Fatalf("template %+v: %v", tmpl, err)
	}
	inside = map[string][]asn1.RawValue{}
	for _, a := range tmpl.Attributes {
		typ, values := attribute(t, a.FullBytes)
		inside[typ] = values
	}
	return tmpl.Subject.FullBytes, tmpl.Key.Algorithm.Curve.String(), inside
}

// What is asked for is, in both forms, what is then taken.
func TestWhatARequestShouldHold(t *testing.T) {
	w := newWorld(t)
	_, idev := w.made(true)
	w.registry.rule(suite.P384, product.Enrolment{Mode: product.Automatic, Binding: true})
	l := w.as(idev)
	oids, attrs := attrsOf(t, l.call(http.MethodGet, "csrattrs", nil))
	subject, curve, inside := templateOf(t, attrs)
	leaf, err := x509.ParseCertificate(idev.Certificate[0])
	must(t, err)
	if !bytes.Equal(subject, leaf.RawSubject) || curve != "1.3.132.0.34" || len(inside) != 2 || len(inside[oidPassword]) != 0 {
		t.Errorf("subject %x, curve %s, attributes %v", subject, curve, inside)
	}
	if strings.Join(oids, " ") != "1.2.840.10045.4.3.3 "+oidPassword || len(attrs[oidKey]) != 1 || !bytes.Equal(attrs[oidExtReq][0].FullBytes, inside[oidExtReq][0].FullBytes) {
		t.Errorf("the old form: %v %v", oids, attrs)
	}
	var exts []pkix.Extension
	_, err = asn1.Unmarshal(inside[oidExtReq][0].FullBytes, &exts)
	must(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	exported, err := l.state().ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32)
	must(t, err)
	a := l.post("simpleenroll", bound(t, idev, key, base64.StdEncoding.EncodeToString(exported), func(r *x509.CertificateRequest) {
		r.RawSubject, r.ExtraExtensions = subject, exts
	}))
	if c := a.cert(t); c.PublicKeyAlgorithm != x509.ECDSA {
		t.Errorf("certificate for %s", c.PublicKeyAlgorithm)
	}

	// Who is not known is told the kinds alone.
	_, attrs = attrsOf(t, w.line(&tls.Config{}).call(http.MethodGet, "csrattrs", nil))
	subject, curve, inside = templateOf(t, attrs)
	var names [][]struct{ Type asn1.ObjectIdentifier } // RDNs are SETs; each has one type and no value
	if curve != "1.2.840.10045.3.1.7" || len(inside) != 1 || len(inside[oidExtTmpl]) != 1 || len(attrs[oidExtReq]) != 0 {
		t.Errorf("to nobody: curve %s, %v, %v (%v)", curve, inside, attrs, names)
	}
	if !bytes.Contains(subject, []byte{0x06, 0x03, 0x55, 0x04, 0x05}) || bytes.Contains(subject, []byte("acme")) {
		t.Errorf("to nobody: subject %x", subject)
	}
	if _, attrs := attrsOf(t, w.line(&tls.Config{}).call(http.MethodGet, "thermo/csrattrs", nil)); len(attrs[oidKey]) != 1 || !bytes.Contains(attrs[oidKey][0].Bytes, []byte{0x81, 0x04, 0x00, 0x22}) {
		t.Errorf("by the label alone: %v", attrs)
	}
}

func TestAKeyThatIsMadeHere(t *testing.T) {
	w := newWorld(t)
	id, idev := w.made(true)
	l := w.as(idev)
	csr := request(t, idev, newKey(t), nil)
	if a := l.post("serverkeygen", csr); a.status != http.StatusForbidden || !strings.HasPrefix(a.text(), "enrol.server-keys") {
		t.Fatalf("where the product does not allow it: %d %s", a.status, a.body)
	}
	w.registry.rule(suite.P256, product.Enrolment{Mode: product.Automatic, ServerKeys: true})
	keys := map[string]bool{}
	for range 2 { // the key is kept nowhere, so that asking again gives another
		a := l.post("serverkeygen", csr)
		cert, key := keyAndCert(t, a)
		if pub, ok := key.Public().(*ecdsa.PublicKey); !ok || !pub.Equal(cert.PublicKey) {
			t.Fatal("the key is not the certificate's")
		}
		keys[string(cert.RawSubjectPublicKeyInfo)] = true
		if a := w.as(tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}).post("simplereenroll", request(t, idev, newKey(t), nil)); a.status != http.StatusOK {
			t.Errorf("renewal with it: %d %s", a.status, a.body)
		}
	}
	if len(keys) != 2 || w.facts("device.key.travelled", id) != 2 || w.facts("device.enrolled", id) != 2 {
		t.Errorf("%d keys, %d facts that one travelled, %d enrolments", len(keys), w.facts("device.key.travelled", id), w.facts("device.enrolled", id))
	}
	sealed := request(t, idev, newKey(t), func(r *x509.CertificateRequest) {
		//nolint:staticcheck // the way to write this attribute with crypto/x509
		r.Attributes = append(r.Attributes, pkix.AttributeTypeAndValueSET{
			Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 37}, Value: [][]pkix.AttributeTypeAndValue{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "k"}}},
		})
	})
	if a := l.post("serverkeygen", sealed); a.status != http.StatusBadRequest || !strings.HasPrefix(a.text(), "csr.decrypt-key") {
		t.Errorf("a key that is to come encrypted: %d %s", a.status, a.body)
	}
}

func keyAndCert(t *testing.T, a answered) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if a.status != http.StatusOK || err != nil || kind != "multipart/mixed" || a.header.Get("Content-Length") != strconv.Itoa(len(a.body)) {
		t.Fatalf("%d %v: %s", a.status, a.header, a.body)
	}
	var parts [][]byte
	for r := multipart.NewReader(bytes.NewReader(a.body), params["boundary"]); ; {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		b, err := io.ReadAll(p)
		must(t, err)
		if want := []string{"application/pkcs8", "application/pkcs7-mime; smime-type=certs-only"}[len(parts)]; p.Header.Get("Content-Type") != want || p.Header.Get("Content-Transfer-Encoding") != "base64" {
			t.Fatalf("part %d: %v", len(parts), p.Header)
		}
		parts = append(parts, b)
	}
	der, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(parts[0]), "\n", ""))
	must(t, err)
	key, err := x509.ParsePKCS8PrivateKey(der)
	must(t, err)
	certs, err := agentest.DecodeCerts(parts[1])
	must(t, err)
	return certs[0], key.(crypto.Signer)
}

// A request that names its line is taken on that line only, with both versions of TLS.
func TestARequestThatNamesItsLine(t *testing.T) {
	w := newWorld(t)
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		id, idev := w.made(true)
		w.registry.rule(suite.P256, product.Enrolment{Mode: product.Automatic})
		connect := func() (*line, string) {
			l := w.line(&tls.Config{Certificates: []tls.Certificate{idev}, MaxVersion: version})
			state := l.state()
			binding := state.TLSUnique
			if version == tls.VersionTLS13 {
				var err error
				binding, err = state.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32)
				must(t, err)
			}
			return l, base64.StdEncoding.EncodeToString(binding)
		}
		key := newKey(t)
		l, binding := connect()
		first := l.post("simpleenroll", bound(t, idev, key, binding, nil)).cert(t)
		other, others := connect()
		for what, a := range map[string]answered{
			"another line's":  other.post("simpleenroll", bound(t, idev, key, binding, nil)),
			"a word":          l.post("simpleenroll", bound(t, idev, key, "secret", nil)),
			"another's, back": l.post("simpleenroll", bound(t, idev, key, others, nil)),
		} {
			if a.status != http.StatusBadRequest || !strings.HasPrefix(a.text(), "csr.binding") {
				t.Errorf("%s, %s: %d %s", name, what, a.status, a.body)
			}
		}
		// On another line it is another request by its bytes, and the same by what it asks for.
		if again := other.post("simpleenroll", bound(t, idev, key, others, nil)).cert(t); !again.Equal(first) || w.facts("cert.issued", id) != 1 {
			t.Errorf("%s: asked again on another line, it got another certificate", name)
		}
		w.registry.rule(suite.P256, product.Enrolment{Mode: product.Automatic, Binding: true})
		if a := l.post("simpleenroll", request(t, idev, key, nil)); a.status != http.StatusBadRequest || !strings.HasPrefix(a.text(), "csr.unbound") {
			t.Errorf("%s, unbound: %d %s", name, a.status, a.body)
		}
	}
}

// Where the product says so a person lets in each request with a factory identity: that one, and no other.
func TestAPersonLetsDevicesIn(t *testing.T) {
	w := newWorld(t)
	w.registry.rule(suite.P256, product.Enrolment{Mode: product.Approved})
	id, idev := w.made(true)
	l := w.as(idev)
	key := newKey(t)
	pending := func(csr []byte) {
		t.Helper()
		a := l.post("simpleenroll", csr)
		if a.status != http.StatusAccepted || a.header.Get("Retry-After") != "600" || !strings.Contains(a.text(), "approve") {
			t.Fatalf("%d %v %s", a.status, a.header, a.body)
		}
	}
	pending(request(t, idev, newKey(t), nil))
	seen := w.waiting(id)
	pending(request(t, idev, key, nil)) // takes the place of the first
	pending(request(t, idev, key, nil)) // the same, signed anew
	if w.facts("cert.issued", id) != 0 {
		t.Fatal("a certificate before anybody decided")
	}
	ann := access.Caller{ID: "person:ann", Kind: access.Person, Roles: []access.Role{access.Operator}}
	if _, err := w.onboard.Approve(t.Context(), ann, id, seen.Request, "on the label"); fault.KindOf(err) != fault.Conflict {
		t.Errorf("what was replaced was approved: %v", err)
	}
	if _, err := w.onboard.Approve(t.Context(), access.Caller{ID: "person:vic", Kind: access.Person, Roles: []access.Role{access.Viewer}}, id, w.waiting(id).Request, "x"); fault.KindOf(err) != fault.Denied {
		t.Errorf("by a viewer: %v", err)
	}
	if _, err := w.onboard.Approve(t.Context(), ann, id, w.waiting(id).Request, "on the label"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.onboard.Refuse(t.Context(), ann, id, w.waiting(id).Request, "no"); fault.KindOf(err) != fault.Conflict {
		t.Errorf("decided twice: %v", err)
	}
	cert := l.post("simpleenroll", request(t, idev, key, nil)).cert(t)
	if w.facts("enrolment.approved", id) != 1 || w.facts("device.enrolled", id) != 1 {
		t.Error("facts of the decision and the enrolment are missing")
	}
	// Its renewal takes nobody.
	if a := w.as(tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}).post("simplereenroll", request(t, idev, newKey(t), nil)); a.status != http.StatusOK {
		t.Errorf("renewal: %d %s", a.status, a.body)
	}

	// Another key waits anew, also when it is to be made here; refused is refused until it lapses.
	next := newKey(t)
	pending(request(t, idev, next, nil))
	if _, err := w.onboard.Refuse(t.Context(), ann, id, w.waiting(id).Request, "nobody asked for it"); err != nil {
		t.Fatal(err)
	}
	if a := l.post("simpleenroll", request(t, idev, next, nil)); a.status != http.StatusForbidden || !strings.HasPrefix(a.text(), "enrol.turned-down") {
		t.Errorf("refused: %d %s", a.status, a.body)
	}
	w.clock.add(onboard.Lapse)
	must(t, w.pki.Refresh(t.Context()))
	pending(request(t, idev, next, nil))
	w.registry.rule(suite.P256, product.Enrolment{Mode: product.Approved, ServerKeys: true})
	if a := l.post("serverkeygen", request(t, idev, next, nil)); a.status != http.StatusAccepted {
		t.Errorf("a key made here: %d %s", a.status, a.body)
	}
	if got := w.waiting(id); got.Call != onboard.CallKeygen {
		t.Errorf("what waits: %+v", got)
	}
}

func (w *world) waiting(id string) onboard.Waiting {
	w.t.Helper()
	got, err := w.onboard.Waiting(w.t.Context(), access.Internal("test"), id)
	must(w.t, err)
	return got
}

// A mode that this version does not know lets nobody in by itself.
func TestAnUnknownModeLetsNobodyIn(t *testing.T) {
	w := newWorld(t)
	_, idev := w.made(true)
	w.registry.rule(suite.P256, product.Enrolment{})
	if a := w.as(idev).post("simpleenroll", request(t, idev, newKey(t), nil)); a.status != http.StatusAccepted {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.registry.rule("", product.Enrolment{Mode: product.Automatic})
	if a := w.as(idev).post("simpleenroll", request(t, idev, newKey(t), nil)); a.status != http.StatusBadRequest || !strings.HasPrefix(a.text(), "csr.suite") {
		t.Errorf("of a product that is not on record: %d %s", a.status, a.body)
	}
}
