package boot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
)

// machine is the part of a board that is outside of its flash: two banks, a boot loader that does as U-Boot does, and an installer, which lays what follows
// an image's first 16 bytes. Each of its writes can be cut.
type machine struct {
	board   *virtual.Board
	banks   [2][]byte
	started hw.Bank
	told    hw.Told
	starts  int // of a trial

	stubborn bool // it starts bank a, whatever it was told
	worn     bool // its banks take nothing any more
	unknown  bool // nobody says which bank was started

	ops, cutAt int
	mode       virtual.Mode
	says       func(*machine)      // what an image does of its own accord, when it is installed
	spoil      func([]byte) []byte // what the installer makes of it
	opens      func(ctx context.Context, sealed io.Reader, c wire.Component) (io.Reader, error)
}

const imageHead = 16

// op counts an operation that changes something. It gives how much of it is done, of n parts, and the cut.
func (m *machine) op(n int) (int, error) {
	if m.ops++; m.ops != m.cutAt {
		return n, nil
	}
	m.board.Power.CutAt(1, virtual.Before, 1) // and nothing works any more until the start
	_ = m.board.Boots.Raise(1 << 40)
	done := map[virtual.Mode]int{virtual.Before: 0, virtual.Torn: n / 2, virtual.Random: n / 3, virtual.After: n}[m.mode]
	return done, fmt.Errorf("%w in operation %d of the machine (%s)", hw.ErrPowerCut, m.ops, m.mode)
}

func (m *machine) Started() (hw.Bank, error) {
	if m.unknown {
		return 0, errors.New("the command line says nothing")
	}
	return m.started, nil
}

func (m *machine) Told() (hw.Told, error) { return m.told, nil }

func (m *machine) Tell(b hw.Bank, trial bool) error {
	done, err := m.op(1)
	if done == 1 {
		m.told, m.starts = hw.Told{Bank: b, Trial: trial, Here: true}, 0
	}
	return err
}

type bankReader struct{ *bytes.Reader }

func (bankReader) Close() error { return nil }

func (m *machine) Open(b hw.Bank) (hw.BankReader, error) {
	return bankReader{bytes.NewReader(m.banks[b])}, nil
}

func (m *machine) Install(_ context.Context, b hw.Bank, image io.Reader) error {
	if b == m.started {
		return errors.New("that bank runs")
	}
	data, err := io.ReadAll(image)
	if err != nil {
		return err
	}
	data = data[imageHead:]
	if m.spoil != nil {
		data = m.spoil(data)
	}
	for at := 0; at < len(data); at += 300 {
		n := min(300, len(data)-at)
		done, err := m.op(n)
		copy(m.banks[b][at:at+done], data[at:])
		if err != nil {
			return err
		}
	}
	if m.says != nil {
		m.says(m)
	}
	return nil
}

func (m *machine) Clear(b hw.Bank) error {
	data := m.banks[b]
	if m.worn {
		return errors.New("worn out")
	}
	for at := 0; at < len(data); at += 300 {
		n := min(300, len(data)-at)
		if bytes.Count(data[at:at+n], []byte{0xff}) == n {
			continue
		}
		done, err := m.op(n)
		copy(data[at:at+done], bytes.Repeat([]byte{0xff}, done))
		if err != nil {
			return err
		}
	}
	return nil
}

// restart is what U-Boot does: on trial it counts, and goes back behind the limit; a bank that does not come up is a start like any other.
func (m *machine) restart() {
	m.board.Reset()
	if m.stubborn {
		m.started, m.told.Here = hw.BankA, false
		return
	}
	for range 10 {
		at := m.told.Bank
		if m.told.Trial {
			if m.starts++; m.starts > maxTries {
				at = at.Other()
			}
		}
		if !bytes.HasPrefix(m.banks[at], []byte("dead")) {
			m.started, m.told.Here = at, false
			return
		}
		if !m.told.Trial {
			at = at.Other() // its boot loader sees a kernel that it does not verify
			m.started, m.told.Here = at, false
			return
		}
	}
}

