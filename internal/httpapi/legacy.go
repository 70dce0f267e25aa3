package httpapi

import (
	"context"
	"fmt"
	"math"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/onboard/legacy"
)

// GatewayRequest names a gateway.
type GatewayRequest struct {
	Name string `json:"name" minLength:"1" maxLength:"128"`
}

// GatewayReply is a gateway that was added, with its token.
type GatewayReply struct {
	Gateway legacy.Gateway `json:"gateway"`
	Token   string         `json:"token" doc:"told once, and kept nowhere"`
}

// ClientRefusal names a client that is not let in, or not any more.
type ClientRefusal struct {
	Kind   legacy.Kind `json:"kind" enum:"ddi,mender"`
	Name   string      `json:"name" minLength:"1" maxLength:"128"`
	Reason string      `json:"reason" minLength:"1" maxLength:"512"`
}

// registerLegacy has the operations on clients of other update systems.
func (a *api) registerLegacy(h huma.API) {
	huma.Register(h, op("list-legacy-clients", http.MethodGet, "/products/{id}/legacy-clients", "List the clients of other update systems that asked to be let in, or were"),
		func(ctx context.Context, in *struct {
			ByID
			State string `query:"state" enum:",pending,admitted,refused" example:"pending"`
			Paging
		},
		) (*body[Page[legacy.Client]], error) {
			name := func(c legacy.Client) string { return string(c.Kind) + "/" + c.Name }
			return paged(a, ctx, in.Paging, name, func(after string, limit int) ([]legacy.Client, error) {
				return a.Legacy.List(ctx, callerOf(ctx), in.ID, legacy.State(in.State), after, limit)
			})
		})
	huma.Register(h, mark(op("admit-legacy-client", http.MethodPost, "/products/{id}/legacy-clients", "Let a client of another update system in; again: with another token or key"), givesSecret),
		func(ctx context.Context, in *struct {
			ByID
			Body legacy.Admission
		},
		) (*body[legacy.Let], error) {
			in.Body.Product = in.ID
			l, err := a.Legacy.Admit(ctx, callerOf(ctx), in.Body)
			return reply(a, ctx, l, err)
		})
	huma.Register(h, op("refuse-legacy-client", http.MethodPost, "/products/{id}/legacy-clients/refusals", "Let a client of another update system in no more, or not at all"),
		func(ctx context.Context, in *struct {
			ByID
			Body ClientRefusal
		},
		) (*body[legacy.Client], error) {
			c, err := a.Legacy.Refuse(ctx, callerOf(ctx), in.Body.Kind, in.ID, in.Body.Name, in.Body.Reason)
			return reply(a, ctx, c, err)
		})
	huma.Register(h, op("list-legacy-logs", http.MethodGet, "/products/{id}/legacy-clients/logs", "List what a client of Mender's wrote of updates that failed"),
		func(ctx context.Context, in *struct {
			ByID
			Name string `query:"name" minLength:"1" maxLength:"128" required:"true" example:"mac=02:00:00:00:00:01"`
			Paging
		},
		) (*body[Page[legacy.Log]], error) {
			name := func(l legacy.Log) string { return fmt.Sprintf("%010d", math.MaxInt32-l.Number) } // the newest first
			return paged(a, ctx, in.Paging, name, func(after string, limit int) ([]legacy.Log, error) {
				all, err := a.Legacy.Logs(ctx, callerOf(ctx), in.ID, in.Name)
				return cut(all, name, after, limit), err
			})
		})
	huma.Register(h, op("list-legacy-gateways", http.MethodGet, "/products/{id}/legacy-gateways", "List the gateways that speak for clients of other update systems"),
		func(ctx context.Context, in *struct {
			ByID
			Paging
		},
		) (*body[Page[legacy.Gateway]], error) {
			name := func(g legacy.Gateway) string { return g.Name }
			return paged(a, ctx, in.Paging, name, func(after string, limit int) ([]legacy.Gateway, error) {
				all, err := a.Legacy.Gateways(ctx, callerOf(ctx), in.ID)
				return cut(all, name, after, limit), err
			})
		})
	huma.Register(h, mark(op("add-legacy-gateway", http.MethodPost, "/products/{id}/legacy-gateways", "Let a gateway speak for the clients of a product that are behind it"), givesSecret),
		func(ctx context.Context, in *struct {
			ByID
			Body GatewayRequest
		},
		) (*body[GatewayReply], error) {
			g, token, err := a.Legacy.AddGateway(ctx, callerOf(ctx), in.ID, in.Body.Name)
			return reply(a, ctx, GatewayReply{g, token}, err)
		})
	huma.Register(h, op("end-legacy-gateway", http.MethodPost, "/products/{id}/legacy-gateways/end", "Have a gateway speak for nobody any more"),
		func(ctx context.Context, in *struct {
			ByID
			Body GatewayRequest
		},
		) (*body[GatewayRequest], error) {
			return reply(a, ctx, in.Body, a.Legacy.EndGateway(ctx, callerOf(ctx), in.ID, in.Body.Name))
		})
}
