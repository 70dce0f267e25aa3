package launch

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// build makes the demo's firmware.
func build(t *testing.T, flags string) ([]byte, wire.Component) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "fw")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w "+flags, "-o", out, "../../internal/demo/firmware")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return component(t, out, wire.HealthSocket)
}

func component(t *testing.T, path string, h wire.HealthCheck, args ...string) ([]byte, wire.Component) {
	t.Helper()
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(code)
	return code, wire.Component{Name: "app", Kind: wire.KindExec, Version: "1.0.0", Size: uint64(len(code)), Digest: sum[:], Health: h, Args: args}
}

func known(t *testing.T, p *Process) (bool, string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if good, ok, text := p.Health(t.Context()); ok {
			return good, text
		}
	}
	t.Fatal("never known")
	return false, ""
}

func TestAProgramRunsAndSaysHowItIs(t *testing.T) {
	for _, c := range []struct {
		flags string
		good  bool
		says  string
	}{{"-X main.version=1.2.3", true, "version 1.2.3"}, {"-X main.version=1.2.4 -X main.behaviour=sick", false, "pressure sensor"}} {
		code, comp := build(t, c.flags)
		p, err := Start(bytes.NewReader(code), comp, t.TempDir(), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		good, text := known(t, p)
		if good != c.good || !strings.Contains(text, c.says) {
			t.Errorf("%s: good %v, %q", c.flags, good, text)
		}
		if s, err := p.Ask(t.Context(), "sample"); err != nil || !strings.HasPrefix(s, "load ") {
			t.Errorf("sample %q, %v", s, err)
		}
		p.Stop()
		if good, _, text := p.Health(t.Context()); good {
			t.Errorf("stopped, and good: %s", text)
		}
	}
}

func TestAnyExecutableStarts(t *testing.T) {
	for path, want := range map[string]bool{"/bin/true": true, "/bin/false": false} {
		code, comp := component(t, path, wire.HealthAlive)
		p, err := Start(bytes.NewReader(code), comp, t.TempDir(), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if good, text := known(t, p); good != want {
			t.Errorf("%s: good %v, %s", path, good, text)
		}
		p.Stop()
	}
}

func TestOtherBytesDoNotStart(t *testing.T) {
	code, comp := component(t, "/bin/true", wire.HealthAlive)
	code[len(code)/2] ^= 1
	if _, err := Start(bytes.NewReader(code), comp, t.TempDir(), io.Discard); err == nil {
		t.Error("changed bytes were started")
	}
	if _, err := Start(bytes.NewReader(code[:100]), comp, t.TempDir(), io.Discard); err == nil {
		t.Error("a part of the bytes was started")
	}
}
