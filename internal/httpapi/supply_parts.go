package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/supply/parts"
)

// SupplierRequest is what is said of a supplier.
type SupplierRequest struct {
	Name  string   `json:"name" minLength:"1" maxLength:"200"`
	Names []string `json:"names,omitempty" maxItems:"64" doc:"what bills of materials call it"`
	Site  string   `json:"site,omitempty" maxLength:"200" doc:"where more is said of it"`
}

// PartRequest is what is said of a part.
type PartRequest struct {
	Supplier string     `json:"supplier" minLength:"1" maxLength:"64"`
	Kind     parts.Kind `json:"kind" enum:"hardware,software"`
	Name     string     `json:"name" minLength:"1" maxLength:"200"`
	Number   string     `json:"number,omitempty" maxLength:"200" doc:"the supplier's part number, or the version of software"`
	PURL     string     `json:"purl,omitempty" maxLength:"200" doc:"package URL of software"`
}

// LotRequest is a lot that was received.
type LotRequest struct {
	ID       string    `json:"id" minLength:"1" maxLength:"64" doc:"yours: lower-case letters, digits, '-' and '.'"`
	Part     string    `json:"part" minLength:"1" maxLength:"64"`
	Number   string    `json:"number" minLength:"1" maxLength:"200" doc:"the supplier's"`
	Received time.Time `json:"received,omitzero" required:"false" doc:"none: now"`
}

// LotNames names lots.
type LotNames struct {
	Lots []string `json:"lots" minItems:"1" maxItems:"1000"`
}

// LotTaken names a lot that an order has nothing of.
type LotTaken struct {
	Lot    string `json:"lot" minLength:"1" maxLength:"64"`
	Reason string `json:"reason" minLength:"1" maxLength:"512"`
}

// LotList is a few lots.
type LotList struct {
	Items []parts.Lot `json:"items" nullable:"false" doc:"by ID"`
}

// LotDevices is a page of the devices that may have a part of a lot.
type LotDevices struct {
	Devices int64 `json:"devices" doc:"all of them whose life has not ended"`
	Page[parts.Built]
}

// registerParts has the operations on who supplies what, and in which lots it came.
func (a *api) registerParts(h huma.API) {
	a.registerSuppliers(h)
	a.registerPartsThemselves(h)
	a.registerLots(h)
	a.registerBuilt(h)
}

func (a *api) registerSuppliers(h huma.API) {
	huma.Register(h, op("list-suppliers", http.MethodGet, "/suppliers", "List suppliers, by ID"),
		func(ctx context.Context, in *Paging) (*body[Page[parts.Supplier]], error) {
			return paged(a, ctx, *in, func(v parts.Supplier) string { return v.ID }, func(after string, limit int) ([]parts.Supplier, error) {
				return a.Parts.Suppliers(ctx, callerOf(ctx), after, limit)
			})
		})
	huma.Register(h, op("get-supplier", http.MethodGet, "/suppliers/{id}", "Show a supplier"),
		func(ctx context.Context, in *ByID) (*tagged[parts.Supplier], error) {
			return show(a, ctx, once.Supplier, in.ID, func() (parts.Supplier, error) { return a.Parts.Supplier(ctx, callerOf(ctx), in.ID) })
		})
	huma.Register(h, op("set-supplier", http.MethodPut, "/suppliers/{id}", "Write a supplier down, or change what is said of it"),
		func(ctx context.Context, in *struct {
			ByID
			Matching
			Body SupplierRequest
		},
		) (*tagged[parts.Supplier], error) {
			return change(a, ctx, in.Matching, once.Supplier, in.ID, func(ctx context.Context) (parts.Supplier, error) {
				return a.Parts.SetSupplier(ctx, callerOf(ctx), parts.Supplier{ID: in.ID, Name: in.Body.Name, Names: in.Body.Names, Site: in.Body.Site})
			})
		})
	huma.Register(h, op("end-supplier", http.MethodPost, "/suppliers/{id}/end", "Take nothing of a supplier any more"),
		func(ctx context.Context, in *becauseOf) (*tagged[parts.Supplier], error) {
			return change(a, ctx, in.Matching, once.Supplier, in.ID, func(ctx context.Context) (parts.Supplier, error) {
				return a.Parts.EndSupplier(ctx, callerOf(ctx), in.ID, in.Body.Reason)
			})
		})
}

