package forms_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/agent/forms"
	makedelta "github.com/hallmark-iot/hallmark/release/delta"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/delta"
)

// world is a device with an old image and a server with a new one, and a delta between them.
type world struct {
	old, image []byte
	c          wire.Component
	form       wire.Form
	at         map[string][]byte // what the server has, by digest
	sent       map[string]int    // bytes read of each
	opened     map[string]int
	breaks     func(digest string, offset, n int64) bool // the line, behind n bytes of an answer; nil: never
}

var errLine = errors.New("the line broke")

func newWorld(t testing.TB) *world {
	t.Helper()
	random := rand.NewChaCha8([32]byte{7})
	old := make([]byte, 3*delta.Segment+1000)
	random.Read(old)
	image := append(bytes.Clone(old[5000:]), "and something new"...)
	for i := 0; i < len(image)-10_000; i += 200_000 { // much the same, with something new in between
		random.Read(image[i : i+9000])
	}
	w := &world{old: old, image: image, at: map[string][]byte{}, sent: map[string]int{}, opened: map[string]int{}}
	sum := w.put(image)
	w.c = wire.Component{Name: "app", Digest: sum, Size: uint64(len(image))}
	var d bytes.Buffer
	if err := makedelta.Make(t.Context(), old, image, &d); err != nil {
		t.Fatal(err)
	}
	w.use(d.Bytes())
	return w
}

func (w *world) put(b []byte) []byte {
	sum := sha256.Sum256(b)
	w.at[hex.EncodeToString(sum[:])] = b
	return sum[:]
}

// use has the device told of a delta.
func (w *world) use(d []byte) {
	from := sha256.Sum256(w.old)
	w.form = wire.Form{Component: w.c.Digest, Kind: wire.FormDelta, Digest: w.put(d), Size: uint64(len(d)), From: from[:]}
}

func (w *world) fetch(_ context.Context, digest []byte, offset int64) (io.ReadCloser, error) {
	name := hex.EncodeToString(digest)
	w.opened[name]++
	b, ok := w.at[name]
	if !ok {
		return nil, errors.New("404")
	}
	if w.breaks != nil && w.breaks(name, offset, 0) {
		return nil, errLine
	}
	return io.NopCloser(&counted{w: w, name: name, r: b[offset:], from: offset}), nil
}

type counted struct {
	w       *world
	name    string
	r       []byte
	from, n int64
}

func (c *counted) Read(p []byte) (int, error) {
	if c.w.breaks != nil && c.w.breaks(c.name, c.from, c.n) {
		return 0, errLine
	}
	if len(c.r) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 4096)], c.r)
	c.r, c.n = c.r[n:], c.n+int64(n)
	c.w.sent[c.name] += n
	return n, nil
}

func (w *world) running(digest []byte) (io.ReaderAt, bool) {
	sum := sha256.Sum256(w.old)
	return bytes.NewReader(w.old), bytes.Equal(digest, sum[:])
}

func (w *world) source(all ...wire.Form) *forms.Source { return forms.New(w.fetch, w.running, all) }

func (w *world) whole() int  { return w.sent[hex.EncodeToString(w.c.Digest)] }
func (w *world) formed() int { return w.sent[hex.EncodeToString(w.form.Digest)] }

// stage reads a component as a boot manager does: what came stands, and it comes back for the rest.
func stage(t interface{ Context() context.Context }, s *forms.Source, c wire.Component, from int64, tries int) (got []byte, err error) {
	for range tries {
		var r io.ReadCloser
		if r, err = s.Open(t.Context(), c, from+int64(len(got))); err != nil {
			continue
		}
		var more []byte
		more, err = io.ReadAll(r)
		got = append(got, more...)
		if cerr := r.Close(); err == nil && cerr == nil {
			return got, nil
		}
	}
	return got, fmt.Errorf("after %d tries: %w", tries, err)
}

func TestADeltaIsFetchedInsteadOfTheComponent(t *testing.T) {
	w := newWorld(t)
	got, err := stage(t, w.source(w.form), w.c, 0, 1)
	if err != nil || !bytes.Equal(got, w.image) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if w.whole() != 0 || w.formed() != int(w.form.Size) {
		t.Errorf("%d bytes of the component were fetched, and %d of a delta of %d", w.whole(), w.formed(), w.form.Size)
	}
}

func TestFromAnyOffsetOn(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.Int64Range(0, int64(w.c.Size)).Draw(t, "offset")
		clear(w.sent)
		got, err := stage(t, w.source(w.form), w.c, from, 1)
		if err != nil || !bytes.Equal(got, w.image[from:]) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if w.whole() != 0 {
			t.Fatalf("%d bytes of the component were fetched", w.whole())
		}
	})
}

// A line that breaks anywhere costs the segment that it broke in, and no more.
func TestALineThatBreaksGoesOn(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		places := rapid.SliceOfNDistinct(rapid.Int64Range(0, int64(w.form.Size)), 0, 2, rapid.ID).Draw(t, "breaks")
		clear(w.sent)
		w.breaks = func(digest string, offset, n int64) bool {
			for i, p := range places {
				if digest == hex.EncodeToString(w.form.Digest) && p >= offset && offset+n >= p {
					places[i] = -1
					return true
				}
			}
			return false
		}
		got, err := stage(t, w.source(w.form), w.c, 0, 5)
		if err != nil || !bytes.Equal(got, w.image) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	})
	w.breaks = nil
}

