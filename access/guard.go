package access

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/cedar-policy/cedar-go"

	"github.com/hallmark-iot/hallmark/fault"
)

//go:embed policies.cedar
var policyText []byte

// Audit takes every decision. Record must have written a denial durably when it returns nil; a denial that cannot be recorded is an error,
// and so denies as well. What is allowed is its to keep or not: what changed something has its fact, with who did it, in the same write.
type Audit interface {
	Record(ctx context.Context, d Decision) error
}

// stepUpPolicy is the policy that asks a signed-in person for a new proof.
const stepUpPolicy = "step-up"

// fourEyesPolicy is the policy that asks for a second person.
const fourEyesPolicy = "four-eyes"

// SecondNeededError says that a caller might do something if a second person agreed: four eyes.
type SecondNeededError struct {
	*fault.Fault
	Action   Action
	Resource Resource
}

// Unwrap lets errors.As find the fault.
func (e *SecondNeededError) Unwrap() error { return e.Fault }

// Guard decides, and has denials put on record.
type Guard struct {
	byAction  map[Action]*cedar.PolicySet // what can say something of an action: Cedar evaluates every policy that it is given
	anyAction *cedar.PolicySet            // of an action that no policy names
	names     map[cedar.PolicyID]string   // as policies.cedar calls them
	devices   map[Action]answer           // what was decided for every device at once; see ofDevices
	audit     Audit
	alone     Alone
	now       func() time.Time
}

// NewGuard reads the embedded policies. They are constant, so an error is a defect of the build.
func NewGuard(audit Audit) (*Guard, error) {
	ps, err := cedar.NewPolicySetFromBytes("policies.cedar", policyText)
	if err != nil {
		return nil, fmt.Errorf("access policies: %w", err)
	}
	g := &Guard{byAction: map[Action]*cedar.PolicySet{}, anyAction: cedar.NewPolicySet(), names: map[cedar.PolicyID]string{}, audit: audit, now: time.Now}
	about := map[cedar.PolicyID][]Action{}
	for id, p := range ps.All() {
		g.names[id] = string(p.Annotations()["id"])
		if about[id], err = aboutOf(p); err != nil {
			return nil, fmt.Errorf("access policy %s: %w", g.names[id], err)
		}
		for _, a := range about[id] {
			g.byAction[a] = cedar.NewPolicySet()
		}
		if about[id] == nil {
			g.anyAction.Add(id, p)
		}
	}
	for id, p := range ps.All() {
		for a, set := range g.byAction {
			if about[id] == nil || slices.Contains(about[id], a) {
				set.Add(id, p)
			}
		}
	}
	g.devices = g.ofDevices()
	return g, nil
}

// answer is what the policies say.
type answer struct {
	allowed bool
	why     []string
}

// ofDevices asks the policies once what every device may do: they look at what kind of caller it is, and at nothing that sets one device or its
// resource apart from another; TestEveryDeviceMayDoTheSame holds them to it. An act that is grave is asked for each time.
func (g *Guard) ofDevices() map[Action]answer {
	out := map[Action]answer{}
	for a := range g.byAction {
		allowed, why := g.ask(DeviceCaller(""), a, Resource{})
		out[a] = answer{allowed, why}
	}
	return out
}

// plainDevice reports whether the caller is a device as DeviceCaller has it, and no more.
func plainDevice(c Caller) bool {
	return c.Kind == Device && c.Via == "mtls" && len(c.Roles)+len(c.Scope) == 0 && c.Owner == "" && c.Seconded == "" && c.second == nil
}

// about are the policies that can say something of an action.
func (g *Guard) about(a Action) *cedar.PolicySet {
	if set, ok := g.byAction[a]; ok {
		return set
	}
	return g.anyAction
}

// aboutOf names the actions that a policy speaks of; nil for all. There are no groups of actions here, so that "in" is what is listed.
func aboutOf(p *cedar.Policy) ([]Action, error) {
	text, err := p.MarshalJSON()
	if err != nil {
		return nil, err
	}
	type entity struct {
		ID Action `json:"id"`
	}
	var scope struct {
		Action struct {
			Op       string   `json:"op"`
			Entity   entity   `json:"entity"`
			Entities []entity `json:"entities"`
		} `json:"action"`
	}
	if err := json.Unmarshal(text, &scope); err != nil {
		return nil, err
	}
	switch scope.Action.Op {
	case "All":
		return nil, nil
	case "==":
		return []Action{scope.Action.Entity.ID}, nil
	case "in":
		all := []Action{scope.Action.Entity.ID}
		for _, e := range scope.Action.Entities {
			all = append(all, e.ID)
		}
		return all, nil
	}
	return nil, fmt.Errorf("its scope of actions is %q, which is not known", scope.Action.Op)
}

