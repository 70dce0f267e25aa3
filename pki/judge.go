package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Allowed is what a CA's key may be used for, by whoever keeps it apart from those who ask.
type Allowed struct {
	CA    *x509.Certificate
	Hosts []string      // names and addresses that a server's certificate may have
	SubCA bool          // CAs of orders
	OCSP  bool          // answers about single certificates
	Life  time.Duration // of a device's operational certificate, at most; 0: what the profile has
}

// Message is what a key was asked to sign, as it was read.
type Message struct {
	Kind   string       // "certificate" or "list"
	Role   profile.Role // of a certificate
	Name   string       // whose it is
	Serial string       // hex; of a list: its number
	Count  int          // entries of a list
}

// Judge reads the bytes that are to be signed by a CA's key, and says what they are. It refuses whatever is not a certificate or a list of just
// the kinds that the CA signs: it knows nothing of who asks, and believes nothing of it.
func (a Allowed) Judge(tbs []byte, now time.Time) (Message, error) {
	if len(tbs) > maxSigned {
		return Message{}, fmt.Errorf("%d bytes to sign, at most %d", len(tbs), maxSigned)
	}
	role, err := RoleOf(a.CA)
	if err != nil {
		return Message{}, err
	}
	framed, err := frame(tbs, a.CA.PublicKey)
	if err != nil {
		return Message{}, err
	}
	if cert, err := x509.ParseCertificate(framed); err == nil && bytes.Equal(cert.RawTBSCertificate, tbs) {
		return a.judgeCert(role, cert, now)
	}
	if list, err := x509.ParseRevocationList(framed); err == nil && bytes.Equal(list.RawTBSRevocationList, tbs) {
		return a.judgeList(list, now)
	}
	if a.OCSP {
		return a.judgeStatus(tbs, now)
	}
	return Message{}, errors.New("neither a certificate nor a list of revocations")
}

// maxSigned bounds what is signed at once: a list of a million certificates in one shard.
const maxSigned = 64 << 20

// frame makes of what is to be signed something that parses: with the signature missing.
func frame(tbs []byte, pub crypto.PublicKey) ([]byte, error) {
	k, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("key type %T, want ECDSA", pub)
	}
	alg := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}} // ecdsa-with-SHA256
	if k.Curve == elliptic.P384() {
		alg.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
	}
	return asn1.Marshal(struct {
		TBS asn1.RawValue
		Alg pkix.AlgorithmIdentifier
		Sig asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, alg, asn1.BitString{Bytes: []byte{0}, BitLength: 8}})
}

