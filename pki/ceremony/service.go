package ceremony

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/wire"
)

// Held is a ceremony whose transcript is on record.
type Held struct {
	Digest   string    `json:"digest"` // SHA-256 of the signed transcript, hex
	UID      string    `json:"uid"`    // of the fact, hex
	Name     string    `json:"name"`
	At       time.Time `json:"at"` // when it was submitted
	Envelope []byte    `json:"envelope"`
}

// Asking is what an instance has asked of a ceremony for a product.
type Asking struct {
	Product string
	Request []byte // wire.CeremonyRequest
	At      time.Time
}

// Errors of the store.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("it is on record already")
)

// Store keeps transcripts and requests. Writes are durable, with their fact, when they return nil.
type Store interface {
	// PutCeremony returns ErrExists for a transcript that it holds.
	PutCeremony(ctx context.Context, h Held, fact ledger.Fact) error
	// Ceremonies gives them by digest, from behind after on, at most limit.
	Ceremonies(ctx context.Context, after string, limit int) ([]Held, error)
	// PutAsking replaces what was asked before for the product.
	PutAsking(ctx context.Context, a Asking) error
	// Asking returns ErrNotFound when nothing was asked for the product.
	Asking(ctx context.Context, product string) (Asking, error)
}

// CAs makes keys for CAs, and takes in what the root has signed over them; pki.Service does.
type CAs interface {
	RequestCA(ctx context.Context, caller access.Caller, r wire.CARequest) ([]byte, error)
	InstallCA(ctx context.Context, caller access.Caller, grant []byte) (pki.CA, error)
}

// Products knows what products there are, and how far they have come.
type Products interface {
	// Suite gives the product's suite; fault NotFound when there is no such product.
	Suite(ctx context.Context, product string) (string, error)
	// All lists the products by ID.
	All(ctx context.Context) ([]string, error)
	// Bundle gives the product's trust bundle; nil: it has none.
	Bundle(ctx context.Context, product string) (*wire.Bundle, error)
	// HasCA says whether this instance holds a CA that signs the product's orders.
	HasCA(product string) bool
	// Publish publishes a signed trust bundle for caller.
	Publish(ctx context.Context, caller access.Caller, envelope []byte) error
}

// Config is what a Service works with.
type Config struct {
	Guard interface {
		Check(ctx context.Context, caller access.Caller, action access.Action, res access.Resource) error
	}
	Store    Store
	CAs      CAs
	Products Products
	OEM      string
	Instance string
	Now      func() time.Time // nil: time.Now
}

// Service is the verbs: ceremonies on record, and what a product needs from one.
type Service struct{ c Config }

// NewService makes the service.
func NewService(c Config) *Service {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Service{c}
}

// maxNames bounds what is said of people beside a transcript.
const maxNames = 8 << 10

// Submit puts a ceremony's transcript on record. Who signed it must be known here: a threshold of a product's approvers. names are the
// whole names of those who took part, by label; they are kept beside the ledger, and may be left out.
func (s *Service) Submit(ctx context.Context, caller access.Caller, envelope []byte, names map[string]string) (Held, error) {
	if err := s.c.Guard.Check(ctx, caller, access.CeremonySubmit, access.Resource{Type: "ceremony"}); err != nil {
		return Held{}, err
	}
	t, err := wire.OpenTranscript(envelope)
	if err != nil {
		return Held{}, fault.Newf(fault.Invalid, "ceremony.transcript", "%w", err).With("take the transcript as the ceremony wrote it")
	}
	switch {
	case t.Rehearsal:
		return Held{}, fault.New(fault.Invalid, "ceremony.rehearsal", "this is the transcript of a rehearsal", "hold the ceremony: `hallmark ceremony run`")
	case t.OEM != s.c.OEM:
		return Held{}, fault.New(fault.Denied, "ceremony.foreign", fmt.Sprintf("the ceremony was held for %s, this instance is of %s", t.OEM, s.c.OEM), "submit it there")
	}
	if err := s.known(ctx, t); err != nil {
		return Held{}, err
	}
	h, f, err := Record(t, envelope, names, caller.ID, s.c.Now())
	if err != nil {
		return Held{}, err
	}
	if err := s.c.Store.PutCeremony(ctx, h, f); errors.Is(err, ErrExists) {
		return Held{}, fault.New(fault.Conflict, "ceremony.known", fmt.Sprintf("ceremony %s is on record already", t.Ceremony), "see `hallmark ceremony list`")
	} else if err != nil {
		return Held{}, err
	}
	return h, nil
}

