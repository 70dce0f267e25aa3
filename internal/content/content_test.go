package content_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/blob"
	"github.com/hallmark-iot/hallmark/internal/blob/blobtest"
	"github.com/hallmark-iot/hallmark/internal/blob/files"
	"github.com/hallmark-iot/hallmark/internal/content"
	"github.com/hallmark-iot/hallmark/release"
)

// The bytes that were asked for, or an error before anything is answered; what is found damaged later cuts the answer off and is told. Nothing damaged ever leaves.
func TestDamageIsFoundBeforeItIsServed(t *testing.T) {
	data := make([]byte, 4*blob.Chunk)
	_, _ = rand.Read(data)
	dir := t.TempDir()
	place, err := files.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	store := blob.New(place, &blobtest.Books{})
	if _, _, err := store.Put(t.Context(), bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	type outcome struct{ told, failed error }
	done := make(chan outcome, 1)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := store.Open(r.Context(), sha256.Sum256(data))
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("Content-Type", "application/octet-stream")
		var o outcome
		if o.failed = content.Serve(w, r, f, func(_ context.Context, err error) { o.told = err }); o.failed != nil {
			http.Error(w, "damaged", http.StatusServiceUnavailable)
		}
		done <- o
	})
	plain, tls := httptest.NewServer(h), httptest.NewTLSServer(h)
	defer plain.Close()
	defer tls.Close()
	ask := func(s *httptest.Server, ranges string) (int, []byte, outcome, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ranges != "" {
			req.Header.Set("Range", ranges)
		}
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, body, <-done, err
	}
	for _, s := range []*httptest.Server{plain, tls, plain, tls} { // not yet verified, verified
		if code, got, _, err := ask(s, ""); code != 200 || err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d, %d bytes, %v", s.URL, code, len(got), err)
		}
		if code, got, _, err := ask(s, "bytes=2000000-2000999"); code != 206 || err != nil || !bytes.Equal(got, data[2000000:2001000]) {
			t.Errorf("%s: %d, %d bytes, %v", s.URL, code, len(got), err)
		}
	}
	damage(t, dir, 2*blob.Chunk+5)
	for _, s := range []*httptest.Server{plain, tls} {
		for ranges, c := range map[string]struct {
			code int
			want []byte // whole, of an answer that is not cut off
		}{
			"":                        {200, nil},
			"bytes=0-99":              {206, data[:100]},
			"bytes=2097152-2097200":   {503, nil},
			"bytes=2097157-":          {503, nil},
			"bytes=-1500000":          {503, nil},
			"bytes=-1000":             {206, data[len(data)-1000:]},
			"bytes=3145728-3145800":   {206, data[3145728:3145801]},
			"bytes=1000000-2500000":   {206, nil},
			"bytes=9000000-":          {416, nil},
			"bytes=0-9, 2097152-2100": {416, nil},
		} {
			code, got, o, err := ask(s, ranges)
			if code != c.code {
				t.Errorf("%q: %d, want %d", ranges, code, c.code)
			}
			switch {
			case code == 503:
				if !errors.Is(o.failed, release.ErrDamaged) {
					t.Errorf("%q: %v", ranges, o.failed)
				}
			case code == 416:
			case c.want != nil:
				if err != nil || !bytes.Equal(got, c.want) {
					t.Errorf("%q: %d bytes, %v", ranges, len(got), err)
				}
			default:
				if err == nil || !bytes.Contains(data[:2*blob.Chunk], got) || !errors.Is(o.told, release.ErrDamaged) {
					t.Errorf("%q: %d bytes, %v, told %v", ranges, len(got), err, o.told)
				}
			}
		}
	}
}

// damage alters a byte of the one blob in a directory.
func damage(t *testing.T, dir string, at int64) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "??", "*[0-9a-f]"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if filepath.Ext(p) != "" {
			continue
		}
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		data[at] ^= 1
		if err := errors.Join(os.WriteFile(p+"~", data, 0o600), os.Rename(p+"~", p)); err != nil { // another file: its state is another for sure
			t.Fatal(err)
		}
		return
	}
	t.Fatal("there is no blob")
}