func (m *machine) start() (*Manager, error) {
	for range 4 {
		m.restart()
		mgr, err := Start(&m.board.Board, [32]byte{9})
		if err == nil && m.opens != nil {
			mgr.Opens(m.opens)
		}
		if !errors.Is(err, ErrElsewhere) {
			return mgr, err
		}
	}
	return nil, errors.New("it restarts for ever")
}

// withImage adds an image to a release: what lies in the bank begins with laid.
func (f firmware) withImage(t testing.TB, m *maker, laid string) firmware {
	t.Helper()
	lies := bytes.Repeat([]byte(laid+"; "), 2000/len(laid))
	image := append(bytes.Repeat([]byte{'#'}, imageHead), lies...)
	sum, inside := sha256.Sum256(image), sha256.Sum256(lies)
	f.rel.Components = append(f.rel.Components, wire.Component{
		Name: "root", Kind: wire.KindImage, Version: f.rel.Version, Size: uint64(len(image)), Digest: sum[:], Health: wire.HealthNone,
		Laid: &wire.Laid{Size: uint64(len(lies)), Digest: inside[:]},
	})
	f.data["root"] = image
	p, err := wire.EncodeRelease(f.rel)
	if err != nil {
		t.Fatal(err)
	}
	f.env, f.digest = m.sign(t, wire.TypeRelease, p, 2), wire.ReleaseDigest(p)
	return f
}

// opener opens a protected image.
type opener = func(context.Context, io.Reader, wire.Component) (io.Reader, error)

// sealed protects a release's image, and gives what opens it.
func (f firmware) sealed(t testing.TB, m *maker) (firmware, opener) {
	t.Helper()
	return f.sealedAs(t, m, f.data["root"])
}

// sealedAs is sealed by a server that seals what it likes: what is signed is the release's image.
func (f firmware) sealedAs(t testing.TB, m *maker, image []byte) (firmware, opener) {
	t.Helper()
	key := wire.NewContentKey()
	s, err := wire.NewComponentSealer(bytes.NewReader(image), key, wire.NewContentKeyID())
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	signed := sha256.Sum256(f.data["root"])
	f.clear, f.data["root"] = image, data
	i := slices.IndexFunc(f.rel.Components, func(c wire.Component) bool { return c.Kind == wire.KindImage })
	sum, p := sha256.Sum256(data), s.Protected()
	p.Digest = signed[:]
	f.rel.Components[i].Size, f.rel.Components[i].Digest, f.rel.Components[i].Protected = uint64(len(data)), sum[:], &p
	payload, err := wire.EncodeRelease(f.rel)
	if err != nil {
		t.Fatal(err)
	}
	f.env, f.digest = m.sign(t, wire.TypeRelease, payload, 2), wire.ReleaseDigest(payload)
	return f, func(_ context.Context, sealed io.Reader, c wire.Component) (io.Reader, error) {
		return wire.OpenComponent(sealed, key, c)
	}
}

