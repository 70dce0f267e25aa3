package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/onboard/owner"
)

func (a *api) ownership(ctx context.Context, id string) (o Ownership, err error) {
	caller := callerOf(ctx)
	if o.Periods, err = a.Owner.Lineage(ctx, caller, id); err != nil {
		return o, err
	}
	if o.Marks, err = a.Owner.MarksOf(ctx, caller, id); err != nil {
		return o, err
	}
	t, err := a.Owner.LastTransfer(ctx, caller, id)
	if err == nil {
		o.Transfer = &t
	}
	if fault.KindOf(err) == fault.NotFound {
		err = nil
	}
	if o.Periods == nil {
		o.Periods = []owner.Period{}
	}
	if o.Marks == nil {
		o.Marks = []owner.Mark{}
	}
	return o, err
}

// registerTransfers has the operations by which devices leave their owners.
func (a *api) registerTransfers(h huma.API) {
	huma.Register(h, op("list-transfers", http.MethodGet, "/transfers", "List the transfers that wait for their devices, by device"),
		func(ctx context.Context, in *struct{ Paging }) (*body[Page[owner.Transfer]], error) {
			return paged(a, ctx, in.Paging, func(t owner.Transfer) string { return t.Device }, func(after string, limit int) ([]owner.Transfer, error) {
				return a.Owner.Transfers(ctx, callerOf(ctx), after, limit)
			})
		})
	huma.Register(h, op("dry-run-transfer", http.MethodPost, "/transfers/dry-run", "Say what a transfer would end, and whose warrant it takes"),
		func(ctx context.Context, in *body[PreviewRequest]) (*body[TransferPreview], error) {
			ps, err := a.Owner.Preview(ctx, callerOf(ctx), in.Body.Devices)
			return reply(a, ctx, TransferPreview{Devices: ps}, err)
		})
	huma.Register(h, mark(op("transfer-devices", http.MethodPost, "/transfers", "End the time of devices with their owner"), givesSecret),
		func(ctx context.Context, in *body[TransferRequest]) (*body[Transfers], error) {
			r := in.Body
			b, err := a.Owner.Transfer(ctx, callerOf(ctx), owner.Order{Devices: r.Devices, Kind: r.Kind, Reason: r.Reason, Warrants: r.Warrants, Offer: r.Offer})
			return reply(a, ctx, Transfers{Transfers: b}, err)
		})
	huma.Register(h, op("give-up-handover", http.MethodPost, "/transfers/{id}/give-up", "Give up handing a device to another instance"),
		func(ctx context.Context, in *struct {
			ByID
			Body Reason
		},
		) (*body[owner.Transfer], error) {
			t, err := a.Owner.GiveUp(ctx, callerOf(ctx), in.ID, in.Body.Reason)
			return reply(a, ctx, t, err)
		})
}

// registerMarks has the operations by which devices are marked as stolen or recalled.
func (a *api) registerMarks(h huma.API) {
	marked := func(ctx context.Context, id string, err error) (*body[Ownership], error) {
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		o, err := a.ownership(ctx, id)
		return reply(a, ctx, o, err)
	}
	type because struct {
		ByID
		Body Reason
	}
	huma.Register(h, op("mark-stolen", http.MethodPost, "/devices/{id}/stolen", "Mark a device as stolen"),
		func(ctx context.Context, in *because) (*body[Ownership], error) {
			return marked(ctx, in.ID, a.Owner.Steal(ctx, callerOf(ctx), in.ID, in.Body.Reason))
		})
	huma.Register(h, op("mark-found", http.MethodPost, "/devices/{id}/found", "Lift the mark that a device was stolen"),
		func(ctx context.Context, in *because) (*body[Ownership], error) {
			return marked(ctx, in.ID, a.Owner.Found(ctx, callerOf(ctx), in.ID, in.Body.Reason))
		})
	huma.Register(h, op("list-recalls", http.MethodGet, "/recalls", "List recalls, newest first"),
		func(ctx context.Context, in *OfProduct) (*body[Page[owner.Recall]], error) {
			rs, err := a.Owner.Recalls(ctx, callerOf(ctx), in.Product)
			if rs == nil {
				rs = []owner.Recall{}
			}
			return reply(a, ctx, Page[owner.Recall]{Items: rs}, err)
		})
	for _, v := range []struct {
		id, path, summary string
		dry               bool
	}{
		{"create-recall", "/recalls", "Recall devices: mark them, for everybody to see, until each is mended", false},
		{"dry-run-recall", "/recalls/dry-run", "Count the devices that a recall would mark", true},
	} {
		huma.Register(h, op(v.id, http.MethodPost, v.path, v.summary),
			func(ctx context.Context, in *body[RecallRequest]) (*body[owner.Recall], error) {
				r := in.Body
				due, err := time.Parse(time.RFC3339, r.Due)
				if err != nil {
					return nil, a.problem(ctx, fault.New(fault.Invalid, "recall.due", "the day is none", "as 2029-06-30T00:00:00Z"))
				}
				out, err := a.Owner.RecallDevices(ctx, callerOf(ctx), owner.Recall{
					Product: r.Product, Hardware: r.Hardware, Order: r.Order, From: r.From, To: r.To, Reason: r.Reason, Remedy: r.Remedy, Due: due.UTC(),
				}, v.dry)
				return reply(a, ctx, out, err)
			})
	}
	huma.Register(h, op("mark-mended", http.MethodPost, "/recalls/{recall}/devices/{id}/mended", "Lift a recall for one device: what had to be done was done"),
		func(ctx context.Context, in *struct {
			ByID
			Recall string `path:"recall" maxLength:"64"`
			Body   Reason
		},
		) (*body[Ownership], error) {
			return marked(ctx, in.ID, a.Owner.Mended(ctx, callerOf(ctx), in.ID, in.Recall, in.Body.Reason))
		})
}
