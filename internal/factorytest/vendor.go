package factorytest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Vendor is a maker of chips that signs for the keys in them, as secure-element vendors do.
type Vendor struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewVendor makes one whose signing certificate is good in 2025.
func NewVendor(t testing.TB) *Vendor {
	t.Helper()
	v := &Vendor{key: Key(t)}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"Acme Silicon"}, CommonName: "Log Signer 001"},
		NotBefore: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2025, 12, 31, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, v.key.Public(), v.key)
	if err != nil {
		t.Fatal(err)
	}
	if v.Cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return v
}

// Said is what the vendor signs of a chip; change may make it say something else.
func (v *Vendor) Said(t testing.TB, uid []byte, key *ecdsa.PublicKey, change func(map[string]any)) json.RawMessage {
	t.Helper()
	point, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	said := map[string]any{
		"version": 1, "model": "ATECC608B", "partNumber": "ATECC608B-TNGTLS", "groupId": "359SCE55NV38H3CB",
		"manufacturer":          map[string]string{"organizationName": "Acme Silicon", "organizationalUnitName": "Secure Products"},
		"provisioningTimestamp": "2025-06-15T17:22:45.000Z", "uniqueId": hex.EncodeToString(uid),
		"publicKeySet": map[string]any{"keys": []any{
			map[string]any{"kid": "0", "kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])},
			map[string]any{"kid": "5", "kty": "RSA"},
		}},
	}
	if change != nil {
		change(said)
	}
	return v.Sign(t, said, hex.EncodeToString(uid))
}

// Sign signs one entry.
func (v *Vendor) Sign(t testing.TB, said any, header string) json.RawMessage {
	t.Helper()
	payload, err := json.Marshal(said)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(v.Cert.Raw)
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: v.key}, (&jose.SignerOptions{}).WithType("JWT").
		WithHeader("x5t#S256", base64.RawURLEncoding.EncodeToString(sum[:])))
	if err != nil {
		t.Fatal(err)
	}
	j, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	var entry map[string]any
	if err := json.Unmarshal([]byte(j.FullSerialize()), &entry); err != nil {
		t.Fatal(err)
	}
	entry["header"] = map[string]string{"uniqueId": header}
	b, err := json.Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Manifest puts entries together.
func Manifest(entries ...json.RawMessage) []byte {
	return append(append([]byte("[\n"), bytes.Join(raw(entries), []byte(",\n"))...), "\n]\n"...)
}

func raw(entries []json.RawMessage) [][]byte {
	var out [][]byte
	for _, e := range entries {
		out = append(out, e)
	}
	return out
}

// Inject gives a piece an identity key that came with its chip.
func (p *Piece) Inject(key *ecdsa.PrivateKey) { p.injected = key }
