package wire

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// TypeCARequest is the signed request for a CA. The key it is about signs it: whoever asks for a certificate over a key holds that key.
const TypeCARequest Type = "application/hallmark-ca-request+cose"

// The CAs that the OEM root signs, by what package pki calls their roles.
const (
	CAProduct     = "product"
	CAOperational = "operational"
	CAInfra       = "infra"
)

// CARequest asks the holders of the OEM root for a CA certificate over a key that an instance has made. It travels as a
// COSE_Sign1 by that key (SignCARequest). People decide about it, so everything that goes into the certificate is in it.
type CARequest struct {
	Role     string `cbor:"1,keyasint" json:"role"` // CAProduct, CAOperational or CAInfra
	OEM      string `cbor:"2,keyasint" json:"oem"`
	Product  string `cbor:"3,keyasint,omitempty" json:"product,omitempty"`   // of a product CA, and of no other
	Unit     string `cbor:"4,keyasint,omitempty" json:"unit,omitempty"`      // tells CAs of one role apart in their names: "2027"
	SPKI     []byte `cbor:"5,keyasint" json:"spki"`                          // the new CA's key
	Instance string `cbor:"6,keyasint" json:"instance"`                      // who asks
	Purpose  string `cbor:"7,keyasint" json:"purpose"`                       // why, in words, for the people at the ceremony
	Days     uint   `cbor:"8,keyasint,omitempty" json:"days,omitempty"`      // life asked for; left out: what the role's profile has
	CRL      string `cbor:"9,keyasint,omitempty" json:"crl,omitempty"`       // http URL of the list in which the root would revoke it
	Issued   uint64 `cbor:"10,keyasint" json:"issued"`                       // Unix time
	Replaces []byte `cbor:"11,keyasint,omitempty" json:"replaces,omitempty"` // subject key ID of the CA that it takes over from
}

// CAGrant is the answer: the chain of certificates for a request, the new CA's first, the root's last. Nobody needs to sign it:
// the chain is believed for its own signatures, and the request says whose it is.
type CAGrant struct {
	Request []byte   `cbor:"1,keyasint" json:"request"` // SHA-256 of the request's payload
	Chain   [][]byte `cbor:"2,keyasint" json:"chain"`   // DER
}

// CRLRequest asks the holders of a CA's offline key for its next list of revoked CAs. The answer is the list itself, DER.
type CRLRequest struct {
	Issuer   []byte      `cbor:"1,keyasint" json:"issuer"` // certificate of the CA that revokes, DER
	Number   uint64      `cbor:"2,keyasint" json:"number"` // higher than of any list before
	From     uint64      `cbor:"3,keyasint" json:"from"`   // thisUpdate, Unix time
	Until    uint64      `cbor:"4,keyasint" json:"until"`  // nextUpdate
	Revoked  []CARevoked `cbor:"5,keyasint" json:"revoked"`
	Instance string      `cbor:"6,keyasint" json:"instance"`
	Purpose  string      `cbor:"7,keyasint" json:"purpose"`
}

// CARevoked is an entry of such a list.
type CARevoked struct {
	Serial []byte `cbor:"1,keyasint" json:"serial"` // of the certificate, big-endian
	At     uint64 `cbor:"2,keyasint" json:"at"`     // Unix time
	Reason uint   `cbor:"3,keyasint" json:"reason"` // RFC 5280 §5.3.1
	Name   string `cbor:"4,keyasint" json:"name"`   // the CA's subject, for the people who decide
}

// Bounds of the encoded messages.
const (
	MaxCARequest  = 4 << 10
	MaxCAGrant    = 16 << 10
	MaxCRLRequest = 48 << 10

	maxCAChain   = 4
	maxCARevoked = 256
	maxPurpose   = 512
)

// SignCARequest writes r, signed by the key that it is about.
func SignCARequest(r CARequest, key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("CA request: %w", err)
	}
	r.SPKI = der
	payload, err := EncodeCARequest(r)
	if err != nil {
		return nil, err
	}
	return Sign1(TypeCARequest, payload, key)
}

// OpenCARequest reads a signed request and checks that the key it is about has signed it. It returns the payload too: its digest
// is what people compare, and what the grant names.
func OpenCARequest(envelope []byte) (CARequest, []byte, error) {
	o, err := Parse1(TypeCARequest, envelope)
	if err != nil {
		return CARequest{}, nil, err
	}
	r, err := DecodeCARequest(o.Payload)
	if err != nil {
		return CARequest{}, nil, err
	}
	pub, err := parseECDSA(r.SPKI)
	if err != nil {
		return CARequest{}, nil, fmt.Errorf("CA request: %w", err)
	}
	if err := o.Verify(pub); err != nil {
		return CARequest{}, nil, err
	}
	return r, o.Payload, nil
}

