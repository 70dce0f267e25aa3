package ledger

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// A tile holds up to 256 hashes of one level of tiles (c2sp.org/tlog-tiles, height 8): level 0 are the leaves' hashes, each hash
// of level L+1 is the root over a full tile of level L.
const (
	tileWidth  = 256
	hashSize   = sha256.Size
	tileHeight = 8
)

// Tile is one tile; Data is its hashes, one after another.
type Tile struct {
	Level int
	Index uint64
	Data  []byte
}

// Width is how many hashes the tile holds.
func (t Tile) Width() int { return len(t.Data) / hashSize }

// edge is the right edge of a tree: of each level of tiles, the last one that is not full. It is all that appending needs.
type edge struct {
	size  uint64
	tiles []Tile // by level
}

// append adds leaves and returns every tile that changed, in its new width.
func (e *edge) append(leaves [][hashSize]byte) []Tile {
	changed := map[[2]uint64]Tile{}
	var order [][2]uint64
	for _, h := range leaves {
		e.size++
		for level := 0; ; level++ {
			if level == len(e.tiles) {
				e.tiles = append(e.tiles, Tile{Level: level})
			}
			t := &e.tiles[level]
			t.Data = append(t.Data, h[:]...)
			key := [2]uint64{uint64(level), t.Index}
			if _, ok := changed[key]; !ok {
				order = append(order, key)
			}
			changed[key] = *t
			if t.Width() < tileWidth {
				break
			}
			h = subtree(t.Data)
			*t = Tile{Level: level, Index: t.Index + 1}
		}
	}
	out := make([]Tile, 0, len(order))
	for _, k := range order {
		out = append(out, changed[k])
	}
	return out
}

// root is the tree's head: the peaks of each level's last tile, folded from the right (RFC 6962 §2.1).
func (e *edge) root() [hashSize]byte {
	var peaks [][hashSize]byte
	for _, t := range slices.Backward(e.tiles) {
		data := t.Data
		for bit := tileWidth / 2; bit > 0; bit /= 2 {
			if len(data)/hashSize >= bit {
				peaks = append(peaks, subtree(data[:bit*hashSize]))
				data = data[bit*hashSize:]
			}
		}
	}
	if len(peaks) == 0 {
		return sha256.Sum256(nil)
	}
	r := peaks[len(peaks)-1]
	for i := len(peaks) - 2; i >= 0; i-- {
		r = tlog.NodeHash(tlog.Hash(peaks[i]), tlog.Hash(r))
	}
	return r
}

// subtree is the root over a power of two of hashes.
func subtree(data []byte) [hashSize]byte {
	n := len(data) / hashSize
	if n == 1 {
		return [hashSize]byte(data)
	}
	half := n / 2 * hashSize
	return tlog.NodeHash(tlog.Hash(subtree(data[:half])), tlog.Hash(subtree(data[half:])))
}

// tileReader reads stored hashes, as x/mod's tlog numbers them, out of tiles.
type tileReader func(level int, index uint64) ([]byte, error)

// ReadHashes implements tlog.HashReader.
func (r tileReader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		level, n := tlog.SplitStoredHashIndex(x)
		tileLevel, within := level/tileHeight, level%tileHeight
		first := uint64(n) << within // index, at the tile's level, of the first hash under the node
		data, err := r(tileLevel, first/tileWidth)
		if err != nil {
			return nil, err
		}
		from, to := int(first%tileWidth)*hashSize, (int(first%tileWidth)+1<<within)*hashSize
		if to > len(data) {
			return nil, fmt.Errorf("tile %d/%d holds %d hashes, need %d", tileLevel, first/tileWidth, len(data)/hashSize, to/hashSize)
		}
		out[i] = subtree(data[from:to])
	}
	return out, nil
}

// LeafHash is the hash of an entry's bytes.
func LeafHash(entry []byte) [hashSize]byte { return tlog.RecordHash(entry) }
