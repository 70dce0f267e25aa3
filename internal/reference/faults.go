package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/fault"
)

// problem is one stable code, and what the source says where it is used.
type problem struct {
	code                         string
	classes, texts, remedies, in []string
}

var (
	codeShape = regexp.MustCompile(`^[a-z][a-z0-9-]*(\.[a-z0-9-]+)+$`)
	urn       = "urn:hallmark:fault:"
)

// faults collects the codes from the source: calls of fault.New and fault.Newf, functions that only hand a code on to them, and problems that
// are written out.
func faults(root string, w *bytes.Buffer) error {
	all, err := packagesOf(root)
	if err != nil {
		return err
	}
	found := map[string]*problem{}
	for _, dir := range slices.Sorted(maps.Keys(all)) {
		c := collector{dir: dir, found: found, handing: map[string]handing{}}
		for _, f := range all[dir] {
			c.hands(f)
		}
		for _, f := range all[dir] {
			c.collect(f)
		}
	}
	head(w, "Fault codes", `What can go wrong, by its stable code: the end of a problem's `+"`type`"+`, and in brackets behind an error of the command line. Texts are as in
the source, with … for what they name. Codes of class “internal” are nobody's fault but ours: the server's log says what happened.`)
	fmt.Fprint(w, "| class | status |\n|---|---|\n")
	for k := fault.Internal; k <= fault.Exhausted; k++ {
		fmt.Fprintf(w, "| %s | %d |\n", k, k.Status())
	}
	fmt.Fprint(w, "\n| code | class | what | remedy | package |\n|---|---|---|---|---|\n")
	for _, code := range slices.Sorted(maps.Keys(found)) {
		p := found[code]
		fmt.Fprintf(w, "| `%s` | %s | %s | %s | %s |\n", code, strings.Join(p.classes, ", "), cell(strings.Join(p.texts, " / ")),
			cell(strings.Join(p.remedies, " / ")), strings.Join(p.in, ", "))
	}
	if len(found) < 100 {
		return fmt.Errorf("only %d codes found in the source", len(found))
	}
	return nil
}

// collector looks through one package.
type collector struct {
	dir     string
	found   map[string]*problem
	handing map[string]handing
}

// handing is a function that makes a fault of a code it is given: the arguments of fault.New, and which of them are its own.
type handing struct {
	args   []ast.Expr
	params []string
}

// given is the nth argument of fault.New when the function is called so.
func (h handing) given(n int, call *ast.CallExpr) ast.Expr {
	if n >= len(h.args) {
		return nil
	}
	if i := slices.Index(h.params, name(h.args[n])); i >= 0 && i < len(call.Args) {
		return call.Args[i]
	}
	return h.args[n]
}

// makesFault gives what a fault is made of, in the order of fault.New's arguments: of fault.Newf the remedy is what With is called with.
func makesFault(e ast.Node) ([]ast.Expr, bool) {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return nil, false
	}
	if with, ok := call.Fun.(*ast.SelectorExpr); ok && with.Sel.Name == "With" && len(call.Args) == 1 {
		args, ok := makesFault(with.X)
		return append(slices.Clip(args), call.Args[0]), ok
	}
	switch of := name(call.Fun); {
	case of == "fault.New" && len(call.Args) == 4:
		return call.Args, true
	case of == "fault.Newf" && len(call.Args) >= 3:
		return call.Args[:3], true
	}
	return nil, false
}

// hands notes the functions of a file that hand a code on.
func (c *collector) hands(file *ast.File) {
	note := func(called string, t *ast.FuncType, body *ast.BlockStmt) {
		var params []string
		for _, f := range t.Params.List {
			for _, id := range f.Names {
				params = append(params, id.Name)
			}
		}
		ast.Inspect(body, func(n ast.Node) bool {
			if args, ok := makesFault(n); ok && slices.Contains(params, name(args[1])) && len(args) >= len(c.handing[called].args) {
				c.handing[called] = handing{args, params}
			}
			return true
		})
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Body != nil {
				note(n.Name.Name, n.Type, n.Body)
			}
		case *ast.AssignStmt:
			for i, r := range n.Rhs {
				if f, ok := r.(*ast.FuncLit); ok && i < len(n.Lhs) {
					note(name(n.Lhs[i]), f.Type, f.Body)
				}
			}
		}
		return true
	})
}

