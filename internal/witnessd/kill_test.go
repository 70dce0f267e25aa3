package witnessd_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/witnessd"
	"github.com/hallmark-iot/hallmark/ledger"
)

// witnessOf is the directory that a child of these tests serves a witness over.
const witnessOf = "HALLMARK_TEST_WITNESS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(witnessOf); dir != "" {
		if err := child(witnessd.Dir{Path: dir}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child serves until its input ends.
func child(dir witnessd.Dir) error {
	keys, err := soft.Open(dir.Keys(), "pass")
	if err != nil {
		return err
	}
	w, known, err := dir.Open(context.Background(), keys, 0)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	log := slog.New(slog.DiscardHandler)
	return witnessd.Serve(ctx, witnessd.Listen{Address: "127.0.0.1:0"},
		witnessd.Handler(witnessd.Config{Witness: w, Origins: known.Origins(), Log: log}), log, func(url string) { fmt.Println(url) })
}

// life is a process that serves the rig's directory, until it is killed at a failpoint or stop is called.
func (r *rig) life(t *testing.T, failpoint string) (url string, stop func() *os.ProcessState) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), witnessOf+"="+r.dir.Path, "HALLMARK_FAILPOINTS="+failpoint)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("it did not start: %v", err)
	}
	return strings.TrimSpace(line), func() *os.ProcessState {
		_ = in.Close()
		_ = cmd.Wait() // a signal is what is wanted here
		return cmd.ProcessState
	}
}

// Killed between signing, storing and answering, in every life: what it ever signed is one tree, and what it stored it does not sign
// another of, though nobody was answered.
func TestKilledAnywhereItSignsOneTree(t *testing.T) {
	r := newRig(t)
	a, b := grow(t, "a", 40), grow(t, "b", 40)
	size := int64(0) // that it answered last
	for round, failpoint := range []string{"witness.signed=1", "witness.saved=1", "witness.signed=2", "witness.saved=2", "witness.saved=1", "witness.signed=1"} {
		url, stop := r.life(t, failpoint)
		r.url = url
		for { // until it dies
			next := size + 3
			status, err := r.try(a.request(t, r.log, size, next).Encode())
			if err != nil {
				break
			}
			if status.code == http.StatusConflict { // stored, and killed before it said so
				if status.body != fmt.Sprintf("%d\n", next) {
					t.Fatalf("round %d: it remembers %q after %d and %d", round, status.body, size, next)
				}
				size = next
				continue
			}
			if status.code != http.StatusOK {
				t.Fatalf("round %d: %d %s", round, status.code, status.body)
			}
			size = next
		}
		if ws, ok := stop().Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
			t.Fatalf("round %d: it was not killed at %s", round, failpoint)
		}
		// The next life is asked for another tree of the sizes around.
		url, stop = r.life(t, "")
		r.url = url
		for n := max(1, size-3); n < size+6; n++ {
			for _, old := range []int64{0, size, size + 3} {
				if old > n || old == 0 && size == 0 {
					continue
				}
				if status, err := r.try(b.request(t, r.log, old, n).Encode()); err != nil || status.code == http.StatusOK {
					t.Fatalf("round %d: another tree of size %d after %d: %+v, %v", round, n, size, status, err)
				}
			}
		}
		stop()
	}
	if size < 12 {
		t.Errorf("it got no further than %d", size)
	}
	url, stop := r.life(t, "")
	defer stop()
	r.url = url
	root, err := tlog.TreeHash(40, a)
	if err != nil {
		t.Fatal(err)
	}
	if status, _, answer := r.post(t, a.request(t, r.log, size, 40).Encode()); status != http.StatusOK {
		t.Fatalf("at the end: %d %s", status, answer)
	}
	w, _, err := r.dir.Open(t.Context(), r.keys, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := ledger.ParseNote(w.Latest(origin)); err != nil || n.State != (ledger.State{Size: 40, Root: root}) {
		t.Errorf("%+v, %v", n, err)
	}
}

type answer struct {
	code int
	body string
}

// try posts, and gives an error when nobody answers.
func (r *rig) try(body []byte) (answer, error) {
	resp, err := http.Post(r.url+"/add-checkpoint", "text/plain", bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(resp.Body)
	return answer{resp.StatusCode, b.String()}, err
}
