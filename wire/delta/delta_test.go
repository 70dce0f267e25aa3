package delta_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"github.com/hallmark-iot/hallmark/wire/delta"
)

// compressed is a frame's bytes.
func compressed(t testing.TB, plain []byte, o ...zstd.EOption) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithWindowSize(delta.Window), zstd.WithEncoderCRC(false)}, o...)...)
	if err != nil {
		t.Fatal(err)
	}
	return enc.EncodeAll(plain, nil)
}

// step is one of a segment.
type step struct {
	seek     int64
	add, new uint64
}

// written is what a frame holds.
func written(steps []step, rest ...byte) []byte {
	out := binary.AppendUvarint(nil, uint64(len(steps)))
	for _, s := range steps {
		out = binary.AppendUvarint(binary.AppendUvarint(binary.AppendVarint(out, s.seek), s.add), s.new)
	}
	return append(out, rest...)
}

// of is a delta of frames that give image.
func of(t testing.TB, old, image []byte, frames ...[]byte) []byte {
	t.Helper()
	from, to := sha256.Sum256(old), sha256.Sum256(image)
	h := delta.Header{From: from[:], FromSize: uint64(len(old)), To: to[:], ToSize: uint64(len(image))}
	for i, f := range frames {
		sum := sha256.Sum256(image[i*delta.Segment : min((i+1)*delta.Segment, len(image))])
		h.Frames, h.Sums = append(h.Frames, uint32(len(f))), append(h.Sums, sum[:]...)
	}
	head, err := h.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return append(head, bytes.Join(frames, nil)...)
}

// apply makes all segments of a delta, one behind the other.
func apply(t testing.TB, old io.ReaderAt, d io.Reader) (image []byte, err error) {
	t.Helper()
	h, err := delta.Read(d)
	if err != nil {
		return nil, err
	}
	a, err := delta.NewApplier()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for i := range h.Frames {
		out, err := a.Segment(h, i, old, d)
		if err != nil {
			return image, err
		}
		image = append(image, out...)
	}
	return image, nil
}

