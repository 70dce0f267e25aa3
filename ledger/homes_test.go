package ledger_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"github.com/hallmark-iot/hallmark/ledger"
)

// Every kind that there is has its log, and only the first fact has both: of a kind without one no fact can be made, and who watches tells of it as unknown.
func TestEveryKindHasItsLog(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "kinds.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(f, func(node ast.Node) bool {
		v, ok := node.(*ast.ValueSpec)
		if !ok {
			return true
		}
		kind, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		n++
		if got, want := len(ledger.Kind(kind).Logs()), 1; got != want && ledger.Kind(kind) != ledger.KindGenesis {
			t.Errorf("%s: %d logs, want %d", v.Names[0], got, want)
		}
		return true
	})
	if n < 40 {
		t.Fatalf("only %d kinds found", n)
	}
	if got := ledger.KindGenesis.Logs(); len(got) != 2 {
		t.Errorf("the first fact is in %v", got)
	}
}
