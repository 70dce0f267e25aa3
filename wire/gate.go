package wire

import (
	"crypto/sha256"
	"errors"
)

// MaxGateDecision bounds an encoded GateDecision, bytes.
const MaxGateDecision = 48 << 10

// GateStep is one of the things that the supply gate looks at.
type GateStep struct {
	N    uint   `cbor:"1,keyasint" json:"n" doc:"1 bytes, 2 bill of materials, 3 provenance, 4 advisories, 5 exceptions (VEX)"`
	OK   bool   `cbor:"2,keyasint" json:"ok"`
	Code string `cbor:"3,keyasint,omitempty" json:"code,omitempty" doc:"why not"`
	Text string `cbor:"4,keyasint,omitempty" json:"text,omitempty"`
}

// GateDecision is what the supply gate found of a release before it was proposed. Its digest is in the release, so that whoever approves the release signs it.
type GateDecision struct {
	V          uint       `cbor:"1,keyasint" json:"v"` // 1
	Product    string     `cbor:"2,keyasint" json:"product"`
	Subject    [][]byte   `cbor:"3,keyasint" json:"subject"`                        // SHA-256 of each component as it was built, in the release's order
	SBOM       []byte     `cbor:"4,keyasint,omitempty" json:"sbom,omitempty"`       // SHA-256 of the document
	Provenance []byte     `cbor:"5,keyasint,omitempty" json:"provenance,omitempty"` // the same
	VEX        [][]byte   `cbor:"6,keyasint,omitempty" json:"vex,omitempty"`        // of documents that excused a flaw
	DB         []byte     `cbor:"7,keyasint" json:"db"`                             // SHA-256 over the digests of the advisories, by ecosystem
	Policy     []byte     `cbor:"9,keyasint" json:"policy"`                         // SHA-256 of the product's policy
	Steps      []GateStep `cbor:"10,keyasint" json:"steps"`
	Components uint       `cbor:"11,keyasint" json:"components"`
	Unknown    uint       `cbor:"12,keyasint" json:"unknown" doc:"components of which nothing is known"`
	Open       uint       `cbor:"13,keyasint" json:"open" doc:"flaws that nobody excused, of any severity"`
	Excused    uint       `cbor:"14,keyasint" json:"excused"`
	At         uint64     `cbor:"15,keyasint" json:"at"` // Unix seconds
	OK         bool       `cbor:"16,keyasint" json:"ok"`
}

// EncodeGateDecision writes d.
func EncodeGateDecision(d GateDecision) ([]byte, error) { return encode(d, MaxGateDecision) }

// DecodeGateDecision reads one.
func DecodeGateDecision(data []byte) (GateDecision, error) {
	return decode[GateDecision](data, MaxGateDecision)
}

// check holds that a decision is good only when every step of it is.
func (d GateDecision) check() error {
	if d.V != 1 || d.Product == "" || len(d.Subject) == 0 || len(d.Subject) > MaxComponents || len(d.Steps) == 0 || len(d.Steps) > 16 {
		return errors.New("gate decision: another version, or without a product, a subject or a step")
	}
	good := true
	for _, s := range d.Steps {
		good = good && s.OK
	}
	if d.OK != good {
		return errors.New("gate decision: it does not follow from its steps")
	}
	for _, s := range d.Subject {
		if len(s) != sha256.Size {
			return errors.New("gate decision: a subject is not named by its SHA-256")
		}
	}
	return nil
}