func (a *api) registerPartsThemselves(h huma.API) {
	huma.Register(h, op("list-parts", http.MethodGet, "/parts", "List parts, by ID"),
		func(ctx context.Context, in *struct {
			Supplier string `query:"supplier" maxLength:"64" doc:"only this one's"`
			Paging
		},
		) (*body[Page[parts.Part]], error) {
			return paged(a, ctx, in.Paging, func(p parts.Part) string { return p.ID }, func(after string, limit int) ([]parts.Part, error) {
				return a.Parts.Parts(ctx, callerOf(ctx), in.Supplier, after, limit)
			})
		})
	huma.Register(h, op("get-part", http.MethodGet, "/parts/{id}", "Show a part"),
		func(ctx context.Context, in *ByID) (*tagged[parts.Part], error) {
			return show(a, ctx, once.Part, in.ID, func() (parts.Part, error) { return a.Parts.Part(ctx, callerOf(ctx), in.ID) })
		})
	huma.Register(h, op("set-part", http.MethodPut, "/parts/{id}", "Write a part down, or change what is said of it"),
		func(ctx context.Context, in *struct {
			ByID
			Matching
			Body PartRequest
		},
		) (*tagged[parts.Part], error) {
			return change(a, ctx, in.Matching, once.Part, in.ID, func(ctx context.Context) (parts.Part, error) {
				b := in.Body
				return a.Parts.SetPart(ctx, callerOf(ctx), parts.Part{ID: in.ID, Supplier: b.Supplier, Kind: b.Kind, Name: b.Name, Number: b.Number, PURL: b.PURL})
			})
		})
}

func (a *api) registerLots(h huma.API) {
	huma.Register(h, op("list-lots", http.MethodGet, "/lots", "List lots of parts, by ID"),
		func(ctx context.Context, in *struct {
			Part string `query:"part" maxLength:"64" doc:"only of this part"`
			Paging
		},
		) (*body[Page[parts.Lot]], error) {
			return paged(a, ctx, in.Paging, func(l parts.Lot) string { return l.ID }, func(after string, limit int) ([]parts.Lot, error) {
				return a.Parts.Lots(ctx, callerOf(ctx), in.Part, after, limit)
			})
		})
	huma.Register(h, op("receive-lot", http.MethodPost, "/lots", "Write a lot down that was received"),
		func(ctx context.Context, in *body[LotRequest]) (*body[parts.Lot], error) {
			b := in.Body
			l, err := a.Parts.Receive(ctx, callerOf(ctx), parts.Lot{ID: b.ID, Part: b.Part, Number: b.Number, Received: b.Received})
			return reply(a, ctx, l, err)
		})
	huma.Register(h, op("get-lot", http.MethodGet, "/lots/{id}", "Show a lot"),
		func(ctx context.Context, in *ByID) (*tagged[parts.Lot], error) {
			return show(a, ctx, once.Lot, in.ID, func() (parts.Lot, error) { return a.Parts.Lot(ctx, callerOf(ctx), in.ID) })
		})
	for _, v := range []struct {
		name, summary string
		verb          func(ctx context.Context, caller access.Caller, id, reason string) (parts.Lot, error)
	}{
		{"recall", "Say that a lot is bad, and have who watches the fleet told", a.Parts.Recall},
		{"clear", "Say that a lot that was recalled is good after all; takes two people", a.Parts.Clear},
	} {
		huma.Register(h, op(v.name+"-lot", http.MethodPost, "/lots/{id}/"+v.name, v.summary),
			func(ctx context.Context, in *becauseOf) (*tagged[parts.Lot], error) {
				return change(a, ctx, in.Matching, once.Lot, in.ID, func(ctx context.Context) (parts.Lot, error) {
					return v.verb(ctx, callerOf(ctx), in.ID, in.Body.Reason)
				})
			})
	}
	certify := op("certify-lot", http.MethodPost, "/lots/{id}/certificate", "Bring a lot's certificate of conformity; the same again changes nothing")
	registerStream(h, certify, "application/octet-stream", nil, func(ctx context.Context, in *struct {
		ByID
		Streamed
	},
	) (*body[parts.Lot], error) {
		if err := a.Parts.MayCertify(ctx, callerOf(ctx), in.ID); err != nil {
			return nil, a.problem(ctx, err)
		}
		l, err := a.Parts.Certify(ctx, callerOf(ctx), in.ID, in.within(parts.MaxCertificate))
		return reply(a, ctx, l, err)
	})
	get := op("get-lot-certificate", http.MethodGet, "/lots/{id}/certificate", "Get a lot's certificate of conformity as it was brought")
	huma.Register(h, get, func(ctx context.Context, in *ByID) (*huma.StreamResponse, error) {
		f, err := a.Parts.OpenCertificate(ctx, callerOf(ctx), in.ID)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) { //nolint:contextcheck // it has the context of its request
			a.giveDocument(hc, f, fmt.Sprintf("certificate-%s", in.ID))
		}}, nil
	})
	h.OpenAPI().Paths[get.Path].Get.Responses["200"] = &huma.Response{
		Description: "OK", Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}},
	}
}