// EncodeCARequest writes r.
func EncodeCARequest(r CARequest) ([]byte, error) { return encode(r, MaxCARequest) }

// DecodeCARequest reads a request's payload. Whether the key agrees is OpenCARequest's to say.
func DecodeCARequest(data []byte) (CARequest, error) { return decode[CARequest](data, MaxCARequest) }

func (r CARequest) check() error {
	if !slices.Contains([]string{CAProduct, CAOperational, CAInfra}, r.Role) {
		return fmt.Errorf("CA request: role %q: want %s, %s or %s", r.Role, CAProduct, CAOperational, CAInfra)
	}
	switch {
	case !validName(r.OEM) || (r.Role == CAProduct) != (r.Product != "") || r.Product != "" && !validName(r.Product):
		return fmt.Errorf("CA request: role %s, OEM %q, product %q", r.Role, r.OEM, r.Product)
	case r.Unit != "" && !validName(r.Unit) || len(r.Role)+1+len(r.Unit) > 64:
		return fmt.Errorf("CA request: unit %q: want lower-case letters, digits, '-' and '.', at most 64 with the role", r.Unit)
	case !readable(r.Instance, 128) || !readable(r.Purpose, maxPurpose):
		return fmt.Errorf("CA request: instance and purpose must be printable text of 1 to 128 and 1 to %d bytes", maxPurpose)
	case r.Days > 40*366:
		return fmt.Errorf("CA request: a life of %d days: at most 40 years", r.Days)
	case r.CRL != "" && (!strings.HasPrefix(r.CRL, "http://") || !readable(r.CRL, 256)):
		return fmt.Errorf("CA request: %q is no http URL", r.CRL)
	case len(r.Replaces) > 32 || r.Issued == 0:
		return errors.New("CA request: no time, or a key ID of more than 32 bytes")
	}
	if _, err := parseECDSA(r.SPKI); err != nil {
		return fmt.Errorf("CA request: %w", err)
	}
	return nil
}

// readable says whether people can read all of s: nothing in it may hide or move what stands beside it.
func readable(s string, most int) bool {
	if s == "" || len(s) > most || !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// EncodeCAGrant writes g.
func EncodeCAGrant(g CAGrant) ([]byte, error) { return encode(g, MaxCAGrant) }

// DecodeCAGrant reads a grant. Nothing in it is believed before the chain is verified against a root that is trusted already.
func DecodeCAGrant(data []byte) (CAGrant, error) { return decode[CAGrant](data, MaxCAGrant) }

func (g CAGrant) check() error {
	if len(g.Request) != sha256.Size || len(g.Chain) < 2 || len(g.Chain) > maxCAChain {
		return fmt.Errorf("CA grant: request digest of %d bytes, %d certificates: want 32, and 2 to %d", len(g.Request), len(g.Chain), maxCAChain)
	}
	for i, der := range g.Chain {
		if len(der) == 0 {
			return fmt.Errorf("CA grant: certificate %d is empty", i)
		}
	}
	return nil
}

// EncodeCRLRequest writes r.
func EncodeCRLRequest(r CRLRequest) ([]byte, error) { return encode(r, MaxCRLRequest) }

// DecodeCRLRequest reads a request for a list. It is signed by nobody: people compare its digest, and read what is in it.
func DecodeCRLRequest(data []byte) (CRLRequest, error) {
	return decode[CRLRequest](data, MaxCRLRequest)
}

func (r CRLRequest) check() error {
	switch {
	case len(r.Issuer) == 0 || r.Number == 0:
		return errors.New("request for a list: no issuer or number")
	case r.From == 0 || r.Until <= r.From:
		return errors.New("request for a list: it ends before it begins")
	case len(r.Revoked) > maxCARevoked:
		return fmt.Errorf("request for a list: %d entries, at most %d", len(r.Revoked), maxCARevoked)
	case !readable(r.Instance, 128) || !readable(r.Purpose, maxPurpose):
		return fmt.Errorf("request for a list: instance and purpose must be printable text of 1 to 128 and 1 to %d bytes", maxPurpose)
	}
	for i, e := range r.Revoked {
		if len(e.Serial) == 0 || len(e.Serial) > 20 || e.Serial[0] == 0 || e.At == 0 || e.Reason > 10 || !readable(e.Name, 256) {
			return fmt.Errorf("request for a list: entry %d is not a serial number, a time, a reason and a name", i)
		}
	}
	return nil
}
