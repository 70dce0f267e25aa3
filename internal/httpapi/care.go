package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/retire"
)

// DisposeRequest tells what was done with the piece.
type DisposeRequest struct {
	How string `json:"how" minLength:"1" maxLength:"512"`
}

func (a *api) registerCare(h huma.API) {
	huma.Register(h, op("list-findings", http.MethodGet, "/findings", "List findings, open ones first"),
		func(ctx context.Context, in *struct {
			Product string `query:"product"`
			Subject string `query:"subject"`
			Open    bool   `query:"open"`
		},
		) (*body[[]monitor.Finding], error) {
			fs, err := a.Monitor.List(ctx, callerOf(ctx), monitor.Query{Product: in.Product, Subject: in.Subject, OpenOnly: in.Open})
			return reply(a, ctx, append([]monitor.Finding{}, fs...), err)
		})
	huma.Register(h, op("close-finding", http.MethodPost, "/findings/{id}/close", "Close a finding, with the reason"),
		func(ctx context.Context, in *struct {
			ByID
			Body Reason
		},
		) (*body[Reason], error) {
			return reply(a, ctx, in.Body, a.Monitor.Close(ctx, callerOf(ctx), in.ID, in.Body.Reason, nil))
		})
	huma.Register(h, op("list-remedies", http.MethodGet, "/remedies", "List the cases of devices in trouble"),
		func(ctx context.Context, _ *struct{}) (*body[[]remedy.Case], error) {
			cs, err := a.Remedy.List(ctx, callerOf(ctx))
			return reply(a, ctx, append([]remedy.Case{}, cs...), err)
		})
	huma.Register(h, op("retire-devices", http.MethodPost, "/retirements", "Retire devices: an offline warrant for the wipe is needed"),
		func(ctx context.Context, in *body[retire.Order]) (*body[[]retire.Retirement], error) {
			rs, err := a.Retire.Retire(ctx, callerOf(ctx), in.Body)
			return reply(a, ctx, append([]retire.Retirement{}, rs...), err)
		})
	huma.Register(h, op("get-retirement", http.MethodGet, "/retirements/{id}", "Show a device's retirement"),
		func(ctx context.Context, in *ByID) (*body[retire.Retirement], error) {
			r, err := a.Retire.Get(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, r, err)
		})
	huma.Register(h, op("dispose-device", http.MethodPost, "/retirements/{id}/dispose", "Record what was done with a wiped device"),
		func(ctx context.Context, in *struct {
			ByID
			Body DisposeRequest
		},
		) (*body[retire.Retirement], error) {
			r, err := a.Retire.Dispose(ctx, callerOf(ctx), in.ID, in.Body.How)
			return reply(a, ctx, r, err)
		})
	huma.Register(h, op("get-proof-of-disposal", http.MethodGet, "/retirements/{id}/proof", "Proof of disposal, checkable without us"),
		func(ctx context.Context, in *ByID) (*body[retire.Proof], error) {
			p, err := a.Retire.Proof(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, p, err)
		})
}
