package witnessd_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/witnessd"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/witness"
)

const origin = "log.example/events"

// tree is the stored hashes of a log that begins with a prefix.
type tree []tlog.Hash

func (h tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = h[x]
	}
	return out, nil
}

func grow(t testing.TB, prefix string, n int64) (h tree) {
	t.Helper()
	for i := range n {
		more, err := tlog.StoredHashes(i, fmt.Appendf(nil, "%s%d", prefix, i), h)
		if err != nil {
			t.Fatal(err)
		}
		h = append(h, more...)
	}
	return h
}

// request is add-checkpoint from a size to another.
func (h tree) request(t testing.TB, k signer, old, size int64) witness.Request {
	t.Helper()
	root, err := tlog.TreeHash(size, h)
	if err != nil {
		t.Fatal(err)
	}
	note, err := ledger.SignCheckpoint(origin, ledger.State{Size: uint64(size), Root: root}, k)
	if err != nil {
		t.Fatal(err)
	}
	r := witness.Request{Old: uint64(old), Note: note}
	if old > 0 && old < size {
		p, err := tlog.ProveTree(size, old, h)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range p {
			r.Proof = append(r.Proof, x)
		}
	}
	return r
}

// rig is a witness over a directory of its own, and a log that it knows.
type rig struct {
	dir  witnessd.Dir
	keys *soft.Store
	log  signer
	url  string
	said *bytes.Buffer
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{dir: witnessd.Dir{Path: t.TempDir()}, log: newSigner(1), said: new(bytes.Buffer)}
	var err error
	if r.keys, err = soft.Create(r.dir.Keys(), "pass", 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := r.dir.Init("w.example/1", r.keys); err != nil {
		t.Fatal(err)
	}
	if err := r.dir.AddLog(origin, r.log.key(origin)); err != nil {
		t.Fatal(err)
	}
	r.serve(t, 0)
	return r
}

// serve serves the directory as after a start.
func (r *rig) serve(t testing.TB, rate float64) *witness.Witness {
	t.Helper()
	w, known, err := r.dir.Open(t.Context(), r.keys, rate)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(witnessd.Handler(witnessd.Config{Witness: w, Origins: known.Origins(), Log: slog.New(slog.NewTextHandler(r.said, nil))}))
	t.Cleanup(s.Close)
	r.url = s.URL
	return w
}

func (r *rig) post(t testing.TB, body []byte) (status int, kind, answer string) {
	t.Helper()
	return send(t, http.MethodPost, r.url+"/add-checkpoint", body)
}

func send(t testing.TB, method, url string, body []byte) (status int, kind, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(data)
}

func TestEveryAnswerOfTheProtocol(t *testing.T) {
	r := newRig(t)
	a, b := grow(t, "a", 20), grow(t, "b", 20)
	if status, _, answer := r.post(t, a.request(t, r.log, 0, 7).Encode()); status != http.StatusOK || strings.Count(answer, "\u2014 w.example/1 ") != 2 {
		t.Fatalf("%d %s", status, answer)
	}
	stranger := a.request(t, newSigner(9), 7, 9)
	forged := a.request(t, r.log, 7, 9)
	forged.Note = bytes.Replace(forged.Note, []byte("\n9\n"), []byte("\n8\n"), 1)
	unknown := forged
	unknown.Note = bytes.ReplaceAll(forged.Note, []byte(origin), []byte("other.example"))
	proven := func(r, of witness.Request) witness.Request {
		r.Proof = of.Proof
		return r
	}
	empty, err := ledger.SignCheckpoint(origin, ledger.State{}, r.log)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		body   []byte
		status int
		answer string
	}{
		{"no request", []byte("hello"), 400, "old"},
		{"no checkpoint", []byte("old 7\n\nhello\n"), 400, "checkpoint"},
		{"too large", make([]byte, witness.MaxRequest+1), 400, "too large"},
		{"a log it does not know", unknown.Encode(), 404, "unknown log"},
		{"another log's key", stranger.Encode(), 403, "not signed"},
		{"a signature that does not hold", forged.Encode(), 403, "not signed"},
		{"an old size above the new", a.request(t, r.log, 7, 5).Encode(), 400, "size 5 after 7"},
		{"another old size", a.request(t, r.log, 5, 9).Encode(), 409, "7\n"},
		{"what a client sends that knows nothing", a.request(t, r.log, 0, 9).Encode(), 409, "7\n"},
		{"another history", b.request(t, r.log, 7, 9).Encode(), 422, "does not extend"},
		{"another root at the same size", b.request(t, r.log, 7, 7).Encode(), 422, "another root"},
		{"no proof", proven(a.request(t, r.log, 7, 9), witness.Request{}).Encode(), 422, "does not extend"},
		{"a proof where none belongs", proven(a.request(t, r.log, 7, 7), a.request(t, r.log, 7, 9)).Encode(), 422, "a proof where none"},
		{"a proof for another size", proven(a.request(t, r.log, 7, 9), a.request(t, r.log, 6, 9)).Encode(), 422, "does not extend"},
		{"an empty tree after others", witness.Request{Old: 7, Note: empty}.Encode(), 400, "size 0 after 7"},
	} {
		status, kind, answer := r.post(t, c.body)
		if status != c.status || !strings.Contains(answer, c.answer) {
			t.Errorf("%s: %d %q, want %d %q", c.name, status, answer, c.status, c.answer)
		}
		if want := map[bool]string{true: "text/x.tlog.size", false: "text/plain; charset=utf-8"}[status == 409]; kind != want {
			t.Errorf("%s: of type %q, want %q", c.name, kind, want)
		}
	}
	if status, _, _ := r.post(t, a.request(t, r.log, 7, 9).Encode()); status != http.StatusOK {
		t.Errorf("and then the log goes on: %d", status)
	}
	for what, c := range map[string]struct{ method, path string }{"GET": {"GET", "/add-checkpoint"}, "another path": {"POST", "/sign-subtree"}} {
		if status, _, _ := send(t, c.method, r.url+c.path, nil); status != http.StatusMethodNotAllowed && status != http.StatusNotFound {
			t.Errorf("%s: %d", what, status)
		}
	}
	if !strings.Contains(r.said.String(), "checkpoint=") {
		t.Errorf("what a log signed that cannot be is not kept as evidence: %s", r.said)
	}
}

