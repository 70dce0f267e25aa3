package httpapi

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/release"
)

// ReleaseDocument names a document of a release.
type ReleaseDocument struct {
	ByDigest
	Kind string `path:"kind" maxLength:"16" doc:"sbom or provenance" example:"sbom"`
}

// registerReleaseDocuments has the operation that gives out what a release was proposed with.
func (a *api) registerReleaseDocuments(h huma.API) {
	get := op("get-release-document", http.MethodGet, "/releases/{digest}/documents/{kind}", "Get the bill of materials or the provenance that a release names, as it was uploaded")
	huma.Register(h, get, func(ctx context.Context, in *ReleaseDocument) (*huma.StreamResponse, error) {
		d, err := in.digest()
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		f, err := a.Release.OpenDocument(ctx, callerOf(ctx), d, release.DocumentKind(in.Kind))
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) { //nolint:contextcheck // it has the context of its request
			a.giveDocument(hc, f, fmt.Sprintf("%s-%.12s.json", in.Kind, in.Digest))
		}}, nil
	})
	h.OpenAPI().Paths[get.Path].Get.Responses["200"] = &huma.Response{
		Description: "OK", Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}},
	}
}
