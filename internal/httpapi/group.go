package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/fleet"
)

// GroupRequest says into which group devices go.
type GroupRequest struct {
	Devices []string `json:"devices" minItems:"1" maxItems:"1000"`
	Group   string   `json:"group" maxLength:"128" doc:"a path of lower-case names; empty takes them out of theirs" example:"eu/berlin"`
	Reason  string   `json:"reason" minLength:"1" maxLength:"512"`
}

// registerGroups has the operations on groups of devices.
func (a *api) registerGroups(h huma.API) {
	huma.Register(h, op("list-groups", http.MethodGet, "/groups", "List the groups of devices, by name, and how many are in each"),
		func(ctx context.Context, in *struct {
			OfGroup
			Paging
		},
		) (*body[Page[fleet.Group]], error) {
			return paged(a, ctx, in.Paging, fleet.Group.Name, func(after string, limit int) ([]fleet.Group, error) {
				return a.Fleet.Groups(ctx, callerOf(ctx), fleet.GroupQuery{Product: in.Product, Group: in.Group, After: after, Limit: limit})
			})
		})
	huma.Register(h, op("group-devices", http.MethodPost, "/groups", "Put devices into a group of their product"),
		func(ctx context.Context, in *body[GroupRequest]) (*body[GroupRequest], error) {
			return reply(a, ctx, in.Body, a.Device.Group(ctx, callerOf(ctx), in.Body.Devices, in.Body.Group, in.Body.Reason))
		})
}
