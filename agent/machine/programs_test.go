package machine

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/wire"
)

// programOf is one program of a release, running.
func programOf(t *testing.T, code []byte, health wire.HealthCheck, args ...string) *Programs {
	t.Helper()
	sum := sha256.Sum256(code)
	dir := t.TempDir()
	x := &program{name: "app", start: func() (*launch.Process, error) {
		return launch.Start(bytes.NewReader(code), wire.Component{
			Name: "app", Kind: wire.KindExec, Version: "1.0.0", Size: uint64(len(code)), Digest: sum[:], Health: health, Args: args,
		}, dir, io.Discard)
	}}
	var err error
	if x.proc, err = x.start(); err != nil {
		t.Fatal(err)
	}
	p := &Programs{list: []*program{x}}
	t.Cleanup(p.Stop)
	return p
}

// A program that cannot be told to be quiet is stopped for as long as it has to be, and runs again afterwards.
func TestAProgramThatDoesNotIsolateItselfIsStopped(t *testing.T) {
	code, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	p := programOf(t, code, wire.HealthAlive, "600")
	first := p.list[0].proc
	if err := p.Isolate(true); err != nil {
		t.Fatal(err)
	}
	if !first.Ended() {
		t.Fatal("it goes on, and was reported isolated")
	}
	if h, text := p.Health(); h == agent.HealthGood || !strings.Contains(text, "stopped") {
		t.Errorf("health %v, %q", h, text)
	}
	if err := p.Isolate(true); err != nil { // again changes nothing
		t.Fatal(err)
	}
	if err := p.Isolate(false); err != nil {
		t.Fatal(err)
	}
	if x := p.list[0].proc; x == nil || x == first || x.Ended() {
		t.Error("after the isolation it does not run again")
	}
}

// A program that says that it is quiet goes on.
func TestAProgramThatIsolatesItselfGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "firmware")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", path, "../../internal/demo/firmware")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := programOf(t, code, wire.HealthSocket)
	for _, on := range []bool{true, false} { // asked just after the start, when it may not listen yet
		if err := p.Isolate(on); err != nil {
			t.Fatal(err)
		}
		if p.list[0].proc == nil || p.list[0].proc.Ended() {
			t.Fatalf("isolation %v stopped it", on)
		}
	}
	if _, ok := p.Sample(t.Context()); !ok {
		t.Error("it gives no reading")
	}
}
