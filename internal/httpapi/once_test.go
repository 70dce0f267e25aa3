package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
)

// command is a request that makes something new each time it is done.
func command(reason string) httpapi.CommandRequest {
	return httpapi.CommandRequest{Product: "pump", Act: "attest", Devices: []string{subject}, Reason: reason}
}

func code(data []byte) string {
	var p struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(data, &p) // what is no problem has no code
	return strings.TrimPrefix(p.Type, "urn:hallmark:fault:")
}

// commands counts the device's commands.
func (w *world) commands() int {
	w.t.Helper()
	var page httpapi.Page[httpapi.Outcome]
	status, data, _ := w.call("olga", http.MethodGet, "/api/v1/devices/"+subject+"/commands?limit=200", nil, nil)
	if err := json.Unmarshal(data, &page); err != nil || status != http.StatusOK {
		w.t.Fatalf("%d %s %v", status, data, err)
	}
	return len(page.Items)
}

func TestARepeatedRequestIsAnsweredNotDoneAgain(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.issue("olga", []access.Role{access.Operator})
	w.issue("max", []access.Role{access.Operator})
	w.issue("vera", []access.Role{access.Viewer})
	before := w.commands()
	post := func(who, key string, in any) (int, []byte, http.Header) {
		return w.call(who, http.MethodPost, "/api/v1/commands", in, map[string]string{"Idempotency-Key": key})
	}
	status, first, h := post("olga", "k1", command("a"))
	if status != http.StatusOK || h.Get("Hallmark-Facts") == "" || h.Get("Idempotency-Replayed") != "" {
		t.Fatalf("%d %s %v", status, first, h)
	}
	status, again, h2 := post("olga", "k1", command("a"))
	if status != http.StatusOK || string(again) != string(first) || h2.Get("Hallmark-Facts") != h.Get("Hallmark-Facts") || h2.Get("Idempotency-Replayed") != "true" {
		t.Errorf("again: %d %s %v", status, again, h2)
	}
	if status, data, _ := post("olga", "k1", command("b")); status != http.StatusUnprocessableEntity || code(data) != "idempotency.reused" {
		t.Errorf("another request: %d %s", status, data)
	}
	if status, data, h := post("max", "k1", command("a")); status != http.StatusOK || h.Get("Idempotency-Replayed") != "" || string(data) == string(first) {
		t.Errorf("another caller's key: %d %s", status, data)
	}
	if n := w.commands(); n != before+2 {
		t.Errorf("%d commands were made, want 2", n-before)
	}
	for _, key := range []string{"", strings.Repeat("k", 256), "\x80"} {
		if status, data, _ := post("olga", key, command("a")); status != http.StatusBadRequest || code(data) != "idempotency.key" {
			t.Errorf("key %q: %d %s", key, status, data)
		}
	}
	// What changed nothing is not remembered: who could not may be able to later.
	for range 2 {
		if status, _, h := post("vera", "k2", command("a")); status != http.StatusForbidden || h.Get("Idempotency-Replayed") != "" {
			t.Errorf("who may not: %d %v", status, h)
		}
	}
	// A secret is not kept.
	spec := httpapi.TokenSpec{Caller: "person:zoe", Kind: "person", Roles: []access.Role{access.Viewer}, Use: "token", Seconds: 60}
	key := map[string]string{"Idempotency-Key": "t1"}
	if status, data, _ := w.call("root", http.MethodPost, "/api/v1/tokens", spec, key); status != http.StatusOK {
		t.Fatalf("%d %s", status, data)
	}
	if status, data, _ := w.call("root", http.MethodPost, "/api/v1/tokens", spec, key); status != http.StatusConflict || code(data) != "idempotency.answer-lost" {
		t.Errorf("token again: %d %s", status, data)
	}
	// The answers outlive the server.
	w.stop()
	w.start()
	if status, data, h := post("olga", "k1", command("a")); status != http.StatusOK || string(data) != string(first) || h.Get("Idempotency-Replayed") != "true" {
		t.Errorf("after a new start: %d %s", status, data)
	}
}

