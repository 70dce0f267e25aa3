package access

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// A scope says where somebody may act: a list of products ("pump") and groups of their devices ("pump/eu/berlin"), each with all that
// is in it; empty means everywhere. Products have no '/' in their names, so each entry has one reading.

// Bounds of groups and scopes.
const (
	MaxGroup      = 128 // bytes of a group's path
	MaxGroupDepth = 8   // names in it
	MaxScope      = 256 // entries
)

// ValidGroup reports whether g is a path of lower-case names: "eu/berlin/ward-3".
func ValidGroup(g string) bool {
	parts := strings.Split(g, "/")
	return len(g) <= MaxGroup && len(parts) <= MaxGroupDepth && !slices.ContainsFunc(parts, func(p string) bool { return !wire.ValidName(p) })
}

// Join names a group of a product, or with an empty one the product, as scopes do.
func Join(product, group string) string {
	if group == "" {
		return product
	}
	return product + "/" + group
}

// Paths are the scopes that a group of a product is in: the product, each group above, and the group itself.
// What is of no product is in none.
func Paths(product, group string) []string {
	if product == "" {
		return nil
	}
	out := []string{product}
	if group != "" {
		for part := range strings.SplitSeq(group, "/") {
			out = append(out, out[len(out)-1]+"/"+part)
		}
	}
	return out
}

// Holds reports whether what is at path is also at entry: both are entries of scopes.
func Holds(entry, path string) bool { return entry == path || strings.HasPrefix(path, entry+"/") }

// Covers reports whether a scope holds a group of a product, with all that is in it.
func Covers(scope []string, product, group string) bool {
	path := Join(product, group)
	return len(scope) == 0 || slices.ContainsFunc(scope, func(s string) bool { return Holds(s, path) })
}

// CheckScope says what is wrong with a scope.
func CheckScope(scope []string) error {
	if len(scope) > MaxScope {
		return fault.New(fault.Invalid, "access.scope", fmt.Sprintf("a scope of %d entries", len(scope)), fmt.Sprintf("at most %d: give a group above", MaxScope))
	}
	for _, s := range scope {
		product, group, grouped := strings.Cut(s, "/")
		if !wire.ValidName(product) || grouped && !ValidGroup(group) {
			return fault.New(fault.Invalid, "access.scope", fmt.Sprintf("%.140q is no scope", s), "a product, or a group of one: pump, pump/eu/berlin")
		}
	}
	return nil
}

// In is the resource of a kind that an entry of a scope names as a whole.
func In(kind, entry string) Resource {
	product, group, _ := strings.Cut(entry, "/")
	return Resource{Type: kind, Product: product, Group: group}
}

// Within is the check of a list: it says which part of what is asked for (a group of a product, a product, or everything) the caller may
// see, as a scope; nil means everything. Who is limited sees what of it lies in their scope, and who may see nothing of it is denied.
func (g *Guard) Within(ctx context.Context, caller Caller, action Action, kind, product, group string) ([]string, error) {
	if product == "" && group != "" {
		return nil, fault.New(fault.Invalid, "access.group", "a group is one of a product", "say which product")
	}
	asked := Join(product, group)
	var scope []string
	switch {
	case product == "":
		scope = caller.Scope
	case !Covers(caller.Scope, product, group):
		scope = slices.DeleteFunc(slices.Clone(caller.Scope), func(s string) bool { return !Holds(asked, s) })
	}
	if len(scope) == 0 { // all that is asked for, or nothing
		if err := g.Check(ctx, caller, action, In(kind, asked)); err != nil || product == "" {
			return nil, err
		}
		return []string{asked}, nil
	}
	for _, s := range scope {
		if err := g.Check(ctx, caller, action, In(kind, s)); err != nil {
			return nil, err
		}
	}
	return scope, nil
}
