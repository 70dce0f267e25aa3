package store_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/blob"
	"github.com/hallmark-iot/hallmark/internal/blob/files"
	"github.com/hallmark-iot/hallmark/internal/content"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

// marked is a long file of zeros, of which each 16 MiB begin with their number.
type marked struct{ at, size int64 }

const markEach = 16 << 20

func (m *marked) Read(p []byte) (int, error) {
	if m.at == m.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), m.size-m.at, markEach-m.at%markEach)]
	clear(p)
	if m.at%markEach == 0 {
		p = p[:min(len(p), copy(p, fmt.Sprintf("%08d", m.at/markEach)))]
	}
	m.at += int64(len(p))
	return len(p), nil
}

// sparse is a directory whose files have holes where they have zeros.
type sparse struct {
	files.Dir
	dir string
}

func (s sparse) Put(_ context.Context, r io.Reader, name func() (string, error)) (err error) {
	f, err := os.CreateTemp(s.dir, "upload-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf, zeros, at := make([]byte, 1<<16), make([]byte, 1<<16), int64(0)
	for {
		n, err := r.Read(buf)
		if string(buf[:n]) != string(zeros[:n]) {
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	to, err := name()
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(at), os.Rename(f.Name(), filepath.Join(s.dir, to)))
}

// A large artifact is uploaded, proposed, published, and fetched in ranges, with memory that does not depend on its size, and a range does not wait for the whole to be
// read. 64 MiB; with HALLMARK_LONG 10 GiB, of which the disk keeps what is not zero.
func TestALargeArtifact(t *testing.T) {
	size, ranges := int64(64<<20), int64(4)
	open := func(dir string) (blob.Place, error) { return files.Open(dir) }
	if os.Getenv("HALLMARK_LONG") != "" {
		size, ranges = 10<<30, 10
		open = func(dir string) (blob.Place, error) {
			d, err := files.Open(dir)
			return sparse{d, dir}, err
		}
	}
	s := newStagesOver(t, wire.ModelBlob, open)
	before := allocated()
	a, err := s.releases.Upload(t.Context(), person("builder"), "pump", "root", false, &marked{size: size})
	if err != nil || int64(a.Size) != size {
		t.Fatalf("%d bytes, %v", a.Size, err)
	}
	if n := allocated() - before; n > 32<<20 {
		t.Errorf("an upload of %d bytes allocated %d", size, n)
	}
	rel := s.published("1.0.0", func(spec *release.Spec) { spec.Components[0].Artifact = a.Digest[:] })
	s.make(devN(0), rel)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, f, err := s.releases.Open(r.Context(), access.DeviceCaller(devN(0)), "", a.Digest)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = f.Close() }()
		if err := content.Serve(w, r, f, func(_ context.Context, err error) { t.Error(err) }); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	begun, middle := time.Now(), size/2+5
	if n := get(t, server, middle, middle+1000, io.Discard); n != 1000 {
		t.Errorf("%d bytes", n)
	}
	t.Logf("1000 bytes in the middle of %d came after %s", size, time.Since(begun))
	before = allocated()
	h := sha256.New()
	for i := range ranges {
		get(t, server, i*size/ranges, (i+1)*size/ranges, h)
	}
	if [32]byte(h.Sum(nil)) != a.Digest {
		t.Error("other bytes came than were uploaded")
	}
	if n := allocated() - before; n > 32<<20 {
		t.Errorf("a download of %d bytes allocated %d", size, n)
	}
	t.Logf("all of it in %s", time.Since(begun))
}

// allocated is how much memory was ever allocated.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// get fetches the bytes from one place on, up to another.
func get(t *testing.T, s *httptest.Server, from, to int64, w io.Writer) int64 {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(w, resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusPartialContent {
		t.Fatalf("%s, %d bytes, %v", resp.Status, n, err)
	}
	return n
}
