package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Foreign is the CA of another maker's factory identities, believed for one product and for nothing else: neither for operational certificates, nor for
// servers and operators, nor for a device of another product. Any chain of RFC 5280 goes that crypto/x509 verifies, with keys and signatures as
// foreignKey and foreignSignature want them.
type Foreign struct {
	ID      string // SHA-256 of the first certificate, hex
	Product string
	Chain   []*x509.Certificate // the anchors, as they were given
	Map     Mapping             // how the device is called in its certificate
	Any     bool                // devices that are not on the list are let in as well
}

// Bounds of what another maker's CA may ask of us.
const (
	maxForeignChain = 8
	maxForeignName  = 128
	minRSA, maxRSA  = 2048, 4096
)

// NewForeign checks the certificates of a foreign CA (DER, the issuing one first). ours are the CAs of this hierarchy, which never stand in for another's.
func NewForeign(product string, chain [][]byte, m Mapping, anyDevice bool, ours []*x509.Certificate, now time.Time) (Foreign, error) {
	f := Foreign{Product: product, Map: m, Any: anyDevice}
	if len(chain) == 0 || len(chain) > maxForeignChain {
		return f, fmt.Errorf("%d certificates, want 1 to %d", len(chain), maxForeignChain)
	}
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return f, fmt.Errorf("CA certificate: %w", err)
		}
		if err := foreignCA(c, now); err != nil {
			return f, fmt.Errorf("CA %q: %w", c.Subject, err)
		}
		for _, own := range ours {
			if bytes.Equal(own.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo) {
				return f, fmt.Errorf("CA %q: it has the key of our CA %q", c.Subject, own.Subject)
			}
		}
		f.Chain = append(f.Chain, c)
	}
	sum := sha256.Sum256(chain[0])
	f.ID = hex.EncodeToString(sum[:])
	return f, nil
}

func foreignCA(c *x509.Certificate, now time.Time) error {
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return errors.New("it is not a CA's certificate")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("its key usage does not let it sign certificates")
	case now.Before(c.NotBefore) || now.After(c.NotAfter):
		return fmt.Errorf("it is valid from %s to %s", c.NotBefore.Format(time.DateOnly), c.NotAfter.Format(time.DateOnly))
	case len(c.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("critical extension %s is not understood", c.UnhandledCriticalExtensions[0])
	}
	if bytes.Equal(c.RawSubject, c.RawIssuer) {
		if err := c.CheckSignatureFrom(c); err != nil {
			return fmt.Errorf("it is self-issued, and its signature is not its own: %w", err)
		}
	}
	return foreignKey(c.PublicKey)
}

// foreignKey wants RSA of 2048 to 4096 bits, P-256 or P-384.
func foreignKey(pub any) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA || n > maxRSA || k.E < 65537 {
			return fmt.Errorf("an RSA key of %d bits with exponent %d: want %d to %d bits, and at least 65537", n, k.E, minRSA, maxRSA)
		}
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
	}
	return errors.New("want a key of RSA, P-256 or P-384")
}

func foreignSignature(c *x509.Certificate) error {
	switch c.SignatureAlgorithm { //nolint:exhaustive // the others are not believed
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		return nil
	}
	return fmt.Errorf("signed with %s", c.SignatureAlgorithm)
}

// ForeignLeaf says why a certificate cannot be another maker's factory identity, whoever vouches for it.
func ForeignLeaf(leaf *x509.Certificate, now time.Time) error {
	switch {
	case leaf.IsCA:
		return errors.New("it is a CA's certificate")
	case now.Before(leaf.NotBefore) || now.After(leaf.NotAfter):
		return fmt.Errorf("it is valid from %s to %s", leaf.NotBefore.Format(time.DateOnly), leaf.NotAfter.Format(time.DateOnly))
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("its key usage does not let it sign")
	case (len(leaf.ExtKeyUsage) > 0 || len(leaf.UnknownExtKeyUsage) > 0) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) &&
		!slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return errors.New("its extended key usage is not for TLS clients")
	}
	if err := foreignKey(leaf.PublicKey); err != nil {
		return err
	}
	return foreignSignature(leaf)
}

