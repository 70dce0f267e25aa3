// Package foreign lets in devices of other makers, with the identities that those gave them.
//
// Stage 3, from birth to the field, for devices that none of our factories made. Two things vouch for such a device: a CA of its maker, believed for one
// product and for factory identities only, or a list that names its key or its certificate. By default a device that a foreign CA vouches for has to be
// on a list as well. Guaranteed: no foreign CA speaks for another product, for a device of ours, for an operational certificate, a server or an operator; a
// device's key is the one that it came with first. It trusts a foreign CA to tell its own devices apart, and whoever imports a list to know whose they
// are: nothing is on record of how such a device was made, and so it is "imported", never "genuine".
package foreign

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/product"
)

// CA is another maker's, as it is kept.
type CA struct {
	ID           string    `json:"id"` // SHA-256 of its first certificate, hex
	Product      string    `json:"product"`
	Hardware     string    `json:"hardware"` // revision of its devices
	Subject      string    `json:"subject"`
	NotAfter     time.Time `json:"not_after"`
	Map          string    `json:"map"`
	Any          bool      `json:"any"` // devices that are on no list are let in as well
	Devices      int       `json:"devices"`
	By           string    `json:"by"`
	At           time.Time `json:"at"`
	Ended        time.Time `json:"ended,omitzero"`
	Certificates [][]byte  `json:"certificates"` // DER
}

// Entry is a device of another maker, as it is kept.
type Entry struct {
	Device   string // its ID here: pki.ForeignID
	Product  string
	Hardware string
	Name     string // as its maker calls it
	Kind, Of string // see Device
	CA       string // ID of the CA that vouches for it; empty: it is pinned
	Key      []byte // SHA-256 of its SPKI, when it is known
	Format   Format
}

// Outcome is what became of an entry.
type Outcome string

// The outcomes.
const (
	Taken Outcome = "imported"
	Known Outcome = "known" // it was on the list already
	Other Outcome = "other" // its name, key or certificate is that of a device of another product
)

// Errors of the store.
var (
	ErrExists   = errors.New("there already")
	ErrNotFound = errors.New("not there")
)

// Store keeps CAs and lists; each write is durable on nil, with its facts.
type Store interface {
	// AddCA stores c; ErrExists when it is believed already, for whatever product.
	AddCA(ctx context.Context, c CA, facts ...ledger.Fact) error
	// EndCA ends one; ErrNotFound when it is not believed.
	EndCA(ctx context.Context, id string, at time.Time, facts ...ledger.Fact) error
	// CAs gives them, the newest first; those that were ended too.
	CAs(ctx context.Context) ([]CA, error)
	// Take registers the devices that are not there yet, each with its fact; with dry it writes nothing, and says what it would do.
	Take(ctx context.Context, batch []Entry, facts []ledger.Fact, dry bool) ([]Outcome, error)
	// Find gives the first entry there is of any of the references (kind and of); ErrNotFound.
	Find(ctx context.Context, refs [][2]string) (Entry, error)
	// Bind makes key that of the device, if it has none; it tells whether it is now.
	Bind(ctx context.Context, device string, key []byte) (bool, error)
	// Arrive registers a device that another instance has handed over, with its fact.
	Arrive(ctx context.Context, a Arrival, fact ledger.Fact) (Outcome, error)
}

// Config is what a Service works with.
type Config struct {
	Guard    *access.Guard
	Store    Store
	Products interface {
		Get(ctx context.Context, caller access.Caller, id string) (product.Product, error)
	}
	Trust *pki.Trust // which it joins
	OEM   string
	Now   func() time.Time // nil: time.Now
}

// Service is the verbs.
type Service struct {
	c Config
	known
}

