package est_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/est"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/suite"
)

var update = flag.Bool("update", false, "write the transcript in docs/guide/est.md anew; then read what has changed")

// The guide's transcript is what curl and openssl really say: each of its commands is run, with no code of ours on the device's side.
// Commands of ours stand for what the administrator does meanwhile.
func TestInteropCurlAndOpenSSLTranscript(t *testing.T) {
	for _, p := range []string{"curl", "openssl"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(p + " is not installed")
		}
	}
	w := newWorld(t)
	id, idev := w.made(true)
	dir := t.TempDir()
	w.files(dir, idev)
	guide := filepath.Join("..", "..", "docs", "guide", "est.md")
	text, err := os.ReadFile(guide)
	must(t, err)
	before, rest, ok := strings.Cut(string(text), "```console\n")
	transcript, after, ok2 := strings.Cut(rest, "```\n")
	if !ok || !ok2 {
		t.Fatal("the guide has no transcript")
	}
	var got strings.Builder
	for line := range strings.Lines(transcript) {
		switch {
		case strings.HasPrefix(line, "$ hallmark "):
			got.WriteString(line)
			w.administer(strings.TrimSpace(strings.TrimPrefix(line, "$ ")), id)
		case strings.HasPrefix(line, "$ "):
			got.WriteString(line)
			got.WriteString(w.shell(dir, id, strings.TrimPrefix(line, "$ ")))
		case strings.HasPrefix(line, "# "), line == "\n":
			got.WriteString(line)
		}
	}
	if *update {
		must(t, os.WriteFile(guide, []byte(before+"```console\n"+got.String()+"```\n"+after), 0o644))
		return
	}
	have, want := strings.Split(got.String(), "\n"), strings.Split(transcript, "\n")
	for i := range max(len(have), len(want)) {
		if i >= len(have) || i >= len(want) || have[i] != want[i] {
			t.Fatalf("line %d of the guide's transcript is not what comes (-update writes it):\n%s", i+1, strings.Join(have[min(i, len(have)):min(i+5, len(have))], "\n"))
		}
	}
}

// varying is what differs each time: it is shown as its beginning.
var varying = regexp.MustCompile(`\b[0-9a-f]{32}\b`)

func (w *world) shell(dir, id, command string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), "sh", "-c", command)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "EST="+w.server.URL+strings.TrimSuffix(est.Prefix, "/"), "DEVICE="+id)
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Errorf("%s: %v\n%s", command, err, out)
	}
	return varying.ReplaceAllString(string(out), "<device>")
}

// administer does what a command of ours would.
func (w *world) administer(command, id string) {
	w.t.Helper()
	switch command {
	case "hallmark product enrolment thermo --mode automatic --server-keys":
		w.registry.rule(suite.P256, product.Enrolment{Mode: product.Automatic, ServerKeys: true})
	case "hallmark product enrolment thermo --mode approved":
		w.registry.rule(suite.P256, product.Enrolment{Mode: product.Approved})
	case "hallmark enrolment approve $DEVICE --request $REQUEST --reason 'its key is the one on the label'":
		_, err := w.onboard.Approve(w.t.Context(), access.Internal("test"), id, w.waiting(id).Request, "its key is the one on the label")
		must(w.t, err)
	default:
		w.t.Fatalf("the transcript has a command that this test cannot stand for: %s", command)
	}
}
