package wire

import (
	"bytes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Orders and masters travel as one kind of file: {1: envelope, 2: content, 3: [chunks]} in deterministic CBOR. What is signed stands first, and
// holds the digest of the rest; so a reader knows whom it reads before it has read much, and holds no more than a chunk.

// SealedHead is a file's beginning, before its chunks.
type SealedHead struct {
	Envelope []byte // the signed order or master
	Content  []byte // its small secret part, sealed
	Chunks   int    // that follow
	Size     int64  // bytes of the file before the first chunk
}

// ReadSealedHead reads a file's beginning and not one byte more. Nothing in it is believed before the envelope is verified.
func ReadSealedHead(r io.Reader) (SealedHead, error) {
	in := &counted{r: r}
	var h SealedHead
	if err := in.want(0xa3, 0x01); err != nil {
		return h, err
	}
	var err error
	if h.Envelope, err = in.bytes(1, MaxEnvelope); err != nil {
		return h, fmt.Errorf("sealed file: envelope: %w", err)
	}
	if err := in.want(0x02); err != nil {
		return h, err
	}
	if h.Content, err = in.bytes(gcmOverhead+1, MaxOrderContent+gcmOverhead); err != nil {
		return h, fmt.Errorf("sealed file: content: %w", err)
	}
	if err := in.want(0x03); err != nil {
		return h, err
	}
	if h.Chunks, err = in.head(4, 1, maxChunks); err != nil {
		return h, fmt.Errorf("sealed file: chunks: %w", err)
	}
	h.Size = in.n
	return h, nil
}

// Chunks reads the chunks of a file as they come.
type Chunks struct {
	in   counted
	n    int
	next int
	buf  []byte
}

// NewChunks reads n chunks from r, which stands behind the file's head and ends with the file.
func NewChunks(r io.Reader, n int) *Chunks { return &Chunks{in: counted{r: r}, n: n} }

// Next gives the next chunk, sealed; it is overwritten by the one after. io.EOF says that all of them came, and nothing behind them.
func (c *Chunks) Next() ([]byte, error) {
	if c.next == c.n {
		return nil, c.in.end()
	}
	least := OrderChunk + gcmOverhead // only the last may be shorter
	if c.next == c.n-1 {
		least = gcmOverhead + 1
	}
	n, err := c.in.head(2, least, OrderChunk+gcmOverhead)
	if err == nil {
		if cap(c.buf) < n {
			c.buf = make([]byte, n)
		}
		c.buf = c.buf[:n]
		err = c.in.fill(c.buf)
	}
	if err != nil {
		return nil, fmt.Errorf("sealed file: chunk %d of %d: %w", c.next, c.n, err)
	}
	c.next++
	return c.buf, nil
}

// ErrFileEnds says that a file is not all there.
var ErrFileEnds = errors.New("the file ends in the middle")

// counted reads exactly what it is asked for.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) fill(b []byte) error {
	n, err := io.ReadFull(c.r, b)
	c.n += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrFileEnds
	}
	return err
}

// want reads bytes that can only be these.
func (c *counted) want(these ...byte) error {
	b := make([]byte, len(these))
	if err := c.fill(b); err != nil {
		return fmt.Errorf("sealed file: %w", err)
	}
	if !bytes.Equal(b, these) {
		return fmt.Errorf("sealed file: %x where %x is to be: %w", b, these, ErrNotDeterministic)
	}
	return nil
}

func (c *counted) head(major byte, least, most int) (int, error) {
	return readHead(c.fill, major, least, most)
}

// bytes reads a byte string. No more is allocated than came, up to what the bound lets in.
func (c *counted) bytes(least, most int) ([]byte, error) {
	n, err := c.head(2, least, most)
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	return b, c.fill(b)
}

// end gives io.EOF where the file ends.
func (c *counted) end() error {
	var b [1]byte
	switch err := c.fill(b[:]); {
	case err == nil:
		return errors.New("sealed file: something follows its last chunk")
	case errors.Is(err, ErrFileEnds):
		return io.EOF
	default:
		return err
	}
}

// SealedSum is the digest over the sealed parts with their lengths, which is in what is signed.
type SealedSum struct{ h hash.Hash }

// NewSealedSum begins it with the sealed content; chunks follow.
func NewSealedSum(content []byte) *SealedSum {
	s := &SealedSum{h: sha256.New()}
	s.Add(content)
	return s
}

// Add takes one chunk in.
func (s *SealedSum) Add(sealed []byte) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(sealed)))
	s.h.Write(n[:])
	s.h.Write(sealed)
}

// Sum gives it.
func (s *SealedSum) Sum() [32]byte { return [32]byte(s.h.Sum(nil)) }

// ChunkOpener decrypts chunks, also several at once. A chunk of another file, or in another place, does not open.
type ChunkOpener struct {
	aead   cipher.AEAD
	header []byte
	chunks int
}

// NewOrderOpener opens the n chunks of the order with header.
func NewOrderOpener(cek []byte, header OrderHeader, n int) (*ChunkOpener, error) {
	aad, err := Marshal(header)
	if err != nil {
		return nil, err
	}
	return newOpener(cek, orderLabel, aad, n)
}

func newOpener(cek []byte, label string, aad []byte, n int) (*ChunkOpener, error) {
	aead, err := contentAEAD(cek, label+"payload")
	if err != nil {
		return nil, err
	}
	return &ChunkOpener{aead: aead, header: aad, chunks: n}, nil
}

// Open decrypts chunk i in place.
func (o *ChunkOpener) Open(i int, sealed []byte) ([]byte, error) {
	plain, err := o.aead.Open(sealed[:0], chunkNonce(i), sealed, chunkAAD(o.header, i == o.chunks-1))
	if err != nil {
		return nil, fmt.Errorf("payload: chunk %d was not sealed for this file", i)
	}
	return plain, nil
}
