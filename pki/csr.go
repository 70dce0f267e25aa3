package pki

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// MaxCSR bounds a certificate request (DER).
const MaxCSR = 16 << 10

// Request is a certificate request that is well-formed, asks for nothing but a device's own name, and proves possession of its key.
type Request struct {
	CSR    *x509.CertificateRequest
	Digest [32]byte // SHA-256 of the DER
}

var (
	oidExtSAN      = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtEKU      = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// ParseRequest reads a PKCS#10 request (RFC 2986) by the device id. The subject has to be id's or, when exact is false, empty; the
// subjectAltName id's or absent, and present when exact is true (RFC 7030 §4.2.2). Asked key usages are ignored: the profile
// decides. Any other extension asked for as critical is refused.
func ParseRequest(der []byte, id idevid.Identity, exact bool) (Request, error) {
	if len(der) > MaxCSR {
		return Request{}, fault.Newf(fault.Invalid, "csr.size", "certificate request of %d bytes, at most %d", len(der), MaxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return Request{}, fault.Newf(fault.Invalid, "csr.parse", "certificate request does not parse: %w", err)
	}
	if !bytes.Equal(csr.Raw, der) {
		return Request{}, fault.Newf(fault.Invalid, "csr.parse", "bytes after the certificate request")
	}
	if err := idevid.KeyAllowed(csr.PublicKey); err != nil {
		return Request{}, fault.Newf(fault.Invalid, "csr.key", "certificate request: %w", err)
	}
	if csr.SignatureAlgorithm != x509.ECDSAWithSHA256 && csr.SignatureAlgorithm != x509.ECDSAWithSHA384 {
		return Request{}, fault.Newf(fault.Invalid, "csr.signature", "certificate request signed with %s, want ECDSA with SHA-256 or SHA-384", csr.SignatureAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return Request{}, fault.Newf(fault.Invalid, "csr.signature", "certificate request does not prove possession of its key: %w", err)
	}
	if err := checkNames(csr, id, exact); err != nil {
		return Request{}, err
	}
	return Request{CSR: csr, Digest: sha256.Sum256(der)}, nil
}

func checkNames(csr *x509.CertificateRequest, id idevid.Identity, exact bool) error {
	subject, err := id.Subject()
	if err != nil {
		return fault.Newf(fault.Invalid, "csr.subject", "device: %w", err)
	}
	if !bytes.Equal(csr.RawSubject, subject) && (exact || len(csr.Subject.Names) != 0) {
		return fault.New(fault.Invalid, "csr.subject", "the certificate request's subject is not that of device "+id.DeviceID,
			"ask with the subject of the present certificate")
	}
	san, err := id.SAN()
	if err != nil {
		return fault.Newf(fault.Invalid, "csr.san", "device: %w", err)
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
		case e.Critical:
			return fault.Newf(fault.Invalid, "csr.extension", "the certificate request asks for a critical extension %s", e.Id)
		}
	}
	if exact && !found {
		return fault.New(fault.Invalid, "csr.san", "the certificate request of device "+id.DeviceID+" has no subjectAltName",
			"ask with the subjectAltName of the present certificate")
	}
	return nil
}
