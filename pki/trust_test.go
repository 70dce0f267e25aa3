package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// forged signs for role by any CA, past every check that Authority makes.
func (h *house) forged(a *Authority, id idevid.Identity, from, to time.Time, change func(*x509.Certificate)) *x509.Certificate {
	h.t.Helper()
	serial, err := idevid.RandomSerial()
	must(h.t, err)
	var tmpl *x509.Certificate
	if id.Kind == idevid.IDevID {
		to = idevid.NoExpiry()
	}
	tmpl, err = idevid.Template(id, serial, from, to)
	must(h.t, err)
	if change != nil {
		change(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.Cert, key(h.t).Public(), a.key)
	must(h.t, err)
	c, err := x509.ParseCertificate(der)
	must(h.t, err)
	return c
}

func TestOnlyTheRightCertificateIsBelieved(t *testing.T) {
	h := newHouse(t)
	idev, ldev, day := pumpID(idevid.IDevID), pumpID(idevid.LDevID), 24*time.Hour
	with := func(id idevid.Identity, change func(*idevid.Identity)) idevid.Identity { change(&id); return id }
	valve := with(idev, func(i *idevid.Identity) { i.Product = "valve" })
	stranger := with(ldev, func(i *idevid.Identity) { i.OEM = "evil" })
	from, to := h.now.Add(-time.Hour), h.now.Add(day)
	good := h.forged(h.op, ldev, from, to, nil)
	unknownOrder := h.sub(h.product, profile.Order, Name{OEM: "acme", Product: "pump", Unit: "o-2"})
	for _, c := range []struct {
		name  string
		at    time.Duration // after now
		chain []*x509.Certificate
		want  string // part of the refusal; empty: believed
	}{
		{"an LDevID", 0, []*x509.Certificate{good}, ""},
		{"an IDevID", 0, []*x509.Certificate{h.forged(h.order, idev, from, to, nil)}, ""},
		{"an IDevID after a hundred years", 100 * 365 * day, []*x509.Certificate{h.forged(h.order, idev, from, to, nil)}, ""},
		{"an IDevID of an order that is new here, with its CA", 0, []*x509.Certificate{h.forged(unknownOrder, idev, from, to, nil), unknownOrder.Cert}, ""},
		{"the same without its CA", 0, []*x509.Certificate{h.forged(unknownOrder, idev, from, to, nil)}, "issuer is not known"},
		{"nothing", 0, nil, "none presented"},
		{"a CA", 0, []*x509.Certificate{h.op.Cert}, "it is a CA's"},
		{"too many", 0, []*x509.Certificate{good, h.op.Cert, h.op.Cert, h.op.Cert, h.op.Cert, h.op.Cert, h.op.Cert}, "7 certificates"},
		{"expired", 25 * time.Hour, []*x509.Certificate{good}, "expired"},
		{"not yet valid", -2 * time.Hour, []*x509.Certificate{good}, "not valid"},
		{"not yet valid, its CA is", 0, []*x509.Certificate{h.forged(h.op, ldev, h.now.Add(time.Hour), to, nil)}, "not yet valid"},
		{"its CA has expired", 11 * 366 * day, []*x509.Certificate{h.forged(h.op, ldev, from, h.now.Add(20*366*day), nil)}, "is not valid now"},
		{"another OEM's LDevID of the same names", 0, []*x509.Certificate{h.forged(h.other, ldev, from, to, nil)}, "issuer is not known"},
		{"the same with all its CAs", 0, []*x509.Certificate{h.forged(h.other, ldev, from, to, nil), h.other.Cert, h.otherRoot.Cert}, "unknown authority"},
		{"another OEM's IDevID with all its CAs", 0, []*x509.Certificate{
			h.forged(h.otherOrd, idev, from, to, nil), h.otherOrd.Cert, h.otherProd.Cert, h.otherRoot.Cert,
		}, "unknown authority"},
		{"an LDevID by an order CA", 0, []*x509.Certificate{h.forged(h.order, ldev, from, to, nil)}, `issued by a "order" CA`},
		{"an IDevID by the operational CA", 0, []*x509.Certificate{h.forged(h.op, idev, from, to, nil)}, `issued by a "operational" CA`},
		{"an IDevID by the product CA itself", 0, []*x509.Certificate{h.forged(h.product, idev, from, to, nil)}, `issued by a "product" CA`},
		{"an LDevID by the infrastructure CA", 0, []*x509.Certificate{h.forged(h.infra, ldev, from, to, nil)}, `issued by a "infra" CA`},
		{"another product's under this product's CA", 0, []*x509.Certificate{h.forged(h.order, valve, from, to, nil)}, "acme/valve under the CA of acme/pump"},
		{"another OEM's name under our CA", 0, []*x509.Certificate{h.forged(h.op, stranger, from, to, nil)}, "evil/pump under the CA of acme/"},
		{"one that may sign keys away", 0, []*x509.Certificate{h.forged(h.op, ldev, from, to, func(c *x509.Certificate) {
			c.KeyUsage |= x509.KeyUsageKeyAgreement
		})}, "not of the profile"},
		{"one for servers too", 0, []*x509.Certificate{h.forged(h.op, ldev, from, to, func(c *x509.Certificate) {
			c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		})}, "not of the profile"},
		{"one without a policy", 0, []*x509.Certificate{h.forged(h.op, ldev, from, to, func(c *x509.Certificate) { c.Policies = nil })}, "0 certificate policies"},
		{"one with a changed signature", 0, []*x509.Certificate{mangled(t, good)}, "verification"},
	} {
		d, err := h.service.Trust().VerifyDevice(c.chain, h.now.Add(c.at))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want == "" && d.Identity.DeviceID != idev.DeviceID:
			t.Errorf("%s: taken for %s", c.name, d.Identity.DeviceID)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != fault.Denied):
			t.Errorf("%s: %v, want a denial with %q", c.name, err, c.want)
		}
	}
}