// A protected image comes sealed, and is opened for the installer alone; who has no key installs nothing of it, and another's key opens nothing. What is in the bank already needs none.
func TestASealedImageIsOpenedForTheInstaller(t *testing.T) {
	m := newMaker(t)
	v1 := m.release(t, "1.0.0", 1, nil).withImage(t, m, "system one")
	v2, opens := m.release(t, "2.0.0", 2, nil).withImage(t, m, "system two").sealed(t, m)
	_, other := m.release(t, "2.0.0", 2, nil).withImage(t, m, "system two").sealed(t, m)
	none := context.Canceled
	for name, x := range map[string]struct {
		opens opener
		want  error
	}{
		"nothing opens it":      {nil, ErrInstall},
		"its key does not come": {func(context.Context, io.Reader, wire.Component) (io.Reader, error) { return nil, none }, none},
		"another key":           {other, ErrInstall},
		"its key":               {opens, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dev := bornOn(t, m, v1)
			dev.opens = x.opens
			mgr, err := dev.start()
			if err != nil {
				t.Fatal(err)
			}
			if err := mgr.Stage(t.Context(), v2.env, v2.source, nil); !errors.Is(err, x.want) {
				t.Fatalf("got %v, want %v", err, x.want)
			}
			if bytes.Contains(dev.banks[hw.BankB], v2.data["root"][:32]) || bytes.Contains(dev.banks[hw.BankB], v2.clear[imageHead:][:32]) != (x.want == nil) {
				t.Errorf("bank b begins %.20q", dev.banks[hw.BankB])
			}
			if x.want != nil {
				if err := mgr.Activate(v2.digest); !errors.Is(err, ErrNotStaged) {
					t.Errorf("it may be activated: %v", err)
				}
				return
			}
			dev.opens = nil // from here on no key is needed
			if err := dev.update(v2); err != nil {
				t.Fatal(err)
			}
			if mgr, err = dev.start(); err != nil || dev.whole(t, name, mgr, v2) != "2.0.0" {
				t.Fatal(err)
			}
		})
	}
}

// The server that seals an image is not who approves it. What it sealed in the place of what was signed is nothing that the installer gets to see, even where what would lie in the bank
// were as it was signed: an installer runs what an image brings.
func TestASealedImageIsWhatWasSigned(t *testing.T) {
	m := newMaker(t)
	v1, v2 := m.release(t, "1.0.0", 1, nil).withImage(t, m, "system one"), m.release(t, "2.0.0", 2, nil).withImage(t, m, "system two")
	evil := append(bytes.Repeat([]byte{'!'}, imageHead), v2.data["root"][imageHead:]...)
	v2, opens := v2.sealedAs(t, m, evil)
	dev := bornOn(t, m, v1)
	dev.opens = opens
	before := bytes.Clone(dev.banks[hw.BankB])
	mgr, err := dev.start()
	if err != nil {
		t.Fatal(err)
	}
	if err := mgr.Stage(t.Context(), v2.env, v2.source, nil); !errors.Is(err, ErrInstall) {
		t.Errorf("it is staged: %v", err)
	}
	if !bytes.Equal(dev.banks[hw.BankB], before) {
		t.Error("the installer got it")
	}
	if err := mgr.Activate(v2.digest); !errors.Is(err, ErrNotStaged) {
		t.Errorf("it may be activated: %v", err)
	}
}

// blankOn makes a board on a machine that was started from bank a.
func blankOn(t testing.TB) *machine {
	t.Helper()
	b, err := virtual.New(virtual.Spec{Revision: "A", ChipUID: "00", Flash: hw.Geometry{
		Size: FlashFor(16<<10, testSector, testPage), Sector: testSector, Page: testPage,
	}})
	if err != nil {
		t.Fatal(err)
	}
	out := &machine{board: b, banks: [2][]byte{make([]byte, 4096), make([]byte, 4096)}}
	b.Banks = out
	return out
}

// bornOn makes a device on a machine that was started from bank a, where the release's image lies.
func bornOn(t testing.TB, m *maker, f firmware) *machine {
	t.Helper()
	out := blankOn(t)
	if image, ok := f.data["root"]; ok {
		copy(out.banks[hw.BankA], image[imageHead:])
	}
	if err := birth(out.board, m, f); err != nil {
		t.Fatal(err)
	}
	return out
}

func (m *machine) clone(t testing.TB) *machine {
	t.Helper()
	b, err := m.board.Clone()
	if err != nil {
		t.Fatal(err)
	}
	out := &machine{board: b, started: m.started, told: m.told, starts: m.starts, opens: m.opens}
	for i := range out.banks {
		out.banks[i] = bytes.Clone(m.banks[i])
	}
	b.Banks = out
	return out
}

