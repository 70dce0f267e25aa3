// Package archtest holds the house's rules: who may import whom, and how the code is kept.
//
// Under all stages. DESIGN and CONTRIBUTING say the rules; these tests make them true.
package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/hallmark-iot/hallmark/"

// rule says what the packages under a folder may import of ours, and what they may not import of others.
type rule struct {
	under  string   // folder; the longest that fits a package applies
	may    []string // folders of ours, besides its own
	forbid []string // import paths of others, by prefix
}

var (
	base     = []string{"wire", "suite", "fault"}
	ground   = append([]string{"ledger", "access"}, base...)
	floor    = append([]string{"device", "pki", "product"}, ground...)
	noIO     = []string{"net/http", "database/sql", "modernc.org/", "os/exec", "os"}
	noServer = []string{"database/sql", "modernc.org/", "net/http/pprof", "github.com/spf13/cobra", "github.com/cedar-policy"}
)

// rules are the direction of imports, in the order of a device's life.
var rules = []rule{
	{under: "fault"},
	{under: "suite", may: []string{"fault"}, forbid: noIO},
	{under: "wire", may: base, forbid: noIO},
	{under: "ledger", may: base, forbid: noIO},
	{under: "ledger/audit", forbid: []string{"database/sql"}}, // shares no code with the writer
	{under: "ledger/witness", may: ground, forbid: noIO},
	{under: "ledger/devicelog", may: ground, forbid: noIO},
	{under: "access", may: append([]string{"ledger"}, base...), forbid: noIO},
	{under: "product", may: ground, forbid: noIO},
	{under: "device", may: ground, forbid: noIO},
	{under: "pki", may: ground, forbid: noIO},
	{under: "supply", may: floor, forbid: noIO},
	{under: "factory", may: floor, forbid: noIO},
	{under: "onboard", may: floor, forbid: noIO},
	{under: "attest", may: floor, forbid: noIO},
	{under: "release", may: floor, forbid: noIO},
	{under: "rollout", may: append([]string{"release"}, floor...), forbid: noIO},
	{under: "telemetry", may: floor, forbid: noIO},
	{under: "monitor", may: floor, forbid: noIO},
	{under: "remedy", may: append([]string{"attest", "monitor"}, floor...), forbid: noIO},
	{under: "retire", may: floor, forbid: noIO},
	{under: "fleet", may: floor, forbid: noIO},
	{under: "agent", may: base, forbid: noServer},
	{under: "agent/boot", may: append([]string{"agent/hw"}, base...), forbid: append([]string{"net/http"}, noServer...)},
	{under: "agent/hw", may: base, forbid: append([]string{"net/http"}, noServer...)},
	{under: "station", may: base, forbid: noServer},
	{under: "cmd/hallmark-agent", may: append([]string{"agent"}, base...), forbid: noServer},
	{under: "cmd/hallmark-station", may: append([]string{"station"}, base...), forbid: []string{"database/sql", "modernc.org/"}},
}

// adapters may import stages and what is internal, but not one another.
var adapters = []string{"internal/est", "internal/httpapi", "internal/console", "internal/deviceapi", "internal/mqttgw", "internal/ddi"}

type pkg struct {
	ImportPath, Dir, Name, Doc string
	Imports                    []string
	GoFiles                    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json", "../../...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func within(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// violation names what is wrong with importing imp from the package at path; "" when nothing is.
func violation(path, imp string) string {
	var best *rule
	for i, r := range rules {
		if within(path, r.under) && (best == nil || len(r.under) > len(best.under)) {
			best = &rules[i]
		}
	}
	if best == nil {
		for _, a := range adapters {
			for _, b := range adapters {
				if a != b && within(path, a) && within(imp, module+b) {
					return "adapters do not import each other"
				}
			}
		}
		return ""
	}
	if ours, ok := strings.CutPrefix(imp, module); ok {
		if within(ours, best.under) || slices.ContainsFunc(best.may, func(m string) bool { return within(ours, m) }) {
			return ""
		}
		return best.under + " may not import " + ours
	}
	for _, f := range best.forbid {
		if imp == f || strings.HasSuffix(f, "/") && strings.HasPrefix(imp, f) || strings.HasPrefix(imp, f+"/") && f != "os" {
			return best.under + " may not import " + f
		}
	}
	return ""
}

func TestImportsPointOneWay(t *testing.T) {
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			if v := violation(strings.TrimPrefix(p.ImportPath, module), imp); v != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, imp, v)
			}
		}
	}
}

