package httpapi

import (
	"context"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/release"
)

// StoredArtifact is uploaded bytes, and who names them.
type StoredArtifact struct {
	ArtifactView
	Name     string           `json:"name" doc:"that it was uploaded with first"`
	By       string           `json:"by" doc:"who uploaded it first"`
	At       time.Time        `json:"at"`
	Releases []ArtifactNaming `json:"releases" nullable:"false" doc:"those that name it, newest first; none: it was uploaded and never proposed"`
}

// ArtifactNaming is one release's use of an artifact.
type ArtifactNaming struct {
	Digest  string         `json:"digest" doc:"of the release"`
	Version string         `json:"version"`
	Status  release.Status `json:"status"`
	As      string         `json:"as" doc:"component NAME, the SBOM or the provenance"`
}

func viewStored(a release.Stored) StoredArtifact {
	v := StoredArtifact{
		ArtifactView: ArtifactView{Digest: hex.EncodeToString(a.Digest[:]), Size: a.Size, Protected: a.Protected},
		Name:         a.Name, By: a.By, At: a.At, Releases: make([]ArtifactNaming, len(a.Named)),
	}
	for i, n := range a.Named {
		v.Releases[i] = ArtifactNaming{Digest: hex.EncodeToString(n.Release[:]), Version: n.Version, Status: n.Status, As: n.What}
	}
	return v
}

func (a *api) registerArtifacts(h huma.API) {
	huma.Register(h, op("list-artifacts", http.MethodGet, "/products/{product}/artifacts", "List a product's artifacts, and which releases name them"),
		func(ctx context.Context, in *struct {
			Product string `path:"product" minLength:"1" maxLength:"64"`
			Paging
		},
		) (*body[Page[StoredArtifact]], error) {
			return paged(a, ctx, in.Paging, func(v StoredArtifact) string { return v.Digest }, func(after string, limit int) ([]StoredArtifact, error) {
				var behind []byte
				var err error
				if after != "" {
					if behind, err = parseDigest(after); err != nil {
						return nil, err
					}
				}
				all, err := a.Release.ListArtifacts(ctx, callerOf(ctx), in.Product, behind, limit)
				out := make([]StoredArtifact, len(all))
				for i, s := range all {
					out[i] = viewStored(s)
				}
				return out, err
			})
		})
	get := op("get-artifact", http.MethodGet, "/products/{product}/artifacts/{digest}", "Get an artifact's bytes")
	huma.Register(h, get, func(ctx context.Context, in *struct {
		Product string `path:"product" maxLength:"64"`
		ByDigest
	},
	) (*huma.StreamResponse, error) {
		d, err := in.digest()
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		_, f, err := a.Release.Open(ctx, callerOf(ctx), in.Product, d)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) { //nolint:contextcheck // it has the context of its request
			a.giveDocument(hc, f, in.Digest)
		}}, nil
	})
	h.OpenAPI().Paths[get.Path].Get.Responses["200"] = &huma.Response{
		Description: "OK", Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}},
	}
}
