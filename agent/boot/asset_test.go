package boot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
)

// part is one component of a set, with bytes of its own for each version.
type part struct {
	name, version string
	size          int
}

func (p part) data() []byte {
	sum := sha256.Sum256([]byte(p.name + p.version))
	r := rand.New(rand.NewChaCha8(sum))
	out := make([]byte, p.size)
	for i := range out {
		out[i] = byte(r.Uint32())
	}
	return out
}

// assets is a signed release of the Asset model.
func (m *maker) assets(t testing.TB, version string, counter uint32, parts []part, change func(*wire.Release)) firmware {
	t.Helper()
	f := firmware{data: map[string][]byte{}}
	f.rel = wire.Release{ID: "r" + version, Product: "pump", Hardware: []string{"A"}, Model: wire.ModelAsset, Version: version, Counter: counter, Created: 1}
	for _, p := range parts {
		data := p.data()
		sum := sha256.Sum256(data)
		f.data[p.name] = data
		f.rel.Components = append(f.rel.Components, wire.Component{
			Name: p.name, Kind: wire.KindExec, Version: p.version, Size: uint64(len(data)), Digest: sum[:], Health: wire.HealthAlive,
		})
	}
	if change != nil {
		change(&f.rel)
	}
	payload, err := wire.EncodeRelease(f.rel)
	if err != nil {
		t.Fatal(err)
	}
	f.env, f.digest = m.sign(t, wire.TypeRelease, payload, 2), wire.ReleaseDigest(payload)
	return f
}

// bornWith makes a board with so many sectors for programs, that runs f.
func bornWith(t testing.TB, m *maker, f firmware, sectors int64) *virtual.Board {
	t.Helper()
	const sector, page = 1024, 128
	size := FlashFor(0, sector, page) - 2*wire.MaxComponents*sector + sectors*sector
	b, err := virtual.New(virtual.Spec{Revision: "A", ChipUID: "00", Flash: hw.Geometry{Size: size, Sector: sector, Page: page}})
	if err != nil {
		t.Fatal(err)
	}
	if err := birth(b, m, f); err != nil {
		t.Fatal(err)
	}
	return b
}

// fetched is a source that notes what it was asked for.
func (f firmware) fetched(into *[]string) Source {
	return func(ctx context.Context, c wire.Component, off int64) (io.ReadCloser, error) {
		*into = append(*into, c.Name)
		return f.source(ctx, c, off)
	}
}

// wears gives the wear of a board's sectors, in the pool and elsewhere.
func wears(t testing.TB, b *virtual.Board) (pool, rest []virtual.Wear) {
	t.Helper()
	part, ok := b.Flash.(*virtual.Flash)
	f, err := Arrange(b.Flash)
	if err != nil || !ok {
		t.Fatal(err)
	}
	all := part.Wear()
	n := len(all) - int(f.pool.Size()/f.pool.Sector())
	return all[n:], all[:n]
}

// whole fails unless what runs is, byte by byte, one of the releases: never a mixture.
func whole(t testing.TB, after string, mgr *Manager, of ...firmware) string {
	t.Helper()
	i := slices.IndexFunc(of, func(f firmware) bool { return f.digest == mgr.rep.Digest })
	if mgr.rep.Release == nil || i < 0 {
		t.Fatalf("%s: runs %s: %v", after, running(mgr), mgr.rep.Notes)
	}
	for name, want := range of[i].data {
		r, _, err := mgr.Component(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: %s of %s is not what was released: %v", after, name, running(mgr), err)
		}
	}
	return running(mgr)
}

var pump = []part{{"control", "1.0.0", 5000}, {"motor", "1.0.0", 3000}, {"screen", "1.0.0", 2500}}

