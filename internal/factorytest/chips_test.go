package factorytest_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory/chips"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
)

// desk is the OEM's service for chips, with a security officer and the second person who agrees.
func desk(t *testing.T, o *factorytest.OEM) (*chips.Service, access.Caller) {
	t.Helper()
	guard, err := access.NewGuard(o.DB)
	if err != nil {
		t.Fatal(err)
	}
	return chips.New(o.DB.Chips(), guard), access.Caller{ID: "person:sam", Kind: access.Person, Roles: []access.Role{access.Security}, Via: "token"}
}

func vendorOf(t *testing.T, s *chips.Service, sam access.Caller, id string) *factorytest.Vendor {
	t.Helper()
	v := factorytest.NewVendor(t)
	if _, err := s.Trust(t.Context(), sam, id, [][]byte{v.Cert.Raw}); err == nil {
		t.Fatal("one person pinned a vendor alone")
	}
	if _, err := s.Trust(t.Context(), sam.With(access.Caller{ID: "person:ada", Kind: access.Person, Roles: []access.Role{access.Security}, Via: "proposal", Seconded: sam.ID}), id, [][]byte{v.Cert.Raw}); err != nil {
		t.Fatal(err)
	}
	return v
}

// chipOrder is an order for n devices of chips of acme.
func chipOrder(t *testing.T, o *factorytest.OEM, s *station.Station, id string, n uint32) {
	t.Helper()
	d, err := s.Descriptor(o.ID, o.Now)
	if err != nil {
		t.Fatal(err)
	}
	spec := o.Spec(id, n, d, s.ID())
	spec.Chips = "acme"
	file, _, err := o.Service.CreateOrder(t.Context(), o.Caller, spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(bytes.NewReader(factorytest.Bytes(t, file)), o.Now); err != nil {
		t.Fatal(err)
	}
}

func TestAnOrderOfChipsThatCameWithKeys(t *testing.T) {
	o := factorytest.NewOEM(t, "acme-works")
	svc, sam := desk(t, o)
	acme, other := vendorOf(t, svc, sam, "acme"), vendorOf(t, svc, sam, "other")
	s, _ := softStation(t, "line-1", o)
	chipOrder(t, o, s, "order-1", 5)
	pieces := make([]*factorytest.Piece, 5)
	entries := make([]json.RawMessage, 5)
	for i := range pieces {
		pieces[i] = factorytest.NewPiece()
		key := factorytest.Key(t)
		entries[i] = acme.Said(t, pieces[i].UID, &key.PublicKey, nil)
		switch i {
		case 1: // its maker signed for the key, and the piece makes one of its own
		case 2: // of a vendor that is believed, and that the order does not want
			entries[i] = other.Said(t, pieces[i].UID, &key.PublicKey, nil)
			pieces[i].Inject(key)
		default:
			pieces[i].Inject(key)
		}
	}
	if _, _, err := run(t, o, s, "order-1", 5, pieces...); err != nil {
		t.Fatal(err)
	}
	file := export(t, o, s, "order-1")
	if rep := take(t, o, "order-1", file); rep.Waiting != 5 || rep.Accepted != 0 || len(rep.Alarms) != 0 {
		t.Fatalf("before any manifest: %+v", rep)
	}
	manifest := func(vendor string, want int, e ...json.RawMessage) {
		t.Helper()
		rep, err := svc.Import(t.Context(), sam, vendor, bytes.NewReader(factorytest.Manifest(e...)))
		if err != nil || rep.Imported != want {
			t.Fatalf("manifest of %s: %+v %v", vendor, rep, err)
		}
	}
	manifest("acme", 3, entries[0], entries[1], entries[2], entries[3]) // the other vendor's is refused here
	manifest("other", 1, entries[2])
	rep := take(t, o, "order-1", file)
	if rep.Accepted != 2 || rep.Waiting != 1 || len(rep.Alarms) != 2 {
		t.Fatalf("with manifests: %+v", rep)
	}
	for i, want := range map[int]string{1: "none of those that vendor acme signed", 2: "is of vendor other"} {
		found := false
		for _, a := range rep.Alarms {
			found = found || strings.Contains(a.Reason, want) && strings.Contains(a.Reason, hex.EncodeToString(pieces[i].UID))
		}
		if !found {
			t.Errorf("no alarm with %q in %+v", want, rep.Alarms)
		}
	}
	manifest("acme", 1, entries[4])
	if rep := take(t, o, "order-1", file); rep.Accepted != 1 || rep.Known != 4 || rep.Waiting != 0 || len(rep.Alarms) != 0 {
		t.Fatalf("with the last manifest: %+v", rep)
	}
	c, err := svc.Chip(t.Context(), sam, hex.EncodeToString(pieces[4].UID))
	if err != nil || c.Order != "order-1" || c.Device == "" || c.Vendor != "acme" {
		t.Fatalf("%+v %v", c, err)
	}
}

func TestAManifestIsTakenOnce(t *testing.T) {
	o := factorytest.NewOEM(t, "acme-works")
	svc, sam := desk(t, o)
	v := vendorOf(t, svc, sam, "acme")
	var entries []json.RawMessage
	uids := make([][]byte, 1203) // more than two batches
	for i := range uids {
		uids[i] = []byte{'c', 'h', 'i', 'p', '0', '0', byte(i >> 8), byte(i)}
		entries = append(entries, v.Said(t, uids[i], &factorytest.Key(t).PublicKey, nil))
	}
	for n, want := range []chips.Report{{Entries: 1203, Imported: 1203}, {Entries: 1203, Known: 1203}} {
		rep, err := svc.Import(t.Context(), sam, "acme", bytes.NewReader(factorytest.Manifest(entries...)))
		if err != nil || rep.Imported != want.Imported || rep.Known != want.Known || rep.Entries != want.Entries || rep.Refused != 0 {
			t.Fatalf("time %d: %+v %v", n, rep, err)
		}
	}
	// Another word about a chip that is known does not replace the first.
	again := v.Said(t, uids[7], &factorytest.Key(t).PublicKey, nil)
	rep, err := svc.Import(t.Context(), sam, "acme", bytes.NewReader(factorytest.Manifest(again)))
	if err != nil || rep.Refused != 1 || !strings.Contains(rep.Problems[0].Text, "another entry") {
		t.Fatalf("%+v %v", rep, err)
	}
	// What came before the file broke off is kept.
	more := v.Said(t, []byte("chip 99999"), &factorytest.Key(t).PublicKey, nil)
	torn := factorytest.Manifest(more, again)
	rep, err = svc.Import(t.Context(), sam, "acme", bytes.NewReader(torn[:len(torn)-40]))
	wantCode(t, err, "chip.manifest")
	if rep.Imported != 1 {
		t.Fatalf("%+v", rep)
	}
	if err := svc.End(t.Context(), sam, "acme", "its key was stolen"); err != nil {
		t.Fatal(err)
	}
	_, err = svc.Import(t.Context(), sam, "acme", bytes.NewReader(factorytest.Manifest(more)))
	wantCode(t, err, "chip.vendor")
	vs, err := svc.Vendors(t.Context(), o.Caller)
	if err != nil || len(vs) != 1 || vs[0].Chips != 1204 || vs[0].Ended.IsZero() {
		t.Fatalf("%+v %v", vs, err)
	}
}
