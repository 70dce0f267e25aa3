package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

// OrderRequest is what to have made, where. Firmware comes from the release's artifacts.
type OrderRequest struct {
	ID             string            `json:"id,omitempty" maxLength:"64"`
	Product        string            `json:"product" minLength:"1" maxLength:"64"`
	Hardware       string            `json:"hardware" minLength:"1" maxLength:"64"`
	Quota          uint32            `json:"quota" minimum:"1"`
	NotAfter       time.Time         `json:"not_after"`
	Descriptor     []byte            `json:"descriptor" doc:"the station's signed capability descriptor, base64"`
	StationPin     []byte            `json:"station_pin" doc:"SHA-256 of the station's record key, learned another way"`
	Release        string            `json:"release,omitempty" pattern:"^[0-9a-f]{64}$" doc:"digest of the release to put on the devices; none with a master"`
	Params         wire.DeviceParams `json:"params" required:"false" doc:"none with a master"`
	Master         []byte            `json:"master,omitempty" maxLength:"450000" doc:"how a master's file begins, at least up to its first chunk: it says release and parameters"`
	MasterDigest   string            `json:"master_digest,omitempty" pattern:"^[0-9a-f]{64}$" doc:"of a master that was given to this instance, in place of how its file begins"`
	MaxOfflineDays uint32            `json:"max_offline_days,omitempty"`
	FirstArticle   bool              `json:"first_article,omitempty" doc:"one is made and inspected before the others"`
	Lots           []string          `json:"lots,omitempty" maxItems:"1000" doc:"of parts that it is made of, by their IDs: see list-lots"`
	Chips          string            `json:"chips,omitempty" maxLength:"64" doc:"only chips of this vendor, which came with their keys: see import-chips"`
	Keys           string            `json:"keys,omitempty" enum:"station" doc:"who may make devices' keys beside the device itself: station, for chips that cannot"`
}

// OrderView is an order as clients see it: the UIDs of its facts in hex, as everywhere.
type OrderView struct {
	factory.Order
	UID       string `json:"uid" doc:"of the order.created fact, hex"`
	ClosedUID string `json:"closed_uid,omitempty" doc:"of the order.closed fact, hex"`
}

func viewOrder(o factory.Order) OrderView {
	v := OrderView{Order: o, UID: hex.EncodeToString(o.UID[:])}
	if o.ClosedUID != [16]byte{} {
		v.ClosedUID = hex.EncodeToString(o.ClosedUID[:])
	}
	return v
}

// OrderReply carries the order's file, which is given out this once.
type OrderReply struct {
	Order OrderView `json:"order"`
	File  []byte    `json:"file" doc:"for the station; safe to mail"`
}

// RecordsRequest carries what a station exported.
type RecordsRequest struct {
	File []byte `json:"file"`
}

func (a *api) registerFactory(h huma.API) {
	huma.Register(h, op("create-product", http.MethodPost, "/products", "Create a product"),
		func(ctx context.Context, in *body[product.Product]) (*body[product.Product], error) {
			p, err := a.Product.Create(ctx, callerOf(ctx), in.Body)
			return reply(a, ctx, p, err)
		})
	huma.Register(h, op("list-products", http.MethodGet, "/products", "List products"),
		func(ctx context.Context, in *struct{ Paging }) (*body[Page[product.Product]], error) {
			id := func(p product.Product) string { return p.ID }
			return paged(a, ctx, in.Paging, id, func(after string, limit int) ([]product.Product, error) {
				ps, err := a.Product.List(ctx, callerOf(ctx))
				return cut(ps, id, after, limit), err
			})
		})
	huma.Register(h, op("get-product", http.MethodGet, "/products/{id}", "Show a product"),
		func(ctx context.Context, in *ByID) (*tagged[product.Product], error) {
			return show(a, ctx, once.Product, in.ID, func() (product.Product, error) { return a.Product.Get(ctx, callerOf(ctx), in.ID) })
		})
	huma.Register(h, op("get-oem", http.MethodGet, "/oem", "What a station must pin of this maker"),
		func(ctx context.Context, _ *struct{}) (*body[factory.OEMFile], error) {
			f, err := a.Factory.OEMFile(ctx, callerOf(ctx))
			return reply(a, ctx, f, err)
		})
	a.registerMasters(h)
	a.registerOrders(h)
	a.registerDifferences(h)
}

