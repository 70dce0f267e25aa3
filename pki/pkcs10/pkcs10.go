// Package pkcs10 reads requests for certificates (PKCS #10, RFC 2986).
//
// Stage 2, birth: it is the first to see what a device asks for. It guarantees that a request proves possession of its key, asks for no name but
// the device's and for nothing that a profile does not have. It trusts nobody, and believes nothing in a request but its key.
package pkcs10

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// MaxCSR bounds a certificate request (DER).
const MaxCSR = 16 << 10

// Request is a certificate request that is well-formed, asks for nothing but a device's own name, and proves possession of its key.
type Request struct {
	CSR    *x509.CertificateRequest
	Digest [32]byte // of what is asked for: the same names, key and attributes give the same, however often it is signed anew
	// Challenge is the value of the attribute challengePassword, empty when there is none. It is no part of Digest: it names the line
	// that the request comes by (RFC 7030 §3.5), and a request that is made again comes by another.
	Challenge string
	// Sealed says that the request wants a key of ours encrypted for one that the device names (RFC 7030 §4.4.1).
	Sealed bool
}

var (
	oidExtSAN      = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtEKU      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidExtBasic    = asn1.ObjectIdentifier{2, 5, 29, 19}
	notCA          = []byte{0x30, 0x00} // BasicConstraints of what is no CA, as tools copy it from the present certificate
)

// Parse reads a PKCS#10 request (RFC 2986) by the device id. The subject has to be id's or, when exact is false, empty; the
// subjectAltName id's or absent, and present when exact is true (RFC 7030 §4.2.2). Asked key usages are ignored: the profile
// decides. Any other extension asked for as critical is refused.
func Parse(der []byte, id idevid.Identity, exact bool) (Request, error) {
	if len(der) > MaxCSR {
		return Request{}, fault.New(fault.Invalid, "csr.size", fmt.Sprintf("the certificate request has %d bytes", len(der)), fmt.Sprintf("at most %d are taken", MaxCSR))
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return Request{}, &fault.Fault{
			Kind: fault.Invalid, Code: "csr.parse", Text: "the certificate request does not parse", Remedy: "send one PKCS #10 request in DER, as base64", Cause: err,
		}
	}
	if !bytes.Equal(csr.Raw, der) {
		return Request{}, fault.New(fault.Invalid, "csr.parse", "there are bytes after the certificate request", "send it alone")
	}
	if err := idevid.KeyAllowed(csr.PublicKey); err != nil {
		return Request{}, &fault.Fault{
			Kind: fault.Invalid, Code: "csr.key", Text: "the certificate request's key is not one that is certified here: " + err.Error(),
			Remedy: "ask /csrattrs which key is wanted", Cause: err,
		}
	}
	if csr.SignatureAlgorithm != x509.ECDSAWithSHA256 && csr.SignatureAlgorithm != x509.ECDSAWithSHA384 {
		return Request{}, fault.New(fault.Invalid, "csr.signature", "the certificate request is signed with "+csr.SignatureAlgorithm.String(), "sign it by ECDSA with SHA-256 or SHA-384")
	}
	if err := csr.CheckSignature(); err != nil {
		return Request{}, &fault.Fault{
			Kind: fault.Invalid, Code: "csr.signature", Text: "the certificate request does not prove possession of its key", Remedy: "sign it with that key", Cause: err,
		}
	}
	if err := checkNames(csr, id, exact); err != nil {
		return Request{}, err
	}
	req := Request{CSR: csr}
	return req, req.readAttributes()
}

var (
	oidChallenge    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}         // PKCS #9 challengePassword
	oidDecryptKey   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 37} // id-aa-decryptKeyID
	oidAsymmDecrypt = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 54} // id-aa-asymmDecryptKeyID
)

// requestInfo is CertificationRequestInfo (RFC 2986 §4.1).
type requestInfo struct {
	Version    int
	Subject    asn1.RawValue
	Key        asn1.RawValue
	Attributes []asn1.RawValue `asn1:"tag:0"`
}

// requestAttribute is Attribute ::= SEQUENCE { type OID, values SET OF ANY }.
type requestAttribute struct {
	Type   asn1.ObjectIdentifier
	Values []asn1.RawValue `asn1:"set"`
}

