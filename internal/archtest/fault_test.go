package archtest

import (
	"go/ast"
	"slices"
	"testing"
)

// speechless gives the places in a file where a fault is made without a remedy. What an adapter or a device protocol never shows has none either: fault.Internal.
func speechless(s source) (places []ast.Node) {
	told := map[ast.Node]bool{} // what .With is called of
	ast.Inspect(s.file, func(n ast.Node) bool {
		if f, ok := n.(*ast.SelectorExpr); ok && f.Sel.Name == "With" {
			told[f.X] = true
		}
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) < 3 {
			return true
		}
		if f, ok := call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Newf" && !told[call] {
			if on, ok := f.X.(*ast.Ident); ok && on.Name == "fault" {
				places = append(places, call)
			}
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
			if slices.Contains([]string{"invalid", "conflict", "denied", "bad"}, f.Name) { // what stages call fault.New by
				places = append(places, call)
			}
		}
		return true
	})
	return places
}

func TestAFaultSaysWhatToDo(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		for _, p := range speechless(s) {
			t.Errorf("%s: a fault without a remedy", s.fset.Position(p.Pos()))
		}
	}
	bad, err := parse("x.go", []byte("package x\nvar e = fault.New(fault.Denied, \"x.y\", \"no\", \"\")\nvar f = fault.New(fault.Denied, \"x.y\", \"no\", \"ask\")\n"+
		"var g = fault.Newf(fault.Denied, \"x.y\", \"no: %w\", e)\nvar h = fault.Newf(fault.Denied, \"x.y\", \"no: %w\", e).With(\"ask\")\n"))
	if err != nil || len(speechless(bad)) != 2 {
		t.Errorf("it finds nothing, or anything: %v", err)
	}
}
