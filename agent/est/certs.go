package est

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
)

// maxCerts bounds the certificates of one answer.
const maxCerts = 16

var (
	oidData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
)

// ContentInfo ::= SEQUENCE { contentType OID, content [0] EXPLICIT SignedData } (RFC 5652 §3)
type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"explicit,tag:0"`
}

// SignedData, certs-only (RFC 5272 §4.1): no content, no signers. CRLs are skipped: they mean nothing here.
type signedData struct {
	Version int
	Digests asn1.RawValue `asn1:"set"`
	Content struct {
		Type asn1.ObjectIdentifier
	}
	Certificates asn1.RawValue `asn1:"optional,tag:0"`
	CRLs         asn1.RawValue `asn1:"optional,tag:1"`
	Signers      asn1.RawValue `asn1:"set"`
}

// DecodeCerts reads an EST answer: base64 with white space anywhere, of a certs-only SignedData in DER.
func DecodeCerts(body []byte) ([]*x509.Certificate, error) {
	if len(body) > maxBody {
		return nil, fmt.Errorf("certificates: %d bytes, at most %d", len(body), maxBody)
	}
	flat := bytes.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '\r', '\n':
			return -1
		}
		return r
	}, body)
	der, err := base64.StdEncoding.Strict().AppendDecode(nil, flat)
	if err != nil {
		return nil, fmt.Errorf("certificates: not base64: %w", err)
	}
	return ParseCertsOnly(der)
}

// ParseCertsOnly reads a certs-only SignedData.
func ParseCertsOnly(der []byte) ([]*x509.Certificate, error) {
	var ci contentInfo
	if rest, err := asn1.Unmarshal(der, &ci); err != nil || len(rest) != 0 {
		return nil, errors.New("certificates: not a PKCS#7 ContentInfo")
	}
	if !ci.Type.Equal(oidSignedData) {
		return nil, fmt.Errorf("certificates: content type %s is not SignedData", ci.Type)
	}
	var sd signedData
	if rest, err := asn1.Unmarshal(ci.Content.Bytes, &sd); err != nil || len(rest) != 0 {
		return nil, errors.New("certificates: SignedData does not parse, or carries content")
	}
	if !sd.Content.Type.Equal(oidData) || len(sd.Signers.Bytes) != 0 {
		return nil, errors.New("certificates: SignedData is not certs-only")
	}
	certs, err := x509.ParseCertificates(sd.Certificates.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	if len(certs) == 0 || len(certs) > maxCerts {
		return nil, fmt.Errorf("certificates: %d, want 1 to %d", len(certs), maxCerts)
	}
	return certs, nil
}