func TestOnlyWhatChangedIsBroughtAndWritten(t *testing.T) {
	m := newMaker(t)
	v1 := m.assets(t, "1.0.0", 1, pump, nil)
	next := slices.Clone(pump)
	next[1] = part{"motor", "1.1.0", 3500}
	next = append(next, part{"radio", "0.1.0", 1000})
	v2 := m.assets(t, "2.0.0", 2, next, nil)
	b := bornWith(t, m, v1, 24)
	mgr := mustBoot(t, b)
	before := mgr.set
	was, _ := wears(t, b)
	var asked []string
	var last, of uint64
	if err := mgr.Stage(t.Context(), v2.env, v2.fetched(&asked), func(d, o uint64) { last, of = d, o }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(asked, []string{"motor", "radio"}) {
		t.Errorf("brought %v", asked)
	}
	if last != 4500 || of != 4500 {
		t.Errorf("progress ends at %d of %d", last, of)
	}
	is, _ := wears(t, b)
	for i := range is {
		mine := sectorSet(make([]bool, len(is)))
		mine.add(before.areas...)
		if n := is[i].Erases - was[i].Erases; n > 1 || n > 0 && mine[i] || mine[i] && is[i].Programs != was[i].Programs {
			t.Errorf("sector %d, taken before %v: erased %d times", i, mine[i], n)
		}
	}
	if err := mgr.Activate(v2.digest); err != nil {
		t.Fatal(err)
	}
	mgr = mustBoot(t, b)
	if whole(t, "in the end", mgr, v2) != "2.0.0" || mgr.rep.Counter != 1 {
		t.Errorf("counter %d before anything was confirmed", mgr.rep.Counter)
	}
	if err := mgr.Confirm(); err != nil || mgr.rep.Counter != 2 {
		t.Errorf("counter %d after it was confirmed: %v", mgr.rep.Counter, err)
	}
}

// A way back that the approvers left open brings nothing: what was there is there still.
func TestGoingBackBringsNothing(t *testing.T) {
	m := newMaker(t)
	v1 := m.assets(t, "1.0.0", 1, pump, nil)
	next := slices.Clone(pump)
	next[0].version = "1.2.0"
	v2 := m.assets(t, "2.0.0", 1, next, nil)
	b := bornWith(t, m, v1, 24)
	if err := update(b, v2); err != nil {
		t.Fatal(err)
	}
	var asked []string
	mgr := mustBoot(t, b)
	if err := mgr.Stage(t.Context(), v1.env, v1.fetched(&asked), nil); err != nil || len(asked) > 0 {
		t.Fatalf("brought %v: %v", asked, err)
	}
	if err := update(b, v1); err != nil || whole(t, "back", mustBoot(t, b), v1) != "1.0.0" {
		t.Fatal(err)
	}
}

// The power fails in every operation of an update of a set, in every way, and again in what follows: the device runs the old set or the new one, byte by byte.
func TestPowerCutAtEveryWriteOfASet(t *testing.T) {
	m := newMaker(t)
	parts := []part{{"control", "1.0.0", 900}, {"motor", "1.0.0", 1500}, {"screen", "1.0.0", 700}}
	v1 := m.assets(t, "1.0.0", 1, parts, nil)
	next := slices.Clone(parts)
	next[1], next[2].version = part{"motor", "2.0.0", 1300}, "2.0.0"
	v2 := m.assets(t, "2.0.0", 2, next, nil)
	golden := bornWith(t, m, v1, 12)
	ready, err := golden.Clone()
	if err != nil {
		t.Fatal(err)
	}
	if err := update(ready, v2); err != nil {
		t.Fatal(err)
	}
	total := ready.Power.Ops()
	t.Logf("%d operations, %d modes", total, len(virtual.Modes()))
	for n := uint64(1); n <= total; n++ {
		for _, mode := range virtual.Modes() {
			b, err := golden.Clone()
			if err != nil {
				t.Fatal(err)
			}
			after := fmt.Sprintf("cut %d %s", n, mode)
			b.Power.CutAt(n, mode, n)
			if err := update(b, v2); !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("%s: the power was to fail: %v", after, err)
			}
			checkSet(t, after, b, v1, v2)
			b.Power.CutAt(n%13+1, mode, n)
			if err := update(b, v2); err != nil && !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("%s, again: %v", after, err)
			}
			checkSet(t, after+", again", b, v1, v2)
			if err := update(b, v2); err != nil {
				t.Fatalf("%s: the update does not succeed afterwards: %v", after, err)
			}
			if mgr := mustBoot(t, b); whole(t, after, mgr, v2) != "2.0.0" || mgr.rep.Trial || mgr.rep.Counter != 2 {
				t.Fatalf("%s: in the end trial %v, counter %d", after, mgr.rep.Trial, mgr.rep.Counter)
			}
		}
	}
}