func TestTheRulesCanFail(t *testing.T) {
	for _, c := range []struct {
		path, imp string
		bad       bool
	}{
		{"wire", "net/http", true},
		{"wire", "crypto/sha256", false},
		{"wire/idevid", module + "pki", true},
		{"device", "database/sql", true},
		{"rollout", module + "release", false},
		{"release", module + "rollout", true},
		{"agent/gate", module + "device", true},
		{"agent/boot", "net/http", true},
		{"agent/link", "net/http", false},
		{"station", module + "internal/store", true},
		{"internal/est", module + "internal/httpapi", true},
		{"ledger/audit", module + "ledger", true},
		{"ledger/audit", module + "wire", true},
	} {
		if got := violation(c.path, c.imp); (got != "") != c.bad {
			t.Errorf("%s importing %s: %q, want violation=%v", c.path, c.imp, got, c.bad)
		}
	}
}

var badNames = []string{"common", "util", "utils", "types", "models", "helpers", "misc"}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		if slices.Contains(badNames, p.Name) {
			t.Errorf("%s: a package named %s has no one idea", p.ImportPath, p.Name)
		}
	}
}

// sources calls fn for each Go file of the module that a person wrote.
func sources(t *testing.T, fn func(path string, f *ast.File, fset *token.FileSet, lines int)) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root && d.Name() != ".." || d.Name() == "tools" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_templ.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, src, parser.ParseComments)
		if err != nil {
			return err
		}
		fn(path, f, fset, bytes.Count(src, []byte("\n")))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

const (
	maxFile     = 800
	maxFunction = 80
)

func TestFilesAndFunctionsFitASitting(t *testing.T) {
	n := 0
	sources(t, func(path string, f *ast.File, fset *token.FileSet, lines int) {
		n++
		if lines > maxFile {
			t.Errorf("%s has %d lines, at most %d", path, lines, maxFile)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if fn.Name.Name == "init" && fn.Recv == nil {
				t.Errorf("%s has an init function: say it where it is used", path)
			}
			long := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line
			if long > maxFunction && !strings.HasSuffix(path, "_test.go") {
				t.Errorf("%s: %s has %d lines, at most %d", path, fn.Name.Name, long, maxFunction)
			}
		}
	})
	if n < 50 {
		t.Fatalf("only %d files found", n)
	}
}

var decoder = regexp.MustCompile(`^(Decode|Parse)[A-Z0-9]`)

// Every exported function that reads bytes from outside has a fuzz target in its package: named after it, or calling it.
func TestEveryDecoderIsFuzzed(t *testing.T) {
	decoders, fuzzed := map[string][]string{}, map[string]string{}
	sources(t, func(path string, f *ast.File, _ *token.FileSet, _ int) {
		dir := filepath.Dir(path)
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil {
				continue
			}
			name := fn.Name.Name
			switch {
			case strings.HasPrefix(name, "Fuzz"):
				ast.Inspect(fn, func(n ast.Node) bool {
					if id, ok := n.(*ast.Ident); ok {
						fuzzed[dir] += " " + id.Name
					}
					return true
				})
			case decoder.MatchString(name) && takesBytes(fn):
				decoders[dir] = append(decoders[dir], name)
			}
		}
	})
	if len(decoders) < 1 {
		t.Fatal("no decoder found")
	}
	for dir, names := range decoders {
		for _, name := range names {
			if !slices.Contains(strings.Fields(fuzzed[dir]), name) {
				t.Errorf("%s: %s has no fuzz target", dir, name)
			}
		}
	}
}

func takesBytes(fn *ast.FuncDecl) bool {
	for _, p := range fn.Type.Params.List {
		if a, ok := p.Type.(*ast.ArrayType); ok && a.Len == nil {
			if id, ok := a.Elt.(*ast.Ident); ok && id.Name == "byte" {
				return true
			}
		}
	}
	return false
}

func TestEveryDependencyHasItsReason(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	reasons, err := os.ReadFile(filepath.Join("..", "..", "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mod)) {
		f := strings.Fields(line)
		if len(f) != 2 || !strings.HasPrefix(line, "\t") {
			continue // a block's edge, or an indirect dependency
		}
		if !bytes.Contains(reasons, []byte("| "+f[0]+" |")) {
			t.Errorf("docs/dependencies.md has no line for %s", f[0])
		}
	}
}
