package witness_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/witness"
)

// forks are logs of one key that begin alike, and part at different places.
func forks(t testing.TB, n int) (out []hashes) {
	t.Helper()
	for part := range 4 {
		var h hashes
		for i := range int64(n) {
			record := fmt.Sprintf("common %d", i)
			if int(i) >= part*n/4 && part > 0 {
				record = fmt.Sprintf("fork %d, %d", part, i)
			}
			more, err := tlog.StoredHashes(i, []byte(record), h)
			if err != nil {
				t.Fatal(err)
			}
			h = append(h, more...)
		}
		out = append(out, h)
	}
	return out
}

// signed is what a witness has signed, in the order of its answers.
type signed struct {
	mu  sync.Mutex
	all []ledger.State // guarded by mu
	of  []int          // which log it was asked for
}

func (s *signed) add(of int, state ledger.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all, s.of = append(s.all, state), append(s.of, of)
}

// oneTree checks that all of it is one tree, as it grew.
func (s *signed) oneTree(logs []hashes) error {
	largest := 0
	for i, x := range s.all {
		if x.Size >= s.all[largest].Size {
			largest = i
		}
	}
	for i, x := range s.all {
		root, err := tlog.TreeHash(int64(x.Size), logs[s.of[largest]])
		if err != nil {
			return err
		}
		if root != tlog.Hash(x.Root) {
			return fmt.Errorf("signature %d, of size %d, is not of the tree of size %d", i, x.Size, s.all[largest].Size)
		}
	}
	return nil
}

// flaky is a memory that fails as it is told: before it stores, or after.
type flaky struct {
	memory
	fail string
}

func (f *flaky) Save(ctx context.Context, data []byte) error {
	if f.fail == "before" {
		return errors.New("disk full")
	}
	if err := f.memory.Save(ctx, data); err != nil {
		return err
	}
	if f.fail == "after" {
		return errors.New("I/O error")
	}
	return nil
}

// Whatever it is asked in whatever order, with restarts and a failing disk in between: what it signs is one growing tree.
func TestItNeverSignsTwoTrees(t *testing.T) {
	const most = 40
	logs := forks(t, most)
	rapid.Check(t, func(rt *rapid.T) {
		m := &flaky{}
		start := func() *witness.Witness {
			w, err := witness.Open(t.Context(), witness.Config{
				Keys: []ledger.CosignerKey{ledger.Ed25519Cosigner("w.example", newKey(2))},
				Logs: []witness.Log{{Origin: origin, Keys: logKeys(1), Memory: m}},
			})
			if err != nil {
				rt.Fatal(err)
			}
			return w
		}
		w, got, last := start(), &signed{}, uint64(0)
		var said []byte // the answer before, which needs no disk to be given again
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			if rapid.IntRange(0, 9).Draw(rt, "restart") == 0 {
				m.fail, w = "", start()
			}
			m.fail = rapid.SampledFrom([]string{"", "", "", "before", "after"}).Draw(rt, "disk")
			of := rapid.IntRange(0, len(logs)-1).Draw(rt, "log")
			old := rapid.Uint64Range(0, most).Draw(rt, "old")
			if rapid.Bool().Draw(rt, "as it was told") {
				old = last
			}
			size := rapid.Int64Range(1, most).Draw(rt, "size")
			var proof [][32]byte
			if from := rapid.SampledFrom([]int64{int64(old), size / 2}).Draw(rt, "proof from"); from > 0 && from < size {
				proof = logs[of].proof(t, from, size)
			}
			note := logs[of].note(t, size)
			line, err := w.Cosign(t.Context(), old, proof, note)
			if other, ok := errors.AsType[*ledger.OldSizeError](err); ok {
				last = other.Size
			}
			if err != nil {
				continue
			}
			if len(line) == 0 || m.fail != "" && !bytes.Equal(line, said) {
				rt.Fatalf("signed %q while the disk fails %q", line, m.fail)
			}
			n, err := ledger.ParseNote(note)
			if err != nil {
				rt.Fatal(err)
			}
			if n.State.Size < last && len(got.all) > 0 && n.State.Size < got.all[len(got.all)-1].Size {
				rt.Fatalf("it went back to %d", n.State.Size)
			}
			last, said = n.State.Size, line
			got.add(of, n.State)
			if err := got.oneTree(logs); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

// Many ask at once, of forks too: what is signed is one tree, and who was slower is told the size.
func TestManyAskAtOnce(t *testing.T) {
	const most = 60
	logs := forks(t, most)
	m := &memory{}
	w := open(t, m)
	got := &signed{}
	var wg sync.WaitGroup
	for asker := range 8 {
		of := asker % len(logs)
		wg.Go(func() {
			old := uint64(0)
			for size := int64(1 + asker); size <= most; size += 3 {
				var proof [][32]byte
				if old > 0 && int64(old) < size {
					proof = logs[of].proof(t, int64(old), size)
				}
				note := logs[of].note(t, size)
				_, err := w.Cosign(t.Context(), old, proof, note)
				if other, ok := errors.AsType[*ledger.OldSizeError](err); ok {
					old = other.Size
				}
				if err == nil {
					n, _ := ledger.ParseNote(note)
					got.add(of, n.State)
					old = n.State.Size
				}
			}
		})
	}
	wg.Wait()
	if len(got.all) == 0 {
		t.Fatal("nothing was signed")
	}
	if err := got.oneTree(logs); err != nil {
		t.Fatal(err)
	}
	if latest, err := ledger.ParseNote(w.Latest(origin)); err != nil || latest.Body == "" {
		t.Errorf("%+v, %v", latest, err)
	}
	// What a restart finds is what was signed last.
	if again := open(t, m).Latest(origin); string(again) != string(w.Latest(origin)) {
		t.Errorf("after a restart: %q", again)
	}
}
