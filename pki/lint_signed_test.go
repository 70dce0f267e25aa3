package pki

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// What a template does not tell, the bytes do: each is signed, and then seen.
func TestLintSeesTheBytesThatWereSigned(t *testing.T) {
	h := newHouse(t)
	must(t, profile.Lint(profile.LDevID, h.forged(h.op, pumpID(idevid.LDevID), h.now, h.now.Add(day), nil), h.op.Cert))
	extra := func(e pkix.Extension) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, e) }
	}
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		want   string
	}{
		"an extension that has no place": {extra(pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}), "no place"},
		"a critical distribution point":  {extra(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 31}, Critical: true, Value: []byte{0x30, 0}}), ""},
		"a SAN that is critical":         {func(c *x509.Certificate) { c.ExtraExtensions[0].Critical = true }, "critical is true"},
		"no SAN":                         {func(c *x509.Certificate) { c.ExtraExtensions = nil }, "does not read as a device's"},
		"a name in another string type": {func(c *x509.Certificate) {
			c.RawSubject = []byte{0x30, 0x0e, 0x31, 0x0c, 0x30, 0x0a, 6, 3, 0x55, 4, 10, 0x16, 3, 'a', 'b', 'c'}
		}, "string type 22"},
		"no name": {func(c *x509.Certificate) { c.RawSubject = []byte{0x30, 0} }, "subject is empty"},
	} {
		if c.want == "" { // crypto/x509 does not even read what it wrote
			continue
		}
		err := profile.Lint(profile.LDevID, h.forged(h.op, pumpID(idevid.LDevID), h.now, h.now.Add(day), c.change), h.op.Cert)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ours := h.forged(h.op, pumpID(idevid.LDevID), h.now, h.now.Add(day), nil)
	if err := profile.Lint(profile.LDevID, ours, h.order.Cert); err == nil || !strings.Contains(err.Error(), "its issuer's key") || !strings.Contains(err.Error(), "issuer's name") {
		t.Errorf("under another CA: %v", err)
	}
	other := *h.op.Cert
	other.PublicKey = nil
	if err := profile.Lint(profile.LDevID, ours, &other); err == nil || !strings.Contains(err.Error(), "its issuer's key is for") {
		t.Errorf("signed with another algorithm than its issuer's: %v", err)
	}
}

// zlint, built from its own module, finds no error in a certificate of any role of ours. It does not read object identifiers as large as our
// policies', which are UUIDs: what it is given has small ones in their place, signed by the same keys.
func TestInteropZLint(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "certlint")
	build := exec.CommandContext(t.Context(), "go", "-C", filepath.Join("..", "tools", "certlint"), "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("tools/certlint: %v\n%s", err, out)
	}
	h := newHouse(t)
	issued := map[profile.Role]*x509.Certificate{profile.Root: h.root.Cert, profile.Product: h.product.Cert, profile.Order: h.order.Cert, profile.Operational: h.op.Cert, profile.Infra: h.infra.Cert}
	var err error
	issued[profile.IDevID], err = h.order.Device(pumpID(idevid.IDevID), key(t).Public(), h.now, idevid.NoExpiry(), nil)
	must(t, err)
	issued[profile.LDevID], err = h.op.Device(pumpID(idevid.LDevID), key(t).Public(), h.now, h.now.Add(14*day), func([]byte) string { return "http://crl.test/0" })
	must(t, err)
	issued[profile.Server], err = h.infra.ServerTLS([]string{"a.test", "192.0.2.1"}, key(t).Public(), h.now)
	must(t, err)
	by := map[profile.Role]*Authority{profile.Root: h.root, profile.Product: h.product, profile.Order: h.order, profile.Operational: h.op, profile.Infra: h.infra}
	for _, p := range profile.All() {
		if issued[p.Role] == nil && p.Role != profile.Verdict {
			t.Errorf("no certificate of role %s", p.Role)
		}
	}
	args := []string{}
	for role, c := range issued {
		p, _ := profile.Of(role)
		again := *c
		for i := range again.Policies {
			again.Policies[i], err = x509.ParseOID(fmt.Sprintf("1.3.6.1.4.1.32473.%d", i+1)) // for examples (RFC 5612)
			must(t, err)
		}
		if len(again.DNSNames) == 0 {
			for _, e := range c.Extensions {
				if e.Id.Equal(oidSAN) {
					again.ExtraExtensions = append(again.ExtraExtensions, e)
				}
			}
		}
		der, err := x509.CreateCertificate(rand.Reader, &again, by[p.Issuer].Cert, c.PublicKey, by[p.Issuer].key)
		must(t, err)
		path := filepath.Join(dir, string(role)+".der")
		must(t, os.WriteFile(path, der, 0o600))
		args = append(args, path)
	}
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "certificates without an error") {
		t.Errorf("%v\n%s", err, out)
	}
}
