package ledger

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/bits"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/wire"
)

// Published is the latest witnessed checkpoint of a log.
type Published struct {
	Size uint64
	Root [32]byte
	Note []byte // the signed note with its cosignatures
}

// ReadStore is the database as a reader of the logs needs it. Not found: ErrNotFound.
type ReadStore interface {
	// Locate gives the place of a fact; ok is false while it has none.
	Locate(ctx context.Context, uid [16]byte) (ref Ref, ok bool, err error)
	// Entries gives the entries [from, to) of a log, at most 4096.
	Entries(ctx context.Context, log Log, from, to uint64) ([][]byte, error)
	// Tile gives a tile as wide as it has become.
	Tile(ctx context.Context, log Log, level int, index uint64) ([]byte, error)
	// Published gives the newest checkpoint that enough witnesses have cosigned.
	Published(ctx context.Context, log Log) (Published, error)
	// State gives the sequenced state, which may be ahead of what is published.
	State(ctx context.Context, log Log) (State, error)
	// Private gives what is private of a fact, a JSON object; nil when there is nothing, or it was forgotten.
	Private(ctx context.Context, f wire.Fact) ([]byte, error)
}

// Errors of reading.
var (
	ErrNotFound        = errors.New("not in the ledger")
	ErrNotYetWitnessed = errors.New("not yet under a witnessed checkpoint: try again in a moment")
)

// Reader finds facts and proves them.
type Reader struct {
	store ReadStore

	mu   sync.Mutex         // guards full
	full map[tileKey][]byte // full tiles, by place
}

// NewReader reads the logs in store.
func NewReader(store ReadStore) *Reader { return &Reader{store: store, full: map[tileKey][]byte{}} }

// Locate finds the place of a fact; ok is false while it has none.
func (r *Reader) Locate(ctx context.Context, uid [16]byte) (Ref, bool, error) {
	return r.store.Locate(ctx, uid)
}

// Latest gives the newest witnessed checkpoint.
func (r *Reader) Latest(ctx context.Context, log Log) (Published, error) {
	return r.store.Published(ctx, log)
}

// Size says how many entries of a log have their place.
func (r *Reader) Size(ctx context.Context, log Log) (uint64, error) {
	s, err := r.store.State(ctx, log)
	return s.Size, err
}

// Entries gives the entries [from, to) of a log, as far as they are sequenced.
func (r *Reader) Entries(ctx context.Context, log Log, from, to uint64) ([][]byte, error) {
	return r.store.Entries(ctx, log, from, to)
}

// Private gives what is private of a fact, a JSON object, for who may read its subject; nil when there is nothing, or it was forgotten.
func (r *Reader) Private(ctx context.Context, f wire.Fact) ([]byte, error) {
	return r.store.Private(ctx, f)
}

// Entry gives one entry's bytes.
func (r *Reader) Entry(ctx context.Context, ref Ref) ([]byte, error) {
	es, err := r.store.Entries(ctx, ref.Log, ref.Index, ref.Index+1)
	if err != nil {
		return nil, err
	}
	if len(es) != 1 {
		return nil, fmt.Errorf("%s entry %d: %w", ref.Log, ref.Index, ErrNotFound)
	}
	return es[0], nil
}

// Logged gives a fact with its proof under the newest witnessed checkpoint.
func (r *Reader) Logged(ctx context.Context, uid [16]byte) (wire.Logged, error) {
	ref, ok, err := r.store.Locate(ctx, uid)
	if err != nil {
		return wire.Logged{}, err
	}
	if !ok {
		return wire.Logged{}, fmt.Errorf("fact %x: %w", uid, ErrNotYetWitnessed)
	}
	return r.Prove(ctx, ref)
}

// Prove gives the entry at ref with its proof under the newest witnessed checkpoint.
func (r *Reader) Prove(ctx context.Context, ref Ref) (wire.Logged, error) {
	cp, err := r.store.Published(ctx, ref.Log)
	if err != nil {
		return wire.Logged{}, err
	}
	if ref.Index >= cp.Size {
		return wire.Logged{}, fmt.Errorf("%s entry %d: %w", ref.Log, ref.Index, ErrNotYetWitnessed)
	}
	entry, err := r.Entry(ctx, ref)
	if err != nil {
		return wire.Logged{}, err
	}
	path, err := tlog.ProveRecord(int64(cp.Size), int64(ref.Index), r.tiles(ctx, ref.Log))
	if err != nil {
		return wire.Logged{}, fmt.Errorf("prove %s entry %d: %w", ref.Log, ref.Index, err)
	}
	logSig, cosigs, err := SplitNote(cp.Note)
	if err != nil {
		return wire.Logged{}, err
	}
	p := wire.Proof{Index: ref.Index, Size: cp.Size, LogSignature: logSig, Cosignatures: cosigs, Path: make([][]byte, 0, len(path))}
	for _, h := range path {
		p.Path = append(p.Path, h[:])
	}
	return wire.Logged{Entry: entry, Proof: p}, nil
}

