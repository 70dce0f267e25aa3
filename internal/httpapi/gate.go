package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/statement"
	"github.com/hallmark-iot/hallmark/wire"
)

// GateQuestion is what the supply gate is asked about.
type GateQuestion struct {
	Components [][]byte `json:"components" minItems:"1" maxItems:"64" doc:"SHA-256 of each program or file as it was built"`
	SBOM       []byte   `json:"sbom,omitempty" doc:"SHA-256 of the bill of materials, which was uploaded to this product"`
	Provenance []byte   `json:"provenance,omitempty" doc:"the same, of the provenance"`
}

// manifest is what a release of it would be looked at by.
func (q GateQuestion) manifest(product string) (wire.Release, error) {
	m := wire.Release{ID: "dry run", Product: product, SBOM: q.SBOM, Provenance: q.Provenance}
	for i, c := range append([][]byte{q.SBOM, q.Provenance}, q.Components...) {
		if len(c) != 32 && (i > 1 || len(c) > 0) {
			return m, fault.New(fault.Invalid, "supply.digest", "something is not named by a SHA-256 digest", "give 32 bytes, in base64")
		}
		if i > 1 {
			m.Components = append(m.Components, wire.Component{Name: fmt.Sprint(i - 1), Digest: c})
		}
	}
	return m, nil
}

// registerGate has the operations on the supply gate.
func (a *api) registerGate(h huma.API) {
	huma.Register(h, op("get-supply-policy", http.MethodGet, "/products/{id}/supply", "Show what the supply gate asks of a product's releases"),
		func(ctx context.Context, in *ByID) (*body[supply.Policy], error) {
			p, err := a.Supply.Policy(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, p, err)
		})
	huma.Register(h, op("set-supply-policy", http.MethodPut, "/products/{id}/supply", "Say what the supply gate asks of a product's releases"),
		func(ctx context.Context, in *struct {
			ByID
			Body supply.Policy
		},
		) (*body[supply.Policy], error) {
			p, err := a.Supply.SetPolicy(ctx, callerOf(ctx), in.ID, in.Body)
			return reply(a, ctx, p, err)
		})
	huma.Register(h, op("ask-supply-gate", http.MethodPost, "/products/{id}/gate", "Say what the supply gate would find of a release; nothing is changed"),
		func(ctx context.Context, in *struct {
			ByID
			Body GateQuestion
		},
		) (*body[wire.GateDecision], error) {
			m, err := in.Body.manifest(in.ID)
			if err != nil {
				return nil, a.problem(ctx, err)
			}
			d, err := a.Supply.Gate(ctx, callerOf(ctx), m)
			return reply(a, ctx, d, err)
		})
	huma.Register(h, op("get-release-gate", http.MethodGet, "/releases/{digest}/gate", "Show what the supply gate found of a release when it was proposed"),
		func(ctx context.Context, in *ByDigest) (*body[wire.GateDecision], error) {
			d, err := a.decision(ctx, in)
			return reply(a, ctx, d, err)
		})
	huma.Register(h, op("get-release-summary", http.MethodGet, "/releases/{digest}/summary", "Give the signed summary of what the supply gate found of a release when it was published: DSSE, for others to check"),
		func(ctx context.Context, in *ByDigest) (*body[statement.Envelope], error) {
			e, err := a.summary(ctx, in)
			return reply(a, ctx, e, err)
		})
	exception := op("take-exception", http.MethodPost, "/products/{id}/exceptions", "Take in a signed document that says why known flaws are none in a product: VEX in a DSSE envelope")
	registerStream(h, exception, "application/octet-stream", nil, func(ctx context.Context, in *struct {
		ByID
		Streamed
	},
	) (*body[supply.Exception], error) {
		if err := a.Supply.MayTakeException(ctx, callerOf(ctx), in.ID); err != nil {
			return nil, a.problem(ctx, err)
		}
		doc, err := io.ReadAll(in.within(statement.MaxSize))
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		e, err := a.Supply.TakeException(ctx, callerOf(ctx), in.ID, doc)
		return reply(a, ctx, e, err)
	})
}

func (a *api) decision(ctx context.Context, in *ByDigest) (wire.GateDecision, error) {
	digest, err := in.digest()
	if err != nil {
		return wire.GateDecision{}, err
	}
	r, err := a.Release.Get(ctx, callerOf(ctx), digest)
	if err != nil {
		return wire.GateDecision{}, err
	}
	if len(r.Decision) == 0 {
		return wire.GateDecision{}, fault.New(fault.NotFound, "supply.undecided", "the product had no supply gate when release "+r.Manifest.ID+" was proposed: it is unknown", "see `hallmark supply set`")
	}
	return wire.DecodeGateDecision(r.Decision)
}

func (a *api) summary(ctx context.Context, in *ByDigest) (e statement.Envelope, err error) {
	digest, err := in.digest()
	if err != nil {
		return e, err
	}
	r, err := a.Release.Get(ctx, callerOf(ctx), digest)
	if err != nil {
		return e, err
	}
	if len(r.Summary) == 0 {
		return e, fault.New(fault.NotFound, "supply.no-summary", "release "+r.Manifest.ID+" has no summary: it is not published, or its product had no supply gate when it was", "see `hallmark supply set`")
	}
	return e, json.Unmarshal(r.Summary, &e)
}
