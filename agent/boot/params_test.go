package boot

import (
	"bytes"
	"errors"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/boot/params"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
)

// bornTold makes a board that the factory gave parameters.
func bornTold(b *virtual.Board, m *maker, f firmware) error {
	n, err := NewBirth(&b.Board)
	if err != nil {
		return err
	}
	id := Identity{Device: "d1", Product: "pump", Hardware: "A", Chain: [][]byte{{1}}, Params: wire.DeviceParams{
		Config: []byte("first=yes"), Extra: map[string]string{"calibration": "minus seventeen"}, Servers: wire.Servers{Device: "https://d"},
	}}
	if err := n.Install(id, m.env, f.env, f.rel); err != nil {
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
	return n.Fuse(root, [32]byte{1, 2, 3}, f.rel.Counter, 1)
}

func blankBoard(t testing.TB) *virtual.Board {
	t.Helper()
	b, err := virtual.New(virtual.Spec{Revision: "A", ChipUID: "00", Flash: hw.Geometry{Size: FlashFor(4096, 2048, 256), Sector: 2048, Page: 256}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What the factory gives the product lies sealed when the device leaves, wherever the power failed before; it is read in the state the device left in,
// and is gone with the device's end.
func TestTheFactorysParametersAreSealed(t *testing.T) {
	m := newMaker(t)
	f := m.assets(t, "1.0.0", 1, []part{{"app", "1.0.0", 300}}, nil)
	total := blankBoard(t)
	if err := bornTold(total, m, f); err != nil {
		t.Fatal(err)
	}
	for n := uint64(0); n <= total.Power.Ops(); n++ {
		b := blankBoard(t)
		if n > 0 {
			b.Power.CutAt(n, virtual.Random, n)
			if err := bornTold(b, m, f); !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("cut %d: %v", n, err)
			}
			b.Reset()
		}
		if life, err := b.Fuses.Lifecycle(); err != nil {
			t.Fatal(err)
		} else if life == hw.Assembly {
			if err := bornTold(b, m, f); err != nil {
				t.Fatalf("cut %d: %v", n, err)
			}
		}
		mgr := mustBoot(t, b)
		s, err := mgr.Params()
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Get("calibration")
		if err != nil || p.Value != "minus seventeen" || !p.Basic {
			t.Fatalf("cut %d: %+v, %v", n, p, err)
		}
		if p, err := s.Get(ParamConfig); err != nil || p.Value != "first=yes" {
			t.Fatalf("cut %d: %+v, %v", n, p, err)
		}
		all := make([]byte, b.Spec.Flash.Size)
		if _, err := b.Flash.ReadAt(all, 0); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(all, []byte("seventeen")) || bytes.Contains(all, []byte("first=yes")) {
			t.Fatalf("cut %d: what the factory gave lies open in flash", n)
		}
	}
	mgr := mustBoot(t, total)
	names, _, err := mgr.Erase()
	if err != nil || names[len(names)-1] != "parameters" {
		t.Fatalf("%v, %v", names, err)
	}
	if s, err := mgr.Params(); err != nil || len(s.List()) > 0 {
		t.Errorf("after the wipe: %v, %v", s.List(), err)
	}
}

// In another state than the one it left the factory in, a device has another key.
func TestAnotherStateIsAnotherKey(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range []struct {
		secret, root byte
		life         hw.Lifecycle
		locked       bool
	}{{1, 1, hw.Secured, true}, {1, 1, hw.Secured, false}, {1, 1, hw.Assembly, true}, {1, 2, hw.Secured, true}, {2, 1, hw.Secured, true}} {
		key, err := paramsKey([32]byte{k.secret}, [32]byte{k.root}, k.life, k.locked)
		if err != nil || len(key) != params.KeySize || seen[string(key)] {
			t.Errorf("%+v: %d bytes, seen before %v, %v", k, len(key), seen[string(key)], err)
		}
		seen[string(key)] = true
	}
}
