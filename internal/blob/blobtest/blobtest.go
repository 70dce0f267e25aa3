// Package blobtest is the suite that every place for blobs passes.
//
// Under all stages.
package blobtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/blob"
	"github.com/hallmark-iot/hallmark/release"
)

// Books is a blob.Books in memory.
type Books struct {
	mu   sync.Mutex
	rows map[[32]byte]row // guarded by mu

	leaving map[[32]byte]bool // guarded by mu
}

type row struct {
	size int64
	sums [32]byte
}

// BlobSums implements blob.Books.
func (b *Books) BlobSums(_ context.Context, digest [32]byte) (int64, [32]byte, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.rows[digest]
	return r.size, r.sums, ok, nil
}

// KeepBlobSums implements blob.Books.
func (b *Books) KeepBlobSums(_ context.Context, digest [32]byte, size int64, sums [32]byte, _ time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.leaving[digest] {
		return release.ErrLeaving
	}
	if b.rows == nil {
		b.rows = map[[32]byte]row{}
	}
	b.rows[digest] = row{size, sums}
	return nil
}

// Leave has a blob leave.
func (b *Books) Leave(digest [32]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.rows, digest)
	if b.leaving == nil {
		b.leaving = map[[32]byte]bool{}
	}
	b.leaving[digest] = true
}

// Leaving implements blob.Books.
func (b *Books) Leaving(context.Context) (all [][32]byte, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for digest := range b.leaving {
		all = append(all, digest)
	}
	return all, nil
}

// Left implements blob.Books.
func (b *Books) Left(_ context.Context, digest [32]byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.leaving, digest)
	delete(b.rows, digest)
	return nil
}

// Forget forgets everything, as a database does that was lost.
func (b *Books) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rows = nil
}

// Fixture is an empty place.
type Fixture struct {
	Place blob.Place
	Again blob.Place                  // another view of the same, as another node has
	Left  func(t *testing.T) []string // everything that is in it, unfinished uploads too
	books *Books
}

// begun is a store of it that was not there before.
func (f Fixture) begun() *blob.Store { return blob.New(f.Again, f.books) }

// Run runs the suite.
func Run(t *testing.T, fresh func(t *testing.T) Fixture) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Fixture){
		"what is put is there": put, "an upload that fails leaves nothing": failed, "a damaged chunk never leaves": damagedChunk,
		"another length is refused": length, "of what has no sums they are made": noSums, "sums that were altered count for nothing": alteredSums,
		"what is put again heals": heals, "what is away is not found": away, "what was abandoned is cleared": cleared, "names stay inside": inside,
		"a range costs its chunk": costs, "many read and put at once": together, "what leaves is not put until it has": leaves,
	} {
		t.Run(name, func(t *testing.T) {
			f := fresh(t)
			f.books = &Books{}
			test(t, f)
		})
	}
}

