package demo

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The commands of the guide to key ceremonies, copied from it, up to a rehearsal that is verified.
func TestTheCeremonyGuideRunsAsItIsWritten(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a real program")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs/guide/ceremony.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", filepath.Join(dir, "bin", "hallmark"), "./cmd/hallmark")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	blocks := commandsOf(string(text))
	if len(blocks) != 4 {
		t.Fatalf("%d blocks of commands, want those of request, script, tokens and rehearsal", len(blocks))
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -euo pipefail\n"+strings.Join(blocks, "\n"))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"REHEARSAL Step 13 of 13: verify", "rehearsed; throw it away", "REHEARSAL: nothing of it is real", "walt             witness        signed with"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}