func (a *api) registerOrders(h huma.API) {
	create := mark(op("create-order", http.MethodPost, "/orders", "Order devices from one station: the file comes back"), givesSecret)
	huma.Register(h, create, func(ctx context.Context, in *body[OrderRequest]) (*huma.StreamResponse, error) {
		file, o, err := a.createOrder(ctx, in.Body)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) { //nolint:contextcheck // it has the context of its request
			a.giveOrder(hc, file, o)
		}}, nil
	})
	answers(h, create, reflect.TypeFor[OrderReply]())
	huma.Register(h, op("list-orders", http.MethodGet, "/orders", "List orders, newest first"),
		func(ctx context.Context, in *struct {
			OfProduct
			Paging
		},
		) (*body[Page[OrderView]], error) {
			return paged(a, ctx, in.Paging, func(o OrderView) string { return o.ID }, func(after string, limit int) ([]OrderView, error) {
				os, err := a.Factory.Page(ctx, callerOf(ctx), in.Product, after, limit)
				out := make([]OrderView, 0, len(os))
				for _, o := range os {
					out = append(out, viewOrder(o))
				}
				return out, err
			})
		})
	huma.Register(h, op("get-order", http.MethodGet, "/orders/{id}", "Show an order"),
		func(ctx context.Context, in *ByID) (*tagged[OrderView], error) {
			return show(a, ctx, once.Order, in.ID, func() (OrderView, error) {
				o, err := a.Factory.Get(ctx, callerOf(ctx), in.ID)
				return viewOrder(o), err
			})
		})
	records := op("import-records", http.MethodPost, "/orders/{id}/records", "Import production records; the same file again changes nothing")
	registerStream(h, records, "application/json", reflect.TypeFor[RecordsRequest](), func(ctx context.Context, in *struct {
		ByID
		Streamed
	},
	) (*body[factory.ImportReport], error) {
		r, err := a.importRecords(ctx, in.ID, &in.Streamed)
		return reply(a, ctx, r, err)
	})
	huma.Register(h, op("reconcile-order", http.MethodGet, "/orders/{id}/reconciliation", "Compare what was ordered with what was made and seen"),
		func(ctx context.Context, in *ByID) (*body[factory.Reconciliation], error) {
			r, err := a.Factory.Reconcile(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, r, err)
		})
	huma.Register(h, op("close-order", http.MethodPost, "/orders/{id}/close", "Close an order whose records are all here"),
		func(ctx context.Context, in *struct {
			ByID
			Matching
		},
		) (*tagged[factory.Reconciliation], error) {
			return change(a, ctx, in.Matching, once.Order, in.ID, func(ctx context.Context) (factory.Reconciliation, error) {
				return a.Factory.CloseOrder(ctx, callerOf(ctx), in.ID)
			})
		})
	for _, v := range []struct {
		name, summary string
		verb          func(ctx context.Context, caller access.Caller, id, reason string) (factory.Order, error)
	}{
		{"cancel", "End an order whose file never came to use", a.Factory.Cancel},
		{"abandon", "End an order whose station is gone; takes two people", a.Factory.Abandon},
	} {
		huma.Register(h, op(v.name+"-order", http.MethodPost, "/orders/{id}/"+v.name, v.summary),
			func(ctx context.Context, in *becauseOf) (*tagged[OrderView], error) {
				return change(a, ctx, in.Matching, once.Order, in.ID, func(ctx context.Context) (OrderView, error) {
					o, err := v.verb(ctx, callerOf(ctx), in.ID, in.Body.Reason)
					return viewOrder(o), err
				})
			})
	}
}

func (a *api) registerDifferences(h huma.API) {
	huma.Register(h, op("get-device-identity", http.MethodGet, "/devices/{id}/identity", "Get the certificate that a device got in the factory, with those above it"),
		func(ctx context.Context, in *ByID) (*body[factory.Identity], error) {
			v, err := a.Factory.IdentityOf(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, v, err)
		})
	huma.Register(h, op("list-order-differences", http.MethodGet, "/orders/{id}/differences", "List what does not agree about an order"),
		func(ctx context.Context, in *struct {
			ByID
			Paging
			List string `query:"list" default:"alarm" enum:"clone,over-production,refused,alarm,missing,unregistered,unseen,rework" doc:"which list"`
		},
		) (*body[Page[factory.Difference]], error) {
			list, next, err := a.Factory.Differences(ctx, callerOf(ctx), in.ID, factory.Question(in.List), in.After, in.Limit)
			if list == nil {
				list = []factory.Difference{}
			}
			return reply(a, ctx, Page[factory.Difference]{Items: list, Next: next}, err)
		})
}