// registerBuilt has the operations on what was built into what.
func (a *api) registerBuilt(h huma.API) {
	huma.Register(h, op("list-lot-devices", http.MethodGet, "/lots/{id}/devices", "List the devices that may have a part of a lot, by order"),
		func(ctx context.Context, in *struct {
			ByID
			Paging
		},
		) (*body[LotDevices], error) {
			page, err := paged(a, ctx, in.Paging, parts.Built.Key, func(after string, limit int) ([]parts.Built, error) {
				return a.Parts.Devices(ctx, callerOf(ctx), in.ID, after, limit)
			})
			if err != nil {
				return nil, err
			}
			n, err := a.Parts.Count(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, LotDevices{Devices: n, Page: page.Body}, err)
		})
	lots := func(ctx context.Context, all []parts.Lot, err error) (*body[LotList], error) {
		return reply(a, ctx, LotList{Items: append([]parts.Lot{}, all...)}, err)
	}
	huma.Register(h, op("list-device-lots", http.MethodGet, "/devices/{id}/lots", "List the lots of which a device may have a part"),
		func(ctx context.Context, in *ByID) (*body[LotList], error) {
			all, err := a.Parts.OfDevice(ctx, callerOf(ctx), in.ID)
			return lots(ctx, all, err)
		})
	huma.Register(h, op("list-order-lots", http.MethodGet, "/orders/{id}/lots", "List the lots that an order is made of"),
		func(ctx context.Context, in *ByID) (*body[LotList], error) {
			all, err := a.Parts.OfOrder(ctx, callerOf(ctx), in.ID)
			return lots(ctx, all, err)
		})
	huma.Register(h, op("name-order-lots", http.MethodPost, "/orders/{id}/lots", "Say of which lots an order is made, beside those that it names already"),
		func(ctx context.Context, in *struct {
			ByID
			Body LotNames
		},
		) (*body[LotList], error) {
			all, err := a.Parts.Name(ctx, callerOf(ctx), in.ID, in.Body.Lots)
			return lots(ctx, all, err)
		})
	huma.Register(h, op("take-order-lot", http.MethodPost, "/orders/{id}/lots/taken", "Say that an order has nothing of a lot after all; takes two people"),
		func(ctx context.Context, in *struct {
			ByID
			Body LotTaken
		},
		) (*body[LotList], error) {
			all, err := a.Parts.Unname(ctx, callerOf(ctx), in.ID, in.Body.Lot, in.Body.Reason)
			return lots(ctx, all, err)
		})
}
