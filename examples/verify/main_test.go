package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestItPrintsWhatItVerified(t *testing.T) {
	var out strings.Builder
	if err := verify(read(t, "trust.json"), read(t, "device.hallmark"), &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cosigned by 1 witnesses", "release.approved", "person:alice", "device.provisioned", "retire.wiped"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("nothing of %q in\n%s", want, &out)
		}
	}
}

// Every byte of the file counts.
func TestEveryFlippedByteIsRefused(t *testing.T) {
	trusted, data := read(t, "trust.json"), read(t, "device.hallmark")
	bits := 1
	if os.Getenv("HALLMARK_LONG") != "" {
		bits = 8
	}
	for i := range data {
		for b := range bits {
			flip := byte(1) << ((i + b) % 8)
			data[i] ^= flip
			if verify(trusted, data, io.Discard) == nil {
				t.Errorf("byte %d of %d does not count: %#x instead of %#x", i, len(data), data[i], data[i]^flip)
			}
			data[i] ^= flip
		}
	}
	for _, n := range []int{0, 1, len(data) / 2, len(data) - 1} {
		if verify(trusted, data[:n], io.Discard) == nil {
			t.Errorf("the first %d bytes verify", n)
		}
	}
}

func TestItBelievesOnlyWhomItIsTold(t *testing.T) {
	trusted, data := read(t, "trust.json"), read(t, "device.hallmark")
	for name, change := range map[string][2]string{
		"a quorum of two":  {`"quorum": 1`, `"quorum": 2`},
		"no quorum":        {`"quorum": 1`, `"quorum": 0`},
		"another origin":   {"t.example/control", "u.example/control"},
		"another witness":  {"w.example+", "v.example+"},
		"another log name": {`"name": "events"`, `"name": "happenings"`},
	} {
		other := bytes.Replace(trusted, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(other, trusted) {
			t.Fatalf("%s: nothing is changed", name)
		}
		if verify(other, data, io.Discard) == nil {
			t.Errorf("%s: it verifies", name)
		}
	}
}

func FuzzVerify(f *testing.F) {
	trusted, data := read(f, "trust.json"), read(f, "device.hallmark")
	f.Add(data)
	f.Add([]byte{0xa1, 1, 1})
	f.Add(bytes.Repeat([]byte{0x81}, 100))
	f.Fuzz(func(t *testing.T, in []byte) {
		if verify(trusted, in, io.Discard) == nil && !bytes.Equal(in, data) {
			t.Error("another file verifies")
		}
	})
}
