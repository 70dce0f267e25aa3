package factory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Desk is where orders are wrapped without a server: an order key and product CAs of its own, which two people took in here.
type Desk struct {
	Name     string    `json:"name"`
	OrderKey []byte    `json:"order_key"` // SPKI; stations pin it, beside ours
	CAs      [][]byte  `json:"cas"`       // certificates (DER) of its product CAs
	Before   [][]byte  `json:"before,omitempty" doc:"product CAs (DER) that it had before; what was ordered under one of them is still registered, unless that CA is revoked"`
	Products []string  `json:"products"` // that it may order, one for each CA
	Quota    uint32    `json:"quota"`    // devices that it may order, in all
	Ordered  uint64    `json:"ordered"`  // of these
	By       string    `json:"by"`
	At       time.Time `json:"at"`
	Removed  time.Time `json:"removed,omitzero"` // since when it orders nothing any more
}

// MaxDesks is how many desks there may be at once: stations pin so many order keys beside ours.
const MaxDesks = 4

// Errors of desks.
var (
	ErrDeskUnknown = errors.New("there is no such desk")
	ErrDeskTaken   = errors.New("there is or was a desk of that name or order key")
	ErrDeskMany    = errors.New("there are as many desks as may be")
	ErrDeskQuota   = errors.New("it is more than the desk may order")
	ErrDeskCA      = errors.New("the CA is another desk's")
)

// DeskStore keeps desks, and the orders that came from them; each write is durable on nil, with its facts.
type DeskStore interface {
	// PutDesk stores one with its CAs, or replaces CAs, products and quota of the one with that name and order key; CAs that it had and has no more are Before. ErrDeskTaken for another key of that
	// name, another name of that key, or one that was removed; ErrDeskCA for a CA that another desk has or had; ErrDeskMany.
	PutDesk(ctx context.Context, d Desk, cas []Adoption, facts ...ledger.Fact) error
	// RemoveDesk ends one; ErrDeskUnknown when it is not there or removed.
	RemoveDesk(ctx context.Context, name string, at time.Time, facts ...ledger.Fact) error
	// Desk gives one, a removed one too; ErrDeskUnknown.
	Desk(ctx context.Context, name string) (Desk, error)
	// Desks gives them all, by name.
	Desks(ctx context.Context) ([]Desk, error)
	// RegisterOrder stores an order of the desk that it names, with the order's CA, and remembers its master if that is newer than what is known: ErrExists for an ID that is taken, ErrDeskQuota, and ErrChanged when
	// the desk was removed or replaced since it was read.
	RegisterOrder(ctx context.Context, o Order, desk Desk, ca Adoption, facts ...ledger.Fact) error
	// RestoreOrder gives an order its secrets again, which were lost with a database that was brought back from the log; ErrChanged when it has them.
	RestoreOrder(ctx context.Context, o Order) error
}

// DeskCAs says which CAs of desks may be believed. It believes none: that is done by what they come with, once it is stored. One that is believed is found
// good again.
type DeskCAs interface {
	// ProductCA is for one that a desk has the key of. A root that is believed here must have signed it, and the key must not be here.
	ProductCA(ctx context.Context, der []byte) (Adoption, error)
	// OrderCA is for that of an order: a product CA that is believed and not revoked must have signed it.
	OrderCA(ctx context.Context, der []byte) (Adoption, error)
}

// Adoption is a CA that may be believed: it is stored in one write with the desk or the order that it is of, and not otherwise.
type Adoption struct {
	SKI, Role string // subject key ID, hex; what it signs
	DER       []byte
	Product   string      // that it is for
	Fact      ledger.Fact // ca.created, stored with it where it is new
	Believe   func()      // from now on, in this process; called when it is stored
}

// SealKeys are those that desks seal registrations to, and who builds masters.
type SealKeys interface {
	// Public gives the newest; ErrNotFound when there is none yet.
	Public() ([]byte, error)
	// Private gives a copy of the one of a wire.SealKeyID, which is wiped after use; ErrNotFound.
	Private(id []byte) ([]byte, error)
}

// Intake is what orders of desks are taken in with.
type Intake struct {
	Store    DeskStore
	CAs      DeskCAs
	Instance string // this instance's name
}

