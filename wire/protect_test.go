package wire

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"slices"
	"testing"
	"testing/iotest"
)

// sealedOf seals a program, and gives its component.
func sealedOf(t *testing.T, plain, key, id []byte) ([]byte, Component) {
	t.Helper()
	s, err := NewComponentSealer(iotest.HalfReader(bytes.NewReader(plain)), key, id)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	p, sum := s.Protected(), sha256.Sum256(sealed)
	return sealed, Component{Name: "app", Kind: KindExec, Version: "1.0.0", Size: uint64(len(sealed)), Digest: sum[:], Health: HealthAlive, Protected: &p}
}

func opened(sealed, key []byte, c Component) ([]byte, error) {
	r, err := OpenComponent(bytes.NewReader(sealed), key, c)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// A program comes out as it went in, at every size around a chunk, and what is sealed tells nothing of it.
func TestAProtectedProgramOpens(t *testing.T) {
	key, id := NewContentKey(), NewContentKeyID()
	for _, n := range []int{1, 100, OrderChunk - 1, OrderChunk, OrderChunk + 1, 3 * OrderChunk, 3*OrderChunk + 17} {
		plain := bytes.Repeat([]byte("secret recipe! "), n/15+1)[:n]
		sealed, c := sealedOf(t, plain, key, id)
		if err := c.check(); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if n > 100 && bytes.Contains(sealed, []byte("secret")) {
			t.Fatalf("%d bytes: sealed in the clear", n)
		}
		if sum := sha256.Sum256(plain); c.Plain().Size != uint64(n) || !bytes.Equal(c.Plain().Digest, sum[:]) || c.Plain().Protected != nil {
			t.Fatalf("%d bytes: %+v", n, c.Plain())
		}
		if got, err := opened(sealed, key, c); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes: %d came out, %v", n, len(got), err)
		}
	}
}

// What was changed, cut, put elsewhere, or is of another key, gives an error and nothing of the chunk that it is in.
func TestAProtectedProgramThatIsNotWholeDoesNotOpen(t *testing.T) {
	key, id := NewContentKey(), NewContentKeyID()
	sealed, c := sealedOf(t, bytes.Repeat([]byte{7}, 2*OrderChunk+5), key, id)
	const one = OrderChunk + gcmOverhead
	swapped := bytes.Clone(sealed)
	copy(swapped, sealed[one:2*one])
	copy(swapped[one:], sealed[:one])
	short := c
	short.Protected = &Protected{Key: id, Size: 2 * OrderChunk, Digest: c.Protected.Digest}
	short.Size = SealedSize(2 * OrderChunk)
	other, otherID := NewContentKey(), NewContentKeyID()
	named := c
	named.Protected = &Protected{Key: otherID, Size: c.Protected.Size, Digest: c.Protected.Digest}
	for what, x := range map[string]struct {
		sealed, key []byte
		c           Component
	}{
		"a bit":             {append(bytes.Clone(sealed[:len(sealed)-1]), sealed[len(sealed)-1]^1), key, c},
		"two chunks":        {swapped, key, c},
		"cut at a chunk":    {sealed[:2*one], key, c},
		"cut, and said so":  {sealed[:2*one], key, short},
		"another key":       {sealed, other, c},
		"another key's ID":  {sealed, key, named},
		"no key":            {sealed, nil, c},
		"a size that is no": {sealed, key, func() Component { d := c; d.Size--; return d }()},
	} {
		if got, err := opened(x.sealed, x.key, x.c); err == nil {
			t.Errorf("%s: %d bytes came out", what, len(got))
		}
	}
	image := c
	image.Kind, image.Health, image.Laid = KindImage, HealthNone, &Laid{Size: 1, Digest: c.Digest}
	if err := image.check(); err != nil || !bytes.Equal(image.Measured(), image.Laid.Digest) || !bytes.Equal(image.Built(), c.Protected.Digest) {
		t.Errorf("a protected image: %v", err)
	}
	for kind, r := range map[string]Release{KnowsSealedImage: {Components: []Component{image}}, KnowsAfter: {Components: []Component{{After: []string{"a"}}}}} {
		if asks := r.Asks(); !slices.Equal(asks, []string{kind}) || !slices.Contains(Unknown(nil), kind) || slices.Contains(Unknown(asks), kind) || KnowsText(kind) == kind {
			t.Errorf("it asks for %v, want %s", asks, kind)
		}
	}
}

// A wrap is for one device, one time and one key.
func TestAWrapOpensForItsDevice(t *testing.T) {
	own, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	thief, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, id := NewContentKey(), NewContentKeyID()
	nonce := d32(1)
	w, err := WrapKey(own.PublicKey().Bytes(), "d1", nonce, id, key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := w.Open(own, "d1", nonce); err != nil || !bytes.Equal(got, key) {
		t.Fatalf("%x, %v", got, err)
	}
	renamed := w
	renamed.Key = NewContentKeyID()
	for what, err := range map[string]error{
		"another device's key":  second(w.Open(thief, "d1", nonce)),
		"another device's name": second(w.Open(own, "d2", nonce)),
		"another time":          second(w.Open(own, "d1", d32(2))),
		"another content key":   second(renamed.Open(own, "d1", nonce)),
		"cut off":               second(Wrap{Key: id, Sealed: w.Sealed[1:]}.Open(own, "d1", nonce)),
	} {
		if err == nil {
			t.Errorf("%s opened it", what)
		}
	}
	if _, err := WrapKey(make([]byte, CodeKeySize), "d1", nonce, id, key); err == nil {
		t.Error("wrapped to no point of the curve")
	}
}

func second(_ []byte, err error) error { return err }