// collect notes the codes in a file.
func (c *collector) collect(file *ast.File) {
	for _, d := range file.Decls {
		ast.Inspect(d, func(n ast.Node) bool {
			if args, ok := makesFault(n); ok {
				if code := literal(args[1]); code != "" {
					c.note(code, class(args[0]), args[2:])
				} else if !c.handed(args) {
					c.among(d, args)
				}
				return true
			}
			switch n := n.(type) {
			case *ast.CallExpr:
				called := name(n.Fun)
				h, ok := c.handing[called[strings.LastIndex(called, ".")+1:]]
				if code := h.given(1, n); ok && codeShape.MatchString(literal(code)) {
					c.note(literal(code), class(h.given(0, n)), []ast.Expr{h.given(2, n), h.given(3, n)})
				}
			case *ast.CompositeLit:
				c.writtenOut(n)
			}
			return true
		})
	}
}

// handed says whether a call is within a function that hands its code on.
func (c *collector) handed(args []ast.Expr) bool {
	for _, h := range c.handing {
		if len(h.args) > 0 && h.args[0] == args[0] {
			return true
		}
	}
	return false
}

// among notes the codes that the function around a call chooses among.
func (c *collector) among(around ast.Decl, args []ast.Expr) {
	ast.Inspect(around, func(n ast.Node) bool {
		if e, ok := n.(ast.Expr); ok && codeShape.MatchString(literal(e)) {
			c.note(literal(e), class(args[0]), args[2:])
		}
		return true
	})
}

// writtenOut notes fault.Fault{Code: …} and problems whose Type has a code.
func (c *collector) writtenOut(l *ast.CompositeLit) {
	fields := map[string]ast.Expr{}
	for _, e := range l.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			fields[name(kv.Key)] = kv.Value
		}
	}
	if code := literal(fields["Code"]); name(l.Type) == "fault.Fault" && code != "" {
		c.note(code, class(fields["Kind"]), []ast.Expr{fields["Text"], fields["Remedy"]})
	}
	if code, ok := strings.CutPrefix(literal(fields["Type"]), urn); ok && code != "" {
		c.note(code, status(fields["Status"]), []ast.Expr{fields["Detail"]})
	}
}

func (c *collector) note(code, class string, texts []ast.Expr) {
	p := c.found[code]
	if p == nil {
		p = &problem{code: code}
		c.found[code] = p
	}
	add := func(to *[]string, s string) {
		if s = strings.TrimSpace(s); s != "" && s != "…" && !slices.Contains(*to, s) {
			*to = append(*to, s)
		}
	}
	add(&p.classes, class)
	add(&p.in, "`"+c.dir+"`")
	for i, to := range []*[]string{&p.texts, &p.remedies} {
		if i < len(texts) && texts[i] != nil {
			add(to, wording(texts[i]))
		}
	}
}

// class is a fault's kind as people read it.
func class(e ast.Expr) string {
	for k := fault.Internal; k <= fault.Exhausted; k++ {
		if strings.EqualFold(strings.ReplaceAll(k.String(), " ", ""), strings.TrimPrefix(name(e), "fault.")) {
			return k.String()
		}
	}
	return ""
}

// status is that of a problem which is of no class.
func status(e ast.Expr) string {
	for code := http.StatusBadRequest; code < 600; code++ {
		if text := http.StatusText(code); text != "" && strings.ReplaceAll(text, " ", "") == strings.TrimPrefix(name(e), "http.Status") {
			return fmt.Sprint(code)
		}
	}
	return ""
}
