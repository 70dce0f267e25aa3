package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

// EnrolmentDecision says of which request something is decided: what was seen, and no other.
type EnrolmentDecision struct {
	Request string `json:"request" pattern:"^[0-9a-f]{64}$" doc:"its digest, as it was seen"`
	Reason  string `json:"reason" minLength:"1" maxLength:"512"`
}

// SchemaRequest is all of a product's parameters.
type SchemaRequest struct {
	Parameters wire.Schema `json:"parameters" maxItems:"64" doc:"in any order; none: any name and text is taken"`
}

// registerEnrolments has the operations on how devices are let in.
func (a *api) registerEnrolments(h huma.API) {
	huma.Register(h, op("set-enrolment", http.MethodPut, "/products/{id}/enrolment", "Say how a product's devices are let in"),
		func(ctx context.Context, in *struct {
			ByID
			Matching
			Body product.Enrolment
		},
		) (*tagged[product.Product], error) {
			return change(a, ctx, in.Matching, once.Product, in.ID, func(ctx context.Context) (product.Product, error) {
				return a.Product.SetEnrolment(ctx, callerOf(ctx), in.ID, in.Body)
			})
		})
	huma.Register(h, op("set-schema", http.MethodPut, "/products/{id}/schema", "Say which parameters a product's devices have"),
		func(ctx context.Context, in *struct {
			ByID
			Matching
			Body SchemaRequest
		},
		) (*tagged[product.Product], error) {
			return change(a, ctx, in.Matching, once.Product, in.ID, func(ctx context.Context) (product.Product, error) {
				return a.Product.SetSchema(ctx, callerOf(ctx), in.ID, in.Body.Parameters)
			})
		})
	huma.Register(h, op("list-enrolments", http.MethodGet, "/enrolments", "List the requests of devices that take a person, by device"),
		func(ctx context.Context, in *struct {
			OfGroup
			State string `query:"state" enum:"waiting,approved,refused" doc:"only these"`
			Paging
		},
		) (*body[Page[onboard.Waiting]], error) {
			return paged(a, ctx, in.Paging, func(w onboard.Waiting) string { return w.Device }, func(after string, limit int) ([]onboard.Waiting, error) {
				return a.Onboard.Waitings(ctx, callerOf(ctx), in.place(), onboard.Word(in.State), after, limit)
			})
		})
	huma.Register(h, op("get-enrolment", http.MethodGet, "/enrolments/{id}", "Show a device's request that takes a person"),
		func(ctx context.Context, in *ByID) (*tagged[onboard.Waiting], error) {
			return show(a, ctx, once.Enrolment, in.ID, func() (onboard.Waiting, error) { return a.Onboard.Waiting(ctx, callerOf(ctx), in.ID) })
		})
	a.onEnrolment(h, "approve", "Let a device in with the request that was seen", func(ctx context.Context, caller access.Caller, id string, d EnrolmentDecision) (onboard.Waiting, error) {
		return a.Onboard.Approve(ctx, caller, id, d.Request, d.Reason)
	})
	a.onEnrolment(h, "refuse", "Do not let a device in with the request that was seen", func(ctx context.Context, caller access.Caller, id string, d EnrolmentDecision) (onboard.Waiting, error) {
		return a.Onboard.Refuse(ctx, caller, id, d.Request, d.Reason)
	})
}

func (a *api) onEnrolment(h huma.API, name, summary string, verb func(context.Context, access.Caller, string, EnrolmentDecision) (onboard.Waiting, error)) {
	huma.Register(h, op(name+"-enrolment", http.MethodPost, "/enrolments/{id}/"+name, summary),
		func(ctx context.Context, in *struct {
			ByID
			Matching
			Body EnrolmentDecision
		},
		) (*tagged[onboard.Waiting], error) {
			return change(a, ctx, in.Matching, once.Enrolment, in.ID, func(ctx context.Context) (onboard.Waiting, error) {
				return verb(ctx, callerOf(ctx), in.ID, in.Body)
			})
		})
}
