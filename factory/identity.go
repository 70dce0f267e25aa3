package factory

import (
	"context"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// Identity is what a device got at its birth.
type Identity struct {
	Device string   `json:"device"`
	Order  string   `json:"order" doc:"that it was made by"`
	Chain  [][]byte `json:"chain" doc:"certificates (DER): the device's, those of the CAs of order and product, the OEM's root"`
}

// IdentityOf gives the certificate that a device got in the factory, with those above it, so that anybody's tool can look at it. It is the one of its
// record, also when the device got another since.
func (s *Service) IdentityOf(ctx context.Context, caller access.Caller, device string) (Identity, error) {
	k, err := s.c.Books.RecordAs(ctx, device)
	if err != nil {
		return Identity{}, err
	}
	if k == nil {
		if err := s.c.Guard.Check(ctx, caller, access.OrderRead, access.Resource{Type: "order"}); err != nil {
			return Identity{}, err
		}
		return Identity{}, fault.New(fault.NotFound, "device.unrecorded", fmt.Sprintf("no order's records have a device %.40q", device), "devices of other makers, and those whose record has not come, have none")
	}
	o, err := s.open(ctx, caller, k.Order)
	if err != nil {
		return Identity{}, err
	}
	env, err := wire.Parse1(wire.TypeRecord, k.Envelope)
	if err != nil {
		return Identity{}, fmt.Errorf("stored record of %s: %w", device, err)
	}
	r, err := wire.DecodeRecord(env.Payload)
	if err != nil {
		return Identity{}, fmt.Errorf("stored record of %s: %w", device, err)
	}
	h, err := claimed(o.Envelope)
	if err != nil {
		return Identity{}, fmt.Errorf("stored order %s: %w", o.ID, err)
	}
	return Identity{Device: device, Order: o.ID, Chain: slices.Concat([][]byte{r.Certificate}, h.Chain)}, nil
}
