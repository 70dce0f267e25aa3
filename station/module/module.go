// Package module says what a programming station asks of whatever holds its keys.
//
// Stage 2, birth, at the programming centre. Two implementations: pkcs11, an HSM, and soft, a file encrypted under the PIN for
// trying things out. What the interface guarantees is what the descriptor tells the OEM: with Templated, a signing key that
// was wrapped to the station never leaves the module, not even for a host that holds the PIN; without, it lives in the memory
// of the station's process. The content key passes through host memory with both: content is not keys.
package module

import (
	"crypto"
	"crypto/rsa"

	"github.com/hallmark-iot/hallmark/wire"
)

// Info is what a module can do, for the station's descriptor.
type Info struct {
	Name       string // "pkcs11:<model>" or "soft"
	Serial     string // of the token
	WrapAlg    wire.WrapAlg
	ContentAlg wire.WrapAlg
	Templated  bool // the module itself holds unwrapped keys to the template
}

// Module holds the station's keys. Its methods may be called from several goroutines.
type Module interface {
	Unwrapper
	Info() Info
	// RecordKey gives the key that signs descriptors and records; it is made when the module is initialised.
	RecordKey() (crypto.Signer, error)
	// OEMKeys gives the wrapping and content keys of one OEM, and makes them, durably, at first use.
	OEMKeys(oem string) (wrap, content *rsa.PublicKey, err error)
	// Close forgets the PIN and every unwrapped key.
	Close() error
}

// Unwrapper takes in what an OEM has wrapped to the station, in one hop.
type Unwrapper interface {
	// UnwrapSigner makes the signing key of an order usable. The key lives until Destroy or Close. It fails when the blob is
	// not for this OEM's wrapping key or does not belong to key.SPKI.
	UnwrapSigner(oem string, key wire.WrappedKey) (OrderKey, error)
	// OpenContentKey gives the 32-byte content key of an order.
	OpenContentKey(oem string, r wire.Recipient) ([]byte, error)
}

// OrderKey is the order CA's key in the module.
type OrderKey interface {
	crypto.Signer
	// Destroy ends the key's life in the module.
	Destroy() error
}

// RSABits is the size of wrapping and content keys: a PKCS#8 P-256 key (138 bytes) fits one OAEP block of it.
const RSABits = 3072