// SignedBy gives a proof under the newest checkpoint as one of the log's keys signed it: while a key is being replaced, the log signs with
// several. It is false when key has not signed. Of a proof that was made before that checkpoint the path is made anew.
func (r *Reader) SignedBy(ctx context.Context, log Log, p wire.Proof, key ed25519.PublicKey) (wire.Proof, bool, error) {
	cp, err := r.store.Published(ctx, log)
	if err != nil {
		return p, false, err
	}
	if cp.Size < p.Size {
		return p, false, fmt.Errorf("%s at size %d: %w", log, p.Size, ErrNotYetWitnessed)
	}
	if cp.Size > p.Size {
		if _, p.Path, err = r.Path(ctx, Ref{Log: log, Index: p.Index}, cp); err != nil {
			return p, false, err
		}
		p.Size = cp.Size
	}
	n, err := ParseNote(cp.Note)
	if err != nil {
		return p, false, err
	}
	sig, cosigs := n.signature(key), []wire.Cosignature(nil)
	if sig == nil {
		return p, false, nil
	}
	if _, cosigs, err = SplitNote(cp.Note); err != nil {
		return p, false, err
	}
	p.LogSignature, p.Cosignatures = sig, cosigs // of one note: it may have been published anew
	return p, true, nil
}

// Path gives the leaf hash of an entry and the path from it to the root of cp, which is one of the log's checkpoints.
func (r *Reader) Path(ctx context.Context, ref Ref, cp Published) (leaf [32]byte, path [][]byte, err error) {
	if ref.Index >= cp.Size {
		return leaf, nil, fmt.Errorf("%s entry %d: %w", ref.Log, ref.Index, ErrNotYetWitnessed)
	}
	entry, err := r.Entry(ctx, ref)
	if err != nil {
		return leaf, nil, err
	}
	leaf, path = tlog.RecordHash(entry), [][]byte{}
	hashes, err := tlog.ProveRecord(int64(cp.Size), int64(ref.Index), r.tiles(ctx, ref.Log))
	if err != nil {
		return leaf, nil, fmt.Errorf("prove %s entry %d: %w", ref.Log, ref.Index, err)
	}
	for _, h := range hashes {
		path = append(path, h[:])
	}
	return leaf, path, nil
}

// Consistency proves that the tree of size now extends the tree of size old.
func (r *Reader) Consistency(ctx context.Context, log Log, old, now uint64) ([][32]byte, error) {
	if old == 0 || old == now {
		return nil, nil
	}
	proof, err := tlog.ProveTree(int64(now), int64(old), r.tiles(ctx, log))
	if err != nil {
		return nil, fmt.Errorf("prove %s from %d to %d: %w", log, old, now, err)
	}
	out := make([][32]byte, len(proof))
	for i, h := range proof {
		out[i] = h
	}
	return out, nil
}

// ProveAll gives entries of a log, by index, with one proof for all of them under cp: the hashes of the subtrees that hold none of them,
// from left to right. See wire.CustodyLog.
func (r *Reader) ProveAll(ctx context.Context, log Log, cp Published, entries []wire.CustodyEntry) (wire.CustodyLog, error) {
	out := wire.CustodyLog{Name: string(log), Size: cp.Size, Checkpoint: string(cp.Note), Entries: entries, Hashes: []byte{}}
	tiles, rest := r.tiles(ctx, log), entries
	var walk func(from, size uint64) error
	walk = func(from, size uint64) error {
		if len(rest) == 0 || rest[0].Index-from >= size {
			h, err := subtreeHash(tiles, from, size)
			out.Hashes = append(out.Hashes, h[:]...)
			return err
		}
		if size == 1 {
			rest = rest[1:]
			return nil
		}
		k := uint64(1) << (bits.Len64(size-1) - 1)
		if err := walk(from, k); err != nil {
			return err
		}
		return walk(from+k, size-k)
	}
	if err := walk(0, cp.Size); err != nil {
		return out, fmt.Errorf("prove %d entries of %s: %w", len(entries), log, err)
	}
	if root, err := out.Root(); err != nil || root != cp.Root {
		return out, fmt.Errorf("prove %d entries of %s: they do not lead to the published root: %w", len(entries), log, cmp.Or(err, ErrForked))
	}
	return out, nil
}

// subtreeHash is the hash over size leaves from a multiple of the power of two that size is, or is next below.
func subtreeHash(tiles tileReader, from, size uint64) (tlog.Hash, error) {
	if k := bits.TrailingZeros64(size); size == 1<<k {
		h, err := tiles.ReadHashes([]int64{tlog.StoredHashIndex(k, int64(from>>k))})
		if err != nil {
			return tlog.Hash{}, err
		}
		return h[0], nil
	}
	k := uint64(1) << (bits.Len64(size-1) - 1)
	left, err := subtreeHash(tiles, from, k)
	if err != nil {
		return left, err
	}
	right, err := subtreeHash(tiles, from+k, size-k)
	return tlog.NodeHash(left, right), err
}

// tileKey names a tile.
type tileKey struct {
	log   Log
	level int
	index uint64
}

// maxCachedTiles bounds the cache: 4096 full tiles are 32 MiB, the hashes of a million entries.
const maxCachedTiles = 4096

// tiles reads tiles. It remembers the full ones for good, because they never change, and the others for itself: a proof takes
// many hashes out of the same few tiles.
func (r *Reader) tiles(ctx context.Context, log Log) tileReader {
	edge := map[tileKey][]byte{}
	return func(level int, index uint64) ([]byte, error) {
		k := tileKey{log, level, index}
		if data, ok := edge[k]; ok {
			return data, nil
		}
		r.mu.Lock()
		data, ok := r.full[k]
		r.mu.Unlock()
		if ok {
			return data, nil
		}
		data, err := r.store.Tile(ctx, log, level, index)
		if err != nil {
			return nil, err
		}
		if len(data) < tileWidth*hashSize {
			edge[k] = data
			return data, nil
		}
		r.mu.Lock()
		if len(r.full) >= maxCachedTiles {
			clear(r.full)
		}
		r.full[k] = data
		r.mu.Unlock()
		return data, nil
	}
}
