// Package blob keeps bytes under their digest, and gives out none that were not held against it.
//
// Under all stages. Where the bytes lie is a Place: a directory (files), or a bucket (s3). Beside each blob lies a file of sums, the SHA-256 of
// each of its chunks, made while it was put; the digest of that file is in the database. What is read is held against it chunk by chunk, so
// that nobody waits for the whole of a large blob to be read, and damage is found before the damaged chunk leaves.
//
// What it guarantees: a blob is in its place whole and durable, or not at all; a chunk that is not what was put is never given out. It trusts the
// database for the digest of the sums, and nobody who can write to the place.
package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/release"
)

// Chunk is what is verified at once, in bytes: little enough to hold in memory for each reader, and enough that the sums of 16 GiB are half a MiB.
const Chunk = 1 << 20

// Abandoned is how long an upload may last. A server that starts cannot know whose an upload is: other nodes have the same place.
const Abandoned = 24 * time.Hour

// Place is where blobs lie, by names that are slash-separated paths. It is safe for concurrent use. Not there is release.ErrNotFound.
type Place interface {
	// Put keeps what r gives, whole and durable or not at all, under the name that is asked for when r is at its end. What r or name fails with is its error.
	Put(ctx context.Context, r io.Reader, name func() (string, error)) error
	// Write keeps a small file, in the place of what may be there, and Read gives it.
	Write(ctx context.Context, name string, data []byte) error
	Read(ctx context.Context, name string) ([]byte, error)
	// Open gives a blob to read from, for as long as ctx lasts.
	Open(ctx context.Context, name string) (Object, error)
	// Delete removes a file; there need be none.
	Delete(ctx context.Context, name string) error
	// Clear removes what uploads left that began before a time and never came to their end.
	Clear(ctx context.Context, before time.Time) error
}

// Object is a blob of a place, as it was when it was opened.
type Object interface {
	io.ReaderAt
	io.Closer
	Size() int64
	// File is the file that it is; nil: none, and what was read once may be other bytes the next time.
	File() *os.File
}

// Books remembers the digests of the sums.
type Books interface {
	// BlobSums gives the size of a blob and the digest of its sums; false: it is not known.
	BlobSums(ctx context.Context, digest [32]byte) (size int64, sums [32]byte, ok bool, err error)
	// KeepBlobSums replaces what is known, and notes when; release.ErrLeaving while the blob leaves its place.
	KeepBlobSums(ctx context.Context, digest [32]byte, size int64, sums [32]byte, at time.Time) error
	// Leaving gives some of the blobs that are to leave their place, because nothing names them any more.
	Leaving(ctx context.Context) ([][32]byte, error)
	// Left says that one has: the same bytes may be put again.
	Left(ctx context.Context, digest [32]byte) error
}

// Store keeps blobs in a place. It implements release.Blobs and is safe for concurrent use.
type Store struct {
	place   Place
	books   Books
	reading singleflight.Group // reads a blob whole that has no sums, once, however many ask

	mu    sync.Mutex
	known map[[32]byte]*known // guarded by mu; of at most maxKnown blobs
}

// maxKnown bounds what is remembered: 33 bytes for each MiB of a blob. What is forgotten is found again.
const maxKnown = 4096

// New makes a store of a place.
func New(place Place, books Books) *Store {
	return &Store{place: place, books: books, known: map[[32]byte]*known{}}
}

func path(digest [32]byte) string {
	name := hex.EncodeToString(digest[:])
	return name[:2] + "/" + name[2:]
}

const sumsFile = ".sums"

// Put implements release.Blobs.
func (s *Store) Put(ctx context.Context, r io.Reader, limit int64) (digest [32]byte, size int64, err error) {
	in := &incoming{ctx: ctx, r: r, limit: limit, whole: sha256.New()}
	var sums []byte
	err = s.place.Put(ctx, in, func() (string, error) {
		if digest, sums, err = in.end(); err != nil {
			return "", err
		}
		// Noted before it is there: from then on nobody removes it, and who does at this moment may not find it. A blob that is there has its sums.
		if err := s.books.KeepBlobSums(ctx, digest, in.size, sha256.Sum256(sums), time.Now()); err != nil {
			return "", err
		}
		return path(digest), s.place.Write(ctx, path(digest)+sumsFile, sums)
	})
	if errors.Is(err, release.ErrLeaving) {
		return [32]byte{}, 0, fault.Newf(fault.Unavailable, "artifact.leaving", "the same bytes were deleted here a moment ago, as nothing named them: %w", err).With("upload the file again in a minute, when they are gone")
	}
	if err != nil {
		return [32]byte{}, 0, fmt.Errorf("blobs: upload: %w", err)
	}
	return digest, in.size, nil
}

// Open implements release.Blobs. It reads nothing of a blob that has its sums, but for one of a single chunk: that is verified at once.
func (s *Store) Open(ctx context.Context, digest [32]byte) (io.ReadSeekCloser, error) {
	for range 3 {
		r, err := s.open(ctx, digest)
		if !errors.Is(err, errNoSums) {
			return r, err
		}
		if err := s.await(ctx, digest); err != nil {
			return nil, err
		}
	}
	return nil, damaged(digest, "it is written to while it is read")
}

