package boot

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// maker is an OEM with two approvers.
type maker struct {
	keys   []*ecdsa.PrivateKey
	bundle wire.Bundle
	env    []byte
}

func newMaker(t testing.TB) *maker {
	t.Helper()
	m := &maker{}
	role := wire.KeySet{Threshold: 2}
	for range 2 {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		m.keys, role.Keys = append(m.keys, k), append(role.Keys, der)
	}
	k := bytes.Repeat([]byte{1}, 32)
	m.bundle = wire.Bundle{
		Version: 1, Product: "pump", Root: role, Release: role, Warrant: role, Directive: wire.KeySet{Keys: role.Keys[:1], Threshold: 1},
		Control: wire.LogTrust{Origin: "c", Key: k}, Events: wire.LogTrust{Origin: "e", Key: k}, Witnesses: []wire.NamedKey{{Name: "w", Key: k}},
		Quorum: 1, MaxAge: 1, Issued: 1, Anchors: [][]byte{{1}}, Suites: []string{"HM-P256-1"}, Telemetry: []wire.StreamKey{},
	}
	p, err := wire.EncodeBundle(m.bundle)
	if err != nil {
		t.Fatal(err)
	}
	m.env = m.sign(t, wire.TypeBundle, p, 2)
	return m
}

func (m *maker) sign(t testing.TB, typ wire.Type, payload []byte, n int) []byte {
	t.Helper()
	env, err := wire.NewThreshold(typ, payload, m.keys[0])
	if err != nil {
		t.Fatal(err)
	}
	if n > 1 {
		if env, err = wire.AddSignature(typ, env, m.keys[1]); err != nil {
			t.Fatal(err)
		}
	}
	return env
}

// firmware is a signed release and its bytes.
type firmware struct {
	rel    wire.Release
	env    []byte
	digest [32]byte
	data   map[string][]byte
	clear  []byte // of an image that is sealed: what the installer gets
}

func (m *maker) release(t testing.TB, version string, counter uint32, change func(*wire.Release)) firmware {
	t.Helper()
	f := firmware{data: map[string][]byte{
		"app":  bytes.Repeat([]byte("program "+version+";"), 700),
		"data": bytes.Repeat([]byte{0xff, 0, byte(counter)}, 333),
	}}
	f.rel = wire.Release{ID: "r" + version, Product: "pump", Hardware: []string{"A"}, Model: wire.ModelBlob, Version: version, Counter: counter, Created: 1}
	for _, n := range []string{"app", "data"} {
		sum := sha256.Sum256(f.data[n])
		c := wire.Component{Name: n, Kind: wire.KindExec, Version: version, Size: uint64(len(f.data[n])), Digest: sum[:], Health: wire.HealthAlive}
		if n == "data" {
			c.Kind, c.Health = wire.KindData, wire.HealthNone
		}
		f.rel.Components = append(f.rel.Components, c)
	}
	if change != nil {
		change(&f.rel)
	}
	p, err := wire.EncodeRelease(f.rel)
	if err != nil {
		t.Fatal(err)
	}
	f.env, f.digest = m.sign(t, wire.TypeRelease, p, 2), wire.ReleaseDigest(p)
	return f
}

func (f firmware) source(_ context.Context, c wire.Component, off int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(f.data[c.Name][off:])), nil
}

const (
	testPage   = 256
	testSector = 4096
)