// mangled is a certificate whose signature is not by its CA.
func mangled(t *testing.T, c *x509.Certificate) *x509.Certificate {
	t.Helper()
	raw := append([]byte(nil), c.Raw...)
	raw[len(raw)-1] ^= 1
	out, err := x509.ParseCertificate(raw)
	must(t, err)
	return out
}

func TestOnlyCAsOfThisHierarchyAreTaken(t *testing.T) {
	h := newHouse(t)
	trust := h.service.Trust()
	valve := h.sub(h.root, profile.Product, Name{OEM: "acme", Product: "valve"})
	valveOrder := h.sub(valve, profile.Order, Name{OEM: "acme", Product: "valve", Unit: "o-9"})
	if err := trust.AddCA(valveOrder.Cert); err == nil {
		t.Error("an order CA was taken before its product's")
	}
	must(t, trust.AddCA(valve.Cert))
	must(t, trust.AddCA(valveOrder.Cert))
	must(t, trust.AddCA(valveOrder.Cert)) // again: left alone
	for name, ca := range map[string]*x509.Certificate{
		"another OEM's":                   h.otherOrd.Cert,
		"an order CA right below a root":  h.forgedCA(h.root, profile.Order, "acme", "pump", nil),
		"one for another product":         h.forgedCA(h.product, profile.Order, "acme", "valve", nil),
		"one for another OEM":             h.forgedCA(h.root, profile.Operational, "evil", "", nil),
		"one below a CA that has no more": h.forgedCA(h.order, profile.Order, "acme", "pump", nil),
		"one with the operational CA's key": func() *x509.Certificate {
			return h.forgedCA(h.product, profile.Order, "acme", "pump", h.op.Cert.PublicKey)
		}(),
	} {
		if err := trust.AddCA(ca); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := trust.VerifyDevice([]*x509.Certificate{h.forged(h.op, pumpID(idevid.LDevID), h.now, h.now.Add(time.Hour), nil)}, h.now); err != nil {
		t.Errorf("after the refusals: %v", err)
	}
	if _, err := NewTrust(nil); err == nil {
		t.Error("trust without a root")
	}
	if _, err := NewTrust([]*x509.Certificate{h.op.Cert}); err == nil {
		t.Error("an operational CA was taken for a root")
	}
	if _, err := NewAuthority(profile.Operational, h.op.Cert, h.infra.key); err == nil {
		t.Error("a CA with another's key")
	}
	if _, err := NewAuthority(profile.Infra, h.op.Cert, h.op.key); err == nil {
		t.Error("a CA in another's role")
	}
}

// forgedCA signs a CA of role past every check that Authority makes.
func (h *house) forgedCA(a *Authority, role profile.Role, oem, product string, pub crypto.PublicKey) *x509.Certificate {
	h.t.Helper()
	if pub == nil {
		pub = key(h.t).Public()
	}
	p, _ := profile.Of(role)
	serial, err := idevid.RandomSerial()
	must(h.t, err)
	tmpl := &x509.Certificate{
		SerialNumber: serial, NotBefore: h.now.Add(-time.Minute), NotAfter: h.now.Add(24 * time.Hour), KeyUsage: p.KeyUsage,
		ExtKeyUsage: p.EKU, IsCA: true, BasicConstraintsValid: true, MaxPathLen: p.PathLen, MaxPathLenZero: p.PathLen == 0,
	}
	tmpl.Subject.Organization, tmpl.Subject.CommonName = []string{oem}, "forged"
	if product != "" {
		tmpl.Subject.OrganizationalUnit = []string{product}
	}
	tmpl.Policies = p.Policies
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.Cert, pub, a.key)
	must(h.t, err)
	c, err := x509.ParseCertificate(der)
	must(h.t, err)
	return c
}

