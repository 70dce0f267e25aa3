// Package mirror reads a log from wherever its files are, and keeps a copy that grows as the log does.
//
// Under all stages. What it gives or keeps was verified before: tiles and entries against a checkpoint that the log signed and a
// quorum of witnesses cosigned, and that checkpoint against the one before. It trusts the keys it is given and nobody who serves
// files. It needs memory for a few tiles, however large the log is.
package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/ledger/audit"
)

// A tile holds up to 256 hashes (c2sp.org/tlog-tiles).
const (
	width    = 256
	hashSize = sha256.Size
)

// Hash is a hash of the tree.
type Hash = [hashSize]byte

// Tree is a log under one checkpoint.
type Tree struct {
	Size uint64
	Root Hash
	Note []byte // the signed checkpoint

	fetch audit.Fetcher
	edge  [][]byte // of each level the last tile, if it is not full
	last  []kept   // of each level the full tile that was verified last: neighbours need it
}

type kept struct {
	n    uint64
	data []byte
}

// Open verifies the log's checkpoint, and reads the right edge of its tree.
func Open(ctx context.Context, p audit.Policy, fetch audit.Fetcher) (*Tree, error) {
	note, err := fetch(ctx, "checkpoint")
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	head, err := audit.Checkpoint(p, note)
	if err != nil {
		return nil, err
	}
	return open(ctx, head, note, fetch)
}

