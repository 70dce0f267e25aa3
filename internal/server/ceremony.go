package server

import (
	"context"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

// openCeremonies opens what an instance asks of key ceremonies, and keeps of them.
func (i *Instance) openCeremonies() *ceremony.Service {
	return ceremony.NewService(ceremony.Config{
		Guard: i.guard, Store: i.db.Ceremonies(), CAs: i.pki, Products: readiness{i}, OEM: i.cfg.OEM, Instance: i.cfg.Instance,
	})
}

// readiness tells how far products have come. It implements ceremony.Products.
type readiness struct{ i *Instance }

// Suite implements ceremony.Products.
func (r readiness) Suite(ctx context.Context, id string) (string, error) {
	p, err := r.i.db.Product(ctx, id)
	if errors.Is(err, product.ErrNotFound) {
		return "", fault.New(fault.NotFound, "product.unknown", "no product "+id, "see `hallmark product list`")
	}
	return p.Suite, err
}

// All implements ceremony.Products.
func (r readiness) All(ctx context.Context) ([]string, error) {
	ps, err := r.i.db.Products(ctx)
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = p.ID
	}
	return out, err
}

// Bundle implements ceremony.Products.
func (r readiness) Bundle(ctx context.Context, id string) (*wire.Bundle, error) {
	b, err := r.i.db.Devices().Bundle(ctx, id, 0)
	if errors.Is(err, device.ErrNotFound) {
		return nil, nil //nolint:nilnil // that there is none is an answer
	}
	if err != nil {
		return nil, err
	}
	return &b.Wire, nil
}

// HasCA implements ceremony.Products.
func (r readiness) HasCA(id string) bool {
	_, err := r.i.auth.held.Issuing(profile.Product, id, time.Now())
	return err == nil
}

// Publish implements ceremony.Products.
func (r readiness) Publish(ctx context.Context, caller access.Caller, envelope []byte) error {
	_, err := r.i.device.PublishBundle(ctx, caller, envelope)
	return err
}
