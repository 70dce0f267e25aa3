package cli_test

import (
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/cli"
	"github.com/hallmark-iot/hallmark/internal/docstest"
)

// mentioned are the commands of hallmark that a text names in back quotes, as words up to the first that is no name of a command.
func mentioned(text string) []string {
	var out []string
	for _, m := range regexp.MustCompile("`hallmark ([a-z][^`]*)`").FindAllStringSubmatch(text, -1) {
		var words []string
		for w := range strings.FieldsSeq(m[1]) {
			if !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(w) {
				break
			}
			words = append(words, w)
		}
		out = append(out, strings.Join(words, " "))
	}
	return out
}

// goTexts are the string literals of a Go file, joined where they are added to each other, and its comments.
func goTexts(t *testing.T, path string, data []byte) string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, data, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	ast.Inspect(f, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if s, err := strconv.Unquote(l.Value); err == nil {
				b.WriteString(s)
			}
		}
		return true
	})
	for _, g := range f.Comments {
		b.WriteString(g.Text())
	}
	return b.String()
}

// places are the commands mentioned anywhere, each with a file that does.
func places(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if err == nil && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
				return filepath.SkipDir
			}
			return err
		}
		isGo := strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go")
		if !isGo && !strings.HasSuffix(path, ".md") {
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		text := string(data)
		if isGo {
			text = goTexts(t, path, data)
		}
		for _, c := range mentioned(text) {
			out[c] = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A remedy that names a command is one only if the command is there.
func TestEveryCommandThatIsMentionedExists(t *testing.T) {
	all := places(t)
	if len(all) < 10 {
		t.Fatalf("only %d commands found: %v", len(all), all)
	}
	for _, c := range slices.Sorted(maps.Keys(all)) {
		if !exists(c) {
			t.Errorf("%s mentions `hallmark %s`, and there is no such command", all[c], c)
		}
	}
}

// help runs hallmark and gives its exit code and what it printed.
func help(args ...string) (int, string) {
	var out bytes.Buffer
	code := cli.Main(args, strings.NewReader(""), &out, &out)
	return code, out.String()
}

// What the pages tell people to type is taken by the program: the command is there, and so are its flags.
func TestEveryCallInTheDocumentationParses(t *testing.T) {
	calls := docstest.Calls(t, filepath.Join("..", ".."), "hallmark")
	if len(calls) < 50 {
		t.Fatalf("only %d calls found", len(calls))
	}
	for _, w := range docstest.Wrong(calls, help) {
		t.Error(w)
	}
}

// exists asks the program itself: words that a command takes as arguments may follow it.
func exists(command string) bool {
	var out, errOut bytes.Buffer
	words := strings.Fields(command)
	if cli.Main(append(slices.Clone(words), "--help"), strings.NewReader(""), &out, &errOut) != 0 {
		return false
	}
	_, usage, _ := strings.Cut(out.String(), "Usage:\n")
	usage, _, _ = strings.Cut(strings.TrimSpace(usage), "\n")
	found := 0
	for i, w := range strings.Fields(usage)[1:] {
		if i >= len(words) || words[i] != w {
			break
		}
		found++
	}
	return found == len(words) || found > 0 && !strings.Contains(out.String(), "Available Commands")
}

func TestMentionsCanFail(t *testing.T) {
	got := mentioned("see `hallmark device list --all`, `hallmark dance now`, `hallmark-station run`")
	if !slices.Equal(got, []string{"device list", "dance now"}) {
		t.Errorf("%q", got)
	}
	for command, want := range map[string]bool{
		"device list": true, "init": true, "approve": true, "dance": false, "device dance": false, "device": true, "completion bash": true,
	} {
		if exists(command) != want {
			t.Errorf("%q exists: %v", command, !want)
		}
	}
}

// Each command says what it does and how it is called.
func TestEveryVerbHasAnExample(t *testing.T) {
	var nouns int
	for _, noun := range subcommands(t) {
		for _, verb := range subcommands(t, noun) {
			if noun == "log" || noun == "completion" {
				continue
			}
			nouns++
			var out bytes.Buffer
			cli.Main([]string{noun, verb, "--help"}, strings.NewReader(""), &out, &out)
			if !strings.Contains(out.String(), "\n  hallmark "+noun+" "+verb) {
				t.Errorf("`hallmark %s %s --help` has no example", noun, verb)
			}
		}
	}
	if nouns < 30 {
		t.Errorf("only %d verbs found", nouns)
	}
}

// Each command is shown at work, with its bad input, by a script.
func TestEveryVerbHasAScript(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(data)
	}
	for _, noun := range subcommands(t) {
		verbs := subcommands(t, noun)
		if len(verbs) == 0 || noun == "completion" {
			verbs = []string{""}
		}
		for _, verb := range verbs {
			words := strings.TrimSpace(noun + " " + verb)
			if !regexp.MustCompile(`hallmark ` + words + `\b`).MatchString(all.String()) {
				t.Errorf("no script runs `hallmark %s`", words)
			}
		}
	}
}

// subcommands asks the program's completion for names.
func subcommands(t *testing.T, words ...string) []string {
	t.Helper()
	var out, errOut bytes.Buffer
	cli.Main(append(append([]string{"__complete"}, words...), ""), strings.NewReader(""), &out, &errOut)
	var names []string
	for line := range strings.Lines(out.String()) {
		if name, _, ok := strings.Cut(line, "\t"); ok && name != "help" && !strings.HasPrefix(name, "-") {
			names = append(names, name)
		}
	}
	return names
}