func (m *machine) update(f firmware) error {
	mgr, err := m.start()
	if err != nil {
		return err
	}
	if !mgr.rep.Trial && mgr.rep.Digest != f.digest {
		if err := mgr.Stage(context.Background(), f.env, f.source, nil); err != nil {
			return err
		}
		if err := mgr.Activate(f.digest); err != nil {
			return err
		}
		if mgr, err = m.start(); err != nil {
			return err
		}
	}
	if mgr.rep.Digest != f.digest {
		return fmt.Errorf("after activation %s runs: %v", running(mgr), mgr.rep.Notes)
	}
	return mgr.Confirm()
}

// whole makes sure that what runs is one release: its components, and the bank that the machine was started from.
func (m *machine) whole(t *testing.T, after string, mgr *Manager, releases ...firmware) string {
	t.Helper()
	for _, f := range releases {
		if mgr.rep.Digest != f.digest {
			continue
		}
		laid := f.data["root"][imageHead:]
		if f.clear != nil {
			laid = f.clear[imageHead:]
		}
		if !bytes.Equal(m.banks[m.started][:len(laid)], laid) {
			t.Fatalf("%s: release %s runs on bank %s, which begins %.20q", after, f.rel.Version, m.started, m.banks[m.started])
		}
		measured, err := mgr.Measure()
		if err != nil {
			t.Fatalf("%s: %v", after, err)
		}
		for i, c := range f.rel.Components {
			if !bytes.Equal(measured[i+1].Value, c.Measured()) {
				t.Fatalf("%s: component %s is measured otherwise than it was signed", after, c.Name)
			}
		}
		return f.rel.Version
	}
	t.Fatalf("%s: %s runs: %v", after, running(mgr), mgr.rep.Notes)
	return ""
}

func TestAnImageIsUpdatedWithTheRestOrNot(t *testing.T) {
	m := newMaker(t)
	v1, v2 := m.release(t, "1.0.0", 1, nil).withImage(t, m, "system one"), m.release(t, "2.0.0", 2, nil).withImage(t, m, "system two")
	dev := bornOn(t, m, v1)
	mgr, err := dev.start()
	if err != nil || dev.whole(t, "born", mgr, v1) != "1.0.0" {
		t.Fatal(err)
	}
	if err := dev.update(v2); err != nil {
		t.Fatal(err)
	}
	if dev.started != hw.BankB || !dev.told.Says(hw.BankB, false) {
		t.Errorf("confirmed, it runs from %s, and the boot loader was told %+v", dev.started, dev.told)
	}
	if mgr, err = dev.start(); err != nil || dev.whole(t, "updated", mgr, v2) != "2.0.0" || mgr.rep.Counter != 2 {
		t.Fatal(err)
	}
	// The next has the same image: it is neither brought nor installed, and the machine stays where it is.
	v3 := m.release(t, "3.0.0", 2, nil).withImage(t, m, "system two")
	ops := dev.ops
	bring := func(ctx context.Context, c wire.Component, off int64) (io.ReadCloser, error) {
		if c.Kind == wire.KindImage {
			t.Error("an image that lies in the bank is brought again")
		}
		return v3.source(ctx, c, off)
	}
	if err := errors.Join(mgr.Stage(t.Context(), v3.env, bring, nil), mgr.Activate(v3.digest)); err != nil {
		t.Fatal(err)
	}
	if mgr, err = dev.start(); err != nil || dev.whole(t, "the same image", mgr, v3) != "3.0.0" || dev.ops != ops {
		t.Fatalf("%v, %d operations of the machine", err, dev.ops-ops)
	}
}

