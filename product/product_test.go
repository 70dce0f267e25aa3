package product_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

type memory struct {
	all   map[string]product.Product
	facts []ledger.Fact
}

func (m *memory) PutProduct(_ context.Context, p product.Product, f ledger.Fact) error {
	if _, ok := m.all[p.ID]; ok {
		return product.ErrExists
	}
	m.all[p.ID], m.facts = p, append(m.facts, f)
	return nil
}

func (m *memory) Product(_ context.Context, id string) (product.Product, error) {
	if p, ok := m.all[id]; ok {
		return p, nil
	}
	return product.Product{}, product.ErrNotFound
}

func (m *memory) Products(context.Context) (out []product.Product, err error) {
	for _, p := range m.all {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b product.Product) int { return len(a.ID) - len(b.ID) })
	return out, nil
}

func (m *memory) SetEnrolment(_ context.Context, id string, e product.Enrolment, f ledger.Fact) error {
	p, ok := m.all[id]
	if !ok {
		return product.ErrNotFound
	}
	p.Enrolment = e
	m.all[id], m.facts = p, append(m.facts, f)
	return nil
}

func (m *memory) SetIsolation(_ context.Context, id string, layers []wire.Layer, f ledger.Fact) error {
	p, ok := m.all[id]
	if !ok {
		return product.ErrNotFound
	}
	p.Isolation = layers
	m.all[id], m.facts = p, append(m.facts, f)
	return nil
}

func (m *memory) SetSchema(_ context.Context, id string, s wire.Schema, f ledger.Fact) error {
	p, ok := m.all[id]
	if !ok {
		return product.ErrNotFound
	}
	p.Parameters = s
	m.all[id], m.facts = p, append(m.facts, f)
	return nil
}

func (m *memory) SetBundleDue(_ context.Context, id string, days int, f ledger.Fact) error {
	p, ok := m.all[id]
	if !ok {
		return product.ErrNotFound
	}
	p.BundleDue = days
	m.all[id], m.facts = p, append(m.facts, f)
	return nil
}

type audit struct{}

func (audit) Record(context.Context, access.Decision) error { return nil }

func lock(change func(*product.Product)) product.Product {
	p := product.Product{
		ID: "lock", OEM: "acme", Name: "Door lock", Hardware: []string{"a", "b"}, Model: wire.ModelAsset, Suite: "HM-P256-1",
		EndOfSupport: time.Now().Add(time.Hour * 24 * 365),
	}
	if change != nil {
		change(&p)
	}
	return p
}