func checkSet(t *testing.T, after string, b *virtual.Board, v1, v2 firmware) {
	t.Helper()
	b.Power.CutAt(1<<40, virtual.Before, 0) // not in this look
	mgr, err := boot(b)
	if err != nil {
		t.Fatalf("%s: does not start: %v", after, err)
	}
	v := whole(t, after, mgr, v1, v2)
	if want := uint32(1); mgr.rep.Counter > want && (v == "1.0.0" || mgr.rep.Trial) || v == "2.0.0" && !mgr.rep.Trial && mgr.rep.Counter > 2 {
		t.Fatalf("%s: %s, trial %v, counter %d", after, v, mgr.rep.Trial, mgr.rep.Counter)
	}
}

// The power fails in every operation of a birth, for software that is fixed for life: the board can be made again, or it is a device that starts.
func TestPowerCutAtEveryWriteOfABirth(t *testing.T) {
	m := newMaker(t)
	f := m.assets(t, "1.0.0", 1, pump[2:], func(r *wire.Release) { r.Model = wire.ModelOTP })
	blank := func() *virtual.Board {
		b, err := virtual.New(virtual.Spec{Revision: "A", ChipUID: "00", Flash: hw.Geometry{Size: FlashFor(0, 1024, 128), Sector: 1024, Page: 128}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := blank()
	if err := birth(b, m, f); err != nil {
		t.Fatal(err)
	}
	for n, total := uint64(1), b.Power.Ops(); n <= total; n++ {
		for _, mode := range virtual.Modes() {
			b := blank()
			b.Power.CutAt(n, mode, n)
			if err := birth(b, m, f); !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("cut %d %s: %v", n, mode, err)
			}
			b.Reset()
			if life, err := b.Fuses.Lifecycle(); err != nil {
				t.Fatal(err)
			} else if life == hw.Assembly {
				if err := birth(b, m, f); err != nil {
					t.Fatalf("cut %d %s: it cannot be made again: %v", n, mode, err)
				}
			}
			mgr := mustBoot(t, b)
			whole(t, fmt.Sprintf("cut %d %s", n, mode), mgr, f)
			if err := mgr.Stage(t.Context(), f.env, f.source, nil); !errors.Is(err, ErrOTP) {
				t.Fatalf("software that is fixed for life is staged: %v", err)
			}
		}
	}
}

func TestWhatDoesNotGoTogetherOrDoesNotFitIsRefusedBeforeTheFirstWrite(t *testing.T) {
	m := newMaker(t)
	b := bornWith(t, m, m.assets(t, "1.0.0", 1, pump, nil), 24) // 5, 3 and 3 sectors
	mgr := mustBoot(t, b)
	for name, c := range map[string]struct {
		parts  []part
		change func(*wire.Release)
		want   error
		says   string
	}{
		"another's version is too low": {pump, func(r *wire.Release) {
			r.Components[0].Requires = []wire.Requirement{{Component: "motor", From: "1.1.0", Below: "2.0.0"}}
		}, wire.ErrIncompatible, "requires motor from 1.1.0"},
		"another's version is too high": {pump, func(r *wire.Release) {
			r.Components[0].Requires = []wire.Requirement{{Component: "screen", Below: "1.0.0"}}
		}, wire.ErrIncompatible, "requires screen below 1.0.0"},
		"a component for other hardware": {pump, func(r *wire.Release) {
			r.Hardware, r.Components[1].Hardware = []string{"A", "B"}, []string{"B"}
		}, wire.ErrIncompatible, "works on hardware [B]"},
		"more changed than is free": {[]part{{"control", "2.0.0", 5000}, {"motor", "2.0.0", 5000}, {"screen", "2.0.0", 4000}}, nil, wire.ErrNoRoom, "leave too few of 24"},
		"no room for the next":      {append([]part{{"map", "1.0.0", 8 * 1024}}, pump...), nil, wire.ErrNoRoom, "needs 27 sectors"},
		"larger than everything":    {[]part{{"control", "2.0.0", 30000}}, nil, wire.ErrNoRoom, "the flash has 24"},
	} {
		f := m.assets(t, "2.0.0", 2, c.parts, c.change)
		ops, kept := b.Power.Ops(), mgr.set
		err := mgr.Stage(t.Context(), f.env, f.source, nil)
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if b.Power.Ops() != ops {
			t.Errorf("%s: something was written", name)
		}
		if !slices.EqualFunc(kept.areas, mgr.set.areas, func(x, y area) bool { return slices.Equal(x.ext, y.ext) }) {
			t.Errorf("%s: what runs lies elsewhere", name)
		}
	}
}

// A set whose requirements hold is taken, at their edges.
func TestASetThatGoesTogetherIsTaken(t *testing.T) {
	m := newMaker(t)
	b := bornWith(t, m, m.assets(t, "1.0.0", 1, pump, nil), 24)
	f := m.assets(t, "2.0.0", 2, []part{{"control", "2.0.0", 100}, {"motor", "1.1.0", 100}, {"screen", "2.0.0-rc.1", 100}}, func(r *wire.Release) {
		r.Components[0].Requires = []wire.Requirement{{Component: "motor", From: "1.1.0", Below: "1.1.1"}, {Component: "screen", Below: "2.0.0"}}
		r.Components[2].Hardware = []string{"A", "B"}
	})
	if err := update(b, f); err != nil {
		t.Fatal(err)
	}
	whole(t, "updated", mustBoot(t, b), f)
}

// A component that is damaged is brought again, alone, into other sectors; also on a device that starts nothing because of it.
func TestWhatIsDamagedIsBroughtAgain(t *testing.T) {
	m := newMaker(t)
	v1 := m.assets(t, "1.0.0", 1, pump, nil)
	b := bornWith(t, m, v1, 17) // nothing to spare: 11, and 5 of the largest
	for i := range pump {
		a := areaOf(t, b, SlotA, i)
		pos, _, err := a.at(77)
		if err != nil {
			t.Fatal(err)
		}
		flip(t, a.pool, pos, 4)
	}
	mgr := mustBoot(t, b)
	if running(mgr) != "recovery" {
		t.Fatalf("runs %s", running(mgr))
	}
	var asked []string
	if err := mgr.Stage(t.Context(), v1.env, v1.fetched(&asked), nil); err != nil || len(asked) != 3 {
		t.Fatalf("brought %v: %v", asked, err)
	}
	if err := mgr.Activate(v1.digest); err != nil {
		t.Fatal(err)
	}
	mgr = mustBoot(t, b)
	whole(t, "mended", mgr, v1)
	if err := mgr.Confirm(); err != nil {
		t.Fatal(err)
	}
	a := areaOf(t, b, mgr.rep.Slot, 1)
	pos, _, err := a.at(77)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, a.pool, pos, 4) // behind the back of a device that runs
	asked = nil
	if err := mgr.Stage(t.Context(), v1.env, v1.fetched(&asked), nil); err != nil || !slices.Equal(asked, []string{"motor"}) {
		t.Errorf("brought %v: %v", asked, err)
	}
}

// A download that breaks off again and again goes on from where it was, wears no sector more than the break demands, and brings the same set.
func TestABrokenDownloadGoesOn(t *testing.T) {
	m := newMaker(t)
	b := bornWith(t, m, m.assets(t, "1.0.0", 1, pump, nil), 64)
	big := part{"control", "2.0.0", 20 << 10}
	f := m.assets(t, "2.0.0", 2, append([]part{big}, pump[1:]...), nil)
	mgr := mustBoot(t, b)
	was, _ := wears(t, b)
	brought, breaks := int64(0), 0
	src := func(ctx context.Context, c wire.Component, off int64) (io.ReadCloser, error) {
		r := bytes.NewReader(f.data[c.Name][off:])
		n := min(int64(r.Len()), 3000)
		brought += n
		return io.NopCloser(io.LimitReader(r, n)), nil
	}
	for {
		err := mgr.Stage(t.Context(), f.env, src, nil)
		if err == nil {
			break
		}
		if breaks++; breaks > 30 {
			t.Fatalf("it does not come to an end: %v", err)
		}
	}
	is, _ := wears(t, b)
	erased := uint32(0)
	for i := range is {
		erased += is[i].Erases - was[i].Erases
	}
	if brought > int64(big.size)+int64(breaks+1)*2048 || int(erased) > 20+breaks+1 {
		t.Errorf("%d breaks: %d bytes of %d were brought, %d erases", breaks, brought, big.size, erased)
	}
	if err := update(b, f); err != nil {
		t.Fatal(err)
	}
	whole(t, "in the end", mustBoot(t, b), f)
}

// Bytes that are wrong whenever they come are brought twice, and then it is said: whoever asked would have them fetched for ever.
func TestBytesThatAreWrongTwiceAreAnError(t *testing.T) {
	m := newMaker(t)
	b := bornWith(t, m, m.assets(t, "1.0.0", 1, pump, nil), 64)
	big := part{"control", "2.0.0", 20 << 10}
	f := m.assets(t, "2.0.0", 2, append([]part{big}, pump[1:]...), nil)
	mgr := mustBoot(t, b)
	brought, most := 0, 3000 // the line breaks at first
	src := func(_ context.Context, c wire.Component, off int64) (io.ReadCloser, error) {
		data := slices.Clone(f.data[c.Name])
		data[7] ^= 1
		r := data[off:]
		r = r[:min(len(r), most)]
		brought += len(r)
		return io.NopCloser(bytes.NewReader(r)), nil
	}
	if err := mgr.Stage(t.Context(), f.env, src, nil); err == nil || errors.Is(err, ErrBytes) {
		t.Fatalf("a line that breaks: %v", err)
	}
	brought, most = 0, 1<<20
	if err := mgr.Stage(t.Context(), f.env, src, nil); !errors.Is(err, ErrBytes) {
		t.Errorf("wrong bytes: %v", err)
	}
	if brought < 2*big.size || brought > 3*big.size {
		t.Errorf("of %d bytes, %d were brought", big.size, brought)
	}
	if err := update(b, f); err != nil {
		t.Fatal(err)
	}
	whole(t, "when they are right", mustBoot(t, b), f)
}

// Bookkeeping wears at most one block in a hundred of what is written, and each block of the image is written once.
func TestAnUpdateWearsTheFlashOnce(t *testing.T) {
	m := newMaker(t)
	v1 := m.assets(t, "1.0.0", 1, []part{{"app", "1.0.0", 10}}, nil)
	v2 := m.assets(t, "2.0.0", 2, []part{{"app", "2.0.0", 1 << 20}}, nil)
	b := bornWith(t, m, v1, 2100)
	wasPool, wasRest := wears(t, b)
	if err := update(b, v2); err != nil {
		t.Fatal(err)
	}
	isPool, isRest := wears(t, b)
	written := uint32(0)
	for i := range isPool {
		n := isPool[i].Erases - wasPool[i].Erases
		if written += n; n > 1 {
			t.Errorf("sector %d of the pool was erased %d times", i, n)
		}
	}
	books := uint32(0)
	for i := range isRest {
		books += isRest[i].Erases - wasRest[i].Erases
	}
	t.Logf("%d sectors of the image, %d of bookkeeping", written, books)
	if written != 1024 || books*100 > written {
		t.Errorf("%d sectors were erased for 1024, and %d for bookkeeping", written, books)
	}
}

// Sets of all shapes follow each other, some tried and given up, the power failing anywhere: what runs is always a whole set, the one that was
// confirmed or the one that is tried.
func TestAnySequenceOfSetsWithCuts(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			m := newMaker(t)
			parts := slices.Clone(pump)
			good := m.assets(t, "1.0.0", 1, parts, nil)
			b := bornWith(t, m, good, 40)
			for step := 2; step < 18; step++ {
				parts = vary(rng, parts, step)
				f := m.assets(t, fmt.Sprintf("%d.0.0", step), 1, parts, nil)
				roomless := roomOf(t, b).TakesOver(f.rel, good.rel)
				if rng.IntN(3) > 0 {
					b.Power.CutAt(rng.Uint64N(120)+1, virtual.Modes()[rng.IntN(4)], rng.Uint64())
				}
				keep := rng.IntN(4) > 0
				var err error
				for range 4 {
					if err = try(b, f, keep); !errors.Is(err, hw.ErrPowerCut) {
						break
					}
					whole(t, fmt.Sprintf("step %d: %v", step, err), mustBoot(t, b), good, f)
				}
				if errors.Is(err, wire.ErrNoRoom) != (roomless != nil) { // a maker's server says beforehand what the device finds
					t.Fatalf("step %d: %v, and by arithmetic: %v", step, err, roomless)
				}
				switch {
				case errors.Is(err, wire.ErrNoRoom):
				case err != nil:
					t.Fatalf("step %d: %v", step, err)
				case keep:
					good = f
				}
				b.Power.CutAt(1<<40, virtual.Before, 0)
				for range maxTries + 1 { // whatever was left on trial is over
					mustBoot(t, b)
				}
				if v := whole(t, fmt.Sprintf("after step %d", step), mustBoot(t, b), good); v != good.rel.Version {
					t.Fatalf("after step %d: runs %s", step, v)
				}
				parts = partsOf(good)
			}
		})
	}
}