// What fails on trial is gone back from by one start of the machine, whoever noticed.
func TestATrialOfAnImageEndsWhereItBegan(t *testing.T) {
	m := newMaker(t)
	v1 := m.release(t, "1.0.0", 1, nil).withImage(t, m, "system one")
	dead := m.release(t, "2.0.0", 2, nil).withImage(t, m, "dead kernel")
	sick := m.release(t, "2.0.1", 2, nil).withImage(t, m, "sick system")
	for name, try := range map[string]struct {
		f firmware
		// fails has the trial fail, from the start of it on
		fails func(dev *machine, mgr *Manager) (*Manager, error)
	}{
		"it never comes up": {dead, func(_ *machine, mgr *Manager) (*Manager, error) { return mgr, nil }},
		"it is given up": {sick, func(dev *machine, mgr *Manager) (*Manager, error) {
			err := mgr.Revert()
			m, e := dev.start()
			return m, errors.Join(err, e)
		}},
		"it is never confirmed": {sick, func(dev *machine, mgr *Manager) (_ *Manager, err error) {
			for range maxTries {
				mgr, err = dev.start()
			}
			return mgr, err
		}},
		"its bank is damaged meanwhile": {sick, func(dev *machine, _ *Manager) (*Manager, error) { dev.banks[hw.BankB][100] ^= 1; return dev.start() }},
	} {
		t.Run(name, func(t *testing.T) {
			dev := bornOn(t, m, v1)
			mgr, err := dev.start()
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(mgr.Stage(t.Context(), try.f.env, try.f.source, nil), mgr.Activate(try.f.digest)); err != nil {
				t.Fatal(err)
			}
			if mgr, err = dev.start(); err == nil {
				mgr, err = try.fails(dev, mgr)
			}
			if err != nil || dev.whole(t, name, mgr, v1) != "1.0.0" || mgr.rep.Trial || mgr.rep.Counter != 1 {
				t.Fatalf("%v, counter %d", err, mgr.rep.Counter)
			}
			if dev.started != hw.BankA || !dev.told.Says(hw.BankA, false) {
				t.Errorf("it runs from %s, and the boot loader was told %+v", dev.started, dev.told)
			}
			if err := mgr.Activate(try.f.digest); !errors.Is(err, ErrNotStaged) {
				t.Errorf("what has failed may be tried again: %v", err)
			}
		})
	}
}

func TestABootLoaderThatDisagreesStartsNothing(t *testing.T) {
	m := newMaker(t)
	v1, v2 := m.release(t, "1.0.0", 1, nil).withImage(t, m, "system one"), m.release(t, "2.0.0", 2, nil).withImage(t, m, "system two")
	dev := bornOn(t, m, v1)
	if err := dev.update(v2); err != nil {
		t.Fatal(err)
	}
	// Somebody wrote its environment: the confirmed release's image is started all the same, by one more start.
	dev.told = hw.Told{Bank: hw.BankA}
	mgr, err := dev.start()
	if err != nil || dev.whole(t, "told otherwise", mgr, v2) != "2.0.0" {
		t.Fatal(err)
	}
	// The confirmed bank does not come up any more: the machine runs from the other, no release does, and an update mends it.
	copy(dev.banks[hw.BankB], "dead")
	if mgr, err = dev.start(); err != nil || mgr.rep.Release != nil {
		t.Fatalf("%v: %s runs on an image that is not its own", err, running(mgr))
	}
	if !strings.Contains(strings.Join(mgr.rep.Notes, " "), "in neither bank") {
		t.Errorf("notes %q", mgr.rep.Notes)
	}
	v3 := m.release(t, "3.0.0", 2, nil).withImage(t, m, "system three")
	if err := dev.update(v3); err != nil {
		t.Fatal(err)
	}
	if mgr, err = dev.start(); err != nil || dev.whole(t, "mended", mgr, v3) != "3.0.0" || dev.started != hw.BankB {
		t.Fatal(err)
	}
	// The boot loader does not do as it is told, for good: recovery, and no restart after restart.
	dev.stubborn = true
	for _, told := range []hw.Told{{Bank: hw.BankB}, {Bank: hw.BankA}} {
		dev.told = told
		if mgr, err = dev.start(); err != nil || mgr.rep.Release != nil || !strings.Contains(strings.Join(mgr.rep.Notes, " "), "the machine came up from bank a") {
			t.Fatalf("%v: %+v", err, mgr)
		}
	}
}