// Verify follows a certificate (leaf first, as presented) to this CA, and gives what the device is called in it.
func (f Foreign) Verify(presented []*x509.Certificate, now time.Time) (name string, err error) {
	if len(presented) == 0 || len(presented) > maxPresented {
		return "", fmt.Errorf("%d certificates presented, want 1 to %d", len(presented), maxPresented)
	}
	leaf := presented[0]
	if err := ForeignLeaf(leaf, now); err != nil {
		return "", err
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range f.Chain {
		roots.AddCert(c)
	}
	for _, c := range presented[1:] {
		if foreignSignature(c) != nil || foreignKey(c.PublicKey) != nil {
			return "", fmt.Errorf("CA %q between: its key or signature is too weak", c.Subject)
		}
		between.AddCert(c)
	}
	checked := leaf
	if f.Map.reads(partHW) { // the SAN is understood here, so that it may be critical
		if _, err := hardwareModule(leaf); err == nil {
			checked = idevid.HandledSAN(leaf)
		}
	}
	if _, err := checked.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return "", err
	}
	return f.Map.Name(leaf)
}

// Mapping says how a device is called in its certificate: text with {serialNumber}, {cn}, {o}, {ou} or {hwserial} in it, each once at most. Alone, a name
// without braces is the part of that name.
type Mapping string

// The parts.
const (
	partSerial = "serialNumber"
	partCN     = "cn"
	partO      = "o"
	partOU     = "ou"
	partHW     = "hwserial"
)

func parts() []string { return []string{partSerial, partCN, partO, partOU, partHW} }

// ParseMapping reads one. It has to have a part that tells devices apart.
func ParseMapping(s string) (Mapping, error) {
	if slices.Contains(parts(), s) {
		s = "{" + s + "}"
	}
	m := Mapping(s)
	if len(s) > maxForeignName || !utf8.ValidString(s) {
		return "", fmt.Errorf("mapping %.40q: at most %d bytes", s, maxForeignName)
	}
	rest := s
	for _, p := range parts() {
		if strings.Count(rest, "{"+p+"}") > 1 {
			return "", fmt.Errorf("mapping %q: {%s} comes twice", s, p)
		}
		rest = strings.Replace(rest, "{"+p+"}", "", 1)
	}
	if strings.ContainsAny(rest, "{}") {
		return "", fmt.Errorf("mapping %q: want {serialNumber}, {cn}, {o}, {ou} or {hwserial}", s)
	}
	if !m.reads(partSerial) && !m.reads(partCN) && !m.reads(partHW) {
		return "", fmt.Errorf("mapping %q: it tells no device from another; use {serialNumber}, {cn} or {hwserial}", s)
	}
	return m, nil
}

func (m Mapping) reads(part string) bool { return strings.Contains(string(m), "{"+part+"}") }

// Name reads what the device is called. A part that the certificate does not have, or has twice, is an error.
func (m Mapping) Name(cert *x509.Certificate) (string, error) {
	name := string(m)
	for _, p := range parts() {
		if !m.reads(p) {
			continue
		}
		v, err := partOf(cert, p)
		if err != nil {
			return "", err
		}
		name = strings.Replace(name, "{"+p+"}", v, 1)
	}
	return name, CheckForeignName(name)
}

// CheckForeignName bounds what a device may be called: 1 to 128 bytes of printable ASCII, no space at either end.
func CheckForeignName(name string) error {
	if name == "" || len(name) > maxForeignName || strings.TrimSpace(name) != name {
		return fmt.Errorf("device name %.40q: want 1 to %d characters, no space at either end", name, maxForeignName)
	}
	for i := range len(name) {
		if name[i] < 0x20 || name[i] > 0x7e {
			return fmt.Errorf("device name %.40q: printable ASCII only", name)
		}
	}
	return nil
}

