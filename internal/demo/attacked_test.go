package demo

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var record = flag.Bool("record", false, "write what is said into docs/guide/attacked.md")

// consoles are the blocks of a recorded session: what was typed, after "$ ", and what was said.
var consoles = regexp.MustCompile("(?s)```console\n(.*?)```")

// changing is what of the words differs from one recording to the next.
var changing = regexp.MustCompile(`\b[0-9a-f]{8,}\b|operation \d+|localhost:\d+`)

// The recorded session of a device under attack is what is seen when it is typed again.
func TestADeviceUnderAttackSaysWhatTheSessionSays(t *testing.T) {
	if testing.Short() {
		t.Skip("plays a fleet's life first")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(root, "docs", "guide", "attacked.md")
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	withModules(t, filepath.Join(dir, "bin"))
	var typed []string
	for _, m := range consoles.FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(m[1]) {
			if c, ok := strings.CutPrefix(line, "$ "); ok {
				typed = append(typed, strings.TrimSuffix(c, "\n"))
			}
		}
	}
	first := commandsOf(string(text))
	if len(typed) < 14 || len(first) != 1 {
		t.Fatalf("%d commands, %d blocks before them", len(typed), len(first))
	}
	said := session(t, root, dir, first[0], typed)
	now := consoles.ReplaceAllStringFunc(string(text), func(block string) string {
		var b strings.Builder
		b.WriteString("```console\n")
		for line := range strings.Lines(strings.TrimPrefix(block, "```console\n")) {
			if strings.HasPrefix(line, "$ ") {
				b.WriteString(line + said[0])
				said = said[1:]
			}
		}
		return b.String() + "```"
	})
	if *record {
		if err := os.WriteFile(page, []byte(now), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	was, is := changing.ReplaceAllString(string(text), "…"), changing.ReplaceAllString(now, "…")
	if was != is {
		t.Errorf("docs/guide/attacked.md was recorded otherwise: look at it with git diff after `go test ./internal/demo -run Attack -record`\n%s", now)
	}
}

// session types the commands into one shell, after what has to be there first, and gives what each said. It begins in the repository, which
// the demonstration builds its firmware from, and goes on where that is kept.
func session(t *testing.T, root, dir, first string, typed []string) []string {
	t.Helper()
	const mark = "--- said ---"
	var script strings.Builder
	script.WriteString("cd " + root + "\n" + strings.Replace(first, "--dir ./maker >demo.log\n", "--dir "+dir+"/maker >"+dir+"/demo.log || exit 1\ncd "+dir+"\n", 1))
	for _, c := range typed {
		script.WriteString("\necho '" + mark + "'\n" + c + "\n")
	}
	cmd := exec.CommandContext(t.Context(), "bash")
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "HOME="+dir)
	cmd.WaitDelay = 10 * time.Second
	cmd.Stdin = strings.NewReader("exec 2>&1\n" + script.String() + "\nwait\n")
	out, err := cmd.Output()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	parts := strings.Split(string(out), mark+"\n")
	if len(parts) != len(typed)+1 {
		t.Fatalf("%d commands were typed, and %d have said something: %v\n%s", len(typed), len(parts)-1, err, out)
	}
	return parts[1:]
}