func TestManyAtOnceWithOneKeyAreOne(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.issue("olga", []access.Role{access.Operator})
	before := w.commands()
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := map[string]int{}
	for range 32 {
		wg.Go(func() {
			status, data, _ := w.call("olga", http.MethodPost, "/api/v1/commands", command("a"), map[string]string{"Idempotency-Key": "k"})
			mu.Lock()
			defer mu.Unlock()
			done[fmt.Sprint(status, " ", code(data))]++
		})
	}
	wg.Wait()
	if n := w.commands(); n != before+1 || done["200 "] == 0 || done["200 "]+done["409 idempotency.in-progress"] != 32 {
		t.Errorf("%d commands, %v", n-before, done)
	}
}

// The child process: a server that is killed at a failpoint.
func TestMain(m *testing.M) {
	if dir := os.Getenv("HALLMARK_TEST_SERVER"); dir != "" {
		os.Exit(serveUntilKilled(dir))
	}
	os.Exit(m.Run())
}

func serveUntilKilled(dir string) int {
	l := server.Layout{Dir: dir}
	keys, err := soft.Open(l.Keys(), "pass")
	if err == nil {
		var inst *server.Instance
		if inst, err = server.Open(context.Background(), l, keys, slog.New(slog.DiscardHandler)); err == nil {
			err = inst.Run(context.Background(), func(api, _ string) { fmt.Println(api) })
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// Killed before the commit nothing was done, and it can be done; killed after it, it was done, and is not done again.
func TestKilledItIsDoneOnceAtMost(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for point, c := range map[string]struct {
		made   int
		status int
		code   string
	}{
		"once.marked":               {0, http.StatusOK, ""},
		"once.settled":              {1, http.StatusConflict, "idempotency.answer-lost"},
		"idempotency.before-answer": {1, http.StatusConflict, "idempotency.answer-lost"},
	} {
		t.Run(point, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			w.issue("olga", []access.Role{access.Operator})
			before := w.commands()
			w.stop()
			key := map[string]string{"Idempotency-Key": "k"}
			w.killed(point, func(base string) {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/api/v1/commands", strings.NewReader(
					`{"product":"pump","act":"attest","devices":["`+subject+`"],"reason":"a"}`))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", "application/json")
				req.Header.Set("Authorization", "Bearer "+w.tokens["olga"])
				req.Header.Set("Idempotency-Key", "k")
				resp, err := http.DefaultClient.Do(req)
				if err == nil {
					resp.Body.Close()
					t.Fatalf("%d: it was answered", resp.StatusCode)
				}
			})
			w.start()
			if n := w.commands() - before; n != c.made {
				t.Fatalf("%d commands were made, want %d", n, c.made)
			}
			in := httpapi.CommandRequest{Product: "pump", Act: "attest", Devices: []string{subject}, Reason: "a"}
			// The same bytes as above: a request is known by them.
			data, err := json.Marshal(in)
			if err != nil || string(data) != `{"product":"pump","act":"attest","devices":["`+subject+`"],"reason":"a"}` {
				t.Fatalf("%s %v", data, err)
			}
			status, got, _ := w.call("olga", http.MethodPost, "/api/v1/commands", in, key)
			if status != c.status || code(got) != c.code {
				t.Errorf("again: %d %s", status, got)
			}
			if n := w.commands() - before; n != 1 {
				t.Errorf("%d commands in the end, want 1", n)
			}
		})
	}
}

// killed runs a server in a process of its own, with a failpoint that only marked requests meet, until fn has killed it.
func (w *world) killed(point string, fn func(base string)) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "HALLMARK_TEST_SERVER="+w.layout.Dir, "HALLMARK_FAILPOINTS="+point+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	var base string
	if _, err := fmt.Fscanln(out, &base); err != nil {
		w.t.Fatal(err)
	}
	fn(base)
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		w.t.Fatalf("the server ended with %v", err)
	}
}
