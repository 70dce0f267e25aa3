package est_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/device"
	server "github.com/hallmark-iot/hallmark/internal/est"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// strangers is an enrolment server at which devices of other makers may enrol.
type strangers struct {
	*world
	foreign *foreign.Service
	pki     *pki.Service
}

func newStrangers(t testing.TB) *strangers {
	t.Helper()
	w := &strangers{world: newWorld(t)}
	guard, err := access.NewGuard(noAudit{})
	must(t, err)
	revoked := pki.NewRevocations(time.Hour)
	w.pki, err = pki.New(pki.Config{
		Guard: guard, Store: w.db.PKI(), Trust: w.world.pki.Trust(), Revocations: revoked, Operational: w.op, Root: w.root.Cert, Now: w.clock.now,
	})
	must(t, err)
	must(t, w.pki.Refresh(t.Context()))
	products := product.New(guard, w.db, []string{"HM-P256-1"})
	for _, id := range []string{"thermo", "valve"} {
		_, err = products.Create(t.Context(), access.Internal("test"), product.Product{
			ID: id, OEM: "acme", Name: id, Hardware: []string{"B", "C"}, Model: wire.ModelBlob, Suite: "HM-P256-1", EndOfSupport: w.clock.now().AddDate(5, 0, 0),
		})
		must(t, err)
	}
	w.foreign, err = foreign.New(foreign.Config{Guard: guard, Store: w.db.Foreign(), Products: products, Trust: w.pki.Trust(), OEM: "acme", Now: w.clock.now})
	must(t, err)
	must(t, w.foreign.Load(t.Context()))
	w.pki.Trust().LetIn(w.foreign)
	t.Cleanup(func() { w.pki.Trust().LetIn(nobody{}) })
	enroller, err := onboard.New(onboard.Config{Guard: guard, PKI: w.pki, Registry: w.db.Onboard(), Store: w.db.Onboard(), Now: w.clock.now})
	must(t, err)
	conf := w.server.TLS.Clone()
	conf.VerifyConnection = pki.VerifyConnection(w.pki.Trust(), revoked, w.clock.now)
	w.server = httptest.NewUnstartedServer(server.New(server.Config{
		Onboard: w.foreign.Before(enroller), Identity: w.foreign.Identity, CACerts: w.pki.CACerts, Log: slog.New(slog.DiscardHandler),
	}))
	w.server.TLS = conf
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	return w
}

type nobody struct{}

func (nobody) Arrived(*x509.Certificate, idevid.Identity, time.Time) (pki.Device, error) {
	return pki.Device{}, pki.ErrNotForeign
}

func (nobody) Find([]*x509.Certificate, time.Time) (pki.Device, error) {
	return pki.Device{}, pki.ErrNotForeign
}

// sue trusts foreign CAs, with a second person; fred imports lists.
func sue() access.Caller {
	return access.Caller{ID: "person:sue", Kind: access.Person, Roles: []access.Role{access.Security}, Seconded: "person:ben"}
}

func fred() access.Caller {
	return access.Caller{ID: "person:fred", Kind: access.Person, Roles: []access.Role{access.Factory}}
}

// maker is another maker, with a CA.
type maker struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
	up   *maker // that signed it
	n    int64
}

