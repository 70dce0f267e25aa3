package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/factory"
)

// MasterRequest gives a master to this instance.
type MasterRequest struct {
	Product string `json:"product" minLength:"1" maxLength:"64"`
	File    []byte `json:"file" minLength:"1" maxLength:"450000" doc:"how the master's file begins, at least up to its first chunk, base64: firmware comes from the release"`
}

// MasterDocument names a document of a master in a path.
type MasterDocument struct {
	Digest string `path:"digest" pattern:"^[0-9a-f]{64}$"`
	Kind   string `path:"kind" maxLength:"16" doc:"sbom or provenance" example:"sbom"`
}

// registerMasters has the operations on masters, of which orders are made.
func (a *api) registerMasters(h huma.API) {
	huma.Register(h, op("take-master", http.MethodPost, "/masters", "Take in a master that orders can be made of; the same again changes nothing"),
		func(ctx context.Context, in *body[MasterRequest]) (*body[factory.KeptMaster], error) {
			m, err := a.takeMaster(ctx, in.Body)
			return reply(a, ctx, m, err)
		})
	huma.Register(h, op("list-masters", http.MethodGet, "/masters", "List the masters that were given to this instance, newest first"),
		func(ctx context.Context, in *struct {
			OfProduct
			Paging
		},
		) (*body[Page[factory.KeptMaster]], error) {
			return paged(a, ctx, in.Paging, func(m factory.KeptMaster) string { return m.Digest }, func(after string, limit int) ([]factory.KeptMaster, error) {
				return a.Factory.Masters(ctx, callerOf(ctx), in.Product, after, limit)
			})
		})
	huma.Register(h, op("get-master", http.MethodGet, "/masters/{digest}", "Show a master that was given to this instance"),
		func(ctx context.Context, in *ByDigest) (*body[factory.KeptMaster], error) {
			m, err := a.Factory.Master(ctx, callerOf(ctx), in.Digest)
			return reply(a, ctx, m, err)
		})
	give := op("give-master-document", http.MethodPost, "/masters/{digest}/documents/{kind}", "Give a document that a master names, and nothing else; the same again changes nothing")
	registerStream(h, give, "application/octet-stream", nil, func(ctx context.Context, in *struct {
		MasterDocument
		Streamed
	},
	) (*body[factory.KeptMaster], error) {
		m, err := a.Factory.GiveDocument(ctx, callerOf(ctx), in.Digest, factory.DocumentKind(in.Kind), in.within(factory.MaxDocument))
		return reply(a, ctx, m, err)
	})
	get := op("get-master-document", http.MethodGet, "/masters/{digest}/documents/{kind}", "Get a document that a master names")
	huma.Register(h, get, func(ctx context.Context, in *MasterDocument) (*huma.StreamResponse, error) {
		f, err := a.Factory.OpenDocument(ctx, callerOf(ctx), in.Digest, factory.DocumentKind(in.Kind))
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) { //nolint:contextcheck // it has the context of its request
			a.giveDocument(hc, f, fmt.Sprintf("%s-%.12s", in.Kind, in.Digest))
		}}, nil
	})
	h.OpenAPI().Paths[get.Path].Get.Responses["200"] = &huma.Response{
		Description: "OK", Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}},
	}
}

// takeMaster looks up what the master claims to be of: it is held against the product's trust bundle in force.
func (a *api) takeMaster(ctx context.Context, in MasterRequest) (factory.KeptMaster, error) {
	if err := a.Factory.MayOrder(ctx, callerOf(ctx), "", in.Product); err != nil {
		return factory.KeptMaster{}, err
	}
	release, err := factory.ReleaseOfMaster(in.File)
	if err != nil {
		return factory.KeptMaster{}, err
	}
	d, err := parseDigest(release)
	if err != nil {
		return factory.KeptMaster{}, err
	}
	firmware, err := a.Firmware(ctx, callerOf(ctx), in.Product, [32]byte(d))
	if err != nil {
		return factory.KeptMaster{}, err
	}
	return a.Factory.TakeMaster(ctx, callerOf(ctx), in.Product, in.File, firmware.Bundle)
}

// giveDocument answers with bytes that nobody here wrote: to be saved, and never shown as a page.
func (a *api) giveDocument(hc huma.Context, f io.ReadSeekCloser, name string) {
	defer func() {
		if err := f.Close(); err != nil {
			a.log.WarnContext(hc.Context(), "a document", "error", err)
		}
	}()
	hc.SetHeader("Content-Type", "application/octet-stream")
	hc.SetHeader("Content-Disposition", `attachment; filename="`+name+`"`)
	hc.SetHeader("X-Content-Type-Options", "nosniff")
	hc.SetStatus(http.StatusOK)
	if _, err := io.Copy(hc.BodyWriter(), f); err != nil {
		panic(http.ErrAbortHandler) // the answer has begun: only its end can say that it is no answer
	}
}
