package httpapi

import (
	"context"
	"encoding/hex"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/release"
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
	huma.Register(h, op("withdraw-release", http.MethodPost, "/releases/{digest}/withdraw", "Hand a release out to no further device"),
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
	huma.Register(h, op("close-release", http.MethodPost, "/releases/{digest}/close", "Close a release: no device installs it again"),
		func(ctx context.Context, in *struct {
			ByDigest
			Matching
			Body Reason
		},
		) (*tagged[ReleaseView], error) {
			return a.onRelease(ctx, in.ByDigest, in.Matching, func(ctx context.Context, c access.Caller, d [32]byte) (release.Release, error) {
				return a.Release.Close(ctx, c, d, in.Body.Reason)
			})
		})
}
