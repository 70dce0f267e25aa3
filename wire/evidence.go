package wire

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/suite"
)

// PSAProfile is the profile of the evidence this package writes (RFC 9783).
const PSAProfile = "tag:psacertified.org,2023:psa#tfm"

// PSA life cycles, major byte in the high byte; the low byte is ours (RFC 9783 §4.3.1).
const (
	LifecycleUnknown        uint = 0x0000
	LifecycleAssembly       uint = 0x1000
	LifecycleSecured        uint = 0x3000
	LifecycleDebug          uint = 0x4000
	LifecycleDecommissioned uint = 0x6000
)

// VirtualImplementation begins the implementation ID of every virtual device. Policy for production refuses the whole range,
// so that a simulated key can never stand for a hardware one.
const VirtualImplementation = "hallmark-virtual"

// Evidence is a PSA attestation token (RFC 9783): what a device says about itself, signed by its attestation key over the
// verifier's nonce. Private claims carry what the profile has no place for.
type Evidence struct {
	Nonce          []byte       `cbor:"10,keyasint"`
	InstanceID     []byte       `cbor:"256,keyasint"` // 0x01 then SHA-256 of the attestation key (SPKI): 33 bytes
	Profile        string       `cbor:"265,keyasint"`
	BootSeed       []byte       `cbor:"268,keyasint,omitempty"`
	ClientID       int          `cbor:"2394,keyasint"`
	Lifecycle      uint         `cbor:"2395,keyasint"`
	Implementation []byte       `cbor:"2396,keyasint"` // 32 bytes
	Components     []Measured   `cbor:"2399,keyasint"`
	Device         string       `cbor:"-76001,keyasint"`
	Virtual        bool         `cbor:"-76002,keyasint"` // says so itself: nothing here is hardware
	Hardware       string       `cbor:"-76003,keyasint"` // hardware revision
	DebugLocked    bool         `cbor:"-76004,keyasint"`
	BootCount      uint64       `cbor:"-76005,keyasint"`
	Counter        uint32       `cbor:"-76006,keyasint"` // security counter in the fuses
	POST           []TestResult `cbor:"-76007,keyasint"`
	LogHead        []byte       `cbor:"-76008,keyasint,omitempty"` // head of the device's own log, 32 bytes
	LogSeq         uint64       `cbor:"-76009,keyasint,omitempty"`
	Bundle         uint64       `cbor:"-76010,keyasint"` // trust bundle version
	KeyOrigin      string       `cbor:"-76011,keyasint"` // soft, isolated, tpm, pkcs11; OriginStation

	Parts string `cbor:"-76012,keyasint,omitempty"` // what guards fuses and counters: tpm, tpm-owner, soft; empty: the chip's own, or a virtual board's

	Isolation *Isolation `cbor:"-76013,keyasint,omitempty"` // nil: not known
	CodeKey   []byte     `cbor:"-76014,keyasint,omitempty"` // to which the keys of protected programs are to be wrapped (CodeKeySize); empty: none waits
}

// Measured is a software component as it was measured at boot (RFC 9783 §4.4.1; there is no key 3).
type Measured struct {
	Type        string `cbor:"1,keyasint,omitempty" json:"type"` // BL, PRoT, ARoT, App, TS
	Value       []byte `cbor:"2,keyasint" json:"value"`          // SHA-256 of what was loaded
	Version     string `cbor:"4,keyasint,omitempty" json:"version"`
	SignerID    []byte `cbor:"5,keyasint" json:"signer"` // SHA-256 naming who signed it
	Description string `cbor:"6,keyasint,omitempty" json:"description"`
}

// TestResult is one power-on self test.
type TestResult struct {
	Name   string `cbor:"1,keyasint" json:"name"`
	Passed bool   `cbor:"2,keyasint" json:"passed"`
	Detail string `cbor:"3,keyasint,omitempty" json:"detail,omitempty"`
}

// MaxEvidence bounds an encoded token.
const MaxEvidence = 16 << 10

// InstanceID names an attestation key: 0x01 then SHA-256 of its SubjectPublicKeyInfo.
func InstanceID(pub crypto.PublicKey) ([]byte, error) {
	der, err := suite.MarshalPublic(pub)
	if err != nil {
		return nil, fmt.Errorf("instance id: %w", err)
	}
	sum := sha256.Sum256(der)
	return append([]byte{1}, sum[:]...), nil
}

// EncodeEvidence writes e.
func EncodeEvidence(e Evidence) ([]byte, error) { return encode(e, MaxEvidence) }

// DecodeEvidence reads a token's payload. Claims outside Evidence are refused: this is the decoder of our own agents; foreign
// generations of the token have decoders of their own.
func DecodeEvidence(data []byte) (Evidence, error) { return decode[Evidence](data, MaxEvidence) }

func (e Evidence) check() error {
	switch {
	case len(e.Nonce) != 32 && len(e.Nonce) != 48 && len(e.Nonce) != 64:
		return fmt.Errorf("evidence: nonce of %d bytes", len(e.Nonce))
	case len(e.InstanceID) != 33 || e.InstanceID[0] != 1:
		return errors.New("evidence: instance ID is not 0x01 and 32 bytes")
	case e.Profile != PSAProfile:
		return fmt.Errorf("evidence: profile %q", e.Profile)
	case e.ClientID == 0:
		return errors.New("evidence: client ID 0")
	case len(e.Implementation) != 32:
		return errors.New("evidence: implementation ID is not 32 bytes")
	case len(e.Components) == 0 || len(e.Components) > MaxComponents:
		return fmt.Errorf("evidence: %d software components", len(e.Components))
	case len(e.CodeKey) != 0 && len(e.CodeKey) != CodeKeySize:
		return fmt.Errorf("evidence: code key of %d bytes", len(e.CodeKey))
	case len(e.POST) > 64:
		return fmt.Errorf("evidence: %d self tests", len(e.POST))
	}
	for _, c := range e.Components {
		if len(c.Value) != 32 || len(c.SignerID) != 32 {
			return errors.New("evidence: component without a 32-byte value and signer")
		}
	}
	return e.Isolation.check()
}
