package wire

import (
	"crypto/sha256"
	"fmt"
)

// FormDelta is the kind of a form that makes a component of one that the device has: see wire/delta.
const FormDelta = "delta1"

// MaxForms bounds the forms of a delivery.
const MaxForms = 64

// Form is another way to the bytes of a component than to fetch them as they are. It is signed by nobody: the digest in the release decides what the bytes are, and a form that gives others is one that the
// device does without.
type Form struct {
	Component []byte `cbor:"1,keyasint"` // SHA-256 of the component, as in the release
	Kind      string `cbor:"2,keyasint"`
	Digest    []byte `cbor:"3,keyasint"` // SHA-256 of what is fetched
	Size      uint64 `cbor:"4,keyasint"` // of that, bytes
	From      []byte `cbor:"5,keyasint"` // SHA-256 of the component that it is made of
}

func checkForms(forms []Form) error {
	if len(forms) > MaxForms {
		return fmt.Errorf("delivery: %d forms, at most %d", len(forms), MaxForms)
	}
	for _, f := range forms {
		if len(f.Component) != sha256.Size || len(f.Digest) != sha256.Size || len(f.From) != sha256.Size || f.Kind == "" || len(f.Kind) > MaxKnown || f.Size == 0 {
			return fmt.Errorf("delivery: a form of kind %q and %d bytes: no size, or a digest that is none", f.Kind, f.Size)
		}
	}
	return nil
}
