package factorytest_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/station/module/soft"
	"github.com/hallmark-iot/hallmark/wire"
)

// benchStation is a station with the soft module, for tests and benchmarks of many.
func benchStation(b testing.TB, o *factorytest.OEM) *station.Station {
	b.Helper()
	dir := b.TempDir()
	if err := station.WriteConfig(dir, station.Config{Name: "st-1"}); err != nil {
		b.Fatal(err)
	}
	m, err := soft.Create(dir, []byte(pin))
	if err != nil {
		b.Fatal(err)
	}
	s, err := station.Open(dir, m)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	trust(b, o, s)
	return s
}

func trust(b testing.TB, o *factorytest.OEM, s *station.Station) {
	b.Helper()
	f, err := station.DecodeOEM(o.File(b))
	if err == nil {
		err = s.Trust(f)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// ordered brings an order of n to the station.
func ordered(b testing.TB, o *factorytest.OEM, s *station.Station, n int) {
	b.Helper()
	d, err := s.Descriptor(o.ID, o.Now)
	if err != nil {
		b.Fatal(err)
	}
	file, _, err := o.Service.CreateOrder(b.Context(), o.Caller, o.Spec("ord-1", uint32(n), d, s.ID()))
	if err == nil {
		_, err = s.Import(bytes.NewReader(factorytest.Bytes(b, file)), o.Now)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// onTheLine is how many pieces are made at once. Pieces that take no time to write wait for the disk only, and share its syncs.
const onTheLine = 32

// made makes n virtual devices that take no time to write.
func made(b testing.TB, o *factorytest.OEM, s *station.Station, n int, shared bool, progress func(wire.Record)) {
	b.Helper()
	src, err := factorytest.NewInstant(shared)
	if err != nil {
		b.Fatal(err)
	}
	rep, err := s.Run(b.Context(), station.RunSpec{Order: "ord-1", Devices: n, Parallel: onTheLine, Now: func() time.Time { return o.Now }, Progress: progress}, src)
	if err != nil || rep.Made != n {
		b.Fatalf("%d made of %d, %d scrapped: %v", rep.Made, n, rep.Scrapped, err)
	}
}

// exported gives the records of the order.
func exported(b testing.TB, o *factorytest.OEM, s *station.Station) []byte {
	b.Helper()
	path := filepath.Join(b.TempDir(), "records")
	if _, err := s.Export("ord-1", path, 0, o.Now); err != nil {
		b.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	return file
}

// longRun is made, with what the heap had grown by from a tenth of the devices on to nine tenths of them.
func longRun(b testing.TB, o *factorytest.OEM, s *station.Station, n int) (grown int64) {
	b.Helper()
	var early, late uint64
	made(b, o, s, n, false, func(r wire.Record) {
		switch int(r.Seq) {
		case n / 10:
			early = heap()
		case n - n/10:
			late = heap()
		}
	})
	return int64(late) - int64(early)
}

// TestManyDevices makes a hundred thousand in the long run, some hundreds else: the station's memory does not grow with them, but for the
// mark of each chip, and the OEM takes every one.
func TestManyDevices(t *testing.T) {
	n := 400
	if os.Getenv("HALLMARK_LONG") != "" {
		n = 100_000
	}
	o := factorytest.NewOEM(t, "acme")
	s := benchStation(t, o)
	ordered(t, o, s, n)
	const mark, slack = 64, 2 << 20 // bytes: what a chip may cost, and what the runtime does as it likes
	if grown := longRun(t, o, s, n); grown > int64(n)*mark+slack {
		t.Errorf("the heap grew by %d bytes over %d devices", grown, n-n/5)
	}
	if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
		t.Fatal(err)
	}
	if rep := take(t, o, "ord-1", exported(t, o, s)); rep.Accepted != n || len(rep.Alarms) != 0 || !rep.JobEnd {
		t.Fatalf("%d accepted of %d, %d alarms", rep.Accepted, n, len(rep.Alarms))
	}
	if r, err := o.Service.CloseOrder(t.Context(), o.Caller, "ord-1"); err != nil || int(r.Made) != n {
		t.Fatalf("%+v, %v", r.Tally, err)
	}
}

// BenchmarkLongRun makes an order's devices in one run: s/100k is what it comes to for a hundred thousand, grown-MB by how much
// the heap grew over four fifths of them. The whole is BenchmarkLongRun/100000.
func BenchmarkLongRun(b *testing.B) {
	for _, n := range []int{5000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			grown := int64(0)
			for range b.N {
				b.StopTimer()
				o := factorytest.NewOEM(b, "acme")
				s := benchStation(b, o)
				ordered(b, o, s, n)
				b.StartTimer()
				grown += longRun(b, o, s, n)
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(n*b.N)*100_000, "s/100k")
			b.ReportMetric(float64(grown)/float64(b.N)/1e6, "grown-MB")
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // what pools hold outlives one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkReconcile takes in the records of b.N devices and reconciles the order; s/100k is what it comes to for a hundred thousand.
func BenchmarkReconcile(b *testing.B) {
	o := factorytest.NewOEM(b, "acme")
	s := benchStation(b, o)
	ordered(b, o, s, b.N)
	made(b, o, s, b.N, false, nil)
	file := exported(b, o, s)
	b.ResetTimer()
	rep, err := o.Service.ImportRecords(b.Context(), o.Caller, "ord-1", file)
	if err != nil || rep.Accepted != b.N {
		b.Fatalf("%d accepted, %v", rep.Accepted, err)
	}
	if r, err := o.Service.Reconcile(b.Context(), o.Caller, "ord-1"); err != nil || int(r.Made) != b.N {
		b.Fatalf("%+v, %v", r.Tally, err)
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)*100_000, "s/100k")
}

// The times along the records do not fall, however many pieces end at once: what says that a device was made after its first article had passed rests on it.
func TestTimesDoNotFallAlongTheRecords(t *testing.T) {
	const n = 320
	o := factorytest.NewOEM(t, "acme")
	s := benchStation(t, o)
	ordered(t, o, s, n)
	src, err := factorytest.NewInstant(true)
	if err != nil {
		t.Fatal(err)
	}
	var ticks atomic.Int64 // a clock that goes on whenever it is looked at
	clock := func() time.Time { return o.Now.Add(time.Duration(ticks.Add(1)) * time.Second) }
	last, fell := uint64(0), 0
	times := map[uint32]uint64{}
	rep, err := s.Run(t.Context(), station.RunSpec{Order: "ord-1", Devices: n, Parallel: 32, Now: clock, Progress: func(r wire.Record) { times[r.Seq] = r.Time }}, src)
	if err != nil || rep.Made != n {
		t.Fatalf("%+v, %v", rep, err)
	}
	for seq := range uint32(n) {
		if times[seq+1] < last {
			fell++
		}
		last = times[seq+1]
	}
	if fell > 0 {
		t.Errorf("the time fell %d times along %d records", fell, n)
	}
}
