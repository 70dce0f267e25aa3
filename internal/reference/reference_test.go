package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The Go client is what the API's description makes of it now.
func TestTheGoClientIsCurrent(t *testing.T) {
	tool, err := exec.Command("../../scripts/tool.sh", "oapi-codegen").Output()
	if err != nil {
		t.Skip("oapi-codegen is not installed, and could not be built:", err)
	}
	data, err := descriptionForGo()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	described, made := filepath.Join(dir, "openapi.json"), filepath.Join(dir, "api.gen.go")
	if err := os.WriteFile(described, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(strings.TrimSpace(string(tool)), "-config", "../../client/oapi-codegen.yaml", "-o", made, described).CombinedOutput()
	if err != nil {
		t.Fatalf("oapi-codegen: %v\n%s", err, out)
	}
	want, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("../../client/api.gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Errorf("client/api.gen.go is not what the API's description makes of it (%s): make clients", firstDifference(have, want))
	}
}

// Made twice, it is the same: nothing of a map's order or the time goes in.
func TestTheDescriptionIsTheSameEachTime(t *testing.T) {
	for _, of := range []func() ([]byte, error){description, descriptionForGo} {
		first, err := of()
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if again, err := of(); err != nil || !bytes.Equal(first, again) {
				t.Fatalf("made again it differs (%v): %s", err, firstDifference(first, again))
			}
		}
	}
}

// firstDifference names the first line that two texts do not share.
func firstDifference(have, want []byte) string {
	h, w := strings.Split(string(have), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(h), len(w)) {
		if h[i] != w[i] {
			return "first “" + strings.TrimSpace(h[i]) + "” instead of “" + strings.TrimSpace(w[i]) + "”"
		}
	}
	return "one ends before the other"
}

// The reference is what the code says now.
func TestTheReferenceIsCurrent(t *testing.T) {
	const root = "../.."
	all, err := pages(root)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, filepath.FromSlash(folder))
	for _, p := range all {
		have, err := os.ReadFile(filepath.Join(dir, p.name))
		if err != nil {
			t.Errorf("%v: make docs", err)
		} else if !bytes.Equal(have, p.text) {
			t.Errorf("%s/%s is not what the code says (%s): make docs", folder, p.name, firstDifference(have, p.text))
		}
	}
	old, err := strangers(dir, all)
	if err != nil || len(old) > 0 {
		t.Errorf("%s has what is no page of it, %v (%v): make docs", folder, old, err)
	}
}

// A code is found however the source makes the fault of it.
func TestEveryWayToMakeAFaultIsSeen(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "x.go", `package x
func invalid(code, text string) error { return fault.New(fault.Invalid, code, text, "mend it") }
func f(n int) error {
	refuse := func(text string) error { return fault.New(fault.Denied, "x.refused", text, "") }
	if n == 1 { return invalid("x.bad", "bad "+fmt.Sprintf("%d things", n)) }
	if n == 2 { return refuse("no") }
	if n == 3 { return fault.Newf(fault.NotFound, "x.none", "no %q", n).With("look again") }
	return &fault.Fault{Kind: fault.Conflict, Code: "x.met", Text: "met", Remedy: "go on"}
}
func g(n int) error {
	code := "x.one"
	if n == 2 { code = "x.two" }
	return fault.New(fault.Exhausted, code, "full", "")
}
var p = &huma.ErrorModel{Status: http.StatusPreconditionFailed, Type: "urn:hallmark:fault:x.changed", Detail: "changed"}
`, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := collector{dir: "x", found: map[string]*problem{}, handing: map[string]handing{}}
	c.hands(file)
	c.collect(file)
	var got []string
	for _, code := range slices.Sorted(maps.Keys(c.found)) {
		p := c.found[code]
		got = append(got, fmt.Sprint(code, p.classes, p.texts, p.remedies))
	}
	want := []string{
		"x.bad[invalid] [bad … things] [mend it]", "x.changed[412] [changed] []", "x.met[conflict] [met] [go on]", "x.none[not found] [no …] [look again]",
		"x.one[exhausted] [full] []", "x.refused[denied] [] []", "x.two[exhausted] [full] []",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// The generator of the Python client leaves out what it cannot read, and fails for it: it knows JSON, text and bytes, and what scripts/clients/python.yaml says is bytes.
func TestThePythonClientReadsEveryContentType(t *testing.T) {
	said, err := os.ReadFile("../../scripts/clients/python.yaml")
	if err != nil {
		t.Fatal(err)
	}
	data, err := description()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Responses map[string]struct {
				Content map[string]any `json:"content"`
			} `json:"responses"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for path, item := range doc.Paths {
		for method, op := range item {
			for _, r := range op.Responses {
				for kind := range r.Content {
					seen[kind] = true
					known := strings.HasSuffix(kind, "json") || strings.HasPrefix(kind, "text/") || kind == "application/octet-stream"
					if !known && !bytes.Contains(said, []byte("\n  "+kind+": application/octet-stream\n")) {
						t.Errorf("%s %s gives %s, which scripts/clients/python.yaml does not have", method, path, kind)
					}
				}
			}
		}
	}
	if len(seen) < 4 {
		t.Errorf("only %v were seen", seen)
	}
}
