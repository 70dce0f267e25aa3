// Package carton is what is carried between a server and devices that no network joins: a release on its way out, and what became of it on its way back.
//
// Stage 3, field. A server writes a carton for devices that it may tell to install a release, somebody carries it, a device takes what is its own out of it and answers with a history.
//
//	carton  = "HMCARTN1" ‖ length of the head (uint32, big-endian) ‖ head (deterministic CBOR, at most 8 MiB) ‖ the blobs' bytes, in the head's order
//
// What it guarantees: reading one takes no more memory than its head, and no more time than that of finding a blob; what is not of the length that its head says is refused before anything of it is used.
//
// Nobody signs a carton, and nobody believes one: all that is in it proves itself to whom it is for, as if it had come over a line.
package carton

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hallmark-iot/hallmark/wire"
)

const magic = "HMCARTN1"

// Bounds of a carton.
const (
	MaxHead    = 8 << 20 // bytes
	MaxDevices = 4096    // more devices are another carton
	MaxSteps   = 256     // trust bundles
	MaxLogs    = 4 << 20 // bytes of the head that say how far devices' logs are

	prefix   = len(magic) + 4
	maxBlobs = 64
	maxBlob  = 1 << 40
	maxID    = 64
)

// ErrFormat says that bytes are no carton, or not all of one.
var ErrFormat = errors.New("no carton")

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrFormat, fmt.Errorf(format, args...))
}

// Head says what is in a carton.
type Head struct {
	V        uint               `cbor:"1,keyasint"` // 1
	Product  string             `cbor:"2,keyasint"`
	Release  wire.Logged        `cbor:"3,keyasint"`           // entry of kind release.published
	Commands []wire.Logged      `cbor:"4,keyasint"`           // entries of kind command.issued
	Devices  []Device           `cbor:"5,keyasint"`           // in the rising order of their names
	Blobs    []Blob             `cbor:"6,keyasint"`           // components of the release
	Steps    []wire.BundleStep  `cbor:"7,keyasint,omitempty"` // the trust bundles that devices may not have yet
	From     uint64             `cbor:"8,keyasint,omitempty"` // version of the first of them
	Newest   *wire.NewestBundle `cbor:"9,keyasint,omitempty"` // where they end
}

// Device is what one device is told.
type Device struct {
	ID        string          `cbor:"1,keyasint"`
	Directive []byte          `cbor:"2,keyasint"`           // COSE_Sign1(wire.OfflineDirective)
	Command   uint            `cbor:"3,keyasint"`           // which of the commands
	Member    wire.Membership `cbor:"4,keyasint"`           // of it
	Log       *wire.Logged    `cbor:"5,keyasint,omitempty"` // how far its log is in the ledger: an entry of kind device.log.anchored, whose batch the device signed
}

// Blob is bytes that follow.
type Blob struct {
	Digest []byte `cbor:"1,keyasint"` // SHA-256
	Size   uint64 `cbor:"2,keyasint"`
}

func (h Head) check() error {
	switch {
	case h.V != 1:
		return bad("version %d, this program knows 1", h.V)
	case h.Product == "" || len(h.Product) > maxID:
		return bad("no product")
	case len(h.Commands) == 0 || len(h.Commands) > MaxDevices || len(h.Devices) == 0 || len(h.Devices) > MaxDevices:
		return bad("%d devices and %d commands, want 1 to %d", len(h.Devices), len(h.Commands), MaxDevices)
	case len(h.Blobs) == 0 || len(h.Blobs) > maxBlobs:
		return bad("%d blobs, want 1 to %d", len(h.Blobs), maxBlobs)
	case len(h.Steps) > MaxSteps || (len(h.Steps) > 0) != (h.From > 0) || (len(h.Steps) > 0) != (h.Newest != nil):
		return bad("%d trust bundles, at most %d, with their first version and their end, or neither", len(h.Steps), MaxSteps)
	}
	if h.Newest != nil && (h.From > 1<<62 || h.Newest.Version != h.From+uint64(len(h.Steps))-1) {
		return bad("trust bundles from %d on, %d of them, do not end with %d", h.From, len(h.Steps), h.Newest.Version)
	}
	for i, d := range h.Devices {
		if d.ID == "" || len(d.ID) > maxID || i > 0 && h.Devices[i-1].ID >= d.ID || d.Command >= uint(len(h.Commands)) || len(d.Directive) == 0 {
			return bad("device %d of it has no name or order, or is out of place", i+1)
		}
	}
	for i, b := range h.Blobs {
		if len(b.Digest) != sha256.Size || b.Size == 0 || b.Size > maxBlob ||
			slices.ContainsFunc(h.Blobs[:i], func(o Blob) bool { return bytes.Equal(o.Digest, b.Digest) }) {
			return bad("blob %d of it has no digest or size, or is there twice", i+1)
		}
	}
	return nil
}

