package release

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Approver says whose a key of the release role is. A threshold counts keys, and what is asked for is people: who holds two keys is still one.
type Approver struct {
	Key    string    `json:"key" pattern:"^[0-9a-f]{32}$" doc:"key ID: first 16 bytes of SHA-256 over its SubjectPublicKeyInfo, hex"`
	Member string    `json:"member" doc:"whose it is; empty: nobody's any more, and it approves nothing"`
	Since  time.Time `json:"since"`
	By     string    `json:"by" doc:"who said so"`
}

// ApproverChange is the data of the fact approver.bound.
type ApproverChange struct {
	Product string `json:"product"`
	Key     string `json:"key"`
	Member  string `json:"member,omitempty"` // empty: it is nobody's any more
}

// Approvers gives whose the keys of a product's release role are, or were. Where none ever was anybody's, each approval has to be another person's, with another key; nothing says which.
func (s *Service) Approvers(ctx context.Context, caller access.Caller, product string) ([]Approver, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.ReleaseRead, access.Resource{Type: "product", ID: product, Product: product}); err != nil {
		return nil, err
	}
	if _, err := s.product(ctx, product); err != nil {
		return nil, err
	}
	return s.cfg.Store.Approvers(ctx, product)
}

// BindApprover says that a key of the release role is a person's. From the first on, and for good, approvals count only by keys that are their sender's.
func (s *Service) BindApprover(ctx context.Context, caller access.Caller, product, key, member string) (Approver, error) {
	if err := s.mayBind(ctx, caller, product); err != nil {
		return Approver{}, err
	}
	kid, err := hex.DecodeString(key)
	if err != nil || len(kid) != len(wire.KeyID{}) {
		return Approver{}, invalid("approver.key", fmt.Sprintf("%.80q is no key ID", key), "write its 16 bytes in hex; `hallmark bundle show` lists the release role's keys")
	}
	b, err := s.bundle(ctx, product)
	if err != nil {
		return Approver{}, err
	}
	if !b.Release.Has(wire.KeyID(kid)) {
		return Approver{}, invalid("approver.key", fmt.Sprintf("key %x is not in the release role of %s", kid, product), "`hallmark bundle show` lists its keys")
	}
	switch person, err := s.cfg.Store.IsPerson(ctx, member); {
	case err != nil:
		return Approver{}, err
	case !person:
		return Approver{}, invalid("approver.member", fmt.Sprintf("%.100q is no person here", member), "see `hallmark member list`")
	}
	a := Approver{Key: hex.EncodeToString(kid), Member: member, Since: s.cfg.Now().UTC().Truncate(time.Millisecond), By: caller.ID}
	return a, s.putApprover(ctx, caller, product, a)
}

// UnbindApprover says that a key is nobody's any more: that of who left, or that was lost. Approvals by it count no more, also those of releases that are under way. It stays on
// record as nobody's: were it forgotten, with the last of them anybody might approve with any of them again.
func (s *Service) UnbindApprover(ctx context.Context, caller access.Caller, product, key string) error {
	if err := s.mayBind(ctx, caller, product); err != nil {
		return err
	}
	all, err := s.cfg.Store.Approvers(ctx, product)
	if err != nil {
		return err
	}
	key = strings.ToLower(key)
	if !slices.ContainsFunc(all, func(a Approver) bool { return a.Key == key && a.Member != "" }) {
		return fault.New(fault.NotFound, "approver.unknown", fmt.Sprintf("key %.80q of %s is nobody's", key, product), "see `hallmark approver list`")
	}
	return s.putApprover(ctx, caller, product, Approver{Key: key, Since: s.cfg.Now().UTC().Truncate(time.Millisecond), By: caller.ID})
}

// mayBind: it changes who may do what, and takes two people.
func (s *Service) mayBind(ctx context.Context, caller access.Caller, product string) error {
	if err := s.cfg.Guard.Check(ctx, caller, access.ApproverBind, access.Resource{Type: "product", ID: product, Product: product, Grave: true}); err != nil {
		return err
	}
	_, err := s.product(ctx, product)
	return err
}

func (s *Service) putApprover(ctx context.Context, caller access.Caller, product string, a Approver) error {
	data, err := json.Marshal(ApproverChange{product, a.Key, a.Member})
	if err != nil {
		return err
	}
	return s.cfg.Store.PutApprover(ctx, product, a, ledger.New(ledger.KindApproverBound, a.Since, caller.ID, product, nil, data))
}

// theirs refuses an approval by a key that is another's, or a builder's: who built it does not approve it.
func (s *Service) theirs(ctx context.Context, caller access.Caller, product string, key wire.KeyID) error {
	builders, err := s.cfg.Supply.Builders(ctx, product)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(builders, func(spki []byte) bool { return wire.KeyIDOfSPKI(spki) == key }) {
		return fault.New(fault.Denied, "release.builder", fmt.Sprintf("key %x is one that %s is built with: who built a release does not approve it", key, product), "approve with a person's own key")
	}
	all, err := s.cfg.Store.Approvers(ctx, product)
	if err != nil || len(all) == 0 {
		return err
	}
	name := hex.EncodeToString(key[:])
	n := slices.IndexFunc(all, func(a Approver) bool { return a.Key == name })
	switch {
	case n < 0 || all[n].Member == "":
		return fault.New(fault.Denied, "release.unbound", fmt.Sprintf("key %s of %s is nobody's", name, product), "an administrator says whose it is: `hallmark approver bind`")
	case all[n].Member != caller.ID:
		return fault.New(fault.Denied, "release.anothers-key", fmt.Sprintf("key %s of %s is not %s's", name, product, caller.ID), "approve with your own key; see `hallmark approver list`")
	}
	return nil
}

// counted refuses to publish what is left without its threshold when approvals by keys that are not their sender's do not count.
func (s *Service) counted(ctx context.Context, r Release, threshold uint) error {
	all, err := s.cfg.Store.Approvers(ctx, r.Manifest.Product)
	if err != nil || len(all) == 0 {
		return err
	}
	var n uint
	for _, p := range r.Approvals {
		if slices.ContainsFunc(all, func(a Approver) bool { return a.Key == p.Key && a.Member != "" && a.Member == p.Caller }) {
			n++
		}
	}
	if n < threshold {
		return conflict("release.unbound", fmt.Sprintf("of %d approvals of release %s %d are by a key that is their sender's own, and %d are needed", len(r.Approvals), r.Manifest.ID, n, threshold),
			"others approve it; `hallmark approver list` says whose the keys are")
	}
	return nil
}
