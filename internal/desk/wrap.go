package desk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/failpoint"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
)

// Wrapped is an order that was wrapped here.
type Wrapped struct {
	Order        factory.Order
	Registration string // file: for the instance; it can be copied from here again
}

// Wrap makes an order of spec and writes its file for the station to out. The trust bundle is the one that is pinned. The registration is kept here before the
// file is there: a cut between leaves a registration of an order that nobody has.
func (d *Desk) Wrap(ctx context.Context, keys Keys, spec factory.OrderSpec, out string, now time.Time) (Wrapped, error) {
	return d.wrap(ctx, keys, spec, nil, out, now)
}

func (d *Desk) wrap(ctx context.Context, keys Keys, spec factory.OrderSpec, of *wire.RegisteredMaster, out string, now time.Time) (Wrapped, error) {
	p, err := d.ready(spec.Product, now)
	if err != nil {
		return Wrapped{}, err
	}
	spec.Bundle = p.envelope
	ca, _, err := d.caSigner(keys, p.ID, p.CA.RawSubjectPublicKeyInfo)
	if err != nil {
		return Wrapped{}, err
	}
	a, err := pki.NewAuthority(profile.Product, p.CA, ca)
	if err != nil {
		return Wrapped{}, err
	}
	key, err := d.key(keys, d.orderKey(), false)
	if err != nil {
		return Wrapped{}, err
	}
	w, err := factory.Wrap(ctx, factory.Maker{OEM: d.Of.OEM, Root: d.Of.Root, OrderKey: key, CA: issuer{a, d.Of.Root, now}}, spec, now)
	if err != nil {
		return Wrapped{}, err
	}
	w.Master = of
	reg, err := w.Registration(d.Name, spec.Descriptor, d.Of.SealKey, key)
	if err != nil {
		return Wrapped{}, err
	}
	if err := d.claim(w.Order.ID); err != nil {
		return Wrapped{}, err
	}
	if err := d.write("desk.registration", reg, 0o600, orders, w.Order.ID, "registration"); err != nil {
		return Wrapped{}, err
	}
	if err := durable.Write(out, 0o600, func(to io.Writer) error { return w.WriteFile(ctx, to) }); err != nil {
		return Wrapped{}, fmt.Errorf("order %s: its file was not written; order anew under another ID: %w", w.Order.ID, err)
	}
	failpoint.Hit("desk.order")
	return Wrapped{w.Order, d.RegistrationFile(w.Order.ID)}, nil
}

// RegistrationFile is where the registration of an order is.
func (d *Desk) RegistrationFile(order string) string { return d.path(orders, order, "registration") }

// claim takes an order's ID for good.
func (d *Desk) claim(id string) error {
	if err := durable.MkdirAll(d.path(orders), 0o700); err != nil {
		return err
	}
	err := os.Mkdir(d.path(orders, id), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return conflict("order.exists", fmt.Sprintf("order %q was wrapped here already, or begun", id), "choose another ID")
	}
	if err != nil {
		return err
	}
	failpoint.Hit("desk.claimed")
	return durable.SyncDir(d.path(orders))
}

// maxBehind is how far the clock may be behind what it has seen signed.
const maxBehind = 5 * time.Minute

// ready gives a product of which orders can be wrapped now.
func (d *Desk) ready(id string, now time.Time) (Product, error) {
	p, err := d.product(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return p, fault.New(fault.NotFound, "desk.product", fmt.Sprintf("product %.80q is not ordered at this desk", id), "ask for a CA for it: `hallmark desk request`")
	case err != nil:
		return p, err
	case p.CA == nil:
		return p, conflict("desk.ungranted", "product "+id+" has no CA here yet", "have the request granted, and take the answer in: `hallmark desk install`")
	case p.Bundle == nil:
		return p, conflict("desk.bundle", "product "+id+" has no trust bundle here yet", "pin it: `hallmark desk trust`")
	}
	if at := time.Unix(int64(min(p.Bundle.Issued, 1<<40)), 0); now.Add(maxBehind).Before(at) || now.Before(p.CA.NotBefore) {
		return p, conflict("desk.clock", fmt.Sprintf("the clock says %s, before the trust bundle or the CA was made", now.UTC().Format(time.RFC3339)), "set this machine's clock")
	}
	if !now.Before(p.CA.NotAfter) {
		return p, conflict("desk.ca-ended", fmt.Sprintf("the CA of product %s ended on %s", id, p.CA.NotAfter.Format(time.DateOnly)), "ask for another one: `hallmark desk request --anew`")
	}
	return p, nil
}

// Orders gives the IDs of the orders that were wrapped here, by ID.
func (d *Desk) Orders() ([]string, error) {
	list, err := os.ReadDir(d.path(orders))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, e := range list {
		if _, err := os.Stat(d.RegistrationFile(e.Name())); err == nil {
			out = append(out, e.Name())
		}
	}
	return out, nil
}
