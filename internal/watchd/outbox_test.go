package watchd_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/internal/watchd"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/watch"
)

var secret = []byte("0123456789abcdef")

func notice(id string) watch.Notice {
	i := uint64(7)
	return watch.Notice{Alert: watch.Alert{ID: id, Rule: "release.signers", Log: ledger.Control, Index: &i}, Log: ledger.Control, Index: &i, Entry: []byte{1, 2}, Proof: "proof"}
}

// receiver takes webhooks; while down is positive it answers 503 and counts down.
type receiver struct {
	t    *testing.T
	down int
	got  []string // keys, in order
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		r.t.Error(err)
	}
	h := hmac.New(sha256.New, secret)
	h.Write(body)
	if q.Header.Get("Hallmark-Signature") != "sha256="+hex.EncodeToString(h.Sum(nil)) || q.Method != http.MethodPost {
		r.t.Errorf("%s, signature %q", q.Method, q.Header.Get("Hallmark-Signature"))
	}
	var n watch.Notice
	if err := json.Unmarshal(body, &n); err != nil || len(n.Entry) != 2 || n.Proof == "" || *n.Index != 7 {
		r.t.Errorf("%s: %v", body, err)
	}
	if r.down > 0 {
		r.down--
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	r.got = append(r.got, q.Header.Get("Idempotency-Key"))
}

func put(t *testing.T, o *watchd.Outbox, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := o.Put(notice(id)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatIsNotTakenWaits(t *testing.T) {
	r := &receiver{t: t, down: 2}
	srv := httptest.NewServer(r)
	defer srv.Close()
	dir := t.TempDir()
	o := watchd.NewOutbox(dir, srv.URL, secret)
	put(t, o, "a", "b", "a") // the same again is one
	for range 2 {
		if left, err := o.Deliver(t.Context()); left != 2 || err == nil || !strings.Contains(err.Error(), "503") {
			t.Fatalf("%d left, %v", left, err)
		}
	}
	o = watchd.NewOutbox(dir, srv.URL, secret) // a new process
	put(t, o, "c")
	over := notice("a")
	over.Alert.Over = true
	if err := o.Put(over); err != nil {
		t.Fatal(err)
	}
	if left, err := o.Deliver(t.Context()); left != 0 || err != nil {
		t.Fatal(left, err)
	}
	if got := strings.Join(r.got, " "); got != "a b c a-over" {
		t.Errorf("taken: %s", got)
	}
	if left, err := o.Deliver(t.Context()); left != 0 || err != nil || len(r.got) != 4 {
		t.Error("delivered again")
	}
}

func TestNobodyElseIsTold(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the alert went elsewhere") }))
	defer other.Close()
	srv := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	o := watchd.NewOutbox(t.TempDir(), srv.URL, secret)
	put(t, o, "a")
	if left, err := o.Deliver(t.Context()); left != 1 || err == nil {
		t.Error("a redirection counts as taken")
	}
}

func TestAFullOutboxTakesNoMoreAndLosesNothing(t *testing.T) {
	dir := t.TempDir()
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%012d-x%d.json", i+1, i)), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o := watchd.NewOutbox(dir, "http://127.0.0.1:1", secret)
	if err := o.Put(notice("a")); !errors.Is(err, watchd.ErrFull) {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "000000000001-x0.json")); err != nil {
		t.Fatal(err)
	}
	put(t, o, "a")
}

// roundTrip answers without a network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// It is tried again and again, ever less often, and at once when something new comes after all is well.
func TestItIsTriedUntilItIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := watchd.NewOutbox(t.TempDir(), "https://alerts.example/hook", secret)
		begin := time.Now()
		var at []time.Duration
		o.Client.Transport = roundTrip(func(*http.Request) (*http.Response, error) {
			at = append(at, time.Since(begin))
			if len(at) <= 11 {
				return nil, errors.New("down")
			}
			return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}, nil
		})
		put(t, o, "a")
		ctx, cancel := context.WithCancel(t.Context())
		said := 0
		go o.Run(ctx, func(error) { said++ })
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if len(at) != 12 || said != 11 || at[1] != time.Second || at[2] != 3*time.Second || at[11]-at[10] != 5*time.Minute {
			t.Errorf("tried at %v, told %d times", at, said)
		}
		put(t, o, "b")
		synctest.Wait()
		if len(at) != 13 {
			t.Error("what is new waits")
		}
		cancel()
		synctest.Wait()
	})
}

func TestTheDirectoryKeepsWhereItWas(t *testing.T) {
	d := watchd.Dir{Path: filepath.Join(t.TempDir(), "state")}
	p := watch.Policy{}
	s, m, err := d.Load(p)
	if err != nil || m != nil || len(s.Logs) != 0 {
		t.Fatal(s, m, err)
	}
	s.Logs = map[ledger.Log]watch.Followed{ledger.Control: {Note: "n", Told: 5}}
	memory := watch.NewMemory()
	memory.Policy, memory.Judged[ledger.Control] = p.Digest(), 5
	for _, err := range []error{d.Save(t.Context(), s), d.Remember(t.Context(), memory)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if s, m, err := d.Load(p); err != nil || m == nil || s.Logs[ledger.Control].Told != 5 {
		t.Fatal(s, m, err)
	}
	if _, m, err := d.Load(watch.Policy{Devices: 3}); err != nil || m != nil {
		t.Error("a memory of another policy is used")
	}
	s.Logs[ledger.Control] = watch.Followed{Note: "n", Told: 4} // between 4 and 5 something would be missed
	if err := d.Save(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if _, m, err := d.Load(p); err != nil || m != nil {
		t.Error("a memory that is ahead of what was told is used")
	}
	if err := os.WriteFile(filepath.Join(d.Path, "state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Load(p); err == nil {
		t.Error("a damaged state is taken for none")
	}
}

func TestEvidenceIsKept(t *testing.T) {
	d := watchd.Dir{Path: t.TempDir()}
	n := watch.Notice{Alert: watch.Alert{ID: "f", Rule: "log.forked"}, Kept: "one", Shown: "other"}
	if err := (watchd.Sink{Dir: &d, Print: func(watch.Alert) error { return nil }}).Tell(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"kept": "one", "shown": "other"} {
		if got, err := os.ReadFile(filepath.Join(d.Path, "evidence", "f", name)); string(got) != want || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
