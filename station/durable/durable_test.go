package durable_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/hallmark-iot/hallmark/station/durable"
)

func load(t *testing.T, path string) (frames [][]byte, l *durable.Log, err error) {
	t.Helper()
	l, err = durable.OpenLog(path, 64, func(f []byte) error {
		frames = append(frames, bytes.Clone(f))
		return nil
	})
	return frames, l, err
}

// TestTornLog cuts the log at every byte: what was acknowledged before the cut is there, the rest is not, and it goes on.
func TestTornLog(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	_, l, err := load(t, path)
	if err != nil {
		t.Fatal(err)
	}
	var ends []int
	for _, s := range []string{"one", "second", "the third"} {
		if err := l.Append([]byte(s)); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int(st.Size()))
	}
	if err := l.Append(make([]byte, 65)); err == nil {
		t.Error("a frame over the limit was taken")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) + 1 {
		p := filepath.Join(dir, "cut")
		if err := os.WriteFile(p, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, e := range ends {
			if n >= e {
				want++
			}
		}
		got, l, err := load(t, p)
		if err != nil || len(got) != want {
			t.Fatalf("cut at %d: %d frames, %v; want %d", n, len(got), err, want)
		}
		if err := l.Append([]byte("on")); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		got, l, err = load(t, p)
		if err != nil || len(got) != want+1 || string(got[want]) != "on" {
			t.Fatalf("after a cut at %d: %q, %v", n, got, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamagedLog changes a byte of an acknowledged frame: it must be an error, never a shorter log.
func TestDamagedLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	_, l, err := load(t, path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"one", "two"} {
		if err := l.Append([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 12 + len("one") { // every byte of the first frame
		c := bytes.Clone(b)
		c[i] ^= 1
		if err := os.WriteFile(path, c, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := load(t, path); err == nil {
			t.Errorf("a log with byte %d damaged was opened", i)
		}
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, s := range []string{"old", "new"} {
		if err := durable.WriteFile(path, []byte(s)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != s {
			t.Fatalf("%q, %v", b, err)
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("left over: %v, %v", list, err)
	}
}
