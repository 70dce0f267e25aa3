package factory

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Reconciliation compares what was ordered with what was made and seen.
type Reconciliation struct {
	Order string `json:"order"`
	State State  `json:"state"`
	Tally
	Missing uint32   `json:"missing"` // records the station must have and has not sent
	JobEnd  bool     `json:"job_end"` // the station has closed the order
	Blocked []string `json:"blocked"` // why the order cannot be closed now; empty: it can

	remedies []string // what to do about that, in the same order
	Unused   uint32   `json:"unused"` // tickets without a record

	FirstArticle bool        `json:"first_article"` // the order demands one
	Inspections  []Inspected `json:"inspections"`   // of first articles, oldest first
}

// Get gives one order.
func (s *Service) Get(ctx context.Context, caller access.Caller, id string) (Order, error) {
	o, err := s.open(ctx, caller, id)
	return o.shown(), err
}

func (s *Service) open(ctx context.Context, caller access.Caller, id string) (Order, error) {
	o, lookup := s.get(ctx, id)
	if err := s.c.Guard.Check(ctx, caller, access.OrderRead, resource(id, o.Product)); err != nil {
		return Order{}, err
	}
	return o, lookup
}

// List gives the orders of a product, newest first; all of them with an empty one.
func (s *Service) List(ctx context.Context, caller access.Caller, product string) ([]Order, error) {
	return s.Page(ctx, caller, product, "", 0)
}

// Page is List from behind the order after on, at most limit; 0: all.
func (s *Service) Page(ctx context.Context, caller access.Caller, product, after string, limit int) ([]Order, error) {
	if err := s.c.Guard.Check(ctx, caller, access.OrderRead, resource("", product)); err != nil {
		return nil, err
	}
	os, err := s.c.Store.Orders(ctx, product, after, limit)
	for i := range os {
		os[i] = os[i].shown()
	}
	return os, err
}

// Reconcile counts an order.
func (s *Service) Reconcile(ctx context.Context, caller access.Caller, id string) (Reconciliation, error) {
	o, err := s.open(ctx, caller, id)
	if err != nil {
		return Reconciliation{}, err
	}
	return s.reconcile(ctx, o)
}

func (s *Service) reconcile(ctx context.Context, o Order) (Reconciliation, error) {
	t, err := s.c.Store.Tally(ctx, o.ID)
	if err != nil {
		return Reconciliation{}, err
	}
	t.Ordered = o.Quota
	r := Reconciliation{Order: o.ID, State: o.State, Tally: t, JobEnd: len(o.JobEnd) > 0, Blocked: []string{}}
	r.Missing, r.Unused = t.LastSeq-t.Records, o.Quota-min(t.Records, o.Quota)
	r.FirstArticle = o.FirstArticle
	passed := false
	if r.Inspections, passed, err = s.inspected(ctx, o); err != nil {
		return r, err
	}
	block := func(remedy, format string, args ...any) {
		r.Blocked, r.remedies = append(r.Blocked, fmt.Sprintf(format, args...)), append(r.remedies, remedy)
	}
	const bring = "import the station's latest record file: `hallmark order import`"
	if o.State.Void() {
		block("", "the order was %s", o.State)
		return r, nil
	}
	if !r.JobEnd {
		block(bring, "the station has not closed the order")
		if r.Missing > 0 {
			block(bring, "%d records are missing", r.Missing)
		}
		return r, nil
	}
	v, err := s.verifier(ctx, o)
	if err != nil {
		return r, err
	}
	end, err := v.jobEnd(o.JobEnd)
	if err != nil {
		return r, fmt.Errorf("order %s: job end: %w", o.ID, err)
	}
	r.Missing = max(end.Records, t.LastSeq) - t.Records
	if r.Missing > 0 {
		block(bring, "%d records are missing", r.Missing)
		return r, nil
	}
	if same, err := s.closedWith(ctx, o, end, t); err != nil {
		return r, err
	} else if !same {
		block("ask the station for the records that it closed with: it was set back, or copied (`hallmark order differences`)", "the records are not those the station closed with")
	}
	if r.FirstArticle && !passed && t.Made > 0 {
		block("have a first article inspected at the station, and import its report", "devices were made, and no first article of it passed its inspection")
	}
	if r.FirstArticle && passed {
		early, err := s.early(ctx, o.ID, r.Inspections)
		if err != nil {
			return r, err
		}
		if early > 0 {
			block("nothing mends that: have those devices looked at, and abandon the order (`hallmark order abandon`)", "record %d is of a device that was made before a first article had passed its inspection", early)
		}
	}
	return r, nil
}

// closedWith reports whether the records that are here are those of the station's certificate: as many, as many of them made, the same last one, and the same tree over all. The records of an
// order that is closed were held against it then.
func (s *Service) closedWith(ctx context.Context, o Order, end wire.JobEnd, t Tally) (bool, error) {
	if end.Records != t.LastSeq || t.LastSeq > 0 && !bytes.Equal(end.Last, t.Last) || end.Made != t.Made+t.Refused || end.Scrapped != t.Scrapped+t.Interrupted {
		return false, nil
	}
	if o.State != Open {
		return true, nil
	}
	var tree wire.RecordTree
	for after := uint32(0); after < t.LastSeq; {
		some, err := s.c.Books.RecordsOf(ctx, o.ID, Every, after, treePage)
		if err != nil {
			return false, err
		}
		if len(some) == 0 {
			return false, nil
		}
		for _, k := range some {
			tree.Add(k.Envelope)
			after = k.Seq
		}
	}
	root := tree.Root()
	return bytes.Equal(root[:], end.Root), nil
}

// treePage is how many records are held in memory at once.
const treePage = 1000

// CloseOrder ends an order at the OEM: only when the station has ended it and every record is here.
func (s *Service) CloseOrder(ctx context.Context, caller access.Caller, id string) (Reconciliation, error) {
	o, lookup := s.get(ctx, id)
	if err := s.c.Guard.Check(ctx, caller, access.OrderClose, resource(id, o.Product)); err != nil {
		return Reconciliation{}, err
	}
	if lookup != nil {
		return Reconciliation{}, lookup
	}
	r, err := s.reconcile(ctx, o)
	if err != nil {
		return r, err
	}
	if len(r.Blocked) > 0 {
		code := "order.running"
		if o.State.Void() {
			return r, fault.New(fault.Conflict, "order.closed", fmt.Sprintf("order %s was %s", id, o.State), "what was made under it is a difference: `hallmark order differences`")
		}
		if r.Missing > 0 {
			code = "order.gap"
		}
		return r, fault.New(fault.Conflict, code, fmt.Sprintf("order %s cannot be closed: %s", id, strings.Join(r.Blocked, "; ")), strings.Join(slices.Compact(r.remedies), "; "))
	}
	r.State = Closed
	data, err := json.Marshal(struct {
		Reconciliation
		Certificate []byte `json:"job_end_certificate"`
	}{r, o.JobEnd})
	if err != nil {
		return r, err
	}
	now := s.c.Now().UTC().Truncate(time.Second)
	err = s.c.Store.EndOrder(ctx, id, Closed, now, ledger.New(ledger.KindOrderClosed, now, caller.ID, id, nil, data))
	if errors.Is(err, ErrChanged) {
		return r, fault.New(fault.Conflict, "order.closed", fmt.Sprintf("order %s is closed already", id), "see `hallmark order show`")
	}
	return r, err
}
