// Package files keeps blobs in a directory, each under the digest of its bytes.
//
// Under all stages. What it guarantees: a blob is in its place whole and durable, or not at all; what it hands out has been
// read back and hashed since it was last touched, so that a damaged or altered file is refused instead of served. It trusts
// the file system to rename atomically, and nobody who can write to its directory.
package files

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/release"
)

// Store is a directory of blobs: ab/cdef… by the hex of the digest. It is safe for concurrent use.
type Store struct {
	dir     string
	reading singleflight.Group // reads a file to verify it once, however many ask

	mu       sync.Mutex
	verified map[[32]byte]seen // files found to be what they are named; guarded by mu
}

// seen is the state of a file in which it was verified: another state must be verified anew. Size and time of writing can be set back by
// whoever writes; the time of the change cannot, but by who sets the machine's clock.
type seen struct {
	size    int64
	mod     time.Time
	file    uint64 // its number in the file system
	changed int64  // when its bytes or what is known of it changed, ns
}

// abandoned is how long nothing was written to an upload that nobody goes on with. A server that starts cannot know whose an upload is:
// other nodes have the same directory.
const abandoned = 24 * time.Hour

// Open makes the directory if need be, and clears away what interrupted uploads left a day ago or longer.
func Open(dir string) (*Store, error) {
	if err := durable.MkdirAll(filepath.Join(dir, "new"), 0o750); err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	if err := clearAway(filepath.Join(dir, "new"), time.Now().Add(-abandoned)); err != nil {
		return nil, fmt.Errorf("blobs: clear an unfinished upload: %w", err)
	}
	return &Store{dir: dir, verified: map[[32]byte]seen{}}, nil
}

// clearAway removes the files that were last written before a time. One that is gone meanwhile was placed, or cleared by another node.
func clearAway(dir string, before time.Time) error {
	left, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range left {
		info, err := f.Info()
		if errors.Is(err, os.ErrNotExist) || err == nil && !info.ModTime().Before(before) {
			continue
		}
		if err := errors.Join(err, remove(filepath.Join(dir, f.Name()))); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) path(digest [32]byte) string {
	name := hex.EncodeToString(digest[:])
	return filepath.Join(s.dir, name[:2], name[2:])
}

// Put implements release.Blobs.
func (s *Store) Put(ctx context.Context, r io.Reader, limit int64) (digest [32]byte, size int64, err error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "new"), "upload-*")
	if err != nil {
		return digest, 0, fmt.Errorf("blobs: %w", err)
	}
	open := true
	defer func() {
		if open {
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			err = errors.Join(err, remove(f.Name()))
		}
	}()
	h := sha256.New()
	size, err = io.Copy(io.MultiWriter(f, h), io.LimitReader(reader{ctx, r}, limit+1))
	if err != nil {
		return digest, 0, fmt.Errorf("blobs: upload: %w", err)
	}
	if size > limit {
		return digest, 0, release.ErrTooLarge
	}
	if size == 0 {
		return digest, 0, release.ErrEmpty
	}
	digest = [32]byte(h.Sum(nil))
	if err := errors.Join(f.Chmod(0o640), f.Sync()); err != nil {
		return digest, 0, fmt.Errorf("blobs: %w", err)
	}
	open = false
	if err := f.Close(); err != nil {
		return digest, 0, fmt.Errorf("blobs: %w", err)
	}
	return digest, size, s.place(f.Name(), digest)
}

// place moves a finished file to its name. A file that is there already may be damaged, so the new one replaces it.
func (s *Store) place(tmp string, digest [32]byte) error {
	path := s.path(digest)
	if err := durable.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return fmt.Errorf("blobs: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("blobs: %w", err)
	}
	return durable.SyncDir(filepath.Dir(path))
}

// Open implements release.Blobs. The first one since the file was touched reads it whole. Whoever does not wait for that ends only their
// own waiting: who asks again joins the same reading, and so a large blob comes to those who give up early.
func (s *Store) Open(ctx context.Context, digest [32]byte) (io.ReadSeekCloser, error) {
	for range 3 {
		f, now, err := s.file(digest)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		known := s.verified[digest] == now
		s.mu.Unlock()
		if known {
			return f, nil
		}
		if err := errors.Join(f.Close(), s.await(ctx, digest)); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("blob %x: it is written to while it is read: %w", digest, release.ErrDamaged)
}

func (s *Store) file(digest [32]byte) (*os.File, seen, error) {
	f, err := os.Open(s.path(digest))
	if errors.Is(err, os.ErrNotExist) {
		return nil, seen{}, fmt.Errorf("blob %x: %w", digest, release.ErrNotFound)
	}
	if err != nil {
		return nil, seen{}, fmt.Errorf("blob %x: %w", digest, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, seen{}, errors.Join(fmt.Errorf("blob %x: %w", digest, err), f.Close())
	}
	return f, seenAs(info), nil
}

// await waits for the file to be verified, by whoever began to.
func (s *Store) await(ctx context.Context, digest [32]byte) error {
	done := s.reading.DoChan(string(digest[:]), func() (any, error) { return nil, s.verify(digest) })
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return fmt.Errorf("blob %x is being verified: %w", digest, ctx.Err())
	}
}

// verify reads the file whole, and keeps the state in which its bytes had the digest.
func (s *Store) verify(digest [32]byte) error {
	f, now, err := s.file(digest)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("blob %x: %w", digest, err)
	}
	if [32]byte(h.Sum(nil)) != digest {
		return fmt.Errorf("blob %x: %w", digest, release.ErrDamaged)
	}
	s.mu.Lock()
	s.verified[digest] = now // as it was before it was read: what was written meanwhile is another state
	s.mu.Unlock()
	return nil
}

// Digests lists what is there, for a check of the whole store.
func (s *Store) Digests() ([][32]byte, error) {
	var out [][32]byte
	dirs, err := filepath.Glob(filepath.Join(s.dir, "[0-9a-f][0-9a-f]", "*"))
	if err != nil {
		return nil, err
	}
	for _, p := range dirs {
		raw, err := hex.DecodeString(filepath.Base(filepath.Dir(p)) + filepath.Base(p))
		if err != nil || len(raw) != 32 || strings.ToLower(filepath.Base(p)) != filepath.Base(p) {
			return nil, fmt.Errorf("blobs: %s is not named by a digest", p)
		}
		out = append(out, [32]byte(raw))
	}
	return out, nil
}

func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// reader ends with its context, so that a stalled upload does not outlive its request.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
