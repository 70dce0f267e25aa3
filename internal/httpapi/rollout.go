package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/rollout"
)

// RolloutStatus is a rollout with devices of its current wave.
type RolloutStatus struct {
	Rollout rollout.Rollout      `json:"rollout"`
	Devices []rollout.DeviceView `json:"devices" doc:"at most 1000, those that are not good first; all: list-rollout-devices"`
	Total   int                  `json:"total" doc:"devices of the wave, those that others have too"`
}

func (a *api) registerRollouts(h huma.API) {
	huma.Register(h, op("create-rollout", http.MethodPost, "/rollouts", "Create a rollout; nothing is sent before it is started"),
		func(ctx context.Context, in *body[rollout.Spec]) (*body[rollout.Rollout], error) {
			r, err := a.Rollout.Create(ctx, callerOf(ctx), in.Body)
			return reply(a, ctx, r, err)
		})
	huma.Register(h, op("dry-run-rollout", http.MethodPost, "/rollouts/dry-run", "Say which devices a rollout would reach, and in which wave"),
		func(ctx context.Context, in *body[rollout.Spec]) (*body[rollout.Resolved], error) {
			r, err := a.Rollout.DryRun(ctx, callerOf(ctx), in.Body)
			return reply(a, ctx, r, err)
		})
	huma.Register(h, op("list-rollouts", http.MethodGet, "/rollouts", "List rollouts, newest first"),
		func(ctx context.Context, in *struct {
			OfGroup
			Open bool `query:"open" doc:"only those that have not ended"`
			Paging
		},
		) (*body[Page[rollout.Rollout]], error) {
			return paged(a, ctx, in.Paging, func(r rollout.Rollout) string { return r.Spec.ID }, func(after string, limit int) ([]rollout.Rollout, error) {
				return a.Rollout.Page(ctx, callerOf(ctx), in.place(), in.Open, after, limit)
			})
		})
	huma.Register(h, op("get-rollout", http.MethodGet, "/rollouts/{id}", "Show a rollout, and each device of its current wave with the reason"),
		func(ctx context.Context, in *ByID) (*tagged[RolloutStatus], error) {
			return show(a, ctx, once.Rollout, in.ID, func() (RolloutStatus, error) {
				r, views, err := a.Rollout.Get(ctx, callerOf(ctx), in.ID)
				if err != nil {
					return RolloutStatus{}, err
				}
				return RolloutStatus{Rollout: r, Devices: append([]rollout.DeviceView{}, views...), Total: r.Last.Devices + r.Last.Held}, nil
			})
		})
	a.registerRolloutDevices(h)
	a.registerRolloutProgress(h)
	huma.Register(h, op("start-rollout", http.MethodPost, "/rollouts/{id}/start", "Start a rollout"),
		func(ctx context.Context, in *struct {
			ByID
			Matching
		},
		) (*tagged[rollout.Resolved], error) {
			return change(a, ctx, in.Matching, once.Rollout, in.ID, func(ctx context.Context) (rollout.Resolved, error) {
				_, res, err := a.Rollout.Start(ctx, callerOf(ctx), in.ID)
				return res, err
			})
		})
	a.onRollout(h, "pause", "Start no further wave", a.Rollout.Pause)
	a.onRollout(h, "resume", "Go on", a.Rollout.Resume)
	a.onRollout(h, "shut", "Let no further device join a dynamic rollout", a.Rollout.Shut)
	huma.Register(h, op("set-rollout-bandwidth", http.MethodPut, "/rollouts/{id}/bandwidth", "Change how fast the bytes of a rollout leave"),
		func(ctx context.Context, in *struct {
			ByID
			Matching
			Body NewBandwidth
		},
		) (*tagged[rollout.Rollout], error) {
			return change(a, ctx, in.Matching, once.Rollout, in.ID, func(ctx context.Context) (rollout.Rollout, error) {
				return a.Rollout.SetBandwidth(ctx, callerOf(ctx), in.ID, in.Body.Bandwidth, in.Body.Reason)
			})
		})
	a.onRollout(h, "halt", "Stop, and send back who has the release", a.Rollout.Halt)
	a.onRollout(h, "abort", "Stop where it is", a.Rollout.Abort)
}

func (a *api) registerRolloutDevices(h huma.API) {
	huma.Register(h, op("list-rollout-devices", http.MethodGet, "/rollouts/{id}/devices", "List the devices of a rollout's current wave, by ID, with the reason"),
		func(ctx context.Context, in *struct {
			ByID
			Stuck   bool `query:"stuck" doc:"only those that are not good"`
			Failed  bool `query:"failed" doc:"only those that failed; after a halt, those that do not run the release or stay with it"`
			Missing bool `query:"missing" doc:"of one that tells devices again: those of any wave that did not show in time, and are not under way now"`
			Paging
		},
		) (*body[Page[rollout.DeviceView]], error) {
			id, which := func(v rollout.DeviceView) string { return v.Device }, rollout.Everyone
			if in.Stuck {
				which = rollout.Stuck
			}
			if in.Failed {
				which = rollout.Bad
			}
			if in.Missing {
				which = rollout.Missing
			}
			return paged(a, ctx, in.Paging, id, func(after string, limit int) ([]rollout.DeviceView, error) {
				return a.Rollout.Devices(ctx, callerOf(ctx), in.ID, which, after, limit)
			})
		})
}

func (a *api) registerRolloutProgress(h huma.API) {
	huma.Register(h, op("list-rollout-progress", http.MethodGet, "/rollouts/{id}/progress", "Tell how a rollout stood over time: a point for each step in which that changed"),
		func(ctx context.Context, in *struct {
			ByID
			Paging
		},
		) (*body[Page[rollout.Point]], error) {
			id := func(p rollout.Point) string { return p.At.Format(time.RFC3339) }
			return paged(a, ctx, in.Paging, id, func(after string, limit int) ([]rollout.Point, error) {
				all, err := a.Rollout.Progress(ctx, callerOf(ctx), in.ID)
				return cut(all, id, after, limit), err
			})
		})
}

// NewBandwidth is what a rollout has from now on.
type NewBandwidth struct {
	rollout.Bandwidth
	Reason string `json:"reason" minLength:"1"`
}

func (a *api) registerPaths(h huma.API) {
	huma.Register(h, op("find-release-path", http.MethodGet, "/devices/{id}/paths/{digest}", "Find the path of a device to a release"),
		func(ctx context.Context, in *struct {
			ByID
			ByDigest
		},
		) (*body[rollout.Path], error) {
			d, err := in.digest()
			if err != nil {
				return reply(a, ctx, rollout.Path{}, err)
			}
			p, err := a.Rollout.PathOf(ctx, callerOf(ctx), in.ID, d)
			return reply(a, ctx, p, err)
		})
}
