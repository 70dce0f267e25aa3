package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/ledger/watch"
)

// monitor is somebody who follows the logs with `hallmark log watch`, and knows of the maker a trust file and a policy.
type monitor struct {
	*demo
	trust, policy, state string
}

func (m *monitor) call(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, m.bin.hallmark, append([]string{"log", "watch", "--url", m.console, "--trust", m.trust}, args...)...)
	cmd.Env = append(os.Environ(), "HALLMARK_URL=", "HALLMARK_TOKEN=")
	return cmd
}

// once gives how many alerts there are of each rule, in all that is in the logs.
func (m *monitor) once(t *testing.T, args ...string) map[string]int {
	t.Helper()
	var out, said bytes.Buffer
	cmd := m.call(t.Context(), append(args, "--once", "--json")...)
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	rules := map[string]int{}
	for d := json.NewDecoder(bytes.NewReader(out.Bytes())); d.More(); {
		var a watch.Alert
		if err := d.Decode(&a); err != nil {
			t.Fatal(err)
		}
		rules[a.Rule]++
	}
	want := 0
	if len(rules) > 0 {
		want = 4
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		t.Fatalf("exit code %d, want %d: %v\n%s%s", got, want, err, &said, &out)
	}
	return rules
}

// hook receives alerts; the first posts it does not take.
type hook struct {
	mu      sync.Mutex
	refused int
	rules   map[string]string // by rule, what the last alert was about
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var n watch.Notice
	if h.refused++; h.refused < 3 || json.NewDecoder(r.Body).Decode(&n) != nil {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	if len(n.Entry) == 0 || n.Proof == "" {
		http.Error(w, "not proven", http.StatusBadRequest)
		return
	}
	h.rules[n.Alert.Rule] = n.Alert.Subject
}

func (h *hook) seen() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.rules)
}

// Somebody who knows the policy follows the logs through a maker's life. It alarms nobody, until a thief with the server's keys acts:
// whatever he does devices refuse, and the monitor tells of it while he does it.
func TestAMonitorTellsOfTheThiefAndOfNothingElse(t *testing.T) {
	if testing.Short() {
		t.Skip("plays whole lives")
	}
	m := &monitor{demo: plan(Options{Devices: 5, Out: io.Discard, programs: programs(t)})}
	m.dir = t.TempDir()
	if keep := os.Getenv("HALLMARK_KEEP"); keep != "" { // to look at what happened
		m.dir = keep
	}
	t.Cleanup(m.stopAll)
	play := func(chapters ...func(context.Context) error) {
		t.Helper()
		for _, chapter := range chapters {
			if err := chapter(t.Context()); err != nil {
				logs, _ := os.ReadFile(filepath.Join(m.dir, "server.log"))
				t.Fatalf("%v\n%s", err, logs[max(0, len(logs)-4000):])
			}
		}
	}
	play(m.build, m.instance)
	m.begin(t)
	h := &hook{rules: map[string]string{}}
	stop := m.follow(t, h)

	play(m.firstRelease, m.produce, m.field, m.update, m.badRelease, m.modified, m.data)
	for _, args := range [][]string{nil, {"--policy", m.policy}} {
		if got := m.once(t, args...); len(got) > 0 {
			t.Fatalf("%v: an ordinary life alarms: %v", args, got)
		}
	}
	if got := h.seen(); len(got) > 0 {
		t.Fatalf("an ordinary life alarms: %v", got)
	}

	play(m.attacks, m.wipeAll)
	want := []string{"command.signer", "command.warrant", "release.signers", "release.unproposed"}
	if ok, _ := wait(t.Context(), 30*time.Second, func() (bool, string) {
		seen := h.seen()
		return !slices.ContainsFunc(want, func(r string) bool { return seen[r] == "" }), ""
	}); !ok {
		t.Errorf("told %v, want %v", h.seen(), want)
	}
	before := m.once(t, "--policy", m.policy)
	play(m.retire) // of which the wipe has its warrant
	after := m.once(t, "--policy", m.policy)
	delete(before, "device.suspect") // a device's counter went on by what the thief had it do
	delete(after, "device.suspect")
	if !maps.Equal(before, after) {
		t.Errorf("retiring alarms: %v, and before %v", after, before)
	}
	stop()
	for rule := range m.once(t, "--policy", m.policy, "--state", m.state) {
		if rule != "device.suspect" { // an event waits until the control log was witnessed after it
			t.Errorf("%s was not told while it happened", rule)
		}
	}
}

// begin takes trust.json, and a policy of the maker as it was made.
func (m *monitor) begin(t *testing.T) {
	t.Helper()
	mine := t.TempDir()
	m.trust, m.policy, m.state = filepath.Join(mine, "trust.json"), filepath.Join(mine, "policy.json"), filepath.Join(mine, "state")
	data, err := os.ReadFile(filepath.Join(m.layout.Dir, "log", "trust.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.trust, data, 0o600); err != nil {
		t.Fatal(err)
	}
	policy, err := output(m.call(t.Context(), "--print-policy"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.policy, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
}

// follow runs the monitor until stop is called.
func (m *monitor) follow(t *testing.T, h *hook) (stop func()) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	secret := filepath.Join(filepath.Dir(m.policy), "secret")
	if err := os.WriteFile(secret, []byte("a secret of sixteen bytes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := m.call(context.WithoutCancel(t.Context()), "--policy", m.policy, "--state", m.state, "--every", "1s", "--webhook", srv.URL, "--webhook-secret-file", secret)
	cmd.Stdout, cmd.Stderr = &said, &said
	var r running
	if err := r.start(cmd); err != nil {
		t.Fatal(err)
	}
	stopped := sync.OnceFunc(func() {
		r.stop(os.Interrupt)
		if t.Failed() {
			t.Logf("the monitor said: %s", &said)
		}
	})
	t.Cleanup(stopped)
	return stopped
}
