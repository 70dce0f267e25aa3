package wire

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
)

// FileSeal seals the payload of an order or a master and writes its file as it comes, in constant memory. The signature stands before what it signs, so that the
// payload is read twice: Add seals a chunk and takes it into the digest that is signed, Write seals it again for the file. Both passes use one
// key and nonce, which is sound for the same bytes only: Write refuses a chunk that is not the one of the first pass.
type FileSeal struct {
	aead    cipher.AEAD
	header  []byte // additional data
	content []byte
	size    uint64
	tags    [][gcmOverhead]byte
	sum     *SealedSum
	buf     []byte
}

// NewOrderSeal begins an order's file with its sealed content and a payload of size bytes.
func NewOrderSeal(cek []byte, header OrderHeader, c OrderContent, size uint64) (*FileSeal, error) {
	content, err := SealContent(cek, header, c)
	if err != nil {
		return nil, err
	}
	aad, err := Marshal(header)
	if err != nil {
		return nil, err
	}
	return newSeal(cek, orderLabel, aad, content, size)
}

func newSeal(cek []byte, label string, aad, content []byte, size uint64) (*FileSeal, error) {
	if size == 0 || size > MaxPayload {
		return nil, fmt.Errorf("payload: %d bytes, at most %d", size, uint64(MaxPayload))
	}
	aead, err := contentAEAD(cek, label+"payload")
	if err != nil {
		return nil, err
	}
	return &FileSeal{aead: aead, header: aad, content: content, size: size, sum: NewSealedSum(content), buf: make([]byte, 0, OrderChunk+gcmOverhead)}, nil
}

func (s *FileSeal) chunks() int { return int((s.size + OrderChunk - 1) / OrderChunk) }

// seal gives chunk i sealed; what it returns is overwritten by the next.
func (s *FileSeal) seal(i int, plain []byte) ([]byte, error) {
	last := i == s.chunks()-1
	want := uint64(OrderChunk)
	if last {
		want = s.size - uint64(i)*OrderChunk
	}
	if i >= s.chunks() || uint64(len(plain)) != want {
		return nil, fmt.Errorf("payload: chunk %d of %d bytes, want %d of %d in all", i, len(plain), want, s.size)
	}
	return s.aead.Seal(s.buf[:0], chunkNonce(i), plain, chunkAAD(s.header, last)), nil
}

func tagOf(sealed []byte) [gcmOverhead]byte {
	return [gcmOverhead]byte(sealed[len(sealed)-gcmOverhead:])
}

// Add takes the payload into the digest, all of it.
func (s *FileSeal) Add(payload io.Reader) ([32]byte, error) {
	err := s.each(payload, func(_ int, sealed []byte) error {
		s.tags = append(s.tags, tagOf(sealed))
		s.sum.Add(sealed)
		return nil
	})
	return s.sum.Sum(), err
}

// Write writes the file of what was signed over what Add gave.
func (s *FileSeal) Write(w io.Writer, order []byte, payload io.Reader) error {
	if len(s.tags) != s.chunks() {
		return errors.New("payload: it was not sealed")
	}
	if _, err := w.Write(s.head(order)); err != nil {
		return err
	}
	return s.each(payload, func(i int, sealed []byte) error {
		if tagOf(sealed) != s.tags[i] {
			return fmt.Errorf("payload: chunk %d changed while the file was made", i)
		}
		if _, err := w.Write(bytesHead(len(sealed))); err != nil {
			return err
		}
		_, err := w.Write(sealed)
		return err
	})
}

// Size is what Write will write of an order, bytes.
func (s *FileSeal) Size(order []byte) int64 {
	n := int64(len(s.head(order))) + int64(s.size) + int64(s.chunks())*gcmOverhead
	full := int64(s.chunks() - 1)
	lastChunk := int(s.size-uint64(full)*OrderChunk) + gcmOverhead
	return n + full*int64(len(bytesHead(OrderChunk+gcmOverhead))) + int64(len(bytesHead(lastChunk)))
}

func (s *FileSeal) each(payload io.Reader, do func(i int, sealed []byte) error) error {
	plain := make([]byte, OrderChunk)
	left := s.size
	for i := range s.chunks() {
		n, err := io.ReadFull(payload, plain[:min(left, OrderChunk)])
		if err != nil {
			return fmt.Errorf("payload: %w", err)
		}
		left -= uint64(n)
		sealed, err := s.seal(i, plain[:n])
		if err != nil {
			return err
		}
		if err := do(i, sealed); err != nil {
			return err
		}
	}
	if n, err := payload.Read(plain[:1]); n > 0 || err != nil && !errors.Is(err, io.EOF) {
		return errors.Join(errors.New("payload: it goes on behind its end"), err)
	}
	return nil
}

// head is the file before its chunks: a map of three, the two byte strings, and the head of the array (RFC 8949 §3).
func (s *FileSeal) head(order []byte) []byte {
	var b bytes.Buffer
	b.Write([]byte{0xa3, 0x01})
	b.Write(bytesHead(len(order)))
	b.Write(order)
	b.WriteByte(0x02)
	b.Write(bytesHead(len(s.content)))
	b.Write(s.content)
	b.WriteByte(0x03)
	b.Write(cborHead(4, s.chunks()))
	return b.Bytes()
}

func bytesHead(n int) []byte { return cborHead(2, n) }