// Check answers nil when caller may do action to res, and a *fault.Fault of kind Denied otherwise. What is not allowed by a
// policy is denied; an evaluation error is a denial.
func (g *Guard) Check(ctx context.Context, caller Caller, action Action, res Resource) error {
	d := Decision{At: g.now().UTC(), Caller: caller.ID, Action: action, Resource: res}
	d.Allowed, d.Policies = g.decide(caller, action, res)
	if d.Allowed && !res.Grave && res.ID != "" && oneByOne(action) && g.Many(caller, []string{res.ID}) {
		res.Grave = true
		d.Resource = res
		d.Allowed, d.Policies = g.decide(caller, action, res)
	}
	if d.Allowed && caller.second != nil {
		if ok, why := g.decide(*caller.second, action, res); !ok {
			return g.withoutSecond(ctx, d, why)
		}
	}
	if err := g.audit.Record(ctx, d); err != nil {
		return fmt.Errorf("audit %s: %w", action, err)
	}
	if !d.Allowed && slices.Contains(d.Policies, fourEyesPolicy) {
		if allowed, why := g.MightWithSecond(caller, action, res); allowed {
			return &SecondNeededError{Action: action, Resource: res, Fault: fault.New(fault.Denied, "access.four-eyes",
				fmt.Sprintf("%s may not do %s on %s alone", caller.ID, action, res.what()),
				"propose it, with the reason, and have another person who may do it approve it")}
		} else {
			d.Policies = why
		}
	}
	if !d.Allowed && slices.Contains(d.Policies, stepUpPolicy) {
		return fault.New(fault.Denied, "access.step-up",
			fmt.Sprintf("%s has to be proven just now to do %s on %s %q", caller.ID, action, res.Type, res.ID),
			"confirm with your passkey, or sign in again")
	}
	if !d.Allowed {
		return fault.New(fault.Denied, "access.denied",
			fmt.Sprintf("%s may not do %s on %s %q", caller.ID, action, res.Type, res.ID),
			"ask an administrator for a role that includes it in this product")
	}
	return nil
}

// withoutSecond denies what who approved it may not do himself, or not any more.
func (g *Guard) withoutSecond(ctx context.Context, d Decision, why []string) error {
	d.Allowed, d.Policies = false, why
	if err := g.audit.Record(ctx, d); err != nil {
		return fmt.Errorf("audit %s: %w", d.Action, err)
	}
	return fault.New(fault.Denied, "proposal.second-may-not", fmt.Sprintf("who approved it may not do %s on %s", d.Action, d.Resource.what()),
		"propose it anew, and have somebody approve it who may do all of it")
}

// oneByOne reports whether an act on one device does it harm: so many of them in an hour are an act on many.
func oneByOne(a Action) bool {
	return slices.Contains([]Action{DeviceQuarantine, DeviceRelease, DeviceDormant, DeviceReset, DeviceReprovide, DeviceRetire, CertRevoke}, a)
}

// Many reports whether caller takes a second person to act on those devices: see Alone.
func (g *Guard) Many(caller Caller, devices []string) bool {
	return g.alone.Grave(caller, devices, g.now())
}

// MightWithSecond says whether caller might do action to res if a second person agreed, and which policies say so. To ask is not to try: it
// is not recorded.
func (g *Guard) MightWithSecond(caller Caller, action Action, res Resource) (allowed bool, why []string) {
	caller.Seconded = "somebody"
	return g.decide(caller, action, res)
}

// decide says what the policies say.
func (g *Guard) decide(caller Caller, action Action, res Resource) (allowed bool, why []string) {
	if a, ok := g.devices[action]; ok && !res.Grave && plainDevice(caller) {
		return a.allowed, slices.Clone(a.why)
	}
	return g.ask(caller, action, res)
}

// ask asks the policies; what they cannot say is no.
func (g *Guard) ask(caller Caller, action Action, res Resource) (allowed bool, why []string) {
	entities, principal, resource := entitiesOf(caller, res)
	decision, diag := cedar.Authorize(g.about(action), entities, cedar.Request{
		Principal: principal,
		Action:    cedar.NewEntityUID("Action", cedar.String(action)),
		Resource:  resource,
		Context:   cedar.NewRecord(cedar.RecordMap{}),
	})
	for _, r := range diag.Reasons {
		why = append(why, g.names[r.PolicyID])
	}
	return decision == cedar.Allow && len(diag.Errors) == 0, why
}

// what names a resource for people.
func (r Resource) what() string {
	switch {
	case r.ID != "":
		return fmt.Sprintf("%s %q", r.Type, r.ID)
	case r.Product != "":
		return fmt.Sprintf("so much of %s %q", r.Type, r.Product)
	}
	return "the " + r.Type
}

func entitiesOf(c Caller, res Resource) (cedar.EntityMap, cedar.EntityUID, cedar.EntityUID) {
	principal := cedar.NewEntityUID("Caller", cedar.String(c.ID))
	resource := cedar.NewEntityUID("Resource", cedar.String(res.Type+"/"+res.ID))
	roles := make([]cedar.Value, 0, len(c.Roles))
	for _, r := range c.Roles {
		roles = append(roles, cedar.String(r))
	}
	scope, products := make([]cedar.Value, 0, len(c.Scope)), make([]cedar.Value, 0, len(c.Scope))
	for _, s := range c.Scope {
		scope, products = append(scope, cedar.String(s)), append(products, cedar.String(In("", s).Product))
	}
	var scopes []cedar.Value
	for _, p := range Paths(res.Product, res.Group) {
		scopes = append(scopes, cedar.String(p))
	}
	return cedar.EntityMap{
		principal: {UID: principal, Attributes: cedar.NewRecord(cedar.RecordMap{
			"kind":     cedar.String(c.Kind),
			"via":      cedar.String(c.Via),
			"fresh":    cedar.Boolean(c.Fresh),
			"seconded": cedar.Boolean(c.Seconded != ""),
			"id":       cedar.String(c.ID),
			"roles":    cedar.NewSet(roles...),
			"scope":    cedar.NewSet(scope...),
			"owner":    cedar.String(c.Owner),
			"products": cedar.NewSet(products...), // of the scope
			"anywhere": cedar.Boolean(len(c.Scope) == 0),
		})},
		resource: {UID: resource, Attributes: cedar.NewRecord(cedar.RecordMap{
			"type":    cedar.String(res.Type),
			"id":      cedar.String(res.ID),
			"product": cedar.String(res.Product),
			"scopes":  cedar.NewSet(scopes...), // all that it is in: its product, and its group with those above
			"grave":   cedar.Boolean(res.Grave),
		})},
	}, principal, resource
}
