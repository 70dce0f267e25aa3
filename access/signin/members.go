package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Member is a person or a machine that may act, and what it may do.
type Member struct {
	ID      string        `json:"id"` // "person:alice", "machine:ci"
	Kind    access.Kind   `json:"kind"`
	Roles   []access.Role `json:"roles"`
	Owner   string        `json:"owner,omitempty"` // whose member it is, whose devices it is limited to; empty: the maker's
	Scope   []string      `json:"scope,omitempty"` // products, or groups of them ("pump/eu"), it is limited to; empty means everywhere
	Created time.Time     `json:"created"`
	Changed time.Time     `json:"changed"`
	Ended   time.Time     `json:"ended,omitzero"` // since when it may do nothing any more
	Rev     int64         `json:"-"`              // rises with each change
}

// Passkey is a person's authenticator (W3C WebAuthn).
type Passkey struct {
	ID      []byte    `json:"id"`
	Member  string    `json:"member"`
	Label   string    `json:"label"` // as the person calls it
	Created time.Time `json:"created"`
	Used    time.Time `json:"used,omitzero"`
	Data    []byte    `json:"-"` // the adapter's: public key, counter, flags
}

// MemberStore keeps members and their passkeys; each write is durable when it returns nil.
type MemberStore interface {
	// Member finds one; ErrNoMember.
	Member(ctx context.Context, id string) (Member, error)
	// Members lists by ID, after (exclusive), at most limit.
	Members(ctx context.Context, after string, limit int) ([]Member, error)
	// SaveMember replaces one if its stored Rev is m.Rev, and raises Rev; else ErrMemberChanged. With an end, its secrets and
	// passkeys go.
	SaveMember(ctx context.Context, m Member, facts ...ledger.Fact) error
	// PutPasskey stores one; ErrPasskeyExists when its ID is known.
	PutPasskey(ctx context.Context, p Passkey, facts ...ledger.Fact) error
	// Passkeys lists a member's, oldest first.
	Passkeys(ctx context.Context, member string) ([]Passkey, error)
	// UsePasskey finds one and has use judge it; what use returns is stored, when it errs nothing is. ErrNoPasskey.
	UsePasskey(ctx context.Context, id []byte, use func(p Passkey) (Passkey, error)) error
	// DropPasskey removes a member's; ErrNoPasskey.
	DropPasskey(ctx context.Context, member string, id []byte, facts ...ledger.Fact) error
}

// Errors of the stores.
var (
	ErrNoMember      = errors.New("no such member")
	ErrMemberChanged = errors.New("the member changed meanwhile")
	ErrNoPasskey     = errors.New("no such passkey")
	ErrPasskeyExists = errors.New("the passkey is known already")
)

// MaxMembers bounds a page.
const MaxMembers = 200

// Members gives a page of the members.
func (c *Service) Members(ctx context.Context, caller access.Caller, after string, limit int) ([]Member, error) {
	if err := c.guard.Check(ctx, caller, access.AccessManage, access.Resource{Type: "instance"}); err != nil {
		return nil, err
	}
	if limit <= 0 || limit > MaxMembers {
		limit = MaxMembers
	}
	return c.members.Members(ctx, after, limit)
}

// Member gives one: one's own record, or anybody's for who manages access.
func (c *Service) Member(ctx context.Context, caller access.Caller, id string) (Member, error) {
	if err := c.own(ctx, caller, id); err != nil {
		return Member{}, err
	}
	m, err := c.members.Member(ctx, id)
	if errors.Is(err, ErrNoMember) {
		return Member{}, fault.New(fault.NotFound, "access.no-member", fmt.Sprintf("there is no member %q", id), "see `hallmark member list`")
	}
	return m, err
}

// SetRoles changes what a member may do; it holds for every secret of theirs at once. Nobody changes himself, so that there is
// always somebody else who knows.
func (c *Service) SetRoles(ctx context.Context, caller access.Caller, id string, roles []access.Role, scope []string) (Member, error) {
	m, err := c.member(ctx, caller, id)
	if err != nil {
		return Member{}, err
	}
	if caller.ID == id {
		return Member{}, fault.New(fault.Denied, "access.own-roles", "nobody changes their own roles", "have another administrator do it")
	}
	if len(roles) == 0 {
		return Member{}, fault.New(fault.Invalid, "access.roles", "a member needs at least one role", "end the member instead")
	}
	for _, r := range roles {
		if !slices.Contains(access.Roles(), r) {
			return Member{}, fault.New(fault.Invalid, "access.roles", fmt.Sprintf("role %q does not exist", r), fmt.Sprintf("the roles are %v", access.Roles()))
		}
	}
	if err := errors.Join(access.CheckScope(scope), checkOwned(m.Owner, roles, scope)); err != nil {
		return Member{}, err
	}
	to := m
	to.Roles, to.Scope = roles, scope
	if err := c.second(ctx, caller, id, m, to); err != nil {
		return Member{}, err
	}
	return c.save(ctx, caller, to)
}

