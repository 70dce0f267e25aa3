package witness_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/witness"
)

type key struct{ ed25519.PrivateKey }

func newKey(b byte) key {
	return key{ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))}
}

func (k key) Sign(text []byte) ([]byte, error) { return ed25519.Sign(k.PrivateKey, text), nil }

func (k key) Public() ed25519.PublicKey { return k.PrivateKey.Public().(ed25519.PublicKey) }

// memory is what a witness remembers; full makes it fail before it stores.
type memory struct {
	data []byte
	full bool
}

func (m *memory) Load(context.Context) ([]byte, error) { return m.data, nil }

func (m *memory) Save(_ context.Context, data []byte) error {
	if m.full {
		return errors.New("disk full")
	}
	m.data = data
	return nil
}

const origin = "log.example/events"

var at = time.Unix(1_800_000_000, 0)

func open(t testing.TB, m *memory) *witness.Witness {
	t.Helper()
	w, err := witness.Open(context.Background(), witness.Config{
		Keys: []ledger.CosignerKey{ledger.Ed25519Cosigner("w.example", newKey(2))}, Now: func() time.Time { return at },
		Logs: []witness.Log{{Origin: origin, Keys: logKeys(1), Memory: m}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

type hashes []tlog.Hash

func (h hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = h[x]
	}
	return out, nil
}

// logKeys are the log's keys as a witness is told of them.
func logKeys(b byte) []ledger.VerifierKey {
	return []ledger.VerifierKey{{Name: origin, Type: ledger.TypeEd25519, Key: newKey(b).Public()}}
}

// tree is a log of n entries that begin with prefix.
func tree(t testing.TB, prefix string, n int) hashes {
	t.Helper()
	var h hashes
	for i := range int64(n) {
		more, err := tlog.StoredHashes(i, append([]byte(prefix), byte(i)), h)
		if err != nil {
			t.Fatal(err)
		}
		h = append(h, more...)
	}
	return h
}

func (h hashes) note(t testing.TB, size int64) []byte {
	t.Helper()
	root, err := tlog.TreeHash(size, h)
	if err != nil {
		t.Fatal(err)
	}
	n, err := ledger.SignCheckpoint(origin, ledger.State{Size: uint64(size), Root: root}, newKey(1))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (h hashes) proof(t testing.TB, old, now int64) (out [][32]byte) {
	t.Helper()
	p, err := tlog.ProveTree(now, old, h)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range p {
		out = append(out, x)
	}
	return out
}

func TestItSignsALogThatGrows(t *testing.T) {
	m := &memory{}
	h := tree(t, "a", 20)
	old := int64(0)
	for _, size := range []int64{1, 2, 7, 7, 8, 20} {
		w := open(t, m) // begun anew each time: what it remembers is what it stored
		var proof [][32]byte
		if old > 0 && old < size {
			proof = h.proof(t, old, size)
		}
		note := h.note(t, size)
		line, err := w.Cosign(t.Context(), uint64(old), proof, note)
		if err != nil {
			t.Fatalf("from %d to %d: %v", old, size, err)
		}
		_, cosigs, err := ledger.SplitNote(append(note, line...))
		if err != nil || len(cosigs) != 1 || cosigs[0].Witness != "w.example" || cosigs[0].Time != uint64(at.Unix()) {
			t.Fatalf("%+v, %v", cosigs, err)
		}
		body, _, _ := bytes.Cut(note, []byte("\n\n"))
		text := append([]byte("cosignature/v1\ntime 1800000000\n"), append(body, '\n')...)
		if !ed25519.Verify(w.Keys()[0].Key, text, cosigs[0].Signature) {
			t.Fatal("the cosignature does not verify over the text of the specification")
		}
		old = size
	}
}

func TestItSignsNothingElse(t *testing.T) {
	a, b := tree(t, "a", 20), tree(t, "b", 20)
	stranger, err := ledger.SignCheckpoint(origin, ledger.State{Size: 9}, newKey(7))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := ledger.SignCheckpoint("other.example", ledger.State{Size: 9}, newKey(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		old   uint64
		proof [][32]byte
		note  []byte
		want  error
	}{
		{"smaller", 7, nil, a.note(t, 6), witness.ErrMalformed},
		{"another root at the same size", 7, nil, b.note(t, 7), witness.ErrInconsistent},
		{"another history", 7, b.proof(t, 7, 9), b.note(t, 9), witness.ErrInconsistent},
		{"no proof", 7, nil, a.note(t, 9), witness.ErrInconsistent},
		{"a proof where none belongs", 7, a.proof(t, 7, 9), a.note(t, 7), witness.ErrInconsistent},
		{"another log's key", 7, nil, stranger, witness.ErrLogSignature},
		{"a log it does not know", 0, nil, elsewhere, witness.ErrUnknownLog},
	} {
		m := &memory{}
		w := open(t, m)
		if _, err := w.Cosign(t.Context(), 0, nil, a.note(t, 7)); err != nil {
			t.Fatal(err)
		}
		before := bytes.Clone(m.data)
		line, err := w.Cosign(t.Context(), c.old, c.proof, c.note)
		if !errors.Is(err, c.want) || line != nil {
			t.Errorf("%s: %q, %v; want %v", c.name, line, err, c.want)
		}
		if !bytes.Equal(m.data, before) {
			t.Errorf("%s: it changed its memory", c.name)
		}
		var size *ledger.OldSizeError
		if _, err := w.Cosign(t.Context(), 3, nil, a.note(t, 9)); !errors.As(err, &size) || size.Size != 7 {
			t.Errorf("%s: then told another old size: %v", c.name, err)
		}
	}
}

// What it cannot remember it does not sign; a damaged memory is not an empty one.
func TestItRemembersBeforeItSigns(t *testing.T) {
	m := &memory{full: true}
	h := tree(t, "a", 9)
	w := open(t, m)
	if line, err := w.Cosign(t.Context(), 0, nil, h.note(t, 3)); err == nil || line != nil {
		t.Errorf("signed without remembering: %q", line)
	}
	m.full = false
	if _, err := w.Cosign(t.Context(), 0, nil, h.note(t, 2)); err != nil {
		t.Errorf("what was not signed must not bind: %v", err)
	}
	whole := string(m.data)
	for _, damaged := range []string{
		"", "{", "null", "{}", `{"x":1}`, whole[:len(whole)/2], whole + whole, `{"origin":"log.example/events","checkpoint":"log.example/events"}`,
		strings.ReplaceAll(whole, "log.example/events", "log.example/control"), strings.Replace(whole, `{"origin":"log.example/events"`, `{"origin":"x"`, 1),
	} {
		m := &memory{data: []byte(damaged)}
		cfg := witness.Config{Keys: []ledger.CosignerKey{ledger.Ed25519Cosigner("w", newKey(2))}, Logs: []witness.Log{{Origin: origin, Keys: logKeys(1), Memory: m}}}
		if _, err := witness.Open(t.Context(), cfg); err == nil {
			t.Errorf("opened with the memory %q", damaged)
		}
	}
}

// Checkpoints are public: anybody can send them again, as they are or with other sizes and proofs. That costs nothing of what the log may
// send, nor a write, or a stranger could keep a log from being witnessed.
func TestAStrangerDoesNotUseUpWhatALogMaySend(t *testing.T) {
	m, now := &counted{}, at
	w, err := witness.Open(t.Context(), witness.Config{
		Keys: []ledger.CosignerKey{ledger.Ed25519Cosigner("w.example", newKey(2))}, Now: func() time.Time { return now }, Rate: 1,
		Logs: []witness.Log{{Origin: origin, Keys: logKeys(1), Memory: m}},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := tree(t, "a", 20)
	first, err := w.Cosign(t.Context(), 0, nil, h.note(t, 7))
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if lines, err := w.Cosign(t.Context(), 7, nil, h.note(t, 7)); err != nil || !bytes.Equal(lines, first) {
			t.Fatalf("the newest again: %q, %v", lines, err)
		}
		if _, err := w.Cosign(t.Context(), 0, nil, h.note(t, 5)); errors.Is(err, witness.ErrTooOften) {
			t.Fatal("an old one again uses up what the log may send")
		}
		if _, err := w.Cosign(t.Context(), 7, nil, h.note(t, 9)); !errors.Is(err, witness.ErrInconsistent) {
			t.Fatalf("a newer one without its proof: %v", err)
		}
	}
	if m.saved != 1 {
		t.Errorf("written %d times", m.saved)
	}
	if _, err := w.Cosign(t.Context(), 7, h.proof(t, 7, 9), h.note(t, 9)); err != nil {
		t.Fatalf("the log itself: %v", err)
	}
	if _, err := w.Cosign(t.Context(), 9, h.proof(t, 9, 11), h.note(t, 11)); !errors.Is(err, witness.ErrTooOften) {
		t.Errorf("a log that sends too much: %v", err)
	}
	// A log that wants to be seen again, later, is.
	now = now.Add(time.Minute)
	lines, err := w.Cosign(t.Context(), 9, nil, h.note(t, 9))
	if _, cosigs, err2 := ledger.SplitNote(append(h.note(t, 9), lines...)); err != nil || err2 != nil || cosigs[0].Time != uint64(now.Unix()) {
		t.Errorf("a minute later: %v, %v, %+v", err, err2, cosigs)
	}
}

// counted is a memory that counts.
type counted struct {
	memory
	saved int
}

func (c *counted) Save(ctx context.Context, data []byte) error {
	c.saved++
	return c.memory.Save(ctx, data)
}

// Whatever it is sent, it signs only what the log has signed.
func FuzzCosign(f *testing.F) {
	h := tree(f, "a", 9)
	good := h.note(f, 9)
	f.Add(uint64(0), good)
	f.Add(uint64(3), good)
	f.Add(uint64(0), bytes.Replace(good, []byte("\n9\n"), []byte("\n09\n"), 1))
	f.Fuzz(func(t *testing.T, old uint64, note []byte) {
		line, err := open(t, &memory{}).Cosign(context.Background(), old, nil, note)
		if err != nil {
			return
		}
		body, _, _ := bytes.Cut(good, []byte("\n\n"))
		if !bytes.HasPrefix(note, append(body, "\n\n"...)) || len(line) == 0 {
			t.Fatalf("signed %q", note)
		}
	})
}