// Record makes the fact of a ceremony.
func Record(t wire.Transcript, envelope []byte, names map[string]string, actor string, now time.Time) (Held, ledger.Fact, error) {
	f := ledger.New(ledger.KindCeremonyHeld, now.UTC(), actor, t.Ceremony, nil, envelope)
	if len(names) > 0 {
		for label, n := range names {
			if !line(n, 128) || !hasLabel(t, label) {
				return Held{}, f, fault.New(fault.Invalid, "ceremony.names", fmt.Sprintf("name of %q: want one line, of somebody who took part", label), "take them from the script")
			}
		}
		data, err := json.Marshal(map[string]any{"people": names})
		if err != nil || len(data) > maxNames {
			return Held{}, f, fault.New(fault.Invalid, "ceremony.names", "the names are too long", "shorten them")
		}
		f.Private = data
	}
	sum := sha256.Sum256(envelope)
	return Held{Digest: hex.EncodeToString(sum[:]), UID: hex.EncodeToString(f.UID[:]), Name: t.Ceremony, At: f.At, Envelope: envelope}, f, nil
}

func hasLabel(t wire.Transcript, label string) bool {
	for _, p := range t.People {
		if p.Label == label {
			return true
		}
	}
	return false
}

// known refuses a transcript that was signed by people whom nobody here knows: anybody can write one.
func (s *Service) known(ctx context.Context, t wire.Transcript) error {
	ids, err := s.c.Products.All(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		b, err := s.c.Products.Bundle(ctx, id)
		if err != nil {
			return err
		}
		if b == nil {
			continue
		}
		n := uint(0)
		for _, p := range t.People {
			for _, k := range b.Root.Keys {
				if len(p.SPKI) > 0 && bytes.Equal(k, p.SPKI) {
					n++
				}
			}
		}
		if n >= b.Root.Threshold {
			return nil
		}
	}
	return fault.New(fault.Denied, "ceremony.unknown", "too few of those who signed the transcript are approvers of a product here",
		"approvers of the current trust bundle take part in a ceremony, as many as their threshold")
}

// Ceremonies lists the transcripts on record, by digest, from behind after on, at most limit. They are public.
func (s *Service) Ceremonies(ctx context.Context, caller access.Caller, after string, limit int) ([]Held, error) {
	if err := s.c.Guard.Check(ctx, caller, access.LedgerRead, access.Resource{Type: "ceremony"}); err != nil {
		return nil, err
	}
	return s.c.Store.Ceremonies(ctx, after, limit)
}

// Readiness is what a product still needs from a key ceremony before it can be made.
type Readiness struct {
	Product string   `json:"product"`
	Ready   bool     `json:"ready"`
	Missing []string `json:"missing" doc:"ca: a CA that signs its orders; bundle: its first trust bundle"`
	Asked   bool     `json:"asked" doc:"a ceremony was asked for it, and has not answered"`
	Remedy  string   `json:"remedy,omitempty"`
}

// What a product may be missing.
const (
	MissingCA     = "ca"
	MissingBundle = "bundle"
)

// Readiness says what a product lacks.
func (s *Service) Readiness(ctx context.Context, caller access.Caller, product string) (Readiness, error) {
	if err := s.c.Guard.Check(ctx, caller, access.ProductRead, access.Resource{Type: "product", ID: product, Product: product}); err != nil {
		return Readiness{}, err
	}
	return s.readiness(ctx, product)
}

