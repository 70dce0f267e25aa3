package wire

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
)

// BootManager is a boot manager that may start: the holders of the root keys have signed its digest into the trust bundle.
type BootManager struct {
	Digest   []byte   `cbor:"1,keyasint" json:"digest"`                       // SHA-256 of its file
	Hardware []string `cbor:"2,keyasint,omitempty" json:"hardware,omitempty"` // revisions that it is for; none: all
}

// maxBootManagers is of one bundle: those that are in use, on each kind of hardware, and the ones before.
const maxBootManagers = 32

// ErrBootManager says that a boot manager is not among those that may start.
var ErrBootManager = errors.New("boot manager not signed for")

// Starts says why a boot manager may not start on a revision of hardware; a bundle that names none does not say.
func (b Bundle) Starts(code [32]byte, hardware string) error {
	if len(b.BootManagers) == 0 {
		return nil
	}
	for _, m := range b.BootManagers {
		if !bytes.Equal(m.Digest, code[:]) {
			continue
		}
		if len(m.Hardware) > 0 && !slices.Contains(m.Hardware, hardware) {
			return fmt.Errorf("%w: %x is for hardware %v, this is %s", ErrBootManager, code, m.Hardware, hardware)
		}
		return nil
	}
	return fmt.Errorf("%w: %x is none of those that trust bundle %d names", ErrBootManager, code, b.Version)
}

func (b Bundle) checkBootManagers() error {
	if len(b.BootManagers) > maxBootManagers {
		return fmt.Errorf("bundle: %d boot managers, at most %d", len(b.BootManagers), maxBootManagers)
	}
	for i, m := range b.BootManagers {
		if len(m.Digest) != sha256.Size || slices.Contains(m.Hardware, "") {
			return errors.New("bundle: a boot manager without a digest of 32 bytes, or for hardware without a name")
		}
		if slices.ContainsFunc(b.BootManagers[:i], func(o BootManager) bool { return bytes.Equal(o.Digest, m.Digest) }) {
			return fmt.Errorf("bundle: boot manager %x is named twice", m.Digest)
		}
	}
	return nil
}
