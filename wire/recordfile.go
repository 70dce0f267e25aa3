package wire

import (
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

// RecordFileWriter writes a RecordFile batch by batch, the very bytes of EncodeRecordFile, so that nobody has to hold all of it.
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
	case n < 1<<32:
		return binary.BigEndian.AppendUint32([]byte{m | 26}, uint32(n))
	}
	return binary.BigEndian.AppendUint64([]byte{m | 27}, uint64(n))
}