func newMaker(t testing.TB, key crypto.Signer, up *maker, change func(c *x509.Certificate)) *maker {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"Other Works"}, CommonName: fmt.Sprintf("Other Device CA %T", key)}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().AddDate(20, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if change != nil {
		change(tmpl)
	}
	m := &maker{t: t, key: key, up: up, n: 100}
	parent, signer := tmpl, key
	if up != nil {
		parent, signer = up.cert, up.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	must(t, err)
	m.cert, err = x509.ParseCertificate(der)
	must(t, err)
	return m
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	must(t, err)
	return k
}

// builds makes a device of the maker, called name.
func (m *maker) builds(name string, key crypto.Signer, change func(c *x509.Certificate)) tls.Certificate {
	m.t.Helper()
	m.n++
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(m.n), Subject: pkix.Name{Organization: []string{"Other Works"}, SerialNumber: name, CommonName: "sensor"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: idevid.NoExpiry(), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if change != nil {
		change(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, m.cert, key.Public(), m.key)
	must(m.t, err)
	out := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	for up := m; up != nil; up = up.up {
		out.Certificate = append(out.Certificate, up.cert.Raw)
	}
	return out
}

func (w *strangers) trusts(m *maker, productID string, anyDevice bool) foreign.CA {
	w.t.Helper()
	ca, err := w.foreign.Trust(w.t.Context(), sue(), foreign.Spec{Product: productID, Certificates: [][]byte{m.cert.Raw}, Map: "serialNumber", Any: anyDevice})
	must(w.t, err)
	return ca
}

func (w *strangers) lists(ca string, names ...string) {
	w.t.Helper()
	rep, err := w.foreign.Import(w.t.Context(), fred(), foreign.List{Product: "thermo", Format: foreign.CSV, CA: ca}, strings.NewReader("name\n"+strings.Join(names, "\n")+"\n"))
	must(w.t, err)
	if rep.Imported != len(names) {
		w.t.Fatalf("%+v", rep)
	}
}

// asks has a device enrol over TLS with a request for a fresh key, and gives its LDevID.
func (w *strangers) asks(as tls.Certificate) (*x509.Certificate, error) {
	w.t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, newKey(w.t))
	must(w.t, err)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: w.roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &as, nil },
	}}}
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.server.URL+server.Prefix+"simpleenroll", strings.NewReader(base64.StdEncoding.EncodeToString(csr)))
	must(w.t, err)
	req.Header.Set("Content-Type", "application/pkcs10")
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(w.t, err)
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%d %s", resp.StatusCode, body)
	}
	certs, err := est.DecodeCerts(body)
	must(w.t, err)
	return certs[0], nil
}

func TestADeviceOfAnotherMakerGetsOurWorkingIdentity(t *testing.T) {
	w := newStrangers(t)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	for name, c := range map[string]struct{ ca, dev crypto.Signer }{
		"RSA":   {rsaKey(t, 3072), rsaKey(t, 2048)},
		"P-256": {newKey(t), p256},
		"P-384": {rsaKey(t, 2048), p384},
	} {
		m := newMaker(t, c.ca, nil, nil)
		ca := w.trusts(m, "thermo", false)
		as := m.builds("SN-"+name, c.dev, nil)
		if _, err := w.asks(as); err == nil {
			t.Errorf("%s: let in, and on no list", name)
		}
		w.lists(ca.ID, "SN-"+name)
		cert, err := w.asks(as)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		id, err := idevid.Parse(cert)
		must(t, err)
		if want := pki.ForeignID("thermo", pki.ForeignName, ca.ID+"/SN-"+name); id != (idevid.Identity{Kind: idevid.LDevID, DeviceID: want, OEM: "acme", Product: "thermo", HWRev: "B"}) {
			t.Errorf("%s: %+v", name, id)
		}
		d, err := w.db.Devices().Device(t.Context(), id.DeviceID)
		must(t, err)
		if d.Legitimacy != device.Imported || w.facts(string(ledger.KindDeviceImported), id.DeviceID) != 1 {
			t.Errorf("%s: it is %s", name, d.Legitimacy)
		}
		// Another piece that calls itself the same is not it.
		if _, err := w.asks(m.builds("SN-"+name, newKey(t), nil)); err == nil || !strings.Contains(err.Error(), "enrol.key") {
			t.Errorf("%s: a second device of that name: %v", name, err)
		}
		must(t, w.foreign.Untrust(t.Context(), sue(), ca.ID, "the maker lost its key"))
		if _, err := w.asks(as); err == nil {
			t.Errorf("%s: let in by a CA that is believed no more", name)
		}
	}
}

