package idevid

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxSAN bounds the extension; ours is about 60 bytes.
const maxSAN = 512

// otherName ::= SEQUENCE { type-id OBJECT IDENTIFIER, value [0] EXPLICIT ANY } (RFC 5280 §4.2.1.6)
type otherName struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue `asn1:"tag:0,explicit"`
}

// HardwareModuleName ::= SEQUENCE { hwType OBJECT IDENTIFIER, hwSerialNum OCTET STRING } (RFC 4108 §5)
type hardwareModule struct {
	Type   asn1.RawValue
	Serial []byte
}

// ParseSAN reads the value of a subjectAltName that holds exactly one name, a hardwareModuleName with a serial of 16 bytes.
// It accepts DER only: the bytes have to be what the parsed value encodes to.
func ParseSAN(value []byte) (hwType x509.OID, serial []byte, err error) {
	if len(value) > maxSAN {
		return x509.OID{}, nil, fmt.Errorf("subjectAltName: %d bytes, at most %d", len(value), maxSAN)
	}
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(value, &names); err != nil || len(rest) != 0 {
		return x509.OID{}, nil, errors.New("subjectAltName does not parse")
	}
	if len(names) != 1 || names[0].Class != asn1.ClassContextSpecific || names[0].Tag != 0 || !names[0].IsCompound {
		return x509.OID{}, nil, errors.New("subjectAltName is not one otherName")
	}
	var other otherName
	if rest, err := asn1.UnmarshalWithParams(names[0].FullBytes, &other, "tag:0"); err != nil || len(rest) != 0 {
		return x509.OID{}, nil, errors.New("subjectAltName: otherName does not parse")
	}
	if !other.ID.Equal(oidHardwareModule) {
		return x509.OID{}, nil, fmt.Errorf("subjectAltName: otherName %s is not hardwareModuleName", other.ID)
	}
	var hw hardwareModule
	if rest, err := asn1.Unmarshal(other.Value.Bytes, &hw); err != nil || len(rest) != 0 {
		return x509.OID{}, nil, errors.New("subjectAltName: hardwareModuleName does not parse")
	}
	if hw.Type.Class != asn1.ClassUniversal || hw.Type.Tag != asn1.TagOID || hw.Type.IsCompound {
		return x509.OID{}, nil, errors.New("subjectAltName: hwType is not an object identifier")
	}
	if err := hwType.UnmarshalBinary(hw.Type.Bytes); err != nil {
		return x509.OID{}, nil, errors.New("subjectAltName: hwType is not an object identifier")
	}
	if len(hw.Serial) != 16 {
		return x509.OID{}, nil, fmt.Errorf("subjectAltName: hwSerialNum has %d bytes, want 16", len(hw.Serial))
	}
	again, err := encodeSAN(hw.Type.Bytes, hw.Serial)
	if err != nil || !bytes.Equal(again, value) {
		return x509.OID{}, nil, errors.New("subjectAltName is not DER")
	}
	return hwType, hw.Serial, nil
}

func encodeSAN(hwType, serial []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(names *cryptobyte.Builder) {
		// GeneralName is a CHOICE with IMPLICIT tags: otherName is context 0 in place of its SEQUENCE.
		names.AddASN1(tag0, func(other *cryptobyte.Builder) {
			other.AddASN1ObjectIdentifier(oidHardwareModule)
			other.AddASN1(tag0, func(value *cryptobyte.Builder) {
				value.AddASN1(cbasn1.SEQUENCE, func(module *cryptobyte.Builder) {
					module.AddASN1(cbasn1.OBJECT_IDENTIFIER, func(v *cryptobyte.Builder) { v.AddBytes(hwType) })
					module.AddASN1OctetString(serial)
				})
			})
		})
	})
	return b.Bytes()
}

const tag0 = cbasn1.Tag(0xa0) // context 0, constructed

// KeyAllowed says what is wrong with pub as a device's key: it has to be P-256 or P-384.
func KeyAllowed(pub crypto.PublicKey) error {
	k, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("key type %T, want ECDSA P-256 or P-384", pub)
	}
	if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
		return fmt.Errorf("curve %s, want P-256 or P-384", k.Curve.Params().Name)
	}
	return nil
}

// RandomSerial gives a serial number of 128 bits, 126 of them random, always 16 bytes long and positive.
func RandomSerial() (*big.Int, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x7f | 0x40 // positive without a leading zero byte
	return new(big.Int).SetBytes(b), nil
}