// open gives a blob that has its sums; errNoSums.
func (s *Store) open(ctx context.Context, digest [32]byte) (_ io.ReadSeekCloser, err error) {
	o, err := s.place.Open(ctx, path(digest))
	if err != nil {
		return nil, fmt.Errorf("blob %x: %w", digest, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Close())
		}
	}()
	now, err := stateOf(o)
	if err != nil {
		return nil, fmt.Errorf("blob %x: %w", digest, err)
	}
	k, err := s.knownOf(ctx, digest, now)
	if err != nil {
		return nil, err
	}
	r := &Reader{object: o, known: k, digest: digest}
	if len(k.sums) == sha256.Size {
		return r, r.load(0)
	}
	return r, nil
}

// errNoSums: what a blob's chunks should be is not known.
var errNoSums = errors.New("without sums")

// knownOf gives what is known of a blob in a state. What was found of it in another one counts no more.
func (s *Store) knownOf(ctx context.Context, digest [32]byte, now state) (*known, error) {
	s.mu.Lock()
	k := s.known[digest]
	s.mu.Unlock()
	if k != nil && k.state == now {
		return k, nil
	}
	sums, err := s.sums(ctx, digest, now.size)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.known[digest]; k != nil && k.state == now { // another reader was first
		return k, nil
	}
	k = newKnown(now, sums)
	s.keep(digest, k)
	return k, nil
}

// keep remembers what is known of a blob; mu is held.
func (s *Store) keep(digest [32]byte, k *known) {
	for of := range s.known { // any of them
		if len(s.known) < maxKnown {
			break
		}
		delete(s.known, of)
	}
	s.known[digest] = k
}

// sums reads the sums of a blob.
func (s *Store) sums(ctx context.Context, digest [32]byte, size int64) ([]byte, error) {
	kept, want, ok, err := s.books.BlobSums(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("blob %x: its sums: %w", digest, err)
	}
	if !ok {
		return nil, errNoSums
	}
	if kept != size {
		return nil, damaged(digest, fmt.Sprintf("it has %d bytes, and had %d", size, kept))
	}
	sums, err := s.place.Read(ctx, path(digest)+sumsFile)
	if err != nil && !errors.Is(err, release.ErrNotFound) {
		return nil, fmt.Errorf("blob %x: its sums: %w", digest, err)
	}
	if sha256.Sum256(sums) != want || len(sums) != chunks(size)*sha256.Size {
		return nil, errNoSums // lost or damaged: they are made anew of what is found whole
	}
	return sums, nil
}

// await waits for the sums of a blob that has none, whoever began to make them. Whoever does not wait for that ends only their own waiting: who
// asks again joins the same reading, and so a large blob comes to those who give up early.
func (s *Store) await(ctx context.Context, digest [32]byte) error {
	done := s.reading.DoChan(string(digest[:]), func() (any, error) {
		return nil, s.verify(context.WithoutCancel(ctx), digest)
	})
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return fmt.Errorf("blob %x is being verified: %w", digest, ctx.Err())
	}
}

// verify reads a blob whole, and makes its sums if it is what it is named by.
func (s *Store) verify(ctx context.Context, digest [32]byte) (err error) {
	o, err := s.place.Open(ctx, path(digest))
	if err != nil {
		return fmt.Errorf("blob %x: %w", digest, err)
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	now, err := stateOf(o) // before it is read: what is written meanwhile is another state
	if err != nil {
		return fmt.Errorf("blob %x: %w", digest, err)
	}
	in := &incoming{ctx: ctx, r: io.NewSectionReader(o, 0, now.size), limit: now.size, whole: sha256.New()}
	if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{in}, make([]byte, Chunk)); err != nil {
		return fmt.Errorf("blob %x: %w", digest, err)
	}
	got, sums, err := in.end()
	if err != nil {
		return damaged(digest, "read to its end it is no blob: "+err.Error())
	}
	if got != digest {
		return damaged(digest, "it is another file")
	}
	k := newKnown(now, sums)
	for i := range k.good {
		k.found(int64(i))
	}
	s.mu.Lock()
	s.keep(digest, k)
	s.mu.Unlock()
	// It was found right, and is given out. That its sums could not be kept, on a full disk, costs the next start another reading, and no more.
	if s.place.Write(ctx, path(digest)+sumsFile, sums) == nil {
		_ = s.books.KeepBlobSums(ctx, digest, now.size, sha256.Sum256(sums), time.Now())
	}
	return nil
}

// Clear removes what uploads left that were never ended.
func (s *Store) Clear(ctx context.Context, now time.Time) error {
	if err := s.place.Clear(ctx, now.Add(-Abandoned)); err != nil {
		return fmt.Errorf("blobs: clear unfinished uploads: %w", err)
	}
	return nil
}

// Sweep removes the blobs that are to leave. Of an instance's nodes one does at a time: what was put again since another node's removal began would go with it.
func (s *Store) Sweep(ctx context.Context) error {
	for {
		all, err := s.books.Leaving(ctx)
		if err != nil || len(all) == 0 {
			return err
		}
		for _, digest := range all {
			err := errors.Join(s.place.Delete(ctx, path(digest)), s.place.Delete(ctx, path(digest)+sumsFile))
			if err == nil {
				err = s.books.Left(ctx, digest)
			}
			if err != nil {
				return fmt.Errorf("blob %x: remove it: %w", digest, err)
			}
			s.mu.Lock()
			delete(s.known, digest)
			s.mu.Unlock()
		}
	}
}

// damaged is what is said of a blob that is not what it is named by.
func damaged(digest [32]byte, why string) error {
	return fault.Newf(fault.Unavailable, "artifact.damaged", "what is kept as %x cannot be given out: %s: %w", digest, why, release.ErrDamaged).With("upload the file again: it takes the place of the damaged one")
}

func chunks(size int64) int { return int((size + Chunk - 1) / Chunk) }