// Checkpoints are public: what anybody may send again with a wrong proof, and with lines of his own, is kept as evidence once.
func TestAStrangerDoesNotFillTheWitnesssLog(t *testing.T) {
	r := newRig(t)
	a := grow(t, "a", 20)
	if status, _, answer := r.post(t, a.request(t, r.log, 0, 7).Encode()); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	for i := range 30 {
		q := a.request(t, r.log, 7, 9)
		q.Proof = nil
		q.Note = fmt.Appendf(q.Note, "\u2014 stranger%d AAAAAAAAAAAA\n", i)
		if status, _, answer := r.post(t, q.Encode()); status != http.StatusUnprocessableEntity {
			t.Fatal(status, answer)
		}
	}
	if n := strings.Count(r.said.String(), "checkpoint="); n != 1 {
		t.Errorf("%d times in the log", n)
	}
}

func TestAnEmptyLogIsALog(t *testing.T) {
	r := newRig(t)
	of := func(root [32]byte) []byte {
		note, err := ledger.SignCheckpoint(origin, ledger.State{Root: root}, r.log)
		if err != nil {
			t.Fatal(err)
		}
		return witness.Request{Note: note}.Encode()
	}
	if status, _, answer := r.post(t, of([32]byte{1})); status != http.StatusUnprocessableEntity {
		t.Errorf("another root than the empty tree's: %d %s", status, answer)
	}
	if status, _, answer := r.post(t, of(sha256.Sum256(nil))); status != http.StatusOK {
		t.Errorf("the empty tree's: %d %s", status, answer)
	}
	if status, _, answer := r.post(t, grow(t, "a", 3).request(t, r.log, 0, 3).Encode()); status != http.StatusOK {
		t.Errorf("and then it grows: %d %s", status, answer)
	}
}

