package archtest

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// direct are the modules that a go.mod requires itself.
func direct(gomod string) []string {
	var out []string
	for line := range strings.Lines(gomod) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "require ")
		f := strings.Fields(line)
		if len(f) == 2 && strings.HasPrefix(f[1], "v") && strings.Contains(f[0], ".") {
			out = append(out, f[0])
		}
	}
	return out
}

// rows are a Markdown table's rows, each by its cells.
func rows(page string) [][]string {
	var out [][]string
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		out = append(out, cells)
	}
	return out
}

func TestEveryDependencyHasItsReason(t *testing.T) {
	modules := direct(read(t, "go.mod"))
	if len(modules) < 10 {
		t.Fatalf("only %d direct dependencies found in go.mod", len(modules))
	}
	reasons := map[string]string{}
	for _, r := range rows(read(t, "docs/dependencies.md")) {
		if len(r) >= 2 {
			reasons[r[0]] = r[1]
		}
	}
	for _, m := range modules {
		if reasons[m] == "" {
			t.Errorf("docs/dependencies.md has no line with a reason for %s", m)
		}
	}
	for m := range reasons {
		if strings.Contains(m, "/") && strings.Contains(m, ".") && !strings.Contains(m, " ") && !slices.Contains(modules, m) {
			t.Errorf("docs/dependencies.md explains %s, which go.mod does not require", m)
		}
	}
}

// requirements are the ids of the complete list of what is asked, and how many each group has.
var requirements = []struct {
	group string
	count int
}{{"A", 6}, {"B", 9}, {"C", 13}, {"D", 8}, {"E", 7}, {"X", 9}}

func TestEveryRequirementIsTraced(t *testing.T) {
	tests := testNames(t)
	traced := map[string][]string{}
	for _, r := range rows(read(t, "docs/traceability.md")) {
		if _, twice := traced[r[0]]; twice {
			t.Errorf("docs/traceability.md has two rows for %s", r[0])
		}
		traced[r[0]] = r
	}
	for _, g := range requirements {
		for i := 1; i <= g.count; i++ {
			id := fmt.Sprintf("%s%d", g.group, i)
			r, ok := traced[id]
			if !ok {
				t.Errorf("docs/traceability.md has no row for %s", id)
				continue
			}
			if len(r) != 5 || slices.Contains(r, "") {
				t.Errorf("docs/traceability.md: %s needs id, requirement, code, test and page; 'planned: later' where there is none", id)
				continue
			}
			for _, cell := range r[2:] {
				if strings.Count(cell, "planned:") != strings.Count(cell, "planned: later") {
					t.Errorf("docs/traceability.md: %s still waits for an area of work: %s", id, cell)
				}
			}
			for _, gone := range missingPaths(r[2:]) {
				t.Errorf("docs/traceability.md: %s names %s, which is not there", id, gone)
			}
			for _, name := range unknown(r[3], tests) {
				t.Errorf("docs/traceability.md: %s names %s, and there is no such test", id, name)
			}
		}
	}
}

// A promise about a failure is shown by a test, or says that it is only planned.
func TestEveryPromisedFailureIsShown(t *testing.T) {
	tests, n := testNames(t), 0
	for _, r := range rows(read(t, "docs/operations.md")) {
		if len(r) != 4 || r[3] == "shown by" {
			continue
		}
		n++
		if r[3] != "planned" && !testName.MatchString(r[3]) {
			t.Errorf("docs/operations.md: %q is shown by %q: a test, or planned", r[0], r[3])
		}
		for _, name := range unknown(r[3], tests) {
			t.Errorf("docs/operations.md: %q names %s, and there is no such test", r[0], name)
		}
	}
	if n < 10 {
		t.Errorf("only %d failures listed in docs/operations.md", n)
	}
}

func testNames(t *testing.T) map[string]bool {
	t.Helper()
	tests := map[string]bool{}
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && s.test() {
				tests[fn.Name.Name] = true
			}
		}
	}
	return tests
}

// unknown are the tests that a text names and that are not there.
func unknown(text string, tests map[string]bool) []string {
	return slices.DeleteFunc(testName.FindAllString(text, -1), func(name string) bool { return tests[name] })
}

var testName = regexp.MustCompile(`\b(Test|Fuzz)[A-Z]\w*`)

// missingPaths are the files and folders named in back quotes that do not exist. What begins with a capital letter is a name
// in the code, not a path.
func missingPaths(cells []string) []string {
	var gone []string
	for _, c := range cells {
		for i, part := range strings.Split(c, "`") {
			if i%2 == 0 || part == "" || strings.ContainsAny(part, " *") || part[0] >= 'A' && part[0] <= 'Z' {
				continue
			}
			if _, err := os.Stat(filepath.Join("..", "..", filepath.FromSlash(part))); err != nil {
				gone = append(gone, part)
			}
		}
	}
	return gone
}

func TestTheDocsCanFail(t *testing.T) {
	mods := direct("module m\n\ngo 1.26.0\n\nrequire (\n\ta.example/x v1.0.0\n\tb.example/y v1.0.0 // indirect\n)\nrequire c.example/z v2.0.0\n")
	if !slices.Equal(mods, []string{"a.example/x", "c.example/z"}) {
		t.Errorf("direct dependencies: %v", mods)
	}
	if got := rows("| id | x |\n|---|---|\n| A1 | y |\ntext\n"); len(got) != 2 || got[1][0] != "A1" || got[1][1] != "y" {
		t.Errorf("rows: %v", got)
	}
	if got := unknown("TestA in x, TestB", map[string]bool{"TestA": true}); !slices.Equal(got, []string{"TestB"}) {
		t.Errorf("unknown tests: %v", got)
	}
	if got := missingPaths([]string{"`docs/traceability.md`, `docs/nowhere.md`, `TestX`"}); !slices.Equal(got, []string{"docs/nowhere.md"}) {
		t.Errorf("missing paths: %v", got)
	}
}