func TestServersAreNoDevices(t *testing.T) {
	h := newHouse(t)
	srv, err := h.infra.ServerTLS([]string{"a.test", "127.0.0.1"}, key(t).Public(), h.now)
	must(t, err)
	if _, err := h.service.Trust().VerifyDevice([]*x509.Certificate{srv}, h.now); err == nil {
		t.Error("a server was taken for a device")
	}
}

// Each thing lint looks at, wrong by itself.
func TestLintSeesEachThing(t *testing.T) {
	h := newHouse(t)
	fine := func() *x509.Certificate { return h.forged(h.op, pumpID(idevid.LDevID), h.now, h.now.Add(day), nil) }
	must(t, profile.Lint(profile.LDevID, fine(), h.op.Cert))
	for name, change := range map[string]func(*x509.Certificate){
		"no serial number":         func(c *x509.Certificate) { c.SerialNumber = nil },
		"a negative serial number": func(c *x509.Certificate) { c.SerialNumber.Neg(c.SerialNumber) },
		"a short serial number":    func(c *x509.Certificate) { c.SerialNumber = big.NewInt(7) },
		"a long serial number":     func(c *x509.Certificate) { c.SerialNumber.Lsh(c.SerialNumber, 64) },
		"a CA":                     func(c *x509.Certificate) { c.IsCA = true },
		"no basic constraints":     func(c *x509.Certificate) { c.BasicConstraintsValid = false },
		"another key usage":        func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign },
		"server use":               func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"no extended use":          func(c *x509.Certificate) { c.ExtKeyUsage = nil },
		"an unknown extended use": func(c *x509.Certificate) {
			c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, asn1.ObjectIdentifier{2, 5, 29, 37})
		},
		"the IDevID policy":          func(c *x509.Certificate) { c.Policies = []x509.OID{idevid.PolicyIDevID()} },
		"no policy":                  func(c *x509.Certificate) { c.Policies = nil },
		"no life":                    func(c *x509.Certificate) { c.NotAfter = c.NotBefore },
		"a life too long":            func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(92 * day) },
		"no end":                     func(c *x509.Certificate) { c.NotAfter = idevid.NoExpiry() },
		"a DNS name":                 func(c *x509.Certificate) { c.DNSNames = []string{"a.test"} },
		"a mail address":             func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.test"} },
		"a distribution point https": func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"https://a.test/1"} },
		"a distribution point ldap":  func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"ldap://a.test"} },
	} {
		c := fine()
		change(c)
		if err := profile.Lint(profile.LDevID, c, h.op.Cert); err == nil {
			t.Errorf("%s: passed", name)
		}
	}
	if err := profile.Lint(profile.LDevID, fine(), &x509.Certificate{NotAfter: h.now.Add(time.Hour)}); err == nil || !strings.Contains(err.Error(), "outlives") {
		t.Errorf("one that outlives its issuer: %v", err)
	}
	if err := profile.Lint("baker", fine(), h.op.Cert); err == nil {
		t.Error("a role that is none")
	}
	idev := h.forged(h.order, pumpID(idevid.IDevID), h.now, time.Time{}, nil)
	must(t, profile.Lint(profile.IDevID, idev, h.order.Cert))
	idev.NotAfter = h.now.Add(day)
	if profile.Lint(profile.IDevID, idev, h.order.Cert) == nil {
		t.Error("an IDevID that ends")
	}
	for name, change := range map[string]func(*x509.Certificate){
		"a longer path":    func(c *x509.Certificate) { c.MaxPathLen = 1 },
		"an unlimited one": func(c *x509.Certificate) { c.MaxPathLenZero = false },
		"no CA":            func(c *x509.Certificate) { c.IsCA = false },
	} {
		c := *h.op.Cert
		change(&c)
		if profile.Lint(profile.Operational, &c, h.root.Cert) == nil {
			t.Errorf("operational CA, %s: passed", name)
		}
	}
	srv, err := h.infra.ServerTLS([]string{"a.test"}, key(t).Public(), h.now)
	must(t, err)
	for _, n := range []string{"*.test", "a.test.", "-a.test", "a b", ""} {
		if srv.DNSNames = []string{n}; profile.Lint(profile.Server, srv, h.infra.Cert) == nil {
			t.Errorf("a server of name %q", n)
		}
	}
	if srv.DNSNames = nil; profile.Lint(profile.Server, srv, h.infra.Cert) == nil {
		t.Error("a server without a name")
	}
}

