package pki

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

const day = 24 * time.Hour

// Authority is a CA that can sign: its certificate and its key, wherever the key lives.
type Authority struct {
	Role profile.Role
	Cert *x509.Certificate
	key  crypto.Signer
}

// Name says whom a CA certificate is for. Product and the rest are empty where they do not apply.
type Name struct {
	OEM     string
	Product string
	Unit    string // order and station of an order CA; free otherwise
}

// NewRoot makes the OEM's self-signed anchor over key.
func NewRoot(oem string, key crypto.Signer, now time.Time) (*Authority, error) {
	cert, err := caCertificate(Terms{}, profile.Root, Name{OEM: oem}, key.Public(), nil, key, now)
	if err != nil {
		return nil, err
	}
	return &Authority{Role: profile.Root, Cert: cert, key: key}, nil
}

// NewAuthority joins a CA's certificate with its key. It refuses a key that is not the certificate's.
func NewAuthority(role profile.Role, cert *x509.Certificate, key crypto.Signer) (*Authority, error) {
	pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(key.Public()) {
		return nil, fmt.Errorf("%s CA %q: the key is not the certificate's", role, cert.Subject)
	}
	if got, err := RoleOf(cert); err != nil || got != role {
		return nil, fmt.Errorf("CA %q is %q, want %q: %w", cert.Subject, got, role, err)
	}
	return &Authority{Role: role, Cert: cert, key: key}, nil
}

// Sub signs a CA of the given role, for the key pub, under a.
func (a *Authority) Sub(role profile.Role, name Name, pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	return a.SubOn(Terms{}, role, name, pub, now)
}

// Terms are what may be asked for of a CA's certificate.
type Terms struct {
	Life time.Duration // 0: what the profile has, which is the most there is too
	CRL  string        // http URL of the list in which the issuer would revoke it; empty: the certificate names none
}

// SubOn is Sub on terms.
func (a *Authority) SubOn(terms Terms, role profile.Role, name Name, pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	p, ok := profile.Of(role)
	if !ok || !p.CA || p.Issuer != a.Role {
		return nil, fmt.Errorf("a %s CA does not sign %q CAs", a.Role, role)
	}
	return caCertificate(terms, role, name, pub, a.Cert, a.key, now)
}

// caCertificate names a CA "<OEM> <role>[ unit]" with O and OU, from which IDevIDs below inherit and against which they are held.
func caCertificate(terms Terms, role profile.Role, name Name, pub crypto.PublicKey, issuer *x509.Certificate, key crypto.Signer, now time.Time) (*x509.Certificate, error) {
	p, _ := profile.Of(role)
	if (role == profile.Product || role == profile.Order) != (name.Product != "") || name.OEM == "" {
		return nil, fmt.Errorf("%s CA: OEM %q, product %q", role, name.OEM, name.Product)
	}
	if issuer != nil {
		oem, product := idevid.SubjectOEM(issuer)
		if oem != name.OEM || (product != "" && product != name.Product) {
			return nil, fmt.Errorf("%s CA for %s/%s under the CA of %s/%s", role, name.OEM, name.Product, oem, product)
		}
	}
	cn := string(role)
	if name.Unit != "" {
		cn += " " + name.Unit
	}
	if len(cn) > 64 {
		return nil, fmt.Errorf("%s CA: name %q is longer than 64 characters", role, cn)
	}
	t := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{name.OEM}, CommonName: cn},
		NotBefore:             now.Add(-profile.Backdate),
		NotAfter:              idevid.NoExpiry(),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLen:            p.PathLen,
		MaxPathLenZero:        p.PathLen == 0,
	}
	if name.Product != "" {
		t.Subject.OrganizationalUnit = []string{name.Product}
	}
	if p.Life != 0 {
		t.NotAfter = now.Add(p.Life)
	}
	if terms.Life != 0 {
		t.NotAfter = now.Add(terms.Life) // the profile's lint says whether it may
	}
	if terms.CRL != "" {
		t.CRLDistributionPoints = []string{terms.CRL}
	}
	return sign(role, t, pub, issuer, key)
}

