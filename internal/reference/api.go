package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// operations lists the API's operations, by tag.
func operations(root string, w *bytes.Buffer) error {
	may, err := whoMay(root)
	if err != nil {
		return err
	}
	o := httpapi.Description()
	head(w, "API operations", o.Info.Description+`

How to call them, in four languages: [the guide](../guide/api.md). “Who may” is what the test of every role against every operation found out; a
caller who is limited to a scope may only within it.`)
	byTag := map[string][]*huma.Operation{}
	for _, path := range slices.Sorted(maps.Keys(o.Paths)) {
		for _, op := range methods(o.Paths[path]) {
			byTag[op.Tags[0]] = append(byTag[op.Tags[0]], op)
		}
	}
	for _, t := range o.Tags {
		fmt.Fprintf(w, "- [%s](#%s): %s\n", t.Name, anchor(t.Name), t.Description)
	}
	for _, t := range o.Tags {
		fmt.Fprintf(w, "\n## %s\n\n%s\n", t.Name, t.Description)
		for _, op := range byTag[t.Name] {
			operation(w, op, may[op.OperationID])
		}
		delete(byTag, t.Name)
	}
	if len(byTag) > 0 {
		return fmt.Errorf("tags without a description: %v", slices.Sorted(maps.Keys(byTag)))
	}
	return nil
}

func methods(item *huma.PathItem) []*huma.Operation {
	return slices.DeleteFunc([]*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete}, func(o *huma.Operation) bool { return o == nil })
}

// whoMay reads the roles that the matrix test let through, by operation.
func whoMay(root string) (map[string]string, error) {
	data, err := os.ReadFile(filepath.Join(root, "internal", "httpapi", "testdata", "matrix.txt"))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.Lines(string(data)) {
		what, who, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if id, _, _ := strings.Cut(what, " "); ok && id != "#" {
			out[id] = strings.ReplaceAll(who, " ", ", ")
		}
	}
	return out, nil
}

func operation(w *bytes.Buffer, o *huma.Operation, may string) {
	fmt.Fprintf(w, "\n### %s\n\n`%s %s` — %s.", o.OperationID, o.Method, o.Path, strings.TrimSuffix(o.Summary, "."))
	if o.Description != "" {
		fmt.Fprintf(w, " %s", o.Description)
	}
	fmt.Fprintln(w)
	if may != "" {
		fmt.Fprintf(w, "\nWho may: %s.\n", may)
	}
	if b := o.RequestBody; b != nil {
		fmt.Fprintf(w, "\nTakes %s.", bodies(b.Content))
	}
	if r := o.Responses["200"]; r != nil {
		fmt.Fprintf(w, "\nAnswers %s.\n", bodies(r.Content))
	}
	ps := slices.DeleteFunc(slices.Clone(o.Parameters), func(p *huma.Param) bool {
		return p.Name == "Idempotency-Key" || p.Name == "If-Match" || p.Name == httpapi.HeaderPropose || o.Method == http.MethodGet && (p.Name == "after" || p.Name == "limit")
	})
	slices.SortStableFunc(ps, func(a, b *huma.Param) int { return cmp.Compare(b.In, a.In) }) // query, path, header
	if len(ps) == 0 {
		return
	}
	fmt.Fprint(w, "\n| parameter | in | |\n|---|---|---|\n")
	for _, p := range ps {
		fmt.Fprintf(w, "| `%s` | %s | %s |\n", p.Name, p.In, cell(strings.TrimSuffix(constraint(p.Schema)+"; "+p.Description, "; ")))
	}
}

// constraint says in short what a parameter may be.
func constraint(s *huma.Schema) string {
	if len(s.Enum) > 0 {
		var all []string
		for _, v := range s.Enum {
			all = append(all, fmt.Sprint(v))
		}
		return "one of " + strings.Join(all, ", ")
	}
	return s.Type
}

// bodies names what is in a request or an answer.
func bodies(content map[string]*huma.MediaType) string {
	var out []string
	for _, kind := range slices.Sorted(maps.Keys(content)) {
		s := content[kind].Schema
		switch {
		case s.Ref != "":
			out = append(out, "`"+s.Ref[strings.LastIndex(s.Ref, "/")+1:]+"`")
		case s.Items != nil && s.Items.Ref != "":
			out = append(out, "a list of `"+s.Items.Ref[strings.LastIndex(s.Items.Ref, "/")+1:]+"`")
		default:
			out = append(out, "`"+kind+"`")
		}
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, " or ")
}
