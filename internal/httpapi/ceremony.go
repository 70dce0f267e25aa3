package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/pki/ceremony"
)

// CeremonyRequest brings a ceremony's transcript.
type CeremonyRequest struct {
	Transcript []byte            `json:"transcript" doc:"COSE_Sign, by all who had a key there"`
	People     map[string]string `json:"people,omitempty" maxProperties:"32" doc:"whole names of those who took part, by their labels; kept beside the ledger, private"`
}

// ProductAsk asks a ceremony for what a product needs.
type ProductAsk struct {
	Like string `json:"like,omitempty" maxLength:"64" doc:"the product whose approvers and online keys its first trust bundle names; left out: all others have the same approvers"`
}

// ProductAsked is the file for the ceremony.
type ProductAsked struct {
	Request []byte `json:"request" doc:"for hallmark ceremony plan, or answer"`
}

// ProductAnswer is the ceremony's.
type ProductAnswer struct {
	Answer []byte `json:"answer" doc:"as the ceremony wrote it"`
}

func (a *api) registerCeremonies(h huma.API) {
	huma.Register(h, op("submit-ceremony", http.MethodPost, "/ceremonies", "Put the transcript of a key ceremony on record"),
		func(ctx context.Context, in *body[CeremonyRequest]) (*body[ceremony.Held], error) {
			c, err := a.Ceremony.Submit(ctx, callerOf(ctx), in.Body.Transcript, in.Body.People)
			return reply(a, ctx, c, err)
		})
	huma.Register(h, op("list-ceremonies", http.MethodGet, "/ceremonies", "List the key ceremonies on record"),
		func(ctx context.Context, in *struct{ Paging }) (*body[Page[ceremony.Held]], error) {
			return paged(a, ctx, in.Paging, func(c ceremony.Held) string { return c.Digest }, func(after string, limit int) ([]ceremony.Held, error) {
				return a.Ceremony.Ceremonies(ctx, callerOf(ctx), after, limit)
			})
		})
	huma.Register(h, op("get-product-readiness", http.MethodGet, "/products/{id}/readiness", "Say what a product still needs from a key ceremony"),
		func(ctx context.Context, in *ByID) (*body[ceremony.Readiness], error) {
			r, err := a.Ceremony.Readiness(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, r, err)
		})
	huma.Register(h, op("request-product", http.MethodPost, "/products/{id}/request", "Ask a key ceremony for what a product needs"),
		func(ctx context.Context, in *struct {
			ByID
			Body ProductAsk
		},
		) (*body[ProductAsked], error) {
			data, err := a.Ceremony.Request(ctx, callerOf(ctx), in.ID, in.Body.Like)
			return reply(a, ctx, ProductAsked{data}, err)
		})
	huma.Register(h, op("activate-product", http.MethodPost, "/products/{id}/activate", "Take in a key ceremony's answer for a product"),
		func(ctx context.Context, in *struct {
			ByID
			Body ProductAnswer
		},
		) (*body[ceremony.Readiness], error) {
			r, err := a.Ceremony.Activate(ctx, callerOf(ctx), in.ID, in.Body.Answer)
			return reply(a, ctx, r, err)
		})
}