// What a foreign CA signs is a factory identity of its own devices, for its product, and nothing else.
func TestAForeignCASpeaksForNothingElse(t *testing.T) {
	w := newStrangers(t)
	m := newMaker(t, newKey(t), nil, nil)
	ca := w.trusts(m, "thermo", true)
	now := w.clock.now()
	ours, idev := w.made(true)
	leaf, err := x509.ParseCertificate(idev.Certificate[0])
	must(t, err)
	profile := func(kind idevid.Kind, productID string) func(c *x509.Certificate) {
		return func(c *x509.Certificate) {
			serial, err := idevid.RandomSerial()
			must(t, err)
			end := idevid.NoExpiry()
			if kind == idevid.LDevID {
				end = now.Add(time.Hour)
			}
			tmpl, err := idevid.Template(idevid.Identity{Kind: kind, DeviceID: ours, OEM: "acme", Product: productID, HWRev: "B"}, serial, now.Add(-time.Hour), end)
			must(t, err)
			*c = *tmpl
		}
	}
	trust := w.pki.Trust()
	for name, change := range map[string]func(c *x509.Certificate){
		"our factory identity":                  profile(idevid.IDevID, "thermo"),
		"our factory identity, another product": profile(idevid.IDevID, "valve"),
		"our operational identity":              profile(idevid.LDevID, "thermo"),
		"a server's":                            func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"a CA's":                                func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true },
		"one that may not sign":                 func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment },
		"expired":                               func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) },
		"not yet valid":                         func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) },
		"without the name":                      func(c *x509.Certificate) { c.Subject.SerialNumber = "" },
		"with a name that is no name":           func(c *x509.Certificate) { c.Subject.SerialNumber = "a\x01b" },
		"with a name of braces":                 func(c *x509.Certificate) { c.Subject.SerialNumber = "{cn}" },
		"with a critical extension nobody knows": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		},
	} {
		as := m.builds("SN-1", newKey(t), change)
		var chain []*x509.Certificate
		for _, der := range as.Certificate {
			c, err := x509.ParseCertificate(der)
			must(t, err)
			chain = append(chain, c)
		}
		if d, err := trust.VerifyDevice(chain, now); err == nil {
			t.Errorf("%s: taken for device %+v", name, d.Identity)
		}
		if _, err := w.asks(as); err == nil {
			t.Errorf("%s: enrolled", name)
		}
	}
	// Nor does what it signs for its product make a device of another one, nor of one of ours.
	as := m.builds(ours, newKey(t), nil)
	cert, err := w.asks(as)
	must(t, err)
	id, err := idevid.Parse(cert)
	must(t, err)
	if id.DeviceID == ours || id.Product != "thermo" {
		t.Errorf("it is %+v", id)
	}
	// The device of ours is what it was.
	d, err := trust.VerifyDevice([]*x509.Certificate{leaf, w.order.Cert}, now)
	if err != nil || d.Identity.DeviceID != ours {
		t.Errorf("ours: %+v, %v", d.Identity, err)
	}
	_ = ca
}

