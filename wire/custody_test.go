package wire

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// pruneTree gives the entries at those places of a tree of size with the hashes that lead from them to the root, by the recursion of
// RFC 6962 §2.1.
func pruneTree(size int, at ...int) (CustodyLog, [32]byte) {
	entry := func(i int) []byte { return fmt.Appendf(nil, "entry %d", i) }
	l := CustodyLog{Name: "events", Size: uint64(size), Checkpoint: "note"}
	var leaves [][32]byte
	for i := range size {
		leaves = append(leaves, leafHash(entry(i)))
		if slices.Contains(at, i) {
			l.Entries = append(l.Entries, CustodyEntry{Index: uint64(i), Entry: entry(i)})
		}
	}
	var walk func(from, to int)
	walk = func(from, to int) {
		switch {
		case !slices.ContainsFunc(at, func(i int) bool { return i >= from && i < to }):
			h := merkle(leaves[from:to])
			l.Hashes = append(l.Hashes, h[:]...)
		case to-from > 1:
			k := split(to - from)
			walk(from, from+k)
			walk(from+k, to)
		}
	}
	walk(0, size)
	return l, merkle(leaves)
}

func TestACustodyLogLeadsToTheRootOfItsTree(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for size := 1; size <= 40; size++ {
		for range 20 {
			at := rng.Perm(size)[:1+rng.IntN(min(size, 6))]
			l, root := pruneTree(size, at...)
			if got, err := l.Root(); err != nil || got != root {
				t.Fatalf("%v of %d: %x, %v; want %x", at, size, got, err, root)
			}
			more := l
			more.Hashes = append(slices.Clone(l.Hashes), make([]byte, sha256.Size)...)
			if _, err := more.Root(); err == nil {
				t.Fatalf("%v of %d with a hash too many", at, size)
			}
			if len(l.Hashes) > 0 {
				less := l
				less.Hashes = l.Hashes[sha256.Size:]
				if got, err := less.Root(); err == nil {
					t.Fatalf("%v of %d with a hash too few: %x", at, size, got)
				}
			}
		}
	}
}

// One entry's proof is x/mod's, in another order.
func TestACustodyLogOfOneEntryHasTheHashesOfItsPath(t *testing.T) {
	l, root := pruneTree(21, 13)
	var hashes []tlog.Hash
	for i := range int64(21) {
		h, err := tlog.StoredHashes(i, fmt.Appendf(nil, "entry %d", i), tlog.HashReaderFunc(func(at []int64) (out []tlog.Hash, _ error) {
			for _, x := range at {
				out = append(out, hashes[x])
			}
			return out, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, h...)
	}
	proof, err := tlog.ProveRecord(21, 13, tlog.HashReaderFunc(func(at []int64) (out []tlog.Hash, _ error) {
		for _, x := range at {
			out = append(out, hashes[x])
		}
		return out, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := tlog.CheckRecord(proof, 21, tlog.Hash(root), 13, tlog.RecordHash([]byte("entry 13"))); err != nil {
		t.Fatal(err)
	}
	if len(l.Hashes) != len(proof)*sha256.Size {
		t.Fatalf("%d hashes, the path has %d", len(l.Hashes)/sha256.Size, len(proof))
	}
	for at := 0; at < len(l.Hashes); at += sha256.Size {
		if !slices.Contains(proof, tlog.Hash(l.Hashes[at:at+sha256.Size])) {
			t.Errorf("hash %d is not of the path", at/sha256.Size)
		}
	}
}

func FuzzDecodeCustody(f *testing.F) {
	l, _ := pruneTree(9, 2, 5)
	again(f, DecodeCustody, EncodeCustody, Custody{
		V: 1, Device: "d", Station: []byte{1}, Logs: []CustodyLog{l}, Members: []CustodyMember{{Index: 2, Member: Membership{Index: 1, Path: [][]byte{d32(1)}}}}, Left: 3, Pending: 1,
	}, Custody{V: 1, Device: "d", Logs: []CustodyLog{{Name: "control", Size: 1, Entries: []CustodyEntry{{Entry: []byte("e")}}, Hashes: []byte{}}}})
}
