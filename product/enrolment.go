package product

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// EnrolMode says who lets a product's devices in.
type EnrolMode string

// The modes. A mode that is neither lets nobody in without a person.
const (
	Automatic EnrolMode = "automatic" // the production record does
	Approved  EnrolMode = "approved"  // a person does, besides
)

// Enrolment says how devices of a product are let in.
type Enrolment struct {
	Mode EnrolMode `json:"mode" enum:"automatic,approved" doc:"approved: a person lets each request with a factory identity in; renewals go on by themselves"`
	// ServerKeys allows keys that are made here and travel to the device (RFC 7030 §4.4): for devices that cannot make good ones.
	ServerKeys bool `json:"server_keys" required:"false" doc:"allow serverkeygen; a key that travelled is weaker than one the device made, and a fact says so of each"`
	// Binding demands that each request proves to come over the line it comes by (RFC 7030 §3.5), so that nobody between can pass one on.
	Binding bool `json:"binding" required:"false" doc:"demand that a request names the TLS connection it comes by"`
	// OCSP has the certificates that devices are given name a responder, which answers for each of them (RFC 6960), beside the lists that name all.
	OCSP bool `json:"ocsp" required:"false" doc:"have certificates from now on name this instance as their OCSP responder"`
}

// EnrolmentChange is the data of the fact product.enrolment.changed.
type EnrolmentChange struct {
	Product string `json:"product"`
	Enrolment
}

func (e Enrolment) check() error {
	if e.Mode != Automatic && e.Mode != Approved {
		return fmt.Errorf("enrolment %q: want %s or %s", e.Mode, Automatic, Approved)
	}
	return nil
}

// SetEnrolment says how devices of product id are let in from now on.
func (s *Service) SetEnrolment(ctx context.Context, caller access.Caller, id string, e Enrolment) (Product, error) {
	if err := s.guard.Check(ctx, caller, access.ProductEnrolment, resource(id)); err != nil {
		return Product{}, err
	}
	if err := e.check(); err != nil {
		return Product{}, fault.Newf(fault.Invalid, "product.enrolment", "product %q: %w", id, err).With("see `hallmark product enrolment`")
	}
	p, err := s.store.Product(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return Product{}, unknown(id)
	}
	if err != nil || p.Enrolment == e {
		return p, err
	}
	data, err := json.Marshal(EnrolmentChange{id, e})
	if err != nil {
		return Product{}, err
	}
	p.Enrolment = e
	return p, s.store.SetEnrolment(ctx, id, e, ledger.New(ledger.KindEnrolmentChanged, s.now(), caller.ID, id, nil, data))
}

func unknown(id string) error {
	return fault.New(fault.NotFound, "product.unknown", fmt.Sprintf("no product %q", id), "see `hallmark product list`")
}