// leaves: nothing of a blob stays in its place, sums neither, and who puts it meanwhile is told to wait.
func leaves(t *testing.T, f Fixture) {
	s, data := f.begun(), some(2*blob.Chunk+7)
	digest := keep(t, s, data)
	kept := keep(t, s, some(100))
	f.books.Leave(digest)
	var told *fault.Fault
	if _, _, err := f.begun().Put(t.Context(), bytes.NewReader(data), 1<<30); !errors.As(err, &told) || told.Code != "artifact.leaving" {
		t.Errorf("it was put while it left: %v", err)
	}
	must(t, f.begun().Sweep(t.Context()))
	must(t, f.begun().Sweep(t.Context()))
	if _, err := s.Open(t.Context(), digest); !errors.Is(err, release.ErrNotFound) {
		t.Errorf("what has left is given: %v", err)
	}
	if left := f.Left(t); len(left) != 2 {
		t.Errorf("%v are there; want a blob and its sums", left)
	}
	if keep(t, s, data) != digest {
		t.Error("another digest")
	}
	for _, d := range [][32]byte{digest, kept} {
		_, err := io.ReadAll(open(t, s, d))
		must(t, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// some bytes, the same each time.
func some(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// nameOf is where a blob lies in a place.
func nameOf(digest [32]byte) string {
	h := hex.EncodeToString(digest[:])
	return h[:2] + "/" + h[2:]
}

func keep(t *testing.T, s *blob.Store, data []byte) [32]byte {
	t.Helper()
	digest, size, err := s.Put(t.Context(), bytes.NewReader(data), int64(len(data)))
	if err != nil || size != int64(len(data)) || digest != sha256.Sum256(data) {
		t.Fatalf("%x, %d bytes, %v", digest, size, err)
	}
	return digest
}

// replace puts other bytes in the place of a file.
func replace(t *testing.T, p blob.Place, name string, data []byte) {
	t.Helper()
	must(t, p.Put(t.Context(), bytes.NewReader(data), func() (string, error) { return name, nil }))
}

func open(t *testing.T, s *blob.Store, digest [32]byte) io.ReadSeekCloser {
	t.Helper()
	r, err := s.Open(t.Context(), digest)
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r
}

// refused says that nothing is given of a blob.
func refused(t *testing.T, s *blob.Store, digest [32]byte) {
	t.Helper()
	r, err := s.Open(t.Context(), digest)
	if err == nil {
		_ = r.Close()
	}
	if !errors.Is(err, release.ErrDamaged) {
		t.Errorf("%v, want %v", err, release.ErrDamaged)
	}
}

func put(t *testing.T, f Fixture) {
	s := blob.New(f.Place, f.books)
	for _, n := range []int{1, 4096, blob.Chunk - 1, blob.Chunk, blob.Chunk + 1, 3*blob.Chunk + 17} {
		data := some(n)
		digest := keep(t, s, data)
		keep(t, s, data) // the same again is no error
		for range 2 {    // verified now, and verified before
			r := open(t, f.begun(), digest)
			for range 2 {
				if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%d bytes of %d, %v", len(got), n, err)
				}
				_, err := r.Seek(0, io.SeekStart)
				must(t, err)
			}
			must(t, iotest.TestReader(io.LimitReader(r, 64), data[:min(n, 64)]))
		}
	}
	data := some(3*blob.Chunk + 17)
	r := open(t, f.begun(), sha256.Sum256(data))
	for range 50 { // anywhere, as ranges come
		at := rand.IntN(len(data))
		_, err := r.Seek(int64(at), io.SeekStart)
		must(t, err)
		got := make([]byte, min(rand.IntN(5000), len(data)-at))
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, data[at:at+len(got)]) {
			t.Fatalf("at %d: %v", at, err)
		}
	}
	if at, err := r.Seek(-5, io.SeekEnd); err != nil || at != int64(len(data)-5) {
		t.Errorf("%d, %v", at, err)
	}
	if _, err := r.Seek(-1, io.SeekStart); err == nil {
		t.Error("it is read from before its beginning")
	}
}

func failed(t *testing.T, f Fixture) {
	s := blob.New(f.Place, f.books)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		ctx  context.Context
		r    io.Reader
		want error
	}{
		"too large": {t.Context(), bytes.NewReader(some(21 << 20)), release.ErrTooLarge},
		"empty":     {t.Context(), bytes.NewReader(nil), release.ErrEmpty},
		"broken":    {t.Context(), io.MultiReader(bytes.NewReader(some(18<<20)), iotest.ErrReader(broken)), broken},
		"cut":       {t.Context(), io.MultiReader(bytes.NewReader(some(100)), iotest.ErrReader(io.ErrUnexpectedEOF)), io.ErrUnexpectedEOF},
		"ended":     {ended, bytes.NewReader(some(100)), context.Canceled},
	} {
		if _, _, err := s.Put(c.ctx, c.r, 20<<20); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if l := f.Left(t); len(l) != 0 {
			t.Errorf("%s: left %v", name, l)
		}
	}
}

func damagedChunk(t *testing.T, f Fixture) {
	data := some(4*blob.Chunk + 9)
	digest := keep(t, blob.New(f.Place, f.books), data)
	bad := slices.Clone(data)
	bad[2*blob.Chunk+77] ^= 1
	replace(t, f.Place, nameOf(digest), bad)
	s := f.begun()
	for range 2 {
		r := open(t, s, digest)
		got, err := io.ReadAll(r)
		if !errors.Is(err, release.ErrDamaged) || !bytes.Equal(got, data[:2*blob.Chunk]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if n, err := r.Read(make([]byte, 10)); n != 0 || !errors.Is(err, release.ErrDamaged) {
			t.Errorf("%d bytes more, %v", n, err)
		}
		_, err = r.Seek(3*blob.Chunk-1, io.SeekStart)
		must(t, err)
		if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, release.ErrDamaged) {
			t.Errorf("%d bytes of it, %v", n, err)
		}
		_, err = r.Seek(3*blob.Chunk, io.SeekStart)
		must(t, err)
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data[3*blob.Chunk:]) {
			t.Errorf("behind it: %d bytes, %v", len(got), err)
		}
	}
	small := keep(t, s, some(10))
	replace(t, f.Place, nameOf(small), some(11)[1:])
	refused(t, s, small) // before anything is answered
}

