package factory

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Registration is what an instance has to be told of an order that was wrapped elsewhere: signed with the key that signed the order, and its secrets
// sealed to the instance's key. descriptor is the station's, as in the order's spec.
func (w *Wrapped) Registration(desk string, descriptor, to []byte, key crypto.Signer) ([]byte, error) {
	return wire.SignRegistration(wire.Registration{
		Desk: desk, Order: w.Order.Envelope, Station: descriptor, ReleaseSum: w.Order.ReleaseSum, ParamsSum: w.Order.ParamsSum,
		Master: w.Master,
	}, wire.RegistrationSecret{Seed: w.content.TicketSeed, Return: w.ret}, to, key)
}

// registering is one registration on its way in.
type registering struct {
	Intake
	s       *Service
	caller  access.Caller
	desk    Desk
	stock   stock
	missing string // of it, which was never published here
	reg     wire.Registration
	order   wire.Order
	station wire.Station
	release wire.Release
	secret  wire.RegistrationSecret
}

// Register takes in an order that a desk has wrapped. The same again changes nothing, and it may come late: records are what it has to be here for. Of
// a desk that was removed it takes two people, and so does one of what is not ordered any more (stock.judge): when the order was made is the desk's word alone.
func (s *Service) Register(ctx context.Context, caller access.Caller, file []byte) (Order, error) {
	claim, bad := wire.ReadRegistration(file)
	h, none := claimed(claim.Order)
	bad = cmp.Or(bad, none)
	d, lookup := s.deskOf(ctx, claim.Desk)
	g := &registering{s: s, caller: caller, desk: d}
	old, there := s.c.Store.Order(ctx, h.ID)
	res := resource(h.ID, h.Product)
	res.Grave = !d.Removed.IsZero()
	if lookup == nil && bad == nil && errors.Is(there, ErrNotFound) { // one that is here was taken in when that was decided
		var late bool
		late, lookup = g.late(ctx, h)
		res.Grave = res.Grave || late
	}
	if err := s.c.Guard.Check(ctx, caller, access.OrderCreate, res); err != nil {
		return Order{}, err
	}
	if bad != nil {
		return Order{}, fault.Newf(fault.Invalid, "registration.invalid", "no registration of an order: %w", bad).With("take the file as the desk wrote it")
	}
	if lookup != nil {
		return Order{}, lookup
	}
	g.Intake = *s.c.Intake
	if err := g.verify(ctx, file); err != nil {
		return Order{}, err
	}
	switch {
	case errors.Is(there, ErrNotFound):
		return g.take(ctx)
	case there != nil:
		return Order{}, there
	default:
		return g.known(ctx, old)
	}
}

// late says whether the order is of what is not ordered any more.
func (g *registering) late(ctx context.Context, h wire.OrderHeader) (bool, error) {
	if err := g.find(ctx, h); err != nil || g.missing != "" {
		return false, err
	}
	_, _, late, err := g.stock.judge(h.Product, h.Hardware)
	return late != nil && err == nil, nil // what is wrong is told when the desk's signature was found good
}

// claimed is what an order says of itself, whoever signed it.
func claimed(envelope []byte) (wire.OrderHeader, error) {
	env, err := wire.Parse1(wire.TypeOrder, envelope)
	if err != nil {
		return wire.OrderHeader{}, err
	}
	o, err := wire.DecodeOrder(env.Payload)
	return o.Header, err
}

func (s *Service) deskOf(ctx context.Context, name string) (Desk, error) {
	k, err := s.intake()
	if err != nil {
		return Desk{}, err
	}
	d, err := k.Store.Desk(ctx, name)
	return d, noDesk(name, err)
}

// known is for an order that is here. One that came back from the log alone has lost its secrets, and gets them again: a desk's registrations are a backup.
func (g *registering) known(ctx context.Context, old Order) (Order, error) {
	if old.Desk != g.desk.Name || !bytes.Equal(old.Envelope, g.reg.Order) {
		return Order{}, fault.New(fault.Conflict, "order.exists", fmt.Sprintf("there is another order %q", old.ID), "the desk wraps it anew under another ID, and the station destroys the file that it has")
	}
	if len(old.Secret) != 0 {
		return old.shown(), nil
	}
	row, err := g.row()
	if err != nil {
		return Order{}, err
	}
	row.UID = old.UID
	if old.ClosedUID != ([16]byte{}) { // it was ended, and not only taken for it
		row.State, row.Closed, row.ClosedUID = old.State, old.Closed, old.ClosedUID
	}
	if err := g.Store.RestoreOrder(ctx, row); err != nil && !errors.Is(err, ErrChanged) {
		return Order{}, err
	}
	return row.shown(), nil
}

