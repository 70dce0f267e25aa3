package demo

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// commandsOf gives the shell commands of a guide; those marked skip are to be looked at.
func commandsOf(text string) (blocks []string) {
	for i, part := range strings.Split(text, "\n```") {
		if block, ok := strings.CutPrefix(part, "sh\n"); ok && i%2 == 1 {
			blocks = append(blocks, block)
		}
	}
	return blocks
}

// withModules builds the three programs, the station with PKCS#11, into dir.
func withModules(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"hallmark", "hallmark-agent", "hallmark-station"} {
		build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", filepath.Join(dir, name), "../../cmd/"+name)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
}

// The guide's commands, copied from it, do what it says they do.
func TestTheGuideRunsAsItIsWritten(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real programs for a minute")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs/guide/getting-started.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	withModules(t, filepath.Join(dir, "bin"))
	api, err := freePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	devices, err := freePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	local := strings.NewReplacer("127.0.0.1", "localhost") // the name in the server's certificate
	ports := strings.NewReplacer("localhost:8480", local.Replace(api), "localhost:8443", local.Replace(devices),
		"hallmark init ", fmt.Sprintf("hallmark init --api %s --devices %s ", api, devices))
	const until = "for i in $(seq 900); do %s && break; sleep 0.2; done\n"
	var script strings.Builder
	script.WriteString("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n")
	for _, block := range commandsOf(string(text)) {
		script.WriteString(ports.Replace(block) + "\n")
		switch {
		case strings.Contains(block, "hallmark serve"):
			fmt.Fprintf(&script, until, fmt.Sprintf("(echo >/dev/tcp/%s) 2>/dev/null", strings.ReplaceAll(api, ":", "/")))
		case strings.Contains(block, "hallmark-agent run"):
			fmt.Fprintf(&script, until, `test "$(hallmark device list --token-file olga | grep -c 'active *1.0.0 *healthy *warning')" = 3`)
		case strings.Contains(block, "rollout create"):
			fmt.Fprintf(&script, until, "hallmark rollout show --token-file olga pump-1.1.0 | grep -q 'phase *completed'")
			script.WriteString("hallmark rollout show --token-file olga pump-1.1.0\nhallmark device list --token-file olga\n")
		}
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script.String())
	cmd.Dir, cmd.WaitDelay = dir, 10*time.Second
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "XDG_CONFIG_HOME="+filepath.Join(dir, "config"), "HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for what, n := range map[string]int{"active   1.1.0    healthy": 3, "would have no way back": 0, "phase    completed": 1, " verifies\n": 2} {
		if got := strings.Count(strings.Join(strings.Fields(string(out)), " "), strings.Join(strings.Fields(what), " ")); got != n {
			t.Errorf("%q %d times, want %d", what, got, n)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}