// sign fills what the profile fixes, lints, signs, and lints what came out.
func sign(role profile.Role, t *x509.Certificate, pub crypto.PublicKey, issuer *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
	p, ok := profile.Of(role)
	if !ok {
		return nil, fmt.Errorf("no profile %q", role)
	}
	if err := idevid.KeyAllowed(pub); err != nil {
		return nil, err
	}
	if t.SerialNumber == nil {
		serial, err := idevid.RandomSerial()
		if err != nil {
			return nil, err
		}
		t.SerialNumber = serial
	}
	t.NotBefore, t.NotAfter = t.NotBefore.UTC().Truncate(time.Second), t.NotAfter.UTC().Truncate(time.Second)
	if t.KeyUsage == 0 {
		t.KeyUsage, t.ExtKeyUsage = p.KeyUsage, p.EKU
		t.Policies = p.Policies
	}
	t.BasicConstraintsValid = true
	if err := profile.Lint(role, t, issuer); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, cmp.Or(issuer, t), pub, key)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", role, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("signed %s does not parse: %w", role, err)
	}
	if issuer != nil && !bytes.Equal(cert.AuthorityKeyId, issuer.SubjectKeyId) {
		return nil, fmt.Errorf("signed %s does not name its issuer's key", role)
	}
	return cert, profile.Lint(role, cert, issuer) // CreateCertificate has checked its own signature
}

// Device signs a device certificate: an IDevID by an order CA, an LDevID by the operational CA. crl may be empty.
func (a *Authority) Device(id idevid.Identity, pub crypto.PublicKey, now, notAfter time.Time, crl func(serial []byte) string) (*x509.Certificate, error) {
	return a.device(id, pub, now, notAfter, crl, nil)
}

// device is Device; status is where OCSP answers for it.
func (a *Authority) device(id idevid.Identity, pub crypto.PublicKey, now, notAfter time.Time, crl func(serial []byte) string, status []string) (*x509.Certificate, error) {
	role := profile.Role(id.Kind)
	if p, ok := profile.Of(role); !ok || p.Issuer != a.Role {
		return nil, fmt.Errorf("a %s CA does not sign %q certificates", a.Role, id.Kind)
	}
	if oem, product := idevid.SubjectOEM(a.Cert); oem != id.OEM || (product != "" && product != id.Product) {
		return nil, fmt.Errorf("the CA of %s/%s does not sign for %s/%s", oem, product, id.OEM, id.Product)
	}
	serial, err := idevid.RandomSerial()
	if err != nil {
		return nil, err
	}
	t, err := idevid.Template(id, serial, now.Add(-profile.Backdate), notAfter)
	if err != nil {
		return nil, err
	}
	if crl != nil {
		t.CRLDistributionPoints = []string{crl(serial.Bytes())}
	}
	t.OCSPServer = status
	return sign(role, t, pub, a.Cert, a.key)
}

// ServerTLS signs a server's certificate for hosts: DNS names or addresses.
func (a *Authority) ServerTLS(hosts []string, pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	if a.Role != profile.Infra || len(hosts) == 0 {
		return nil, errors.New("server certificates are signed by the infrastructure CA, for at least one host")
	}
	t := &x509.Certificate{Subject: pkix.Name{CommonName: "hallmark server"}, NotBefore: now.Add(-profile.Backdate), NotAfter: now.Add(90 * day)}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return sign(profile.Server, t, pub, a.Cert, a.key)
}

// VerdictSigner signs the certificate of the key that signs verdicts of genuineness. A verdict is checked at the time it was issued, so that
// it outlives the certificate.
func (a *Authority) VerdictSigner(pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	if a.Role != profile.Infra {
		return nil, errors.New("certificates for verdicts are signed by the infrastructure CA")
	}
	oem, _ := idevid.SubjectOEM(a.Cert)
	t := &x509.Certificate{Subject: pkix.Name{Organization: []string{oem}, CommonName: "hallmark verdicts"}, NotBefore: now.Add(-profile.Backdate), NotAfter: now.Add(90 * day)}
	return sign(profile.Verdict, t, pub, a.Cert, a.key)
}

// SignList signs a list of revoked CAs by an offline root, whose lists no instance makes.
func (a *Authority) SignList(t *x509.RevocationList) ([]byte, error) {
	if a.Role != profile.Root {
		return nil, fmt.Errorf("the lists of a %s CA are made by the instance that holds it", a.Role)
	}
	return x509.CreateRevocationList(rand.Reader, t, a.Cert, a.key)
}

// RoleOf reads from a CA certificate which role it was made for. It is what the certificate claims: Trust verifies.
func RoleOf(cert *x509.Certificate) (profile.Role, error) {
	for _, p := range profile.All() {
		if !p.CA || p.KeyUsage != cert.KeyUsage || !p.Names(cert) || !slices.Equal(cert.ExtKeyUsage, p.EKU) {
			continue
		}
		if cert.IsCA && cert.MaxPathLen == p.PathLen {
			return p.Role, nil
		}
	}
	return "", fmt.Errorf("%q is not a CA of this hierarchy", cert.Subject)
}
