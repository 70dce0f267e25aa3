package files_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/hallmark-iot/hallmark/internal/blob/files"
	"github.com/hallmark-iot/hallmark/release"
)

func open(t *testing.T, dir string) *files.Store {
	t.Helper()
	s, err := files.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// left lists every file in the directory.
func left(t *testing.T, dir string) (out []string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, p)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWhatIsPutIsThereByItsDigest(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	data := bytes.Repeat([]byte("hallmark"), 100_000)
	for range 2 { // the same again is no error
		digest, size, err := s.Put(t.Context(), iotest.OneByteReader(bytes.NewReader(data[:4096])), 4096)
		if err != nil || size != 4096 || digest != sha256.Sum256(data[:4096]) {
			t.Fatalf("%x, %d, %v", digest, size, err)
		}
	}
	digest, _, err := s.Put(t.Context(), bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := open(t, dir).Open(t.Context(), digest) // after a restart
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if all, err := s.Digests(); err != nil || len(all) != 2 {
		t.Errorf("%x, %v", all, err)
	}
}

func TestAnUploadThatFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		r    io.Reader
		want error
	}{
		"too large": {t.Context(), strings.NewReader("12345"), release.ErrTooLarge},
		"empty":     {t.Context(), strings.NewReader(""), release.ErrEmpty},
		"broken":    {t.Context(), io.MultiReader(strings.NewReader("12"), iotest.ErrReader(io.ErrUnexpectedEOF)), io.ErrUnexpectedEOF},
		"ended":     {ended, strings.NewReader("12"), context.Canceled},
	} {
		if _, _, err := s.Put(c.ctx, c.r, 4); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if l := left(t, dir); len(l) != 0 {
			t.Errorf("%s: left %v", name, l)
		}
	}
	half := filepath.Join(dir, "new", "upload-1")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(half, long, long); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if l := left(t, dir); len(l) != 0 {
		t.Errorf("what a crash left is still there: %v", l)
	}
}

// Another node that starts on the same directory leaves what is being uploaded alone.
func TestANodeThatStartsEndsNobodysUpload(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	from, to := io.Pipe()
	done := make(chan error)
	go func() {
		_, _, err := s.Put(t.Context(), from, 100)
		done <- err
	}()
	if _, err := to.Write([]byte("half ")); err != nil { // it is taken when this returns: the upload has begun
		t.Fatal(err)
	}
	open(t, dir)
	if _, err := to.Write([]byte("and half")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(to.Close(), <-done); err != nil {
		t.Fatal(err)
	}
	f, err := s.Open(t.Context(), sha256.Sum256([]byte("half and half")))
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}

func TestAlteredBytesAreRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	digest, _, err := s.Put(t.Context(), strings.NewReader("program"), 100)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(left(t, dir)[0], []byte("progrom"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), digest); !errors.Is(err, release.ErrDamaged) {
		t.Errorf("%v", err)
	}
	if _, err := s.Open(t.Context(), [32]byte{1}); !errors.Is(err, release.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// Size and time of writing are what anybody who alters a file can set back.
func TestAlteredBytesWithTheOldTimeAreRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	digest, _, err := s.Put(t.Context(), strings.NewReader("program"), 100)
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Open(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	path := left(t, dir)[0]
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // a tick of the file system's clock
	if err := errors.Join(os.WriteFile(path, []byte("progrom"), 0o600), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), digest); !errors.Is(err, release.ErrDamaged) {
		t.Errorf("%v", err)
	}
}

// What takes longer to verify than anybody waits comes all the same: who asks again waits for the same reading.
func TestALargeBlobComesToWhoAsksAgain(t *testing.T) {
	dir := t.TempDir()
	const size = 256 << 20
	digest, _, err := open(t, dir).Put(t.Context(), io.LimitReader(zeros{}, size), size)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, dir) // after a restart
	for begun := time.Now(); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		f, err := s.Open(ctx, digest)
		cancel()
		if err == nil {
			_ = f.Close()
			return
		}
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 20*time.Second {
			t.Fatal(err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
