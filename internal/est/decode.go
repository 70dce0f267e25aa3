package est

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/pki/pkcs10"
)

// DecodeCSR gives the DER of a certificate request that came as base64 with any white space (RFC 8951 §3.1), as PEM, or raw. What
// it returns is bounded, and not parsed yet.
func DecodeCSR(body []byte) ([]byte, error) {
	if len(body) > maxBody {
		return nil, fault.Newf(fault.Invalid, "csr.size", "certificate request of %d bytes, at most %d", len(body), maxBody).With("send one request in PKCS #10")
	}
	der, err := decode(body)
	if err != nil {
		return nil, err
	}
	if len(der) == 0 || len(der) > pkcs10.MaxCSR {
		return nil, fault.Newf(fault.Invalid, "csr.size", "certificate request of %d bytes, want 1 to %d", len(der), pkcs10.MaxCSR).With("send one request in PKCS #10")
	}
	return der, nil
}

func decode(body []byte) ([]byte, error) {
	if len(body) > 0 && body[0] == 0x30 { // DER SEQUENCE; base64 of one begins with M
		return body, nil
	}
	trimmed := bytes.TrimSpace(body)
	if bytes.HasPrefix(trimmed, []byte("-----BEGIN ")) {
		block, rest := pem.Decode(trimmed)
		if block == nil || len(bytes.TrimSpace(rest)) != 0 || (block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST") {
			return nil, fault.New(fault.Invalid, "csr.pem", "the PEM is not one CERTIFICATE REQUEST", "send the request alone")
		}
		return block.Bytes, nil
	}
	flat := bytes.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '\r', '\n':
			return -1
		}
		return r
	}, trimmed)
	der, err := base64.StdEncoding.Strict().AppendDecode(nil, flat)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "csr.base64", "the certificate request is not base64: %w", err).With("send it as RFC 7030 §4.2.1 has it")
	}
	return der, nil
}