// DeskFile is what a desk pins of its instance.
type DeskFile struct {
	OEM      string `json:"oem"`
	Instance string `json:"instance"`
	Root     []byte `json:"root" doc:"the OEM root's certificate (DER)"`
	SealKey  []byte `json:"seal_key" doc:"what is secret of an order is sealed to it (HPKE, MLKEM768-P256)"`
}

// Fingerprint is what the people at the instance and at the desk compare by voice: SHA-256 over the names and the hashes of root and key.
func (f DeskFile) Fingerprint() string {
	all := sha256.New()
	for _, b := range [][]byte{[]byte(f.OEM), []byte(f.Instance), f.Root, f.SealKey} {
		sum := sha256.Sum256(b)
		all.Write(sum[:])
	}
	return hex.EncodeToString(all.Sum(nil))
}

// MaxDeskFile bounds a DeskFile, bytes of JSON.
const MaxDeskFile = 32 << 10

// DecodeDeskFile reads what an instance gave out for its desks.
func DecodeDeskFile(data []byte) (DeskFile, error) {
	var f DeskFile
	if len(data) > MaxDeskFile {
		return f, fmt.Errorf("%d bytes, at most %d", len(data), MaxDeskFile)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return DeskFile{}, err
	}
	if !wire.ValidName(f.OEM) || f.Instance == "" || len(f.Instance) > 128 || len(f.Root) == 0 {
		return DeskFile{}, errors.New("no OEM, instance or root")
	}
	return f, wire.CheckSealKey(f.SealKey)
}

var instance = access.Resource{Type: "instance"}

func (s *Service) intake() (Intake, error) {
	if s.c.Intake == nil {
		return Intake{}, fault.New(fault.Unavailable, "desk.none", "this instance takes in no orders of desks", "ask the one that does")
	}
	return *s.c.Intake, nil
}

// DeskFile gives what a desk must pin of this instance; it is public.
func (s *Service) DeskFile(ctx context.Context, caller access.Caller) (DeskFile, error) {
	if err := s.c.Guard.Check(ctx, caller, access.InstanceRead, instance); err != nil {
		return DeskFile{}, err
	}
	k, err := s.intake()
	if err != nil {
		return DeskFile{}, err
	}
	f := DeskFile{OEM: s.c.OEM, Instance: k.Instance, Root: s.c.Root}
	f.SealKey, err = s.c.SealKeys.Public()
	if errors.Is(err, ErrNotFound) {
		return f, fault.New(fault.Conflict, "desk.key", "this instance has no key yet that desks could seal to", "make one: `hallmark key rotate desk --reason 'the first desk'`")
	}
	return f, err
}

// Desks lists them, those that were removed too.
func (s *Service) Desks(ctx context.Context, caller access.Caller) ([]Desk, error) {
	if err := s.c.Guard.Check(ctx, caller, access.OrderRead, access.Resource{Type: "order"}); err != nil {
		return nil, err
	}
	k, err := s.intake()
	if err != nil {
		return nil, err
	}
	return k.Store.Desks(ctx)
}

// DeskAdded is the data of a desk.added fact.
type DeskAdded struct {
	Desk     string   `json:"desk"`
	OrderKey []byte   `json:"order_key"` // SPKI
	CAs      [][]byte `json:"cas"`
	Products []string `json:"products"`
	Quota    uint32   `json:"quota"`
}

