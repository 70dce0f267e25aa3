package httpapi

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
)

// MaxList bounds a list of devices, bytes. It is read line by line, and is never in memory whole.
const MaxList = 4 << 30

// ForeignRequest asks for another maker's CA to be believed.
type ForeignRequest struct {
	Product  string `json:"product" minLength:"1" maxLength:"64"`
	Hardware string `json:"hardware,omitempty" maxLength:"64" doc:"revision of its devices; empty: the product's first"`
	PEM      string `json:"pem" minLength:"1" maxLength:"65536" doc:"its certificates, the one that signs devices first"`
	Map      string `json:"map" minLength:"1" maxLength:"128" example:"serialNumber" doc:"what a device is called in its certificate: serialNumber, cn or hwserial, or a text with {serialNumber}, {cn}, {o}, {ou}, {hwserial} in it"`
	Any      bool   `json:"any,omitempty" doc:"let in devices that are on no list as well"`
}

func (r ForeignRequest) spec() (foreign.Spec, error) {
	certs, err := certificatesOf(r.PEM)
	if err != nil {
		err = fault.Newf(fault.Invalid, "foreign.ca", "foreign CA: %w", err).With("give the CA's certificate, and its chain, in PEM")
	}
	return foreign.Spec{Product: r.Product, Hardware: r.Hardware, Map: r.Map, Any: r.Any, Certificates: certs}, err
}

// certificatesOf gives the certificates of a PEM text that has nothing else in it.
func certificatesOf(text string) (certs [][]byte, err error) {
	for rest := []byte(text); ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			if len(certs) == 0 || strings.TrimSpace(string(rest)) != "" {
				return nil, errors.New("want certificates in PEM, and nothing else")
			}
			return certs, nil
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a %.40s in the PEM: want certificates only", block.Type)
		}
		certs = append(certs, block.Bytes)
	}
}

// Arriving is a device that another instance hands over.
type Arriving struct {
	Trust   string `json:"trust" minLength:"1" maxLength:"65536" doc:"whom its chain of custody is believed by: the trust file of the other instance's logs"`
	Custody []byte `json:"custody" minLength:"1" maxLength:"6990508" doc:"the chain, as hallmark log trace --bundle writes it"`
}

// registerForeign has the operations on devices of other makers.
func (a *api) registerForeign(h huma.API) {
	huma.Register(h, op("list-foreign-cas", http.MethodGet, "/foreign-cas", "List the CAs of other makers whose devices are let in"),
		func(ctx context.Context, in *struct {
			Product string `query:"product" maxLength:"64"`
			Paging
		},
		) (*body[Page[foreign.CA]], error) {
			name := func(c foreign.CA) string { return c.ID }
			return paged(a, ctx, in.Paging, name, func(after string, limit int) ([]foreign.CA, error) {
				all, err := a.Foreign.CAs(ctx, callerOf(ctx), in.Product)
				return cut(all, name, after, limit), err
			})
		})
	huma.Register(h, op("trust-foreign-ca", http.MethodPost, "/foreign-cas", "Let in devices of another maker, by its CA"),
		func(ctx context.Context, in *body[ForeignRequest]) (*body[foreign.CA], error) {
			s, err := in.Body.spec()
			if err != nil {
				return nil, a.problem(ctx, err)
			}
			c, err := a.Foreign.Trust(ctx, callerOf(ctx), s)
			return reply(a, ctx, c, err)
		})
	huma.Register(h, op("end-foreign-ca", http.MethodPost, "/foreign-cas/{id}/end", "Believe another maker's CA no more"),
		func(ctx context.Context, in *struct {
			ByID
			Body Reason
		},
		) (*body[Reason], error) {
			return reply(a, ctx, in.Body, a.Foreign.Untrust(ctx, callerOf(ctx), in.ID, in.Body.Reason))
		})
	list := op("import-devices", http.MethodPost, "/products/{id}/devices", "Take devices of another maker from a list; the same list again changes nothing")
	registerStream(h, list, "application/octet-stream", nil, func(ctx context.Context, in *struct {
		ByID
		Format   string `query:"format" default:"csv" enum:"csv,aws,azure"`
		Hardware string `query:"hardware" maxLength:"64" doc:"revision of those that do not say; empty: the product's first"`
		CA       string `query:"ca" maxLength:"64" doc:"ID of the foreign CA that vouches for devices known by name only"`
		DryRun   bool   `query:"dry_run" doc:"say what would be done"`
		Streamed
	},
	) (*body[foreign.Report], error) {
		if err := a.Foreign.MayImport(ctx, callerOf(ctx), in.ID); err != nil {
			return nil, a.problem(ctx, err)
		}
		r, err := a.Foreign.Import(ctx, callerOf(ctx), foreign.List{Product: in.ID, Hardware: in.Hardware, Format: foreign.Format(in.Format), CA: in.CA, Dry: in.DryRun}, in.within(MaxList))
		return reply(a, ctx, r, err)
	})
	huma.Register(h, op("welcome-device", http.MethodPost, "/products/{id}/arrivals", "Take a device that another instance hands over, by its chain of custody; again it changes nothing"),
		func(ctx context.Context, in *struct {
			ByID
			Body Arriving
		},
		) (*body[foreign.Welcomed], error) {
			w, err := a.Foreign.Welcome(ctx, callerOf(ctx), foreign.Handed{Product: in.ID, Trust: []byte(in.Body.Trust), Custody: in.Body.Custody})
			return reply(a, ctx, w, err)
		})
}
