package est

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// NewCSR makes the certificate request (DER) of the device that as belongs to, for key. Keep it to ask again after a lost answer:
// the same request gives the same certificate.
func NewCSR(as *x509.Certificate, key crypto.Signer) ([]byte, error) {
	id, err := idevid.Parse(as)
	if err != nil {
		return nil, err
	}
	t, err := idevid.RequestTemplate(id)
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificateRequest(rand.Reader, t, key)
}

// Binding names a line, as a request that is bound to it has it (RFC 7030 §3.5): the exporter of RFC 9266, in base64. Empty: the line
// has no name.
func Binding(line *tls.ConnectionState) string {
	if line == nil || line.Version != tls.VersionTLS13 {
		return ""
	}
	name, err := line.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32)
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(name)
}

// certificationRequest and requestInfo are RFC 2986 §4.
type certificationRequest struct {
	Info      asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

type requestInfo struct {
	Version    int
	Subject    asn1.RawValue
	Key        asn1.RawValue
	Attributes []asn1.RawValue `asn1:"tag:0,set"`
}

type challenge struct {
	Type   asn1.ObjectIdentifier
	Values []asn1.RawValue `asn1:"set"`
}

var oidChallenge = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7} // PKCS #9 challengePassword

// BindCSR adds the attribute challengePassword to a request (DER) that crypto/x509 made, which cannot write it, and signs it anew.
func BindCSR(csr []byte, key crypto.Signer, binding string) ([]byte, error) {
	parsed, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, err
	}
	hash, ok := map[x509.SignatureAlgorithm]crypto.Hash{x509.ECDSAWithSHA256: crypto.SHA256, x509.ECDSAWithSHA384: crypto.SHA384}[parsed.SignatureAlgorithm]
	if !ok {
		return nil, fmt.Errorf("certificate request signed with %s", parsed.SignatureAlgorithm)
	}
	var whole certificationRequest
	var info requestInfo
	if _, err := asn1.Unmarshal(csr, &whole); err != nil {
		return nil, err
	}
	if rest, err := asn1.Unmarshal(whole.Info.FullBytes, &info); err != nil || len(rest) != 0 {
		return nil, errors.Join(errors.New("certificate request with other attributes"), err)
	}
	attr, err := asn1.Marshal(challenge{oidChallenge, []asn1.RawValue{{Tag: asn1.TagPrintableString, Bytes: []byte(binding)}}})
	if err != nil {
		return nil, err
	}
	info.Attributes = append(info.Attributes, asn1.RawValue{FullBytes: attr})
	der, err := asn1.Marshal(info)
	if err != nil {
		return nil, err
	}
	digest := hash.New()
	digest.Write(der)
	signature, err := key.Sign(rand.Reader, digest.Sum(nil), hash)
	if err != nil {
		return nil, err
	}
	whole.Info, whole.Signature = asn1.RawValue{FullBytes: der}, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	bound, err := asn1.Marshal(whole)
	if err != nil {
		return nil, err
	}
	if parsed, err = x509.ParseCertificateRequest(bound); err != nil {
		return nil, err
	}
	return bound, parsed.CheckSignature()
}