func TestAnInstallerIsNotBelieved(t *testing.T) {
	m := newMaker(t)
	v1, v2 := m.release(t, "1.0.0", 1, nil).withImage(t, m, "system one"), m.release(t, "2.0.0", 2, nil).withImage(t, m, "system two")
	for name, does := range map[string]func(*machine){
		"it lays other bytes":      func(d *machine) { d.spoil = func(b []byte) []byte { b = bytes.Clone(b); b[77] ^= 1; return b } },
		"it lays less":             func(d *machine) { d.spoil = func(b []byte) []byte { return b[:len(b)-1] } },
		"it tells the boot loader": func(d *machine) { d.says = func(d *machine) { d.told = hw.Told{Bank: hw.BankB, Here: true} } },
		"it has the other on trial": func(d *machine) {
			d.says = func(d *machine) { d.told = hw.Told{Bank: hw.BankB, Trial: true, Here: true} }
		},
	} {
		t.Run(name, func(t *testing.T) {
			dev := bornOn(t, m, v1)
			mgr, err := dev.start()
			if err != nil {
				t.Fatal(err)
			}
			does(dev)
			if err := mgr.Stage(t.Context(), v2.env, v2.source, nil); !errors.Is(err, ErrInstall) {
				t.Errorf("got %v, want ErrInstall", err)
			}
			if err := mgr.Activate(v2.digest); !errors.Is(err, ErrNotStaged) {
				t.Errorf("it may be activated: %v", err)
			}
			if mgr, err = dev.start(); err != nil || dev.whole(t, name, mgr, v1) != "1.0.0" || !dev.told.Says(hw.BankA, false) {
				t.Errorf("%v, told %+v", err, dev.told)
			}
		})
	}
}

func TestAnImageNeedsABankAndAWayBack(t *testing.T) {
	m := newMaker(t)
	plain, v1 := m.release(t, "1.0.0", 1, nil), m.release(t, "1.0.0", 1, nil).withImage(t, m, "system one")
	v2 := m.release(t, "2.0.0", 2, nil).withImage(t, m, "system two")
	none := born(t, m, plain)
	mgr := mustBoot(t, none)
	ops := none.Power.Ops()
	if err := mgr.Stage(t.Context(), v2.env, v2.source, nil); !errors.Is(err, ErrNoBanks) || none.Power.Ops() != ops {
		t.Errorf("a board without banks: %v, %d writes", err, none.Power.Ops()-ops)
	}
	stage := func(dev *machine, f firmware) error {
		t.Helper()
		mgr, err := dev.start()
		if err != nil {
			t.Fatal(err)
		}
		ops := dev.board.Power.Ops()
		err = mgr.Stage(t.Context(), f.env, f.source, nil)
		if err != nil && dev.board.Power.Ops() != ops {
			t.Errorf("release %s was refused after a write: %v", f.rel.Version, err)
		}
		return err
	}
	dev := bornOn(t, m, plain)
	copy(dev.banks[hw.BankA], v1.data["root"][imageHead:])
	if err := stage(dev, v2); !errors.Is(err, ErrImage) {
		t.Errorf("an image without a way back: %v", err)
	}
	adopts := m.release(t, "1.1.0", 1, nil).withImage(t, m, "system one")
	for _, f := range []firmware{adopts, v2} { // what runs is named first, and then there is a way back to it
		if err := dev.update(f); err != nil {
			t.Fatalf("%s: %v", f.rel.Version, err)
		}
	}
	if err := stage(dev, m.release(t, "3.0.0", 2, nil)); !errors.Is(err, ErrImage) {
		t.Errorf("a release without an image behind one with: %v", err)
	}
	blank := blankOn(t)
	if err := birth(blank.board, m, v1); err == nil || blank.board.Power.Ops() != 0 {
		t.Errorf("a device is made on a machine that runs another image: %v, %d writes", err, blank.board.Power.Ops())
	}
}

