package store_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/blob"
	"github.com/hallmark-iot/hallmark/internal/blob/files"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/parts"
)

// built is an instance whose factory names what it builds in.
type built struct {
	*stages
	parts *parts.Service
}

func newBuilt(t *testing.T, s *stages) *built {
	t.Helper()
	place, err := files.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	blobs := blob.New(place, s.db.Blobs())
	b := &built{stages: s}
	if b.parts, err = parts.New(parts.Config{Catalogue: s.db.Parts(), Orders: s.db.Parts(), Blobs: blobs, Guard: s.guard, Now: func() time.Time { return s.now }}); err != nil {
		t.Fatal(err)
	}
	_, e1 := b.parts.SetSupplier(t.Context(), person("carol"), parts.Supplier{ID: "acme-memory", Name: "Acme Memory", Names: []string{"ACME Memory GmbH"}})
	_, e2 := b.parts.SetPart(t.Context(), person("carol"), parts.Part{ID: "flash", Supplier: "acme-memory", Kind: parts.Hardware, Name: "NOR flash"})
	if err := errors.Join(e1, e2); err != nil {
		t.Fatal(err)
	}
	for _, lot := range []string{"l-1", "l-2", "l-3"} {
		if _, err := b.parts.Receive(t.Context(), person("carol"), parts.Lot{ID: lot, Part: "flash", Number: lot}); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// order makes an order with devices of a product; the store is asked as the factory asks it.
func (b *built) order(id, product string, devices int, lots ...string) error {
	f := ledger.New(ledger.KindOrderCreated, b.now, "test", id, nil, []byte("{}"))
	o := factory.Order{ID: id, UID: f.UID, Product: product, State: factory.Open, Created: b.now, Lots: lots}
	if err := b.db.CreateOrder(b.t.Context(), o, f); err != nil {
		return err
	}
	for i := range devices {
		row := store.ProvisionedRow{ID: fmt.Sprintf("%s-%03d", id, i), Product: product, Hardware: "A", Order: id, Station: "s", At: b.now, AttestKey: []byte(fmt.Sprint(id, i)), KeyOrigin: "soft"}
		if err := b.db.Write(b.t.Context(), func(tx *store.Tx) error { return store.PutProvisioned(tx, row) }); err != nil {
			return err
		}
	}
	return nil
}

// walk gives all devices of a lot, page by page.
func (b *built) walk(lot string, scope []string) (ids []string) {
	b.t.Helper()
	for after := ""; ; {
		page, err := b.db.Parts().Devices(b.t.Context(), lot, scope, after, 7)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, d := range page {
			ids = append(ids, d.Device)
		}
		if len(page) < 7 {
			return ids
		}
		after = page[6].Key()
	}
}

// A lot's devices are those of the orders that name it: each once, whatever the pages are, and as far as the caller's scope goes.
func TestALotsDevicesAreThoseOfItsOrders(t *testing.T) {
	b := newBuilt(t, newStages(t, "blob"))
	if err := errors.Join(b.order("ord-a", "pump", 14, "l-1"), b.order("ord-b", "valve", 5), b.order("ord-c", "pump", 9, "l-1", "l-2"), b.order("ord-d", "pump", 3)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.parts.Name(t.Context(), person("carol"), "ord-b", []string{"l-1", "l-1"}); err != nil { // while it runs
		t.Fatal(err)
	}
	if err := b.db.Devices().GroupDevices(t.Context(), []device.Grouping{{Device: "ord-c-004", To: "eu/berlin"}}, "eu/berlin", nil); err != nil {
		t.Fatal(err)
	}
	all := b.walk("l-1", nil)
	if len(all) != 28 || !slices.IsSorted(all) || len(slices.Compact(slices.Clone(all))) != 28 || slices.ContainsFunc(all, func(id string) bool { return strings.HasPrefix(id, "ord-d") }) {
		t.Errorf("%d devices: %v", len(all), all)
	}
	for _, c := range []struct {
		lot   string
		scope []string
		want  int
	}{{"l-1", nil, 28}, {"l-1", []string{"pump"}, 23}, {"l-1", []string{"valve"}, 5}, {"l-1", []string{"pump/eu"}, 1}, {"l-1", []string{"pump/eu", "valve"}, 6}, {"l-1", []string{"pump/us"}, 0}, {"l-2", nil, 9}, {"l-3", nil, 0}} {
		n, err := b.db.Parts().Count(t.Context(), c.lot, c.scope)
		if got := len(b.walk(c.lot, c.scope)); err != nil || int(n) != c.want || got != c.want {
			t.Errorf("%s in %v: %d counted, %d listed, %v; want %d", c.lot, c.scope, n, got, err, c.want)
		}
	}
	if lots, err := b.parts.OfDevice(t.Context(), person("carol"), "ord-c-000"); err != nil || len(lots) != 2 || lots[0].ID != "l-1" {
		t.Errorf("of a device: %+v, %v", lots, err)
	}
	if _, err := b.parts.Unname(t.Context(), person("carol"), "ord-b", "l-1", "the other line"); codeOf(err) != "access.four-eyes" {
		t.Errorf("one person hides devices: %v", err)
	}
	if lots, err := b.parts.Unname(t.Context(), together("carol", "dora"), "ord-b", "l-1", "the other line"); err != nil || len(lots) != 0 || len(b.walk("l-1", nil)) != 23 {
		t.Errorf("taken by two: %+v, %v", lots, err)
	}
	limited := person("carol")
	limited.Scope = []string{"valve"}
	if got, err := b.parts.Devices(t.Context(), limited, "l-2", "", 50); err != nil || len(got) != 0 {
		t.Errorf("who has another product: %v, %v", got, err)
	}
	if _, err := b.parts.Name(t.Context(), limited, "ord-a", []string{"l-2"}); codeOf(err) != "access.denied" {
		t.Errorf("who has another product names lots: %v", err)
	}
}

// No order is created with what is known to be bad, or is not there, and then nothing of it is.
func TestAnOrderOfABadLotIsNone(t *testing.T) {
	b := newBuilt(t, newStages(t, "blob"))
	if _, err := b.parts.Recall(t.Context(), person("carol"), "l-2", "it forgets"); err != nil {
		t.Fatal(err)
	}
	for lot, recalled := range map[string]bool{"l-2": true, "l-9": false} {
		var bad *factory.LotError
		if err := b.order("ord-1", "pump", 0, "l-1", lot); !errors.As(err, &bad) || bad.Lot != lot || bad.Recalled != recalled {
			t.Errorf("%s: %v", lot, err)
		}
	}
	if _, err := b.db.Order(t.Context(), "ord-1"); !errors.Is(err, factory.ErrNotFound) {
		t.Errorf("it is there all the same: %v", err)
	}
	if err := b.order("ord-1", "pump", 0, "l-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.parts.Name(t.Context(), person("carol"), "ord-1", []string{"l-2"}); err != nil {
		t.Errorf("what was built in cannot be said: %v", err)
	}
	if _, err := b.parts.Name(t.Context(), person("carol"), "ord-1", []string{"l-3", "l-9"}); codeOf(err) != "lot.unknown" {
		t.Errorf("a lot that is not there: %v", err)
	}
	if lots, err := b.parts.OfOrder(t.Context(), person("carol"), "ord-1"); err != nil || len(lots) != 2 {
		t.Errorf("%+v, %v", lots, err)
	}
	if _, err := b.parts.Clear(t.Context(), person("carol"), "l-2", "another"); codeOf(err) != "access.four-eyes" {
		t.Errorf("cleared by one: %v", err)
	}
	if l, err := b.parts.Clear(t.Context(), together("carol", "dora"), "l-2", "another"); err != nil || !l.Recalled.IsZero() {
		t.Errorf("%+v, %v", l, err)
	}
}

// A certificate is given out as it came; another in its place takes two.
func TestACertificateIsKeptAsItCame(t *testing.T) {
	b := newBuilt(t, newStages(t, "blob"))
	for _, again := range []int{1, 2} {
		if _, err := b.parts.Certify(t.Context(), person("carol"), "l-1", strings.NewReader("we declare")); err != nil {
			t.Fatal(again, err)
		}
	}
	if _, err := b.parts.Certify(t.Context(), person("carol"), "l-1", strings.NewReader("we declare other things")); codeOf(err) != "access.four-eyes" {
		t.Errorf("another by one person: %v", err)
	}
	if _, err := b.parts.Certify(t.Context(), person("carol"), "l-2", strings.NewReader("")); codeOf(err) != "parts.invalid" {
		t.Errorf("an empty one: %v", err)
	}
	f, err := b.parts.OpenCertificate(t.Context(), person("carol"), "l-1")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || string(got) != "we declare" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := b.parts.OpenCertificate(t.Context(), person("carol"), "l-2"); codeOf(err) != "lot.no-certificate" {
		t.Errorf("none: %v", err)
	}
}

// A policy may allow suppliers by what is written down of them: by all their names, no name more without a second person, and no more once one was ended.
func TestAPolicyAllowsSuppliersByTheirIDs(t *testing.T) {
	g := newGated(t, supply.Enforce)
	b := newBuilt(t, g.stages)
	g.fresh()
	g.policy.SupplierIDs = []string{"acme-memory", "acme-radio"}
	if _, err := g.supply.SetPolicy(t.Context(), together("carol", "dora"), "pump", g.policy); codeOf(err) != "supply.policy" {
		t.Errorf("a supplier that is not there: %v", err)
	}
	g.policy.SupplierIDs = []string{"acme-memory"}
	if _, err := g.supply.SetPolicy(t.Context(), together("carol", "dora"), "pump", g.policy); err != nil {
		t.Fatal(err)
	}
	passes := func(name string) bool {
		t.Helper()
		bill := strings.Replace(billOf("program 1.0.0", aboutLib), `"bom-ref":"c0",`, `"bom-ref":"c0","supplier":{"name":"`+name+`"},`, 1)
		d, err := g.supply.Gate(t.Context(), person("carol"), g.manifest("1.0.0", bill))
		if err != nil {
			t.Fatal(err)
		}
		return d.Steps[1].OK
	}
	for name, want := range map[string]bool{"Acme Memory": true, "ACME Memory GmbH": true, "acme-memory": false, "Acme Evil": false} {
		if passes(name) != want {
			t.Errorf("%s passes: %v", name, !want)
		}
	}
	wider := parts.Supplier{ID: "acme-memory", Name: "Acme Memory", Names: []string{"ACME Memory GmbH", "Acme Evil"}}
	if _, err := b.parts.SetSupplier(t.Context(), person("carol"), wider); codeOf(err) != "access.four-eyes" {
		t.Errorf("one person lets another through: %v", err)
	}
	wider.Name, wider.Names = "Acme Evil", nil
	if _, err := b.parts.SetSupplier(t.Context(), person("carol"), wider); codeOf(err) != "access.four-eyes" {
		t.Errorf("one person lets another through by its name: %v", err)
	}
	if _, err := b.parts.EndSupplier(t.Context(), person("carol"), "acme-memory", "no more"); err != nil || passes("Acme Memory") {
		t.Errorf("ended, and its parts pass: %v", err)
	}
	if _, err := b.parts.SetSupplier(t.Context(), person("carol"), parts.Supplier{ID: "acme-memory", Name: "Acme Memory"}); codeOf(err) != "access.four-eyes" {
		t.Errorf("one person takes it again: %v", err)
	}
	if _, err := b.parts.Receive(t.Context(), person("carol"), parts.Lot{ID: "l-4", Part: "flash", Number: "4"}); codeOf(err) != "supplier.ended" {
		t.Errorf("a lot of who was ended: %v", err)
	}
}

// A policy that only warns is enforced when somebody says so: what a supplier is called is not widened by one person before that.
func TestNobodyWidensASupplierBeforeTheGateIsEnforced(t *testing.T) {
	for mode, want := range map[supply.Mode]string{supply.Off: "", supply.Warn: "access.four-eyes", supply.Enforce: "access.four-eyes"} {
		g := newGated(t, supply.Warn)
		b := newBuilt(t, g.stages)
		g.policy.Mode, g.policy.SupplierIDs = mode, []string{"acme-memory"}
		if _, err := g.supply.SetPolicy(t.Context(), together("carol", "dora"), "pump", g.policy); err != nil {
			t.Fatal(err)
		}
		wider := parts.Supplier{ID: "acme-memory", Name: "Acme Memory", Names: []string{"ACME Memory GmbH", "Acme Evil"}}
		if _, err := b.parts.SetSupplier(t.Context(), person("carol"), wider); codeOf(err) != want {
			t.Errorf("under a policy that is %s one person widens it: %v", mode, err)
		}
	}
}

// The bound is of all that an order names, in however many calls.
func TestAnOrderNamesAThousandLots(t *testing.T) {
	b := newBuilt(t, newStages(t, "blob"))
	if err := b.order("ord-a", "pump", 1, "l-1"); err != nil {
		t.Fatal(err)
	}
	var lots []string
	for i := range parts.MaxLots {
		l := parts.Lot{ID: fmt.Sprintf("many-%d", i), Part: "flash", Number: fmt.Sprintf("n%d", i)}
		if err := b.db.Parts().PutLot(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		lots = append(lots, l.ID)
	}
	if _, err := b.parts.Name(t.Context(), person("carol"), "ord-a", lots); codeOf(err) != "order.lots" {
		t.Errorf("a thousand beside one: %v", err)
	}
	if named, err := b.parts.OfOrder(t.Context(), person("carol"), "ord-a"); err != nil || len(named) != 1 {
		t.Errorf("%d are named: %v", len(named), err)
	}
	for _, half := range [][]string{lots[:500], lots[500:999], lots[:999]} {
		if _, err := b.parts.Name(t.Context(), person("carol"), "ord-a", half); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.parts.Name(t.Context(), person("carol"), "ord-a", lots[999:]); codeOf(err) != "order.lots" {
		t.Errorf("one more than a thousand: %v", err)
	}
}

// What the log tells of suppliers, parts and lots makes them again; what is private of it is not there, so that a gate allows nothing of a supplier until its names are said again.
func TestPartsComeBackFromTheLog(t *testing.T) {
	r := newRig(t)
	r.grow(t, 5)
	old := r.backup(t)
	at := time.UnixMilli(1_800_000_000_000)
	for _, f := range []struct {
		kind    ledger.Kind
		subject string
		data    string
	}{
		{ledger.KindSupplierChanged, "s", `{"id":"s","name":"Acme","at":"2026-01-01T00:00:00Z"}`},
		{ledger.KindPartChanged, "p", `{"id":"p","supplier":"s","kind":"hardware","name":"flash","at":"2026-01-01T00:00:00Z"}`},
		{ledger.KindLotReceived, "l", `{"id":"l","part":"p","number":"7","at":"2026-01-01T00:00:00Z"}`},
		{ledger.KindLotCertified, "l", `{"id":"l","part":"p","number":"7","certificate":"00","at":"2026-01-01T00:00:00Z"}`},
		{ledger.KindLotRecalled, "l", `{"id":"l","part":"p","number":"7","certificate":"00","recalled":"2026-01-02T00:00:00Z","reason":"bad","at":"2026-01-02T00:00:00Z"}`},
		{ledger.KindOrderLotsNamed, "o", `{"order":"o","lots":["l","m"]}`},
		{ledger.KindOrderLotsTaken, "o", `{"order":"o","lots":["m"],"reason":"not so"}`},
	} {
		appendAll(t, r.db, oneLog(ledger.New(f.kind, at, "person:a", f.subject, nil, []byte(f.data)))...)
	}
	r.grow(t, 5)
	if err := old.Replay(t.Context(), ledger.Events, 5, r.entries(t, 5), map[ledger.Kind]store.Replayed{}); err != nil {
		t.Fatal(err)
	}
	if v, err := old.Parts().Supplier(t.Context(), "s"); err != nil || v.Name != "" || v.Rev != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	if lots, err := old.Parts().OrderLots(t.Context(), "o"); err != nil || len(lots) != 1 || lots[0].Certificate != "00" || lots[0].Recalled.IsZero() || lots[0].Rev != 3 {
		t.Errorf("%+v, %v", lots, err)
	}
}