func length(t *testing.T, f Fixture) {
	data := some(2 * blob.Chunk)
	for _, other := range [][]byte{data[:blob.Chunk], data[:2*blob.Chunk-1], append(slices.Clone(data), 0)} {
		digest := keep(t, blob.New(f.Place, f.books), data)
		replace(t, f.Place, nameOf(digest), other)
		refused(t, f.begun(), digest)
	}
}

// noSums: blobs that were here before there were sums, or whose database was lost.
func noSums(t *testing.T, f Fixture) {
	data := some(2*blob.Chunk + 5)
	digest := keep(t, blob.New(f.Place, f.books), data)
	for name, lose := range map[string]func(){
		"the database":   f.books.Forget,
		"the sums' file": func() { must(t, f.Place.Delete(t.Context(), nameOf(digest)+".sums")) },
		"both": func() {
			f.books.Forget()
			must(t, f.Place.Delete(t.Context(), nameOf(digest)+".sums"))
		},
	} {
		lose()
		if got, err := io.ReadAll(open(t, f.begun(), digest)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("without %s: %d bytes, %v", name, len(got), err)
		}
		_, want, ok, err := f.books.BlobSums(t.Context(), digest)
		must(t, err)
		sums, err := f.Again.Read(t.Context(), nameOf(digest)+".sums")
		if err != nil || !ok || sha256.Sum256(sums) != want {
			t.Errorf("without %s: they were not made anew: %v, %v", name, ok, err)
		}
	}
	f.books.Forget()
	data[blob.Chunk] ^= 1
	replace(t, f.Place, nameOf(digest), data)
	refused(t, f.begun(), digest)
	if _, _, ok, err := f.books.BlobSums(t.Context(), digest); ok || err != nil {
		t.Errorf("what is damaged has sums: %v, %v", ok, err)
	}
}

// alteredSums: who can write to the place alters both.
func alteredSums(t *testing.T, f Fixture) {
	data := some(2 * blob.Chunk)
	digest := keep(t, blob.New(f.Place, f.books), data)
	data[5] ^= 1
	first, second := sha256.Sum256(data[:blob.Chunk]), sha256.Sum256(data[blob.Chunk:])
	replace(t, f.Place, nameOf(digest), data)
	must(t, f.Place.Write(t.Context(), nameOf(digest)+".sums", append(first[:], second[:]...)))
	refused(t, f.begun(), digest)
}

