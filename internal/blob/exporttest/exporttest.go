// Package exporttest is the suite that every place passes to which a log's files are exported.
//
// Under all stages.
package exporttest

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hallmark-iot/hallmark/ledger"
)

// Run runs the suite; fresh gives an empty place, and again another view of the same, as another node has. Of some services it is known
// that they look at a condition first and write then: for those oneStep is false, and of swaps at the same moment nothing is asked.
func Run(t *testing.T, oneStep bool, fresh func(t *testing.T) (place, again ledger.Exporter)) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, ledger.Exporter, ledger.Exporter){
		"what is put is there": put, "a folder is dropped with all that is in it": drop, "names stay inside": inside,
		"a swap replaces what it was told": swap, "of many swaps one wins": race, "readers see whole files": whole,
	} {
		if name == "of many swaps one wins" && !oneStep {
			continue
		}
		t.Run(name, func(t *testing.T) {
			a, b := fresh(t)
			test(t, a, b)
		})
	}
}

func get(t *testing.T, e ledger.Exporter, path string) []byte {
	t.Helper()
	data, err := e.Get(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, e, again ledger.Exporter) {
	if data := get(t, e, "checkpoint"); data != nil {
		t.Errorf("%q where nothing is", data)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for path, data := range map[string][]byte{"checkpoint": []byte("note"), "tile/0/x001/000.p/7": []byte("seven"), "tile/entries/000": big} {
		must(t, e.Put(t.Context(), path, data))
		if got := get(t, again, path); !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, want %d", path, len(got), len(data))
		}
	}
	must(t, e.Put(t.Context(), "tile/0/x001/000.p/7", []byte("again")))
	if got := get(t, again, "tile/0/x001/000.p/7"); string(got) != "again" {
		t.Errorf("put again: %q", got)
	}
	if e.String() == "" {
		t.Error("it does not say where it is")
	}
}

func drop(t *testing.T, e, _ ledger.Exporter) {
	must(t, e.Drop(t.Context(), "tile/0/000.p"))
	for _, path := range []string{"tile/0/000.p/1", "tile/0/000.p/255", "tile/0/000", "tile/0/001.p/1"} {
		must(t, e.Put(t.Context(), path, []byte(path)))
	}
	must(t, e.Drop(t.Context(), "tile/0/000.p"))
	for path, stays := range map[string]bool{"tile/0/000.p/1": false, "tile/0/000.p/255": false, "tile/0/000": true, "tile/0/001.p/1": true} {
		if got := get(t, e, path); (got != nil) != stays {
			t.Errorf("%s: there: %v", path, got != nil)
		}
	}
}

func inside(t *testing.T, e, _ ledger.Exporter) {
	for _, name := range []string{"", "..", "../x", "/x", "a/../../x"} {
		if err := e.Put(t.Context(), name, []byte("x")); err == nil {
			t.Errorf("put %q", name)
		}
		if _, err := e.Get(t.Context(), name); err == nil {
			t.Errorf("got %q", name)
		}
		if done, err := e.Swap(t.Context(), name, nil, []byte("x")); err == nil || done {
			t.Errorf("swapped %q", name)
		}
	}
}

func swap(t *testing.T, e, again ledger.Exporter) {
	for _, c := range []struct {
		old, next string // old empty: none
		done      bool
	}{
		{"x", "one", false}, {"", "one", true}, {"", "two", false}, {"x", "two", false}, {"one", "two", true}, {"one", "three", false}, {"two", "two", true},
	} {
		old := []byte(c.old)
		if c.old == "" {
			old = nil
		}
		done, err := e.Swap(t.Context(), "checkpoint", old, []byte(c.next))
		if err != nil || done != c.done {
			t.Fatalf("%q for %q: %v, %v; want %v", c.next, c.old, done, err, c.done)
		}
	}
	if got := get(t, again, "checkpoint"); string(got) != "two" {
		t.Errorf("%q is there", got)
	}
}

func race(t *testing.T, e, again ledger.Exporter) {
	var old []byte
	for round := range 10 {
		var wins atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			place := []ledger.Exporter{e, again}[i%2]
			wg.Go(func() {
				done, err := place.Swap(t.Context(), "checkpoint", old, fmt.Appendf(nil, "round %d by %d", round, i))
				if err != nil {
					t.Error(err)
				}
				if done {
					wins.Add(1)
				}
			})
		}
		wg.Wait()
		old = get(t, e, "checkpoint")
		if wins.Load() != 1 || !bytes.HasPrefix(old, fmt.Appendf(nil, "round %d by", round)) {
			t.Fatalf("round %d: %d won, %q is there", round, wins.Load(), old)
		}
	}
}

func whole(t *testing.T, e, again ledger.Exporter) {
	content := func(b byte) []byte { return bytes.Repeat([]byte{b}, 300_000) }
	must(t, e.Put(t.Context(), "tile/entries/000", content(0)))
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range 20 {
			if err := e.Put(t.Context(), "tile/entries/000", content(byte(i))); err != nil {
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
		data := get(t, again, "tile/entries/000")
		if len(data) != 300_000 || slices.Max(data) != slices.Min(data) {
			t.Fatalf("%d bytes of two files", len(data))
		}
	}
	wg.Wait()
}