// For gives what a device is told.
func (h Head) For(device string) (Device, bool) {
	i, ok := slices.BinarySearchFunc(h.Devices, device, func(d Device, id string) int {
		return bytes.Compare([]byte(d.ID), []byte(id))
	})
	if !ok {
		return Device{}, false
	}
	return h.Devices[i], true
}

// Expires is when the first of its directives is over, as they say it; 0: one says nothing.
func (h Head) Expires() (first uint64) {
	for i, d := range h.Devices {
		o, err := wire.Parse1(wire.TypeOffline, d.Directive)
		if err != nil {
			return 0
		}
		dir, err := wire.DecodeOfflineDirective(o.Payload)
		if err != nil {
			return 0
		}
		if i == 0 || dir.Expires < first {
			first = dir.Expires
		}
	}
	return first
}

// Encode writes what a carton begins with: its blobs' bytes follow.
func Encode(h Head) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	head, err := wire.Marshal(h)
	if err != nil {
		return nil, err
	}
	if len(head) > MaxHead {
		return nil, fmt.Errorf("carton: %w: a head of %d bytes, at most %d: put fewer devices into one", wire.ErrTooLarge, len(head), MaxHead)
	}
	out := binary.BigEndian.AppendUint32([]byte(magic), uint32(len(head)))
	return append(out, head...), nil
}

// Carton is one that is read.
type Carton struct {
	Head

	from  io.ReaderAt
	first int64 // place of the first blob
}

// Read reads the head of a carton of size bytes.
func Read(r io.ReaderAt, size int64) (*Carton, error) {
	start := make([]byte, prefix)
	if _, err := r.ReadAt(start, 0); errors.Is(err, io.EOF) {
		return nil, bad("it has %d bytes", size)
	} else if err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(start[len(magic):]))
	if string(start[:len(magic)]) != magic || n > MaxHead || n > size-int64(prefix) {
		return nil, bad("it does not begin as one, or ends in its head")
	}
	data := make([]byte, n)
	if _, err := r.ReadAt(data, int64(prefix)); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	c := &Carton{from: r, first: int64(prefix) + n}
	if err := wire.Unmarshal(data, &c.Head, MaxHead); err != nil {
		return nil, bad("its head: %w", err)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	end := c.first
	for _, b := range c.Blobs {
		end += int64(b.Size)
	}
	if end != size {
		return nil, bad("it has %d bytes, and its head says %d: it was cut, or is not copied whole: copy it again", size, end)
	}
	return c, nil
}

// Verify reads all blobs, and compares them with their digests: for whoever would know whether a copy is good before a device does. Devices compare what they write.
func (c *Carton) Verify() error {
	for i, b := range c.Blobs {
		h := sha256.New()
		if n, err := io.Copy(h, c.Open(b.Digest, 0)); err != nil || uint64(n) != b.Size {
			return errors.Join(fmt.Errorf("blob %d of %d ends after %d of %d bytes", i+1, len(c.Blobs), n, b.Size), err)
		}
		if !bytes.Equal(h.Sum(nil), b.Digest) {
			return bad("blob %d of %d has other bytes than it should: copy it again", i+1, len(c.Blobs))
		}
	}
	return nil
}

// Open gives the bytes of a blob from offset on; nil: they are not in it. Whether they are right is for who knows the digest to say.
func (c *Carton) Open(digest []byte, offset int64) io.Reader {
	at := c.first
	for _, b := range c.Blobs {
		if bytes.Equal(b.Digest, digest) {
			if offset < 0 || uint64(offset) > b.Size {
				return nil
			}
			return io.NewSectionReader(c.from, at+offset, int64(b.Size)-offset)
		}
		at += int64(b.Size)
	}
	return nil
}
