// Package comply says how a product stands by the controls of laws and standards, from what is measured now.
//
// Over all stages. A control is judged by a pure function over one snapshot of counts, and by what a person states about it where
// no measurement reaches. What it guarantees: a control is met only by evidence that is there and fresh, and, where a person has a
// part in it, by a statement that is on file and not past its review; what is missing, stale or not measured is unknown, and says
// so; every judgement gives its figures and where to look; a statement is a fact, with its author, and is never lost by a newer one.
// It trusts the stages' tables for what they count, and people for what they state: it says which of the two a standing rests on.
package comply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Errors of the store.
var (
	ErrNoProduct = errors.New("no such product")
	ErrNotFound  = errors.New("not found")
)

// Store counts, and keeps statements. Writes are durable, with their fact, when they return nil.
type Store interface {
	// Measure counts what there is of a product; ErrNoProduct. It may take seconds in a large fleet.
	Measure(ctx context.Context, product string, now time.Time) (Snapshot, error)
	// Statements gives a product's current statements, each with its fact if that has its place.
	Statements(ctx context.Context, product string) ([]Statement, error)
	// PutStatement stores it in the place of the one that is there, with the next revision. fact is made of the statement with it.
	PutStatement(ctx context.Context, s Statement, fact func(Statement) (ledger.Fact, error)) (Statement, error)
}

// A snapshot is good for a minute, and for costFactor times what it cost, so that counting is never more than a small part of
// what the machine does; but for no more than keepMost. One older than that is still shown while it is counted anew, and none that is tooOld.
const (
	keepFor    = time.Minute
	keepMost   = 10 * time.Minute
	costFactor = 20
	tooOld     = 15 * time.Minute
	slowAfter  = 50 * time.Millisecond  // what takes longer is not worth waiting for
	patience   = 100 * time.Millisecond // how long who looks at a page waits for what was never measured
)

// Service assesses.
type Service struct {
	guard     *access.Guard
	store     Store
	catalogue Catalogue
	judges    map[string]evaluator
	now       func() time.Time

	mu    sync.Mutex
	known map[string]*measured // by product; guarded by mu
}

// measured is a product's snapshot.
type measured struct {
	counting sync.Mutex // held by who counts

	mu       sync.Mutex
	snapshot Snapshot  // guarded by mu, as all below
	until    time.Time // good until then; zero: never counted
	slow     bool      // to count
}

// Config is what a Service needs.
type Config struct {
	Guard *access.Guard
	Store Store
	Now   func() time.Time // default time.Now
}

