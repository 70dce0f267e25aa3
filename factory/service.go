package factory

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// CA issues order CAs.
type CA interface {
	// IssueOrderCA gives the chain of a new CA of path length 0 for r.Key: the new certificate first, the OEM root last (DER).
	IssueOrderCA(ctx context.Context, r OrderCARequest) (chain [][]byte, err error)
}

// OrderCARequest is what an order CA is for.
type OrderCARequest struct {
	OEM, Product, Order, Station string
	Key                          crypto.PublicKey
	NotBefore                    time.Time
}

// Vault seals small secrets for the store. label binds a secret to its place.
type Vault interface {
	Seal(label string, plain []byte) ([]byte, error)
	Open(label string, sealed []byte) ([]byte, error)
}

// Config is what the service works with.
type Config struct {
	OEM      string                    // this OEM's ID, in orders and certificates
	Root     []byte                    // the OEM root's certificate (DER), which stations pin
	OrderKey crypto.Signer             // signs orders; stations pin it
	Former   func() []crypto.PublicKey // signed orders before; records of those are still taken in; nil: none
	Beside   func() [][]byte           // order keys (SPKI) that are in use beside OrderKey, for stations to pin; nil: none
	CA       CA
	Vault    Vault
	Store    Store
	// Inspections is where those of first articles are kept.
	Inspections Inspections
	Books       Books     // what does not agree is read from
	Published   Published // what devices may be made of
	Masters     Masters   // that were given to this instance
	Documents   Documents // that masters name
	SealKeys    SealKeys  // what is sealed to this instance is opened with
	Intake      *Intake   // nil: orders are wrapped here only
	Guard       *access.Guard
	Now         func() time.Time // nil: time.Now
}

// Service is the verbs on orders.
type Service struct {
	c       Config
	planned planned
}