// The power fails in every operation of the machine and of the flash during an update of an image, and again in what follows: what runs is one release, on
// its own image.
func TestPowerCutAtEveryWriteOfAnImage(t *testing.T) {
	m := newMaker(t)
	v1 := m.release(t, "1.0.0", 1, nil).withImage(t, m, "system one")
	v2, opens := m.release(t, "2.0.0", 2, nil).withImage(t, m, "system two").sealed(t, m)
	golden := bornOn(t, m, v1)
	golden.opens = opens
	ready := golden.clone(t)
	if err := ready.update(v2); err != nil {
		t.Fatal(err)
	}
	flash, outside := int(ready.board.Power.Ops()), ready.ops
	t.Logf("%d operations of the flash, %d of the machine, %d modes", flash, outside, len(virtual.Modes()))
	for n := 1; n <= flash+outside; n++ {
		for _, mode := range virtual.Modes() {
			dev := golden.clone(t)
			after := fmt.Sprintf("cut %d %s", n, mode)
			cut := func(n int) {
				if dev.ops, dev.cutAt, dev.mode = 0, n, mode; n > outside {
					dev.cutAt = 0
					dev.board.Power.CutAt(uint64(n-outside), mode, uint64(n))
				}
			}
			cut(n)
			if err := dev.update(v2); !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("%s: the power was to fail: %v", after, err)
			}
			for _, again := range []int{n%5 + 1, outside + n%11 + 1} {
				cut(again)
				if err := dev.update(v2); err != nil && !errors.Is(err, hw.ErrPowerCut) {
					t.Fatalf("%s, again: %v", after, err)
				}
				dev.cutAt = 0
				dev.board.Power.CutAt(1<<40, virtual.Before, 0)
				mgr, err := dev.start()
				if err != nil {
					t.Fatalf("%s: does not start: %v", after, err)
				}
				if v := dev.whole(t, after, mgr, v1, v2); v == "1.0.0" && mgr.rep.Counter != 1 {
					t.Fatalf("%s: %s runs with counter %d", after, v, mgr.rep.Counter)
				}
			}
			if err := dev.update(v2); err != nil {
				t.Fatalf("%s: the update does not succeed afterwards: %v", after, err)
			}
			mgr, err := dev.start()
			if err != nil || dev.whole(t, after, mgr, v2) != "2.0.0" || mgr.rep.Trial || mgr.rep.Counter != 2 || !dev.told.Says(dev.started, false) {
				t.Fatalf("%s: in the end %v, told %+v", after, err, dev.told)
			}
		}
	}
}

