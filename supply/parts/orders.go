package parts

import (
	"context"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// order asks whether caller may do something to an order, and nobody learns whether there is one without being asked who they are.
func (s *Service) order(ctx context.Context, caller access.Caller, action access.Action, id string, grave bool) error {
	product, err := s.cfg.Orders.OrderPlace(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if denied := s.cfg.Guard.Check(ctx, caller, action, access.Resource{Type: "order", ID: id, Product: product, Grave: grave}); denied != nil {
		return denied
	}
	if err != nil {
		return fault.New(fault.NotFound, "order.unknown", fmt.Sprintf("no order %.80q", id), "see `hallmark order list`")
	}
	return nil
}

// Name says that an order is made of lots, beside those that it names already. A lot that was recalled is named as well: what was built in was built in, and who watches is told again.
func (s *Service) Name(ctx context.Context, caller access.Caller, order string, lots []string) ([]Lot, error) {
	if err := s.order(ctx, caller, access.PartsManage, order, false); err != nil {
		return nil, err
	}
	if len(lots) == 0 || len(lots) > MaxLots {
		return nil, invalid("order %s: name 1 to %d lots at once", order, MaxLots)
	}
	for _, l := range lots {
		if _, err := s.cfg.Catalogue.Lot(ctx, l); err != nil {
			return nil, explain(err, "lot", l)
		}
	}
	f, err := s.fact(ledger.KindOrderLotsNamed, s.now(), caller, order, Naming{Order: order, Lots: lots})
	if err != nil {
		return nil, err
	}
	err = s.cfg.Orders.Name(ctx, order, lots, f)
	if errors.Is(err, ErrFull) {
		return nil, fault.New(fault.Conflict, "order.lots", fmt.Sprintf("order %.80q would name more than %d lots", order, MaxLots), "take away what was named by mistake, or make the rest under another order")
	}
	if err != nil {
		return nil, err
	}
	return s.cfg.Orders.OrderLots(ctx, order)
}

// Unname says that an order has nothing of a lot after all. Its devices are not found by the lot any more, and so it takes two people.
func (s *Service) Unname(ctx context.Context, caller access.Caller, order, lot, reason string) ([]Lot, error) {
	if err := s.order(ctx, caller, access.PartsManage, order, true); err != nil {
		return nil, err
	}
	f, err := s.fact(ledger.KindOrderLotsTaken, s.now(), caller, order, Naming{Order: order, Lots: []string{lot}, Reason: reason})
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Orders.Unname(ctx, order, lot, f); err != nil {
		return nil, err
	}
	return s.cfg.Orders.OrderLots(ctx, order)
}

// OfOrder gives the lots that an order names, by ID.
func (s *Service) OfOrder(ctx context.Context, caller access.Caller, order string) ([]Lot, error) {
	if err := s.order(ctx, caller, access.OrderRead, order, false); err != nil {
		return nil, err
	}
	return s.cfg.Orders.OrderLots(ctx, order)
}

// OfDevice gives the lots of which a device may have a part, by ID.
func (s *Service) OfDevice(ctx context.Context, caller access.Caller, device string) ([]Lot, error) {
	place, err := s.cfg.Orders.DevicePlace(ctx, device)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	res := access.In("device", place)
	res.ID = device
	if denied := s.cfg.Guard.Check(ctx, caller, access.DeviceRead, res); denied != nil {
		return nil, denied
	}
	if err != nil {
		return nil, fault.New(fault.NotFound, "device.unknown", fmt.Sprintf("no device %.80q", device), "see `hallmark device list`")
	}
	return s.cfg.Orders.DeviceLots(ctx, device)
}

// scope is what of a lot's devices the caller may see.
func (s *Service) scope(ctx context.Context, caller access.Caller, lot string) ([]string, error) {
	scope, err := s.cfg.Guard.Within(ctx, caller, access.OrderRead, "order", "", "")
	if err != nil {
		return nil, err
	}
	_, err = s.cfg.Catalogue.Lot(ctx, lot)
	return scope, explain(err, "lot", lot)
}

// Devices gives the devices that may have a part of a lot, by order and ID, from behind such a key (Built.Key) on.
func (s *Service) Devices(ctx context.Context, caller access.Caller, lot, after string, limit int) ([]Built, error) {
	scope, err := s.scope(ctx, caller, lot)
	if err != nil {
		return nil, err
	}
	return s.cfg.Orders.Devices(ctx, lot, scope, after, limit)
}

// Count counts the devices that may have a part of a lot, and whose life has not ended.
func (s *Service) Count(ctx context.Context, caller access.Caller, lot string) (int64, error) {
	scope, err := s.scope(ctx, caller, lot)
	if err != nil {
		return 0, err
	}
	return s.cfg.Orders.Count(ctx, lot, scope)
}

// Key names a device in the list of a lot's.
func (b Built) Key() string { return b.Order + "/" + b.Device }
