package access

import (
	"strings"

	"github.com/hallmark-iot/hallmark/ledger"
)

// An owner is whom devices belong to once they have left the maker: in each product its devices are a group, "owner/" and its ID, with
// groups of its own below. Its people see and command what is in those, and nothing else: their scope follows from what the owner has at
// the moment, and the policy "owner" says what may be an owner's at all.

// ownerGroup is the group that all owners' are in. Nobody puts a device in there, or takes it out, but by a claim or a transfer.
const ownerGroup = "owner"

// Nowhere is a scope that nothing is in: no product is called so, and an empty scope means everything.
const Nowhere = "?"

// OwnerGroup is the group of an owner's devices in each product.
func OwnerGroup(owner string) string { return ownerGroup + "/" + owner }

// OwnerOf gives the owner whose group it is, or is in; empty when it is nobody's.
func OwnerOf(group string) string {
	parts := strings.SplitN(group, "/", 3)
	if parts[0] != ownerGroup {
		return ""
	}
	if len(parts) < 2 {
		return Nowhere // the group of all owners, which no device is in
	}
	return parts[1]
}

// veiled is how an owner's people are called in public.
const veiled = "owner"

// Tells gives a fact as the caller may be seen to be the one who did it. An owner's people are not named in public: who they are says whose a
// device is, and that two devices have one owner. Who may read what is private reads who it was.
func (c Caller) Tells(f ledger.Fact) ledger.Fact {
	if c.Owner == "" {
		return f
	}
	return f.Veil(veiled)
}

// Named is how the caller is called where everybody reads it.
func (c Caller) Named() string {
	if c.Owner != "" {
		return veiled
	}
	return c.ID
}
