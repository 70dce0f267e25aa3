package cli_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// A server that shows one log today and another tomorrow, both signed and witnessed, is found out by who was there.
func TestLogWatchFindsTheServerThatShowsAnotherLog(t *testing.T) {
	var dir atomic.Value
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.FileServer(http.Dir(dir.Load().(string))).ServeHTTP(w, r)
	}))
	defer srv.Close()
	mine := t.TempDir()
	keys := put(t, filepath.Join(mine, "trust.json"), []byte(trust("t.example/events", 1)))
	policy := put(t, filepath.Join(mine, "policy.json"), []byte(`{"off": ["entry.malformed"]}`)) // the entries are no facts
	look := func(at string, args ...string) (int, string, string) {
		dir.Store(at)
		return hallmark(append([]string{"log", "watch", "--url", srv.URL, "--trust", keys, "--policy", policy, "--once", "--stale", "0"}, args...)...)
	}
	first, state := data(t, 5, "", 1), filepath.Join(mine, "state")
	if code, out, said := look(first, "--state", state); code != 0 || out != "" {
		t.Fatalf("exit %d, %s, %s", code, out, said)
	}
	if code, out, said := look(data(t, 9, "", 1), "--state", state); code != 0 || out != "" {
		t.Fatalf("it has grown: exit %d, %s, %s", code, out, said)
	}
	if code, out, _ := look(first, "--state", filepath.Join(mine, "another")); code != 0 || out != "" {
		t.Errorf("who was not there: exit %d, %s", code, out)
	}
	if code, out, _ := look(first, "--since", filepath.Join(data(t, 9, "", 1), "log", "events", "checkpoint")); code != 4 || !strings.Contains(out, "log.smaller events: the log had 9 entries, and shows 5") {
		t.Errorf("a shorter one: exit %d, %s", code, out)
	}
	liar := data(t, 12, "changed", 1)
	code, out, _ := look(liar, "--state", state)
	if code != 4 || !strings.Contains(out, "critical log.forked events: the log of 12 entries does not continue what it was with 9") {
		t.Errorf("another one: exit %d, %s", code, out)
	}
	evidence, err := filepath.Glob(filepath.Join(state, "evidence", "*", "shown"))
	if err != nil || len(evidence) != 1 {
		t.Fatalf("evidence: %v, %v", evidence, err)
	}
	shown, err := os.ReadFile(evidence[0])
	if err != nil {
		t.Fatal(err)
	}
	if lied, err := os.ReadFile(filepath.Join(liar, "log", "events", "checkpoint")); err != nil || string(lied) != string(shown) {
		t.Errorf("the evidence is not what was shown: %v", err)
	}
	// Told once; but as long as it is so the logs are not verified.
	if code, out, said := look(liar, "--state", state); code != 1 || out != "" || !strings.Contains(said, "does not continue") {
		t.Errorf("again: exit %d, %s, %s", code, out, said)
	}
}
