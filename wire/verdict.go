package wire

import (
	"crypto/sha256"
	"errors"
)

// Verdict is what the verifier says to a device of evidence that it made, signed by the directive authority. Who sits on the line, or has the server's TLS
// key, does not make one; and as it names the evidence, one of other evidence is none of this.
type Verdict struct {
	Device   string `cbor:"1,keyasint" json:"device"`
	Evidence []byte `cbor:"2,keyasint" json:"evidence"` // SHA-256 of the signed message
	Status   string `cbor:"3,keyasint" json:"status"`   // EAR status
}

// MaxVerdict bounds an encoded Verdict.
const MaxVerdict = 256

// EncodeVerdict writes v.
func EncodeVerdict(v Verdict) ([]byte, error) { return encode(v, MaxVerdict) }

// DecodeVerdict reads a verdict's payload.
func DecodeVerdict(data []byte) (Verdict, error) { return decode[Verdict](data, MaxVerdict) }

func (v Verdict) check() error {
	switch {
	case v.Device == "" || len(v.Device) > 64:
		return errors.New("verdict: no device")
	case len(v.Evidence) != sha256.Size:
		return errors.New("verdict: the digest of the evidence is not 32 bytes")
	case v.Status == "" || len(v.Status) > 32:
		return errors.New("verdict: no status")
	}
	return nil
}
