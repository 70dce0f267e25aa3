package httpapi

import (
	"context"
	"encoding/hex"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/release"
)

// DeltaView is a delta.
type DeltaView struct {
	From string `json:"from" doc:"SHA-256 of the component that it is made of"`
	To   string `json:"to" doc:"SHA-256 of the component that it gives"`
	release.Delta
	Given uint64 `json:"given_bytes" doc:"bytes of it that devices were given by this server; not what a cache or a carton gave"`
	Saved uint64 `json:"saved_bytes" doc:"bytes that devices were not given for it, reckoned from given_bytes"`
}

// DeltasOf says from which release devices come.
type DeltasOf struct {
	From string `json:"from" pattern:"^[0-9a-f]{64}$" doc:"the release (digest) that devices run"`
}

func viewDeltas(all []release.Delta) []DeltaView {
	out := make([]DeltaView, len(all))
	for i, d := range all {
		out[i] = DeltaView{From: hex.EncodeToString(d.From[:]), To: hex.EncodeToString(d.To[:]), Delta: d, Given: d.Given, Saved: d.Saved()}
	}
	return out
}

func (a *api) registerDeltas(h huma.API) {
	huma.Register(h, op("list-deltas", http.MethodGet, "/releases/{digest}/deltas", "List the deltas to a release's components"),
		func(ctx context.Context, in *ByDigest) (*body[[]DeltaView], error) {
			d, err := in.digest()
			if err != nil {
				return reply(a, ctx, []DeltaView(nil), err)
			}
			all, err := a.Release.ListDeltas(ctx, callerOf(ctx), d)
			return reply(a, ctx, viewDeltas(all), err)
		})
	huma.Register(h, op("make-deltas", http.MethodPost, "/releases/{digest}/deltas", "Have deltas made to a release, from another that devices run"),
		func(ctx context.Context, in *struct {
			ByDigest
			Body DeltasOf
		},
		) (*body[[]DeltaView], error) {
			to, err := in.digest()
			if err != nil {
				return reply(a, ctx, []DeltaView(nil), err)
			}
			from, err := ByDigest{in.Body.From}.digest()
			if err != nil {
				return reply(a, ctx, []DeltaView(nil), err)
			}
			all, err := a.Release.WantDeltas(ctx, callerOf(ctx), to, from)
			return reply(a, ctx, viewDeltas(all), err)
		})
}
