package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"path/filepath"
	"strings"
)

// facts lists the kinds of fact, as ledger/kinds.go has them.
func facts(root string, w *bytes.Buffer) error {
	file, err := parse(filepath.Join(root, "ledger", "kinds.go"))
	if err != nil {
		return err
	}
	head(w, "Facts", `The kinds of fact, in the order of a life. Each is in one of two logs. What a fact holds is the signed envelope itself, or, where it says JSON, a
JSON object. “The same” refers to the row before.`)
	fmt.Fprint(w, "| kind | log | holds |\n|---|---|---|\n")
	n := 0
	for _, s := range valuesIn(file) {
		if id, ok := s.Type.(*ast.Ident); !ok || id.Name != "Kind" || len(s.Values) != 1 {
			continue
		}
		kind := literal(s.Values[0])
		log, holds, ok := strings.Cut(strings.TrimSpace(s.Comment.Text()), ": ")
		if !ok {
			return fmt.Errorf("%s has no comment “log: what it holds”", kind)
		}
		fmt.Fprintf(w, "| `%s` | %s | %s |\n", kind, log, cell(holds))
		n++
	}
	if n == 0 {
		return fmt.Errorf("no kinds found")
	}
	return nil
}
