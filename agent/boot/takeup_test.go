package boot

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/boot/nvm"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
)

const probedDevice = "00112233445566778899aabbccddeeff"

// probed is a chip as a debug probe leaves it; change may spoil what is laid down.
func probed(t testing.TB, m *maker, f firmware, change func(*wire.ChipArea)) (*virtual.Board, wire.ChipArea) {
	t.Helper()
	b, err := virtual.New(virtual.Spec{Revision: "A", ChipUID: "00", Flash: hw.Geometry{Size: FlashFor(16<<10, testSector, testPage), Sector: testSector, Page: testPage}})
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int64
	for _, c := range f.rel.Components {
		sizes = append(sizes, int64(c.Size))
	}
	at, places, err := Places(b.Flash, sizes...)
	if err != nil {
		t.Fatal(err)
	}
	var raw, spki [2][]byte
	for i := range raw {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err == nil {
			raw[i], err = k.Bytes()
		}
		if err == nil {
			spki[i], err = wire.SPKIOf(k.Public())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	a := wire.ChipArea{Identity: raw[0], Attest: raw[1], Install: wire.Install{
		Certificate: append([]byte("certificate of "), spki[0]...), Chain: [][]byte{{2}}, Device: probedDevice, Product: "pump", Hardware: "A", Bundle: m.env, Release: f.env,
		Params: wire.DeviceParams{
			Flash: wire.Flash{Size: 4 << 20, Erase: testSector, Slots: 2, SlotSize: 1 << 20}, Servers: wire.Servers{Device: "https://devices.example"},
			Config: []byte("first"), Extra: map[string]string{"gain": "7"},
		},
	}}
	for i, c := range f.rel.Components {
		a.Places = append(a.Places, wire.ChipPlace{Component: c.Name, At: places[i] - at})
		if err := b.Flash.Program(places[i], padded(f.data[c.Name], testPage)); err != nil {
			t.Fatal(err)
		}
	}
	if change != nil {
		change(&a)
	}
	data, err := wire.EncodeChipArea(a)
	if err == nil {
		err = b.Flash.Program(at, padded(data, testPage))
	}
	root, err2 := wire.RootDigest(m.bundle)
	if err = errors.Join(err, err2, b.Fuses.BurnRoot(root), b.Fuses.RaiseSecurityCounter(f.rel.Counter), b.Fuses.Advance(hw.Secured), b.Fuses.LockDebug()); err != nil {
		t.Fatal(err)
	}
	return b, a
}

// taken says what of a device is not as its factory meant it; keys lie nowhere but in its key store.
func taken(b *virtual.Board, mgr *Manager, a wire.ChipArea, f firmware) error {
	r := mgr.Report()
	if r.Release == nil || r.Digest != f.digest || r.Trial || r.Identity.Device != a.Install.Device || r.Identity.Origin != wire.OriginStation || r.Identity.Model != f.rel.Model {
		return fmt.Errorf("it runs %v: %+v, %v", r.Release, r.Identity, r.Notes)
	}
	for _, test := range r.POST {
		if !test.Passed {
			return fmt.Errorf("self test %+v", test)
		}
	}
	for name, raw := range map[string][]byte{hw.KeyIDevID: a.Identity, hw.KeyAttest: a.Attest} {
		want, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
		if err != nil {
			return err
		}
		if k, err := b.Keys.Signer(name); err != nil || !want.PublicKey.Equal(k.Public()) {
			return fmt.Errorf("key %s is another: %w", name, err)
		}
		flash := make([]byte, b.Flash.Geometry().Size)
		if _, err := b.Flash.ReadAt(flash, 0); err != nil {
			return err
		}
		if bytes.Contains(flash, raw) {
			return fmt.Errorf("key %s lies in the flash", name)
		}
		if bytes.Contains(flash, []byte("\x64gain\x617")) {
			return errors.New("a parameter of the factory lies open in the flash")
		}
	}
	p, err := mgr.Params()
	if err != nil {
		return err
	}
	values := map[string]string{}
	for _, v := range p.List() {
		values[v.Name] = v.Value
	}
	if values["gain"] != "7" || values[ParamConfig] != "first" {
		return fmt.Errorf("its parameters are %v", values)
	}
	if v, err := b.Trust.Value(); err != nil || v != 1 {
		return fmt.Errorf("the counter of bundles is %d, %w", v, err)
	}
	return nil
}

// What a probe has laid down is a device from its first start on, and is updated as any other.
func TestAChipThatAProbeMadeIsADeviceFromItsFirstStartOn(t *testing.T) {
	m := newMaker(t)
	v1, v2 := m.release(t, "1.0.0", 1, nil), m.release(t, "2.0.0", 2, nil)
	b, a := probed(t, m, v1, nil)
	for _, which := range []string{"first", "second"} {
		if err := taken(b, mustBoot(t, b), a, v1); err != nil {
			t.Fatalf("%s start: %v", which, err)
		}
	}
	if err := update(b, v2); err != nil {
		t.Fatal(err)
	}
	if mgr := mustBoot(t, b); running(mgr) != "2.0.0" {
		t.Fatalf("%s: %v", running(mgr), mgr.rep.Notes)
	}
}

// The power fails in every operation of the first start, in every way, and once more in the start behind it: it is a device then.
func TestPowerCutAtEveryWriteOfATakeUp(t *testing.T) {
	m := newMaker(t)
	f := m.release(t, "1.0.0", 3, nil)
	golden, a := probed(t, m, f, nil)
	clone := func() *virtual.Board {
		b, err := golden.Clone()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	whole := clone()
	mustBoot(t, whole)
	total := whole.Power.Ops()
	t.Logf("%d operations, %d modes", total, len(virtual.Modes()))
	for n := uint64(1); n <= total; n++ {
		for _, mode := range virtual.Modes() {
			b := clone()
			b.Power.CutAt(n, mode, n)
			if _, err := boot(b); !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("cut %d %s: the power was to fail: %v", n, mode, err)
			}
			if n%3 == 0 {
				b.Reset()
				b.Power.CutAt(n%17+1, mode, n)
				if _, err := boot(b); err != nil && !errors.Is(err, hw.ErrPowerCut) {
					t.Fatalf("cut %d %s, again: %v", n, mode, err)
				}
				b.Power.CutAt(1<<40, virtual.Before, 0)
			}
			if err := taken(b, mustBoot(t, b), a, f); err != nil {
				t.Fatalf("cut %d %s: %v", n, mode, err)
			}
		}
	}
}

// What the fuses, the release or the certificate do not vouch for is not taken up, and nothing is written for it.
func TestWhatAProbeLaidDownWrongIsNotTakenUp(t *testing.T) {
	m, other := newMaker(t), newMaker(t)
	f := m.release(t, "1.0.0", 1, nil)
	for name, c := range map[string]struct {
		change func(*wire.ChipArea)
		says   string
	}{
		"another's root":        {func(a *wire.ChipArea) { a.Install.Bundle = other.env }, "not the one in the fuses"},
		"another's release":     {func(a *wire.ChipArea) { a.Install.Release = other.release(t, "1.0.0", 1, nil).env }, "threshold"},
		"an older release":      {func(a *wire.ChipArea) { a.Install.Release = m.release(t, "0.9.0", 0, nil).env }, "the fuses say 1"},
		"other bytes":           {func(a *wire.ChipArea) { a.Install.Release = m.release(t, "1.0.1", 1, nil).env }, "not the one that was signed"},
		"another's certificate": {func(a *wire.ChipArea) { a.Install.Certificate = []byte{1} }, "not the one of its certificate"},
		"no key":                {func(a *wire.ChipArea) { a.Identity = make([]byte, 32) }, "key idevid"},
		"other hardware":        {func(a *wire.ChipArea) { a.Install.Hardware = "B" }, `for hardware "B"`},
		"a component nowhere":   {func(a *wire.ChipArea) { a.Places = a.Places[:1] }, "component data does not begin"},
		"not at a sector":       {func(a *wire.ChipArea) { a.Places[0].At++ }, "does not begin with a sector"},
		"before the flash":      {func(a *wire.ChipArea) { a.Places[0].At = -1 << 40 }, "does not begin with a sector"},
		"behind the flash":      {func(a *wire.ChipArea) { a.Places[0].At += 1 << 40 }, "outside the pool"},
		"in one place":          {func(a *wire.ChipArea) { a.Places[1].At = a.Places[0].At }, "lies in another"},
	} {
		b, _ := probed(t, m, f, c.change)
		before := b.Power.Ops()
		if _, err := boot(b); !errors.Is(err, ErrDead) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if n := b.Power.Ops() - before; n != 1 { // the count of starts
			t.Errorf("%s: %d operations", name, n)
		}
	}
}

// Whoever writes another's area into the flash of a device that was taken up, or that came by the protocol, gets nothing by it.
func TestNothingIsTakenUpTwice(t *testing.T) {
	m := newMaker(t)
	f := m.release(t, "1.0.0", 1, nil)
	b, _ := probed(t, m, f, nil)
	mustBoot(t, b)
	for name, victim := range map[string]*virtual.Board{"taken up": b, "by the protocol": born(t, m, f)} {
		from, planted := probed(t, m, f, nil)
		data := make([]byte, from.Flash.Geometry().Size)
		if _, err := from.Flash.ReadAt(data, 0); err != nil {
			t.Fatal(err)
		}
		victim.Reset()
		for n := range int64(len(data)) / testSector {
			if err := errors.Join(victim.Flash.Erase(n), victim.Flash.Program(n*testSector, data[n*testSector:(n+1)*testSector])); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := boot(victim); !errors.Is(err, ErrDead) || !errors.Is(err, nvm.ErrEmpty) {
			t.Errorf("%s: %v", name, err)
		}
		if k, err := victim.Keys.Signer(hw.KeyIDevID); err == nil {
			if raw, _ := ecdsa.ParseRawPrivateKey(elliptic.P256(), planted.Identity); raw.PublicKey.Equal(k.Public()) {
				t.Errorf("%s: the planted key is its own now", name)
			}
		}
	}
}
