// Package access decides who may do what, and keeps on record what it denied.
//
// Under all stages. A Caller is an argument of every verb, and Guard.Check is its first line: one call decides, by the Cedar
// policies in policies.cedar, and a denial is on record before it is answered; what was allowed and changes something has its fact in the
// ledger. A verb that forgets it is a bug that a test walks the services for.
// The guard trusts the adapters to have authenticated the caller they name; it trusts nothing else.
package access

import (
	"slices"
	"time"
)

// Kind says what sort of caller it is.
type Kind string

// People sign in; machines hold a token or a certificate; devices hold an identity from the factory; System is Hallmark itself
// acting on a fact (a reaction, a wave's planner), always with the fact as cause.
const (
	Person  Kind = "person"
	Machine Kind = "machine"
	Device  Kind = "device"
	System  Kind = "system"
)

// Role is a bundle of permissions, given within a scope.
type Role string

// The roles.
const (
	Viewer         Role = "viewer"
	Operator       Role = "operator"
	ReleaseManager Role = "release-manager"
	Factory        Role = "factory"
	Security       Role = "security"
	Auditor        Role = "auditor"
	Tester         Role = "tester"
	Admin          Role = "admin"
)

// Roles lists every role, in the order people meet them.
func Roles() []Role {
	return []Role{Viewer, Operator, ReleaseManager, Factory, Security, Auditor, Tester, Admin}
}

// Acts reports whether a role lets its holder change something.
func (r Role) Acts() bool { return r != Viewer && r != Auditor && r != Tester }

// ViaSession is how somebody is authenticated who has signed in.
const ViaSession = "session"

// Caller is who asks.
type Caller struct {
	ID       string // stable name: "person:alice", "token:ci", "device:<id>", "system:reactions"
	Kind     Kind
	Roles    []Role
	Owner    string   // whose member it is; empty: the maker's
	Scope    []string // products, or groups of them ("pump/eu"), it is limited to; empty means everywhere
	Via      string   // how it was authenticated: "token", "session", "mtls", "host"
	From     string   // of a session: what it was begun with, as signin.Credential has it
	Fresh    bool     // of a session: the person has proven within signin.StepUp that it is them
	Seconded string   // of a proposal that is carried out: who approved it

	second *Caller // who approved it, as they may act now; what they may not do is not done with their consent
}

// Has reports whether the caller holds role.
func (c Caller) Has(role Role) bool { return slices.Contains(c.Roles, role) }

// With is the caller seconded by who approved what they are about to do, as that one may act now.
func (c Caller) With(second Caller) Caller {
	c.Seconded, c.second = second.ID, &second
	return c
}

// Internal is Hallmark acting on its own facts; name says which part of it.
func Internal(name string) Caller { return Caller{ID: "system:" + name, Kind: System, Via: "process"} }

// DeviceCaller is the device that holds the certificate for id.
func DeviceCaller(id string) Caller { return Caller{ID: "device:" + id, Kind: Device, Via: "mtls"} }

// Action is a verb on a kind of thing: "device:quarantine". The list is in actions.go.
type Action string

// Resource is the thing acted on. Product and Group scope it; an empty Product means that the act spans products, an empty Group that
// it is about the whole product, or a device in no group.
type Resource struct {
	Type    string `json:"type"` // "device", "release", "rollout", "order", "stream", "instance"
	ID      string `json:"id,omitempty"`
	Product string `json:"product,omitempty"`
	Group   string `json:"group,omitempty"` // of the device: "eu/berlin"
	Grave   bool   `json:"grave,omitempty"` // it takes two people: see policies.cedar, four-eyes
}

// Decision is one audited answer.
type Decision struct {
	At       time.Time
	Caller   string
	Action   Action
	Resource Resource
	Allowed  bool
	Policies []string // the Cedar policies that decided
}