func heals(t *testing.T, f Fixture) {
	data := some(blob.Chunk / 2)
	s := blob.New(f.Place, f.books)
	digest := keep(t, s, data)
	replace(t, f.Place, nameOf(digest), []byte("damaged"))
	refused(t, s, digest)
	keep(t, s, data)
	if got, err := io.ReadAll(open(t, s, digest)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func away(t *testing.T, f Fixture) {
	s := blob.New(f.Place, f.books)
	if _, err := s.Open(t.Context(), [32]byte{1}); !errors.Is(err, release.ErrNotFound) {
		t.Errorf("%v", err)
	}
	digest := keep(t, s, some(100))
	must(t, f.Place.Delete(t.Context(), nameOf(digest)))
	must(t, f.Place.Delete(t.Context(), nameOf(digest))) // there need be none
	if _, err := s.Open(t.Context(), digest); !errors.Is(err, release.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := f.Place.Read(t.Context(), "ab/none"); !errors.Is(err, release.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// cleared: a node that starts, or looks, ends nobody's upload that may go on.
func cleared(t *testing.T, f Fixture) {
	from, to := io.Pipe()
	done := make(chan error)
	go func() {
		_, _, err := blob.New(f.Place, f.books).Put(t.Context(), from, 100<<20)
		done <- err
	}()
	_, err := to.Write(some(33 << 20)) // it is taken when this returns: the upload has begun, and parts of it are there
	must(t, err)
	must(t, f.begun().Clear(t.Context(), time.Now()))
	if len(f.Left(t)) == 0 {
		t.Error("what is under way was cleared, or is not there before its end")
	}
	_, err = to.Write([]byte("end"))
	must(t, errors.Join(err, to.Close(), <-done))
	whole := len(f.Left(t))
	// An upload whose server was killed: what it left is cleared a day later.
	from, to = io.Pipe()
	go func() {
		_, _, err := blob.New(f.Place, f.books).Put(t.Context(), from, 100<<20)
		done <- err
	}()
	_, err = to.Write(some(33 << 20))
	must(t, err)
	must(t, f.begun().Clear(t.Context(), time.Now().Add(blob.Abandoned+time.Hour)))
	if l := f.Left(t); len(l) != whole {
		t.Errorf("left %v", l)
	}
	_ = to.CloseWithError(errors.New("killed"))
	if <-done == nil {
		t.Error("it went on")
	}
}

func inside(t *testing.T, f Fixture) {
	for _, name := range []string{"", "..", "../x", "/x", "a/../../x"} {
		_, read := f.Place.Read(t.Context(), name)
		_, opened := f.Place.Open(t.Context(), name)
		for do, err := range map[string]error{
			"write": f.Place.Write(t.Context(), name, []byte("x")), "delete": f.Place.Delete(t.Context(), name), "read": read, "open": opened,
			"put": f.Place.Put(t.Context(), bytes.NewReader([]byte("x")), func() (string, error) { return name, nil }),
		} {
			if err == nil || errors.Is(err, release.ErrNotFound) {
				t.Errorf("%s %q: %v", do, name, err)
			}
		}
	}
}

// costly counts what is read of blobs.
type costly struct {
	blob.Place
	read atomic.Int64
}

func (c *costly) Open(ctx context.Context, name string) (blob.Object, error) {
	o, err := c.Place.Open(ctx, name)
	return counted{o, &c.read}, err
}

type counted struct {
	blob.Object
	read *atomic.Int64
}

func (c counted) ReadAt(p []byte, off int64) (int, error) {
	c.read.Add(int64(len(p)))
	return c.Object.ReadAt(p, off)
}

func costs(t *testing.T, f Fixture) {
	data := some(20 * blob.Chunk)
	digest := keep(t, blob.New(f.Place, f.books), data)
	place := &costly{Place: f.Again}
	r := open(t, blob.New(place, f.books), digest)
	if n := place.read.Load(); n != 0 {
		t.Errorf("opening read %d bytes", n)
	}
	_, err := r.Seek(7*blob.Chunk+500, io.SeekStart)
	must(t, err)
	got := make([]byte, 1000)
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, data[7*blob.Chunk+500:][:1000]) {
		t.Error(err)
	}
	if n := place.read.Load(); n != blob.Chunk {
		t.Errorf("a range of 1000 bytes read %d", n)
	}
}

func together(t *testing.T, f Fixture) {
	data := some(3 * blob.Chunk)
	a, b := blob.New(f.Place, f.books), f.begun()
	digest := keep(t, a, data)
	var wg sync.WaitGroup
	for i := range 8 {
		s := []*blob.Store{a, b}[i%2]
		wg.Go(func() {
			if i < 2 {
				if _, _, err := s.Put(t.Context(), bytes.NewReader(data), int64(len(data))); err != nil {
					t.Error(err)
				}
				return
			}
			r, err := s.Open(t.Context(), digest)
			if err != nil {
				t.Error(err)
				return
			}
			got, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
}