func roomOf(t *testing.T, b *virtual.Board) wire.Room {
	t.Helper()
	f, err := Arrange(b.Flash)
	if err != nil {
		t.Fatal(err)
	}
	return f.Room()
}

func partsOf(f firmware) (out []part) {
	for _, c := range f.rel.Components {
		out = append(out, part{c.Name, c.Version, int(c.Size)})
	}
	return out
}

// vary changes, adds and drops components.
func vary(rng *rand.Rand, parts []part, step int) []part {
	out := slices.Clone(parts)
	for i := range out {
		if rng.IntN(3) == 0 {
			out[i] = part{out[i].name, fmt.Sprintf("%d.0.0", step), rng.IntN(6000) + 1}
		}
	}
	if rng.IntN(3) == 0 {
		out = append(out, part{fmt.Sprintf("new-%d", step), "1.0.0", rng.IntN(3000) + 1})
	}
	if len(out) > 2 && rng.IntN(3) == 0 {
		out = slices.Delete(out, 0, 1)
	}
	return out
}

// try brings a release to its end: confirmed, or given up.
func try(b *virtual.Board, f firmware, keep bool) error {
	if keep {
		return update(b, f)
	}
	mgr, err := boot(b)
	if err != nil || mgr.rep.Digest == f.digest && !mgr.rep.Trial {
		return err
	}
	if mgr.rep.Trial {
		return mgr.Revert()
	}
	if err := mgr.Stage(context.Background(), f.env, f.source, nil); err != nil {
		return err
	}
	if err := mgr.Activate(f.digest); err != nil {
		return err
	}
	if mgr, err = boot(b); err != nil {
		return err
	}
	return mgr.Revert()
}

