package access

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"

	"github.com/hallmark-iot/hallmark/fault"
)

type recorder struct {
	got  []Decision
	fail error
}

func (r *recorder) Record(_ context.Context, d Decision) error {
	r.got = append(r.got, d)
	return r.fail
}

func TestRolesReachWhatTheyShouldAndNothingElse(t *testing.T) {
	guard := func() (*Guard, *recorder) {
		rec := &recorder{}
		g, err := NewGuard(rec)
		if err != nil {
			t.Fatal(err)
		}
		return g, rec
	}
	pump := Resource{Type: "device", ID: "d1", Product: "pump"}
	berlin := Resource{Type: "device", ID: "d2", Product: "pump", Group: "eu/berlin"}
	for _, c := range []struct {
		who    Caller
		action Action
		res    Resource
		want   bool
	}{
		{Caller{ID: "p:v", Kind: Person, Roles: []Role{Viewer}}, DeviceRead, pump, true},
		{Caller{ID: "p:v", Kind: Person, Roles: []Role{Viewer}}, DeviceQuarantine, pump, false},
		{Caller{ID: "p:o", Kind: Person, Roles: []Role{Operator}}, DeviceQuarantine, pump, true},
		{Caller{ID: "p:o", Kind: Person, Roles: []Role{Operator}}, ReleaseApprove, pump, false},
		{Caller{ID: "p:o", Kind: Person, Roles: []Role{Operator}, Scope: []string{"valve"}}, DeviceQuarantine, pump, false},
		{Caller{ID: "p:o", Kind: Person, Roles: []Role{Operator}, Scope: []string{"pump"}}, DeviceQuarantine, pump, true},
		{Caller{ID: "p:o", Kind: Person, Roles: []Role{Operator}, Scope: []string{"pump"}}, DeviceRead, Resource{Type: "fleet"}, false},
		{Caller{ID: "p:g", Kind: Person, Roles: []Role{Operator}, Scope: []string{"pump/eu"}}, DeviceQuarantine, berlin, true},
		{Caller{ID: "p:g", Kind: Person, Roles: []Role{Operator}, Scope: []string{"pump/eu/berlin"}}, DeviceQuarantine, berlin, true},
		{Caller{ID: "p:g", Kind: Person, Roles: []Role{Operator}, Scope: []string{"pump/eu/berlin/ward-3"}}, DeviceQuarantine, berlin, false},
		{Caller{ID: "p:g", Kind: Person, Roles: []Role{Operator}, Scope: []string{"pump/e"}}, DeviceQuarantine, berlin, false},
		{Caller{ID: "p:g", Kind: Person, Roles: []Role{Operator}, Scope: []string{"valve/eu"}}, DeviceQuarantine, berlin, false},
		{Caller{ID: "p:g", Kind: Person, Roles: []Role{Operator}, Scope: []string{"pump/eu"}}, DeviceQuarantine, pump, false},
		{Caller{ID: "p:g", Kind: Person, Roles: []Role{Operator}, Scope: []string{"pump/eu"}}, ReleaseRead, Resource{Type: "release", Product: "pump"}, true},
		{Caller{ID: "p:g", Kind: Person, Roles: []Role{Operator}, Scope: []string{"valve/eu"}}, ReleaseRead, Resource{Type: "release", Product: "pump"}, false},
		{Caller{ID: "p:g", Kind: Person, Roles: []Role{Operator}, Scope: []string{"pump/eu"}}, OrderRead, Resource{Type: "order", Product: "pump"}, false},
		{Caller{ID: "p:g", Kind: Person, Roles: []Role{Operator}, Scope: []string{""}}, ProductRead, Resource{Type: "product", Product: "pump"}, false},
		{Caller{ID: "p:a", Kind: Person, Roles: []Role{Admin}}, ReleasePublish, pump, false},
		{Caller{ID: "p:n", Kind: Person}, DeviceRead, pump, false},
		{Caller{}, DeviceRead, pump, false},
		{DeviceCaller("d1"), DeviceCheckin, pump, true},
		{DeviceCaller("d1"), DeviceRead, pump, false},
		{Internal("reactions"), DeviceQuarantine, pump, true},
	} {
		g, rec := guard()
		err := g.Check(t.Context(), c.who, c.action, c.res)
		if (err == nil) != c.want {
			t.Errorf("%v %s on %v: %v, want allowed=%v", c.who, c.action, c.res, err, c.want)
		}
		if err != nil && fault.KindOf(err) != fault.Denied {
			t.Errorf("%v %s: %v is not a denial", c.who, c.action, err)
		}
		if len(rec.got) != 1 || rec.got[0].Allowed != c.want || rec.got[0].Action != c.action {
			t.Errorf("%v %s: audited %+v", c.who, c.action, rec.got)
		}
	}
}

