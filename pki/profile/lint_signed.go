package profile

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// extCritical are the extensions of our profiles, and whether each is critical (RFC 5280 §4.2). Any other has no place in a certificate of ours.
var extCritical = map[string]bool{
	"2.5.29.14":         false, // subjectKeyIdentifier
	"2.5.29.15":         true,  // keyUsage
	"2.5.29.17":         false, // subjectAltName: no subject is empty
	"2.5.29.19":         true,  // basicConstraints
	"2.5.29.31":         false, // cRLDistributionPoints
	"2.5.29.32":         false, // certificatePolicies
	"2.5.29.35":         false, // authorityKeyIdentifier
	"2.5.29.37":         false, // extKeyUsage
	"1.3.6.1.5.5.7.1.1": false, // authorityInfoAccess
}

// tbsCertificate is the beginning of TBSCertificate (RFC 5280 §4.1), as far as its encoding is looked at.
type tbsCertificate struct {
	Version    int `asn1:"explicit,tag:0"`
	Serial     asn1.RawValue
	Algorithm  asn1.RawValue
	Issuer     asn1.RawValue
	Validity   struct{ From, Until asn1.RawValue }
	Subject    asn1.RawValue
	Key        asn1.RawValue
	Extensions asn1.RawValue `asn1:"explicit,tag:3"`
}

// lintSigned says what is wrong with the bytes that were made, which the fields of a template do not tell.
func lintSigned(role Role, c, issuer *x509.Certificate, bad func(string, ...any)) {
	var tbs tbsCertificate
	if rest, err := asn1.Unmarshal(c.RawTBSCertificate, &tbs); err != nil || len(rest) != 0 || tbs.Version != 2 {
		bad("it is no certificate of version 3: %v", err)
		return
	}
	lintDate("notBefore", tbs.Validity.From, c.NotBefore, bad)
	lintDate("notAfter", tbs.Validity.Until, c.NotAfter, bad)
	lintExtensions(c, bad)
	lintStrings(tbs.Subject.FullBytes, bad)
	if _, err := suite.Of(c.PublicKey); err != nil {
		bad("%v", err)
	}
	above := cmp.Or(issuer, c)
	if !bytes.Equal(c.RawIssuer, above.RawSubject) {
		bad("its issuer's name is not that of its issuer")
	}
	if issuer != nil && (len(c.AuthorityKeyId) == 0 || !bytes.Equal(c.AuthorityKeyId, issuer.SubjectKeyId)) {
		bad("it does not name its issuer's key")
	}
	if c.IsCA && len(c.SubjectKeyId) == 0 {
		bad("a CA without subjectKeyIdentifier")
	}
	if want := algorithmOf(above); c.SignatureAlgorithm != want {
		bad("signed with %s, its issuer's key is for %s", c.SignatureAlgorithm, want)
	}
	if role == IDevID || role == LDevID {
		if id, err := idevid.Parse(c); err != nil || Role(id.Kind) != role {
			bad("it does not read as a device's: %v", err)
		}
	}
}

// algorithmOf is what a CA signs with: the hash that is as strong as its curve.
func algorithmOf(ca *x509.Certificate) x509.SignatureAlgorithm {
	k, ok := ca.PublicKey.(*ecdsa.PublicKey)
	switch {
	case ok && k.Curve == elliptic.P256():
		return x509.ECDSAWithSHA256
	case ok && k.Curve == elliptic.P384():
		return x509.ECDSAWithSHA384
	}
	return x509.UnknownSignatureAlgorithm
}

// lintDate holds a date to RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime after, to the second, in Z.
func lintDate(what string, v asn1.RawValue, at time.Time, bad func(string, ...any)) {
	tag, length := asn1.TagUTCTime, len("YYMMDDHHMMSSZ")
	if at.UTC().Year() >= 2050 {
		tag, length = asn1.TagGeneralizedTime, len("YYYYMMDDHHMMSSZ")
	}
	if v.Tag != tag || len(v.Bytes) != length || v.Bytes[length-1] != 'Z' {
		bad("%s %q in a form that RFC 5280 does not have", what, v.Bytes)
	}
}

func lintExtensions(c *x509.Certificate, bad func(string, ...any)) {
	seen := map[string]bool{}
	for _, e := range c.Extensions {
		id := e.Id.String()
		critical, ours := extCritical[id]
		switch {
		case !ours:
			bad("extension %s has no place in it", id)
		case seen[id]:
			bad("extension %s is there twice", id)
		case e.Critical != critical:
			bad("extension %s: critical is %v", id, e.Critical)
		}
		seen[id] = true
	}
	for _, must := range []string{"2.5.29.15", "2.5.29.19"} {
		if !seen[must] {
			bad("extension %s is missing", must)
		}
	}
}

// maxName is the upper bound of the attributes in our names (RFC 5280, appendix A.1).
const maxName = 64

// lintStrings holds a name to one attribute each, in PrintableString or UTF8String, within bounds.
func lintStrings(name []byte, bad func(string, ...any)) {
	var rdns []asn1.RawValue
	if rest, err := asn1.Unmarshal(name, &rdns); err != nil || len(rest) != 0 || len(rdns) == 0 {
		bad("its subject is empty, or no name")
		return
	}
	for _, rdn := range rdns {
		var a struct {
			Type  asn1.ObjectIdentifier
			Value asn1.RawValue
		}
		if rest, err := asn1.Unmarshal(rdn.Bytes, &a); err != nil || len(rest) != 0 {
			bad("a part of its subject is not one attribute")
			continue
		}
		if a.Value.Tag != asn1.TagPrintableString && a.Value.Tag != asn1.TagUTF8String {
			bad("attribute %s of its subject is of string type %d", a.Type, a.Value.Tag)
		}
		if len(a.Value.Bytes) == 0 || len(a.Value.Bytes) > maxName {
			bad("attribute %s of its subject has %d bytes", a.Type, len(a.Value.Bytes))
		}
	}
}

// hostname reports whether s is a DNS name of one host (RFC 5280 §4.2.1.6, RFC 1123 §2.1): no wildcard, no trailing dot.
func hostname(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
			return false
		}
	}
	return true
}
