package mcuboot

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// ErrSignature says that an image is not what its key signed, or not by that key.
var ErrSignature = errors.New("mcuboot: signature")

// Digest is the hash of the image as it is now: of the clear one, what its signature is over.
func (m Image) Digest() ([32]byte, error) {
	b, err := m.signed()
	return sha256.Sum256(b), err
}

// Signed is the hash that the image says was signed; false: it has none, or one of another kind than SHA-256.
func (m Image) Signed() ([32]byte, bool) {
	v, ok := find(m.Unprotected, TypeSHA256)
	if !ok || len(v) != sha256.Size {
		return [32]byte{}, false
	}
	return [32]byte(v), true
}

// HasSignature reports whether somebody signed it, whoever that was.
func (m Image) HasSignature() bool {
	return slices.ContainsFunc(m.Unprotected, func(t TLV) bool { return t.Type == TypeECDSA || t.Type == TypeEd25519 })
}

// Check says whether a clear image has the hash that it says was signed. Of a sealed one nobody can say without its key.
func (m Image) Check() error {
	want, ok := m.Signed()
	if !ok {
		return fmt.Errorf("%w: no SHA-256 hash in the image: sign it by P-256 or Ed25519", ErrSignature)
	}
	if m.Sealed {
		return nil
	}
	got, err := m.Digest()
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%w: the image has hash %x, and says %x: it was altered after it was signed", ErrSignature, got, want)
	}
	return nil
}

// Sign signs a clear image that has no records of a signature yet, by a P-256 or Ed25519 key.
func (m *Image) Sign(key crypto.Signer) error {
	if m.Sealed || len(m.Unprotected) != 0 {
		return fmt.Errorf("%w: an image is signed once, and before it is encrypted", ErrSignature)
	}
	spki, err := publicKey(key.Public())
	if err != nil {
		return err
	}
	digest, err := m.Digest()
	if err != nil {
		return err
	}
	hash := sha256.Sum256(spki)
	typ, opts := uint16(TypeECDSA), crypto.SignerOpts(crypto.SHA256)
	if _, ok := key.Public().(ed25519.PublicKey); ok {
		typ, opts = TypeEd25519, crypto.Hash(0) // of the digest as its message
	}
	sig, err := key.Sign(rand.Reader, digest[:], opts)
	if err != nil {
		return fmt.Errorf("sign the image: %w", err)
	}
	m.Unprotected = []TLV{{TypeSHA256, digest[:]}, {TypeKeyHash, hash[:]}, {typ, sig}}
	return nil
}

func publicKey(pub crypto.PublicKey) ([]byte, error) {
	switch k := pub.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return nil, fmt.Errorf("a key on %s: MCUboot's images are signed by P-256 or Ed25519 here", k.Params().Name)
		}
	default:
		return nil, fmt.Errorf("a key of type %T: MCUboot's images are signed by P-256 or Ed25519 here", pub)
	}
	return x509.MarshalPKIXPublicKey(pub)
}

// Verify checks the image's hash (of a clear one), that it names the key, and the signature.
func (m Image) Verify(pub crypto.PublicKey) error {
	spki, err := publicKey(pub)
	if err != nil {
		return err
	}
	if _, pure := find(m.Unprotected, TypePure); pure {
		return fmt.Errorf("%w: it is over the whole image (SIG_PURE), which is not verified here", ErrSignature)
	}
	if err := m.Check(); err != nil {
		return err
	}
	hash := sha256.Sum256(spki)
	named, isHash := find(m.Unprotected, TypeKeyHash)
	whole, isWhole := find(m.Unprotected, TypePublicKey)
	if isHash && !bytes.Equal(named, hash[:]) || isWhole && !bytes.Equal(whole, spki) || !isHash && !isWhole {
		return fmt.Errorf("%w: it is by another key than %x", ErrSignature, hash)
	}
	digest, _ := m.Signed()
	good := false
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		sig, ok := find(m.Unprotected, TypeECDSA)
		good = ok && ecdsa.VerifyASN1(k, digest[:], unpadded(sig))
	case ed25519.PublicKey:
		sig, ok := find(m.Unprotected, TypeEd25519)
		good = ok && ed25519.Verify(k, digest[:], sig)
	}
	if !good {
		return fmt.Errorf("%w: it does not verify by key %x", ErrSignature, hash)
	}
	return nil
}

// unpadded is a signature without the zeros that versions before 1.5 had behind it.
func unpadded(sig []byte) []byte {
	if len(sig) < 2 || sig[1] >= 0x80 || int(sig[1])+2 > len(sig) {
		return sig
	}
	end := int(sig[1]) + 2
	if len(bytes.Trim(sig[end:], "\x00")) != 0 {
		return sig
	}
	return sig[:end]
}