// born makes a board that runs f.
func born(t testing.TB, m *maker, f firmware) *virtual.Board {
	t.Helper()
	b, err := virtual.New(virtual.Spec{Revision: "A", ChipUID: "00", Flash: hw.Geometry{
		Size: FlashFor(16<<10, testSector, testPage), Sector: testSector, Page: testPage,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := birth(b, m, f); err != nil {
		t.Fatal(err)
	}
	return b
}

func birth(b *virtual.Board, m *maker, f firmware) error {
	return birthWith(b, m, f, [32]byte{1, 2, 3})
}

func birthWith(b *virtual.Board, m *maker, f firmware, secret [32]byte) error {
	n, err := NewBirth(&b.Board)
	if err != nil {
		return err
	}
	if err := n.Install(Identity{Device: "d1", Product: "pump", Hardware: "A", Chain: [][]byte{{1}}}, m.env, f.env, f.rel); err != nil {
		return err
	}
	for name, data := range f.data {
		if err := n.Write(name, 0, data); err != nil {
			return err
		}
	}
	root, err := wire.RootDigest(m.bundle)
	if err != nil {
		return err
	}
	return n.Fuse(root, secret, f.rel.Counter, 1)
}

func boot(b *virtual.Board) (*Manager, error) {
	b.Reset()
	return Start(&b.Board, [32]byte{9})
}

func mustBoot(t testing.TB, b *virtual.Board) *Manager {
	t.Helper()
	m, err := boot(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func running(m *Manager) string {
	if m.rep.Release == nil {
		return "recovery"
	}
	return m.rep.Release.Version
}

// update goes from whatever is there to f, as far as the power lasts.
func update(b *virtual.Board, f firmware) error {
	m, err := boot(b)
	if err != nil {
		return err
	}
	if m.rep.Digest == f.digest && !m.rep.Trial {
		return m.Confirm()
	}
	if !m.rep.Trial {
		if err := m.Stage(context.Background(), f.env, f.source, nil); err != nil {
			return err
		}
		if err := m.Activate(f.digest); err != nil {
			return err
		}
		if m, err = boot(b); err != nil {
			return err
		}
	}
	if m.rep.Digest != f.digest {
		return fmt.Errorf("after activation %s runs: %v", running(m), m.rep.Notes)
	}
	return m.Confirm()
}

func TestADeviceIsUpdatedAndDoesNotGoBack(t *testing.T) {
	m := newMaker(t)
	v1, v2 := m.release(t, "1.0.0", 1, nil), m.release(t, "2.0.0", 2, nil)
	b := born(t, m, v1)
	if got := running(mustBoot(t, b)); got != "1.0.0" {
		t.Fatalf("runs %s: %v", got, mustBoot(t, b).rep.Notes)
	}
	if err := update(b, v2); err != nil {
		t.Fatal(err)
	}
	mgr := mustBoot(t, b)
	if running(mgr) != "2.0.0" || mgr.rep.Trial || mgr.rep.Counter != 2 {
		t.Fatalf("runs %s, trial %v, counter %d", running(mgr), mgr.rep.Trial, mgr.rep.Counter)
	}
	if err := mgr.Stage(t.Context(), v1.env, v1.source, nil); !errors.Is(err, wire.ErrRollback) {
		t.Errorf("an older security counter: %v", err)
	}
	for _, p := range mgr.rep.POST {
		if !p.Passed {
			t.Errorf("self test %s: %s", p.Name, p.Detail)
		}
	}
}

func TestATrialThatIsNeverConfirmedEnds(t *testing.T) {
	m := newMaker(t)
	v1, v2 := m.release(t, "1.0.0", 1, nil), m.release(t, "2.0.0", 2, nil)
	b := born(t, m, v1)
	mgr := mustBoot(t, b)
	if err := mgr.Stage(t.Context(), v2.env, v2.source, nil); err != nil {
		t.Fatal(err)
	}
	if err := mgr.Activate(v2.digest); err != nil {
		t.Fatal(err)
	}
	for range maxTries {
		if got := mustBoot(t, b); running(got) != "2.0.0" || !got.rep.Trial {
			t.Fatalf("runs %s, want the trial", running(got))
		}
	}
	if got := mustBoot(t, b); running(got) != "1.0.0" || got.rep.Counter != 1 {
		t.Fatalf("after %d tries runs %s with counter %d", maxTries, running(got), got.rep.Counter)
	}
}

func TestWhatMayNotRunIsRefusedBeforeTheFirstWrite(t *testing.T) {
	m, other := newMaker(t), newMaker(t)
	v1 := m.release(t, "1.0.0", 1, nil)
	b := born(t, m, v1)
	mgr := mustBoot(t, b)
	one := m.release(t, "2.0.0", 2, nil)
	payload, err := wire.EncodeRelease(one.rel)
	if err != nil {
		t.Fatal(err)
	}
	one.env = m.sign(t, wire.TypeRelease, payload, 1)
	for name, f := range map[string]firmware{
		"one signature":  one,
		"another maker":  other.release(t, "2.0.0", 2, nil),
		"other product":  m.release(t, "2.0.0", 2, func(r *wire.Release) { r.Product = "valve" }),
		"other hardware": m.release(t, "2.0.0", 2, func(r *wire.Release) { r.Hardware = []string{"B"} }),
		"OTP":            m.release(t, "2.0.0", 2, func(r *wire.Release) { r.Model = wire.ModelOTP }),
		"too large":      m.release(t, "2.0.0", 2, func(r *wire.Release) { r.Components[0].Size = 1 << 40 }),
		"fuse overflow":  m.release(t, "2.0.0", hw.CounterMax+1, nil),
	} {
		before := b.Power.Ops()
		if err := mgr.Stage(t.Context(), f.env, f.source, nil); err == nil {
			t.Errorf("%s: staged", name)
		}
		if b.Power.Ops() != before {
			t.Errorf("%s: something was written", name)
		}
	}
}

func TestChangedBytesDoNotStart(t *testing.T) {
	m := newMaker(t)
	v1 := m.release(t, "1.0.0", 1, nil)
	golden := born(t, m, v1)
	for i := range int64(40) {
		b, err := golden.Clone()
		if err != nil {
			t.Fatal(err)
		}
		at := i * 199
		if i%4 == 0 {
			at = i * 31 // the head and the signed release
			f, err := Arrange(b.Flash)
			if err != nil {
				t.Fatal(err)
			}
			flip(t, f.slots[SlotA], at, byte(1<<(i%8)))
		} else {
			a := areaOf(t, b, SlotA, 0)
			pos, _, err := a.at(at)
			if err != nil {
				t.Fatal(err)
			}
			flip(t, a.pool, pos, byte(1<<(i%8)))
		}
		mgr := mustBoot(t, b)
		if running(mgr) != "recovery" && i%4 != 0 {
			t.Fatalf("byte %d of the slot changed, and %s starts", at, running(mgr))
		}
		parts, err := mgr.Measure()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if p.Type == "App" && p.Description == "app" && bytes.Equal(p.Value, v1.rel.Components[0].Digest) && i%4 != 0 && at < int64(v1.rel.Components[0].Size) {
				t.Fatalf("byte %d changed, and the measurement does not show it", at)
			}
		}
	}
}

// areaOf is the place of a component of the set in a slot.
func areaOf(t testing.TB, b *virtual.Board, s Slot, i int) area {
	t.Helper()
	f, err := Arrange(b.Flash)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.load(s)
	if err != nil {
		t.Fatal(err)
	}
	return st.areas[i]
}

// flip changes bits of a region behind the boot manager's back, as somebody with a soldering iron would.
func flip(t testing.TB, r hw.Region, off int64, mask byte) {
	t.Helper()
	n := off / r.Sector()
	old := make([]byte, r.Sector())
	if _, err := r.ReadAt(old, n*r.Sector()); err != nil {
		t.Fatal(err)
	}
	old[off%r.Sector()] ^= mask
	if err := r.Erase(n); err != nil {
		t.Fatal(err)
	}
	if err := r.Program(n*r.Sector(), old); err != nil {
		t.Fatal(err)
	}
}

// The power fails in every operation of an update, in every way: the device starts the old release or the new, the security
// counter is never above what is confirmed, and the update then succeeds.
func TestPowerCutAtEveryWriteOfAnUpdate(t *testing.T) {
	m := newMaker(t)
	v1, v2 := m.release(t, "1.0.0", 1, nil), m.release(t, "2.0.0", 2, nil)
	golden := born(t, m, v1)
	whole, err := golden.Clone()
	if err != nil {
		t.Fatal(err)
	}
	if err := update(whole, v2); err != nil {
		t.Fatal(err)
	}
	total := whole.Power.Ops()
	t.Logf("%d operations, %d modes", total, len(virtual.Modes()))
	for n := uint64(1); n <= total; n++ {
		for _, mode := range virtual.Modes() {
			b, err := golden.Clone()
			if err != nil {
				t.Fatal(err)
			}
			b.Power.CutAt(n, mode, n)
			if err := update(b, v2); !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("cut %d %s: the power was to fail: %v", n, mode, err)
			}
			after := fmt.Sprintf("cut %d %s", n, mode)
			checkSane(t, after, b)
			if n%5 == 0 { // and once more, in the recovery from it
				b.Power.CutAt(n%7+1, mode, n)
				if err := update(b, v2); err != nil && !errors.Is(err, hw.ErrPowerCut) {
					t.Fatalf("%s, again: %v", after, err)
				}
				checkSane(t, after+", again", b)
			}
			if err := update(b, v2); err != nil {
				t.Fatalf("%s: the update does not succeed afterwards: %v", after, err)
			}
			if mgr := mustBoot(t, b); running(mgr) != "2.0.0" || mgr.rep.Trial || mgr.rep.Counter != 2 {
				t.Fatalf("%s: in the end runs %s, trial %v, counter %d", after, running(mgr), mgr.rep.Trial, mgr.rep.Counter)
			}
		}
	}
}

func checkSane(t *testing.T, after string, b *virtual.Board) {
	t.Helper()
	mgr, err := boot(b)
	if err != nil {
		t.Fatalf("%s: does not start: %v", after, err)
	}
	switch v := running(mgr); {
	case v != "1.0.0" && v != "2.0.0":
		t.Fatalf("%s: %s: %v", after, v, mgr.rep.Notes)
	case mgr.rep.Counter > mgr.rep.Release.Counter:
		t.Fatalf("%s: counter %d above the running release", after, mgr.rep.Counter)
	case v == "1.0.0" && mgr.rep.Counter != 1, mgr.rep.Trial && mgr.rep.Counter != 1:
		t.Fatalf("%s: counter %d before anything was confirmed", after, mgr.rep.Counter)
	}
}

// The power fails in every operation of the wipe and of the end: nothing starts after it has begun, and it goes on to the end.
func TestPowerCutAtEveryWriteOfTheEnd(t *testing.T) {
	m := newMaker(t)
	golden := born(t, m, m.release(t, "1.0.0", 1, nil))
	end := func(b *virtual.Board) error {
		mgr, err := boot(b)
		if err != nil {
			return err
		}
		if _, _, err := mgr.Erase(); err != nil {
			return err
		}
		return mgr.End()
	}
	whole, err := golden.Clone()
	if err != nil {
		t.Fatal(err)
	}
	if err := end(whole); err != nil {
		t.Fatal(err)
	}
	for n := uint64(2); n <= whole.Power.Ops(); n++ { // the first is the count of starts
		for _, mode := range []virtual.Mode{virtual.Before, virtual.Random} {
			b, err := golden.Clone()
			if err != nil {
				t.Fatal(err)
			}
			b.Power.CutAt(n, mode, n)
			if err := end(b); !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("cut %d %s: the power was to fail: %v", n, mode, err)
			}
			for range 3 { // begin again until it is over
				if err = end(b); errors.Is(err, ErrDead) {
					break
				}
				if err != nil {
					t.Fatalf("cut %d %s: the end does not go on: %v", n, mode, err)
				}
			}
			if _, err := boot(b); !errors.Is(err, ErrDead) {
				t.Fatalf("cut %d %s: it starts after its end: %v", n, mode, err)
			}
			if life, err := b.Fuses.Lifecycle(); err != nil || life != hw.Decommissioned {
				t.Fatalf("cut %d %s: life cycle %s, %v", n, mode, life, err)
			}
		}
	}
}

func TestEverySelfTestCanFailAndStopsTheStart(t *testing.T) {
	m := newMaker(t)
	golden := born(t, m, m.release(t, "1.0.0", 1, nil))
	for _, name := range []string{TestSHA256, TestECDSA, TestAES, TestRandom, TestMemory, TestFuses, TestFlash, TestCount, TestKeys} {
		b, err := golden.Clone()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Keys.Generate(hw.KeyAttest, suite.P256); err != nil {
			t.Fatal(err)
		}
		b.Fault = func(n string) bool { return n == name }
		mgr := mustBoot(t, b)
		failed := ""
		for _, p := range mgr.rep.POST {
			if !p.Passed {
				failed += p.Name
			}
		}
		if failed != name || running(mgr) != "recovery" {
			t.Errorf("fault in %s: failed %q, runs %s", name, failed, running(mgr))
		}
	}
}

func TestABundleThatIsNotTheNextIsRefused(t *testing.T) {
	m := newMaker(t)
	b := born(t, m, m.release(t, "1.0.0", 1, nil))
	mgr := mustBoot(t, b)
	next := m.bundle
	next.Version, next.Floor = 2, 1
	p, err := wire.EncodeBundle(next)
	if err != nil {
		t.Fatal(err)
	}
	if err := mgr.SetBundle(m.env); err == nil {
		t.Error("the same version again")
	}
	if err := mgr.SetBundle(m.sign(t, wire.TypeBundle, p, 1)); err == nil {
		t.Error("one signature")
	}
	if err := mgr.SetBundle(m.sign(t, wire.TypeBundle, p, 2)); err != nil {
		t.Fatal(err)
	}
	if got := mustBoot(t, b); got.rep.Bundle.Version != 2 {
		t.Errorf("bundle version %d after a restart", got.rep.Bundle.Version)
	}
	f, err := Arrange(b.Flash)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.bundle.Save(plainRecord(t, m.env)); err != nil { // an attacker puts the old one back
		t.Fatal(err)
	}
	believesNobody(t, b, "an old bundle put back")
}

// The power fails in every operation of a bundle's replacement: once the new one was in force, the old one is not believed again.
func TestABundleOnceInForceIsNotUndoneByACut(t *testing.T) {
	m := newMaker(t)
	golden := born(t, m, m.release(t, "1.0.0", 1, nil))
	next := m.bundle
	next.Version, next.Floor = 2, 1
	p, err := wire.EncodeBundle(next)
	if err != nil {
		t.Fatal(err)
	}
	env := m.sign(t, wire.TypeBundle, p, 2)
	cuts, undone := 0, 0
	for n := uint64(1); ; n++ {
		b, err := golden.Clone()
		if err != nil {
			t.Fatal(err)
		}
		mgr := mustBoot(t, b)
		b.Power.CutAt(n, virtual.Random, n)
		err = mgr.SetBundle(env)
		if err == nil {
			break // the cut would have come later
		}
		if !errors.Is(err, hw.ErrPowerCut) {
			t.Fatalf("cut %d: %v", n, err)
		}
		cuts++
		if got := mustBoot(t, b); got.rep.Bundle.Version != 2 {
			continue // the old one is still in force
		}
		f, err := Arrange(b.Flash)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.bundle.Save(plainRecord(t, m.env)); err != nil {
			t.Fatal(err)
		}
		believesNobody(t, b, fmt.Sprintf("cut %d: the old bundle put back", n))
		undone++
	}
	if cuts == 0 || undone == 0 {
		t.Errorf("%d cuts, %d of them after the new one was in force: nothing is shown", cuts, undone)
	}
}

// What was tried and failed is not staged any more; what the power kept from being tried is.
func TestWhatWasTriedIsNotStagedAnyMore(t *testing.T) {
	m := newMaker(t)
	b := born(t, m, m.release(t, "1.0.0", 1, nil))
	f := m.release(t, "1.1.0", 2, nil)
	mgr := mustBoot(t, b)
	if err := mgr.Stage(t.Context(), f.env, f.source, nil); err != nil {
		t.Fatal(err)
	}
	mgr = mustBoot(t, b)
	if err := mgr.Activate(f.digest); err != nil {
		t.Fatalf("after a start without a trial: %v", err)
	}
	for range maxTries + 1 {
		mgr = mustBoot(t, b)
	}
	if err := mgr.Activate(f.digest); !errors.Is(err, ErrNotStaged) {
		t.Errorf("after its trial: %v", err)
	}
}

func FuzzParseHead(f *testing.F) {
	f.Add(append(append([]byte{}, setMagic[:]...), make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, _, err := parseHead(b); err == nil && n > maxBody {
			t.Fatal("longer than any record")
		}
	})
}

// What is read as a record has its areas apart from each other and inside the pool, and is written as it was read.
func FuzzParseRecord(f *testing.F) {
	for _, areas := range [][][]extent{{{{0, 3}}}, {{{0, 3}, {7, 1}}, {{3, 4}}}, {{{1, 2}}, {{2, 1}}}, {{{60, 5}}}, {{}}, {{{-1, 2}}}, {{{1 << 62, 1 << 62}}}} {
		b, err := wire.Marshal(record{Envelope: []byte{1}, Areas: areas})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	const sectors = 64
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b, sectors)
		if err != nil {
			return
		}
		seen := map[int64]bool{}
		for _, ext := range r.Areas {
			for _, e := range ext {
				for n := e.First; n < e.First+e.Count; n++ {
					if n < 0 || n >= sectors || seen[n] {
						t.Fatalf("sector %d twice, or outside", n)
					}
					seen[n] = true
				}
			}
		}
		if again, err := wire.Marshal(r); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("written again it is another: %v", err)
		}
	})
}

func FuzzParseControl(f *testing.F) {
	b, err := wire.Marshal(control{Active: SlotB, Valid: true, Trial: true, Tries: 2, Staged: make([]byte, 32)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseControl(b); err == nil && (c.Tries > maxTries || c.Active > SlotB) {
			t.Fatal("out of bounds")
		}
	})
}
