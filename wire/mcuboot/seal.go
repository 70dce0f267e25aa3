package mcuboot

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
)

// ErrNotFor says that a content key is not wrapped for the key that was to open it.
var ErrNotFor = errors.New("mcuboot: the image is encrypted for another key")

const eciesInfo = "MCUBoot_ECIES_v1"

// keySize is the length of the content key that the header asks for, bytes; 0: none.
func (m Image) keySize() int {
	switch m.Flags & encrypted {
	case FlagAES128:
		return 16
	case FlagAES256:
		return 32
	}
	return 0
}

// ctr is AES-CTR from zero, as MCUboot has it: a content key is for one image, and never used again.
func ctr(key, data []byte) ([]byte, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, len(data))
	cipher.NewCTR(b, make([]byte, aes.BlockSize)).XORKeyStream(out, data)
	return out, nil
}

// Encrypt seals a signed image under a fresh content key, wrapped for one key: P-256 or X25519.
func (m Image) Encrypt(to *ecdh.PublicKey) (Image, error) {
	n := m.keySize()
	if n == 0 || m.Sealed || !m.HasSignature() {
		return Image{}, errors.New("mcuboot: an image is encrypted after it is signed, and made for that: say so when it is made")
	}
	key := make([]byte, n)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	defer clear(key)
	body, err := ctr(key, m.Body)
	if err != nil {
		return Image{}, err
	}
	t, err := wrap(key, to)
	if err != nil {
		return Image{}, err
	}
	m.Body, m.Sealed, m.Unprotected = body, true, append(slices.Clone(m.Unprotected), t)
	return m, nil
}

// Decrypt gives the clear image, by the key that its content key is wrapped for. The hash is the clear image's, so what comes out is what was signed.
func (m Image) Decrypt(own *ecdh.PrivateKey) (Image, error) {
	key, err := m.contentKey(own)
	if err != nil {
		return Image{}, err
	}
	defer clear(key)
	if m.Body, err = ctr(key, m.Body); err != nil {
		return Image{}, err
	}
	m.Sealed, m.Unprotected = false, slices.DeleteFunc(slices.Clone(m.Unprotected), isWrap)
	return m, m.Check()
}

// Rewrap gives the same image with its content key wrapped for another key, by the one that it is wrapped for now. Signature and sealed body stay as they are.
func (m Image) Rewrap(own *ecdh.PrivateKey, to *ecdh.PublicKey) (Image, error) {
	key, err := m.contentKey(own)
	if err != nil {
		return Image{}, err
	}
	defer clear(key)
	t, err := wrap(key, to)
	if err != nil {
		return Image{}, err
	}
	m.Unprotected = append(slices.DeleteFunc(slices.Clone(m.Unprotected), isWrap), t)
	return m, nil
}

func isWrap(t TLV) bool { return t.Type >= 0x30 && t.Type <= 0x3f }

// wrapType is the record of a content key that is wrapped for a key of that curve.
func wrapType(c ecdh.Curve) (uint16, error) {
	switch c {
	case ecdh.P256():
		return TypeEncP256, nil
	case ecdh.X25519():
		return TypeEncX25519, nil
	}
	return 0, fmt.Errorf("mcuboot: a key on %v: content keys are wrapped for P-256 or X25519", c)
}

// wrap is MCUboot's ECIES: a fresh key's secret with the other's, through HKDF-SHA-256, for AES-CTR and HMAC-SHA-256 over what it gives.
//
//	value = public ‖ mac (32) ‖ sealed key (16 or 32)
func wrap(key []byte, to *ecdh.PublicKey) (TLV, error) {
	typ, err := wrapType(to.Curve())
	if err != nil {
		return TLV{}, err
	}
	fresh, err := to.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return TLV{}, err
	}
	forKey, forMAC, err := derive(fresh, to, len(key))
	if err != nil {
		return TLV{}, err
	}
	sealed, err := ctr(forKey, key)
	if err != nil {
		return TLV{}, err
	}
	return TLV{typ, slices.Concat(fresh.PublicKey().Bytes(), mac(forMAC, sealed), sealed)}, nil
}

func derive(own *ecdh.PrivateKey, peer *ecdh.PublicKey, size int) (forKey, forMAC []byte, err error) {
	secret, err := own.ECDH(peer)
	if err != nil {
		return nil, nil, err
	}
	b, err := hkdf.Key(sha256.New, secret, nil, eciesInfo, size+sha256.Size)
	if err != nil {
		return nil, nil, err
	}
	return b[:size], b[size:], nil
}

func mac(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(data)
	return h.Sum(nil)
}

// contentKey opens the record that is for own.
func (m Image) contentKey(own *ecdh.PrivateKey) ([]byte, error) {
	typ, err := wrapType(own.Curve())
	if err != nil {
		return nil, err
	}
	v, ok := find(m.Unprotected, typ)
	if !ok || !m.Sealed {
		return nil, fmt.Errorf("%w: it has no content key that is wrapped for a key on %v", ErrNotFor, own.Curve())
	}
	n, point := m.keySize(), len(own.PublicKey().Bytes())
	if len(v) != point+sha256.Size+n {
		return nil, fmt.Errorf("%w: a wrapped content key of %d bytes", ErrNotFor, len(v))
	}
	peer, err := own.Curve().NewPublicKey(v[:point])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotFor, err)
	}
	forKey, forMAC, err := derive(own, peer, n)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotFor, err)
	}
	sealed := v[point+sha256.Size:]
	if !hmac.Equal(mac(forMAC, sealed), v[point:point+sha256.Size]) {
		return nil, ErrNotFor
	}
	return ctr(forKey, sealed)
}
