package durable_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/durable"
)

func TestReadersSeeTheOldFileOrTheNewOne(t *testing.T) {
	f := durable.Files{Dir: t.TempDir()}
	content := func(b byte) []byte { return bytes.Repeat([]byte{b}, 100_000) }
	if err := f.Put(t.Context(), "a/b/c", content(0)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range 100 {
			if err := f.Put(t.Context(), "a/b/c", content(byte(i))); err != nil {
				t.Error(err)
			}
		}
	})
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		data, err := f.Get(t.Context(), "a/b/c")
		if err != nil || len(data) != 100_000 || !bytes.Equal(data, content(data[0])) {
			t.Fatalf("%d bytes, %v: neither old nor new", len(data), err)
		}
	}
	wg.Wait()
	names, err := os.ReadDir(filepath.Join(f.Dir, "a", "b"))
	if err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

func TestAFailedWriteLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(path, []byte("new"), 0o600); err == nil {
		t.Error("wrote a file over a directory")
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 || !names[0].IsDir() {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

func TestNamesStayInTheirDirectory(t *testing.T) {
	outside := t.TempDir()
	keep := filepath.Join(outside, "keep")
	f := durable.Files{Dir: filepath.Join(outside, "log")}
	if err := os.WriteFile(keep, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../keep", "/etc/passwd", "a/../../keep", ""} {
		if err := f.Put(t.Context(), name, []byte("y")); err == nil {
			t.Errorf("put %q", name)
		}
		if data, err := f.Get(t.Context(), name); err == nil {
			t.Errorf("got %q: %q", name, data)
		}
		if err := f.Drop(t.Context(), name); err == nil {
			t.Errorf("dropped %q", name)
		}
	}
	if err := f.Drop(t.Context(), "."); err == nil {
		t.Error("dropped everything")
	}
	if data, err := os.ReadFile(keep); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestWhatIsPrivateIsPrivate(t *testing.T) {
	f := durable.File{Path: filepath.Join(t.TempDir(), "keys", "state")}
	if data, err := f.Load(t.Context()); data != nil || err != nil {
		t.Errorf("nothing yet: %q, %v", data, err)
	}
	if err := f.Save(t.Context(), []byte("secret")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{f.Path: 0o600, filepath.Dir(f.Path): 0o700} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s: %s, want %s", path, fmt.Sprint(got), fmt.Sprint(want))
		}
	}
}

// Of those who have seen the same content, one replaces it.
func TestOneSwapWins(t *testing.T) {
	f := durable.Files{Dir: t.TempDir()}
	if done, err := f.Swap(t.Context(), "a/x", []byte("old"), []byte("new")); done || err != nil {
		t.Errorf("swapped what is not there: %v, %v", done, err)
	}
	old := []byte(nil)
	for round := range 20 {
		var wins atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				done, err := f.Swap(t.Context(), "a/x", old, fmt.Appendf(nil, "%d by %d", round, i))
				if err != nil {
					t.Error(err)
				}
				if done {
					wins.Add(1)
				}
			})
		}
		wg.Wait()
		if wins.Load() != 1 {
			t.Fatalf("round %d: %d won", round, wins.Load())
		}
		var err error
		if old, err = f.Get(t.Context(), "a/x"); err != nil || !bytes.HasPrefix(old, fmt.Appendf(nil, "%d by", round)) {
			t.Fatalf("round %d: %q, %v", round, old, err)
		}
	}
}
