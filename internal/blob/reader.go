package blob

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// state is what a blob was like when it was verified: in another one it must be verified anew. Size and time of writing can be set back by whoever
// writes; the time of the change cannot, but by who sets the machine's clock.
type state struct {
	size    int64
	mod     time.Time
	file    uint64 // its number in the file system
	changed int64  // when its bytes or what is known of it changed, ns
}

// stateOf looks at the file; of what is none, only the size is known.
func stateOf(o Object) (state, error) {
	f := o.File()
	if f == nil {
		return state{size: o.Size()}, nil
	}
	info, err := f.Stat()
	if err != nil {
		return state{}, err
	}
	return stateAs(info), nil
}

// known is what is known of a blob in one state.
type known struct {
	state state
	sums  []byte

	mu   sync.Mutex
	good []bool // the chunks that were found right; guarded by mu
	left int    // how many were not yet; guarded by mu
}

func newKnown(now state, sums []byte) *known {
	n := len(sums) / sha256.Size
	return &known{state: now, sums: sums, good: make([]bool, n), left: n}
}

func (k *known) isGood(i int64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.good[i]
}

// found says that a chunk is right.
func (k *known) found(i int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.good[i] {
		k.good[i] = true
		k.left--
	}
}

func (k *known) isWhole() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.left == 0
}

// Reader gives a blob's bytes, each chunk verified before the first byte of it. A chunk that is new to it is in memory once it was verified, and
// given from there. It is for one caller at a time.
type Reader struct {
	object Object
	known  *known
	digest [32]byte

	at    int64
	chunk []byte // what was verified by this reader last
	first int64  // where it begins
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	size := r.known.state.size
	if r.at >= size {
		return 0, io.EOF
	}
	if r.at < r.first || r.at >= r.first+int64(len(r.chunk)) {
		i := r.at / Chunk
		if n := r.direct(p[:min(int64(len(p)), size-r.at, (i+1)*Chunk-r.at)], i); n > 0 {
			return n, nil
		}
		if err := r.load(i); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.chunk[r.at-r.first:])
	r.at += int64(n)
	return n, nil
}

// direct reads of a chunk that was verified before, if the file is still as it was then; else nothing.
func (r *Reader) direct(p []byte, i int64) int {
	if r.object.File() == nil || !r.known.isGood(i) {
		return 0
	}
	if n, err := r.object.ReadAt(p, r.at); err != nil || n < len(p) || !r.unchanged() {
		return 0
	}
	r.at += int64(len(p))
	return len(p)
}

// unchanged says whether the blob is in the state of which something is known. One that was put again meanwhile is not, and is none the worse.
func (r *Reader) unchanged() bool {
	now, err := stateOf(r.object)
	return err == nil && now == r.known.state
}

// load reads and verifies a chunk.
func (r *Reader) load(i int64) error {
	r.first = i * Chunk
	n := min(Chunk, r.known.state.size-r.first)
	if int64(cap(r.chunk)) < n {
		r.chunk = make([]byte, n)
	}
	buf := r.chunk[:n]
	r.chunk = r.chunk[:0]
	if n, err := r.object.ReadAt(buf, r.first); n < len(buf) {
		if errors.Is(err, io.EOF) {
			return damaged(r.digest, "it ends too soon")
		}
		return fmt.Errorf("blob %x, at %d: %w", r.digest, r.first, err)
	}
	if sha256.Sum256(buf) != [32]byte(r.known.sums[i*sha256.Size:]) {
		return damaged(r.digest, fmt.Sprintf("other bytes between %d and %d", r.first, r.first+n))
	}
	if r.unchanged() { // what is remembered is remembered of the state
		r.known.found(i)
	}
	r.chunk = buf
	return nil
}

// Seek implements io.Seeker.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.known.state.size
	default:
		return 0, fmt.Errorf("blob %x: seek from %d", r.digest, whence)
	}
	if offset < 0 {
		return 0, fmt.Errorf("blob %x: seek to %d", r.digest, offset)
	}
	r.at = offset
	return offset, nil
}

// Verified gives the file that the blob is, when each of its chunks was found right as it is now: it can go out by the kernel's own way, in which
// nobody looks whether it is changed meanwhile. Else nil. It is closed with the reader.
func (r *Reader) Verified() *os.File {
	if f := r.object.File(); f != nil && r.known.isWhole() && r.unchanged() {
		return f
	}
	return nil
}

// Close implements io.Closer.
func (r *Reader) Close() error { return r.object.Close() }
