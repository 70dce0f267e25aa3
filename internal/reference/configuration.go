package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/internal/server"
)

var variable = regexp.MustCompile(`^HALLMARK_[A-Z_]+$`)

// configuration lists the members of config.json with what init writes, and the variables of the environment that programs look at.
func configuration(root string, w *bytes.Buffer) error {
	file, err := parse(filepath.Join(root, "internal", "server", "config.go"))
	if err != nil {
		return err
	}
	head(w, "Configuration", "## config.json\n\nIn the data directory; `hallmark init` writes it. Unknown members are refused.")
	fmt.Fprint(w, "| member | default | |\n|---|---|---|\n")
	comments := commentsOf(file, "Config")
	defaults := reflect.ValueOf(server.DefaultConfig())
	for i := range defaults.NumField() {
		f := defaults.Type().Field(i)
		value, err := json.Marshal(defaults.Field(i).Interface())
		if err != nil {
			return err
		}
		member, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fmt.Fprintf(w, "| `%s` | `%s` | %s |\n", member, value, cell(comments[f.Name]))
	}
	fmt.Fprint(w, "\n## Environment\n\n| variable | looked at in |\n|---|---|\n")
	all, err := packagesOf(root)
	if err != nil {
		return err
	}
	seen := map[string][]string{}
	for _, dir := range slices.Sorted(maps.Keys(all)) {
		for _, f := range all[dir] {
			ast.Inspect(f, func(n ast.Node) bool {
				if e, ok := n.(ast.Expr); ok {
					if v := literal(e); variable.MatchString(v) && !slices.Contains(seen[v], "`"+dir+"`") {
						seen[v] = append(seen[v], "`"+dir+"`")
					}
				}
				return true
			})
		}
	}
	for _, v := range slices.Sorted(maps.Keys(seen)) {
		fmt.Fprintf(w, "| `%s` | %s |\n", v, strings.Join(seen[v], ", "))
	}
	return nil
}

// commentsOf are the comments behind, or above, the fields of a struct.
func commentsOf(file *ast.File, of string) map[string]string {
	out := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		t, ok := n.(*ast.TypeSpec)
		if !ok || t.Name.Name != of {
			return true
		}
		if s, ok := t.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				for _, id := range f.Names {
					out[id.Name] = f.Comment.Text() + f.Doc.Text()
				}
			}
		}
		return false
	})
	return out
}
