package factorytest_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/wire"
)

// zeros is a component of n bytes that is nowhere.
type zeros struct{ n int64 }

func (z *zeros) Read(b []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(b)), z.n)
	clear(b[:n])
	z.n -= n
	return int(n), nil
}

func (z *zeros) Close() error { return nil }

// largeOrder is an order for a release whose one component has size bytes, at the station.
func largeOrder(t *testing.T, o *factorytest.OEM, size int64) factory.OrderSpec {
	t.Helper()
	s, _ := softStation(t, "st-1", o)
	d, err := s.Descriptor(o.ID, o.Now)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, &zeros{size}); err != nil {
		t.Fatal(err)
	}
	o.Publish(t, wire.Component{Name: "app", Kind: wire.KindExec, Version: "2.0.0", Size: uint64(size), Digest: sum.Sum(nil), Health: wire.HealthAlive})
	spec := o.Spec("ord-1", 1, d, s.ID())
	spec.Params.Flash = wire.Flash{Size: 512 << 20, Erase: 4096, Slots: 2, SlotSize: 256 << 20}
	spec.Payload = func(context.Context, string) (io.ReadCloser, error) { return &zeros{size}, nil }
	return spec
}

// An order is wrapped in memory that does not grow with its firmware.
func TestFirmwareIsNotHeldInMemory(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	const size = 48 << 20
	spec := largeOrder(t, o, size)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w, _, err := o.Service.CreateOrder(t.Context(), o.Caller, spec)
	if err != nil {
		t.Fatal(err)
	}
	n := &counter{}
	if err := w.WriteFile(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n.n != w.Size() || n.n < size {
		t.Errorf("%d bytes, said to be %d", n.n, w.Size())
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > size/8 {
		t.Errorf("%d bytes were allocated for a firmware of %d", used, size)
	}
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) { c.n += int64(len(b)); return len(b), nil }

// A component that breaks off, or is another when it is read again, is no order and no file.
func TestComponentsThatChangeAreNotWrapped(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	const size = 3*wire.OrderChunk + 5
	good := largeOrder(t, o, size)
	reads := 0
	good.Payload = func(context.Context, string) (io.ReadCloser, error) {
		if reads++; reads == 2 {
			return nil, errors.New("the disk is gone")
		}
		return &zeros{size}, nil
	}
	_, _, err := o.Service.CreateOrder(t.Context(), o.Caller, good)
	wantCode(t, err, "order.invalid")
	if list, err := o.Service.List(t.Context(), o.Caller, ""); err != nil || len(list) != 0 {
		t.Fatalf("%v, %v", list, err)
	}
	good.Payload = func(context.Context, string) (io.ReadCloser, error) {
		reads++
		return &zeros{size - int64(reads/6)}, nil // shorter from the third time on
	}
	reads = 3
	w, _, err := o.Service.CreateOrder(t.Context(), o.Caller, good)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteFile(t.Context(), io.Discard); err == nil {
		t.Error("a component that was another meanwhile is in the file")
	}
}