// second answers nil when caller may change what a member may do, or what opens its door, without a second person, or has one. It
// takes two to give somebody power, and to take an administrator theirs, from when there is another administrator to ask.
func (c *Service) second(ctx context.Context, caller access.Caller, id string, from, to Member) error {
	if !to.gains(from) && !from.falls(to) || caller.Kind == access.System {
		return nil
	}
	other, err := c.otherAdmin(ctx, caller)
	if err != nil {
		return err
	}
	return c.guard.Check(ctx, caller, access.AccessManage, access.Resource{Type: "member", ID: id, Grave: other})
}

// nobody may do nothing: no name is empty, so that nothing is in the scope.
func nobody() Member { return Member{Scope: []string{""}} }

// gains reports whether m may change something that from may not.
func (m Member) gains(from Member) bool {
	return slices.ContainsFunc(m.Roles, access.Role.Acts) && !m.within(from)
}

// falls reports whether m administers the instance, and to does not any more.
func (m Member) falls(to Member) bool { return m.administers() && !to.administers() }

func (m Member) administers() bool {
	return m.Kind == access.Person && m.Ended.IsZero() && m.Owner == "" && len(m.Scope) == 0 && slices.Contains(m.Roles, access.Admin)
}

// within reports whether m may do nothing that old may not.
func (m Member) within(old Member) bool {
	for _, r := range m.Roles {
		if !slices.Contains(old.Roles, r) {
			return false
		}
	}
	if m.Owner != "" || old.Owner != "" {
		return m.Owner == old.Owner || old.Owner == "" && len(old.Scope) == 0
	}
	if len(old.Scope) == 0 {
		return true
	}
	for _, s := range m.Scope {
		if !slices.ContainsFunc(old.Scope, func(o string) bool { return access.Holds(o, s) }) {
			return false
		}
	}
	return len(m.Scope) > 0
}

// otherAdmin reports whether a person other than caller administers the whole instance.
func (c *Service) otherAdmin(ctx context.Context, caller access.Caller) (bool, error) {
	for after := ""; ; {
		ms, err := c.members.Members(ctx, after, MaxMembers)
		if err != nil || len(ms) == 0 {
			return false, err
		}
		for _, m := range ms {
			if m.ID != caller.ID && m.administers() {
				return true, nil
			}
		}
		after = ms[len(ms)-1].ID
	}
}

// EndMember takes a member every secret and passkey, and leave to come back.
func (c *Service) EndMember(ctx context.Context, caller access.Caller, id string) (Member, error) {
	m, err := c.member(ctx, caller, id)
	if err != nil || !m.Ended.IsZero() {
		return m, err
	}
	if caller.ID == id {
		return Member{}, fault.New(fault.Denied, "access.own-end", "nobody ends themselves: there would be nobody left to ask", "have another administrator do it")
	}
	to := m
	to.Ended = c.now().UTC()
	if err := c.second(ctx, caller, id, m, to); err != nil {
		return Member{}, err
	}
	return c.save(ctx, caller, to)
}

func (c *Service) member(ctx context.Context, caller access.Caller, id string) (Member, error) {
	if err := c.guard.Check(ctx, caller, access.AccessManage, access.Resource{Type: "member", ID: id}); err != nil {
		return Member{}, err
	}
	m, err := c.members.Member(ctx, id)
	if errors.Is(err, ErrNoMember) {
		return Member{}, fault.New(fault.NotFound, "access.no-member", fmt.Sprintf("there is no member %q", id), "see `hallmark member list`")
	}
	return m, err
}

func (c *Service) save(ctx context.Context, caller access.Caller, m Member) (Member, error) {
	m.Changed = c.now().UTC()
	data, err := json.Marshal(m)
	if err != nil {
		return Member{}, err
	}
	err = c.members.SaveMember(ctx, m, ledger.New(ledger.KindAccessChanged, m.Changed, caller.ID, m.ID, nil, data))
	if errors.Is(err, ErrMemberChanged) {
		return Member{}, fault.New(fault.Conflict, "access.changed", fmt.Sprintf("member %s changed meanwhile", m.ID), "look again and repeat")
	}
	m.Rev++
	return m, err
}

// own answers nil when the caller asks about himself, or manages access.
func (c *Service) own(ctx context.Context, caller access.Caller, member string) error {
	if caller.ID == member && (caller.Kind == access.Person || caller.Kind == access.Machine) {
		return nil
	}
	return c.guard.Check(ctx, caller, access.AccessManage, access.Resource{Type: "member", ID: member})
}

// Held lists a member's secrets: one's own, or anybody's for who manages access.
func (c *Service) Held(ctx context.Context, caller access.Caller, member string) ([]Credential, error) {
	if err := c.own(ctx, caller, member); err != nil {
		return nil, err
	}
	return c.store.CredentialsOf(ctx, member, c.now())
}

// Revoke ends one secret of a member: one's own, or anybody's for who manages access.
func (c *Service) Revoke(ctx context.Context, caller access.Caller, member, id string) error {
	if err := c.own(ctx, caller, member); err != nil {
		return err
	}
	data, err := json.Marshal(map[string]string{"member": member, "revoked": id})
	if err != nil {
		return err
	}
	err = c.store.RevokeCredential(ctx, member, id, ledger.New(ledger.KindAccessChanged, c.now(), caller.ID, member, nil, data))
	if errors.Is(err, ErrNoCredential) {
		return fault.New(fault.NotFound, "access.no-credential", fmt.Sprintf("%s has no token or session %q", member, id), "list them")
	}
	return err
}
