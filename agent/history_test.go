package agent_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
)

// history is the server's end of the signed history, and how it misbehaves.
type history struct {
	w     *world
	asked atomic.Int64
	spoil func(n *wire.NewestBundle, steps map[uint64]wire.BundleStep)
	hint  func() wire.HomeHint // of the device; nil: it never was here
	gone  bool                 // nothing answers
}

var errNoStep = errors.New("no such step")

func (h *history) all() (wire.NewestBundle, map[uint64]wire.BundleStep) {
	n := wire.NewestBundle{Version: h.w.bundle.Version, Logged: *h.w.logged(h.w.newest)}
	steps := map[uint64]wire.BundleStep{}
	for i, s := range h.w.steps {
		steps[uint64(i+1)] = s
	}
	if h.spoil != nil {
		h.spoil(&n, steps)
	}
	return n, steps
}

func (h *history) Newest(context.Context, string) (wire.NewestBundle, error) {
	h.asked.Add(1)
	if h.gone {
		return wire.NewestBundle{}, errNoNetwork
	}
	n, _ := h.all()
	return wire.DecodeNewestBundle(must(wire.EncodeNewestBundle(n)))
}

func (h *history) Step(_ context.Context, _ string, version uint64) (wire.BundleStep, error) {
	_, steps := h.all()
	s, ok := steps[version]
	if !ok {
		return s, errNoStep
	}
	return wire.DecodeBundleStep(must(wire.EncodeBundleStep(s)))
}

func (h *history) Home(context.Context, string, string) (wire.HomeHint, error) {
	if h.gone || h.hint == nil {
		return wire.HomeHint{}, errNoNetwork
	}
	out, err := wire.EncodeHomeHint(h.hint())
	if err != nil {
		return wire.HomeHint{}, err
	}
	return wire.DecodeHomeHint(out)
}

func (h *history) Close() {}

// lose clears what a device keeps in its flash. Keys, fuses, counters and the factory's identity, which stands in the write-protected part,
// are left.
func lose(t *testing.T, b *virtual.Board, all bool) {
	t.Helper()
	f, err := boot.Arrange(b.Flash)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Lose(all); err != nil {
		t.Fatal(err)
	}
}

// TestADeviceComesBack is a device that was away while the world went on, in whatever way: with its factory identity alone it finds the
// world again, has a new certificate, and does what it is told by those who say so now.
func TestADeviceComesBack(t *testing.T) {
	year := 365 * 24 * time.Hour
	for name, c := range map[string]struct {
		ahead time.Duration // of the device's clock
		away  time.Duration
		world func(w *world)
		loss  func(t *testing.T, b *virtual.Board)
		want  uint64
	}{
		"its certificate ran out":                  {away: year, want: 1},
		"its certificate ran out, without a clock": {ahead: 20 * year, away: year, want: 1},
		"the anchors were replaced": {want: 2, world: func(w *world) {
			w.replace(func(w *world) { n := newWorldAhead(w.ahead); w.ca, w.caKey = n.ca, n.caKey })
		}},
		"the directive authority was replaced": {want: 2, world: func(w *world) {
			w.replace(func(w *world) { w.directive = newWorld().directive })
		}},
		"log and witnesses were replaced": {want: 2, world: func(w *world) {
			w.replace(func(w *world) { n := newWorld(); w.log, w.witness = n.log, n.witness })
		}},
		"everything, five times, in five years, without a clock": {ahead: 20 * year, away: 5 * year, want: 6, world: func(w *world) {
			for range 5 {
				w.replace(everybody)
			}
		}},
		"the bundle is lost": {want: 1, loss: func(t *testing.T, b *virtual.Board) { lose(t, b, false) }},
		"everything in five years, and all flash is lost, without a clock": {ahead: 20 * year, away: 5 * year, want: 6, world: func(w *world) {
			for range 5 {
				w.replace(everybody)
			}
		}, loss: func(t *testing.T, b *virtual.Board) { lose(t, b, true) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorldAhead(c.ahead)
				first := w.publish("1.0.0", 1)
				d := newDevice(t, w, born(t, w, first))
				d.s.strict, d.s.history, d.s.poll = true, &history{w: w}, 10*time.Minute
				d.lives(t, 2)
				if c.ahead > 0 {
					w.ahead += c.away // the device's clock stood still
				} else {
					time.Sleep(c.away)
				}
				if c.world != nil {
					c.world(w)
				}
				if c.loss != nil {
					c.loss(t, d.board)
				}
				d.s.logSeq, d.s.logHead = 0, nil
				stop := d.start(t)
				time.Sleep(3 * time.Hour)
				synctest.Wait()
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				if got := d.s.heard(); got.Bundle != c.want {
					t.Fatalf("it is at bundle %d, want %d; %d enrolments", got.Bundle, c.want, d.s.enrolments())
				}
				d.s.poll = time.Second
				next := w.publish("2.0.0", 2)
				act := wire.ActInstall
				got := d.told(t, w.command(act, func(o *command) { o.release = &next }))
				if len(got) != 1 || got[0].Outcome != wire.OutcomeDone {
					t.Fatalf("%+v", got)
				}
				if d.s.heard().Version != "2.0.0" {
					t.Errorf("%s runs", d.s.heard().Version)
				}
			})
		})
	}
}