// NewService checks cfg and reads the catalogue.
func NewService(cfg Config) (*Service, error) {
	if cfg.Guard == nil || cfg.Store == nil {
		return nil, errors.New("comply: the guard or the store is missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c, err := Load()
	if err != nil {
		return nil, err
	}
	return &Service{guard: cfg.Guard, store: cfg.Store, catalogue: c, judges: evaluators(), now: cfg.Now, known: map[string]*measured{}}, nil
}

// Catalogue gives the frameworks.
func (s *Service) Catalogue() Catalogue { return s.catalogue }

// Counts are controls by standing.
type Counts map[Status]int

// Summary counts the controls of a framework.
type Summary struct {
	Framework string `json:"framework"`
	Title     string `json:"title"`
	Version   string `json:"version"`
	Counts    Counts `json:"counts"`
}

// Report is how a product stands.
type Report struct {
	Product  string       `json:"product"`
	AsOf     time.Time    `json:"as_of" doc:"when what is measured was counted"`
	Summary  []Summary    `json:"summary"`
	Controls []Assessment `json:"controls"`
}

// Report assesses a product by one framework, or by every one when it is empty.
func (s *Service) Report(ctx context.Context, caller access.Caller, product, framework string) (Report, error) {
	if err := s.guard.Check(ctx, caller, access.ComplianceRead, access.Resource{Type: "product", ID: product, Product: product}); err != nil {
		return Report{}, err
	}
	if framework != "" && !slices.ContainsFunc(s.catalogue, func(f Framework) bool { return f.ID == framework }) {
		return Report{}, noSuch("framework", framework)
	}
	snap, err := s.measure(ctx, product)
	if err != nil {
		return Report{}, err
	}
	on, err := s.store.Statements(ctx, product)
	if err != nil {
		return Report{}, err
	}
	r := Report{Product: product, AsOf: snap.At, Summary: []Summary{}, Controls: []Assessment{}}
	for _, f := range s.catalogue {
		if framework != "" && f.ID != framework {
			continue
		}
		sum := Summary{Framework: f.ID, Title: f.Title, Version: f.Version, Counts: Counts{}}
		for _, a := range s.assessAll(f, snap, on) {
			sum.Counts[a.Standing]++
			r.Controls = append(r.Controls, a)
		}
		r.Summary = append(r.Summary, sum)
	}
	return r, nil
}

// Get assesses one control.
func (s *Service) Get(ctx context.Context, caller access.Caller, product, framework, control string) (Assessment, time.Time, error) {
	r, err := s.Report(ctx, caller, product, framework)
	if err != nil {
		return Assessment{}, time.Time{}, err
	}
	for _, a := range r.Controls {
		if a.ID == control && a.Framework == framework {
			return a, r.AsOf, nil
		}
	}
	return Assessment{}, time.Time{}, noSuch("control", framework+"/"+control)
}

// State puts a person's words on file.
func (s *Service) State(ctx context.Context, caller access.Caller, product, framework, control string, w Words) (Statement, error) {
	if err := s.guard.Check(ctx, caller, access.ComplianceState, access.Resource{Type: "product", ID: product, Product: product}); err != nil {
		return Statement{}, err
	}
	c, ok := s.catalogue.Find(framework, control)
	if !ok {
		return Statement{}, noSuch("control", framework+"/"+control)
	}
	st, err := state(c, product, caller, w, s.now())
	if err != nil {
		return Statement{}, err
	}
	st, err = s.store.PutStatement(ctx, st, func(st Statement) (ledger.Fact, error) {
		data, err := json.Marshal(st)
		return ledger.New(ledger.KindComplianceStated, st.At, caller.ID, product, nil, data), err
	})
	if errors.Is(err, ErrNoProduct) {
		return Statement{}, noSuch("product", product)
	}
	return st, err
}

func noSuch(what, name string) error {
	return fault.New(fault.NotFound, "compliance."+what, fmt.Sprintf("no %s %q", what, name), "see `hallmark compliance list` and `hallmark product list`")
}

// measure gives the product's snapshot. One that is due is counted anew; where that takes long, who asks meanwhile is given the one
// before, which says when it is from.
func (s *Service) measure(ctx context.Context, product string) (Snapshot, error) {
	m := s.of(product)
	now := s.now()
	snap, good, slow := m.look(now)
	if good {
		return snap, nil
	}
	if slow && now.Sub(snap.At) < tooOld {
		_ = s.begin(ctx, product, m) // who comes next meets the error, when this one is too old
		return snap, nil
	}
	m.counting.Lock()
	defer m.counting.Unlock()
	if snap, good, _ := m.look(s.now()); good {
		return snap, nil
	}
	return s.count(ctx, product, m)
}

func (s *Service) of(product string) *measured {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.known[product]
	if m == nil {
		m = &measured{}
		s.known[product] = m
	}
	return m
}

// begin measures behind the caller's back, unless somebody does already: then what is given never ends.
func (s *Service) begin(ctx context.Context, product string, m *measured) <-chan error {
	if !m.counting.TryLock() {
		return nil
	}
	done := make(chan error, 1)
	go func() {
		defer m.counting.Unlock()
		_, err := s.count(context.WithoutCancel(ctx), product, m)
		done <- err
	}()
	return done
}

// Counted says whether a report of a product can be had without waiting. When it cannot, the product is measured from now on, and what is
// soon done is waited for.
func (s *Service) Counted(ctx context.Context, caller access.Caller, product string) (bool, error) {
	if err := s.guard.Check(ctx, caller, access.ComplianceRead, access.Resource{Type: "product", ID: product, Product: product}); err != nil {
		return false, err
	}
	m := s.of(product)
	if m.usable(s.now()) {
		return true, nil
	}
	done := s.begin(ctx, product, m)
	wait := time.NewTimer(patience)
	defer wait.Stop()
	if done == nil {
		wait.Reset(patience / 10) // somebody waits for it already
	}
	select {
	case err := <-done:
		return err == nil, err
	case <-wait.C:
		return m.usable(s.now()), nil
	}
}

// usable says whether measure does not wait.
func (m *measured) usable(now time.Time) bool {
	snap, good, slow := m.look(now)
	return good || slow && now.Sub(snap.At) < tooOld
}

// Warm measures a product, so that the first one to look does not wait for it.
func (s *Service) Warm(ctx context.Context, product string) error {
	_, err := s.measure(ctx, product)
	return err
}

func (m *measured) look(now time.Time) (snap Snapshot, good, slow bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snapshot, now.Before(m.until), m.slow
}

// count fills m, whose counting is held.
func (s *Service) count(ctx context.Context, product string, m *measured) (Snapshot, error) {
	begun := s.now().UTC()
	snap, err := s.store.Measure(ctx, product, begun)
	if errors.Is(err, ErrNoProduct) {
		s.mu.Lock()
		delete(s.known, product) // names that are made up are not remembered
		s.mu.Unlock()
		return Snapshot{}, noSuch("product", product)
	}
	if err != nil {
		return Snapshot{}, err
	}
	snap.At = begun
	took := s.now().Sub(begun)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.snapshot, m.until, m.slow = snap, begun.Add(min(max(keepFor, costFactor*took), keepMost)), took > slowAfter
	return snap, nil
}

// assessAll assesses the controls of a framework, the one about the others last.
func (s *Service) assessAll(f Framework, snap Snapshot, on []Statement) []Assessment {
	filed := map[string]*Statement{}
	for _, st := range on {
		if st.Framework == f.ID {
			filed[st.Control] = &st
		}
	}
	now := s.now()
	out := make([]Assessment, len(f.Controls))
	about := -1
	for i, c := range f.Controls {
		if c.Key() == aboutOthers {
			about = i
			continue
		}
		var j *Judgement
		if e, ok := s.judges[c.Key()]; ok {
			j = e.measure(snap)
		}
		out[i] = assess(c, j, filed[c.ID], now)
	}
	if about >= 0 {
		c := f.Controls[about]
		out[about] = assess(c, justified(out, snap.At), filed[c.ID], now)
	}
	return out
}

// aboutOthers is the control that is judged by how the others stand.
const aboutOthers = "etsi-en-303-645/5.0-1"

// Select gives the controls of one standing, behind the one whose key is after, at most limit; empty selects everything.
func (r Report) Select(standing Status, after string, limit int) []Assessment {
	var out []Assessment
	behind := after == ""
	for _, a := range r.Controls {
		if behind && (standing == "" || a.Standing == standing) && len(out) < limit {
			out = append(out, a)
		}
		behind = behind || a.Key() == after
	}
	return out
}