func (s *Service) readiness(ctx context.Context, product string) (Readiness, error) {
	r := Readiness{Product: product, Missing: []string{}}
	if _, err := s.c.Products.Suite(ctx, product); err != nil {
		return r, err
	}
	if !s.c.Products.HasCA(product) {
		r.Missing = append(r.Missing, MissingCA)
	}
	b, err := s.c.Products.Bundle(ctx, product)
	if err != nil {
		return r, err
	}
	if b == nil {
		r.Missing = append(r.Missing, MissingBundle)
	}
	if r.Ready = len(r.Missing) == 0; r.Ready {
		return r, nil
	}
	switch _, err := s.c.Store.Asking(ctx, product); {
	case err == nil:
		r.Asked = true
		r.Remedy = fmt.Sprintf("bring the ceremony's answer: `hallmark product activate %s FILE`", product)
	case errors.Is(err, ErrNotFound):
		r.Remedy = fmt.Sprintf("ask a key ceremony: `hallmark product request %s`", product)
	default:
		return r, err
	}
	return r, nil
}

// Request asks a ceremony for what a product lacks: it makes the key of its CA, and drafts its first trust bundle with the approvers and the
// online keys of another product, like; empty when the others have the same approvers. Asked again, it gives the same request.
func (s *Service) Request(ctx context.Context, caller access.Caller, product, like string) ([]byte, error) {
	if err := s.c.Guard.Check(ctx, caller, access.InstanceManage, access.Resource{Type: "product", ID: product, Product: product}); err != nil {
		return nil, err
	}
	r, err := s.readiness(ctx, product)
	if err != nil {
		return nil, err
	}
	if r.Ready {
		return nil, fault.New(fault.Conflict, "product.ready", fmt.Sprintf("product %q has its CA and its trust bundle", product), "a further CA is asked for by `hallmark ca request product --product "+product+"`")
	}
	if r.Asked {
		had, err := s.c.Store.Asking(ctx, product)
		return had.Request, err
	}
	now := s.c.Now().UTC()
	out := wire.CeremonyRequest{OEM: s.c.OEM, Instance: s.c.Instance, Purpose: "product " + product, Issued: uint64(max(0, now.Unix()))}
	for _, missing := range r.Missing {
		if missing == MissingBundle {
			if out.Draft, err = s.draft(ctx, product, like, now); err != nil {
				return nil, err
			}
		}
	}
	if r.Missing[0] == MissingCA { // last, because it makes a key
		env, err := s.c.CAs.RequestCA(ctx, caller, wire.CARequest{Role: wire.CAProduct, Product: product, Purpose: out.Purpose})
		if err != nil {
			return nil, err
		}
		out.CAs = [][]byte{env}
	}
	data, err := wire.EncodeCeremonyRequest(out)
	if err != nil {
		return nil, err
	}
	return data, s.c.Store.PutAsking(ctx, Asking{Product: product, Request: data, At: now})
}

// draft is the first trust bundle of a product, after that of another.
func (s *Service) draft(ctx context.Context, product, like string, now time.Time) (*wire.Bundle, error) {
	suite, err := s.c.Products.Suite(ctx, product)
	if err != nil {
		return nil, err
	}
	b, err := s.model(ctx, product, like)
	if err != nil {
		return nil, err
	}
	b.Version, b.Product, b.Floor, b.Issued = 1, product, 0, uint64(max(0, now.Unix()))
	b.Suites = append(slices.DeleteFunc(slices.Clone(b.Suites), func(s string) bool { return s == suite }), suite) // its keys are another's: the last is the one wanted
	return b, nil
}