func TestASegmentIsWhatItsStepsSay(t *testing.T) {
	old, image := []byte("the old image"), []byte("old tha new!")
	good := written([]step{{4, 4, 0}, {-8, 3, 5}}, append([]byte{0, 0, 0, 0, 0, 0, 0xfc}, " new!"...)...)
	if got, err := apply(t, bytes.NewReader(old), bytes.NewReader(of(t, old, image, compressed(t, good)))); err != nil || !bytes.Equal(got, image) {
		t.Errorf("%q, %v", got, err)
	}
	zeros := make([]byte, 12)
	for name, frame := range map[string][]byte{
		"a place before the old image":     written([]step{{-1, 12, 0}}, zeros...),
		"a place behind it":                written([]step{{2, 12, 0}}, zeros...),
		"a step that no image has":         written([]step{{1 << 62, 0, 12}}, zeros...),
		"more than the segment":            written([]step{{0, 13, 0}}, append(zeros, 0)...),
		"more than any number":             written([]step{{0, 12, 1<<64 - 12}}, zeros...),
		"less than the segment":            written([]step{{0, 11, 0}}, zeros[:11]...),
		"a step of nothing":                written([]step{{0, 12, 0}, {0, 0, 0}}, zeros...),
		"too many steps":                   written(make([]step, delta.MaxSteps+1)),
		"fewer bytes than its steps":       written([]step{{0, 6, 6}}, zeros[:8]...),
		"bytes behind its steps":           written([]step{{0, 0, 12}}, append(image, 'x')...),
		"nothing":                          {},
		"the steps of another old segment": written([]step{{0, 12, 0}}, zeros...),
	} {
		got, err := apply(t, bytes.NewReader(old), bytes.NewReader(of(t, old, image, compressed(t, frame))))
		if !errors.Is(err, delta.ErrFormat) && (!errors.Is(err, delta.ErrOld) || name != "the steps of another old segment") || len(got) > 0 {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, frame := range map[string][]byte{
		"no Zstandard":           []byte("not a frame at all"),
		"a frame that is cut":    compressed(t, good)[:10],
		"a window that is large": compressed(t, append(written([]step{{0, 0, 12}}, image...), make([]byte, 4<<20)...), zstd.WithWindowSize(8<<20), zstd.WithSingleSegment(false)),
	} {
		if got, err := apply(t, bytes.NewReader(old), bytes.NewReader(of(t, old, image, frame))); !errors.Is(err, delta.ErrFormat) || len(got) > 0 {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestADamagedOldImageGivesNothing(t *testing.T) {
	old, image := []byte("the old image"), []byte("the old image is new")
	d := of(t, old, image, compressed(t, written([]step{{0, 13, 7}}, append(make([]byte, 13), " is new"...)...)))
	for i := range old {
		damaged := bytes.Clone(old)
		damaged[i] ^= 1
		if got, err := apply(t, bytes.NewReader(damaged), bytes.NewReader(d)); !errors.Is(err, delta.ErrOld) || len(got) > 0 {
			t.Fatalf("byte %d: %q, %v", i, got, err)
		}
	}
	if got, err := apply(t, bytes.NewReader(old[:12]), bytes.NewReader(d)); err == nil || len(got) > 0 {
		t.Errorf("of an image that is too short: %q, %v", got, err)
	}
}

// A line that breaks is not a delta that is wrong: who fetches it goes on where it broke.
func TestALineThatBreaksIsToldFromADeltaThatIsWrong(t *testing.T) {
	broken := errors.New("the line broke")
	old, image := []byte("the old image"), []byte("new")
	d := of(t, old, image, compressed(t, written([]step{{0, 0, 3}}, image...)))
	for n := range d {
		_, err := apply(t, bytes.NewReader(old), io.MultiReader(bytes.NewReader(d[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) || errors.Is(err, delta.ErrFormat) {
			t.Fatalf("behind %d bytes: %v", n, err)
		}
		if _, err := apply(t, bytes.NewReader(old), bytes.NewReader(d[:n])); !errors.Is(err, delta.ErrFormat) {
			t.Fatalf("ended behind %d bytes: %v", n, err)
		}
	}
}

func TestAHeaderIsWithinBounds(t *testing.T) {
	d32 := make([]byte, 32)
	for name, h := range map[string]delta.Header{
		"no digests":       {FromSize: 1, ToSize: 1, Frames: []uint32{1}, Sums: d32},
		"nothing old":      {From: d32, To: d32, ToSize: 1, Frames: []uint32{1}, Sums: d32},
		"nothing new":      {From: d32, To: d32, FromSize: 1},
		"too large":        {From: d32, To: d32, FromSize: 1, ToSize: delta.MaxSegments*delta.Segment + 1, Frames: make([]uint32, delta.MaxSegments+1)},
		"a frame too few":  {From: d32, To: d32, FromSize: 1, ToSize: delta.Segment + 1, Frames: []uint32{1}, Sums: d32},
		"a sum too few":    {From: d32, To: d32, FromSize: 1, ToSize: delta.Segment + 1, Frames: []uint32{1, 1}, Sums: d32},
		"an empty frame":   {From: d32, To: d32, FromSize: 1, ToSize: 1, Frames: []uint32{0}, Sums: d32},
		"too long a frame": {From: d32, To: d32, FromSize: 1, ToSize: 1, Frames: []uint32{delta.MaxFrame + 1}, Sums: d32},
	} {
		if _, err := h.Encode(); err == nil {
			t.Errorf("%s: it was written", name)
		}
	}
	for _, s := range []string{"HMDELTA2\x00\x00\x00\x01\xa0", "HMDELTA1\x00\x04\x00\x01", "HMDELTA1\x00\x00\x00\x01\xa0", "HMDELTA1\xff\xff\xff\xff"} {
		if _, err := delta.Read(strings.NewReader(s)); !errors.Is(err, delta.ErrFormat) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// TestADeviceNeedsLittleMemory has 64 MiB made of 64 MiB: what is allocated in all that time is what is ever held.
func TestADeviceNeedsLittleMemory(t *testing.T) {
	const segments = 64
	old := make([]byte, segments*delta.Segment)
	rand.NewChaCha8([32]byte{1}).Read(old)
	var frames [][]byte
	image := bytes.Clone(old)
	for i := range segments {
		part := image[i*delta.Segment : (i+1)*delta.Segment]
		var steps []step
		added := make([]byte, delta.Segment/2)
		for at := 0; at < delta.Segment; at += 64 { // many steps, and half of it new
			seek := int64(32)
			if at == 0 {
				seek = int64(i * delta.Segment)
			}
			steps = append(steps, step{seek, 32, 32})
			added[at/2] = 1
			part[at]++
		}
		var fresh []byte
		for at := 32; at < delta.Segment; at += 64 {
			fresh = append(fresh, part[at:at+32]...)
		}
		frames = append(frames, compressed(t, written(steps, append(added, fresh...)...)))
	}
	d := of(t, old, image, frames...)

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := bytes.NewReader(d)
	h, err := delta.Read(r)
	if err != nil {
		t.Fatal(err)
	}
	a, err := delta.NewApplier()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for i := range h.Frames {
		out, err := a.Segment(h, i, bytes.NewReader(old), r)
		if err != nil || !bytes.Equal(out, image[i*delta.Segment:(i+1)*delta.Segment]) {
			t.Fatalf("segment %d: %v", i, err)
		}
	}
	runtime.ReadMemStats(&after)
	got := after.TotalAlloc - before.TotalAlloc
	t.Logf("%d KiB allocated for an image of %d MiB", got>>10, segments)
	if got > 3<<20 {
		t.Errorf("%d bytes were allocated", got)
	}
}

func FuzzRead(f *testing.F) {
	old, image := []byte("the old image"), []byte("new")
	f.Add(of(f, old, image, compressed(f, written([]step{{0, 0, 3}}, image...))))
	f.Add([]byte("HMDELTA1\x00\x00\x00\x01\xa0"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		h, err := delta.Read(r)
		if err != nil {
			return
		}
		head, err := h.Encode()
		if err != nil || !bytes.Equal(head, data[:len(data)-r.Len()]) {
			t.Fatalf("written again it is %x, %v", head, err)
		}
	})
}

func FuzzSegment(f *testing.F) {
	old, image := []byte("the old image"), []byte("old tha new!")
	f.Add(written([]step{{4, 4, 0}, {-8, 3, 5}}, append([]byte{0, 0, 0, 0, 0, 0, 0xfc}, " new!"...)...), true)
	f.Add([]byte("no frame"), false)
	a, err := delta.NewApplier()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, frame []byte, plain bool) {
		if plain {
			frame = compressed(t, frame)
		}
		if len(frame) == 0 || len(frame) > delta.MaxFrame {
			return
		}
		d := bytes.NewReader(of(t, old, image, frame))
		h, err := delta.Read(d)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := a.Segment(h, 0, bytes.NewReader(old), d); err == nil && !bytes.Equal(out, image) {
			t.Fatalf("it gave %q", out)
		}
	})
}
