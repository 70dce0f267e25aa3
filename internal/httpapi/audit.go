package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
)

// NewestFirst is which page of a list that goes back in time.
type NewestFirst struct {
	After int64 `query:"after" minimum:"0" doc:"go on behind this one, towards the past"`
	Limit int   `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"at most so many"`
}

// registerAudit has the operation on what was decided.
func (a *api) registerAudit(h huma.API) {
	huma.Register(h, op("list-decisions", http.MethodGet, "/audit", "List decisions on who may do what, newest first"),
		func(ctx context.Context, in *struct {
			NewestFirst
			Caller string        `query:"caller" maxLength:"256" doc:"only theirs"`
			Action access.Action `query:"action" maxLength:"64" doc:"only on this"`
			Denied bool          `query:"denied" doc:"only what was denied"`
		},
		) (*body[Page[access.Recorded]], error) {
			p := Paging{Limit: in.Limit}
			if in.After > 0 {
				p.After = strconv.FormatInt(in.After, 10)
			}
			id := func(r access.Recorded) string { return strconv.FormatInt(r.ID, 10) }
			return paged(a, ctx, p, id, func(_ string, limit int) ([]access.Recorded, error) {
				return a.Audit.List(ctx, callerOf(ctx), access.RecordedFilter{Caller: in.Caller, Action: in.Action, Denied: in.Denied}, in.After, limit)
			})
		})
}
