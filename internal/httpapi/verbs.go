package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
)

// onRelease registers a verb that needs nothing but the release's digest.
func (a *api) onRelease(h huma.API, id, method, suffix, summary string,
	verb func(context.Context, access.Caller, [32]byte) (release.Release, error),
) {
	huma.Register(h, op(id, method, "/releases/{digest}"+suffix, summary),
		func(ctx context.Context, in *ByDigest) (*body[ReleaseView], error) {
			d, err := in.digest()
			if err != nil {
				return nil, a.problem(ctx, err)
			}
			r, err := verb(ctx, callerOf(ctx), d)
			return reply(a, ctx, viewRelease(r), err)
		})
}

// onRollout registers a verb that needs the rollout's ID and a reason.
func (a *api) onRollout(h huma.API, name, summary string,
	verb func(ctx context.Context, caller access.Caller, id, reason string) (rollout.Rollout, error),
) {
	huma.Register(h, op(name+"-rollout", http.MethodPost, "/rollouts/{id}/"+name, summary),
		func(ctx context.Context, in *struct {
			ByID
			Body Reason
		},
		) (*body[rollout.Rollout], error) {
			r, err := verb(ctx, callerOf(ctx), in.ID, in.Body.Reason)
			return reply(a, ctx, r, err)
		})
}