func TestWhichForeignCAIsNotBelieved(t *testing.T) {
	w := newStrangers(t)
	good := newMaker(t, newKey(t), nil, nil)
	w.trusts(good, "valve", false)
	under := newMaker(t, newKey(t), good, func(c *x509.Certificate) { c.Subject.CommonName = "below" })
	spec := func(m *maker) foreign.Spec {
		return foreign.Spec{Product: "thermo", Certificates: [][]byte{m.cert.Raw}, Map: "serialNumber"}
	}
	weak := newMaker(t, rsaKey(t, 1024), nil, nil)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	must(t, err)
	for name, c := range map[string]struct {
		spec foreign.Spec
		code string
	}{
		"believed for another product": {spec(good), "foreign.product"},
		"below one of another product": {spec(under), "foreign.product"},
		"RSA of 1024 bits":             {spec(weak), "foreign.ca"},
		"P-521":                        {spec(newMaker(t, p521, nil, nil)), "foreign.ca"},
		"expired":                      {spec(newMaker(t, newKey(t), nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })), "foreign.ca"},
		"no CA":                        {spec(newMaker(t, newKey(t), nil, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })), "foreign.ca"},
		"may not sign certificates":    {spec(newMaker(t, newKey(t), nil, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })), "foreign.ca"},
		"one of ours":                  {foreign.Spec{Product: "thermo", Certificates: [][]byte{w.op.Cert.Raw}, Map: "cn"}, "foreign.ca"},
		"nonsense":                     {foreign.Spec{Product: "thermo", Certificates: [][]byte{{1, 2}}, Map: "cn"}, "foreign.ca"},
		"none":                         {foreign.Spec{Product: "thermo", Map: "cn"}, "foreign.ca"},
		"a mapping of one name":        {foreign.Spec{Product: "thermo", Certificates: [][]byte{good.cert.Raw}, Map: "{o}"}, "foreign.ca"},
		"a mapping of nothing":         {foreign.Spec{Product: "thermo", Certificates: [][]byte{good.cert.Raw}, Map: "device"}, "foreign.ca"},
		"hardware nobody has":          {foreign.Spec{Product: "thermo", Hardware: "Z", Certificates: [][]byte{good.cert.Raw}, Map: "cn"}, "foreign.hardware"},
	} {
		if ca, err := w.foreign.Trust(t.Context(), sue(), c.spec); code(err) != c.code {
			t.Errorf("%s: %+v, %v, want %s", name, ca, err, c.code)
		}
	}
	alone := sue()
	alone.Seconded = ""
	var second *access.SecondNeededError
	if _, err := w.foreign.Trust(t.Context(), alone, spec(newMaker(t, newKey(t), nil, nil))); !errors.As(err, &second) {
		t.Errorf("one person alone: %v", err)
	}
	if _, err := w.foreign.Trust(t.Context(), fred(), spec(newMaker(t, newKey(t), nil, nil))); code(err) != "access.denied" {
		t.Errorf("a factory: %v", err)
	}
}

