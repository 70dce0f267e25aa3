package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
)

// onRelease has a verb done on a release.
func (a *api) onRelease(ctx context.Context, in ByDigest, m Matching,
	verb func(context.Context, access.Caller, [32]byte) (release.Release, error),
) (*tagged[ReleaseView], error) {
	return change(a, ctx, m, once.Release, in.Digest, func(ctx context.Context) (ReleaseView, error) {
		d, err := in.digest()
		if err != nil {
			return ReleaseView{}, err
		}
		r, err := verb(ctx, callerOf(ctx), d)
		return viewRelease(r), err
	})
}

// releases gives a page of a product's releases.
func (a *api) releases(ctx context.Context, product, after string, limit int) ([]ReleaseView, error) {
	var behind []byte
	if after != "" {
		d, err := parseDigest(after)
		if err != nil {
			return nil, err
		}
		behind = d
	}
	rs, err := a.Release.Page(ctx, callerOf(ctx), product, behind, limit)
	out := make([]ReleaseView, 0, len(rs))
	for _, r := range rs {
		out = append(out, viewRelease(r))
	}
	return out, err
}

// onRollout registers a verb that needs the rollout's ID and a reason.
func (a *api) onRollout(h huma.API, name, summary string,
	verb func(ctx context.Context, caller access.Caller, id, reason string) (rollout.Rollout, error),
) {
	huma.Register(h, op(name+"-rollout", http.MethodPost, "/rollouts/{id}/"+name, summary),
		func(ctx context.Context, in *becauseOf) (*tagged[rollout.Rollout], error) {
			return change(a, ctx, in.Matching, once.Rollout, in.ID, func(ctx context.Context) (rollout.Rollout, error) {
				return verb(ctx, callerOf(ctx), in.ID, in.Body.Reason)
			})
		})
}
