package httpapi

import (
	"cmp"
	"context"
	"encoding/hex"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// ReleaseView is a release as clients see it: the digest in hex beside what is stored.
type ReleaseView struct {
	Digest string `json:"digest"`
	release.Release
}

func viewRelease(r release.Release) ReleaseView {
	return ReleaseView{Digest: hex.EncodeToString(r.Digest[:]), Release: r}
}

// ArtifactView names uploaded bytes.
type ArtifactView struct {
	Digest string `json:"digest"`
	Size   uint64 `json:"size"`

	Protected *wire.Protected `json:"protected,omitempty" doc:"of one that was sealed: what was uploaded"`
}

// Envelope carries a signed message.
type Envelope struct {
	Envelope []byte `json:"envelope" maxLength:"81920" doc:"COSE, base64"`
}

// Reason says why.
type Reason struct {
	Reason string `json:"reason" minLength:"1" maxLength:"512"`
}

// RolloutStatus is a rollout with devices of its current wave.
type RolloutStatus struct {
	Rollout rollout.Rollout      `json:"rollout"`
	Devices []rollout.DeviceView `json:"devices" doc:"at most 1000, those that are not good first; all: list-rollout-devices"`
	Total   int                  `json:"total" doc:"devices of the wave"`
}

// shownDevices bounds the devices that come with a rollout.
const shownDevices = 1000

// statusOfRollout shows those that need looking at when there are too many to show.
func statusOfRollout(r rollout.Rollout, views []rollout.DeviceView) RolloutStatus {
	s := RolloutStatus{Rollout: r, Devices: append([]rollout.DeviceView{}, views...), Total: len(views)}
	if len(views) > shownDevices {
		slices.SortStableFunc(s.Devices, func(a, b rollout.DeviceView) int {
			return cmp.Compare(boolInt(a.Class == rollout.Good), boolInt(b.Class == rollout.Good))
		})
		s.Devices = s.Devices[:shownDevices]
	}
	return s
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// ByDigest names a release in a path.
type ByDigest struct {
	Digest string `path:"digest" pattern:"^[0-9a-f]{64}$"`
}

func (in ByDigest) digest() ([32]byte, error) {
	d, err := parseDigest(in.Digest)
	if err != nil {
		return [32]byte{}, err
	}
	return [32]byte(d), nil
}

// ByID names a thing in a path.
type ByID struct {
	ID string `path:"id" minLength:"1" maxLength:"64"`
}

func (a *api) registerReleases(h huma.API) {
	upload := op("upload-artifact", http.MethodPost, "/products/{product}/artifacts/{name}", "Upload a component's bytes, an SBOM or a provenance document")
	registerStream(h, upload, "application/octet-stream", nil, func(ctx context.Context, in *struct {
		Product string `path:"product" maxLength:"64"`
		Name    string `path:"name" maxLength:"128"`
		Protect bool   `query:"protect" doc:"seal it as it comes, under a key that devices get for good evidence: the digest is that of the sealed bytes"`
		Streamed
	},
	) (*body[ArtifactView], error) {
		art, err := a.Release.Upload(ctx, callerOf(ctx), in.Product, in.Name, in.Protect, in.within(MaxUpload))
		return reply(a, ctx, ArtifactView{Digest: hex.EncodeToString(art.Digest[:]), Size: art.Size, Protected: art.Protected}, err)
	})
	huma.Register(h, op("propose-release", http.MethodPost, "/releases", "Propose a release: what is signed comes back as 'payload'"),
		func(ctx context.Context, in *body[release.Spec]) (*body[ReleaseView], error) {
			r, err := a.Release.Propose(ctx, callerOf(ctx), in.Body)
			return reply(a, ctx, viewRelease(r), err)
		})
	huma.Register(h, op("list-releases", http.MethodGet, "/releases", "List a product's releases"),
		func(ctx context.Context, in *struct {
			Product string `query:"product" required:"true" minLength:"1" maxLength:"64" example:"pump"`
			Paging
		},
		) (*body[Page[ReleaseView]], error) {
			return paged(a, ctx, in.Paging, func(v ReleaseView) string { return v.Digest }, func(after string, limit int) ([]ReleaseView, error) {
				return a.releases(ctx, in.Product, after, limit)
			})
		})
	huma.Register(h, op("get-release", http.MethodGet, "/releases/{digest}", "Show a release"),
		func(ctx context.Context, in *ByDigest) (*tagged[ReleaseView], error) {
			return show(a, ctx, once.Release, in.Digest, func() (ReleaseView, error) {
				d, err := in.digest()
				if err != nil {
					return ReleaseView{}, err
				}
				r, err := a.Release.Get(ctx, callerOf(ctx), d)
				return viewRelease(r), err
			})
		})
	huma.Register(h, op("publish-release", http.MethodPost, "/releases/{digest}/publish", "Publish a release that enough people approved"),
		func(ctx context.Context, in *struct {
			ByDigest
			Matching
		},
		) (*tagged[ReleaseView], error) {
			return a.onRelease(ctx, in.ByDigest, in.Matching, a.Release.Publish)
		})
	huma.Register(h, op("approve-release", http.MethodPost, "/releases/{digest}/approvals", "Add an offline approver's signature"),
		func(ctx context.Context, in *struct {
			ByDigest
			Matching
			Body Envelope
		},
		) (*tagged[ReleaseView], error) {
			return a.onRelease(ctx, in.ByDigest, in.Matching, func(ctx context.Context, c access.Caller, d [32]byte) (release.Release, error) {
				return a.Release.Approve(ctx, c, d, in.Body.Envelope)
			})
		})
	huma.Register(h, op("withdraw-release", http.MethodPost, "/releases/{digest}/withdraw", "Close a release to further devices"),
		func(ctx context.Context, in *struct {
			ByDigest
			Matching
			Body Reason
		},
		) (*tagged[ReleaseView], error) {
			return a.onRelease(ctx, in.ByDigest, in.Matching, func(ctx context.Context, c access.Caller, d [32]byte) (release.Release, error) {
				return a.Release.Withdraw(ctx, c, d, in.Body.Reason)
			})
		})
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
				return statusOfRollout(r, views), err
			})
		})
	huma.Register(h, op("list-rollout-devices", http.MethodGet, "/rollouts/{id}/devices", "List the devices of a rollout's current wave, by ID, with the reason"),
		func(ctx context.Context, in *struct {
			ByID
			Stuck bool `query:"stuck" doc:"only those that are not good"`
			Paging
		},
		) (*body[Page[rollout.DeviceView]], error) {
			id := func(v rollout.DeviceView) string { return v.Device }
			return paged(a, ctx, in.Paging, id, func(after string, limit int) ([]rollout.DeviceView, error) {
				_, views, err := a.Rollout.Get(ctx, callerOf(ctx), in.ID)
				if in.Stuck {
					views = slices.DeleteFunc(views, func(v rollout.DeviceView) bool { return v.Class == rollout.Good })
				}
				return cut(views, id, after, limit), err
			})
		})
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
	a.onRollout(h, "halt", "Stop, and send back who has the release", a.Rollout.Halt)
	a.onRollout(h, "abort", "Stop where it is", a.Rollout.Abort)
}
