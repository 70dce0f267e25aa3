package wire

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// The tree that grows has at every size the root of the one that is built whole.
func TestARecordTreeGrowsIntoTheSameRoot(t *testing.T) {
	var grown RecordTree
	if grown.Root() != [32]byte{} {
		t.Error("the root of nothing")
	}
	var all [][32]byte
	for i := range 300 {
		e := []byte{byte(i), byte(i >> 8)}
		grown.Add(e)
		all = append(all, leafHash(e))
		if grown.Root() != merkle(all) {
			t.Fatalf("another root at %d records", i+1)
		}
		if len(grown.full) > 9 {
			t.Fatalf("%d hashes held at %d records", len(grown.full), i+1)
		}
	}
}

func TestARecordFileIsWrittenPieceByPiece(t *testing.T) {
	for _, sizes := range [][]int{{1}, {23, 24, 255, 256}, {70_000}, make([]int, 300)} {
		f := RecordFile{Order: "ord-1"}
		for _, n := range sizes {
			f.Batches = append(f.Batches, bytes.Repeat([]byte{7}, n))
		}
		want, err := Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		w, err := NewRecordFileWriter(&got, f.Order, len(sizes))
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range f.Batches {
			if i == 0 && len(f.Batches) > 1 && w.Close() == nil {
				t.Error("a file with batches missing passes for whole")
			}
			if err := w.Add(b); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.Close()); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%d batches: other bytes, %v", len(sizes), err)
		}
		if w.Add(nil) == nil {
			t.Error("a batch too many was taken")
		}
	}
	for _, bad := range []int{0, MaxFileBatches + 1} {
		if _, err := NewRecordFileWriter(&bytes.Buffer{}, "ord-1", bad); err == nil {
			t.Errorf("a file of %d batches", bad)
		}
	}
}

// indexed reads the batches of a file by their places.
func indexed(data []byte) (f RecordFile, err error) {
	x, err := IndexRecordFile(bytes.NewReader(data), int64(len(data)))
	f.Order = x.Order
	for _, e := range x.Batches {
		f.Batches = append(f.Batches, data[e.At:e.At+int64(e.Size)])
	}
	return f, err
}

// FuzzRecordFileIndex holds the two ways to read a file against each other.
func FuzzRecordFileIndex(f *testing.F) {
	for _, sizes := range [][]int{{1}, {0}, {23, 24, 255, 256}, {70_000}, make([]int, 300)} {
		file := RecordFile{Order: "ord-1"}
		for _, n := range sizes {
			file.Batches = append(file.Batches, make([]byte, n))
		}
		data, err := Marshal(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)-1])        // cut off
		f.Add(append(data, 0))           // something behind it
		f.Add(append(data[:2], 0x78, 5)) // a head that is longer than it needs to be
	}
	f.Add([]byte{0xa2, 1, 0x65, 'o', 'r', 'd', '-', '1', 2, 0x80})                                                   // no batch
	f.Add([]byte{0xa2, 1, 0x65, 'o', 'r', 'd', '-', '1', 2, 0x81, 0x58, 5, 1, 2, 3, 4, 5})                           // five in two bytes
	f.Add([]byte{0xa2, 1, 0x65, 'o', 'r', 'd', '-', '1', 2, 0x9f, 0x41, 0, 0xff})                                    // without a length
	f.Add([]byte{0xa2, 1, 0x65, 'o', 'r', 'd', '-', '1', 2, 0x81, 0x5b, 0xff, 255, 255, 255, 255, 255, 255, 255, 0}) // longer than anything
	f.Fuzz(func(t *testing.T, data []byte) {
		want, bad := DecodeRecordFile(data)
		for _, b := range want.Batches {
			if len(b) > MaxSealedBatch {
				t.Skip("too large to be opened")
			}
		}
		got, err := indexed(data)
		if (err == nil) != (bad == nil) {
			t.Fatalf("decoded: %v; indexed: %v", bad, err)
		}
		if err == nil && (got.Order != want.Order || !slices.EqualFunc(got.Batches, want.Batches, bytes.Equal)) {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}
