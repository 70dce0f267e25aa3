package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/factory/chips"
	"github.com/hallmark-iot/hallmark/fault"
)

// VendorRequest asks for a silicon vendor's word to be taken.
type VendorRequest struct {
	ID  string `json:"id" minLength:"1" maxLength:"64" example:"acme-silicon"`
	PEM string `json:"pem" minLength:"1" maxLength:"262144" doc:"the certificates whose keys sign its manifests, all of them: those before are replaced"`
}

// registerChips has the operations on chips that come with keys.
func (a *api) registerChips(h huma.API) {
	huma.Register(h, op("list-chip-vendors", http.MethodGet, "/chip-vendors", "List the vendors whose manifests of chips with keys are believed"),
		func(ctx context.Context, in *Paging) (*body[Page[chips.Vendor]], error) {
			name := func(v chips.Vendor) string { return v.ID }
			return paged(a, ctx, *in, name, func(after string, limit int) ([]chips.Vendor, error) {
				all, err := a.Chips.Vendors(ctx, callerOf(ctx))
				return cut(all, name, after, limit), err
			})
		})
	huma.Register(h, op("trust-chip-vendor", http.MethodPost, "/chip-vendors", "Believe a vendor's manifests of chips with keys"),
		func(ctx context.Context, in *body[VendorRequest]) (*body[chips.Vendor], error) {
			certs, err := certificatesOf(in.Body.PEM)
			if err != nil {
				return nil, a.problem(ctx, fault.Newf(fault.Invalid, "chip.certificate", "vendor %.64q: %w", in.Body.ID, err).With("give the vendor's certificate in PEM"))
			}
			v, err := a.Chips.Trust(ctx, callerOf(ctx), in.Body.ID, certs)
			return reply(a, ctx, v, err)
		})
	huma.Register(h, op("end-chip-vendor", http.MethodPost, "/chip-vendors/{id}/end", "Take a vendor's word no more"),
		func(ctx context.Context, in *struct {
			ByID
			Body Reason
		},
		) (*body[Reason], error) {
			return reply(a, ctx, in.Body, a.Chips.End(ctx, callerOf(ctx), in.ID, in.Body.Reason))
		})
	huma.Register(h, op("show-chip", http.MethodGet, "/chips/{id}", "Show a chip that came with keys, and what was made of it"),
		func(ctx context.Context, in *ByID) (*body[chips.Chip], error) {
			c, err := a.Chips.Chip(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, c, err)
		})
	manifest := op("import-chips", http.MethodPost, "/chip-vendors/{id}/chips", "Take in a vendor's manifest; the same again changes nothing")
	registerStream(h, manifest, "application/octet-stream", nil, func(ctx context.Context, in *struct {
		ByID
		Streamed
	},
	) (*body[chips.Report], error) {
		if err := a.Chips.MayImport(ctx, callerOf(ctx)); err != nil {
			return nil, a.problem(ctx, err)
		}
		r, err := a.Chips.Import(ctx, callerOf(ctx), in.ID, in.within(MaxList))
		return reply(a, ctx, r, err)
	})
}
