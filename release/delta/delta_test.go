package delta_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/release/delta"
	wiredelta "github.com/hallmark-iot/hallmark/wire/delta"
)

func applier(t *testing.T) *wiredelta.Applier {
	t.Helper()
	a, err := wiredelta.NewApplier()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// edited is an image that came of another: pieces of it in another order, changed here and there, with something new in between.
func edited(t *rapid.T, old []byte) []byte {
	var image []byte
	for range rapid.IntRange(1, 6).Draw(t, "pieces") {
		from := rapid.IntRange(0, len(old)-1).Draw(t, "from")
		piece := bytes.Clone(old[from : from+rapid.IntRange(0, len(old)-from).Draw(t, "length")])
		for i := rapid.IntRange(1, 400).Draw(t, "every"); i < len(piece); i += 400 {
			piece[i]++
		}
		image = append(image, piece...)
		image = append(image, rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "new")...)
	}
	if len(image) == 0 {
		return []byte{1}
	}
	return image
}

func TestADeltaGivesTheImage(t *testing.T) {
	a := applier(t)
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		old := make([]byte, rapid.IntRange(1, 100_000).Draw(t, "old"))
		alphabet := rapid.SampledFrom([]int{1, 2, 256}).Draw(t, "alphabet")
		for i := range old {
			old[i] = byte(random.IntN(alphabet))
		}
		image := edited(t, old)
		for rapid.Bool().Draw(t, "larger than a segment") && len(image) <= wiredelta.Segment {
			image = append(image, image...)
		}
		var d bytes.Buffer
		if err := delta.Make(t.Context(), old, image, &d); err != nil {
			t.Fatal(err)
		}
		if got := apply(a, old, d.Bytes()); !bytes.Equal(got, image) {
			t.Fatalf("%d bytes of %d", len(got), len(image))
		}
	})
}

// apply gives what a delta makes of old, or nothing.
func apply(a *wiredelta.Applier, old, d []byte) (image []byte) {
	r := bytes.NewReader(d)
	h, err := wiredelta.Read(r)
	if from := sha256.Sum256(old); err != nil || !bytes.Equal(h.From, from[:]) {
		return nil
	}
	for i := range h.Frames {
		at, length, err := h.Frame(i)
		if err != nil || at+length > int64(len(d)) || int64(len(d)-r.Len()) != at {
			return nil
		}
		out, err := a.Segment(h, i, bytes.NewReader(old), r)
		if err != nil {
			return nil
		}
		image = append(image, out...)
	}
	if sum := sha256.Sum256(image); !bytes.Equal(sum[:], h.To) {
		return nil
	}
	return image
}

// TestNoMutationOfADeltaGivesAnotherImage changes, cuts and lengthens a delta: what is not refused gives the image all the same.
func TestNoMutationOfADeltaGivesAnotherImage(t *testing.T) {
	random := rand.New(rand.NewPCG(8, 8))
	old := make([]byte, 20_000)
	for i := range old {
		old[i] = byte(random.Uint32())
	}
	image := append(bytes.Clone(old[3000:]), old[:9000]...)
	for i := 0; i < len(image); i += 700 {
		image[i] += 3
	}
	var made bytes.Buffer
	if err := delta.Make(t.Context(), old, image, &made); err != nil {
		t.Fatal(err)
	}
	a, runs, same := applier(t), 100_000, 0
	if testing.Short() {
		runs = 5000
	}
	for range runs {
		d := bytes.Clone(made.Bytes())
		switch at := random.IntN(len(d)); random.IntN(6) {
		case 0:
			d = d[:at]
		case 1:
			d = append(d[:at], d[min(len(d), at+1+random.IntN(4)):]...)
		case 2:
			d = append(d[:at:at], append([]byte{byte(random.Uint32())}, d[at:]...)...)
		case 3:
			d[at] = byte(random.Uint32())
		default:
			d[at] ^= 1 << random.IntN(8)
		}
		switch got := apply(a, old, d); {
		case got == nil:
		case !bytes.Equal(got, image):
			t.Fatalf("another image of %d bytes", len(got))
		default:
			same++
		}
	}
	t.Logf("%d of %d mutations give the same image", same, runs)
	if same > runs/100 {
		t.Errorf("%d of %d mutations change nothing", same, runs)
	}
}

func TestNothingHasADelta(t *testing.T) {
	for _, c := range [][2][]byte{{nil, {1}}, {{1}, nil}} {
		if err := delta.Make(t.Context(), c[0], c[1], io.Discard); err == nil {
			t.Errorf("a delta of %d and %d bytes", len(c[0]), len(c[1]))
		}
	}
}
