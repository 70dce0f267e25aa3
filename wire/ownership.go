package wire

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
)

// Ownership is what a device keeps of whom it belongs to. The device cannot tell who that is: Owner is OwnerDigest of a salt that only
// the registry has.
type Ownership struct {
	Owner []byte `cbor:"1,keyasint" json:"owner"` // SHA-256, 32 bytes: see OwnerDigest
	Key   []byte `cbor:"2,keyasint" json:"key"`   // the owner's public key: SubjectPublicKeyInfo (DER), P-256
}

// Bounds of an ownership.
const (
	MaxOwnership = 256
	OwnerSalt    = 32 // bytes
)

// OwnerDigest is what public facts and the device have in the place of an owner: each time of ownership has its own salt, so that nobody
// sees that two devices have one owner, and who has the salt can prove who it was.
func OwnerDigest(salt [OwnerSalt]byte, owner string) [32]byte {
	h := sha256.New()
	h.Write([]byte("hallmark owner 1\n"))
	h.Write(salt[:])
	h.Write([]byte(owner))
	return [32]byte(h.Sum(nil))
}

// EncodeOwnership writes what a command of act adopt carries, to be salted as a configuration is.
func EncodeOwnership(o Ownership) ([]byte, error) { return encode(o, MaxOwnership) }

// DecodeOwnership reads it.
func DecodeOwnership(data []byte) (Ownership, error) { return decode[Ownership](data, MaxOwnership) }

// OpenOwnership reads a salted ownership, if it is the one that the command has the digest of.
func OpenOwnership(salted, digest []byte) (Ownership, error) {
	if len(salted) < ConfigSalt || len(salted) > ConfigSalt+MaxOwnership {
		return Ownership{}, fmt.Errorf("salted ownership of %d bytes", len(salted))
	}
	if !bytes.Equal(ConfigDigest(salted), digest) {
		return Ownership{}, errors.New("the ownership is not the one that was commanded")
	}
	return DecodeOwnership(salted[ConfigSalt:])
}

// Equal reports whether both are of one owner, with one key.
func (o Ownership) Equal(other Ownership) bool {
	return bytes.Equal(o.Owner, other.Owner) && bytes.Equal(o.Key, other.Key)
}

// Keys is the role that the owner's key fills alone.
func (o Ownership) Keys() KeySet { return KeySet{Keys: [][]byte{o.Key}, Threshold: 1} }

func (o Ownership) check() error {
	if len(o.Owner) != sha256.Size {
		return fmt.Errorf("ownership: owner's digest of %d bytes", len(o.Owner))
	}
	if err := o.Keys().Check(); err != nil {
		return fmt.Errorf("ownership: owner's key: %w", err)
	}
	return nil
}