func (a Allowed) judgeCert(issuer profile.Role, c *x509.Certificate, now time.Time) (Message, error) {
	var role profile.Role
	for _, p := range profile.All() {
		if p.Issuer == issuer && p.Role != profile.Root && p.CA == c.IsCA && slices.Equal(p.EKU, c.ExtKeyUsage) && p.Names(c) {
			role = p.Role
		}
	}
	if role == "" {
		return Message{}, fmt.Errorf("the certificate is of no profile that a %s CA signs", issuer)
	}
	m := Message{Kind: "certificate", Role: role, Name: c.Subject.String(), Serial: c.SerialNumber.Text(16)}
	if err := profile.Lint(role, c, a.CA); err != nil {
		return m, err
	}
	if !bytes.Equal(c.RawIssuer, a.CA.RawSubject) || !bytes.Equal(c.AuthorityKeyId, a.CA.SubjectKeyId) {
		return m, errors.New("it names another issuer")
	}
	if len(c.UnhandledCriticalExtensions) != 0 {
		return m, fmt.Errorf("critical extensions %v", c.UnhandledCriticalExtensions)
	}
	if err := idevid.KeyAllowed(c.PublicKey); err != nil {
		return m, err
	}
	if c.NotBefore.After(now.Add(profile.Backdate)) || c.NotBefore.Before(now.Add(-2*profile.Backdate)) {
		return m, fmt.Errorf("it begins %s, and it is %s", c.NotBefore.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return m, a.judgeSubject(role, c)
}

// judgeSubject says whether the CA may speak for whom the certificate names.
func (a Allowed) judgeSubject(role profile.Role, c *x509.Certificate) error {
	oem, product := idevid.SubjectOEM(a.CA)
	switch role {
	case profile.IDevID, profile.LDevID:
		id, err := idevid.Parse(c)
		if err != nil {
			return err
		}
		if id.OEM != oem || product != "" && id.Product != product {
			return fmt.Errorf("the CA of %s/%s does not sign for %s/%s", oem, product, id.OEM, id.Product)
		}
		if a.Life != 0 && role == profile.LDevID && c.NotAfter.Sub(c.NotBefore) > a.Life+2*profile.Backdate {
			return fmt.Errorf("valid for %s, at most %s", c.NotAfter.Sub(c.NotBefore), a.Life)
		}
		return nil
	case profile.Server:
		names := slices.Clone(c.DNSNames)
		for _, ip := range c.IPAddresses {
			names = append(names, ip.String())
		}
		for _, n := range names {
			if !slices.Contains(a.Hosts, n) {
				return fmt.Errorf("%q is not one of this instance's names", n)
			}
		}
		return nil
	case profile.Order:
		o, p := idevid.SubjectOEM(c)
		if !a.SubCA || o != oem || p != product {
			return fmt.Errorf("no CAs are signed here for %s/%s", o, p)
		}
		return nil
	case profile.Verdict: // the server has the key that it is for as well; it is limited like a CA's
		return nil
	case profile.Root, profile.Product, profile.Operational, profile.Infra:
	}
	return fmt.Errorf("no certificates of role %s are signed here", role)
}

func (a Allowed) judgeList(l *x509.RevocationList, now time.Time) (Message, error) {
	m := Message{Kind: "list", Name: a.CA.Subject.String(), Count: len(l.RevokedCertificateEntries)}
	if l.Number == nil || !bytes.Equal(l.RawIssuer, a.CA.RawSubject) || !bytes.Equal(l.AuthorityKeyId, a.CA.SubjectKeyId) {
		return m, errors.New("the list has no number, or names another issuer")
	}
	m.Serial = l.Number.String()
	if l.ThisUpdate.After(now.Add(profile.Backdate)) || !l.NextUpdate.After(l.ThisUpdate) || l.NextUpdate.After(now.Add(2*crlLife)) {
		return m, fmt.Errorf("the list is for %s to %s", l.ThisUpdate.Format(time.RFC3339), l.NextUpdate.Format(time.RFC3339))
	}
	for _, e := range l.Extensions {
		if e.Critical && !e.Id.Equal(oidIssuingPoint) {
			return m, fmt.Errorf("critical extension %v", e.Id)
		}
	}
	return m, nil
}

// judgeStatus reads an OCSP answer. Whether it is true cannot be told here; that it does not hold for long can.
func (a Allowed) judgeStatus(tbs []byte, now time.Time) (Message, error) {
	framed, err := frame(tbs, a.CA.PublicKey)
	if err != nil {
		return Message{}, err
	}
	type body struct {
		Type  asn1.ObjectIdentifier
		Value []byte
	}
	der, err := asn1.Marshal(struct {
		Status asn1.Enumerated
		Body   body `asn1:"explicit,tag:0"`
	}{0, body{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}, framed}})
	if err != nil {
		return Message{}, err
	}
	st, err := ocsp.ParseResponse(der, nil)
	if err != nil || !bytes.Equal(st.TBSResponseData, tbs) || st.SerialNumber == nil {
		return Message{}, errors.New("neither a certificate nor a list of revocations, nor a status")
	}
	m := Message{Kind: "status", Name: a.CA.Subject.String(), Serial: st.SerialNumber.Text(16)}
	if !bytes.Equal(st.RawResponderName, a.CA.RawSubject) || len(st.Extensions) != 0 {
		return m, errors.New("the status is of another CA, or has extensions")
	}
	if st.ThisUpdate.After(now.Add(profile.Backdate)) || !st.NextUpdate.After(st.ThisUpdate) || st.NextUpdate.After(now.Add(ocspRevoked+profile.Backdate)) ||
		st.Status == ocsp.Good && st.NextUpdate.After(now.Add(ocspGood+profile.Backdate)) {
		return m, fmt.Errorf("the status is for %s to %s", st.ThisUpdate.Format(time.RFC3339), st.NextUpdate.Format(time.RFC3339))
	}
	return m, nil
}

// HashFor gives the hash that a CA's key signs with: that of its suite.
func HashFor(pub crypto.PublicKey) crypto.Hash {
	if k, ok := pub.(*ecdsa.PublicKey); ok && k.Curve == elliptic.P384() {
		return crypto.SHA384
	}
	return crypto.SHA256
}
