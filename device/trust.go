package device

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// bundleValid is how long a device that was away may still be given the next bundle: as good as always.
const bundleValid = 10 * 365 * 24 * time.Hour

// PublishBundle takes the next trust bundle of a product, signed by the threshold of its own root and of the current one's, logs
// it, and commands the devices in the field that are behind to take it.
func (s *Service) PublishBundle(ctx context.Context, caller access.Caller, envelope []byte) (Bundle, error) {
	claim, err := bundleClaim(envelope)
	if err != nil {
		return Bundle{}, fault.Newf(fault.Invalid, "bundle.invalid", "%w", err).With("make it again: `hallmark bundle payload`")
	}
	if err := s.cfg.Guard.Check(ctx, caller, access.BundlePublish, access.Resource{Type: "product", ID: claim.Product, Product: claim.Product}); err != nil {
		return Bundle{}, err
	}
	var current *wire.Bundle
	switch b, err := s.cfg.Trust.Bundle(ctx, claim.Product, 0); {
	case err == nil:
		current = &b.Wire
	case !errors.Is(err, ErrNotFound):
		return Bundle{}, err
	}
	next, err := wire.VerifyBundle(current, envelope)
	if err != nil {
		return Bundle{}, fault.Newf(fault.Invalid, "bundle.refused", "trust bundle of %s: %w", claim.Product, err).With("it needs a threshold of the keys of the bundle before, and of its own; see `hallmark bundle show`")
	}
	if current == nil && next.Version != 1 {
		return Bundle{}, fault.Newf(fault.Invalid, "bundle.refused", "the first trust bundle of %s has version %d, want 1", next.Product, next.Version).With("make it again with version 1")
	}
	f := ledger.New(ledger.KindBundlePublished, s.cfg.Now(), caller.ID, next.Product, nil, envelope)
	b := Bundle{UID: f.UID, Wire: next, Envelope: envelope}
	if err := s.cfg.Trust.PutBundle(ctx, b, f); err != nil {
		if errors.Is(err, ErrChanged) {
			return Bundle{}, fault.Newf(fault.Conflict, "bundle.changed", "the trust bundle of %s changed meanwhile", next.Product).With("look at the one that is there, and make the next after it: `hallmark bundle payload`")
		}
		return Bundle{}, err
	}
	return b, nil
}

func bundleClaim(envelope []byte) (wire.Bundle, error) {
	payload, _, err := wire.ThresholdPayload(wire.TypeBundle, envelope)
	if err != nil {
		return wire.Bundle{}, err
	}
	return wire.DecodeBundle(payload)
}

// MaxBehind bounds the devices that one command tells to take a bundle.
const MaxBehind = 10_000

// DistributeBundle commands the devices in the field whose bundle is older than the current one to take it, unless they have been
// told. It is called again and again: devices come into the field with the bundle of the day they were made.
func (s *Service) DistributeBundle(ctx context.Context, caller access.Caller, product string) error {
	if err := s.cfg.Guard.Check(ctx, caller, access.BundlePublish, access.Resource{Type: "product", ID: product, Product: product}); err != nil {
		return err
	}
	b, err := s.CurrentBundle(ctx, product)
	if err != nil {
		return err
	}
	if b.Wire.Version > 1 { // while those who believe the bundle before can still be shown
		if _, err := s.keepSeen(ctx, b); err != nil {
			return err
		}
	}
	ids, err := s.cfg.Trust.DevicesBehind(ctx, product, b.Wire.Version, s.cfg.Now())
	if err != nil || len(ids) == 0 {
		return err
	}
	_, err = s.Command(ctx, caller, Instruction{
		Product: product, Act: wire.ActBundle, Devices: ids, Valid: bundleValid, Reason: fmt.Sprintf("trust bundle %d", b.Wire.Version),
	})
	return err
}

// CurrentBundle gives the product's trust bundle. It is public: every device has it.
func (s *Service) CurrentBundle(ctx context.Context, product string) (Bundle, error) {
	b, err := s.cfg.Trust.Bundle(ctx, product, 0)
	if errors.Is(err, ErrNotFound) {
		return Bundle{}, fault.New(fault.NotFound, "bundle.unknown", fmt.Sprintf("product %q has no trust bundle", product), "publish its first one")
	}
	return b, err
}

// Warrants lists a product's warrants, everybody's with an empty one, by ID, from behind after on, at most limit.
func (s *Service) Warrants(ctx context.Context, caller access.Caller, product, after string, limit int) ([]Warrant, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.DeviceRead, access.Resource{Type: "product", ID: product, Product: product}); err != nil {
		return nil, err
	}
	return s.cfg.Trust.Warrants(ctx, product, after, limit)
}

// BundleOf gives a version of a product's trust bundle, 0 the current one.
func (s *Service) BundleOf(ctx context.Context, caller access.Caller, product string, version uint64) (Bundle, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.ProductRead, access.Resource{Type: "product", ID: product, Product: product}); err != nil {
		return Bundle{}, err
	}
	b, err := s.cfg.Trust.Bundle(ctx, product, version)
	if errors.Is(err, ErrNotFound) {
		return Bundle{}, fault.New(fault.NotFound, "bundle.unknown", fmt.Sprintf("product %q has no trust bundle of that version", product), "see `hallmark bundle list`")
	}
	return b, err
}

