package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/factory"
)

// DeskRequest asks for a desk to be taken in.
type DeskRequest struct {
	Desk  []byte `json:"desk" minLength:"1" maxLength:"81920" doc:"what the desk tells of itself, as it wrote it, base64"`
	Quota uint32 `json:"quota" minimum:"1" maximum:"10000000" doc:"devices that it may order, in all"`
}

// RegistrationRequest carries what a desk wrote of an order.
type RegistrationRequest struct {
	File []byte `json:"file" minLength:"1" maxLength:"81920" doc:"the registration, base64"`
}

// registerDesks has the operations on desks, where orders are wrapped without a server.
func (a *api) registerDesks(h huma.API) {
	huma.Register(h, op("get-desk-file", http.MethodGet, "/oem/desk", "What a desk must pin of this instance"),
		func(ctx context.Context, _ *struct{}) (*body[factory.DeskFile], error) {
			f, err := a.Factory.DeskFile(ctx, callerOf(ctx))
			return reply(a, ctx, f, err)
		})
	huma.Register(h, op("list-desks", http.MethodGet, "/desks", "List the desks, where orders are wrapped without a server; those that were removed too"),
		func(ctx context.Context, in *Paging) (*body[Page[factory.Desk]], error) {
			name := func(d factory.Desk) string { return d.Name }
			return paged(a, ctx, *in, name, func(after string, limit int) ([]factory.Desk, error) {
				all, err := a.Factory.Desks(ctx, callerOf(ctx))
				return cut(all, name, after, limit), err
			})
		})
	huma.Register(h, op("add-desk", http.MethodPost, "/desks", "Take in a desk's orders; takes two people"),
		func(ctx context.Context, in *body[DeskRequest]) (*body[factory.Desk], error) {
			d, err := a.Factory.AddDesk(ctx, callerOf(ctx), in.Body.Desk, in.Body.Quota)
			return reply(a, ctx, d, err)
		})
	huma.Register(h, op("remove-desk", http.MethodPost, "/desks/{id}/remove", "Take in no order that a desk makes from now on"),
		func(ctx context.Context, in *struct {
			ByID
			Body Reason
		},
		) (*body[factory.Desk], error) {
			d, err := a.Factory.RemoveDesk(ctx, callerOf(ctx), in.ID, in.Body.Reason)
			return reply(a, ctx, d, err)
		})
	huma.Register(h, op("register-order", http.MethodPost, "/registrations", "Take in an order that a desk has wrapped; the same again changes nothing"),
		func(ctx context.Context, in *body[RegistrationRequest]) (*body[OrderView], error) {
			o, err := a.Factory.Register(ctx, callerOf(ctx), in.Body.File)
			return reply(a, ctx, viewOrder(o), err)
		})
}