// model finds the trust bundle of another product that a first one is made after.
func (s *Service) model(ctx context.Context, product, like string) (*wire.Bundle, error) {
	ids := []string{like}
	if like == "" {
		var err error
		if ids, err = s.c.Products.All(ctx); err != nil {
			return nil, err
		}
	}
	var found *wire.Bundle
	for _, id := range ids {
		b, err := s.c.Products.Bundle(ctx, id)
		if err != nil {
			return nil, err
		}
		switch {
		case b == nil || id == product:
		case found == nil:
			found = b
		case !samePeople(*found, *b):
			return nil, fault.New(fault.Conflict, "product.like", fmt.Sprintf("products %s and %s have different approvers", found.Product, b.Product), "name the one whose approvers are to decide: --like PRODUCT")
		}
	}
	if found == nil {
		return nil, fault.New(fault.NotFound, "product.like", "no other product has a trust bundle to make this one's after", "name one that has: see `hallmark bundle list`")
	}
	b := *found
	return &b, nil
}

func samePeople(a, b wire.Bundle) bool {
	for _, pair := range [][2]wire.KeySet{{a.Root, b.Root}, {a.Release, b.Release}, {a.Warrant, b.Warrant}} {
		x, errX := wire.Marshal(pair[0])
		y, errY := wire.Marshal(pair[1])
		if errX != nil || errY != nil || !bytes.Equal(x, y) {
			return false
		}
	}
	return true
}

// Activate takes in a ceremony's answer for a product: its CA, its first trust bundle, and the transcript if there is one. Called again, it
// goes on with what is missing: whoever may not publish a trust bundle leaves that to one who may.
func (s *Service) Activate(ctx context.Context, caller access.Caller, product string, answer []byte) (Readiness, error) {
	if err := s.c.Guard.Check(ctx, caller, access.CeremonySubmit, access.Resource{Type: "product", ID: product, Product: product}); err != nil {
		return Readiness{}, err
	}
	asking, err := s.c.Store.Asking(ctx, product)
	if errors.Is(err, ErrNotFound) {
		return Readiness{}, fault.New(fault.NotFound, "product.not-asked", fmt.Sprintf("nothing was asked of a ceremony for product %q", product), "ask first: `hallmark product request "+product+"`")
	}
	if err != nil {
		return Readiness{}, err
	}
	a, err := wire.DecodeCeremonyAnswer(answer)
	if err != nil {
		return Readiness{}, fault.Newf(fault.Invalid, "ceremony.answer", "no answer of a ceremony: %w", err).With("take the file as the ceremony wrote it")
	}
	if _, err := Check(asking.Request, a); err != nil {
		code := "ceremony.answer"
		if errors.Is(err, ErrRehearsal) {
			code = "ceremony.rehearsal"
		}
		return Readiness{}, fault.Newf(fault.Denied, code, "%w", err).With("take the answer to a request of this instance, and its transcript with it")
	}
	return s.take(ctx, caller, product, a)
}

// take puts in what is not there yet.
func (s *Service) take(ctx context.Context, caller access.Caller, product string, a wire.CeremonyAnswer) (Readiness, error) {
	r, err := s.readiness(ctx, product)
	if err != nil {
		return r, err
	}
	var refused error
	for _, missing := range r.Missing {
		var err error
		switch {
		case missing == MissingCA && len(a.Grants) > 0:
			_, err = s.c.CAs.InstallCA(ctx, caller, a.Grants[0])
		case missing == MissingBundle && len(a.Bundle) > 0:
			err = s.c.Products.Publish(ctx, caller, a.Bundle)
		}
		if fault.KindOf(err) == fault.Denied && refused == nil {
			refused = err // the rest may be for this caller yet
			continue
		}
		if err != nil {
			return r, err
		}
	}
	after, err := s.readiness(ctx, product)
	if err != nil {
		return r, err
	}
	if refused != nil && len(after.Missing) == len(r.Missing) {
		return after, refused // nothing was done
	}
	if after.Ready && len(a.Transcript) > 0 {
		if _, err := s.Submit(ctx, caller, a.Transcript, nil); err != nil && !isKnown(err) {
			return after, err
		}
	}
	return after, nil
}

func isKnown(err error) bool {
	f, ok := errors.AsType[*fault.Fault](err)
	return ok && f.Code == "ceremony.known"
}