// AddDesk takes in a desk, by what it wrote of itself, or changes the CAs and the quota of one. It always takes two people: whoever has a desk's keys can have
// devices made.
func (s *Service) AddDesk(ctx context.Context, caller access.Caller, file []byte, quota uint32) (Desk, error) {
	said, bad := wire.OpenDesk(file)
	if err := s.c.Guard.Check(ctx, caller, access.DeskManage, access.Resource{Type: "desk", ID: said.Name, Grave: true}); err != nil {
		return Desk{}, err
	}
	k, err := s.intake()
	if err != nil {
		return Desk{}, err
	}
	switch {
	case bad != nil:
		return Desk{}, fault.Newf(fault.Invalid, "desk.invalid", "no desk's file: %w", bad).With("write it again at the desk: `hallmark desk init` says how")
	case said.OEM != s.c.OEM:
		return Desk{}, fault.New(fault.Denied, "desk.oem", fmt.Sprintf("desk %s is of OEM %q", said.Name, said.OEM), "an instance takes in desks of its own OEM")
	case quota == 0 || quota > wire.MaxQuota:
		return Desk{}, fault.New(fault.Invalid, "desk.quota", fmt.Sprintf("a desk that may order %d devices", quota), fmt.Sprintf("say how many devices it may order in all, at most %d", wire.MaxQuota))
	}
	d := Desk{Name: said.Name, OrderKey: said.OrderKey, CAs: said.CAs, Quota: quota, By: caller.ID, At: s.c.Now().UTC().Truncate(time.Millisecond)}
	if ours, err := wire.SPKIOf(s.c.OrderKey.Public()); err != nil || bytes.Equal(ours, d.OrderKey) {
		return Desk{}, errors.Join(err, fault.New(fault.Denied, "desk.taken", "the desk's order key is this instance's", "a desk has a key of its own"))
	}
	var cas []Adoption
	for _, der := range d.CAs {
		ca, err := k.CAs.ProductCA(ctx, der)
		if err != nil {
			return Desk{}, err
		}
		cas, d.Products = append(cas, ca), append(d.Products, ca.Product)
	}
	data, err := json.Marshal(DeskAdded{d.Name, d.OrderKey, d.CAs, d.Products, d.Quota})
	if err != nil {
		return Desk{}, err
	}
	err = k.Store.PutDesk(ctx, d, cas, ledger.New(ledger.KindDeskAdded, d.At, caller.ID, d.Name, nil, data))
	switch {
	case errors.Is(err, ErrDeskTaken):
		return Desk{}, fault.New(fault.Conflict, "desk.taken", fmt.Sprintf("there is or was a desk %s, or another with its key", d.Name), "a desk that was removed, or has new keys, begins with a new name")
	case errors.Is(err, ErrDeskCA):
		return Desk{}, fault.New(fault.Conflict, "desk.ca", fmt.Sprintf("a CA of desk %s is or was another desk's", d.Name), "have a CA of its own granted to each desk: one that two have tells nobody who ordered")
	case errors.Is(err, ErrDeskMany):
		return Desk{}, fault.New(fault.Conflict, "desk.many", fmt.Sprintf("there are %d desks, and stations pin no more order keys", MaxDesks), "remove one first: `hallmark desk remove`")
	case err != nil:
		return Desk{}, err
	}
	for _, ca := range cas {
		ca.Believe()
	}
	return k.Store.Desk(ctx, d.Name)
}

// DeskRemoved is the data of a desk.removed fact.
type DeskRemoved struct {
	Desk     string `json:"desk"`
	OrderKey []byte `json:"order_key"`
	Reason   string `json:"reason"`
}

// RemoveDesk takes no order of a desk any more that was made from now on. One that it says it made before takes two people to register: the date is the
// desk's word. Orders that are here stay what they are.
func (s *Service) RemoveDesk(ctx context.Context, caller access.Caller, name, reason string) (Desk, error) {
	if err := s.c.Guard.Check(ctx, caller, access.DeskManage, access.Resource{Type: "desk", ID: name}); err != nil {
		return Desk{}, err
	}
	k, err := s.intake()
	if err != nil {
		return Desk{}, err
	}
	if reason = strings.TrimSpace(reason); reason == "" || len(reason) > maxReason {
		return Desk{}, fault.New(fault.Invalid, "desk.reason", fmt.Sprintf("to remove a desk needs a reason of at most %d bytes", maxReason), "say why")
	}
	d, err := k.Store.Desk(ctx, name)
	if err != nil {
		return Desk{}, noDesk(name, err)
	}
	data, err := json.Marshal(DeskRemoved{name, d.OrderKey, reason})
	if err != nil {
		return Desk{}, err
	}
	now := s.c.Now().UTC().Truncate(time.Second) // orders count in seconds
	if err := k.Store.RemoveDesk(ctx, name, now, ledger.New(ledger.KindDeskRemoved, now, caller.ID, name, nil, data)); err != nil {
		return Desk{}, noDesk(name, err)
	}
	return k.Store.Desk(ctx, name)
}

func noDesk(name string, err error) error {
	if !errors.Is(err, ErrDeskUnknown) {
		return err
	}
	return fault.New(fault.NotFound, "desk.unknown", fmt.Sprintf("there is no desk %.80q here, or it was removed", name), "see `hallmark desk list`; take it in with `hallmark desk add`")
}
