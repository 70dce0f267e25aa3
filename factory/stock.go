package factory

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// Published finds what is put on devices by its digest; ErrNotFound for what was never published here.
type Published interface {
	// Bundle gives a product's trust bundle, by SHA-256 of its envelope, and the one that is in force.
	Bundle(ctx context.Context, product string, digest [32]byte) (b, inForce wire.Bundle, err error)
	// Release gives a release that was published as its approvers signed it, and whether it was withdrawn since.
	Release(ctx context.Context, digest [32]byte) (envelope []byte, withdrawn bool, err error)
}

// stock is what devices are to be made of, as it stands where that is asked: a desk knows of nothing newer than what it was given.
type stock struct {
	bundle    wire.Bundle // that devices leave with
	inForce   wire.Bundle // the product's newest
	release   []byte      // COSE_Sign(Release)
	withdrawn bool        // the release
}

// judge is the one place that decides what devices may be made of. err: of this nobody ever orders. late: it might have been ordered once, and is not any
// more: the release was withdrawn, or the trust bundle is not in force, or by the one that is the release is too old or has not enough approvers.
func (s stock) judge(product, hardware string) (r wire.Release, digest [32]byte, late *fault.Fault, err error) {
	if s.bundle.Product != product {
		return r, digest, nil, invalid("the trust bundle is for product %q", s.bundle.Product)
	}
	if r, digest, err = wire.VerifyRelease(s.bundle, s.release); err != nil {
		return r, digest, nil, invalid("release: %w", err)
	}
	if !r.RunsOn(hardware) {
		return r, digest, nil, invalid("release %s is not for hardware %q", r.ID, hardware)
	}
	if s.withdrawn {
		return r, digest, fault.New(fault.Conflict, "order.release", fmt.Sprintf("release %s was withdrawn", r.ID), "publish another, and order of that"), nil
	}
	if s.bundle.Version < s.inForce.Version {
		return r, digest, fault.New(fault.Conflict, "order.bundle", fmt.Sprintf("trust bundle %d of %s is not in force any more: %d is", s.bundle.Version, product, s.inForce.Version),
			"order again: devices leave with the newest"), nil
	}
	if _, _, why := wire.VerifyRelease(s.inForce, s.release); why != nil {
		return r, digest, fault.New(fault.Conflict, "order.release", fmt.Sprintf("release %s is none by the trust bundle in force: %v", r.ID, why), "publish another, and order of that"), nil
	}
	return r, digest, nil, nil
}

// stock finds what was published here. Of a thing that was not it gives the name.
func (s *Service) stock(ctx context.Context, product string, bundle, release [32]byte) (k stock, missing string, err error) {
	if k.bundle, k.inForce, err = s.c.Published.Bundle(ctx, product, bundle); err != nil {
		return k, fmt.Sprintf("trust bundle %x", bundle), err
	}
	k.release, k.withdrawn, err = s.c.Published.Release(ctx, release)
	return k, fmt.Sprintf("release %x", release), err
}

// orderable says why nothing is ordered of a draft here and now.
func (s *Service) orderable(ctx context.Context, d *draft) error {
	k, missing, err := s.stock(ctx, d.spec.Product, sha256.Sum256(d.spec.Bundle), [32]byte(d.header.Release))
	if errors.Is(err, ErrNotFound) {
		return fault.New(fault.Conflict, "order.release", missing+" was never published here", "publish it first")
	}
	if err != nil {
		return err
	}
	_, _, late, err := k.judge(d.spec.Product, d.spec.Hardware)
	if err != nil || late == nil {
		return err
	}
	return late
}
