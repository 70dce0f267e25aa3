package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// streamed reads a file as it comes, holding all of it for the comparison.
func streamed(r io.Reader) (OrderFile, error) {
	h, err := ReadSealedHead(r)
	if err != nil {
		return OrderFile{}, err
	}
	return rest(h, r)
}

func rest(h SealedHead, r io.Reader) (OrderFile, error) {
	f := OrderFile{Order: h.Envelope, Content: h.Content}
	for c := NewChunks(r, h.Chunks); ; {
		chunk, err := c.Next()
		if errors.Is(err, io.EOF) {
			return f, nil
		}
		if err != nil {
			return OrderFile{}, err
		}
		f.Payload = append(f.Payload, bytes.Clone(chunk))
	}
}

func sealedFiles(t testing.TB) [][]byte {
	t.Helper()
	chunk := bytes.Repeat([]byte{5}, OrderChunk+gcmOverhead)
	var out [][]byte
	for _, f := range []OrderFile{
		{Order: []byte{1}, Content: make([]byte, 17), Payload: [][]byte{make([]byte, 17)}},
		{Order: make([]byte, 300), Content: make([]byte, 70_000), Payload: [][]byte{chunk, chunk[:40]}},
		{Order: make([]byte, 24), Content: make([]byte, 255), Payload: [][]byte{chunk}},
	} {
		b, err := EncodeOrderFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

// What is read as it comes is what is read at once, however few bytes a read gives; and every cut is told.
func TestASealedFileIsReadAsItComes(t *testing.T) {
	for i, b := range sealedFiles(t) {
		want, err := DecodeOrderFile(b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := streamed(iotest.OneByteReader(bytes.NewReader(b)))
		if err != nil || got.SealedDigest() != want.SealedDigest() || !bytes.Equal(got.Order, want.Order) {
			t.Errorf("file %d: %v", i, err)
		}
		for n := 0; n < len(b); n += 1 + n/10 {
			if _, err := streamed(bytes.NewReader(b[:n])); !errors.Is(err, ErrFileEnds) {
				t.Errorf("file %d, %d bytes of %d: %v", i, n, len(b), err)
			}
		}
		if _, err := streamed(bytes.NewReader(append(bytes.Clone(b), 0))); err == nil {
			t.Errorf("file %d: one with something behind its end is taken", i)
		}
	}
}

// A head that promises more than there may be is refused before anything is allocated for it.
func TestSealedFilesAreBounded(t *testing.T) {
	for name, b := range map[string][]byte{
		"envelope of 4 GiB":      {0xa3, 0x01, 0x5a, 0xff, 0xff, 0xff, 0xff},
		"envelope of 2^63":       {0xa3, 0x01, 0x5b, 0x80, 0, 0, 0, 0, 0, 0, 0},
		"envelope of any length": {0xa3, 0x01, 0x5f},
		"empty envelope":         {0xa3, 0x01, 0x40, 0x02},
		"length in a long form":  {0xa3, 0x01, 0x58, 0x01, 0xff},
		"text":                   {0xa3, 0x01, 0x61, 0x61},
		"a fourth member":        {0xa4, 0x01},
	} {
		_, err := ReadSealedHead(bytes.NewReader(b))
		if err == nil || errors.Is(err, ErrFileEnds) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzReadSealedFile holds the two readers against each other.
func FuzzReadSealedFile(f *testing.F) {
	for _, b := range sealedFiles(f) {
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in, got := bytes.NewReader(data), OrderFile{}
		head, err := ReadSealedHead(in)
		if err == nil {
			got, err = rest(head, in)
		}
		whole, wholeErr := DecodeOrderFile(data)
		if err == nil {
			if wholeErr != nil || whole.SealedDigest() != got.SealedDigest() || !bytes.Equal(whole.Order, got.Order) {
				t.Fatalf("read as it comes, and not at once: %v", wholeErr)
			}
			return
		}
		if wholeErr != nil || len(whole.Content) <= gcmOverhead || len(whole.Order) > MaxEnvelope {
			return
		}
		for _, c := range whole.Payload[:len(whole.Payload)-1] {
			if len(c) != OrderChunk+gcmOverhead {
				return
			}
		}
		t.Fatalf("read at once, and not as it comes: %v", err)
	})
}
