package signin

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
)

// ErrNoOwner says that there is no such owner, or not any more.
var ErrNoOwner = errors.New("no such owner")

// OwnerStore knows what owners have.
type OwnerStore interface {
	// OwnerPlaces gives the groups that the owner's devices are in, as scopes name them: one in each product it has devices of. ErrNoOwner.
	OwnerPlaces(ctx context.Context, owner string) ([]string, error)
}

// ownerRoles are the roles that an owner's member may have. What needs another is the maker's.
var ownerRoles = []access.Role{access.Viewer, access.Operator}

// checkOwned says what is wrong with an owner's member.
func checkOwned(owner string, roles []access.Role, scope []string) error {
	if owner == "" {
		return nil
	}
	if len(scope) > 0 {
		return fault.New(fault.Invalid, "access.owner-scope", "an owner's member is limited to what the owner has, and to nothing else", "leave the scope out")
	}
	for _, r := range roles {
		if !slices.Contains(ownerRoles, r) {
			return fault.New(fault.Invalid, "access.owner-roles", fmt.Sprintf("an owner's member cannot have role %q", r), fmt.Sprintf("the roles are %v", ownerRoles))
		}
	}
	return nil
}

// scopeOf is where a member may act now.
func scopeOf(ctx context.Context, owners OwnerStore, m Member) ([]string, error) {
	if m.Owner == "" {
		return m.Scope, nil
	}
	places, err := owners.OwnerPlaces(ctx, m.Owner)
	if err != nil && !errors.Is(err, ErrNoOwner) {
		return nil, err
	}
	if len(places) == 0 {
		return []string{access.Nowhere}, nil
	}
	return places, nil
}

// callerOf is a member who has shown that it is them.
func (c *Service) callerOf(ctx context.Context, m Member, via string) (access.Caller, error) {
	scope, err := scopeOf(ctx, c.owners, m)
	return access.Caller{ID: m.ID, Kind: m.Kind, Roles: m.Roles, Owner: m.Owner, Scope: scope, Via: via}, err
}

// Acting gives a member as a caller who has shown nothing just now; false when there is no such member, or it has ended.
func (c *Service) Acting(ctx context.Context, id string) (access.Caller, bool, error) {
	m, err := c.members.Member(ctx, id)
	if errors.Is(err, ErrNoMember) || err == nil && !m.Ended.IsZero() {
		return access.Caller{}, false, nil
	}
	if err != nil {
		return access.Caller{}, false, err
	}
	caller, err := c.callerOf(ctx, m, "")
	return caller, err == nil, err
}