// A chain with a CA between, which a pathLen forbids, is not followed.
func TestAPathThatIsTooLongIsNotFollowed(t *testing.T) {
	w := newStrangers(t)
	for name, zero := range map[string]bool{"a CA between": false, "pathLen 0": true} {
		top := newMaker(t, newKey(t), nil, func(c *x509.Certificate) {
			c.Subject.CommonName, c.MaxPathLenZero, c.MaxPathLen = "top "+name, zero, map[bool]int{true: 0, false: 1}[zero]
		})
		mid := newMaker(t, newKey(t), top, func(c *x509.Certificate) { c.Subject.CommonName = "mid " + name })
		w.trusts(top, "thermo", true)
		_, err := w.asks(mid.builds("SN-"+name, newKey(t), nil))
		if (err != nil) != zero {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestListsOfOtherRegistriesAreTaken(t *testing.T) {
	w := newStrangers(t)
	m := newMaker(t, newKey(t), nil, nil) // nobody believes this CA: the devices are pinned
	devs := map[string]tls.Certificate{}
	for _, n := range []string{"aws-pem", "aws-id", "azure-sha1", "azure-sha256", "csv-der", "csv-key", "nobody"} {
		devs[n] = m.builds(n, newKey(t), nil)
	}
	der := func(n string) []byte { return devs[n].Certificate[0] }
	fingerprint := func(n string) string { s := sha256.Sum256(der(n)); return hex.EncodeToString(s[:]) }
	leaf, err := x509.ParseCertificate(der("csv-key"))
	must(t, err)
	key := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	old := sha1.Sum(der("azure-sha1"))
	doc := func(v any) string { b, err := json.Marshal(v); must(t, err); return string(b) + "\n" }
	type m1 = map[string]any
	aws := doc(m1{"thingName": "pump-1", "attributes": m1{"site": "x"}, "certificateDescription": m1{
		"certificateArn": "arn:aws:iot:eu-central-1:1:cert/" + fingerprint("aws-pem"), "certificateId": fingerprint("aws-pem"), "status": "ACTIVE", "certificateMode": "DEFAULT",
		"certificatePem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der("aws-pem")})), "validity": m1{"notBefore": 1.5e9},
	}}) + doc(m1{"thingName": "pump-2", "certificateId": fingerprint("aws-id"), "status": "ACTIVE"}) +
		doc(m1{"thingName": "pump-3", "certificateId": fingerprint("nobody"), "status": "INACTIVE"}) +
		doc(m1{"certificateId": fingerprint("nobody"), "status": "ACTIVE", "certificatePem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der("aws-pem")}))}) + "no json\n"
	azure := doc(m1{"id": "dev1", "eTag": "MA==", "status": "enabled", "authentication": m1{"type": "selfSigned", "x509Thumbprint": m1{"primaryThumbprint": strings.ToUpper(hex.EncodeToString(old[:])), "secondaryThumbprint": nil}}}) +
		doc(m1{"id": "dev2", "status": "enabled", "authentication": m1{"type": "selfSigned", "x509Thumbprint": m1{"primaryThumbprint": fingerprint("azure-sha256")}}}) +
		doc(m1{"id": "dev3", "status": "enabled", "authentication": m1{"type": "sas", "symmetricKey": m1{"primaryKey": "c2VjcmV0"}}}) +
		doc(m1{"id": "dev4", "status": "disabled", "authentication": m1{"type": "certificateAuthority"}}) +
		doc(m1{"id": "dev5", "status": "enabled", "authentication": m1{"type": "certificateAuthority"}})
	csv := "name,hardware,certificate,key_sha256\nc1,C," + base64.StdEncoding.EncodeToString(der("csv-der")) + ",\nc2,,," + hex.EncodeToString(key[:]) + "\nc3,Z,," + strings.Repeat("ab", 32) + "\nc4,,,zz\nc5\n"
	for _, c := range []struct {
		format           foreign.Format
		text             string
		imported, refuse int
		lines            []int
	}{{foreign.AWS, aws, 2, 3, []int{3, 4, 5}}, {foreign.Azure, azure, 2, 3, []int{3, 4, 5}}, {foreign.CSV, csv, 2, 3, []int{4, 5, 6}}} {
		l := foreign.List{Product: "thermo", Format: c.format, Dry: true}
		for i, want := range []foreign.Report{
			{Imported: c.imported, Refused: c.refuse}, {Imported: c.imported, Refused: c.refuse}, {Known: c.imported, Refused: c.refuse},
		} {
			l.Dry = i == 0
			rep, err := w.foreign.Import(t.Context(), fred(), l, strings.NewReader(c.text))
			must(t, err)
			if rep.Imported != want.Imported || rep.Known != want.Known || rep.Refused != want.Refused {
				t.Errorf("%s, %d: %+v", c.format, i, rep)
			}
			for j, e := range rep.Errors {
				if e.Line != c.lines[j] || e.Text == "" {
					t.Errorf("%s: error %+v, want line %d", c.format, e, c.lines[j])
				}
			}
		}
	}
	for n, as := range devs {
		cert, err := w.asks(as)
		if (err == nil) != (n != "nobody") {
			t.Errorf("%s: %v, %v", n, cert, err)
		}
		if n == "csv-der" && err == nil {
			if id, err := idevid.Parse(cert); err != nil || id.HWRev != "C" {
				t.Errorf("%+v, %v", id, err)
			}
		}
	}
	// The same certificate again for another product is nobody's.
	rep, err := w.foreign.Import(t.Context(), fred(), foreign.List{Product: "valve", Format: foreign.AWS}, strings.NewReader(aws))
	if must(t, err); rep.Imported != 0 || rep.Refused != 5 {
		t.Errorf("for another product: %+v", rep)
	}
}

// A list is read line by line: neither a long line, nor many, nor none of the format make it be kept in memory.
func TestALongListIsReadInBoundedMemory(t *testing.T) {
	for name, c := range map[string]struct {
		format foreign.Format
		r      io.Reader
	}{
		"a line without end": {foreign.CSV, io.MultiReader(strings.NewReader("name\n"), endless{})},
		"a header of others": {foreign.CSV, strings.NewReader("secret\nx\n")},
		"nothing":            {foreign.CSV, strings.NewReader("")},
		"no such format":     {"xml", strings.NewReader("<a/>")},
		"too many lines":     {foreign.Azure, bytes.NewReader(bytes.Repeat([]byte("{}\n"), foreign.MaxLines+1))},
	} {
		if err := foreign.Read(c.format, c.r, func(foreign.Line) error { return nil }); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

// OpenSSL makes a CA and a device with RSA keys, and curl enrols it: nothing of ours is on it.
func TestAPlainClientEnrolsAForeignDevice(t *testing.T) {
	for _, p := range []string{"openssl", "curl"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(p + " is not installed")
		}
	}
	w := newStrangers(t)
	dir := t.TempDir()
	sh := func(script string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", script)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	must(t, os.WriteFile(filepath.Join(dir, "root.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.root.Cert.Raw}), 0o600))
	w.clock.add(time.Minute) // openssl has a clock of its own
	must(t, w.pki.Refresh(t.Context()))
	sh(`openssl req -x509 -newkey rsa:3072 -nodes -keyout ca.key -out ca.pem -days 3650 -subj '/O=Other Works/CN=Device CA' -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
		openssl req -newkey rsa:2048 -nodes -keyout dev.key -out dev.csr -subj '/O=Other Works/serialNumber=A-4711' 2>/dev/null
		openssl x509 -req -in dev.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -out dev.pem 2>/dev/null
		openssl x509 -in ca.pem -outform DER -out ca.der`)
	der, err := os.ReadFile(filepath.Join(dir, "ca.der"))
	must(t, err)
	ca, err := w.foreign.Trust(t.Context(), sue(), foreign.Spec{Product: "thermo", Certificates: [][]byte{der}, Map: "{serialNumber}"})
	must(t, err)
	w.lists(ca.ID, "A-4711")
	out := sh(`openssl ecparam -name prime256v1 -genkey -noout -out new.key
		openssl req -new -key new.key -subj / -outform DER | openssl base64 >new.b64
		curl -sS --fail-with-body --cacert root.pem --cert dev.pem --key dev.key -H 'Content-Type: application/pkcs10' --data-binary @new.b64 ` + w.server.URL + `/.well-known/est/simpleenroll >new.p7
		openssl base64 -d -in new.p7 | openssl pkcs7 -inform DER -print_certs -out new.pem
		openssl x509 -in new.pem -noout -subject
		openssl x509 -x509toreq -copy_extensions copy -in new.pem -signkey new.key 2>/dev/null | openssl req -outform DER | openssl base64 >again.b64
		curl -sS --fail-with-body --cacert root.pem --cert new.pem --key new.key -H 'Content-Type: application/pkcs10' --data-binary @again.b64 ` + w.server.URL + `/.well-known/est/simplereenroll | openssl base64 -d | openssl pkcs7 -inform DER -print_certs | openssl x509 -noout -serial`)
	id := pki.ForeignID("thermo", pki.ForeignName, ca.ID+"/A-4711")
	if !strings.Contains(out, id) || !strings.Contains(out, "serial=") {
		t.Errorf("%s", out)
	}
	// It is taken out of service like any other.
	must(t, w.pki.RevokeDevice(t.Context(), access.Internal("test"), id, "thermo", pki.Withdrawn))
	if _, err := w.asks(w.pair(dir)); err == nil {
		t.Error("revoked, and enrolled again")
	}
}

func (w *strangers) pair(dir string) tls.Certificate {
	w.t.Helper()
	c, err := tls.LoadX509KeyPair(filepath.Join(dir, "dev.pem"), filepath.Join(dir, "dev.key"))
	must(w.t, err)
	return c
}
