package fleet

import (
	"context"
	"strings"

	"github.com/hallmark-iot/hallmark/access"
)

// Group is a group of a product's devices.
type Group struct {
	Product string `json:"product"`
	Path    string `json:"group"`   // "eu/berlin"
	Devices int    `json:"devices"` // in it and in the groups below
}

// Name names a group among those of all products, as scopes do: "pump/eu/berlin".
func (g Group) Name() string { return access.Join(g.Product, g.Path) }

// GroupQuery selects groups.
type GroupQuery struct {
	Product, Group string   // the group with those below
	Scope          []string // set by the Service
	After          string   // Name of the last one of the page before
	Limit          int
}

// Groups lists the groups that have devices, and how many, by name. Who is limited to a group sees it and those below.
func (s *Service) Groups(ctx context.Context, caller access.Caller, q GroupQuery) ([]Group, error) {
	var err error
	if q.Scope, err = s.guard.Within(ctx, caller, access.DeviceRead, "fleet", q.Product, q.Group); err != nil {
		return nil, err
	}
	if q.Limit <= 0 || q.Limit > MaxPage+1 {
		q.Limit = MaxPage
	}
	out, err := s.reader.FleetGroups(ctx, q)
	for i := range out {
		out[i].Product, out[i].Path, _ = strings.Cut(out[i].Path, "/")
	}
	return out, err
}