// A history that is not what it must be moves nothing, and the device goes on as before; it asks again, but not all the time.
func TestAHistoryThatIsNotBelieved(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w *world) func(n *wire.NewestBundle, steps map[uint64]wire.BundleStep)
	}{
		"a step is withheld": {func(*world) func(*wire.NewestBundle, map[uint64]wire.BundleStep) {
			return func(_ *wire.NewestBundle, steps map[uint64]wire.BundleStep) { delete(steps, 2) }
		}},
		"the newest is withheld": {func(*world) func(*wire.NewestBundle, map[uint64]wire.BundleStep) {
			return func(n *wire.NewestBundle, _ map[uint64]wire.BundleStep) { n.Version = 1 }
		}},
		"the newest is not in its log": {func(w *world) func(*wire.NewestBundle, map[uint64]wire.BundleStep) {
			other := w.append("other", []byte("x"))
			return func(n *wire.NewestBundle, _ map[uint64]wire.BundleStep) { n.Logged = *w.logged(other) }
		}},
		"nobody witnessed the newest": {func(w *world) func(*wire.NewestBundle, map[uint64]wire.BundleStep) {
			return func(n *wire.NewestBundle, _ map[uint64]wire.BundleStep) {
				n.Logged.Proof.Cosignatures = []wire.Cosignature{}
			}
		}},
		"a step was signed by others": {func(*world) func(*wire.NewestBundle, map[uint64]wire.BundleStep) {
			thief := newWorld()
			thief.replace(func(*world) {})
			return func(_ *wire.NewestBundle, steps map[uint64]wire.BundleStep) {
				steps[2] = wire.BundleStep{Envelope: thief.envelope}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
				d.s.strict, d.s.history, d.s.poll = true, &history{w: w}, 10*time.Minute
				d.lives(t, 2)
				w.replace(func(w *world) { w.directive = newWorld().directive })
				d.s.history.spoil = c.spoil(w)
				asked := d.s.history.asked.Load()
				stop := d.start(t)
				time.Sleep(24 * time.Hour)
				synctest.Wait()
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				if got := d.s.heard(); got.Bundle != 1 || got.Version != "1.0.0" {
					t.Errorf("bundle %d, %s runs", got.Bundle, got.Version)
				}
				if n := d.s.history.asked.Load() - asked; n < 10 || n > 40 {
					t.Errorf("it asked %d times in a day", n)
				}
				for _, k := range d.s.kinds() {
					if k == "bundle.replaced" {
						t.Error("its log tells of a bundle replaced")
					}
				}
			})
		})
	}
}

// The power fails in every operation of the way back: the device is at the old bundle or at the newest, and gets there.
func TestPowerCutsOnTheWayBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		first := w.publish("1.0.0", 1)
		golden := born(t, w, first)
		d := newDevice(t, w, golden)
		d.s.strict, d.s.history = true, &history{w: w}
		d.lives(t, 2)
		for range 3 {
			w.replace(everybody)
		}
		whole, err := golden.Clone()
		if err != nil {
			t.Fatal(err)
		}
		before := whole.Power.Ops()
		e := newDevice(t, w, whole)
		e.s.strict, e.s.history = true, &history{w: w}
		e.lives(t, 2)
		ops := whole.Power.Ops() - before
		step := max(ops/60, 1)
		for n := uint64(1); n <= ops; n += step {
			b, err := golden.Clone()
			if err != nil {
				t.Fatal(err)
			}
			d := newDevice(t, w, b)
			d.s.strict, d.s.history = true, &history{w: w}
			b.Power.CutAt(n, virtual.Random, n)
			d.lives(t, 3)
			if got := d.s.heard(); got.Bundle != 4 || got.Version != "1.0.0" {
				t.Fatalf("cut %d of %d: bundle %d, %q runs", n, ops, got.Bundle, got.Version)
			}
		}
	})
}
