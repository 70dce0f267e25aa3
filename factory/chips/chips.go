// Package chips knows the chips that come from their makers with keys in them.
//
// Stage 2, birth: keys that are injected where the silicon is made. A vendor signs a manifest: for each chip its number and its public keys. Guaranteed: a
// chip is known only by the word of a key that two people had pinned for that vendor; a chip has one entry, which nothing replaces; an order that demands a
// vendor's chips gets devices only of chips in such a manifest, with a key that the vendor signed for, each chip once. It trusts the vendor to have made the keys in
// the chip and kept no copy, which no manifest can show.
package chips

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Vendor is who makes chips and signs for them.
type Vendor struct {
	ID           string    `json:"id"`
	Certificates [][]byte  `json:"certificates"` // that sign its manifests (DER)
	Chips        int       `json:"chips"`        // known of it
	Used         int       `json:"used"`         // of these, what devices were made of
	By           string    `json:"by"`
	At           time.Time `json:"at"`
	Ended        time.Time `json:"ended,omitzero"` // since when its word is not taken any more
}

// Standing is what became of an entry.
type Standing string

// The standings.
const (
	Taken Standing = "imported"
	Known Standing = "known" // it was there, by the same entry
	Other Standing = "other" // there is another entry of that chip
)

// Errors of the store.
var (
	ErrExists   = errors.New("there already")
	ErrNotFound = errors.New("not there")
)

// Store keeps vendors and chips; each write is durable on nil, with its facts.
type Store interface {
	// PutVendor stores one, or replaces the certificates of the one there is; an ended one is taken again.
	PutVendor(ctx context.Context, v Vendor, facts ...ledger.Fact) error
	// EndVendor ends one; ErrNotFound when it is not there or ended.
	EndVendor(ctx context.Context, id string, at time.Time, facts ...ledger.Fact) error
	// Vendors gives them by ID, with their counts.
	Vendors(ctx context.Context) ([]Vendor, error)
	// Vendor gives one, without its counts; ErrNotFound.
	Vendor(ctx context.Context, id string) (Vendor, error)
	// Take stores the chips that are not there; fact is made of what was taken, when something was.
	Take(ctx context.Context, batch []Chip, fact func(taken []Chip) (ledger.Fact, error)) ([]Standing, error)
	// Chip finds one by its number; ErrNotFound.
	Chip(ctx context.Context, uid string) (Chip, error)
}

// Service is the verbs on chips.
type Service struct {
	store Store
	guard *access.Guard
	now   func() time.Time
}

// New makes the service.
func New(store Store, guard *access.Guard) *Service {
	return &Service{store: store, guard: guard, now: time.Now}
}

var instance = access.Resource{Type: "instance"}

// Trusted is the data of a chip.vendor.trusted fact.
type Trusted struct {
	Vendor       string   `json:"vendor"`
	Certificates [][]byte `json:"certificates"`
}

// maxSigners bounds a vendor's certificates.
const maxSigners = 64

// Trust pins the certificates whose keys sign a vendor's manifests, in the place of those before. It takes two people.
func (s *Service) Trust(ctx context.Context, caller access.Caller, id string, certificates [][]byte) (Vendor, error) {
	res := instance
	res.Grave = true
	if err := s.guard.Check(ctx, caller, access.ChipVendor, res); err != nil {
		return Vendor{}, err
	}
	if !wire.ValidName(id) {
		return Vendor{}, invalid("vendor %.80q: want lower-case letters, digits, '-' and '.', at most 64", id)
	}
	v := Vendor{ID: id, Certificates: certificates, By: caller.ID, At: s.now().UTC().Truncate(time.Millisecond)}
	if _, err := v.signers(); err != nil {
		return Vendor{}, invalid("%w", err)
	}
	data, err := json.Marshal(Trusted{id, certificates})
	if err != nil {
		return Vendor{}, err
	}
	return v, s.store.PutVendor(ctx, v, ledger.New(ledger.KindChipVendorTrusted, v.At, caller.ID, id, nil, data))
}

func invalid(format string, args ...any) error {
	return fault.Newf(fault.Invalid, "chip.invalid", format, args...).With("ask the vendor for a manifest that is whole")
}

func (v Vendor) signers() ([]*x509.Certificate, error) {
	if len(v.Certificates) == 0 || len(v.Certificates) > maxSigners {
		return nil, fmt.Errorf("%d certificates: want 1 to %d that sign the vendor's manifests", len(v.Certificates), maxSigners)
	}
	var out []*x509.Certificate
	for _, der := range v.Certificates {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		if _, ok := c.PublicKey.(*ecdsa.PublicKey); !ok {
			return nil, fmt.Errorf("certificate %s has a %T: manifests are signed with ECDSA", c.Subject, c.PublicKey)
		}
		out = append(out, c)
	}
	return out, nil
}

// End takes a vendor's word no more. Chips that are known stay known: end it with its reason, and look at what was made of them.
func (s *Service) End(ctx context.Context, caller access.Caller, id, reason string) error {
	if err := s.guard.Check(ctx, caller, access.ChipVendor, instance); err != nil {
		return err
	}
	data, err := json.Marshal(map[string]string{"vendor": id, "reason": reason})
	if err != nil {
		return err
	}
	now := s.now().UTC().Truncate(time.Millisecond)
	err = s.store.EndVendor(ctx, id, now, ledger.New(ledger.KindChipVendorEnded, now, caller.ID, id, nil, data))
	if errors.Is(err, ErrNotFound) {
		return unknown(id)
	}
	return err
}

