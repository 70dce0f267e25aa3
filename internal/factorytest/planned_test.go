package factorytest_test

import (
	"context"
	"crypto/x509"
	"runtime"
	"sync"
	"testing"

	"github.com/hallmark-iot/hallmark/factory"
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

// lists counts how often all orders are read.
type lists struct {
	factory.Store
	n *int
}

func (l lists) Orders(ctx context.Context, product, after string, limit int) ([]factory.Order, error) {
	*l.n++
	return l.Store.Orders(ctx, product, after, limit)
}

// orderCA is the CA of an order that is here.
func orderCA(t *testing.T, o *factorytest.OEM, id string) *x509.Certificate {
	t.Helper()
	row, err := o.DB.Order(t.Context(), id)
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
	return ca
}

// Whoever comes with a certificate of an order, open or not, has the server read that order and no other.
func TestToSayWhetherADeviceIsPlannedReadsOneOrder(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "line-1", o)
	read := 0
	o.With(t, func(c *factory.Config) { c.Store = lists{c.Store, &read} })
	for _, id := range []string{"ord-1", "ord-2"} {
		order(t, o, s, id, 2)
	}
	if _, err := o.Service.Cancel(t.Context(), o.Caller, "ord-1", "lost"); err != nil {
		t.Fatal(err)
	}
	read = 0
	for range 2 {
		for _, id := range []string{"ord-1", "ord-2"} {
			if is, err := o.Service.Planned(t.Context(), orderCA(t, o, id), "00112233445566778899aabbccddeeff"); err != nil || is {
				t.Errorf("%s: %v, %v", id, is, err)
			}
		}
	}
	if read != 0 {
		t.Errorf("all orders were read %d times", read)
	}
}

// The largest order that there may be is remembered in less than 100 MB.
func TestALargeOrdersSerialsTakeLittleMemory(t *testing.T) {
	const quota = wire.MaxQuota / 20
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "line-1", o)
	d, err := s.Descriptor("acme", o.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := o.Service.CreateOrder(t.Context(), o.Caller, o.Spec("ord-1", quota, d, s.ID())); err != nil {
		t.Fatal(err)
	}
	ca := orderCA(t, o, "ord-1")
	before := heap()
	var all sync.WaitGroup
	for range 4 { // at once: made once
		all.Go(func() {
			if is, err := o.Service.Planned(t.Context(), ca, "00112233445566778899aabbccddeeff"); err != nil || is {
				t.Errorf("%v, %v", is, err)
			}
		})
	}
	all.Wait()
	if now := heap(); now > before+100e6*quota/wire.MaxQuota {
		t.Errorf("%d bytes for each of %d devices", (now-before)/quota, quota)
	}
	runtime.KeepAlive(o)
}