func TestProducts(t *testing.T) {
	guard, err := access.NewGuard(audit{})
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{all: map[string]product.Product{}}
	s := product.New(guard, m, []string{"HM-P256-1"})
	admin := access.Caller{ID: "person:ada", Kind: access.Person, Roles: []access.Role{access.Admin}}
	for name, change := range map[string]func(*product.Product){
		"id":        func(p *product.Product) { p.ID = "Lock!" },
		"oem":       func(p *product.Product) { p.OEM = "" },
		"name":      func(p *product.Product) { p.Name = "" },
		"hardware":  func(p *product.Product) { p.Hardware = nil },
		"twice":     func(p *product.Product) { p.Hardware = []string{"a", "a"} },
		"model":     func(p *product.Product) { p.Model = "magic" },
		"suite":     func(p *product.Product) { p.Suite = "ROT13" },
		"enrolment": func(p *product.Product) { p.Enrolment.Mode = "anybody" },
		"support":   func(p *product.Product) { p.EndOfSupport = time.Time{} },
	} {
		if _, err := s.Create(t.Context(), admin, lock(change)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(m.facts) != 0 {
		t.Fatalf("%d facts of refused products", len(m.facts))
	}
	if _, err := s.Create(t.Context(), access.Caller{ID: "person:eve", Kind: access.Person}, lock(nil)); fault.KindOf(err) != fault.Denied {
		t.Errorf("a caller without a role: %v", err)
	}
	if _, err := s.Create(t.Context(), admin, lock(nil)); err != nil {
		t.Fatal(err)
	}
	var f *fault.Fault
	if _, err := s.Create(t.Context(), admin, lock(nil)); !errors.As(err, &f) || f.Code != "product.exists" {
		t.Errorf("twice: %v", err)
	}
	if len(m.facts) != 1 || m.facts[0].Kind != ledger.KindProductCreated || m.facts[0].Subject != "lock" {
		t.Errorf("facts: %+v", m.facts)
	}
	if _, err := s.Create(t.Context(), admin, lock(func(p *product.Product) { p.ID = "lamp" })); err != nil {
		t.Fatal(err)
	}
	viewer := access.Caller{ID: "person:vic", Kind: access.Person, Roles: []access.Role{access.Viewer}, Scope: []string{"lamp"}}
	if got, err := s.List(t.Context(), viewer); err != nil || len(got) != 1 || got[0].ID != "lamp" {
		t.Errorf("a caller with one product sees %+v, %v", got, err)
	}
	if _, err := s.Get(t.Context(), viewer, "lock"); fault.KindOf(err) != fault.Denied {
		t.Errorf("another's product: %v", err)
	}
	if _, err := s.Get(t.Context(), admin, "none"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("unknown: %v", err)
	}
}

func TestHowDevicesAreLetIn(t *testing.T) {
	guard, err := access.NewGuard(audit{})
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{all: map[string]product.Product{}}
	s := product.New(guard, m, []string{"HM-P256-1"})
	admin := access.Caller{ID: "person:ada", Kind: access.Person, Roles: []access.Role{access.Admin}}
	if p, err := s.Create(t.Context(), admin, lock(nil)); err != nil || p.Enrolment.Mode != product.Automatic {
		t.Fatalf("%+v, %v", p, err)
	}
	strict := product.Enrolment{Mode: product.Approved, Binding: true}
	for range 2 { // the second changes nothing, and is no fact
		if p, err := s.SetEnrolment(t.Context(), admin, "lock", strict); err != nil || p.Enrolment != strict {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	if len(m.facts) != 2 || m.facts[1].Kind != ledger.KindEnrolmentChanged || m.facts[1].Subject != "lock" {
		t.Errorf("facts: %+v", m.facts)
	}
	if _, err := s.SetEnrolment(t.Context(), admin, "lock", product.Enrolment{}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("no mode: %v", err)
	}
	if _, err := s.SetEnrolment(t.Context(), admin, "none", strict); fault.KindOf(err) != fault.NotFound {
		t.Errorf("no product: %v", err)
	}
	viewer := access.Caller{ID: "person:vic", Kind: access.Person, Roles: []access.Role{access.Viewer, access.Operator, access.Factory}}
	if _, err := s.SetEnrolment(t.Context(), viewer, "lock", strict); fault.KindOf(err) != fault.Denied {
		t.Errorf("who is neither administrator nor of security: %v", err)
	}
}

func TestHowLongADeviceMayStayBehind(t *testing.T) {
	guard, err := access.NewGuard(audit{})
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{all: map[string]product.Product{}}
	s := product.New(guard, m, []string{"HM-P256-1"})
	sue := access.Caller{ID: "person:sue", Kind: access.Person, Roles: []access.Role{access.Admin, access.Security}, Fresh: true}
	if p, err := s.Create(t.Context(), sue, lock(nil)); err != nil || p.BundleDays() != product.DefaultBundleDue {
		t.Fatalf("%+v, %v", p, err)
	}
	for range 2 { // the second changes nothing, and is no fact
		if p, err := s.SetBundleDue(t.Context(), sue, "lock", 30); err != nil || p.BundleDays() != 30 {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	if len(m.facts) != 2 || m.facts[1].Kind != ledger.KindBundleDueChanged || m.facts[1].Subject != "lock" {
		t.Errorf("facts: %+v", m.facts)
	}
	for _, days := range []int{-1, 0, product.MaxBundleDue + 1} {
		if _, err := s.SetBundleDue(t.Context(), sue, "lock", days); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%d days: %v", days, err)
		}
	}
	if _, err := s.SetBundleDue(t.Context(), sue, "none", 30); fault.KindOf(err) != fault.NotFound {
		t.Errorf("no product: %v", err)
	}
	viewer := access.Caller{ID: "person:vic", Kind: access.Person, Roles: []access.Role{access.Viewer, access.Operator, access.Factory}}
	if _, err := s.SetBundleDue(t.Context(), viewer, "lock", 30); fault.KindOf(err) != fault.Denied {
		t.Errorf("who may not publish a bundle: %v", err)
	}
}

// What is asked of the isolation of programs is layers that there are, each once; a change is a fact, and one who may not publish a bundle changes nothing.
func TestWhatHasToHoldPrograms(t *testing.T) {
	guard, err := access.NewGuard(audit{})
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{all: map[string]product.Product{}}
	s := product.New(guard, m, []string{"HM-P256-1"})
	sue := access.Caller{ID: "person:sue", Kind: access.Person, Roles: []access.Role{access.Admin, access.Security}, Fresh: true}
	if _, err := s.Create(t.Context(), sue, lock(nil)); err != nil {
		t.Fatal(err)
	}
	asked := []wire.Layer{wire.LayerFiles, wire.LayerCalls}
	for range 2 { // the second changes nothing, and is no fact
		if p, err := s.SetIsolation(t.Context(), sue, "lock", asked); err != nil || !slices.Equal(p.Isolation, asked) {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	if len(m.facts) != 2 || m.facts[1].Kind != ledger.KindIsolationChanged || !slices.Equal(m.all["lock"].Isolation, asked) {
		t.Errorf("facts: %+v", m.facts)
	}
	for what, layers := range map[string][]wire.Layer{"twice": {wire.LayerCalls, wire.LayerCalls}, "no layer": {"hope"}} {
		if _, err := s.SetIsolation(t.Context(), sue, "lock", layers); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.SetIsolation(t.Context(), sue, "none", asked); fault.KindOf(err) != fault.NotFound {
		t.Errorf("no product: %v", err)
	}
	viewer := access.Caller{ID: "person:vic", Kind: access.Person, Roles: []access.Role{access.Viewer, access.Operator, access.Factory}}
	if _, err := s.SetIsolation(t.Context(), viewer, "lock", nil); fault.KindOf(err) != fault.Denied {
		t.Errorf("who may not: %v", err)
	}
}

// A schema is a fact each time it changes, in one form; who only runs devices does not make one.
func TestWhichParametersDevicesHave(t *testing.T) {
	guard, err := access.NewGuard(audit{})
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{all: map[string]product.Product{}}
	s := product.New(guard, m, []string{"HM-P256-1"})
	maker := access.Caller{ID: "person:mia", Kind: access.Person, Roles: []access.Role{access.Admin, access.ReleaseManager}}
	if _, err := s.Create(t.Context(), maker, lock(nil)); err != nil {
		t.Fatal(err)
	}
	said := wire.Schema{{Name: "rate", Type: wire.TypeInteger}, {Name: "every", Type: wire.TypeDuration, Max: "90s", SetBy: []string{"security"}}}
	for range 2 {
		p, err := s.SetSchema(t.Context(), maker, "lock", said)
		if err != nil || p.Parameters[0].Name != "every" || p.Parameters[0].Max != "1m30s" {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	if len(m.facts) != 2 || m.facts[1].Kind != ledger.KindSchemaChanged || m.facts[1].Subject != "lock" {
		t.Errorf("facts: %+v", m.facts)
	}
	for what, bad := range map[string]wire.Schema{"a type": {{Name: "x", Type: "float"}}, "a role": {{Name: "x", Type: wire.TypeText, SetBy: []string{"king"}}}} {
		if _, err := s.SetSchema(t.Context(), maker, "lock", bad); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s that is none: %v", what, err)
		}
	}
	operator := access.Caller{ID: "person:olga", Kind: access.Person, Roles: []access.Role{access.Operator, access.Security}}
	if _, err := s.SetSchema(t.Context(), operator, "lock", nil); fault.KindOf(err) != fault.Denied {
		t.Errorf("who runs devices: %v", err)
	}
	if p, err := s.SetSchema(t.Context(), maker, "lock", nil); err != nil || len(p.Parameters) != 0 || len(m.facts) != 3 {
		t.Errorf("%+v, %v", p, err)
	}
}
