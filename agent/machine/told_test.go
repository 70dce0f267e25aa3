package machine

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/wire"
)

// A program is told the parameters that it names, and no others: when it is well, when they change, and when it was started anew. What it answers is known.
func TestAProgramIsToldItsParameters(t *testing.T) {
	built := t.TempDir()
	build := func(name, of string, env ...string) string {
		out := filepath.Join(built, name)
		cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", out, of)
		cmd.Env = append(os.Environ(), append(env, "CGO_ENABLED=0")...)
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		return out
	}
	// The module's host is the agent itself, as on a device: the tests' own file takes more memory for the race detector than any module may have.
	self := build("hallmark-agent", "../../cmd/hallmark-agent")
	code, err := os.ReadFile(build("module.wasm", "../launch/testdata/module", "GOOS=wasip1", "GOARCH=wasm"))
	if err != nil {
		t.Fatal(err)
	}
	sum, dir := sha256.Sum256(code), t.TempDir()
	var log bytes.Buffer
	x := &program{name: "app", what: wire.Component{
		Name: "app", Kind: wire.KindExec, Version: "1.0.0", Size: uint64(len(code)), Digest: sum[:], Health: wire.HealthSocket,
		Capabilities: &wire.Capabilities{Runtime: wire.RuntimeWASM, Parameters: []string{"key", "mode", "rate"}},
	}, schema: wire.Schema{
		{Name: "key", Type: wire.TypeText, Secret: true},
		{Name: "mode", Type: wire.TypeEnumeration, Values: []string{"eco", "full"}, Default: new("eco")},
		{Name: "other", Type: wire.TypeText},
		{Name: "rate", Type: wire.TypeInteger},
	}}
	x.start = func() (*launch.Process, error) {
		return launch.Start(bytes.NewReader(code), x.what, launch.Options{Dir: dir, Device: t.Name(), Self: self, Output: &log})
	}
	if x.proc, err = x.start(); err != nil {
		t.Fatal(err)
	}
	p := &Programs{list: []*program{x}}
	t.Cleanup(p.Stop)
	well := func() {
		t.Helper()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if h, _ := p.Health(); h == agent.HealthGood {
				return
			}
		}
		t.Fatal("it is not well")
	}
	has := func(want, answer string) {
		t.Helper()
		said, err := x.proc.Ask(t.Context(), "told")
		if got := fmt.Sprintf("%+v", p.Told()); err != nil || said != "ok "+want || got != answer {
			t.Fatalf("it has %q, %v; said of it: %s", said, err, got)
		}
	}
	well()
	has("", "[{Program:app Parameters:[key mode rate] Taken:false Answered:false Text:}]")
	set := func(rate string) {
		t.Helper()
		if err := p.Configure([]wire.ConfigEntry{{Name: "key", Value: strings.Repeat("k", 1000)}, {Name: "other", Value: "x"}, {Name: "rate", Value: rate}}); err != nil {
			t.Fatal(err)
		}
	}
	const took, refused = "[{Program:app Parameters:[key mode rate] Taken:true Answered:true Text:}]", "[{Program:app Parameters:[key mode rate] Taken:false Answered:true Text:99 is too fast}]"
	seven := `{"key":"` + strings.Repeat("k", 1000) + `","mode":"eco","rate":7}`
	set("7")
	has(seven, took)
	set("99")
	has(seven, refused)
	set("7")
	has(seven, took)
	x.proc.Stop()
	if x.proc, err = x.start(); err != nil {
		t.Fatal(err)
	}
	well()
	has(seven, took)
	p.Stop()
	if strings.Contains(log.String(), "kkkk") {
		t.Errorf("a secret is in the log: %s", log.String())
	}
}