// readAttributes reads those that mean something here, and digests what is asked for.
func (r *Request) readAttributes() error {
	var info requestInfo
	if rest, err := asn1.Unmarshal(r.CSR.RawTBSCertificateRequest, &info); err != nil || len(rest) != 0 {
		return fault.New(fault.Invalid, "csr.parse", "the certificate request's attributes do not parse", "send one PKCS #10 request in DER, as base64")
	}
	h := sha256.New()
	h.Write(info.Subject.FullBytes)
	h.Write(info.Key.FullBytes)
	for _, raw := range info.Attributes {
		var a requestAttribute
		if rest, err := asn1.Unmarshal(raw.FullBytes, &a); err != nil || len(rest) != 0 {
			return fault.New(fault.Invalid, "csr.parse", "an attribute of the certificate request does not parse", "leave it out, or send what RFC 2986 says of attributes")
		}
		switch {
		case a.Type.Equal(oidChallenge):
			text, ok := directoryString(a.Values)
			if !ok || r.Challenge != "" {
				return fault.New(fault.Invalid, "csr.challenge", "the certificate request's challengePassword is not one string of 1 to 255 characters",
					"put the TLS channel binding there in base64, or leave it out")
			}
			r.Challenge = text
			continue
		case a.Type.Equal(oidDecryptKey), a.Type.Equal(oidAsymmDecrypt):
			r.Sealed = true
		}
		h.Write(raw.FullBytes)
	}
	h.Sum(r.Digest[:0])
	return nil
}

// directoryString reads the one value of an attribute (RFC 2985 §5.4.1): any of the string types in which ASCII is ASCII.
func directoryString(values []asn1.RawValue) (string, bool) {
	if len(values) != 1 || values[0].Class != asn1.ClassUniversal || values[0].IsCompound {
		return "", false
	}
	v := values[0]
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagT61String:
	default:
		return "", false
	}
	for _, b := range v.Bytes {
		if b < 0x20 || b > 0x7e {
			return "", false
		}
	}
	return string(v.Bytes), len(v.Bytes) > 0 && len(v.Bytes) <= 255
}

// For gives the request with key in the place of its own: for a key that is made here. What is answered is another thing each time,
// because the key is kept nowhere.
func (r Request) For(key crypto.PublicKey) (Request, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return Request{}, err
	}
	csr := *r.CSR
	csr.PublicKey, csr.RawSubjectPublicKeyInfo = key, spki
	return Request{CSR: &csr, Digest: sha256.Sum256(append(r.Digest[:], spki...))}, nil
}

// sameName compares names as RFC 5280 §7.1 does, as far as our own need it: some tools write in UTF8String what we write in
// PrintableString. What is issued has our form.
func sameName(csr *x509.CertificateRequest, subject []byte) bool {
	if bytes.Equal(csr.RawSubject, subject) {
		return true
	}
	var asked, own pkix.RDNSequence
	if rest, err := asn1.Unmarshal(csr.RawSubject, &asked); err != nil || len(rest) != 0 {
		return false
	}
	if _, err := asn1.Unmarshal(subject, &own); err != nil || len(asked) != len(own) {
		return false
	}
	for i, rdn := range asked {
		if len(rdn) != 1 || !rdn[0].Type.Equal(own[i][0].Type) || rdn[0].Value != own[i][0].Value {
			return false
		}
	}
	return true
}

func checkNames(csr *x509.CertificateRequest, id idevid.Identity, exact bool) error {
	subject, err := id.Subject()
	if err != nil {
		return fault.Newf(fault.Invalid, "csr.subject", "device: %w", err).With("see `hallmark device show` for how the device is named")
	}
	if !sameName(csr, subject) && (exact || len(csr.Subject.Names) != 0) {
		return fault.New(fault.Invalid, "csr.subject", "the certificate request's subject is not that of device "+id.DeviceID,
			"ask with the subject of the present certificate")
	}
	san, err := id.SAN()
	if err != nil {
		return fault.Newf(fault.Invalid, "csr.san", "device: %w", err).With("see `hallmark device show` for how the device is named")
	}
	found := false
	for _, e := range csr.Extensions {
		switch {
		case e.Id.Equal(oidExtSAN):
			if found || !bytes.Equal(e.Value, san.Value) {
				return fault.New(fault.Invalid, "csr.san", "the certificate request's subjectAltName is not that of device "+id.DeviceID,
					"ask with the subjectAltName of the present certificate")
			}
			found = true
		case e.Id.Equal(oidExtKeyUsage), e.Id.Equal(oidExtEKU):
		case e.Id.Equal(oidExtBasic) && bytes.Equal(e.Value, notCA):
		case e.Critical:
			return fault.New(fault.Invalid, "csr.extension", "the certificate request asks for the critical extension "+e.Id.String(), "leave it out: ask /csrattrs what is wanted")
		}
	}
	if exact && !found {
		return fault.New(fault.Invalid, "csr.san", "the certificate request of device "+id.DeviceID+" has no subjectAltName",
			"ask with the subjectAltName of the present certificate")
	}
	return nil
}
