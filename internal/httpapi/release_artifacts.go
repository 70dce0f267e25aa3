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

// PruneRequest is what is to be deleted.
type PruneRequest struct {
	Older uint64 `json:"older_s,omitempty" maximum:"3153600000" doc:"seconds since anybody touched it, an hour at least; none: 30 days"`
	Dry   bool   `json:"dry_run,omitempty" doc:"only say what it is"`
}

// Pruned is what was deleted, or would be.
type Pruned struct {
	Artifacts int              `json:"artifacts" doc:"how many that nothing named"`
	Deltas    int              `json:"deltas" doc:"how many that nobody needed"`
	Strays    int              `json:"strays" doc:"bytes that uploads left which broke off, of whatever product: how many"`
	Bytes     uint64           `json:"bytes" doc:"that are freed, soon after: what another row names stays"`
	Names     []PrunedArtifact `json:"names" nullable:"false" doc:"the artifacts, at most 1000 of them"`
}

// PrunedArtifact is one of them.
type PrunedArtifact struct {
	ArtifactView
	Name string    `json:"name"`
	By   string    `json:"by"`
	At   time.Time `json:"at"`
}

// maxPruned bounds the artifacts that are named in an answer.
const maxPruned = 1000

func viewPruned(p release.Prunable) Pruned {
	v := Pruned{Artifacts: len(p.Artifacts), Deltas: len(p.Deltas), Strays: p.Strays, Bytes: p.Bytes(), Names: []PrunedArtifact{}}
	for _, a := range p.Artifacts[:min(len(p.Artifacts), maxPruned)] {
		v.Names = append(v.Names, PrunedArtifact{ArtifactView{Digest: hex.EncodeToString(a.Digest[:]), Size: a.Size, Protected: a.Protected}, a.Name, a.By, a.At})
	}
	return v
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
	huma.Register(h, op("prune-artifacts", http.MethodPost, "/products/{product}/prune", "Delete artifacts that nothing names, and deltas that nobody needs"),
		func(ctx context.Context, in *struct {
			Product string `path:"product" minLength:"1" maxLength:"64"`
			Body    PruneRequest
		},
		) (*body[Pruned], error) {
			older := release.PruneAge
			if in.Body.Older != 0 {
				older = time.Duration(in.Body.Older) * time.Second
			}
			p, err := a.Release.Prune(ctx, callerOf(ctx), in.Product, older, in.Body.Dry)
			return reply(a, ctx, viewPruned(p), err)
		})
}
