package wire

import (
	"bytes"
	"crypto/rand"
	"testing"
)

// What is written as it comes is what is written at once, byte by byte, for every size at which something changes.
func TestAnOrderIsSealedAsItComes(t *testing.T) {
	h := testOrder(t).Header
	for _, size := range []int{1, 7, 8, 300, OrderChunk - 1, OrderChunk, OrderChunk + 1, OrderChunk + 9, 3 * OrderChunk, 30*OrderChunk + 5} {
		payload := make([]byte, size)
		_, _ = rand.Read(payload)
		cek, content, order := NewContentKey(), testContent(), bytes.Repeat([]byte{9}, 300)
		s, err := NewOrderSeal(cek, h, content, uint64(size))
		if err != nil {
			t.Fatal(err)
		}
		digest, err := s.Add(bytes.NewReader(payload))
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := s.Write(&got, order, bytes.NewReader(payload)); err != nil {
			t.Fatal(err)
		}
		f := OrderFile{Order: order}
		if f.Content, err = SealContent(cek, h, content); err != nil {
			t.Fatal(err)
		}
		if f.Payload, err = SealPayload(cek, h, payload); err != nil {
			t.Fatal(err)
		}
		want, err := EncodeOrderFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) || f.SealedDigest() != digest || s.Size(order) != int64(len(want)) {
			t.Fatalf("%d bytes of payload: the file differs, or its digest or size (%d of %d)", size, s.Size(order), len(want))
		}
	}
}

// One key and nonce never seal two different chunks.
func TestAPayloadThatChangesMeanwhileIsNotSealedTwice(t *testing.T) {
	h := testOrder(t).Header
	payload := bytes.Repeat([]byte{7}, 2*OrderChunk+3)
	seal := func() *FileSeal {
		s, err := NewOrderSeal(NewContentKey(), h, testContent(), uint64(len(payload)))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	var out bytes.Buffer
	if err := seal().Write(&out, []byte{1}, bytes.NewReader(payload)); err == nil || out.Len() != 0 {
		t.Error("it was written before it was sealed")
	}
	for _, at := range []int{0, OrderChunk, len(payload) - 1} {
		s := seal()
		if _, err := s.Add(bytes.NewReader(payload)); err != nil {
			t.Fatal(err)
		}
		changed := bytes.Clone(payload)
		changed[at] ^= 1
		out.Reset()
		if err := s.Write(&out, []byte{1}, bytes.NewReader(changed)); err == nil {
			t.Errorf("changed at %d: written all the same", at)
		}
		if bound := len(s.head([]byte{1})) + at/OrderChunk*(OrderChunk+gcmOverhead+5); out.Len() != bound {
			t.Errorf("changed at %d: %d bytes were written, of them nothing of the changed chunk: %d", at, out.Len(), bound)
		}
	}
	for name, other := range map[string][]byte{"shorter": payload[1:], "longer": append(bytes.Clone(payload), 1)} {
		if _, err := seal().Add(bytes.NewReader(other)); err == nil {
			t.Errorf("%s than it was said to be: sealed", name)
		}
	}
}
