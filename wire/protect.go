package wire

import (
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Protected says of a component that what is stored and sent is encrypted: its Size and Digest are those of the sealed bytes, which are the same for all
// devices, and these those of the program, the data or the image as the machine's installer gets it.
//
// The sealed bytes are the program in chunks of OrderChunk bytes (the last may be shorter), each sealed by AES-256-GCM with its number as nonce; additional
// data says which is the last (STREAM, Hoang et al. 2015). The key of the cipher is derived from the content key for this use alone.
type Protected struct {
	Key    []byte `cbor:"1,keyasint" json:"key"`    // ID of the content key, 16 bytes
	Size   uint64 `cbor:"2,keyasint" json:"size"`   // of the program, bytes
	Digest []byte `cbor:"3,keyasint" json:"digest"` // SHA-256 of the program
}

// Sizes, bytes.
const (
	ContentKey   = 32
	ContentKeyID = 16
)

const protectLabel = "hallmark-protected-1/"

// SealedSize is how many bytes a program has when it is sealed.
func SealedSize(plain uint64) uint64 {
	return plain + (plain+OrderChunk-1)/OrderChunk*gcmOverhead
}

func (p *Protected) check(c Component) error {
	switch {
	case p == nil:
		return nil
	case len(p.Key) != ContentKeyID || len(p.Digest) != sha256.Size || p.Size == 0 || p.Size > MaxPayload:
		return errors.New("protected: no key, size or SHA-256 digest")
	case SealedSize(p.Size) != c.Size:
		return fmt.Errorf("protected: %d bytes are %d when they are sealed, not %d", p.Size, SealedSize(p.Size), c.Size)
	}
	return nil
}

// Plain is the component as it is executed.
func (c Component) Plain() Component {
	if p := c.Protected; p != nil {
		c.Size, c.Digest, c.Protected = p.Size, p.Digest, nil
	}
	return c
}

// ComponentSealer reads a program and gives its sealed bytes, in constant memory.
type ComponentSealer struct {
	in        io.Reader
	id        []byte
	aead      cipher.AEAD
	sum       hash.Hash
	size      uint64
	next      int
	ahead     []byte // the chunk to be sealed, whole; whether it is the last shows behind it
	begun     bool
	ended     bool
	out, rest []byte
	err       error
}

// NewComponentSealer seals what is in plain. A content key is for one program.
func NewComponentSealer(plain io.Reader, key, id []byte) (*ComponentSealer, error) {
	aead, err := contentAEAD(key, protectLabel)
	if err != nil {
		return nil, err
	}
	if len(id) != ContentKeyID {
		return nil, fmt.Errorf("content key ID of %d bytes", len(id))
	}
	return &ComponentSealer{in: plain, id: id, aead: aead, sum: sha256.New(), out: make([]byte, 0, OrderChunk+gcmOverhead)}, nil
}

// Read implements io.Reader.
func (s *ComponentSealer) Read(b []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		s.err = s.step()
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// step seals the next chunk, or says that there is none.
func (s *ComponentSealer) step() (err error) {
	if !s.begun {
		s.begun = true
		if s.ahead, s.ended, err = s.chunk(); err != nil {
			return err
		}
	}
	if len(s.ahead) == 0 {
		return io.EOF
	}
	var after []byte
	if !s.ended {
		if after, s.ended, err = s.chunk(); err != nil {
			return err
		}
	}
	if s.next >= maxChunks {
		return fmt.Errorf("protected: %w: more than %d bytes", ErrTooLarge, uint64(MaxPayload))
	}
	s.rest = s.aead.Seal(s.out[:0], chunkNonce(s.next), s.ahead, chunkAAD(s.id, len(after) == 0))
	s.next++
	s.sum.Write(s.ahead)
	s.size += uint64(len(s.ahead))
	s.ahead = after
	return nil
}

func (s *ComponentSealer) chunk() (b []byte, ended bool, err error) {
	b = make([]byte, OrderChunk)
	n, err := io.ReadFull(s.in, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return b[:n], true, nil
	}
	return b[:n], false, err
}

// Protected says what was sealed, once Read has given io.EOF.
func (s *ComponentSealer) Protected() Protected {
	return Protected{Key: s.id, Size: s.size, Digest: s.sum.Sum(nil)}
}

// componentOpener reads sealed bytes and gives the program.
type componentOpener struct {
	in   io.Reader
	open *ChunkOpener
	left uint64 // of the program
	next int
	buf  []byte
	rest []byte
}

// OpenComponent reads the program out of a protected component's sealed bytes. A byte that is not as it was sealed, and an end that comes before its time, is
// an error before anything of that chunk is given.
func OpenComponent(sealed io.Reader, key []byte, c Component) (io.Reader, error) {
	if c.Protected == nil {
		return nil, fmt.Errorf("component %q is not protected", c.Name)
	}
	if err := c.Protected.check(c); err != nil {
		return nil, fmt.Errorf("component %q: %w", c.Name, err)
	}
	aead, err := contentAEAD(key, protectLabel)
	if err != nil {
		return nil, err
	}
	chunks := int((c.Protected.Size + OrderChunk - 1) / OrderChunk)
	return &componentOpener{
		in: sealed, open: &ChunkOpener{aead: aead, header: c.Protected.Key, chunks: chunks}, left: c.Protected.Size, buf: make([]byte, OrderChunk+gcmOverhead),
	}, nil
}

// Read implements io.Reader.
func (o *componentOpener) Read(b []byte) (int, error) {
	if len(o.rest) == 0 {
		if o.left == 0 {
			return 0, io.EOF
		}
		n := min(o.left, OrderChunk)
		if _, err := io.ReadFull(o.in, o.buf[:n+gcmOverhead]); err != nil {
			return 0, fmt.Errorf("protected: chunk %d: %w", o.next, err)
		}
		var err error
		if o.rest, err = o.open.Open(o.next, o.buf[:n+gcmOverhead]); err != nil {
			return 0, err
		}
		o.left -= n
		o.next++
	}
	n := copy(b, o.rest)
	o.rest = o.rest[n:]
	return n, nil
}

// CodeKeySize is the length of the public key to which content keys are wrapped: an uncompressed point of P-256.
const CodeKeySize = 65

// Wrap is a content key for one device, of one start: HPKE (RFC 9180) to the key that its evidence named, bound to that evidence's nonce.
type Wrap struct {
	Key    []byte `cbor:"1,keyasint"` // ID of the content key
	Sealed []byte `cbor:"2,keyasint"` // encapsulated key, then the ciphertext
}

func (w Wrap) check() error {
	if len(w.Key) != ContentKeyID || len(w.Sealed) != CodeKeySize+ContentKey+gcmOverhead {
		return errors.New("wrap out of bounds")
	}
	return nil
}

func wrapInfo(device string, nonce, id []byte) ([]byte, error) {
	return Marshal([]any{"hallmark-code-key/1", device, nonce, id})
}

// WrapKey wraps a content key to a device's public key.
func WrapKey(to []byte, device string, nonce, id, key []byte) (Wrap, error) {
	pub, err := hpke.DHKEM(ecdh.P256()).NewPublicKey(to)
	if err != nil {
		return Wrap{}, fmt.Errorf("code key of device %s: %w", device, err)
	}
	info, err := wrapInfo(device, nonce, id)
	if err != nil {
		return Wrap{}, err
	}
	sealed, err := hpke.Seal(pub, hpke.HKDFSHA256(), hpke.AES256GCM(), info, key)
	return Wrap{Key: id, Sealed: sealed}, err
}

// Open gives the content key, by the device's own key. A wrap for another device, or for another time, does not open.
func (w Wrap) Open(own ecdh.KeyExchanger, device string, nonce []byte) ([]byte, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	key, err := hpke.NewDHKEMPrivateKey(own)
	if err != nil {
		return nil, err
	}
	info, err := wrapInfo(device, nonce, w.Key)
	if err != nil {
		return nil, err
	}
	plain, err := hpke.Open(key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, w.Sealed)
	if err != nil {
		return nil, fmt.Errorf("content key %x is wrapped for another device, or another time: %w", w.Key, err)
	}
	return plain, nil
}

// NewContentKeyID gives a content key a name.
func NewContentKeyID() []byte {
	id := make([]byte, ContentKeyID)
	_, _ = rand.Read(id) // never fails: crypto/rand ends the process instead
	return id
}