// importRecords reads the file once the caller is known to be allowed to send one.
func (a *api) importRecords(ctx context.Context, id string, s *Streamed) (factory.ImportReport, error) {
	if err := a.Factory.MayImport(ctx, callerOf(ctx), id); err != nil {
		return factory.ImportReport{Order: id}, err
	}
	in, err := decodeBody[RecordsRequest](s.within(MaxRecords))
	if err != nil {
		return factory.ImportReport{Order: id}, err
	}
	return a.Factory.ImportRecords(ctx, callerOf(ctx), id, in.File)
}

func (a *api) createOrder(ctx context.Context, in OrderRequest) (*factory.Wrapped, factory.Order, error) {
	if err := a.Factory.MayOrder(ctx, callerOf(ctx), in.ID, in.Product); err != nil { // before any firmware is gathered
		return nil, factory.Order{}, err
	}
	if in.MasterDigest != "" {
		m, err := a.Factory.Master(ctx, callerOf(ctx), in.MasterDigest)
		if err != nil {
			return nil, factory.Order{}, err
		}
		in.Master = m.Head
	}
	if len(in.Master) > 0 {
		h, err := factory.ReleaseOfMaster(in.Master)
		if err == nil && (in.Release != "" || in.Params.Servers.Device != "") {
			err = fault.New(fault.Invalid, "master.invalid", "an order of a master names a release or parameters", "leave them out: the master says them")
		}
		if err != nil {
			return nil, factory.Order{}, err
		}
		in.Release = h
	}
	if f := &in.Params.Flash; f.Size == 0 { // at least what its slots take
		f.Size = uint64(f.Slots) * f.SlotSize
	}
	d, err := parseDigest(in.Release)
	if err != nil {
		return nil, factory.Order{}, err
	}
	firmware, err := a.Firmware(ctx, callerOf(ctx), in.Product, [32]byte(d))
	if err != nil {
		return nil, factory.Order{}, err
	}
	return a.Factory.CreateOrder(ctx, callerOf(ctx), factory.OrderSpec{
		Master: in.Master,
		ID:     in.ID, Product: in.Product, Hardware: in.Hardware, Quota: in.Quota, NotAfter: in.NotAfter, Descriptor: in.Descriptor,
		StationPin: in.StationPin, Bundle: firmware.Bundle, Release: firmware.Release, Payload: firmware.Payload, Params: in.Params,
		MaxOfflineDays: in.MaxOfflineDays, FirstArticle: in.FirstArticle, Chips: in.Chips, Keys: in.Keys, Lots: in.Lots,
	})
}

// giveOrder writes an OrderReply as it is made: firmware is read, sealed and sent, and never in memory whole. The order is durable before. An
// answer that is cut off has no end, so that nobody takes a part for the file.
func (a *api) giveOrder(hc huma.Context, file *factory.Wrapped, o factory.Order) {
	head, err := json.Marshal(viewOrder(o))
	if err != nil {
		a.log.ErrorContext(hc.Context(), "order", "error", err)
		hc.SetStatus(http.StatusInternalServerError)
		return
	}
	hc.SetHeader("Content-Type", "application/json")
	hc.SetStatus(http.StatusOK)
	w := hc.BodyWriter()
	write := func() error {
		if _, err := fmt.Fprintf(w, `{"order":%s,"file":"`, head); err != nil {
			return err
		}
		enc := base64.NewEncoder(base64.StdEncoding, w)
		if err := file.WriteFile(hc.Context(), enc); err != nil {
			return err
		}
		if err := enc.Close(); err != nil {
			return err
		}
		_, err := io.WriteString(w, "\"}\n")
		return err
	}
	if err := write(); err != nil {
		a.log.WarnContext(hc.Context(), "the file of an order was not given out whole: whoever ordered cancels it", "order", o.ID, "error", err)
		panic(http.ErrAbortHandler) // the answer has begun: only its end can say that it is no answer
	}
}
