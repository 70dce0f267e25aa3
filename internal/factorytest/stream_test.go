package factorytest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/wire"
)

// peak samples how much memory is in use while something is read.
type peak struct {
	r     io.Reader
	n     int64
	sizes []uint64
}

func (p *peak) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if p.n/(4<<20) != (p.n+int64(n))/(4<<20) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		p.sizes = append(p.sizes, m.HeapInuse+m.StackInuse)
	}
	p.n += int64(n)
	return n, err
}

// A gigabyte in the long run, else 96 MiB, goes from the OEM through the station's import to a run in memory that does not grow with it.
func TestALargeOrderTakesLittleMemoryAtTheStation(t *testing.T) {
	size := int64(96<<20 + 5)
	if os.Getenv("HALLMARK_LONG") != "" {
		size = 1<<30 + 5
	}
	o := factorytest.NewOEM(t, "acme")
	s, dir := softStation(t, "st-1", o)
	d, err := s.Descriptor(o.ID, o.Now)
	if err != nil {
		t.Fatal(err)
	}
	spec := largeOrder(t, o, size)
	spec.Descriptor, spec.StationPin = d, idOf(s)
	spec.Params.Flash = wire.Flash{Size: 4 << 30, Erase: 4096, Slots: 2, SlotSize: 2 << 30}
	w, _, err := o.Service.CreateOrder(t.Context(), o.Caller, spec)
	if err != nil {
		t.Fatal(err)
	}
	before := heap()
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(w.WriteFile(t.Context(), pw)) }()
	watch := &peak{r: pr}
	if _, err := s.Import(watch, o.Now); err != nil {
		t.Fatal(err)
	}
	const most = 24 << 20 // what a collector lets stand, whatever the size
	if worst := slices.Max(watch.sizes); watch.n < size || worst > before+most {
		t.Errorf("%d bytes were read with %d in use at once, %d before", watch.n, worst, before)
	}
	if st, err := os.Stat(filepath.Join(dir, "orders", "ord-1", "order.hmo")); err != nil || st.Size() != w.Size() {
		t.Errorf("the station keeps %v of %d bytes, %v", st, w.Size(), err)
	}
	line := &wideLine{}
	before = heap()
	if _, err := s.Run(t.Context(), station.RunSpec{Order: "ord-1", Devices: 1, Now: func() time.Time { return o.Now }}, line); err != nil {
		t.Fatal(err)
	}
	if line.got.n != size || slices.Max(line.got.sizes) > before+most {
		t.Errorf("a device got %d bytes of %d, with %d in use at once, %d before", line.got.n, size, slices.Max(line.got.sizes), before)
	}
}

// wideLine has one piece with room for any order; it counts what it is given, and fails.
type wideLine struct {
	factorytest.Line
	got peak
}

func (l *wideLine) Next(ctx context.Context) (station.Programmer, error) {
	p, err := l.Line.Next(ctx)
	return &widePiece{p, l}, err
}

type widePiece struct {
	station.Programmer
	line *wideLine
}

func (p *widePiece) Identify(ctx context.Context) (wire.ChipHello, error) {
	h, err := p.Programmer.Identify(ctx)
	h.Flash.Size = 8 << 30
	return h, err
}

func (p *widePiece) Install(_ context.Context, _ wire.Install, payload func(func(wire.Chunk) error) error) error {
	if err := payload(func(c wire.Chunk) error {
		p.line.got.r = bytes.NewReader(c.Data)
		_, err := io.Copy(io.Discard, &p.line.got)
		return err
	}); err != nil {
		return err
	}
	return errors.New("it has all, and is to be a device no more")
}

func idOf(s *station.Station) []byte { id := s.ID(); return id[:] }

// holds says whether the station holds the order, and looks for what refused imports leave behind.
func holds(t *testing.T, dir, id string) bool {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "orders", id, ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	_, err = os.Stat(filepath.Join(dir, "orders", id, "order.hmo"))
	return err == nil
}

