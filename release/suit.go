package release

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/suit"
)

// SUITSigned is the data of the fact release.suit.signed.
type SUITSigned struct {
	Release string `json:"release"` // digest, hex
	Key     string `json:"kid"`     // hex
	Block   []byte `json:"block"`   // COSE_Sign1 over the manifest's digest, without payload
}

// suitOf is the encoded SUIT manifest of a release.
func suitOf(r Release) ([]byte, error) {
	m, err := suit.Of(r.Manifest)
	if err != nil {
		return nil, fault.Newf(fault.Conflict, "release.suit", "release %s cannot be written as a SUIT manifest: %w", r.Manifest.ID, err).
			With("leave out of the release what is named, or ask for its manifest in our own form")
	}
	return m.Encode()
}

// SignSUIT takes an approver's signature over the release's SUIT manifest: of who has approved the release, by the key with which they did.
func (s *Service) SignSUIT(ctx context.Context, caller access.Caller, digest [32]byte, block []byte) (Release, error) {
	r, err := s.checked(ctx, caller, access.ReleaseApprove, digest)
	if err != nil {
		return Release{}, err
	}
	if r.Status != Proposed && r.Status != Published {
		return Release{}, conflict("release.status", fmt.Sprintf("release %s is %s", r.Manifest.ID, r.Status), "propose a new one")
	}
	i := slices.IndexFunc(r.Approvals, func(a Approval) bool { return a.Caller == caller.ID })
	if i < 0 {
		return Release{}, conflict("release.suit-approval", fmt.Sprintf("%s has not approved release %s, of which this is another form", caller.ID, r.Manifest.ID),
			"approve the release first, with the same key")
	}
	manifest, err := suitOf(r)
	if err != nil {
		return Release{}, err
	}
	b, err := s.bundle(ctx, r.Manifest.Product)
	if err != nil {
		return Release{}, err
	}
	if err := bySUIT(b.Release, r.Approvals[i].Key, manifest, block); err != nil {
		return Release{}, fault.Newf(fault.Invalid, "release.suit-signature", "no signature over the SUIT manifest of release %s by the key with which %s approved it: %w", r.Manifest.ID, caller.ID, err).
			With("sign it anew with `--suit`, by the key of the approval")
	}
	if r.Approvals[i].SUIT != nil {
		return r, nil // the same twice, or another signature of the same: one is enough
	}
	data, err := json.Marshal(SUITSigned{Release: hex.EncodeToString(digest[:]), Key: r.Approvals[i].Key, Block: block})
	if err != nil {
		return Release{}, err
	}
	r.Approvals = slices.Clone(r.Approvals)
	r.Approvals[i].SUIT = block
	return s.update(ctx, r, ledger.New(ledger.KindReleaseSUITSigned, s.cfg.Now().UTC(), caller.ID, r.Manifest.ID, nil, data))
}

// bySUIT checks a block by the key of the role that is called kid.
func bySUIT(role wire.KeySet, kid string, manifest, block []byte) error {
	for _, der := range role.Keys {
		pub, err := wire.ParseKey(der)
		if err != nil {
			return err
		}
		if id, err := wire.KeyIDOf(pub); err != nil || hex.EncodeToString(id[:]) != kid {
			continue
		}
		return suit.VerifyBlock(manifest, block, pub)
	}
	return errors.New("the key is in the product's release role no more")
}

// SUIT gives a published release as a SUIT envelope, once as many approvers signed its manifest as the current bundle demands of a release. A processor judges it by itself.
func (s *Service) SUIT(ctx context.Context, caller access.Caller, digest [32]byte) ([]byte, error) {
	r, err := s.checked(ctx, caller, access.ReleaseRead, digest)
	if err != nil {
		return nil, err
	}
	if r.Status != Published {
		return nil, conflict("release.status", fmt.Sprintf("release %s is %s", r.Manifest.ID, r.Status), "a SUIT envelope is of a release that is published")
	}
	e := suit.Envelope{}
	if e.Manifest, err = suitOf(r); err != nil {
		return nil, err
	}
	b, err := s.bundle(ctx, r.Manifest.Product)
	if err != nil {
		return nil, err
	}
	for _, a := range r.Approvals {
		if a.SUIT != nil && bySUIT(b.Release, a.Key, e.Manifest, a.SUIT) == nil {
			e.Blocks = append(e.Blocks, a.SUIT)
		}
	}
	if uint(len(e.Blocks)) < b.Release.Threshold {
		return nil, conflict("release.suit-threshold", fmt.Sprintf("the SUIT manifest of release %s has %d of the %d signatures needed", r.Manifest.ID, len(e.Blocks), b.Release.Threshold),
			"approvers sign it with `hallmark release sign-suit`, or offline with `hallmark approve --suit`")
	}
	return e.Encode()
}
