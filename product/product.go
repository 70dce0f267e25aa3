// Package product is what a maker makes: products, their hardware revisions, how their software may change, and until when they
// are supported.
//
// Stage 1, before build. Everything later is scoped by a product: orders, releases, devices, permissions. What it guarantees: a
// product's identity, update model and suite never change once it exists, because devices in the field were built on them;
// hardware revisions are only added; and the end of support, and how devices are let in, are a fact each time they are set. It
// trusts nobody but the guard.
package product

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Product is one product.
type Product struct {
	ID           string           `json:"id"` // lower-case letters, digits, '-', '.'
	OEM          string           `json:"oem"`
	Name         string           `json:"name"`
	Hardware     []string         `json:"hardware"` // revisions
	Model        wire.UpdateModel `json:"update_model"`
	Suite        string           `json:"suite"`          // suite.ID
	EndOfSupport time.Time        `json:"end_of_support"` // devices are marked from here on
	Created      time.Time        `json:"created"`
	Enrolment    Enrolment        `json:"enrolment,omitzero" required:"false"` // how its devices are let in; left out: automatic
	Isolation    []wire.Layer     `json:"isolation,omitempty" required:"false" doc:"what has to hold all of a device's programs, or its evidence is bad; left out: nothing is asked"`
	Parameters   wire.Schema      `json:"parameters,omitempty" required:"false" doc:"what its devices can be told; a release has them as they are when it is proposed"`
	BundleDue    int              `json:"bundle_due_days,omitempty" required:"false" minimum:"0" maximum:"3650" doc:"how long a device may stay behind a trust bundle before it is a finding; 0: 14 days"`
}

// Errors of the store.
var (
	ErrNotFound = errors.New("product not found")
	ErrExists   = errors.New("product exists already")
)

// Store keeps products. Writes are durable, with their fact, when they return nil.
type Store interface {
	// PutProduct returns ErrExists for an ID that is taken.
	PutProduct(ctx context.Context, p Product, fact ledger.Fact) error
	// Product returns ErrNotFound for an ID it does not hold.
	Product(ctx context.Context, id string) (Product, error)
	// Products gives all, by ID.
	Products(ctx context.Context) ([]Product, error)
	// SetEnrolment returns ErrNotFound for an ID it does not hold.
	SetEnrolment(ctx context.Context, id string, e Enrolment, fact ledger.Fact) error
	// SetIsolation returns ErrNotFound for an ID it does not hold.
	SetIsolation(ctx context.Context, id string, layers []wire.Layer, fact ledger.Fact) error
	// SetSchema returns ErrNotFound for an ID it does not hold.
	SetSchema(ctx context.Context, id string, schema wire.Schema, fact ledger.Fact) error
	// SetBundleDue returns ErrNotFound for an ID it does not hold.
	SetBundleDue(ctx context.Context, id string, days int, fact ledger.Fact) error
}

// Service is the verbs on products.
type Service struct {
	guard  *access.Guard
	store  Store
	suites []string
	now    func() time.Time
}

// New makes the service; suites are the IDs a product may name.
func New(guard *access.Guard, store Store, suites []string) *Service {
	return &Service{guard: guard, store: store, suites: suites, now: time.Now}
}

func resource(id string) access.Resource {
	return access.Resource{Type: "product", ID: id, Product: id}
}

// Create adds a product.
func (s *Service) Create(ctx context.Context, caller access.Caller, p Product) (Product, error) {
	if err := s.guard.Check(ctx, caller, access.ProductCreate, resource(p.ID)); err != nil {
		return Product{}, err
	}
	p.Created = s.now().UTC().Truncate(time.Second)
	p.EndOfSupport = p.EndOfSupport.UTC().Truncate(time.Second)
	if p.Enrolment.Mode == "" {
		p.Enrolment.Mode = Automatic
	}
	p.Parameters = p.Parameters.Canonical()
	if err := s.check(p); err != nil {
		return Product{}, fault.Newf(fault.Invalid, "product.invalid", "product %q: %w", p.ID, err).With("correct it, and create it again")
	}
	doc, err := json.Marshal(p)
	if err != nil {
		return Product{}, err
	}
	err = s.store.PutProduct(ctx, p, ledger.New(ledger.KindProductCreated, p.Created, caller.ID, p.ID, nil, doc))
	if errors.Is(err, ErrExists) {
		return Product{}, fault.New(fault.Conflict, "product.exists", fmt.Sprintf("product %q exists already", p.ID), "choose another ID")
	}
	return p, err
}

func (s *Service) check(p Product) error {
	switch {
	case !wire.ValidName(p.ID) || !wire.ValidName(p.OEM):
		return errors.New("ID and OEM are lower-case letters, digits, '-' and '.', at most 64")
	case p.Name == "" || len(p.Name) > 128:
		return errors.New("it needs a name of at most 128 bytes")
	case len(p.Hardware) == 0 || len(p.Hardware) > 64:
		return errors.New("it needs 1 to 64 hardware revisions")
	case p.Model != wire.ModelOTP && p.Model != wire.ModelBlob && p.Model != wire.ModelAsset:
		return fmt.Errorf("update model %q", p.Model)
	case !slices.Contains(s.suites, p.Suite):
		return fmt.Errorf("suite %q is not one of %v", p.Suite, s.suites)
	case !p.EndOfSupport.After(p.Created):
		return errors.New("its end of support must be said, and lie ahead")
	}
	for i, h := range p.Hardware {
		if h == "" || len(h) > 64 || slices.Contains(p.Hardware[:i], h) {
			return fmt.Errorf("hardware revision %q", h)
		}
	}
	if err := checkLayers(p.Isolation); err != nil {
		return err
	}
	return errors.Join(p.Enrolment.check(), checkSchema(p.Parameters))
}

// Get gives one product.
func (s *Service) Get(ctx context.Context, caller access.Caller, id string) (Product, error) {
	if err := s.guard.Check(ctx, caller, access.ProductRead, resource(id)); err != nil {
		return Product{}, err
	}
	p, err := s.store.Product(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return Product{}, unknown(id)
	}
	return p, err
}

// List gives the products the caller may see, by ID.
func (s *Service) List(ctx context.Context, caller access.Caller) ([]Product, error) {
	scope, err := s.guard.Within(ctx, caller, access.ProductRead, "product", "", "")
	if err != nil {
		return nil, err
	}
	all, err := s.store.Products(ctx)
	if err != nil || len(scope) == 0 {
		return all, err
	}
	var mine []string
	for _, entry := range scope {
		mine = append(mine, access.In("", entry).Product)
	}
	return slices.DeleteFunc(all, func(p Product) bool { return !slices.Contains(mine, p.ID) }), nil
}
