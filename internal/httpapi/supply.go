package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/supply"
)

// ReleaseContents is what a release is made of, with a page of its components.
type ReleaseContents struct {
	Document supply.Contents   `json:"document"`
	Assessed supply.Assessment `json:"assessed" doc:"what was known against all of it when it was looked at last; zero time: not yet"`
	Page[supply.Part]
}

// Found is where a component is.
type Found struct {
	Items   []supply.Use `json:"items" nullable:"false" doc:"releases, newest first, of each version that they have"`
	Devices int64        `json:"devices" doc:"that run one of them"`
}

// registerSupply has the operations on what releases are made of, and on what is known against it.
func (a *api) registerSupply(h huma.API) {
	huma.Register(h, op("list-release-components", http.MethodGet, "/releases/{digest}/components", "List what a release is made of, and what is known against it now"),
		func(ctx context.Context, in *struct {
			ByDigest
			Paging
		},
		) (*body[ReleaseContents], error) {
			d, err := in.digest()
			if err != nil {
				return nil, a.problem(ctx, err)
			}
			var out ReleaseContents
			page, err := paged(a, ctx, in.Paging, func(p supply.Part) string { return strconv.Itoa(p.N) }, func(after string, limit int) (parts []supply.Part, err error) {
				behind, _ := strconv.Atoi(after) // what is no number is the beginning
				if out.Document, parts, err = a.Supply.Contents(ctx, callerOf(ctx), d, behind, limit); err != nil {
					return nil, err
				}
				out.Assessed, err = a.Supply.Assessed(ctx, callerOf(ctx), d)
				return parts, err
			})
			if err != nil {
				return nil, err
			}
			out.Page = page.Body
			return &body[ReleaseContents]{Body: out}, nil
		})
	huma.Register(h, op("find-component", http.MethodGet, "/components", "Say which releases have a component, or one that an advisory is about, and how many devices run them"),
		func(ctx context.Context, in *struct {
			What string `query:"what" required:"true" minLength:"1" maxLength:"1024" doc:"a package URL, with or without a version, or an advisory's ID or CVE number" example:"pkg:golang/github.com/acme/lib@v1.2.3"`
		},
		) (*body[Found], error) {
			uses, err := a.Supply.Where(ctx, callerOf(ctx), in.What)
			return reply(a, ctx, Found{Items: append([]supply.Use{}, uses...), Devices: supply.Devices(uses)}, err)
		})
	huma.Register(h, op("list-advisories", http.MethodGet, "/advisories", "List the ecosystems whose advisories are here, and how old they are"),
		func(ctx context.Context, in *Paging) (*body[Page[supply.Database]], error) {
			name := func(d supply.Database) string { return d.Ecosystem }
			return paged(a, ctx, *in, name, func(after string, limit int) ([]supply.Database, error) {
				all, err := a.Supply.Databases(ctx, callerOf(ctx))
				return cut(all, name, after, limit), err
			})
		})
	a.registerGate(h)
	advisories := op("import-advisories", http.MethodPost, "/advisories/{ecosystem}", "Take in all advisories of an ecosystem, in the place of those before: OSV's JSON, one object behind the other")
	registerStream(h, advisories, "application/octet-stream", nil, func(ctx context.Context, in *struct {
		Ecosystem string `path:"ecosystem" minLength:"1" maxLength:"64" example:"Go"`
		Fewer     bool   `query:"fewer" doc:"there may be many fewer than before"`
		Streamed
	},
	) (*body[supply.Database], error) {
		if err := a.Supply.MayImport(ctx, callerOf(ctx)); err != nil {
			return nil, a.problem(ctx, err)
		}
		d, err := a.Supply.Import(ctx, callerOf(ctx), in.Ecosystem, in.Fewer, in.within(supply.MaxImport))
		return reply(a, ctx, d, err)
	})
}