// TestAnOrderFileThatIsNotWhole: whatever is missing, twice, in another place or behind the end is told, and nothing is kept.
func TestAnOrderFileThatIsNotWhole(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, dir := softStation(t, "st-1", o)
	file := order(t, o, s, "ord-1", 2)
	another, err := wire.DecodeOrderFile(order(t, o, s, "ord-2", 2))
	if err != nil {
		t.Fatal(err)
	}
	changed := func(change func(f *wire.OrderFile)) []byte {
		f, err := wire.DecodeOrderFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if change(&f); len(f.Payload) < 3 {
			t.Fatal("too few chunks to try")
		}
		b, err := wire.EncodeOrderFile(f)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	chunk := wire.OrderChunk + 16 + 5
	for name, c := range map[string]struct {
		code string
		file []byte
	}{
		"empty":                         {"order.invalid", nil},
		"only a head":                   {"order.invalid", file[:1]},
		"cut in the order":              {"order.invalid", file[:200]},
		"cut in a chunk":                {"order.changed", file[:len(file)-chunk-100]},
		"cut between chunks":            {"order.changed", file[:len(file)-(17+19)-5-16]},
		"cut in the last byte":          {"order.changed", file[:len(file)-1]},
		"a byte behind the end":         {"order.changed", append(bytes.Clone(file), 0)},
		"a file behind the end":         {"order.changed", append(bytes.Clone(file), file...)},
		"two chunks swapped":            {"order.changed", changed(func(f *wire.OrderFile) { f.Payload[0], f.Payload[1] = f.Payload[1], f.Payload[0] })},
		"a chunk twice":                 {"order.changed", changed(func(f *wire.OrderFile) { f.Payload = slices.Insert(f.Payload, 1, f.Payload[1]) })},
		"a chunk in place of another":   {"order.changed", changed(func(f *wire.OrderFile) { f.Payload[1] = f.Payload[0] })},
		"a chunk dropped":               {"order.changed", changed(func(f *wire.OrderFile) { f.Payload = slices.Delete(f.Payload, 1, 2) })},
		"the last chunk dropped":        {"order.changed", changed(func(f *wire.OrderFile) { f.Payload = f.Payload[:len(f.Payload)-1] })},
		"a chunk of another order":      {"order.changed", changed(func(f *wire.OrderFile) { f.Payload[1] = another.Payload[1] })},
		"the content of another order":  {"order.unwrap", changed(func(f *wire.OrderFile) { f.Content = another.Content })},
		"the envelope of another order": {"order.unwrap", changed(func(f *wire.OrderFile) { f.Order = another.Order })},
		"a short chunk in the middle":   {"order.changed", changed(func(f *wire.OrderFile) { f.Payload[1] = f.Payload[1][:100] })},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Import(bytes.NewReader(c.file), o.Now)
			wantCode(t, err, c.code)
			if holds(t, dir, "ord-1") || holds(t, dir, "ord-2") {
				t.Error("kept all the same")
			}
			_, err = s.Show("ord-1")
			wantCode(t, err, "order.unknown")
		})
	}
	if _, err := s.Import(bytes.NewReader(file), o.Now); err != nil {
		t.Fatalf("the file as it was: %v", err)
	}
}

// pulled is a stick that is gone after n bytes.
type pulled struct {
	r io.Reader
	n int
}

func (p *pulled) Read(b []byte) (int, error) {
	if p.n == 0 {
		return 0, syscall.EIO
	}
	n, err := p.r.Read(b[:min(len(b), p.n)])
	p.n -= n
	return n, err
}

// A stick that is pulled while an order is read is not an order that was changed: it is put in again.
func TestAStickThatIsPulledWhileAnOrderIsRead(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, dir := softStation(t, "st-1", o)
	file := order(t, o, s, "ord-1", 2)
	for _, n := range []int{0, 100, len(file) / 3, len(file) - 1, len(file)} {
		_, err := s.Import(&pulled{bytes.NewReader(file), n}, o.Now)
		wantCode(t, err, "order.read")
		if !errors.Is(err, syscall.EIO) || holds(t, dir, "ord-1") {
			t.Errorf("pulled after %d bytes: %v", n, err)
		}
	}
	if _, err := s.Import(bytes.NewReader(file), o.Now); err != nil {
		t.Fatal(err)
	}
}

// A station's own copy that is damaged makes nothing; importing the file again mends it.
func TestADamagedCopyIsMendedByTheFile(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, dir := softStation(t, "st-1", o)
	file := imported(t, o, s, "ord-1", 3)
	if _, _, err := run(t, o, s, "ord-1", 1); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "orders", "ord-1", "order.hmo")
	for name, damaged := range map[string][]byte{
		"a bit":         flipped(file, len(file)-1000),
		"its beginning": flipped(file, 0),
		"cut":           file[:len(file)/2],
		"empty":         nil,
	} {
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		rep, line, err := run(t, o, s, "ord-1", 1)
		if err == nil || len(line.Done) != 0 {
			t.Errorf("%s: %+v, %d pieces were begun, %v", name, rep, len(line.Done), err)
		}
		if sum, err := s.Import(bytes.NewReader(file), o.Now); err != nil || sum.Used != 1 {
			t.Fatalf("%s: %+v, %v", name, sum, err)
		}
	}
	if _, _, err := run(t, o, s, "ord-1", 2); err != nil {
		t.Fatal(err)
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 4
	return b
}
