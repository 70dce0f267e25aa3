package factorytest_test

import (
	"crypto/x509"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/wire"
)

// A device that comes before its record is one that was planned, as long as its order is open; one that nobody ordered is not.
func TestADeviceIsPlannedBeforeItsRecordComes(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "line-1", o)
	imported(t, o, s, "ord-1", 2)
	rep, _, err := run(t, o, s, "ord-1", 1, factorytest.NewPiece())
	if err != nil || len(rep.Devices) != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	row, err := o.Service.Get(t.Context(), o.Caller, "ord-1")
	if err != nil {
		t.Fatal(err)
	}
	order, err := wire.VerifyOrder(row.Envelope, o.OrderKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(order.Header.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	product, err := x509.ParseCertificate(order.Header.Chain[1])
	if err != nil {
		t.Fatal(err)
	}
	stranger := "00112233445566778899aabbccddeeff"
	for n := range 3 { // asked again, it is remembered
		if n == 2 { // the order stays one of ours
			o.Rotate(t)
		}
		for _, c := range []struct {
			ca   *x509.Certificate
			id   string
			want bool
		}{{ca, rep.Devices[0], true}, {ca, stranger, false}, {product, rep.Devices[0], false}} {
			if got, err := o.Service.Planned(t.Context(), c.ca, c.id); err != nil || got != c.want {
				t.Errorf("device %s under %q: %v, %v", c.id, c.ca.Subject, got, err)
			}
		}
	}
	if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
		t.Fatal(err)
	}
	take(t, o, "ord-1", export(t, o, s, "ord-1"))
	if _, err := o.Service.CloseOrder(t.Context(), o.Caller, "ord-1"); err != nil {
		t.Fatal(err)
	}
	if got, err := o.Service.Planned(t.Context(), ca, rep.Devices[0]); err != nil || got {
		t.Errorf("of a closed order: %v, %v", got, err)
	}
}