// Whatever is wrong with a form, the component comes whole, and only what is missing of it.
func TestWhatIsWrongWithAFormCostsTheWholeComponent(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, w *world)
		most   int // bytes of the component that may be fetched
	}{
		"it is not there":             {func(_ *testing.T, w *world) { delete(w.at, hex.EncodeToString(w.form.Digest)) }, 1 << 30},
		"it is no delta":              {func(_ *testing.T, w *world) { w.use([]byte("something else, and quite long enough")) }, 1 << 30},
		"it is empty":                 {func(_ *testing.T, w *world) { w.use(nil) }, 1 << 30},
		"it is of another kind":       {func(_ *testing.T, w *world) { w.form.Kind = "delta2" }, 1 << 30},
		"it is of what does not run":  {func(_ *testing.T, w *world) { w.form.From = make([]byte, 32) }, 1 << 30},
		"it is of another component":  {func(_ *testing.T, w *world) { w.form.Component = make([]byte, 32) }, 1 << 30},
		"it says that of another old": {func(t *testing.T, w *world) { w.old = append(w.old, 1); w.form.From = sum(w.old) }, 1 << 30},
		"it gives another image":      {func(t *testing.T, w *world) { w.use(deltaOf(t, w.old, append(slices.Clip(w.image), 1))) }, 1 << 30},
		"it ends in its second half": {func(_ *testing.T, w *world) {
			d := w.at[hex.EncodeToString(w.form.Digest)]
			w.use(d[:len(d)*2/3])
		}, 2*delta.Segment + 1000},
		"the last segment is damaged": {func(_ *testing.T, w *world) {
			d := bytes.Clone(w.at[hex.EncodeToString(w.form.Digest)])
			d[len(d)-100] ^= 1
			w.use(d)
		}, delta.Segment},
		"the line breaks there each time": {func(_ *testing.T, w *world) {
			w.breaks = func(digest string, _, n int64) bool { return digest == hex.EncodeToString(w.form.Digest) && n > 0 }
		}, 1 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.change(t, w)
			s := w.source(w.form)
			got, err := stage(t, s, w.c, 0, 4)
			if err != nil || !bytes.Equal(got, w.image) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if w.whole() == 0 || w.whole() > c.most {
				t.Errorf("%d bytes of the component were fetched, at most %d", w.whole(), c.most)
			}
			before := w.opened[hex.EncodeToString(w.form.Digest)]
			if _, err := stage(t, s, w.c, 0, 1); err != nil || w.opened[hex.EncodeToString(w.form.Digest)] != before {
				t.Errorf("it was tried once more, %v", err)
			}
		})
	}
}

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

func deltaOf(t *testing.T, old, image []byte) []byte {
	var d bytes.Buffer
	if err := makedelta.Make(t.Context(), old, image, &d); err != nil {
		t.Fatal(err)
	}
	return d.Bytes()
}

// The old image may be damaged in flash since the start: nothing that came of that is given.
func TestADamagedOldImageCostsTheRestOfTheComponent(t *testing.T) {
	w := newWorld(t)
	digest := sha256.Sum256(w.old)
	damaged := bytes.Clone(w.old)
	damaged[delta.Segment+10_000] ^= 1
	s := forms.New(w.fetch, func(d []byte) (io.ReaderAt, bool) { return bytes.NewReader(damaged), bytes.Equal(d, digest[:]) }, []wire.Form{w.form})
	got, err := stage(t, s, w.c, 0, 1)
	if err != nil || !bytes.Equal(got, w.image) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if want := len(w.image) - delta.Segment; w.whole() != want {
		t.Errorf("%d bytes of the component were fetched, want %d", w.whole(), want)
	}
}

// A form that agrees with itself and not with the release is used once: who finds that its bytes are wrong comes back, and has them whole.
func TestAFormThatLiesIsUsedOnce(t *testing.T) {
	w := newWorld(t)
	other := bytes.Clone(w.image)
	other[0] ^= 1
	d := deltaOf(t, w.old, other)
	h, err := delta.Read(bytes.NewReader(d))
	if err != nil {
		t.Fatal(err)
	}
	at, _, err := h.Frame(0)
	if err != nil {
		t.Fatal(err)
	}
	h.To = w.c.Digest
	head, err := h.Encode()
	if err != nil {
		t.Fatal(err)
	}
	w.use(append(head, d[at:]...))
	s := w.source(w.form)
	if got, err := stage(t, s, w.c, 0, 1); err != nil || !bytes.Equal(got, other) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if got, err := stage(t, s, w.c, 0, 1); err != nil || !bytes.Equal(got, w.image) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestAnOldImageThatCannotBeReadIsAFaultOfTheDevice(t *testing.T) {
	w := newWorld(t)
	broken := errors.New("the flash is gone")
	s := forms.New(w.fetch, func([]byte) (io.ReaderAt, bool) { return unreadable{broken}, true }, []wire.Form{w.form})
	if _, err := stage(t, s, w.c, 0, 1); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if got, err := stage(t, s, w.c, 0, 3); err != nil || !bytes.Equal(got, w.image) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

type unreadable struct{ err error }

func (u unreadable) ReadAt([]byte, int64) (int, error) { return iotest.ErrReader(u.err).Read(nil) }
