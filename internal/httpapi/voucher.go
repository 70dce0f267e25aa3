package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/onboard/rekey"
)

// VoucherRequest asks for a voucher.
type VoucherRequest struct {
	Reason  string `json:"reason" minLength:"1" maxLength:"512" doc:"what happened to the device"`
	Seconds int64  `json:"seconds,omitempty" minimum:"0" maximum:"604800" doc:"how long it is good; 0: a day"`
}

// VoucherReply carries a new voucher's secret; it is shown this once.
type VoucherReply struct {
	rekey.Voucher
	Secret string `json:"secret" doc:"eight groups of four characters, for the technician; the last of them are a check over the device's ID and the others"`
}

// registerVouchers has the operations on devices that lost their keys.
func (a *api) registerVouchers(h huma.API) {
	huma.Register(h, mark(op("create-voucher", http.MethodPost, "/devices/{id}/vouchers", "Vouch for a device that lost its keys, so that it gets new ones"), givesSecret),
		func(ctx context.Context, in *struct {
			ByID
			Body VoucherRequest
		},
		) (*body[VoucherReply], error) {
			v, secret, err := a.Rekey.Issue(ctx, callerOf(ctx), in.ID, in.Body.Reason, time.Duration(in.Body.Seconds)*time.Second)
			return reply(a, ctx, VoucherReply{v, secret}, err)
		})
	huma.Register(h, op("list-device-keys", http.MethodGet, "/devices/{id}/keys", "List the keys a device had before it got others in the field, newest first"),
		func(ctx context.Context, in *struct {
			ByID
			Paging
		},
		) (*body[Page[rekey.Former]], error) {
			name := func(f rekey.Former) string { return f.Identity }
			return paged(a, ctx, in.Paging, name, func(after string, limit int) ([]rekey.Former, error) {
				all, err := a.Rekey.Lineage(ctx, callerOf(ctx), in.ID)
				return cut(all, name, after, limit), err
			})
		})
	huma.Register(h, op("list-vouchers", http.MethodGet, "/vouchers", "List vouchers, newest first"),
		func(ctx context.Context, in *struct {
			OfGroup
			Device string `query:"device" maxLength:"64" doc:"only this device's"`
			Open   bool   `query:"open" doc:"only those that can still be used"`
			Paging
		},
		) (*body[Page[rekey.Voucher]], error) {
			return paged(a, ctx, in.Paging, func(v rekey.Voucher) string { return v.ID }, func(after string, limit int) ([]rekey.Voucher, error) {
				return a.Rekey.List(ctx, callerOf(ctx), in.place(), in.Device, in.Open, after, limit)
			})
		})
	huma.Register(h, op("get-voucher", http.MethodGet, "/vouchers/{id}", "Show a voucher, without its secret"),
		func(ctx context.Context, in *ByID) (*body[rekey.Voucher], error) {
			v, err := a.Rekey.Get(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, v, err)
		})
	huma.Register(h, op("revoke-voucher", http.MethodPost, "/vouchers/{id}/revoke", "End a voucher before it is used"),
		func(ctx context.Context, in *struct {
			ByID
			Body Reason
		},
		) (*body[rekey.Voucher], error) {
			v, err := a.Rekey.Revoke(ctx, callerOf(ctx), in.ID, in.Body.Reason)
			return reply(a, ctx, v, err)
		})
}
