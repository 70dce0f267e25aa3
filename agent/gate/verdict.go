package gate

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/wire"
)

// Verdict opens what the verifier says of evidence that the device has just made, and gives its status: signed by the directive authority, of this
// device, of this evidence.
func Verdict(b wire.Bundle, device string, evidence, signed []byte) (status string, err error) {
	payload, r := directiveRole(b, wire.TypeVerdict, signed)
	if r != nil {
		return "", fmt.Errorf("verdict: %w", r)
	}
	v, err := wire.DecodeVerdict(payload)
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256(evidence)
	if v.Device != device || !bytes.Equal(v.Evidence, digest[:]) {
		return "", errors.New("verdict: it is of other evidence")
	}
	return v.Status, nil
}