// With the power failing in every operation of the end: nothing starts after it has begun, and when it is over neither bank has anything of what was in it.
// The bank that the machine runs from is the last, and the receipt names it as what remains.
func TestTheEndClearsBothBanks(t *testing.T) {
	m := newMaker(t)
	v1, v2 := m.release(t, "1.0.0", 1, nil).withImage(t, m, "system one"), m.release(t, "2.0.0", 2, nil).withImage(t, m, "system two")
	golden := bornOn(t, m, v1)
	if err := golden.update(v2); err != nil {
		t.Fatal(err)
	}
	var receipt, remains []string
	end := func(dev *machine) error {
		mgr, err := dev.start()
		if err != nil {
			return err
		}
		if receipt, remains, err = mgr.Erase(); err != nil {
			return err
		}
		if !bytes.Contains(dev.banks[dev.started], []byte("system")) {
			t.Error("what it runs from was erased before its last word")
		}
		return mgr.End()
	}
	over := func(after string, dev *machine) {
		t.Helper()
		for b, data := range dev.banks {
			if bytes.Count(data, []byte{0xff}) != len(data) {
				t.Fatalf("%s: bank %s begins %.20q", after, hw.Bank(b), data)
			}
		}
		if life, err := dev.board.Fuses.Lifecycle(); err != nil || life != hw.Decommissioned {
			t.Fatalf("%s: life cycle %s, %v", after, life, err)
		}
	}
	whole := golden.clone(t)
	if err := end(whole); err != nil {
		t.Fatal(err)
	}
	over("in one piece", whole)
	if running := "bank-" + whole.started.String(); !slices.Contains(receipt, "bank-"+whole.started.Other().String()) || len(remains) != 1 || remains[0] != running || slices.Contains(receipt, running) {
		t.Errorf("erased %v, and %v remains", receipt, remains)
	}
	if whole.ops < 20 {
		t.Fatalf("only %d operations to cut", whole.ops)
	}
	for n := 1; n <= whole.ops; n++ {
		for _, mode := range virtual.Modes() {
			dev, after := golden.clone(t), fmt.Sprintf("cut %d %s", n, mode)
			dev.cutAt, dev.mode = n, mode
			if err := end(dev); !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("%s: the power was to fail: %v", after, err)
			}
			dev.cutAt = 0
			for range 3 { // begin again until it is over
				err := end(dev)
				if err == nil || errors.Is(err, ErrDead) {
					break
				}
				t.Logf("%s: %v", after, err)
			}
			over(after, dev)
			if _, err := dev.start(); !errors.Is(err, ErrDead) {
				t.Fatalf("%s: it starts after its end: %v", after, err)
			}
		}
	}
}

// A bank that cannot be cleared keeps nothing else from being erased, and the receipt says so.
func TestABankThatCannotBeClearedIsSaid(t *testing.T) {
	m := newMaker(t)
	dev := bornOn(t, m, m.release(t, "1.0.0", 1, nil).withImage(t, m, "system one"))
	dev.worn = true
	mgr, err := dev.start()
	if err != nil {
		t.Fatal(err)
	}
	erased, remains, err := mgr.Erase()
	if err != nil || !slices.Contains(erased, "parameters") || !slices.Equal(remains, []string{"bank-b", "bank-a"}) {
		t.Errorf("erased %v, %v remains, %v", erased, remains, err)
	}
	if err := mgr.End(); err == nil {
		t.Error("the end says nothing of it")
	}
	if life, err := dev.board.Fuses.Lifecycle(); err != nil || life != hw.Decommissioned {
		t.Errorf("life cycle %s, %v", life, err)
	}
}

// A wipe in the middle of a trial tells the boot loader to stay where it is: the other bank, which it would go back to, is blank. And where nobody knows which
// bank runs, the rest goes all the same.
func TestAWipeOfAMachineOnTrial(t *testing.T) {
	m := newMaker(t)
	v1, v2 := m.release(t, "1.0.0", 1, nil).withImage(t, m, "system one"), m.release(t, "2.0.0", 2, nil).withImage(t, m, "system two")
	dev := bornOn(t, m, v1)
	mgr, err := dev.start()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(mgr.Stage(t.Context(), v2.env, v2.source, nil), mgr.Activate(v2.digest)); err != nil {
		t.Fatal(err)
	}
	if mgr, err = dev.start(); err != nil || !mgr.rep.Trial || !dev.told.Trial {
		t.Fatalf("it is not on trial: %v, told %+v", err, dev.told)
	}
	if _, _, err := mgr.Erase(); err != nil {
		t.Fatal(err)
	}
	if !dev.told.Says(dev.started, false) {
		t.Errorf("the boot loader was told %+v, and bank %s runs", dev.told, dev.started)
	}

	lost := bornOn(t, m, v1)
	if mgr, err = lost.start(); err != nil {
		t.Fatal(err)
	}
	lost.unknown = true
	erased, remains, err := mgr.Erase()
	if err != nil || !slices.Contains(erased, "parameters") || len(remains) != 2 {
		t.Errorf("erased %v, %v remains, %v", erased, remains, err)
	}
}
