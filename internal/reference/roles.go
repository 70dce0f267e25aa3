package main

import (
	"bytes"
	"context"
	"fmt"
	"go/ast"
	"path/filepath"
	"strings"

	"github.com/hallmark-iot/hallmark/access"
)

// unrecorded is a guard's audit whose decisions are about nobody.
type unrecorded struct{}

func (unrecorded) Record(context.Context, access.Decision) error { return nil }

// roles asks the guard about every role and action.
func roles(root string, w *bytes.Buffer) error {
	guard, err := access.NewGuard(unrecorded{})
	if err != nil {
		return err
	}
	actions, err := constants(filepath.Join(root, "access", "actions.go"), "Action")
	if err != nil {
		return err
	}
	head(w, "Roles and actions", `What the policies (access/policies.cedar) answer when asked. A caller may do in all its scope what one of its roles may do. Devices and Hallmark
itself are callers too, and have no roles.

“Proof”: in a browser's session the person proves just before that it is them. What is grave also takes a second person: see
*four-eyes* in the policies. Reading a stream also needs a grant over it.`)
	fmt.Fprint(w, "| action |")
	for _, r := range access.Roles() {
		fmt.Fprintf(w, " %s |", r)
	}
	fmt.Fprintf(w, " proof |\n|---|%s---|\n", strings.Repeat("---|", len(access.Roles())))
	may := func(c access.Caller, action string) bool {
		kind, _, _ := strings.Cut(action, ":")
		return guard.Check(context.Background(), c, access.Action(action), access.Resource{Type: kind, ID: "x", Product: "p"}) == nil
	}
	for _, a := range actions {
		fmt.Fprintf(w, "| `%s` |", a)
		proof := ""
		for _, r := range access.Roles() {
			caller := access.Caller{ID: "person:x", Kind: access.Person, Roles: []access.Role{r}, Via: "session", Fresh: true}
			mark := ""
			if may(caller, a) {
				mark = "yes"
				if caller.Fresh = false; !may(caller, a) {
					proof = "proof"
				}
			}
			fmt.Fprintf(w, " %s |", mark)
		}
		fmt.Fprintf(w, " %s |\n", proof)
	}
	return nil
}

// constants are the values of the string constants of a type in a file, in order.
func constants(path, kind string) ([]string, error) {
	file, err := parse(path)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range valuesIn(file) {
		if id, ok := s.Type.(*ast.Ident); ok && id.Name == kind && len(s.Values) == 1 {
			out = append(out, literal(s.Values[0]))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no constants of type %s", path, kind)
	}
	return out, nil
}