// OpenSigned is Open for a checkpoint that the log alone has signed, in another file: one that witnesses were asked to cosign.
func OpenSigned(ctx context.Context, p audit.Policy, fetch audit.Fetcher, file string) (*Tree, error) {
	note, err := fetch(ctx, file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	head, err := audit.Signed(p, note)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return open(ctx, head, note, fetch)
}

func open(ctx context.Context, head audit.Head, note []byte, fetch audit.Fetcher) (*Tree, error) {
	t := &Tree{Size: head.Size, Root: head.Root, Note: note, fetch: fetch}
	var paths []string
	for level := 0; t.hashes(level) > 0; level++ {
		w := int(t.hashes(level) % width)
		var data []byte
		if w > 0 {
			var path string
			var err error
			if path, data, err = t.file(ctx, level, t.hashes(level)/width, w); err != nil {
				return nil, err
			}
			paths = append(paths, path)
		}
		t.edge = append(t.edge, data)
	}
	t.last = make([]kept, len(t.edge))
	if fold(t.edge) != t.Root {
		return nil, fmt.Errorf("%s: do not lead to the root of the checkpoint of size %d", strings.Join(paths, ", "), t.Size)
	}
	return t, nil
}

// hashes is how many hashes a level of tiles has.
func (t *Tree) hashes(level int) uint64 {
	if level > 7 {
		return 0
	}
	return t.Size >> (8 * level)
}

// file reads w hashes of a tile. A partial tile may be gone once the full one is there, of which it is the beginning.
func (t *Tree) file(ctx context.Context, level int, n uint64, w int) (path string, data []byte, err error) {
	path = Path(strconv.Itoa(level), n, w)
	data, err = t.fetch(ctx, path)
	if err != nil && w < width {
		if full, err2 := t.fetch(ctx, Path(strconv.Itoa(level), n, width)); err2 == nil && len(full) == width*hashSize {
			return Path(strconv.Itoa(level), n, width), full[:w*hashSize], nil
		}
	}
	if err != nil {
		return path, nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(data) != w*hashSize {
		return path, nil, fmt.Errorf("%s: %d bytes, want %d", path, len(data), w*hashSize)
	}
	return path, data, nil
}

// Tile gives a tile, as wide as it is in this tree. Its hash must be the one in the tile above it.
func (t *Tree) Tile(ctx context.Context, level int, n uint64) ([]byte, error) {
	switch count := t.hashes(level); {
	case n*width >= count:
		return nil, fmt.Errorf("tile %d/%d is not in a tree of %d entries", level, n, t.Size)
	case count-n*width < width:
		return t.edge[level], nil
	case t.last[level].data != nil && t.last[level].n == n:
		return t.last[level].data, nil
	}
	above, err := t.Tile(ctx, level+1, n/width)
	if err != nil {
		return nil, err
	}
	path, data, err := t.file(ctx, level, n, width)
	if err != nil {
		return nil, err
	}
	if at := n % width * hashSize; subtree(data) != Hash(above[at:at+hashSize]) {
		return nil, fmt.Errorf("%s: its hash is not that in the tile above", path)
	}
	t.last[level] = kept{n, data}
	return data, nil
}

// RootAt gives the root of the tree when it had that size.
func (t *Tree) RootAt(ctx context.Context, size uint64) (Hash, error) {
	if size > t.Size {
		return Hash{}, fmt.Errorf("the tree has %d entries, not %d", t.Size, size)
	}
	var edge [][]byte
	for level := 0; size>>(8*level) > 0; level++ {
		n := size >> (8 * level)
		var data []byte
		if n%width > 0 {
			tile, err := t.Tile(ctx, level, n/width)
			if err != nil {
				return Hash{}, err
			}
			data = tile[:n%width*hashSize]
		}
		edge = append(edge, data)
	}
	return fold(edge), nil
}

// Bundles is how many entry bundles there are.
func (t *Tree) Bundles() uint64 { return (t.Size + width - 1) / width }

// Bundle gives the entries of bundle n, and the bytes of the bundle that hold them.
func (t *Tree) Bundle(ctx context.Context, n uint64) (entries [][]byte, raw []byte, err error) {
	w := int(min(width, t.Size-n*width))
	path := Path("entries", n, w)
	raw, err = t.fetch(ctx, path)
	if err != nil && w < width {
		if full, err2 := t.fetch(ctx, Path("entries", n, width)); err2 == nil {
			path, raw, err = Path("entries", n, width), full, nil
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	entries, raw, err = t.check(ctx, n, raw, path != Path("entries", n, w))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return entries, raw, nil
}

// check takes a bundle apart, and compares the hash of each entry with the tile. more says that entries may follow.
func (t *Tree) check(ctx context.Context, n uint64, raw []byte, more bool) (entries [][]byte, upTo []byte, err error) {
	tile, err := t.Tile(ctx, 0, n)
	if err != nil {
		return nil, nil, err
	}
	rest := raw
	for i := 0; i < len(tile); i += hashSize {
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return nil, nil, fmt.Errorf("ends within entry %d", n*width+uint64(i/hashSize))
		}
		entry := rest[2 : 2+int(binary.BigEndian.Uint16(rest))]
		rest = rest[2+len(entry):]
		if h := tlog.RecordHash(entry); !bytes.Equal(h[:], tile[i:i+hashSize]) {
			return nil, nil, fmt.Errorf("entry %d is not the one in the tree", n*width+uint64(i/hashSize))
		}
		entries = append(entries, entry)
	}
	if len(rest) > 0 && !more {
		return nil, nil, errors.New("something follows the last entry")
	}
	return entries, raw[:len(raw)-len(rest)], nil
}

// fold gives the root that a right edge leads to (RFC 6962 §2.1).
func fold(edge [][]byte) Hash {
	root := sha256.Sum256(nil)
	begun := false
	for _, data := range edge {
		for size := 1; len(data) > 0; size *= 2 {
			if len(data)/hashSize&size == 0 {
				continue
			}
			peak := subtree(data[len(data)-size*hashSize:])
			data = data[:len(data)-size*hashSize]
			if begun {
				peak = Hash(tlog.NodeHash(tlog.Hash(peak), tlog.Hash(root)))
			}
			root, begun = peak, true
		}
	}
	return root
}

// subtree is the root over a power of two of hashes.
func subtree(data []byte) Hash {
	if len(data) == hashSize {
		return Hash(data)
	}
	half := len(data) / 2
	return Hash(tlog.NodeHash(tlog.Hash(subtree(data[:half])), tlog.Hash(subtree(data[half:]))))
}

// Path is where a file of the log is (c2sp.org/tlog-tiles); kind is a level, or "entries".
func Path(kind string, n uint64, w int) string {
	name := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		name = fmt.Sprintf("x%03d/%s", n%1000, name)
	}
	if w < width {
		return fmt.Sprintf("tile/%s/%s.p/%d", kind, name, w)
	}
	return "tile/" + kind + "/" + name
}
