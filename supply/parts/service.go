package parts

import (
	"bufio"
	"context"
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
	"github.com/hallmark-iot/hallmark/wire"
)

// Bounds on what is written down.
const (
	MaxCertificate = 16 << 20 // bytes
	MaxLots        = 1000     // of one order
	maxNames       = 64
	maxText        = 200
)

// Config is what a Service works with; every field but Now must be set.
type Config struct {
	Catalogue Catalogue
	Orders    Orders
	Blobs     Blobs
	Guard     *access.Guard
	Now       func() time.Time // nil: time.Now
}

// Service is the verbs on suppliers, parts and lots.
type Service struct{ cfg Config }

// New checks cfg and makes the service.
func New(cfg Config) (*Service, error) {
	if cfg.Catalogue == nil || cfg.Orders == nil || cfg.Blobs == nil || cfg.Guard == nil {
		return nil, errors.New("parts: the catalogue, the orders, the blobs or the guard is missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg}, nil
}

func (s *Service) now() time.Time { return s.cfg.Now().UTC().Truncate(time.Millisecond) }

// manage asks whether caller may change what is of the whole instance.
func (s *Service) manage(ctx context.Context, caller access.Caller, kind, id string, grave bool) error {
	return s.cfg.Guard.Check(ctx, caller, access.PartsManage, access.Resource{Type: kind, ID: id, Grave: grave})
}

func (s *Service) read(ctx context.Context, caller access.Caller, kind, id string) error {
	return s.cfg.Guard.Check(ctx, caller, access.OrderRead, access.Resource{Type: kind, ID: id})
}

// fact tells of a thing as it is now.
func (s *Service) fact(kind ledger.Kind, at time.Time, caller access.Caller, subject string, thing any) (ledger.Fact, error) {
	data, err := json.Marshal(thing)
	return ledger.New(kind, at, caller.ID, subject, nil, data), err
}

func invalid(format string, args ...any) error {
	return fault.Newf(fault.Invalid, "parts.invalid", format, args...).
		With("correct it, and say it again")
}

// lists are the commands that show what there is.
var lists = map[string]string{"supplier": "see `hallmark supply supplier list`", "part": "see `hallmark supply part list`", "lot": "see `hallmark supply lot list`"}

// explain says what the store could not do for people.
func explain(err error, kind, id string) error {
	switch {
	case errors.Is(err, ErrNotFound):
		return fault.New(fault.NotFound, kind+".unknown", fmt.Sprintf("there is no %s %.80q", kind, id), lists[kind])
	case errors.Is(err, ErrExists):
		return fault.New(fault.Conflict, kind+".exists", fmt.Sprintf("there is such a %s already: %.80q", kind, id), "choose another ID, or look at the one that is there")
	case errors.Is(err, ErrChanged):
		return fault.New(fault.Conflict, kind+".changed", fmt.Sprintf("somebody else has just changed %s %.80q", kind, id), "look at it, and say it again")
	}
	return err
}

// named refuses an ID that is none, and texts that are no line for people.
func named(kind, id string, texts ...string) error {
	if !wire.ValidName(id) {
		return invalid("%s %.80q: want lower-case letters, digits, '-' and '.', at most 64", kind, id)
	}
	for _, t := range texts {
		if len(t) > maxText || t != strings.TrimSpace(t) || strings.ContainsFunc(t, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return invalid("%s %s: %.80q is no line of at most %d bytes", kind, id, t, maxText)
		}
	}
	return nil
}

// SetSupplier writes a supplier down, or changes it; one that was ended is taken again.
func (s *Service) SetSupplier(ctx context.Context, caller access.Caller, want Supplier) (Supplier, error) {
	had, err := s.cfg.Catalogue.Supplier(ctx, want.ID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Supplier{}, err
	}
	grave := !had.Ended.IsZero()
	if slices.ContainsFunc(want.called(), func(n string) bool { return !slices.Contains(had.called(), n) }) {
		products, err := s.cfg.Catalogue.Allowing(ctx, want.ID)
		if err != nil {
			return Supplier{}, err
		}
		grave = grave || len(products) > 0 // their gates let another name through from now on
	}
	if err := s.manage(ctx, caller, "supplier", want.ID, grave); err != nil {
		return Supplier{}, err
	}
	if err := named("supplier", want.ID, append([]string{want.Name, want.Site}, want.Names...)...); err != nil {
		return Supplier{}, err
	}
	if want.Name == "" || len(want.Names) > maxNames || slices.Contains(want.Names, "") {
		return Supplier{}, invalid("supplier %s: it needs a name, and at most %d more that bills of materials call it", want.ID, maxNames)
	}
	want.By, want.At, want.Ended, want.Rev = caller.ID, s.now(), time.Time{}, had.Rev
	f, err := s.fact(ledger.KindSupplierChanged, want.At, caller, want.ID, want)
	if err != nil {
		return Supplier{}, err
	}
	return want, explain(s.cfg.Catalogue.PutSupplier(ctx, want, f), "supplier", want.ID)
}

// called gives all names that a policy which names the supplier by its ID allows.
func (v Supplier) called() []string { return append(slices.Clone(v.Names), v.Name) }

// EndSupplier takes nothing of a supplier any more: it gets no new parts and lots, and gates that allow it allow it no more. What was built in stays built in.
func (s *Service) EndSupplier(ctx context.Context, caller access.Caller, id, reason string) (Supplier, error) {
	if err := s.manage(ctx, caller, "supplier", id, false); err != nil {
		return Supplier{}, err
	}
	v, err := s.cfg.Catalogue.Supplier(ctx, id)
	if err != nil {
		return Supplier{}, explain(err, "supplier", id)
	}
	if !v.Ended.IsZero() {
		return v, nil
	}
	v.By, v.At = caller.ID, s.now()
	v.Ended = v.At
	f, err := s.fact(ledger.KindSupplierChanged, v.At, caller, id, struct {
		Supplier
		Reason string `json:"reason"`
	}{v, reason})
	if err != nil {
		return Supplier{}, err
	}
	return v, explain(s.cfg.Catalogue.PutSupplier(ctx, v, f), "supplier", id)
}

// Supplier gives one.
func (s *Service) Supplier(ctx context.Context, caller access.Caller, id string) (Supplier, error) {
	if err := s.read(ctx, caller, "supplier", id); err != nil {
		return Supplier{}, err
	}
	v, err := s.cfg.Catalogue.Supplier(ctx, id)
	return v, explain(err, "supplier", id)
}

// Suppliers lists them by ID.
func (s *Service) Suppliers(ctx context.Context, caller access.Caller, after string, limit int) ([]Supplier, error) {
	if err := s.read(ctx, caller, "supplier", ""); err != nil {
		return nil, err
	}
	return s.cfg.Catalogue.Suppliers(ctx, after, limit)
}

// taken gives a supplier of whom something may be taken.
func (s *Service) taken(ctx context.Context, id string) error {
	v, err := s.cfg.Catalogue.Supplier(ctx, id)
	if err != nil {
		return explain(err, "supplier", id)
	}
	if !v.Ended.IsZero() {
		return fault.New(fault.Conflict, "supplier.ended", fmt.Sprintf("nothing is taken of supplier %s since %s", id, v.Ended.Format(time.DateOnly)), "take another, or have two people take it again: `hallmark supply supplier set`")
	}
	return nil
}

// SetPart writes a part down, or changes what is said of it. Whose it is stays.
func (s *Service) SetPart(ctx context.Context, caller access.Caller, want Part) (Part, error) {
	if err := s.manage(ctx, caller, "part", want.ID, false); err != nil {
		return Part{}, err
	}
	if err := named("part", want.ID, want.Name, want.Number, want.PURL); err != nil {
		return Part{}, err
	}
	if want.Kind != Hardware && want.Kind != Software || want.Name == "" {
		return Part{}, invalid("part %s: it needs a name, and is hardware or software", want.ID)
	}
	if want.PURL != "" && !strings.HasPrefix(want.PURL, "pkg:") {
		return Part{}, invalid("part %s: %.120q is no package URL: write it as pkg:golang/github.com/acme/lib", want.ID, want.PURL)
	}
	had, err := s.cfg.Catalogue.Part(ctx, want.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		err = s.taken(ctx, want.Supplier)
	case err == nil && (had.Supplier != want.Supplier || had.Kind != want.Kind):
		err = fault.New(fault.Conflict, "part.other", fmt.Sprintf("part %s is %s of supplier %s", want.ID, had.Kind, had.Supplier), "write another part down, with another ID")
	}
	if err != nil {
		return Part{}, err
	}
	want.By, want.At, want.Rev = caller.ID, s.now(), had.Rev
	f, err := s.fact(ledger.KindPartChanged, want.At, caller, want.ID, want)
	if err != nil {
		return Part{}, err
	}
	return want, explain(s.cfg.Catalogue.PutPart(ctx, want, f), "part", want.ID)
}

// Part gives one.
func (s *Service) Part(ctx context.Context, caller access.Caller, id string) (Part, error) {
	if err := s.read(ctx, caller, "part", id); err != nil {
		return Part{}, err
	}
	p, err := s.cfg.Catalogue.Part(ctx, id)
	return p, explain(err, "part", id)
}

// Parts lists those of a supplier by ID; all with an empty one.
func (s *Service) Parts(ctx context.Context, caller access.Caller, supplier, after string, limit int) ([]Part, error) {
	if err := s.read(ctx, caller, "part", ""); err != nil {
		return nil, err
	}
	return s.cfg.Catalogue.Parts(ctx, supplier, after, limit)
}

// Receive writes a lot down that came.
func (s *Service) Receive(ctx context.Context, caller access.Caller, want Lot) (Lot, error) {
	if err := s.manage(ctx, caller, "lot", want.ID, false); err != nil {
		return Lot{}, err
	}
	if err := named("lot", want.ID, want.Number); err != nil {
		return Lot{}, err
	}
	if want.Number == "" {
		return Lot{}, invalid("lot %s: it needs the supplier's number", want.ID)
	}
	p, err := s.cfg.Catalogue.Part(ctx, want.Part)
	if err != nil {
		return Lot{}, explain(err, "part", want.Part)
	}
	if p.Kind != Hardware {
		return Lot{}, fault.New(fault.Invalid, "lot.software", fmt.Sprintf("part %s is software: bills of materials say where it is", p.ID), "ask `hallmark advisory find` for its package URL")
	}
	if err := s.taken(ctx, p.Supplier); err != nil {
		return Lot{}, err
	}
	l := Lot{ID: want.ID, Part: want.Part, Number: want.Number, Received: want.Received.UTC().Truncate(time.Millisecond), By: caller.ID, At: s.now()}
	if want.Received.IsZero() {
		l.Received = l.At
	}
	if l.Received.After(l.At.Add(24 * time.Hour)) {
		return Lot{}, invalid("lot %s: it came at %s, which is to come", l.ID, l.Received.Format(time.RFC3339))
	}
	return s.put(ctx, caller, ledger.KindLotReceived, l)
}

func (s *Service) put(ctx context.Context, caller access.Caller, kind ledger.Kind, l Lot) (Lot, error) {
	f, err := s.fact(kind, l.At, caller, l.ID, l)
	if err != nil {
		return Lot{}, err
	}
	return l, explain(s.cfg.Catalogue.PutLot(ctx, l, f), "lot", l.ID)
}

// MayCertify says whether Certify might be allowed, before anything is read.
func (s *Service) MayCertify(ctx context.Context, caller access.Caller, id string) error {
	return s.manage(ctx, caller, "lot", id, false)
}

// Certify keeps a lot's certificate of conformity; the same again changes nothing. Another than it has takes two people.
func (s *Service) Certify(ctx context.Context, caller access.Caller, id string, r io.Reader) (Lot, error) {
	if err := s.MayCertify(ctx, caller, id); err != nil {
		return Lot{}, err
	}
	l, err := s.cfg.Catalogue.Lot(ctx, id)
	if err != nil {
		return Lot{}, explain(err, "lot", id)
	}
	in := bufio.NewReader(r)
	if _, err := in.Peek(1); errors.Is(err, io.EOF) {
		return Lot{}, invalid("lot %s: its certificate is empty", id)
	}
	digest, size, err := s.cfg.Blobs.Put(ctx, in, MaxCertificate)
	if err != nil {
		return Lot{}, err
	}
	is := hex.EncodeToString(digest[:])
	switch {
	case l.Certificate == is:
		return l, nil
	case l.Certificate != "":
		if err := s.manage(ctx, caller, "lot", id, true); err != nil {
			return Lot{}, err
		}
	}
	l.Certificate, l.Size, l.By, l.At = is, size, caller.ID, s.now()
	return s.put(ctx, caller, ledger.KindLotCertified, l)
}

// Recall says that a lot is bad. Who watches the fleet is told, with the devices that may have a part of it.
func (s *Service) Recall(ctx context.Context, caller access.Caller, id, reason string) (Lot, error) {
	if err := s.manage(ctx, caller, "lot", id, false); err != nil {
		return Lot{}, err
	}
	l, err := s.cfg.Catalogue.Lot(ctx, id)
	if err != nil || !l.Recalled.IsZero() {
		return l, explain(err, "lot", id)
	}
	l.Reason, l.By, l.At = reason, caller.ID, s.now()
	l.Recalled = l.At
	return s.put(ctx, caller, ledger.KindLotRecalled, l)
}

// Clear says that a lot that was recalled is good after all. It takes two people.
func (s *Service) Clear(ctx context.Context, caller access.Caller, id, reason string) (Lot, error) {
	if err := s.manage(ctx, caller, "lot", id, true); err != nil {
		return Lot{}, err
	}
	l, err := s.cfg.Catalogue.Lot(ctx, id)
	if err != nil || l.Recalled.IsZero() {
		return l, explain(err, "lot", id)
	}
	l.Reason, l.By, l.At, l.Recalled = reason, caller.ID, s.now(), time.Time{}
	return s.put(ctx, caller, ledger.KindLotCleared, l)
}

// Lot gives one.
func (s *Service) Lot(ctx context.Context, caller access.Caller, id string) (Lot, error) {
	if err := s.read(ctx, caller, "lot", id); err != nil {
		return Lot{}, err
	}
	l, err := s.cfg.Catalogue.Lot(ctx, id)
	return l, explain(err, "lot", id)
}

// Lots lists those of a part by ID; all with an empty one.
func (s *Service) Lots(ctx context.Context, caller access.Caller, part, after string, limit int) ([]Lot, error) {
	if err := s.read(ctx, caller, "lot", ""); err != nil {
		return nil, err
	}
	return s.cfg.Catalogue.Lots(ctx, part, after, limit)
}

// OpenCertificate gives a lot's certificate as it was taken; whoever reads it closes it.
func (s *Service) OpenCertificate(ctx context.Context, caller access.Caller, id string) (io.ReadSeekCloser, error) {
	l, err := s.Lot(ctx, caller, id)
	if err != nil {
		return nil, err
	}
	if l.Certificate == "" {
		return nil, fault.New(fault.NotFound, "lot.no-certificate", fmt.Sprintf("lot %s has no certificate of conformity here", id), "bring it: `hallmark supply lot certify`")
	}
	digest, err := hex.DecodeString(l.Certificate)
	if err != nil || len(digest) != 32 {
		return nil, fmt.Errorf("stored lot %s: its certificate's digest is damaged", id)
	}
	return s.cfg.Blobs.Open(ctx, [32]byte(digest))
}