func TestWhoMonitorsIsGivenTheNewestCheckpoint(t *testing.T) {
	r := newRig(t)
	sum := sha256.Sum256([]byte(origin))
	path := r.url + "/" + hex.EncodeToString(sum[:]) + "/checkpoint"
	if status, _, _ := send(t, "GET", path, nil); status != http.StatusNotFound {
		t.Errorf("before anything was cosigned: %d", status)
	}
	a := grow(t, "a", 20)
	for _, size := range []int64{7, 20} {
		old := map[int64]int64{7: 0, 20: 7}[size]
		req := a.request(t, r.log, old, size)
		req.Note = append(req.Note, []byte("\u2014 stranger AAAAAAAA\n")...) // not what is passed on
		status, _, lines := r.post(t, req.Encode())
		if status != http.StatusOK {
			t.Fatal(lines)
		}
		want := strings.TrimSuffix(string(req.Note), "\u2014 stranger AAAAAAAA\n") + lines
		if status, _, got := send(t, "GET", path, nil); status != http.StatusOK || got != want {
			t.Errorf("%d %q, want %q", status, got, want)
		}
		r.serve(t, 0) // a restart forgets nothing
		path = r.url + "/" + hex.EncodeToString(sum[:]) + "/checkpoint"
	}
	if status, _, _ := send(t, "GET", r.url+"/"+strings.Repeat("0", 64)+"/checkpoint", nil); status != http.StatusNotFound {
		t.Errorf("a log it does not know: %d", status)
	}
	if status, _, answer := send(t, "GET", r.url+"/healthz", nil); status != http.StatusOK || !strings.Contains(answer, "true") {
		t.Errorf("healthz: %d %s", status, answer)
	}
}

// How often a log may come is counted for the log, and not for whoever uses its name.
func TestALogComesOnlySoOften(t *testing.T) {
	r := newRig(t)
	r.serve(t, 0.001)
	a := grow(t, "a", 3)
	for range 5 {
		if status, _, _ := r.post(t, a.request(t, newSigner(9), 0, 1).Encode()); status != http.StatusForbidden {
			t.Errorf("a stranger: %d", status)
		}
	}
	if status, _, answer := r.post(t, a.request(t, r.log, 0, 1).Encode()); status != http.StatusOK {
		t.Errorf("the log: %d %s", status, answer)
	}
	if status, _, _ := r.post(t, a.request(t, r.log, 1, 2).Encode()); status != http.StatusTooManyRequests {
		t.Errorf("at once again: %d", status)
	}
}

func TestAWitnessWithoutItsMemoryDoesNotStart(t *testing.T) {
	r := newRig(t)
	if status, _, _ := r.post(t, grow(t, "a", 3).request(t, r.log, 0, 3).Encode()); status != http.StatusOK {
		t.Fatal(status)
	}
	files, err := filepath.Glob(filepath.Join(r.dir.Path, "memory", "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	whole, err := durable.File{Path: files[0]}.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"missing": nil, "empty": {}, "cut": whole[:len(whole)-9]} {
		if content == nil {
			err = remove(files[0])
		} else {
			err = durable.File{Path: files[0]}.Save(t.Context(), content)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.dir.Open(t.Context(), r.keys, 0); err == nil || !strings.Contains(err.Error(), "would sign a fork") {
			t.Errorf("%s: %v", name, err)
		}
		if err := r.dir.AddLog(origin, newSigner(5).key(origin)); err != nil { // known already: that is no way to a new memory
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := r.dir.Open(t.Context(), r.keys, 0); err == nil {
			t.Errorf("%s, and a key added: it starts", name)
		}
		if err := (durable.File{Path: filepath.Join(r.dir.Path, "witness.json")}).Save(t.Context(), settings(t, r)); err != nil {
			t.Fatal(err)
		}
	}
	if err := (durable.File{Path: files[0]}).Save(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	// Removed and added again, it goes on from where it was.
	if err := errors.Join(r.dir.RemoveLog(origin), r.dir.AddLog(origin, r.log.key(origin))); err != nil {
		t.Fatal(err)
	}
	r.serve(t, 0)
	if status, _, answer := r.post(t, grow(t, "b", 3).request(t, r.log, 0, 3).Encode()); status != http.StatusConflict || answer != "3\n" {
		t.Errorf("%d %s", status, answer)
	}
}

// A key that is not the one by which others know the witness is not signed with.
func TestKeysOfAnotherWitnessAreRefused(t *testing.T) {
	r := newRig(t)
	other := newRig(t)
	if _, _, err := r.dir.Open(context.Background(), other.keys, 0); err == nil || !strings.Contains(err.Error(), "not those of") {
		t.Errorf("%v", err)
	}
}
