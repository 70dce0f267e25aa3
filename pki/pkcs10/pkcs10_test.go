package pkcs10

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/wire/idevid"
)

func sampleRequest(t testing.TB) (idevid.Identity, []byte) {
	t.Helper()
	id := idevid.Identity{Kind: idevid.LDevID, DeviceID: strings.Repeat("ab", 16), OEM: "acme", Product: "pump", HWRev: "A"}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := idevid.RequestTemplate(id)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, k)
	if err != nil {
		t.Fatal(err)
	}
	return id, der
}

// No bit of a request can change unseen: its signature covers all of it.
func TestAChangedRequestIsRefused(t *testing.T) {
	id, der := sampleRequest(t)
	if _, err := Parse(der, id, true); err != nil {
		t.Fatal(err)
	}
	for i := range der {
		for bit := range 8 {
			bad := bytes.Clone(der)
			bad[i] ^= 1 << bit
			if _, err := Parse(bad, id, true); err == nil {
				t.Fatalf("bit %d of byte %d changed, and taken", bit, i)
			}
		}
	}
	other := id
	other.DeviceID = strings.Repeat("cd", 16)
	if _, err := Parse(der, other, false); err == nil {
		t.Error("another device's request was taken")
	}
	if _, err := Parse(make([]byte, MaxCSR+1), id, false); err == nil {
		t.Error("an oversized request was taken")
	}
}

func FuzzParseRequest(f *testing.F) {
	id, der := sampleRequest(f)
	f.Add(der)
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := Parse(b, id, true); err == nil && r.CSR.CheckSignature() != nil {
			t.Fatal("taken without proof of possession")
		}
	})
}
