package server

import (
	"bufio"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/witnessd"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
)

// othersTools builds tools/tlog, the witness and the log of others. Its module is its own, so that none of it is the product's.
func othersTools(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "tlog")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-C", filepath.Join("..", "..", "tools", "tlog"), "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("tools/tlog: %v\n%s", err, out)
	}
	return program
}

// Our logs under somebody else's witness, with keys of both kinds.
func TestInteropOurLogsAndTheirWitness(t *testing.T) {
	program := othersTools(t)
	l, keys := made(t)
	i := opened(t, l, keys)
	var logs []string
	for _, log := range i.logs.trust.Logs {
		logs = append(logs, log.verifierKey().String())
	}
	cmd := exec.CommandContext(t.Context(), program, append([]string{"witness"}, logs...)...)
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
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // it ends with its input
	})
	far := WitnessConfig{}
	for sc := bufio.NewScanner(out); len(far.Keys) < 2 && sc.Scan(); {
		if far.URL == "" {
			far.URL = sc.Text()
			continue
		}
		k, err := ledger.ParseVerifierKey(sc.Text())
		if err != nil {
			t.Fatal(err)
		}
		far.Keys = append(far.Keys, k)
	}
	if len(far.Keys) < 2 {
		t.Fatal("their witness ended")
	}
	far.Name = far.Keys[0].Name
	cfg := i.cfg
	cfg.Witnesses, cfg.Quorum = append(cfg.Witnesses, far), 3
	if err := errors.Join(i.Close(), cfg.save(l)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // as after a restart: then what it remembers is asked for
		i = opened(t, l, keys)
		for range 3 {
			grow(t, i, ledger.Control)
			if err := i.logs.settle(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := i.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := verified(t, l, func(*audit.Trust) {}); err != nil || len(r.Cosigned) != 3 || len(r.Strange) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Somebody else's log under our witness: their client asks, and their verifiers judge each cosignature of both kinds.
func TestInteropTheirLogAndOurWitness(t *testing.T) {
	program := othersTools(t)
	keys, err := exec.CommandContext(t.Context(), program, "key", "other.example/log").Output()
	if err != nil {
		t.Fatal(err)
	}
	skey, vkey, _ := strings.Cut(strings.TrimSpace(string(keys)), "\n")
	known, err := ledger.ParseVerifierKey(vkey)
	if err != nil {
		t.Fatal(err)
	}
	w := newElsewhere(t, nil, witnessd.Log{Origin: "other.example/log", Keys: []ledger.VerifierKey{known}})
	out, err := exec.CommandContext(t.Context(), program, "log", w.URL, skey, w.Keys[0].String(), w.Keys[1].String()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "witnessed to size 1000 by 2 keys") {
		t.Errorf("%s%v", out, err)
	}
}
