//go:build !cgo

package pkcs11

import (
	"crypto"
	"errors"

	"github.com/hallmark-iot/hallmark/suite"
)

// Store is not to be had in this program.
type Store struct{}

// Open reports that this program cannot talk PKCS#11.
func Open(Config) (*Store, error) {
	return nil, errors.New("this program was built without cgo and cannot load a PKCS#11 module: build it with a C compiler, or keep the keys in files")
}

// Close does nothing.
func (*Store) Close() error { return nil }

// Signer has no key.
func (*Store) Signer(string) (crypto.Signer, error) { return nil, ErrNoKey }

// GenerateP256 makes none.
func (*Store) GenerateP256(string) (crypto.Signer, error) { return nil, ErrNoKey }

// Generate makes none.
func (*Store) Generate(string, suite.ID) (crypto.Signer, error) { return nil, ErrNoKey }