// SubmitWarrant takes a warrant signed offline by the threshold of the product's warrant keys, and the devices whose Merkle root
// it names, and logs it. The UID of the result is what an Instruction refers to.
func (s *Service) SubmitWarrant(ctx context.Context, caller access.Caller, envelope []byte, devices []string) (Warrant, error) {
	w, err := warrantClaim(envelope)
	if err != nil {
		return Warrant{}, invalidWarrant(err)
	}
	if err := s.cfg.Guard.Check(ctx, caller, access.WarrantSubmit, access.Resource{Type: "product", ID: w.Product, Product: w.Product}); err != nil {
		return Warrant{}, err
	}
	b, err := s.CurrentBundle(ctx, w.Product)
	if err != nil {
		return Warrant{}, err
	}
	return s.logWarrant(ctx, caller, envelope, w, devices, b.Wire.Warrant)
}

// OwnerWarrant takes a warrant signed by the key of a device's owner: leave to let it go, or to belong to another, and to nothing else.
func (s *Service) OwnerWarrant(ctx context.Context, caller access.Caller, envelope []byte, id string, key []byte) (Warrant, error) {
	w, err := warrantClaim(envelope)
	if err != nil {
		return Warrant{}, invalidWarrant(err)
	}
	d, err := s.open(ctx, caller, access.WarrantSubmit, id)
	if err != nil {
		return Warrant{}, err
	}
	if !wire.ChangesOwner(w.Act) || w.Product != d.Product || len(w.Owner) == 0 {
		return Warrant{}, invalidWarrant(fmt.Errorf("warrant %s: an owner's key signs for disown and adopt of its device of %s, naming the ownership, and this is for %s of %s", w.ID, d.Product, w.Act, w.Product))
	}
	return s.logWarrant(ctx, caller, envelope, w, []string{id}, wire.KeySet{Keys: [][]byte{key}, Threshold: 1})
}

func warrantClaim(envelope []byte) (wire.Warrant, error) {
	payload, _, err := wire.ThresholdPayload(wire.TypeWarrant, envelope)
	if err != nil {
		return wire.Warrant{}, err
	}
	return wire.DecodeWarrant(payload)
}

func invalidWarrant(err error) error {
	return fault.Newf(fault.Invalid, "warrant.invalid", "%w", err).With("make it again: `hallmark warrant payload`")
}

// HoldsWarrant says whether a warrant is one of its product's warrant role, for just those devices, and not over. One that was submitted before is held to it again: there are also those of owners.
func (s *Service) HoldsWarrant(ctx context.Context, envelope []byte, devices []string) error {
	w, err := warrantClaim(envelope)
	if err != nil {
		return invalidWarrant(err)
	}
	b, err := s.CurrentBundle(ctx, w.Product)
	if err != nil {
		return err
	}
	return s.holds(envelope, w, devices, b.Wire.Warrant)
}

// holds says whether a warrant is signed by whom, for just those devices, and not over.
func (s *Service) holds(envelope []byte, w wire.Warrant, devices []string, whom wire.KeySet) error {
	if _, err := wire.VerifyThreshold(wire.TypeWarrant, envelope, whom); err != nil {
		return invalidWarrant(err)
	}
	if !wire.NeedsWarrant(w.Act) && !wire.ChangesOwner(w.Act) || w.Expires <= uint64(s.cfg.Now().Unix()) {
		return invalidWarrant(fmt.Errorf("warrant %s: act %s needs none, or it is over", w.ID, w.Act))
	}
	set, err := wire.SetOf(devices)
	if err != nil {
		return invalidWarrant(err)
	}
	if string(set.Root) != string(w.Devices.Root) || set.Count != w.Devices.Count {
		return invalidWarrant(fmt.Errorf("warrant %s was not signed for these %d devices", w.ID, len(devices)))
	}
	return nil
}

// logWarrant logs a warrant that is signed by whom, for just those devices.
func (s *Service) logWarrant(ctx context.Context, caller access.Caller, envelope []byte, w wire.Warrant, devices []string, whom wire.KeySet) (Warrant, error) {
	if err := s.holds(envelope, w, devices, whom); err != nil {
		return Warrant{}, err
	}
	now := s.cfg.Now().UTC()
	f := ledger.New(ledger.KindWarrantIssued, now, caller.ID, w.ID, nil, envelope)
	out := Warrant{UID: f.UID, Wire: w}
	if err := s.cfg.Trust.PutWarrant(ctx, out, devices, f); err != nil {
		if errors.Is(err, ErrExists) {
			return Warrant{}, fault.Newf(fault.Conflict, "warrant.known", "warrant %s was submitted already", w.ID).With("make another, with an ID of its own, when the first does not do")
		}
		return Warrant{}, err
	}
	return out, nil
}
