package product

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// How long a device may stay behind a trust bundle, days.
const (
	DefaultBundleDue = 14
	MaxBundleDue     = 3650
)

// BundleDays is how long a device of the product may stay behind a trust bundle before it is a finding, days.
func (p Product) BundleDays() int {
	if p.BundleDue <= 0 {
		return DefaultBundleDue
	}
	return p.BundleDue
}

// BundleDueChange is the data of the fact product.bundle-due.changed.
type BundleDueChange struct {
	Product string `json:"product"`
	Days    int    `json:"days"`
}

// SetBundleDue says how many days a device of product id may stay behind a trust bundle before it is a finding.
func (s *Service) SetBundleDue(ctx context.Context, caller access.Caller, id string, days int) (Product, error) {
	if err := s.guard.Check(ctx, caller, access.BundlePublish, resource(id)); err != nil {
		return Product{}, err
	}
	if days < 1 || days > MaxBundleDue {
		return Product{}, fault.New(fault.Invalid, "product.bundle-due", "how long a device may stay behind is 1 to 3650 days", "say a number of days in which each device that works calls")
	}
	p, err := s.store.Product(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return Product{}, unknown(id)
	}
	if err != nil || p.BundleDays() == days {
		return p, err
	}
	data, err := json.Marshal(BundleDueChange{id, days})
	if err != nil {
		return Product{}, err
	}
	p.BundleDue = days
	return p, s.store.SetBundleDue(ctx, id, days, ledger.New(ledger.KindBundleDueChanged, s.now(), caller.ID, id, nil, data))
}
