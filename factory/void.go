package factory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Void is the data of order.cancelled and order.abandoned.
type Void struct {
	Order   string `json:"order"`
	Reason  string `json:"reason"`
	Records uint32 `json:"records,omitempty"` // that were here
	Made    uint32 `json:"made,omitempty"`    // devices among them; they stay what they are
}

const maxReason = 512

// Cancel ends an order whose file never came to use: it was lost, or is not wanted. No record of it may be here, and any that comes is an alarm.
func (s *Service) Cancel(ctx context.Context, caller access.Caller, id, reason string) (Order, error) {
	return s.void(ctx, caller, id, reason, Cancelled)
}

// Abandon ends an order whose station is gone, so that no job end and no further record will come. The devices that are on record stay; what else the
// station made is refused, and a record that comes after all is an alarm. It takes two people: nothing takes those pieces back.
func (s *Service) Abandon(ctx context.Context, caller access.Caller, id, reason string) (Order, error) {
	return s.void(ctx, caller, id, reason, Abandoned)
}

func (s *Service) void(ctx context.Context, caller access.Caller, id, reason string, to State) (Order, error) {
	o, lookup := s.get(ctx, id)
	res := resource(id, o.Product)
	res.Grave = to == Abandoned
	if err := s.c.Guard.Check(ctx, caller, access.OrderClose, res); err != nil {
		return Order{}, err
	}
	if lookup != nil {
		return Order{}, lookup
	}
	if reason = strings.TrimSpace(reason); reason == "" || len(reason) > maxReason {
		return Order{}, fault.New(fault.Invalid, "order.reason", fmt.Sprintf("to end an order so needs a reason of at most %d bytes", maxReason), "say why")
	}
	t, err := s.c.Store.Tally(ctx, id)
	if err != nil {
		return Order{}, err
	}
	data, err := json.Marshal(Void{Order: id, Reason: reason, Records: t.Records, Made: t.Made})
	if err != nil {
		return Order{}, err
	}
	kind := ledger.KindOrderCancelled
	if to == Abandoned {
		kind = ledger.KindOrderAbandoned
	}
	now := s.c.Now().UTC().Truncate(time.Second)
	err = s.c.Store.EndOrder(ctx, id, to, now, ledger.New(kind, now, caller.ID, id, nil, data))
	switch {
	case errors.Is(err, ErrChanged):
		return Order{}, fault.New(fault.Conflict, "order.closed", fmt.Sprintf("order %s is not open any more", id), "see `hallmark order show`")
	case errors.Is(err, ErrUsed):
		return Order{}, fault.New(fault.Conflict, "order.used", fmt.Sprintf("order %s has records: its file came to use", id),
			"have the station end it, then close it; when the station is gone, `hallmark order abandon`")
	case err != nil:
		return Order{}, err
	}
	o, err = s.get(ctx, id)
	return o.shown(), err
}