func TestADecisionThatCannotBeRecordedIsADenial(t *testing.T) {
	full := errors.New("disk full")
	g, err := NewGuard(&recorder{fail: full})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Check(t.Context(), Internal("x"), DeviceRead, Resource{}); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

// declared are the actions of actions.go.
func declared(t *testing.T) map[string]bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "actions.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			s, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			known[s] = true
		}
		return true
	})
	if len(known) < 20 {
		t.Fatalf("only %d actions found", len(known))
	}
	return known
}

// Every action of actions.go must be named by a policy, and no policy may name one that does not exist.
func TestEveryActionHasAPolicy(t *testing.T) {
	known := declared(t)
	named := map[string]bool{}
	for _, part := range strings.Split(string(policyText), `Action::"`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		named[name] = true
		if !known[name] {
			t.Errorf("policies name %q, which is no action", name)
		}
	}
	for a := range known {
		if !named[a] {
			t.Errorf("no policy names %q", a)
		}
	}
}

// What takes a second person can be looked for without being tried; a second person does not make up for a role.
func TestWhatOneMightDoWithAnother(t *testing.T) {
	rec := &recorder{}
	guard, err := NewGuard(rec)
	if err != nil {
		t.Fatal(err)
	}
	many := Resource{Type: "device", Product: "pump", Grave: true}
	for role, want := range map[Role]bool{Operator: true, Viewer: false} {
		who := Caller{ID: "p:o", Kind: Person, Roles: []Role{role}}
		if might, _ := guard.MightWithSecond(who, DeviceQuarantine, many); might != want {
			t.Errorf("%s might with another: %v", role, might)
		}
		if len(rec.got) != 0 {
			t.Errorf("what was looked for is on record: %+v", rec.got)
		}
		if err := guard.Check(t.Context(), who, DeviceQuarantine, many); err == nil {
			t.Errorf("%s may alone", role)
		}
		rec.got = nil
	}
}

// The policies of one action decide as all of them together do, for every caller, kind and action: what is left out says nothing.
func TestThePoliciesOfOneActionDecideAsAllDo(t *testing.T) {
	g, err := NewGuard(&recorder{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := cedar.NewPolicySetFromBytes("policies.cedar", policyText)
	if err != nil {
		t.Fatal(err)
	}
	whole := &Guard{anyAction: all, names: g.names}
	callers := []Caller{{ID: "s", Kind: System}, {ID: "d1", Kind: Device}, {ID: "p:none", Kind: Person}, {ID: "p:own", Kind: Person, Owner: "o"}}
	for _, r := range Roles() {
		for _, fresh := range []bool{false, true} {
			for _, second := range []string{"", "p:2"} {
				for _, scope := range [][]string{nil, {"pump"}, {"valve/eu"}} {
					callers = append(callers, Caller{ID: "p:x", Kind: Person, Via: "session", Fresh: fresh, Seconded: second, Roles: []Role{r}, Scope: scope})
				}
			}
		}
	}
	permitted := 0
	acts := declared(t)
	acts["no:action"] = true
	for name := range acts {
		a := Action(name)
		for _, c := range callers {
			for _, res := range []Resource{{Type: "device", ID: "d1", Product: "pump"}, {Type: "device", ID: "d1", Product: "pump", Group: "eu", Grave: true}, {Type: "instance"}} {
				got, why := g.decide(c, a, res)
				want, because := whole.decide(c, a, res)
				slices.Sort(why)
				slices.Sort(because)
				if got != want || !slices.Equal(why, because) {
					t.Errorf("%s of %+v on %+v: %v by %v, all together say %v by %v", a, c, res, got, why, want, because)
				}
				if want {
					permitted++
				}
			}
		}
	}
	if permitted < 500 {
		t.Errorf("only %d decisions permitted: nothing is shown", permitted)
	}
}
