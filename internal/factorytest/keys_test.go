package factorytest_test

import (
	"bytes"
	"crypto/ecdsa"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/wire"
)

// A station takes orders by any of the keys that its maker's people told it of, and of no other.
func TestAStationPinsSeveralOrderKeys(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	pinned, err := station.DecodeOEM(o.File(t))
	if err != nil {
		t.Fatal(err)
	}
	next := factorytest.Key(t)
	spki, err := wire.SPKIOf(next.Public())
	if err != nil {
		t.Fatal(err)
	}
	signed := func(id string, key *ecdsa.PrivateKey) []byte {
		file := order(t, o, s, id, 1)
		was := o.OrderKey
		defer func() { o.OrderKey = was }()
		f, err := wire.DecodeOrderFile(file)
		if err != nil {
			t.Fatal(err)
		}
		ord, err := wire.VerifyOrder(f.Order, was.Public())
		if err != nil {
			t.Fatal(err)
		}
		payload, err := wire.EncodeOrder(ord)
		if err != nil {
			t.Fatal(err)
		}
		if f.Order, err = wire.Sign1(wire.TypeOrder, payload, key); err != nil {
			t.Fatal(err)
		}
		out, err := wire.EncodeOrderFile(f)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	file := signed("ord-1", next)
	_, err = s.Import(bytes.NewReader(file), o.Now)
	wantCode(t, err, "order.signature")

	more := pinned
	more.OrderKeys = [][]byte{spki}
	if more.Fingerprint() == pinned.Fingerprint() {
		t.Fatal("a further key is not in the fingerprint")
	}
	wantCode(t, s.Trust(more), "oem.changed")
	wantCode(t, s.Change(more, pinned.Fingerprint()), "oem.fingerprint")
	other, err := station.DecodeOEM(factorytest.NewOEM(t, "acme").File(t))
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, s.Change(other, other.Fingerprint()), "oem.changed")
	twice := pinned
	twice.OrderKeys = [][]byte{spki, spki}
	wantCode(t, s.Change(twice, twice.Fingerprint()), "oem.invalid")

	if err := s.Change(more, more.Fingerprint()); err != nil {
		t.Fatal(err)
	}
	for _, f := range [][]byte{file, order(t, o, s, "ord-2", 1)} { // by the new key, and by the old one
		if _, err := s.Import(bytes.NewReader(f), o.Now); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.Import(bytes.NewReader(signed("ord-3", factorytest.Key(t))), o.Now)
	wantCode(t, err, "order.signature")

	if err := s.Change(pinned, pinned.Fingerprint()); err != nil { // the other was stolen
		t.Fatal(err)
	}
	_, _, err = run(t, o, s, "ord-1", 1)
	wantCode(t, err, "order.signature")
	if _, _, err := run(t, o, s, "ord-2", 1); err != nil {
		t.Fatal(err)
	}
}
