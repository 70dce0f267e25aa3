package signin

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

func certificateOf(t testing.TB, public, private any) []byte {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(1, 0), NotAfter: time.Unix(1<<31, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestWhichCertificatesAreRead(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := certificateOf(t, ec.Public(), ec)
	for name, c := range map[string]struct {
		text []byte
		want bool
	}{
		"one":                     {good, true},
		"one, with words before":  {append([]byte("of ci\n"), good...), true},
		"two":                     {bytes.Repeat(good, 2), false},
		"with its key behind":     {append(bytes.Clone(good), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})...), false},
		"another kind of block":   {bytes.ReplaceAll(good, []byte("CERTIFICATE"), []byte("PUBLIC KEY")), false},
		"nothing":                 {nil, false},
		"longer than can be":      {append(bytes.Clone(good), strings.Repeat(" ", MaxCertificate)...), false},
		"its bytes without a pem": {[]byte{0x30, 0x82}, false},
	} {
		if _, err := parseCertificate(c.text); (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	weak := new(rsa.PublicKey)
	weak.N, weak.E = new(big.Int).Lsh(big.NewInt(1), 1023), 65537
	if _, err := parseCertificate(certificateOf(t, weak, ec)); err == nil || !strings.Contains(err.Error(), "1024 bits") {
		t.Errorf("a weak key: %v", err)
	}
}

func FuzzCertificate(f *testing.F) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(certificateOf(f, ec.Public(), ec))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseCertificate(text)
		if err == nil && len(c.RawSubjectPublicKeyInfo) == 0 {
			t.Error("a certificate without a key")
		}
	})
}
