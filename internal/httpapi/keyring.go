package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

// KeyRequest asks for a new online key.
type KeyRequest struct {
	Role   keyring.Role `json:"role" enum:"directive,log-control,log-events,order,server,bucket,desk,supply"`
	Suite  string       `json:"suite,omitempty" maxLength:"32" example:"HM-P384-1" doc:"of directive, order and server; empty: HM-P256-1"`
	Reason string       `json:"reason" minLength:"1" maxLength:"1024"`
}

// KeyEnd retires an online key.
type KeyEnd struct {
	Reason string `json:"reason" minLength:"1" maxLength:"1024"`
	Force  bool   `json:"force,omitempty" doc:"also when devices believe no other: they come back by the history of trust bundles"`
}

// BundleDue is how long a device may stay behind a trust bundle.
type BundleDue struct {
	Days int `json:"days" minimum:"1" maximum:"3650" doc:"after the bundle was published"`
}

// IsolationPolicy is what has to hold the programs of a product's devices.
type IsolationPolicy struct {
	Layers []wire.Layer `json:"layers" maxItems:"16" doc:"each once; none: nothing is asked"`
}

// registerKeys are the keys of the running instance.
func (a *api) registerKeys(h huma.API) {
	huma.Register(h, op("list-keys", http.MethodGet, "/keys", "List the instance's online keys"),
		func(ctx context.Context, _ *struct{}) (*body[Page[keyring.Key]], error) {
			keys, err := a.Keys.List(ctx, callerOf(ctx))
			return reply(a, ctx, Page[keyring.Key]{Items: keys}, err)
		})
	huma.Register(h, op("rotate-key", http.MethodPost, "/keys", "Make a new online key beside those of its role"),
		func(ctx context.Context, in *body[KeyRequest]) (*body[keyring.Key], error) {
			k, err := a.Keys.Rotate(ctx, callerOf(ctx), in.Body.Role, in.Body.Suite, in.Body.Reason)
			return reply(a, ctx, k, err)
		})
	huma.Register(h, op("retire-key", http.MethodPost, "/keys/{id}/retire", "Sign nothing with an online key any more"),
		func(ctx context.Context, in *struct {
			ByID
			Body KeyEnd
		},
		) (*body[keyring.Key], error) {
			k, err := a.Keys.Retire(ctx, callerOf(ctx), in.ID, in.Body.Force, in.Body.Reason)
			return reply(a, ctx, k, err)
		})
	huma.Register(h, op("get-bundle-status", http.MethodGet, "/products/{id}/bundle/status", "Show how far a product's trust bundle has come"),
		func(ctx context.Context, in *ByID) (*body[device.BundleStatus], error) {
			s, err := a.Device.BundleStatus(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, s, err)
		})
	huma.Register(h, op("set-isolation", http.MethodPut, "/products/{id}/isolation", "Say what has to hold the programs of a product's devices"),
		func(ctx context.Context, in *struct {
			ByID
			Matching
			Body IsolationPolicy
		},
		) (*tagged[product.Product], error) {
			return change(a, ctx, in.Matching, once.Product, in.ID, func(ctx context.Context) (product.Product, error) {
				return a.Product.SetIsolation(ctx, callerOf(ctx), in.ID, in.Body.Layers)
			})
		})
	huma.Register(h, op("set-bundle-due", http.MethodPut, "/products/{id}/bundle/due", "Say how long a device may stay behind a product's trust bundle"),
		func(ctx context.Context, in *struct {
			ByID
			Matching
			Body BundleDue
		},
		) (*tagged[product.Product], error) {
			return change(a, ctx, in.Matching, once.Product, in.ID, func(ctx context.Context) (product.Product, error) {
				return a.Product.SetBundleDue(ctx, callerOf(ctx), in.ID, in.Body.Days)
			})
		})
}