// A set of assets takes the place of another without a start, checked and counted as by one; and back.
func TestASetIsSwitchedWithoutAStart(t *testing.T) {
	m := newMaker(t)
	v1 := m.assets(t, "1.0.0", 1, pump, nil)
	next := slices.Clone(pump)
	next[2].version = "1.5.0"
	v2 := m.assets(t, "2.0.0", 2, next, nil)
	b := bornWith(t, m, v1, 24)
	mgr := mustBoot(t, b)
	first := slices.Clone(mgr.cdi)
	if ok, err := mgr.Switch(); err != nil || !ok || mgr.rep.Digest != v1.digest || !bytes.Equal(mgr.cdi, first) {
		t.Fatalf("with nothing to switch to: %v, %v", ok, err)
	}
	stage := func() {
		t.Helper()
		if err := mgr.Stage(t.Context(), v2.env, v2.source, nil); err != nil {
			t.Fatal(err)
		}
		if err := mgr.Activate(v2.digest); err != nil {
			t.Fatal(err)
		}
	}
	stage()
	if ok, err := mgr.Switch(); err != nil || !ok || !mgr.rep.Trial || whole(t, "switched", mgr, v2) != "2.0.0" || bytes.Equal(mgr.cdi, first) {
		t.Fatalf("switched %v, trial %v: %v", ok, mgr.rep.Trial, err)
	}
	if err := mgr.Revert(); err != nil {
		t.Fatal(err)
	}
	if ok, err := mgr.Switch(); err != nil || !ok || mgr.rep.Trial || whole(t, "back", mgr, v1) != "1.0.0" {
		t.Fatalf("back %v, trial %v: %v", ok, mgr.rep.Trial, err)
	}
	stage()
	a := areaOf(t, b, mgr.rep.Slot.other(), 2)
	pos, _, err := a.at(5)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, a.pool, pos, 1)
	if ok, err := mgr.Switch(); err != nil || !ok || whole(t, "a set that was damaged since", mgr, v1) != "1.0.0" {
		t.Fatalf("%v, %v", ok, err)
	}
	if mgr = mustBoot(t, b); mgr.rep.Trial || mgr.rep.Counter != 1 {
		t.Errorf("trial %v, counter %d", mgr.rep.Trial, mgr.rep.Counter)
	}
	if ok, err := mustBoot(t, born(t, m, m.release(t, "3.0.0", 3, nil))).Switch(); ok || err != nil {
		t.Errorf("a whole image is switched without a start: %v", err)
	}
}
