package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/fault"
)

// An owner is whom devices belong to once they have left the maker: in each product its devices are a group, "owner/" and its ID, with
// groups of its own below. Its people see and command what is in those, and nothing else: their scope follows from what the owner has at
// the moment, and the policy "owner" says what may be an owner's at all.

// ownerGroup is the group that all owners' are in. Nobody puts a device in there, or takes it out, but by a claim or a transfer.
const ownerGroup = "owner"

// nowhere is a scope that nothing is in: no product is called so, and an empty scope means everything.
const nowhere = "?"

// ErrNoOwner says that there is no such owner, or not any more.
var ErrNoOwner = errors.New("no such owner")

// OwnerStore knows what owners have.
type OwnerStore interface {
	// OwnerPlaces gives the groups that the owner's devices are in, as scopes name them: one in each product it has devices of. ErrNoOwner.
	OwnerPlaces(ctx context.Context, owner string) ([]string, error)
}

// OwnerGroup is the group of an owner's devices in each product.
func OwnerGroup(owner string) string { return ownerGroup + "/" + owner }

// OwnerOf gives the owner whose group it is, or is in; empty when it is nobody's.
func OwnerOf(group string) string {
	parts := strings.SplitN(group, "/", 3)
	if parts[0] != ownerGroup {
		return ""
	}
	if len(parts) < 2 {
		return nowhere // the group of all owners, which no device is in
	}
	return parts[1]
}

// ownerRoles are the roles that an owner's member may have. What needs another is the maker's.
var ownerRoles = []Role{Viewer, Operator}

// checkOwned says what is wrong with an owner's member.
func checkOwned(owner string, roles []Role, scope []string) error {
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
		return []string{nowhere}, nil
	}
	return places, nil
}

// callerOf is a member who has shown that it is them.
func (c *Credentials) callerOf(ctx context.Context, m Member, via string) (Caller, error) {
	scope, err := scopeOf(ctx, c.owners, m)
	return Caller{ID: m.ID, Kind: m.Kind, Roles: m.Roles, Owner: m.Owner, Scope: scope, Via: via}, err
}