// row is the order as it is kept.
func (g *registering) row() (Order, error) {
	row := orderOf(g.order, g.station, g.stock.bundle, g.release, g.reg.ReleaseSum, g.reg.ParamsSum)
	row.Desk, row.Envelope = g.desk.Name, g.reg.Order
	if m := g.reg.Master; m != nil {
		row.Master = &MasterRef{Product: row.Product, Hardware: g.order.Header.Hardware, Revision: m.Revision, Digest: hex.EncodeToString(m.Digest)}
	}
	return g.s.sealed(row, g.secret.Seed, g.secret.Return)
}

func denied(code, format string, args ...any) error {
	return fault.Newf(fault.Denied, code, format, args...).With("see which desk wrote it: `hallmark desk list`")
}

// verify checks everything that comes in, before anything is believed for it.
func (g *registering) verify(ctx context.Context, file []byte) error {
	key, err := wire.ParseKey(g.desk.OrderKey)
	if err != nil {
		return fmt.Errorf("desk %s: %w", g.desk.Name, err)
	}
	if g.reg, g.order, err = wire.VerifyRegistration(file, key); err != nil {
		return denied("registration.forged", "registration, by the order key of desk %s: %w", g.desk.Name, err)
	}
	for _, check := range []func(context.Context) error{g.whose, g.when, g.what, g.where, g.secrets} {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// whose checks that the order is ours, of a product of the desk, and under a CA that is its own.
func (g *registering) whose(context.Context) error {
	h := g.order.Header
	switch {
	case h.OEM != g.s.c.OEM:
		return denied("registration.oem", "order %s is of OEM %q", h.ID, h.OEM)
	case !slices.Contains(g.desk.Products, h.Product):
		return fault.New(fault.Denied, "registration.product", fmt.Sprintf("desk %s may not order product %q", g.desk.Name, h.Product), "have a CA for it granted to the desk, and add the desk again")
	case len(h.Chain) != 3 || !slices.ContainsFunc(slices.Concat(g.desk.CAs, g.desk.Before), func(der []byte) bool { return bytes.Equal(der, h.Chain[1]) }):
		return denied("registration.ca", "the CA of order %s is not by a product CA of desk %s", h.ID, g.desk.Name)
	}
	if !bytes.Equal(h.Chain[2], g.s.c.Root) {
		return denied("registration.ca", "the chain of order %s does not end in this OEM's root", h.ID)
	}
	ca, err := x509.ParseCertificate(h.Chain[0])
	if err != nil || !bytes.Equal(ca.RawSubjectPublicKeyInfo, g.order.Key.SPKI) {
		return denied("registration.ca", "the CA of order %s is not of the key that was wrapped to the station", h.ID)
	}
	// A CA that stood under two orders would let the devices of one be taken for the other's.
	oem, product := idevid.SubjectOEM(ca)
	if want := idevid.OrderName(h.ID, hex.EncodeToString(h.Station)); oem != h.OEM || product != h.Product || ca.Subject.CommonName != want {
		return denied("registration.ca", "the CA of order %s is %q: want %q of this OEM and product", h.ID, ca.Subject, want)
	}
	return nil
}

// when checks the times: an order that was made after its desk was removed is a thief's.
func (g *registering) when(context.Context) error {
	h, now := g.order.Header, g.s.c.Now()
	made := unix(h.Created)
	if h.Created == 0 || made.After(now.Add(ClockSkew)) {
		return fault.New(fault.Invalid, "registration.time", fmt.Sprintf("order %s says that it was made at %s, and here it is %s", h.ID, made.Format(time.RFC3339), now.UTC().Format(time.RFC3339)), "set the desk's clock, and wrap it anew")
	}
	if r := g.desk.Removed; !r.IsZero() && !made.Before(r) {
		return fault.New(fault.Denied, "desk.removed", fmt.Sprintf("order %s was made at %s, and desk %s was removed at %s", h.ID, made.Format(time.RFC3339), g.desk.Name, r.Format(time.RFC3339)),
			"if nobody of yours wrapped it, whoever has the desk did: tell the station, and see what to do about a stolen desk in docs/guide/desk.md")
	}
	return nil
}

// find looks up what is put on the devices, once.
func (g *registering) find(ctx context.Context, h wire.OrderHeader) error {
	if g.stock.release != nil || g.missing != "" {
		return nil
	}
	k, missing, err := g.s.stock(ctx, h.Product, [32]byte(h.Bundle), [32]byte(h.Release))
	if errors.Is(err, ErrNotFound) {
		g.missing = missing
		return nil
	}
	g.stock = k
	return err
}

// what checks what is put on the devices.
func (g *registering) what(ctx context.Context) error {
	h := g.order.Header
	if err := g.find(ctx, h); err != nil {
		return err
	}
	if g.missing != "" {
		return fault.New(fault.Denied, "registration.unpublished", fmt.Sprintf("%s of order %s was never published here", g.missing, h.ID), "publish it first, if it is yours")
	}
	r, _, _, err := g.stock.judge(h.Product, h.Hardware) // that it is late was the guard's to weigh
	if err != nil {
		return denied("registration.release", "order %s: %w", h.ID, err)
	}
	root, err := wire.RootDigest(g.stock.bundle)
	if err != nil {
		return err
	}
	if r.Counter != h.Counter || !bytes.Equal(root[:], h.Root) {
		return denied("registration.release", "order %s is not for what its release and trust bundle are for", h.ID)
	}
	g.release = r
	return nil
}

// where checks the station.
func (g *registering) where(context.Context) (err error) {
	h := g.order.Header
	if g.station, err = wire.VerifyStation(g.reg.Station, [32]byte(h.Station)); err != nil {
		return denied("registration.station", "station of order %s: %w", h.ID, err)
	}
	if g.station.OEM != g.s.c.OEM || g.station.Serial != h.HSMSerial {
		return denied("registration.station", "station %s is not the one that order %s is for", g.station.Name, h.ID)
	}
	return nil
}

// secrets opens what was sealed to us, and checks that it is the order's.
func (g *registering) secrets(context.Context) error {
	private, err := g.s.c.SealKeys.Private(g.reg.Key)
	if errors.Is(err, ErrNotFound) {
		return fault.New(fault.Denied, "registration.key", fmt.Sprintf("the registration is sealed to key %x, which is not here", g.reg.Key), "it is for another instance, or the key directory was not restored whole")
	}
	if err != nil {
		return err
	}
	defer clear(private)
	if g.secret, err = g.reg.Open(private); err != nil {
		return denied("registration.sealed", "%w", err)
	}
	ret, err := ecdh.P256().NewPrivateKey(g.secret.Return)
	if err != nil || !bytes.Equal(ret.PublicKey().Bytes(), g.order.Header.ReturnKey) {
		return denied("registration.sealed", "the return key is not the one of order %s", g.order.Header.ID)
	}
	return nil
}

// take stores the order with its CA, which is believed then.
func (g *registering) take(ctx context.Context) (Order, error) {
	id, quota := g.order.Header.ID, uint64(g.order.Header.Quota)
	over := fault.New(fault.Denied, "desk.quota", fmt.Sprintf("order %s is for %d devices, and desk %s may order %d, of which %d are", id, quota, g.desk.Name, g.desk.Quota, g.desk.Ordered),
		"if they are wanted, two people raise it: `hallmark desk add --quota`; else tell the station")
	if g.desk.Ordered+quota > uint64(g.desk.Quota) {
		return Order{}, over
	}
	row, err := g.row()
	if err != nil {
		return Order{}, err
	}
	ca, err := g.CAs.OrderCA(ctx, g.order.Header.Chain[0])
	if err != nil {
		return Order{}, err
	}
	created := ledger.New(ledger.KindOrderCreated, g.s.c.Now().UTC().Truncate(time.Second), g.caller.ID, id, nil, row.Envelope)
	row.UID = created.UID
	facts := []ledger.Fact{created}
	if row.Master != nil {
		data, err := json.Marshal(MasterUsed{*row.Master, g.desk.Name})
		if err != nil {
			return Order{}, err
		}
		facts = append(facts, ledger.New(ledger.KindOrderMastered, created.At, g.caller.ID, id, nil, data))
	}
	switch err := g.Store.RegisterOrder(ctx, row, g.desk, ca, facts...); {
	case errors.Is(err, ErrDeskQuota):
		return Order{}, over
	case errors.Is(err, ErrExists): // at the same moment
		old, err := g.s.c.Store.Order(ctx, id)
		if err != nil {
			return Order{}, err
		}
		return g.known(ctx, old)
	case errors.Is(err, ErrChanged):
		return Order{}, fault.New(fault.Conflict, "desk.changed", fmt.Sprintf("desk %s was changed or removed meanwhile", g.desk.Name), "look at it, and register again")
	case err != nil:
		return Order{}, err
	}
	ca.Believe()
	return row.shown(), nil
}
