package files_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/blob"
	"github.com/hallmark-iot/hallmark/internal/blob/blobtest"
	"github.com/hallmark-iot/hallmark/internal/blob/files"
	"github.com/hallmark-iot/hallmark/release"
)

func place(t *testing.T, dir string) files.Dir {
	t.Helper()
	d, err := files.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// left lists every file in the directory.
func left(t *testing.T, dir string) (out []string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, p)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestADirectoryKeepsBlobs(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blobtest.Fixture {
		t.Helper()
		dir := t.TempDir()
		return blobtest.Fixture{Place: place(t, dir), Again: place(t, dir), Left: func(t *testing.T) []string {
			t.Helper()
			return left(t, dir)
		}}
	})
}

// kept is a store of a directory with one blob of n bytes in it, and the path of its file.
func kept(t *testing.T, n int) (s *blob.Store, digest [32]byte, data []byte, path string) {
	t.Helper()
	dir := t.TempDir()
	s = blob.New(place(t, dir), &blobtest.Books{})
	data = bytes.Repeat([]byte("program "), n/8)
	digest, _, err := s.Put(t.Context(), bytes.NewReader(data), int64(n))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range left(t, dir) {
		if !strings.HasSuffix(p, ".sums") {
			path = p
		}
	}
	return s, digest, data, path
}

func open(t *testing.T, s *blob.Store, digest [32]byte) *blob.Reader {
	t.Helper()
	r, err := s.Open(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r.(*blob.Reader)
}

// alter writes one byte of a file where it lies, and sets back the time of writing, which whoever alters a file can.
func alter(t *testing.T, path string, at int64) {
	t.Helper()
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("X"), at)
	if err := errors.Join(err, f.Close(), os.Chtimes(path, before.ModTime(), before.ModTime())); err != nil {
		t.Fatal(err)
	}
}

// tick waits until the file system's clock has gone on: what is changed now has another time of change.
func tick(t *testing.T) {
	t.Helper()
	p := filepath.Join(t.TempDir(), "clock")
	stamp := func() time.Time {
		if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime()
	}
	for begun := stamp(); !stamp().After(begun); {
		time.Sleep(time.Millisecond)
	}
}

func TestBytesThatWereAlteredAfterTheyWereVerifiedAreRefused(t *testing.T) {
	s, digest, data, path := kept(t, 2*blob.Chunk)
	whole, begun := open(t, s, digest), open(t, s, digest)
	if got, err := io.ReadAll(whole); err != nil || !bytes.Equal(got, data) {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(begun, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	tick(t)
	alter(t, path, 100)
	if n, err := begun.Read(make([]byte, 10)); n != 0 || !errors.Is(err, release.ErrDamaged) {
		t.Errorf("a reader that had begun: %d bytes, %v", n, err)
	}
	if whole.Verified() != nil {
		t.Error("the file goes out by itself")
	}
	if got, err := io.ReadAll(open(t, s, digest)); len(got) != 0 || !errors.Is(err, release.ErrDamaged) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// What was verified goes out by itself, and nothing else.
func TestAFileGoesOutByItselfOnceItWasVerifiedWhole(t *testing.T) {
	s, digest, _, _ := kept(t, 2*blob.Chunk)
	r := open(t, s, digest)
	if _, err := io.ReadFull(r, make([]byte, blob.Chunk)); err != nil {
		t.Fatal(err)
	}
	if r.Verified() != nil {
		t.Error("half of it was verified")
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	if r.Verified() == nil || open(t, s, digest).Verified() == nil {
		t.Error("all of it was verified")
	}
}

// What has no sums takes long to verify the first time, longer perhaps than anybody waits: who asks again waits for the same reading.
func TestALargeBlobWithoutSumsComesToWhoAsksAgain(t *testing.T) {
	dir := t.TempDir()
	const size = 256 << 20
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(zeros{}, size)); err != nil {
		t.Fatal(err)
	}
	digest := [32]byte(h.Sum(nil))
	s := blob.New(place(t, dir), &blobtest.Books{})
	name := hex.EncodeToString(digest[:])
	path := filepath.Join(dir, name[:2], name[2:])
	if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o750), os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil { // sparse
		t.Fatal(err)
	}
	gaveUp := 0
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		f, err := s.Open(ctx, digest)
		cancel()
		if err == nil {
			_ = f.Close()
			break
		}
		if gaveUp++; !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	t.Logf("asked %d times in vain", gaveUp)
}

// A disk that is full is said, and takes nothing with it.
func TestAFullDiskKeepsNothingHalf(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := blob.New(place(t, dir), &blobtest.Books{})
	there, _, err := s.Put(t.Context(), io.LimitReader(zeros{}, 5<<20), 5<<20)
	if err != nil {
		t.Fatal(err)
	}
	before := left(t, dir)
	_, _, err = s.Put(t.Context(), io.LimitReader(zeros{}, 6<<20), 6<<20)
	if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != "artifact.space" || f.Kind != fault.Unavailable || f.Remedy == "" {
		t.Errorf("%v", err)
	}
	if now := left(t, dir); !slices.Equal(now, before) {
		t.Errorf("left %v, had %v", now, before)
	}
	if n, err := io.Copy(io.Discard, open(t, s, there)); err != nil || n != 5<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
