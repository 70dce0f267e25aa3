// Package delta is the format of a delta: how one image is made of another.
//
// Stage 3, field. A server makes deltas (release/delta), a device applies them while it downloads. A delta is signed by nobody and believed by nobody: what comes out of it is compared with the digest that
// the release names.
//
//	delta   = "HMDELTA1" ‖ length of the header (uint32, big-endian) ‖ header (deterministic CBOR, at most 256 KiB) ‖ one frame for each segment
//	frame   = a Zstandard frame (RFC 8878) with a window of at most 512 KiB, without a dictionary, of:
//	          n ‖ n × (seek ‖ add ‖ new) ‖ what is added, of all n ‖ what is new, of all n
//
// n, add and new are uvarints and seek is a signed varint, as encoding/binary has them. A place in the old image is 0 where a segment begins. Each of the n moves it by seek; then the next add bytes of the
// image are those of the old one there, each plus a byte of what is added, and the place moves over them; the new bytes after that are as they stand.
//
// What it guarantees:
//   - A segment needs nothing of the others: who was broken off goes on at the segment he was in, with the frame's bytes from Header.Frame on.
//   - Nothing of a segment is given before all of it has its digest.
//   - Memory is bounded, whatever the delta says and however large the images are: see Applier.
package delta

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hallmark-iot/hallmark/wire"
)

// Bounds of the format.
const (
	Segment     = 1 << 20   // bytes of the image that a frame gives; of the last one, what is left
	Window      = 512 << 10 // of a frame
	MaxSegments = 4096
	MaxHeader   = 256 << 10     // bytes
	MaxSteps    = 32 << 10      // of a segment
	MaxFrame    = 2*Segment + 1 // bytes: what does not compress is larger by its steps
	magic       = "HMDELTA1"
)

// maxImage is how large an image may be, bytes.
const maxImage uint64 = MaxSegments * Segment

// Header says what a delta makes of what.
type Header struct {
	From     []byte   `cbor:"1,keyasint"` // SHA-256 of the old image
	FromSize uint64   `cbor:"2,keyasint"`
	To       []byte   `cbor:"3,keyasint"` // SHA-256 of the image that it gives
	ToSize   uint64   `cbor:"4,keyasint"`
	Frames   []uint32 `cbor:"5,keyasint"` // bytes of each frame
	Sums     []byte   `cbor:"6,keyasint"` // SHA-256 of each segment of the image, one behind the other
}

// Errors, for errors.Is.
var (
	ErrFormat = errors.New("not a delta")
	ErrOld    = errors.New("the delta does not give what it says: it, or the old image, is damaged")
)

func segments(size uint64) uint64 { return (size + Segment - 1) / Segment }

func (h Header) check() error {
	n := segments(h.ToSize)
	switch {
	case len(h.From) != sha256.Size || len(h.To) != sha256.Size:
		return errors.New("its images have no SHA-256 digest")
	case h.FromSize == 0 || h.FromSize > maxImage || h.ToSize == 0 || h.ToSize > maxImage:
		return fmt.Errorf("images of %d and %d bytes, at most %d", h.FromSize, h.ToSize, maxImage)
	case uint64(len(h.Frames)) != n || uint64(len(h.Sums)) != n*sha256.Size:
		return fmt.Errorf("%d frames and %d bytes of digests for %d segments", len(h.Frames), len(h.Sums), n)
	}
	for i, length := range h.Frames {
		if length == 0 || length > MaxFrame {
			return fmt.Errorf("frame %d of %d bytes", i, length)
		}
	}
	return nil
}

// Encode writes what stands before the first frame.
func (h Header) Encode() ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	body, err := wire.Marshal(h)
	if err != nil {
		return nil, err
	}
	if len(body) > MaxHeader {
		return nil, fmt.Errorf("delta: header of %d bytes, at most %d", len(body), MaxHeader)
	}
	return append(binary.BigEndian.AppendUint32([]byte(magic), uint32(len(body))), body...), nil
}

// Read reads a delta's header, and leaves r at its first frame. ErrFormat says that there is none; any other error is r's.
func Read(r io.Reader) (Header, error) {
	var head [len(magic) + 4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Header{}, short(err)
	}
	n := binary.BigEndian.Uint32(head[len(magic):])
	if string(head[:len(magic)]) != magic || n > MaxHeader {
		return Header{}, fmt.Errorf("%w: it begins with %x", ErrFormat, head)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return Header{}, short(err)
	}
	var h Header
	if err := wire.Unmarshal(body, &h, MaxHeader); err != nil {
		return Header{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err := h.check(); err != nil {
		return Header{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return h, nil
}

// short makes an end that came too early a fault of the delta's.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too early", ErrFormat)
	}
	return err
}

// Frame gives where frame i lies in the delta, and its length, bytes. Behind the last one is the delta's end.
func (h Header) Frame(i int) (at, length int64, err error) {
	head, err := h.Encode()
	if err != nil {
		return 0, 0, err
	}
	at = int64(len(head))
	for _, n := range h.Frames[:i] {
		at += int64(n)
	}
	return at, int64(h.Frames[i]), nil
}

// plain is the size of segment i, bytes.
func (h Header) plain(i int) int {
	return int(min(Segment, h.ToSize-uint64(i)*Segment))
}

// sum is the digest of segment i.
func (h Header) sum(i int) []byte { return h.Sums[i*sha256.Size : (i+1)*sha256.Size] }
