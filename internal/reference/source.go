package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

func parse(path string) (*ast.File, error) {
	return parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
}

// packagesOf gives the files of each package of the module at root that a person wrote and that are no tests, by folder.
func packagesOf(root string) (map[string][]*ast.File, error) {
	out := map[string][]*ast.File{}
	return out, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if rel != "." && (name[0] == '.' || name[0] == '_' || name == "testdata" || rel == "tools" || rel == "dist") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parse(path)
		if err == nil && !ast.IsGenerated(file) {
			dir := filepath.ToSlash(filepath.Dir(rel))
			out[dir] = append(out[dir], file)
		}
		return err
	})
}

// valuesIn are the constants and variables of a file.
func valuesIn(file *ast.File) []*ast.ValueSpec {
	var out []*ast.ValueSpec
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok {
			for _, s := range g.Specs {
				if v, ok := s.(*ast.ValueSpec); ok {
					out = append(out, v)
				}
			}
		}
	}
	return out
}

// literal is the value of a string in the source; empty when it is none.
func literal(e ast.Expr) string {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		if s, err := strconv.Unquote(l.Value); err == nil {
			return s
		}
	}
	return ""
}

var verb = regexp.MustCompile(`%[-+# 0]*[0-9]*(\.[0-9]+)?[a-zA-Z]`)

// wording is a text as it is in the source, with … for what only a run knows.
func wording(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		return verb.ReplaceAllString(literal(e), "…")
	case *ast.BinaryExpr:
		return wording(e.X) + wording(e.Y)
	case *ast.ParenExpr:
		return wording(e.X)
	case *ast.CallExpr:
		if name(e.Fun) == "fmt.Sprintf" && len(e.Args) > 0 {
			return wording(e.Args[0])
		}
	}
	return "…"
}

// name is what an expression calls: "x" or "p.x".
func name(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		if x, ok := e.X.(*ast.Ident); ok {
			return x.Name + "." + e.Sel.Name
		}
	}
	return ""
}
