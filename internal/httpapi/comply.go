package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/comply"
	"github.com/hallmark-iot/hallmark/internal/once"
)

// ControlsPage is a part of the controls, with the counts of all of them.
type ControlsPage struct {
	Product string           `json:"product"`
	AsOf    time.Time        `json:"as_of" doc:"when what is measured was counted"`
	Summary []comply.Summary `json:"summary" doc:"of every control of the frameworks, whatever the page selects"`
	Page[comply.Assessment]
}

// ControlView is how one control stands.
type ControlView struct {
	Product string    `json:"product"`
	AsOf    time.Time `json:"as_of" doc:"when what is measured was counted"`
	comply.Assessment
}

// OneProduct names the product that is assessed; there is no assessment of several.
type OneProduct struct {
	Product string `query:"product" required:"true" minLength:"1" maxLength:"64" example:"pump"`
}

// OfControl names a control of a product.
type OfControl struct {
	OneProduct
	Framework string `path:"framework" maxLength:"64" example:"etsi-en-303-645"`
	Control   string `path:"control" maxLength:"64" example:"5.12-1"`
}

func (o OfControl) id() string { return o.Product + "/" + o.Framework + "/" + o.Control }

func (a *api) registerCompliance(h huma.API) {
	huma.Register(h, op("list-controls", http.MethodGet, "/compliance", "List how the controls of laws and standards stand for a product"),
		func(ctx context.Context, in *struct {
			OneProduct
			Framework string `query:"framework" maxLength:"64" doc:"only this one's" example:"etsi-en-303-645"`
			Standing  string `query:"standing" enum:"met,not-met,unknown,not-applicable" doc:"only those that stand so"`
			Paging
		},
		) (*body[ControlsPage], error) {
			out := ControlsPage{Product: in.Product}
			page, err := paged(a, ctx, in.Paging, func(c comply.Assessment) string { return c.Key() }, func(after string, limit int) ([]comply.Assessment, error) {
				r, err := a.Comply.Report(ctx, callerOf(ctx), in.Product, in.Framework)
				out.AsOf, out.Summary = r.AsOf, r.Summary
				return r.Select(comply.Status(in.Standing), after, limit), err
			})
			if err != nil {
				return nil, err
			}
			out.Page = page.Body
			return &body[ControlsPage]{Body: out}, nil
		})
	huma.Register(h, op("report-compliance", http.MethodGet, "/compliance/report", "Report how a product stands, with all evidence"),
		func(ctx context.Context, in *struct {
			OneProduct
			Framework string `query:"framework" maxLength:"64" doc:"only this one's" example:"etsi-en-303-645"`
		},
		) (*body[comply.Report], error) {
			r, err := a.Comply.Report(ctx, callerOf(ctx), in.Product, in.Framework)
			return reply(a, ctx, r, err)
		})
	huma.Register(h, op("get-control", http.MethodGet, "/compliance/{framework}/{control}", "Show how one control stands, and why"),
		func(ctx context.Context, in *OfControl) (*tagged[ControlView], error) {
			return show(a, ctx, once.Statement, in.id(), func() (ControlView, error) {
				c, at, err := a.Comply.Get(ctx, callerOf(ctx), in.Product, in.Framework, in.Control)
				return ControlView{in.Product, at, c}, err
			})
		})
	huma.Register(h, op("state-control", http.MethodPut, "/compliance/{framework}/{control}/statement", "State how a control is met, or why it does not apply"),
		func(ctx context.Context, in *struct {
			OfControl
			Matching
			Body comply.Words
		},
		) (*tagged[comply.Statement], error) {
			return change(a, ctx, in.Matching, once.Statement, in.id(), func(ctx context.Context) (comply.Statement, error) {
				return a.Comply.State(ctx, callerOf(ctx), in.Product, in.Framework, in.Control, in.Body)
			})
		})
}
