package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// RecordTree computes the RFC 6962 root over records as they come. It holds one hash for each power of two, whatever their number.
type RecordTree struct {
	full []subtree // complete, each larger than the next
}

type subtree struct {
	leaves uint64
	root   [32]byte
}

// Add takes in the next envelope.
func (t *RecordTree) Add(envelope []byte) {
	s := subtree{1, leafHash(envelope)}
	for n := len(t.full); n > 0 && t.full[n-1].leaves == s.leaves; n-- {
		s = subtree{2 * s.leaves, nodeHash(t.full[n-1].root, s.root)}
		t.full = t.full[:n-1]
	}
	t.full = append(t.full, s)
}

// Root is the root over what was added; zeros when nothing was.
func (t *RecordTree) Root() (root [32]byte) {
	for i, s := range slices.Backward(t.full) {
		if i == len(t.full)-1 {
			root = s.root
		} else {
			root = nodeHash(s.root, root)
		}
	}
	return root
}

// RecordFileWriter writes a RecordFile batch by batch, the very bytes that all of it encodes to, so that nobody has to hold it.
type RecordFileWriter struct {
	w    io.Writer
	left int
}

// NewRecordFileWriter begins a file of so many batches.
func NewRecordFileWriter(w io.Writer, order string, batches int) (*RecordFileWriter, error) {
	if !validName(order) || batches < 1 || batches > MaxFileBatches {
		return nil, fmt.Errorf("record file: of order %q with %d batches", order, batches)
	}
	head := append([]byte{0xa2, 0x01}, cborHead(3, len(order))...)
	head = append(head, order...)
	head = append(append(head, 0x02), cborHead(4, batches)...)
	_, err := w.Write(head)
	return &RecordFileWriter{w: w, left: batches}, err
}

// Add writes the next sealed batch.
func (f *RecordFileWriter) Add(sealed []byte) error {
	if f.left == 0 {
		return errors.New("record file: one batch too many")
	}
	f.left--
	if _, err := f.w.Write(cborHead(2, len(sealed))); err != nil {
		return err
	}
	_, err := f.w.Write(sealed)
	return err
}

// Close says whether the file is whole.
func (f *RecordFileWriter) Close() error {
	if f.left > 0 {
		return fmt.Errorf("record file: %d batches are missing", f.left)
	}
	return nil
}

// cborHead is the shortest head of an item (RFC 8949 §3).
func cborHead(major byte, n int) []byte {
	m := major << 5
	switch {
	case n < 24:
		return []byte{m | byte(n)}
	case n < 1<<8:
		return []byte{m | 24, byte(n)}
	case n < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{m | 25}, uint16(n))
	case uint64(n) < 1<<32:
		return binary.BigEndian.AppendUint32([]byte{m | 26}, uint32(n))
	}
	return binary.BigEndian.AppendUint64([]byte{m | 27}, uint64(n))
}

// readHead reads the head of a string or an array (RFC 8949 §3) in its one shortest form, whose count is within bounds; fill reads the bytes that come next.
func readHead(fill func([]byte) error, major byte, least, most int) (int, error) {
	var b [5]byte
	if err := fill(b[:1]); err != nil {
		return 0, err
	}
	n, size := uint64(b[0]&31), 1
	switch n {
	case 24:
		size = 2
	case 25:
		size = 3
	case 26:
		size = 5
	}
	if err := fill(b[1:size]); err != nil {
		return 0, err
	}
	switch size {
	case 2:
		n = uint64(b[1])
	case 3:
		n = uint64(binary.BigEndian.Uint16(b[1:]))
	case 5:
		n = uint64(binary.BigEndian.Uint32(b[1:]))
	}
	if n > uint64(most) || n < uint64(least) {
		return 0, fmt.Errorf("length %d, between %d and %d", n, least, most)
	}
	if !bytes.Equal(b[:size], cborHead(major, int(n))) {
		return 0, ErrNotDeterministic
	}
	return int(n), nil
}

// RecordFileIndex says where the batches of a file lie, so that nobody has to hold all of it.
type RecordFileIndex struct {
	Order   string
	Batches []Extent
}

// Extent is a part of a file.
type Extent struct {
	At   int64
	Size int
}

// MaxSealedBatch bounds a batch as it is in a file.
const MaxSealedBatch = MaxRecordBatch + 1024

// IndexRecordFile reads the frame of a file of size bytes and steps over the batches. What it takes, DecodeRecordFile takes too, and the
// other way round, but for batches that are too large to be opened.
func IndexRecordFile(r io.ReaderAt, size int64) (RecordFileIndex, error) {
	x := indexer{r: r, size: size}
	x.is(0xa2, 0x01)
	f := RecordFileIndex{Order: string(x.bytes(x.head(3, maxName)))}
	x.is(0x02)
	n := x.head(4, MaxFileBatches)
	for range n {
		e := Extent{Size: x.head(2, MaxSealedBatch)}
		e.At = x.at
		if x.at += int64(e.Size); x.err != nil {
			break
		}
		f.Batches = append(f.Batches, e)
	}
	switch {
	case x.err != nil:
		return RecordFileIndex{}, fmt.Errorf("record file: %w", x.err)
	case size > MaxRecordFile:
		return RecordFileIndex{}, fmt.Errorf("record file: %w: %d bytes", ErrTooLarge, size)
	case x.at != size:
		return RecordFileIndex{}, fmt.Errorf("record file: %d bytes, and its batches end at %d", size, x.at)
	case !validName(f.Order) || n == 0:
		return RecordFileIndex{}, fmt.Errorf("record file: of order %q with %d batches", f.Order, n)
	}
	return f, nil
}

const maxName = 64

// indexer walks along a file; after an error it stands still.
type indexer struct {
	r        io.ReaderAt
	at, size int64
	err      error
}

func (x *indexer) bytes(n int) []byte {
	if x.err == nil && int64(n) > x.size-x.at {
		x.err = io.ErrUnexpectedEOF
	}
	if x.err != nil {
		return make([]byte, n)
	}
	b := make([]byte, n)
	_, x.err = io.ReadFull(io.NewSectionReader(x.r, x.at, int64(n)), b)
	x.at += int64(n)
	return b
}

func (x *indexer) is(want ...byte) {
	if got := x.bytes(len(want)); x.err == nil && !bytes.Equal(got, want) {
		x.err = fmt.Errorf("%x where %x belongs, at %d", got, want, x.at)
	}
}

// head reads the head of an item with a count of at most limit.
func (x *indexer) head(major byte, limit int) int {
	at := x.at
	n, err := readHead(func(b []byte) error {
		copy(b, x.bytes(len(b)))
		return x.err
	}, major, 0, limit)
	if x.err == nil && err != nil {
		x.err = fmt.Errorf("head at %d: %w", at, err)
	}
	return n
}