// New makes a service. Load has to be called before it finds anybody.
func New(c Config) (*Service, error) {
	if c.Guard == nil || c.Store == nil || c.Products == nil || c.Trust == nil || c.OEM == "" {
		return nil, errors.New("foreign: guard, store, products, trust and OEM are needed")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Service{c: c}, nil
}

// Spec asks for a CA to be believed.
type Spec struct {
	Product      string
	Hardware     string // revision of its devices; empty: the product's first
	Certificates [][]byte
	Map          string
	Any          bool
}

// Trusted is the data of a foreign.ca.trusted fact.
type Trusted struct {
	ID           string   `json:"id"`
	Product      string   `json:"product"`
	Hardware     string   `json:"hardware"`
	Map          string   `json:"map"`
	Any          bool     `json:"any"`
	Certificates [][]byte `json:"certificates"`
}

func resource(productID string) access.Resource {
	return access.Resource{Type: "product", ID: productID, Product: productID}
}

// Trust has another maker's CA believed for the factory identities of a product. It takes two people.
func (s *Service) Trust(ctx context.Context, caller access.Caller, spec Spec) (CA, error) {
	res := resource(spec.Product)
	res.Grave = true
	if err := s.c.Guard.Check(ctx, caller, access.ForeignTrust, res); err != nil {
		return CA{}, err
	}
	p, err := s.c.Products.Get(ctx, caller, spec.Product)
	if err != nil {
		return CA{}, err
	}
	if spec.Hardware == "" {
		spec.Hardware = p.Hardware[0]
	}
	if !slices.Contains(p.Hardware, spec.Hardware) {
		return CA{}, noHardware(p, spec.Hardware)
	}
	bad := func(err error) error {
		return fault.Newf(fault.Invalid, "foreign.ca", "foreign CA: %w", err).With("give the certificate of a CA that the other maker signs with")
	}
	m, err := pki.ParseMapping(spec.Map)
	if err != nil {
		return CA{}, bad(err)
	}
	now := s.c.Now().UTC()
	f, err := pki.NewForeign(spec.Product, spec.Certificates, m, spec.Any, s.c.Trust.CAs(), now)
	if err != nil {
		return CA{}, bad(err)
	}
	if err := s.apart(ctx, f); err != nil {
		return CA{}, err
	}
	c := CA{
		ID: f.ID, Product: spec.Product, Hardware: spec.Hardware, Subject: f.Chain[0].Subject.String(), NotAfter: f.Chain[0].NotAfter, Map: string(m), Any: spec.Any,
		By: caller.ID, At: now, Certificates: spec.Certificates,
	}
	data, err := json.Marshal(Trusted{c.ID, c.Product, c.Hardware, c.Map, c.Any, c.Certificates})
	if err != nil {
		return CA{}, err
	}
	err = s.c.Store.AddCA(ctx, c, ledger.New(ledger.KindForeignTrusted, now, caller.ID, c.ID, nil, data))
	if errors.Is(err, ErrExists) {
		return CA{}, fault.New(fault.Conflict, "foreign.known", fmt.Sprintf("CA %.12s is believed already", c.ID), "a CA is for one product: see `hallmark foreign-ca list`")
	}
	if err != nil {
		return CA{}, err
	}
	return c, s.Load(ctx)
}

func noHardware(p product.Product, hardware string) error {
	return fault.New(fault.Invalid, "foreign.hardware", fmt.Sprintf("product %s has no hardware revision %q", p.ID, hardware), "give one of "+strings.Join(p.Hardware, ", "))
}

// apart refuses a CA that stands above or below one that is believed for another product: a device would be of both.
func (s *Service) apart(ctx context.Context, f pki.Foreign) error {
	all, err := s.c.Store.CAs(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		if !c.Ended.IsZero() || c.Product == f.Product {
			continue
		}
		for _, der := range c.Certificates {
			other, err := x509.ParseCertificate(der)
			if err != nil {
				return fmt.Errorf("stored foreign CA %s: %w", c.ID, err)
			}
			for _, own := range f.Chain {
				if own.CheckSignatureFrom(other) == nil || other.CheckSignatureFrom(own) == nil || string(own.RawSubjectPublicKeyInfo) == string(other.RawSubjectPublicKeyInfo) {
					return fault.New(fault.Conflict, "foreign.product", fmt.Sprintf("CA %q and CA %q, which is believed for product %s, are of one chain", own.Subject, other.Subject, c.Product),
						"a foreign CA is for one product: give the one that signs this product's devices only")
				}
			}
		}
	}
	return nil
}

// Untrust believes a CA no more. Devices that enrolled already keep their operational certificates: revoke those of which there is doubt.
func (s *Service) Untrust(ctx context.Context, caller access.Caller, id, reason string) error {
	c, err := s.one(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if denied := s.c.Guard.Check(ctx, caller, access.ForeignTrust, resource(c.Product)); denied != nil {
		return denied
	}
	none := fault.New(fault.NotFound, "foreign.unknown", fmt.Sprintf("no foreign CA %.64q is believed", id), "see `hallmark foreign-ca list`")
	if err != nil {
		return none
	}
	if reason = strings.TrimSpace(reason); reason == "" || len(reason) > 512 {
		return fault.New(fault.Invalid, "foreign.reason", "say in 1 to 512 bytes why", "give a reason of that length")
	}
	now := s.c.Now().UTC()
	data, err := json.Marshal(map[string]string{"id": c.ID, "product": c.Product, "reason": reason})
	if err != nil {
		return err
	}
	err = s.c.Store.EndCA(ctx, c.ID, now, ledger.New(ledger.KindForeignEnded, now, caller.ID, c.ID, nil, data))
	if errors.Is(err, ErrNotFound) {
		return none
	}
	if err != nil {
		return err
	}
	return s.Load(ctx)
}

func (s *Service) one(ctx context.Context, id string) (CA, error) {
	all, err := s.c.Store.CAs(ctx)
	if err != nil {
		return CA{}, err
	}
	for _, c := range all {
		if c.ID == id && c.Ended.IsZero() {
			return c, nil
		}
	}
	return CA{}, ErrNotFound
}

// CAs lists those of a product, all with an empty one, newest first; those that were ended too.
func (s *Service) CAs(ctx context.Context, caller access.Caller, productID string) ([]CA, error) {
	if err := s.c.Guard.Check(ctx, caller, access.CertRead, resource(productID)); err != nil {
		return nil, err
	}
	all, err := s.c.Store.CAs(ctx)
	return slices.DeleteFunc(all, func(c CA) bool { return productID != "" && c.Product != productID }), err
}

// List asks for devices to be taken from a list.
type List struct {
	Product  string
	Hardware string // of those that do not say; empty: the product's first
	Format   Format
	CA       string // that vouches for the devices which the list knows by name only
	Dry      bool
}

// Report is what an import did, or would do.
type Report struct {
	Dry      bool   `json:"dry_run"`
	Lines    int    `json:"lines"`
	Imported int    `json:"imported"`
	Known    int    `json:"known"`
	Refused  int    `json:"refused"`
	Errors   []Bad  `json:"errors,omitempty" doc:"the first hundred"`
	Product  string `json:"product"`
}

// Bad is a line that was not taken.
type Bad struct {
	Line int    `json:"line"`
	Text string `json:"text"`
}

const (
	maxBad    = 100
	batchSize = 500
)

// Imported is the data of a device.imported fact.
type Imported struct {
	Device   string `json:"device"`
	Product  string `json:"product"`
	Hardware string `json:"hardware"`
	Format   Format `json:"format"`
	Name     string `json:"name,omitempty"` // private
	Kind     string `json:"kind"`
	Of       string `json:"of,omitempty"` // a digest; of devices known by name it is in the ID alone
	CA       string `json:"ca,omitempty"`
	Identity string `json:"identity,omitempty"` // SHA-256 of the key, when it is known
	Custody  string `json:"custody,omitempty"`  // SHA-256 of the chain of custody that it was handed over with
	From     string `json:"from,omitempty"`     // origin of the control log that the chain is from

	Assurance string `json:"assurance,omitempty"` // what its word is worth, of one that runs no agent of ours: see device.Assurance
}

// MayImport says whether caller may import a list: to be asked before it is read.
func (s *Service) MayImport(ctx context.Context, caller access.Caller, productID string) error {
	return s.c.Guard.Check(ctx, caller, access.DeviceImport, resource(productID))
}

// Import takes the devices of a list, in batches that are each one write. What was taken before changes nothing, so that an import that broke off is begun
// again. Lines that are not taken are told by their number; the others are.
func (s *Service) Import(ctx context.Context, caller access.Caller, l List, r io.Reader) (Report, error) {
	rep := Report{Dry: l.Dry, Product: l.Product}
	if err := s.MayImport(ctx, caller, l.Product); err != nil {
		return rep, err
	}
	p, err := s.c.Products.Get(ctx, caller, l.Product)
	if err != nil {
		return rep, err
	}
	if l.Hardware == "" {
		l.Hardware = p.Hardware[0]
	}
	if !slices.Contains(p.Hardware, l.Hardware) {
		return rep, noHardware(p, l.Hardware)
	}
	if l.CA != "" {
		c, err := s.one(ctx, l.CA)
		if errors.Is(err, ErrNotFound) || err == nil && c.Product != l.Product {
			return rep, fault.New(fault.NotFound, "foreign.unknown", fmt.Sprintf("no foreign CA %.64q is believed for product %s", l.CA, l.Product), "see `hallmark foreign-ca list`")
		}
		if err != nil {
			return rep, err
		}
	}
	im := &importing{s: s, ctx: ctx, caller: caller, l: l, p: p, rep: &rep}
	if err := Read(l.Format, r, im.line); err != nil {
		var f *fault.Fault
		if errors.As(err, &f) || im.failed != nil {
			return rep, err
		}
		return rep, fault.Newf(fault.Invalid, "foreign.list", "list of devices: %w; what came before is imported", err).With("correct that line, and import the list again: what is there already is left as it is")
	}
	return rep, im.flush()
}

// importing is one Import under way.
type importing struct {
	s      *Service
	ctx    context.Context //nolint:containedctx // of one call
	caller access.Caller
	l      List
	p      product.Product
	rep    *Report
	batch  []Entry
	at     []int // lines of the batch
	failed error
}

func (im *importing) bad(line int, text string) {
	im.rep.Refused++
	if len(im.rep.Errors) < maxBad {
		im.rep.Errors = append(im.rep.Errors, Bad{line, text})
	}
}

func (im *importing) line(l Line) error {
	im.rep.Lines++
	d := l.Device
	if l.Err == nil && d.Kind == pki.ForeignName && im.l.CA == "" {
		l.Err = errors.New("only a name: say with the list which foreign CA vouches for its devices")
	}
	if d.Hardware == "" {
		d.Hardware = im.l.Hardware
	}
	if l.Err == nil && !slices.Contains(im.p.Hardware, d.Hardware) {
		l.Err = fmt.Errorf("product %s has no hardware revision %.40q", im.p.ID, d.Hardware)
	}
	if l.Err != nil {
		im.bad(l.N, l.Err.Error())
		return nil //nolint:nilerr // a line that is not taken is in the report
	}
	e := Entry{Product: im.l.Product, Hardware: d.Hardware, Name: d.Name, Kind: d.Kind, Of: d.Of, Key: d.Key, Format: im.l.Format}
	if e.Kind == pki.ForeignName {
		e.CA, e.Of = im.l.CA, im.l.CA+"/"+d.Name
	}
	e.Device = pki.ForeignID(e.Product, e.Kind, e.Of)
	im.batch, im.at = append(im.batch, e), append(im.at, l.N)
	if len(im.batch) < batchSize {
		return nil
	}
	return im.flush()
}

func (im *importing) flush() error {
	facts := make([]ledger.Fact, len(im.batch))
	now := im.s.c.Now().UTC()
	for i, e := range im.batch {
		f, err := imported(e, im.caller.ID, now)
		if err != nil {
			return err
		}
		facts[i] = f
	}
	out, err := im.s.c.Store.Take(im.ctx, im.batch, facts, im.l.Dry)
	if err != nil {
		im.failed = err
		return err
	}
	for i, o := range out {
		switch o {
		case Taken:
			im.rep.Imported++
		case Known:
			im.rep.Known++
		case Other:
			im.bad(im.at[i], "its key, certificate or name is that of a device of another product, or of another entry")
		}
	}
	im.batch, im.at = im.batch[:0], im.at[:0]
	return nil
}

func imported(e Entry, actor string, now time.Time) (ledger.Fact, error) {
	d := Imported{Device: e.Device, Product: e.Product, Hardware: e.Hardware, Format: e.Format, Name: e.Name, Kind: e.Kind, Of: e.Of, CA: e.CA, Identity: hex.EncodeToString(e.Key)}
	if e.Kind == pki.ForeignName {
		d.Of = "" // the name is private, and the ID commits to it
	}
	data, err := json.Marshal(d)
	return ledger.New(ledger.KindDeviceImported, now, actor, e.Device, nil, data), err
}

func digest(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