func unknown(id string) error {
	return fault.New(fault.NotFound, "chip.vendor", fmt.Sprintf("there is no vendor %q whose word is taken", id), "see `hallmark chip vendors`")
}

// Vendors lists them.
func (s *Service) Vendors(ctx context.Context, caller access.Caller) ([]Vendor, error) {
	if err := s.guard.Check(ctx, caller, access.OrderRead, access.Resource{Type: "order"}); err != nil {
		return nil, err
	}
	return s.store.Vendors(ctx)
}

// Chip tells of one.
func (s *Service) Chip(ctx context.Context, caller access.Caller, uid string) (Chip, error) {
	if err := s.guard.Check(ctx, caller, access.OrderRead, access.Resource{Type: "order"}); err != nil {
		return Chip{}, err
	}
	c, err := s.store.Chip(ctx, uid)
	if errors.Is(err, ErrNotFound) {
		return c, fault.New(fault.NotFound, "chip.unknown", fmt.Sprintf("chip %.80q is in no manifest that was imported", uid), "import its vendor's manifest: `hallmark chip import`")
	}
	return c, err
}

// Problem is an entry that was not taken.
type Problem struct {
	Entry int    `json:"entry"` // from 1
	Text  string `json:"text"`
}

// Report is what an import did.
type Report struct {
	Entries  int       `json:"entries"`
	Imported int       `json:"imported"`
	Known    int       `json:"known"`
	Refused  int       `json:"refused"`
	Problems []Problem `json:"problems,omitempty"` // the first of them
}

const (
	batch       = 500
	maxProblems = 100
)

// MayImport says whether caller may import manifests: to be asked before a large file is read. Import asks again.
func (s *Service) MayImport(ctx context.Context, caller access.Caller) error {
	return s.guard.Check(ctx, caller, access.ChipImport, instance)
}

// Import takes in a vendor's manifest as it is read. What was taken before changes nothing, so that an import that broke off is begun again. An entry that
// nobody of the vendor signed is told by its number; the others are taken.
func (s *Service) Import(ctx context.Context, caller access.Caller, vendor string, manifest io.Reader) (Report, error) {
	var rep Report
	if err := s.guard.Check(ctx, caller, access.ChipImport, instance); err != nil {
		return rep, err
	}
	signers, err := s.believed(ctx, vendor)
	if err != nil {
		return rep, err
	}
	im := &importing{s: s, caller: caller, vendor: vendor, rep: &rep}
	bad := Read(manifest, signers, func(i Item) error {
		im.failed = im.item(ctx, i)
		return im.failed
	})
	if im.failed == nil {
		im.failed = im.flush(ctx) // what came before something that is no manifest is good
	}
	if im.failed == nil && bad != nil {
		im.failed = fault.Newf(fault.Invalid, "chip.manifest", "manifest: %w", bad).With("ask the vendor for a manifest that is whole")
	}
	return rep, im.failed
}

func (s *Service) believed(ctx context.Context, id string) ([]*x509.Certificate, error) {
	v, err := s.store.Vendor(ctx, id)
	if errors.Is(err, ErrNotFound) || err == nil && !v.Ended.IsZero() {
		return nil, unknown(id)
	}
	if err != nil {
		return nil, err
	}
	return v.signers()
}

// importing is one import under way.
type importing struct {
	s      *Service
	caller access.Caller
	vendor string
	rep    *Report
	batch  []Chip
	at     []int // the entries' numbers
	failed error // of the store
}

func (im *importing) item(ctx context.Context, i Item) error {
	im.rep.Entries++
	if i.Err != nil {
		im.refuse(i.N, i.Err.Error())
		return nil //nolint:nilerr // it is told in the report, and the others are taken
	}
	i.Chip.Vendor = im.vendor
	im.batch, im.at = append(im.batch, i.Chip), append(im.at, i.N)
	if len(im.batch) < batch {
		return nil
	}
	return im.flush(ctx)
}

func (im *importing) refuse(n int, why string) {
	im.rep.Refused++
	if len(im.rep.Problems) < maxProblems {
		im.rep.Problems = append(im.rep.Problems, Problem{n, why})
	}
}

// Imported is the data of a chips.imported fact: one batch of a manifest.
type Imported struct {
	Vendor string `json:"vendor"`
	Chips  int    `json:"chips"`
	Digest string `json:"digest"` // SHA-256 over the digests of the entries, in the manifest's order: hex
}

func (im *importing) flush(ctx context.Context) error {
	if len(im.batch) == 0 {
		return nil
	}
	st, err := im.s.store.Take(ctx, im.batch, func(taken []Chip) (ledger.Fact, error) {
		h := sha256.New()
		for _, c := range taken {
			h.Write(c.Entry)
		}
		data, err := json.Marshal(Imported{im.vendor, len(taken), hex.EncodeToString(h.Sum(nil))})
		return ledger.New(ledger.KindChipsImported, im.s.now().UTC(), im.caller.ID, im.vendor, nil, data), err
	})
	if err != nil {
		return err
	}
	for i, x := range st {
		switch x {
		case Taken:
			im.rep.Imported++
		case Known:
			im.rep.Known++
		case Other:
			im.refuse(im.at[i], fmt.Sprintf("chip %s is known by another entry", im.batch[i].UID))
		}
	}
	im.batch, im.at = im.batch[:0], im.at[:0]
	return nil
}
