package wire

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
)

// TypeAttestKey is the `typ` of a device's change of its attestation key.
const TypeAttestKey Type = "application/hallmark-attestation-key+cose"

// NewAttestKey is a device's change of the key that signs its evidence, its log and its receipts, as when its fleet moves to another suite. It is a
// COSE_Sign of three, each over the same bytes: the key that goes vouches for the one that comes, the factory identity says which piece it
// is, and the key that comes shows that the device holds it. So neither a thief of the attestation key nor one of the identity can
// change it alone.
type NewAttestKey struct {
	Version  uint   `cbor:"1,keyasint" json:"version"` // 1
	Device   string `cbor:"2,keyasint" json:"device"`
	Old      []byte `cbor:"3,keyasint" json:"old"`      // SHA-256 of the SPKI of the key that goes
	New      []byte `cbor:"4,keyasint" json:"new"`      // SPKI
	Identity []byte `cbor:"5,keyasint" json:"identity"` // SPKI of the factory identity's key
	Origin   string `cbor:"6,keyasint" json:"origin"`   // of the new key: soft, isolated, tpm, pkcs11
	Bundle   uint64 `cbor:"7,keyasint" json:"bundle"`   // version of the trust bundle that wants it
}

// MaxNewAttestKey bounds an encoded NewAttestKey.
const MaxNewAttestKey = 4 << 10

// SignNewAttestKey writes n with all its signatures; Old, New and Identity follow from the keys.
func SignNewAttestKey(n NewAttestKey, from, identity, to crypto.Signer) ([]byte, error) {
	was, err := SPKIOf(from.Public())
	if err != nil {
		return nil, err
	}
	old := sha256.Sum256(was)
	n.Version, n.Old = 1, old[:]
	if n.New, err = SPKIOf(to.Public()); err != nil {
		return nil, err
	}
	if n.Identity, err = SPKIOf(identity.Public()); err != nil {
		return nil, err
	}
	payload, err := EncodeNewAttestKey(n)
	if err != nil {
		return nil, err
	}
	envelope, err := NewThreshold(TypeAttestKey, payload, from)
	for _, k := range []crypto.Signer{identity, to} {
		if err == nil {
			envelope, err = AddSignature(TypeAttestKey, envelope, k)
		}
	}
	return envelope, err
}

// OpenNewAttestKey reads a change, and verifies it as one of the attestation key from (SPKI). That its identity is the device's is for the
// caller to say. With the new key as from it verifies what a device that has not heard the answer says again.
func OpenNewAttestKey(envelope, from []byte) (NewAttestKey, error) {
	payload, signers, err := ThresholdPayload(TypeAttestKey, envelope)
	if err != nil {
		return NewAttestKey{}, err
	}
	n, err := DecodeNewAttestKey(payload)
	if err != nil {
		return NewAttestKey{}, err
	}
	if len(signers) != 3 {
		return NewAttestKey{}, fmt.Errorf("new attestation key: %d signatures, want 3", len(signers))
	}
	role := KeySet{Keys: [][]byte{n.Identity, n.New}, Threshold: 2}
	if !bytes.Equal(from, n.New) {
		if old := sha256.Sum256(from); !bytes.Equal(old[:], n.Old) {
			return NewAttestKey{}, fmt.Errorf("new attestation key: it replaces key %x, the device has %x", n.Old, old)
		}
		role = KeySet{Keys: [][]byte{from, n.Identity, n.New}, Threshold: 3}
	}
	_, err = VerifyThreshold(TypeAttestKey, envelope, role)
	return n, err
}

// EncodeNewAttestKey writes n.
func EncodeNewAttestKey(n NewAttestKey) ([]byte, error) { return encode(n, MaxNewAttestKey) }

// DecodeNewAttestKey reads the payload of a change. That it holds is OpenNewAttestKey's to say.
func DecodeNewAttestKey(data []byte) (NewAttestKey, error) {
	return decode[NewAttestKey](data, MaxNewAttestKey)
}

func (n NewAttestKey) check() error {
	switch {
	case n.Version != 1:
		return fmt.Errorf("new attestation key: version %d, this is 1", n.Version)
	case !ValidDeviceID(n.Device) || len(n.Old) != sha256.Size || !validOrigin(n.Origin) && n.Origin != OriginStation:
		return fmt.Errorf("new attestation key: device %.64q, former key of %d bytes, origin %q", n.Device, len(n.Old), n.Origin)
	}
	if bytes.Equal(n.New, n.Identity) {
		return errors.New("new attestation key: one key for two purposes")
	}
	if sum := sha256.Sum256(n.New); bytes.Equal(sum[:], n.Old) {
		return errors.New("new attestation key: it is the one that the device has")
	}
	if _, err := ParseKey(n.New); err != nil {
		return fmt.Errorf("new attestation key: %w", err)
	}
	if _, err := parseECDSA(n.Identity); err != nil {
		return fmt.Errorf("new attestation key: identity: %w", err)
	}
	return nil
}
