package wire

import (
	"crypto/sha256"
	"errors"
	"fmt"
)

// Fact is one entry of a log: a decision or an event, in the bytes whose hash is the leaf.
type Fact struct {
	V       uint       `cbor:"1,keyasint" json:"v"` // 1
	UID     []byte     `cbor:"2,keyasint" json:"uid"`
	Kind    string     `cbor:"3,keyasint" json:"kind"`
	At      int64      `cbor:"4,keyasint" json:"at_ms"` // milliseconds since 1970
	Actor   string     `cbor:"5,keyasint" json:"actor"`
	Subject string     `cbor:"6,keyasint" json:"subject"`
	Cause   *FactCause `cbor:"7,keyasint,omitempty" json:"cause,omitempty"`
	Data    []byte     `cbor:"8,keyasint" json:"data"`

	// Private commits to what is said in private: SHA-256(salt ‖ ciphertext), of 32 B. Absent when nothing is.
	Private []byte `cbor:"9,keyasint,omitempty" json:"private,omitempty"`
}

// FactCause is the place of the fact that led to this one.
type FactCause struct {
	Log   string `cbor:"1,keyasint" json:"log"`
	Index uint64 `cbor:"2,keyasint" json:"index"`
}

// MaxFact bounds an entry: the tile format frames its length in 16 bits.
const MaxFact = 65535

// EncodeFact writes f.
func EncodeFact(f Fact) ([]byte, error) { return encode(f, MaxFact) }

// DecodeFact reads an entry.
func DecodeFact(data []byte) (Fact, error) { return decode[Fact](data, MaxFact) }

func (f Fact) check() error {
	if f.V != 1 || len(f.UID) != 16 || f.Kind == "" || len(f.Kind) > 64 || len(f.Actor) > 256 || len(f.Subject) > 256 {
		return errors.New("fact: version, uid, kind, actor or subject out of bounds")
	}
	if len(f.Private) != 0 && len(f.Private) != sha256.Size {
		return fmt.Errorf("fact: a commitment of %d bytes", len(f.Private))
	}
	return nil
}
