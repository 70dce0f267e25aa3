package monitor

import (
	"context"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
)

// Overdue is the trust bundle that every device of a product should have by now.
type Overdue struct {
	Product   string
	Version   uint64
	Published time.Time
	Days      int // that the product allows
}

// Laggard is a device that has an older one.
type Laggard struct {
	Device string
	Bundle uint64
}

// Bundles knows who stays behind a product's trust bundle.
type Bundles interface {
	// OverdueBundles gives, for each product that has one, the newest bundle that was published longer ago than the product allows.
	OverdueBundles(ctx context.Context, now time.Time) ([]Overdue, error)
	// Laggards lists devices in the field that were heard of since the time that they had was over, and then believed an older bundle, and have no open
	// finding of it; at most limit.
	Laggards(ctx context.Context, o Overdue, limit int) ([]Laggard, error)
	// CaughtUp lists open findings of the kind BundleBehind whose device believes o or a newer one; at most limit.
	CaughtUp(ctx context.Context, o Overdue, limit int) ([]Finding, error)
}

// sweepBundles raises a finding for each device that stays behind, closes those of devices that have caught up, and tells how many it raised. A device
// that is not heard of is a finding of its own; one that comes back after long is behind for as long as it takes to catch up.
func (s *Service) sweepBundles(ctx context.Context, now time.Time) (n int, err error) {
	if s.cfg.Bundles == nil {
		return 0, nil
	}
	due, err := s.cfg.Bundles.OverdueBundles(ctx, now)
	if err != nil {
		return 0, err
	}
	for _, o := range due {
		if err := s.caughtUp(ctx, o); err != nil {
			return n, err
		}
		for {
			behind, err := s.cfg.Bundles.Laggards(ctx, o, s.cfg.SweepAtOnce)
			if err != nil {
				return n, err
			}
			for _, l := range behind {
				if _, err := s.Raise(ctx, access.Internal("monitor"), Finding{
					Kind: BundleBehind, Severity: High, Product: o.Product, Subject: l.Device,
					Text: fmt.Sprintf("believes trust bundle %d; %d was published at %s, and %d days are allowed", l.Bundle, o.Version, o.Published.UTC().Format(time.RFC3339), o.Days),
				}); err != nil {
					return n, err
				}
				n++
			}
			if len(behind) < s.cfg.SweepAtOnce {
				break
			}
		}
	}
	return n, nil
}

func (s *Service) caughtUp(ctx context.Context, o Overdue) error {
	for {
		done, err := s.cfg.Bundles.CaughtUp(ctx, o, s.cfg.SweepAtOnce)
		if err != nil {
			return err
		}
		for _, f := range done {
			err := s.Close(ctx, access.Internal("monitor"), f.ID, fmt.Sprintf("it believes trust bundle %d or a newer one now", o.Version), nil)
			if err != nil && fault.KindOf(err) != fault.Conflict { // a person closed it
				return err
			}
		}
		if len(done) < s.cfg.SweepAtOnce {
			return nil
		}
	}
}
