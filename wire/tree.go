package wire

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// A DeviceSet is the set of devices an act is meant for, committed to by one Merkle root (RFC 6962 §2.1 over the sorted
// device IDs), so that what is signed and logged stays small and each device can be shown that it is in it, and in nothing else.
type DeviceSet struct {
	Root  []byte `cbor:"1,keyasint" json:"root"`
	Count uint64 `cbor:"2,keyasint" json:"count"`
}

// Membership shows that one device is in a set: its place in the sorted order and the audit path.
type Membership struct {
	Index uint64   `cbor:"1,keyasint" json:"index"`
	Path  [][]byte `cbor:"2,keyasint" json:"path"`
}

// SetOf commits to ids. The order in which they are given does not matter; one given twice is an error.
func SetOf(ids []string) (DeviceSet, error) {
	sorted, err := sortedIDs(ids)
	if err != nil {
		return DeviceSet{}, err
	}
	root := merkle(leaves(sorted))
	return DeviceSet{Root: root[:], Count: uint64(len(sorted))}, nil
}

// MembershipOf shows that id is one of ids.
func MembershipOf(ids []string, id string) (Membership, error) {
	sorted, err := sortedIDs(ids)
	if err != nil {
		return Membership{}, err
	}
	i, ok := slices.BinarySearch(sorted, id)
	if !ok {
		return Membership{}, fmt.Errorf("device %s is not in the set", id)
	}
	return Membership{Index: uint64(i), Path: auditPath(leaves(sorted), i)}, nil
}

// Verify checks that id is in set.
func (m Membership) Verify(set DeviceSet, id string) error {
	if len(set.Root) != sha256.Size {
		return fmt.Errorf("device set: root of %d bytes", len(set.Root))
	}
	root, err := RootFromPath(m.Index, set.Count, leafHash([]byte(id)), m.Path)
	if err != nil {
		return fmt.Errorf("device set: %w", err)
	}
	if [32]byte(set.Root) != root {
		return fmt.Errorf("device %s is not in the set", id)
	}
	return nil
}

func sortedIDs(ids []string) ([]string, error) {
	if len(ids) == 0 {
		return nil, errors.New("empty device set")
	}
	sorted := slices.Sorted(slices.Values(ids))
	for i := 1; i < len(sorted); i++ {
		if sorted[i] == sorted[i-1] {
			return nil, fmt.Errorf("device %s twice in the set", sorted[i])
		}
	}
	return sorted, nil
}

func leaves(ids []string) [][32]byte {
	out := make([][32]byte, len(ids))
	for i, id := range ids {
		out[i] = leafHash([]byte(id))
	}
	return out
}

// leafHash does not copy data: an entry may be larger than what a small device has to spare.
func leafHash(data []byte) (out [32]byte) {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(data)
	h.Sum(out[:0])
	return out
}

func nodeHash(left, right [32]byte) [32]byte {
	var b [65]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[33:], right[:])
	return sha256.Sum256(b[:])
}

func merkle(l [][32]byte) [32]byte {
	if len(l) == 1 {
		return l[0]
	}
	k := split(len(l))
	return nodeHash(merkle(l[:k]), merkle(l[k:]))
}

// split gives the largest power of two smaller than n.
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

func auditPath(l [][32]byte, i int) [][]byte {
	if len(l) == 1 {
		return nil
	}
	k := split(len(l))
	if i < k {
		h := merkle(l[k:])
		return append(auditPath(l[:k], i), h[:])
	}
	h := merkle(l[:k])
	return append(auditPath(l[k:], i-k), h[:])
}

// RootFromPath computes the root an inclusion path leads to (RFC 9162 §2.1.3.2). A path of the wrong length is an error.
func RootFromPath(index, size uint64, leaf [32]byte, path [][]byte) ([32]byte, error) {
	if index >= size {
		return [32]byte{}, fmt.Errorf("index %d in a tree of %d", index, size)
	}
	fn, sn, r := index, size-1, leaf
	for i, p := range path {
		if len(p) != sha256.Size {
			return [32]byte{}, fmt.Errorf("path element %d has %d bytes", i, len(p))
		}
		if sn == 0 {
			return [32]byte{}, errors.New("path too long")
		}
		if fn&1 == 1 || fn == sn {
			r = nodeHash([32]byte(p), r)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			r = nodeHash(r, [32]byte(p))
		}
		fn, sn = fn>>1, sn>>1
	}
	if sn != 0 {
		return [32]byte{}, errors.New("path too short")
	}
	return r, nil
}