func partOf(cert *x509.Certificate, part string) (string, error) {
	if part == partHW {
		serial, err := hardwareModule(cert)
		if err != nil {
			return "", err
		}
		return hex.EncodeToString(serial), nil
	}
	oid := map[string]asn1.ObjectIdentifier{partSerial: {2, 5, 4, 5}, partCN: {2, 5, 4, 3}, partO: {2, 5, 4, 10}, partOU: {2, 5, 4, 11}}[part]
	var found []string
	for _, a := range cert.Subject.Names {
		if !a.Type.Equal(oid) {
			continue
		}
		s, ok := a.Value.(string)
		if !ok || s == "" || strings.ContainsAny(s, "{}") {
			return "", fmt.Errorf("the certificate's %s is no text", part)
		}
		found = append(found, s)
	}
	if len(found) != 1 {
		return "", fmt.Errorf("the certificate has %d times %s in its subject, want one", len(found), part)
	}
	return found[0], nil
}

var (
	oidSAN            = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidHardwareModule = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 4}
)

// hardwareModule reads the serial number of id-on-hardwareModuleName (RFC 4108 §5), which has to be the only name in the SAN.
func hardwareModule(cert *x509.Certificate) ([]byte, error) {
	i := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidSAN) })
	if i < 0 {
		return nil, errors.New("the certificate has no subjectAltName")
	}
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(cert.Extensions[i].Value, &names); err != nil || len(rest) != 0 || len(names) != 1 {
		return nil, errors.New("the certificate's subjectAltName is not one name")
	}
	var other struct {
		ID    asn1.ObjectIdentifier
		Value asn1.RawValue `asn1:"tag:0,explicit"`
	}
	if rest, err := asn1.UnmarshalWithParams(names[0].FullBytes, &other, "tag:0"); err != nil || len(rest) != 0 || !other.ID.Equal(oidHardwareModule) {
		return nil, errors.New("the certificate's subjectAltName is no hardwareModuleName")
	}
	var hw struct {
		Type   asn1.RawValue
		Serial []byte
	}
	if rest, err := asn1.Unmarshal(other.Value.Bytes, &hw); err != nil || len(rest) != 0 || hw.Type.Tag != asn1.TagOID || len(hw.Serial) == 0 || len(hw.Serial) > 32 {
		return nil, errors.New("the certificate's hardwareModuleName does not parse, or its serial number has not 1 to 32 bytes")
	}
	return hw.Serial, nil
}

// ForeignID is the ID of another maker's device: of what it is called under a CA, or of its pinned key or certificate. Nobody finds a name that leads to the ID
// of a device of ours, or of another product.
func ForeignID(product, kind, of string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "hallmark-foreign-1 %d:%s %s %s", len(product), product, kind, of))
	return hex.EncodeToString(sum[:16])
}

// The kinds of ForeignID.
const (
	ForeignName = "name" // of: CA's ID, '/', name
	ForeignKey  = "key"  // SHA-256 of the SPKI, hex
	ForeignCert = "cert" // fingerprint of the certificate, hex
)

// Foreigners finds other makers' devices. foreign.Service is one.
type Foreigners interface {
	// Find gives the device that a certificate which is none of ours belongs to; ErrNotForeign when nobody vouches for it.
	Find(presented []*x509.Certificate, now time.Time) (Device, error)
	// Arrived gives the device that another instance has handed over with just this certificate, which is of our profile and of none of our CAs; ErrNotForeign.
	Arrived(leaf *x509.Certificate, id idevid.Identity, now time.Time) (Device, error)
}

// ErrNotForeign says that no foreign CA and no list vouches for a certificate.
var ErrNotForeign = errors.New("it is of no maker whose devices are let in here")

// LetIn has f asked about certificates that are none of this hierarchy. What it finds is believed as a factory identity, and as nothing else.
func (t *Trust) LetIn(f Foreigners) { t.foreign.Store(&f) }

// CAs gives all that are believed.
func (t *Trust) CAs() (out []*x509.Certificate) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, path := range t.cas {
		out = append(out, path[0])
	}
	return out
}
