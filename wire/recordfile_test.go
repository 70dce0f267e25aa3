package wire

import (
	"bytes"
	"errors"
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
		want, err := EncodeRecordFile(f)
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
