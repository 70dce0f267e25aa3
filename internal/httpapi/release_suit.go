package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/release"
)

// registerSUIT: a release in the form of another standard, signed by the same people.
func (a *api) registerSUIT(h huma.API) {
	huma.Register(h, op("sign-suit", http.MethodPost, "/releases/{digest}/suit", "Add an approver's signature over the release's SUIT manifest"),
		func(ctx context.Context, in *struct {
			ByDigest
			Matching
			Body Envelope
		},
		) (*tagged[ReleaseView], error) {
			return a.onRelease(ctx, in.ByDigest, in.Matching, func(ctx context.Context, c access.Caller, d [32]byte) (release.Release, error) {
				return a.Release.SignSUIT(ctx, c, d, in.Body.Envelope)
			})
		})
	huma.Register(h, op("get-suit", http.MethodGet, "/releases/{digest}/suit", "Give a published release as a SUIT envelope, once enough approvers signed it"),
		func(ctx context.Context, in *ByDigest) (*body[Envelope], error) {
			d, err := in.digest()
			if err != nil {
				return reply(a, ctx, Envelope{}, err)
			}
			e, err := a.Release.SUIT(ctx, callerOf(ctx), d)
			return reply(a, ctx, Envelope{Envelope: e}, err)
		})
}
