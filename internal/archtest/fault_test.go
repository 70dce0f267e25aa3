package archtest

import (
	"go/ast"
	"slices"
	"testing"
)

// silent are the packages in which a fault may still say nothing of what to do. The list may only shrink.
var silent = []string{
	"access/proposal", "access/signin", "attest", "cmd/hallmark-station", "device", "factory", "genuine", "internal/cad", "internal/console", "internal/ddi", "internal/deviceapi",
	"internal/httpapi", "internal/mender", "internal/passkey", "internal/server", "internal/store", "keyring", "monitor", "pki", "protect", "remedy", "rollout", "station", "telemetry",
}

// speechless gives the places in a file where a fault is made without a remedy. What an adapter or a device protocol never shows has none either: fault.Internal.
func speechless(s source) (places []ast.Node) {
	ast.Inspect(s.file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) < 3 {
			return true
		}
		last, ok := call.Args[len(call.Args)-1].(*ast.BasicLit)
		if !ok || last.Value != `""` {
			return true
		}
		switch f := call.Fun.(type) {
		case *ast.SelectorExpr:
			if on, ok := f.X.(*ast.Ident); ok && on.Name == "fault" && f.Sel.Name == "New" {
				places = append(places, call)
			}
		case *ast.Ident:
			if f.Name == "invalid" || f.Name == "conflict" || f.Name == "denied" { // what stages call fault.New by
				places = append(places, call)
			}
		}
		return true
	})
	return places
}

func TestAFaultSaysWhatToDo(t *testing.T) {
	found, there := map[string]bool{}, map[string]bool{}
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		there[s.dir()] = true
		for _, p := range speechless(s) {
			found[s.dir()] = true
			if !slices.Contains(silent, s.dir()) {
				t.Errorf("%s: a fault without a remedy", s.fset.Position(p.Pos()))
			}
		}
	}
	for _, dir := range silent {
		if there[dir] && !found[dir] {
			t.Errorf("%s: all of its faults have remedies; take it off the list", dir)
		}
	}
	bad, err := parse("x.go", []byte("package x\nvar e = fault.New(fault.Denied, \"x.y\", \"no\", \"\")\nvar f = fault.New(fault.Denied, \"x.y\", \"no\", \"ask\")\n"))
	if err != nil || len(speechless(bad)) != 1 {
		t.Errorf("it finds nothing, or anything: %v", err)
	}
}
