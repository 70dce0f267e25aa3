package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/fleet"
)

// registerSaved has the caller's own queries.
func (a *api) registerSaved(h huma.API) {
	huma.Register(h, op("list-queries", http.MethodGet, "/me/queries", "List the queries you keep, by name"),
		func(ctx context.Context, in *struct{ Paging }) (*body[Page[fleet.Saved]], error) {
			name := func(s fleet.Saved) string { return s.Name }
			return paged(a, ctx, in.Paging, name, func(after string, limit int) ([]fleet.Saved, error) {
				all, err := a.Fleet.Saved(ctx, callerOf(ctx))
				return cut(all, name, after, limit), err
			})
		})
	huma.Register(h, op("save-query", http.MethodPost, "/me/queries", "Keep a query over devices under a name of your own"),
		func(ctx context.Context, in *body[fleet.Saved]) (*body[fleet.Saved], error) {
			s, err := a.Fleet.Save(ctx, callerOf(ctx), in.Body)
			return reply(a, ctx, s, err)
		})
	huma.Register(h, op("forget-query", http.MethodDelete, "/me/queries/{name}", "Forget one of your queries"),
		func(ctx context.Context, in *struct {
			Name string `path:"name" maxLength:"64" example:"old pumps"`
		},
		) (*body[Nothing], error) {
			return reply(a, ctx, Nothing{}, a.Fleet.Forget(ctx, callerOf(ctx), in.Name))
		})
}