// What each CA must not sign, asked for the regular way.
func TestACASignsItsOwnKindOnly(t *testing.T) {
	h := newHouse(t)
	pub := key(t).Public()
	for name, err := range map[string]error{
		"LDevID by an order CA":        second(h.order.Device(pumpID(idevid.LDevID), pub, h.now, h.now.Add(day), nil)),
		"IDevID by the operational CA": second(h.op.Device(pumpID(idevid.IDevID), pub, h.now, idevid.NoExpiry(), nil)),
		"LDevID too long":              second(h.op.Device(pumpID(idevid.LDevID), pub, h.now, h.now.Add(100*day), nil)),
		"LDevID without end":           second(h.op.Device(pumpID(idevid.LDevID), pub, h.now, idevid.NoExpiry(), nil)),
		"another OEM's": second(h.op.Device(
			idevid.Identity{Kind: idevid.LDevID, DeviceID: strings.Repeat("ab", 16), OEM: "evil", Product: "pump", HWRev: "A"}, pub, h.now, h.now.Add(day), nil)),
		"order CA by the root":         second(h.root.Sub(profile.Order, Name{OEM: "acme", Product: "pump"}, pub, h.now)),
		"CA by an order CA":            second(h.order.Sub(profile.Order, Name{OEM: "acme", Product: "pump"}, pub, h.now)),
		"product CA without a product": second(h.root.Sub(profile.Product, Name{OEM: "acme"}, pub, h.now)),
		"CA of another OEM":            second(h.root.Sub(profile.Operational, Name{OEM: "evil"}, pub, h.now)),
		"CA with a long name":          second(h.root.Sub(profile.Operational, Name{OEM: "acme", Unit: strings.Repeat("x", 64)}, pub, h.now)),
		"a leaf as CA":                 second(h.infra.Sub(profile.Server, Name{OEM: "acme"}, pub, h.now)),
		"server by the operational CA": second(h.op.ServerTLS([]string{"a.test"}, pub, h.now)),
		"server of no name":            second(h.infra.ServerTLS(nil, pub, h.now)),
	} {
		if err == nil {
			t.Errorf("%s was signed", name)
		}
	}
}

func second(_ *x509.Certificate, err error) error { return err }

// A certificate that was found good once is not believed for that alone.
func TestTheRememberedIsLookedAtAgain(t *testing.T) {
	h := newHouse(t)
	ldev := pumpID(idevid.LDevID)
	trust := h.service.Trust()
	good := h.forged(h.op, ldev, h.now.Add(-time.Hour), h.now.Add(time.Hour), nil)
	for range 2 { // found good, then remembered
		if d, err := trust.VerifyDevice([]*x509.Certificate{good}, h.now); err != nil || d.Identity != ldev {
			t.Fatalf("%+v, %v", d.Identity, err)
		}
	}
	if len(trust.good) != 1 {
		t.Fatalf("%d remembered, want 1: this test needs it", len(trust.good))
	}
	resigned, err := x509.ParseCertificate(append(slices.Clone(good.Raw[:len(good.Raw)-1]), good.Raw[len(good.Raw)-1]^1))
	must(t, err)
	for name, c := range map[string]struct {
		leaf *x509.Certificate
		at   time.Duration
	}{
		"expired since": {good, 2 * time.Hour}, "a clock set back": {good, -2 * time.Hour}, "its CA expired since": {good, 11 * 366 * 24 * time.Hour},
		"the same with another signature": {resigned, 0},
	} {
		if _, err := trust.VerifyDevice([]*x509.Certificate{c.leaf}, h.now.Add(c.at)); fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: %v, want a denial", name, err)
		}
	}
	if len(trust.good) != 1 {
		t.Error("what was refused is remembered as good")
	}
	for i := range maxGood {
		trust.foundGood([32]byte{byte(i), byte(i >> 8), byte(i >> 16), 1})
	}
	if len(trust.good) > maxGood {
		t.Errorf("%d remembered, at most %d", len(trust.good), maxGood)
	}
}
