//go:build !cgo

package pkcs11

import (
	"context"
	"crypto"
	"errors"

	"github.com/hallmark-iot/hallmark/suite"
)

var errNoCgo = errors.New("this program was built without cgo and cannot load a PKCS#11 module: build it with a C compiler, or keep the keys in files")

// Library is not to be had in this program.
type Library struct{}

// Load reports that this program cannot talk PKCS#11.
func Load(string) (*Library, error) { return nil, errNoCgo }

// Open opens none.
func (*Library) Open(string, []byte) (*Store, error) { return nil, errNoCgo }

// Close does nothing.
func (*Library) Close() error { return nil }

// Store is not to be had in this program.
type Store struct{}

// Open reports that this program cannot talk PKCS#11.
func Open(Config) (*Store, error) {
	return nil, errNoCgo
}

// Close does nothing.
func (*Store) Close() error { return nil }

// Signer has no key.
func (*Store) Signer(string) (crypto.Signer, error) { return nil, ErrNoKey }

// GenerateP256 makes none.
func (*Store) GenerateP256(string) (crypto.Signer, error) { return nil, ErrNoKey }

// Generate makes none.
func (*Store) Generate(string, suite.ID) (crypto.Signer, error) { return nil, ErrNoKey }

// Destroy destroys none.
func (*Store) Destroy(context.Context, string) error { return ErrNoKey }

// About names none.
func (*Store) About() string { return "" }

// Seal seals nothing.
func (*Store) Seal(string, []byte) ([]byte, error) { return nil, errNoCgo }

// Unseal opens nothing.
func (*Store) Unseal(string, []byte) ([]byte, error) { return nil, errNoCgo }