// New makes the service.
func New(c Config) (*Service, error) {
	if !wire.ValidName(c.OEM) {
		return nil, fmt.Errorf("factory: OEM %q: lower-case letters, digits, '-' and '.', at most 64", c.OEM)
	}
	if c.OrderKey == nil || c.CA == nil || c.Vault == nil || c.Store == nil || c.Inspections == nil || c.Books == nil || c.Published == nil || c.Masters == nil || c.Documents == nil || c.SealKeys == nil || c.Guard == nil || len(c.Root) == 0 {
		return nil, errors.New("factory: incomplete configuration")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Service{c: c}, nil
}

// OEMFile is what a station pins of this OEM.
type OEMFile struct {
	ID       string `json:"id"`
	Root     []byte `json:"root"`
	OrderKey []byte `json:"order_key"`

	OrderKeys [][]byte `json:"order_keys,omitempty" doc:"those in use beside it: the next one, and those of desks"`
}

// Fingerprint is what maker and station compare by voice before the station believes anything: SHA-256 over the hashes of root and order
// keys, as the station computes it for itself.
func (f OEMFile) Fingerprint() string {
	all := sha256.New()
	for _, b := range append([][]byte{f.Root, f.OrderKey}, f.OrderKeys...) {
		sum := sha256.Sum256(b)
		all.Write(sum[:])
	}
	return hex.EncodeToString(all.Sum(nil))
}

// OEMFile gives it; it is public.
func (s *Service) OEMFile(ctx context.Context, caller access.Caller) (OEMFile, error) {
	if err := s.c.Guard.Check(ctx, caller, access.InstanceRead, access.Resource{Type: "instance"}); err != nil {
		return OEMFile{}, err
	}
	spki, err := wire.SPKIOf(s.c.OrderKey.Public())
	f := OEMFile{ID: s.c.OEM, Root: s.c.Root, OrderKey: spki}
	if s.c.Beside != nil {
		f.OrderKeys = s.c.Beside()
	}
	if err != nil || s.c.Intake == nil {
		return f, err
	}
	desks, err := s.c.Intake.Store.Desks(ctx)
	for _, d := range desks {
		if d.Removed.IsZero() {
			f.OrderKeys = append(f.OrderKeys, d.OrderKey)
		}
	}
	return f, err
}

// OrderSpec is what to have made, where.
type OrderSpec struct {
	ID             string // empty: chosen
	Product        string
	Hardware       string
	Quota          uint32
	NotBefore      time.Time // zero: now
	NotAfter       time.Time
	Descriptor     []byte // the station's, COSE_Sign1(Station)
	StationPin     []byte // SHA-256 of its record key, learned another way
	Bundle         []byte // COSE_Sign(Bundle)
	Release        []byte // COSE_Sign(Release), threshold met
	Payload        Source // the bytes of each component
	Params         wire.DeviceParams
	MaxOfflineDays uint32   // 0: no limit
	FirstArticle   bool     // one is made and inspected before the others
	Chips          string   // only chips of this vendor, by its manifests; empty: any
	Master         []byte   // how a master's file begins, or more of it: it says trust bundle, release and parameters; none: the fields above do
	Lots           []string // of parts that it is made of, by their IDs
	Keys           string   // wire.OriginStation: the station may make devices' keys; empty: the device alone
}

func resource(id, product string) access.Resource {
	return access.Resource{Type: "order", ID: id, Product: product}
}

func invalid(format string, args ...any) error {
	return fault.Newf(fault.Invalid, "order.invalid", "order: "+format, args...).With("correct the order, and place it again")
}

// secret is what the Vault seals of an order.
type secret struct {
	Seed   []byte `json:"seed"`
	Return []byte `json:"return"` // P-256 scalar
}

// MayOrder says whether caller may order devices of a product: to be asked before its firmware is gathered. CreateOrder asks again.
func (s *Service) MayOrder(ctx context.Context, caller access.Caller, id, product string) error {
	return s.c.Guard.Check(ctx, caller, access.OrderCreate, resource(id, product))
}

// CreateOrder makes an order and its file. The file holds everything the station needs and is given out once: it is not kept, and who has lost it
// cancels the order.
func (s *Service) CreateOrder(ctx context.Context, caller access.Caller, spec OrderSpec) (*Wrapped, Order, error) {
	spec = spec.named()
	if err := s.c.Guard.Check(ctx, caller, access.OrderCreate, resource(spec.ID, spec.Product)); err != nil {
		return nil, Order{}, err
	}
	spec, master, err := s.ofMaster(ctx, caller, spec)
	if err != nil {
		return nil, Order{}, err
	}
	m := Maker{OEM: s.c.OEM, Root: s.c.Root, OrderKey: s.c.OrderKey, CA: s.c.CA}
	d, err := newDraft(m, spec, s.c.Now())
	if err == nil {
		err = errors.Join(s.orderable(ctx, d), s.free(ctx, spec.ID))
	}
	if err != nil {
		return nil, Order{}, err
	}
	w, err := d.wrap(ctx, m)
	if err != nil {
		return nil, Order{}, err
	}
	row, err := s.sealed(w.Order, w.content.TicketSeed, w.ret)
	if err != nil {
		return nil, Order{}, err
	}
	row.Master = master
	created := ledger.New(ledger.KindOrderCreated, row.Created, caller.ID, spec.ID, nil, row.Envelope)
	row.UID = created.UID
	facts := []ledger.Fact{created}
	if master != nil {
		data, err := json.Marshal(master)
		if err != nil {
			return nil, Order{}, err
		}
		facts = append(facts, ledger.New(ledger.KindOrderMastered, row.Created, caller.ID, spec.ID, nil, data))
	}
	if row.Lots = spec.Lots; len(row.Lots) > 0 {
		named, err := lotsNamed(row, caller)
		if err != nil {
			return nil, Order{}, err
		}
		facts = append(facts, named)
	}
	err = s.c.Store.CreateOrder(ctx, row, facts...)
	if bad, ok := errors.AsType[*LotError](err); ok {
		return nil, Order{}, fault.New(fault.Conflict, "order.lot", fmt.Sprintf("order %s cannot be made of that: %v", spec.ID, bad), "see `hallmark supply lot list`, and name what is built in")
	}
	if old, ok := errors.AsType[*OldMasterError](err); ok {
		return nil, Order{}, master.Follows(old.Known)
	}
	if errors.Is(err, ErrExists) {
		return nil, Order{}, taken(spec.ID)
	}
	if err != nil {
		return nil, Order{}, err
	}
	return w, row.shown(), nil
}

// lotsNamed is the fact that an order is made of lots, as package supply/parts tells it of orders that are there.
func lotsNamed(o Order, caller access.Caller) (ledger.Fact, error) {
	data, err := json.Marshal(struct {
		Order string   `json:"order"`
		Lots  []string `json:"lots"`
	}{o.ID, o.Lots})
	return ledger.New(ledger.KindOrderLotsNamed, o.Created, caller.ID, o.ID, nil, data), err
}

// free says whether an ID is, so that no CA is made for an order that cannot be. The store has the last word.
func (s *Service) free(ctx context.Context, id string) error {
	switch _, err := s.c.Store.Order(ctx, id); {
	case err == nil:
		return taken(id)
	case errors.Is(err, ErrNotFound):
		return nil
	default:
		return err
	}
}

func taken(id string) error {
	return fault.New(fault.Conflict, "order.exists", fmt.Sprintf("order %q exists already", id), "choose another ID")
}

// sealed is the order as it is kept, its secrets sealed by the vault.
func (s *Service) sealed(row Order, seed, ret []byte) (Order, error) {
	sec, err := json.Marshal(secret{Seed: seed, Return: ret})
	if err != nil {
		return row, err
	}
	if row.Secret, err = s.c.Vault.Seal(vaultLabel(row.ID), sec); err != nil {
		return row, fmt.Errorf("order %s: %w", row.ID, err)
	}
	return row, nil
}

func vaultLabel(order string) string { return "factory/order/" + order }
