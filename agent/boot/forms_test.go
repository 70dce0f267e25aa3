package boot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/forms"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/release/delta"
	"github.com/hallmark-iot/hallmark/wire"
	wiredelta "github.com/hallmark-iot/hallmark/wire/delta"
)

// deltas are the forms of a release for who runs another, and the bytes of them.
func deltas(t testing.TB, from, to firmware) (all []wire.Form, data map[string][]byte) {
	t.Helper()
	data = map[string][]byte{}
	for i, c := range to.rel.Components {
		old := from.rel.Components[i]
		if bytes.Equal(old.Digest, c.Digest) {
			continue
		}
		var d bytes.Buffer
		if err := delta.Make(t.Context(), from.data[old.Name], to.data[c.Name], &d); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(d.Bytes())
		data[string(sum[:])] = d.Bytes()
		all = append(all, wire.Form{Component: c.Digest, Kind: wire.FormDelta, Digest: sum[:], Size: uint64(d.Len()), From: old.Digest})
	}
	return all, data
}

// formed is a source of a release that is made of what a manager runs. asked notes what is fetched whole.
func (f firmware) formed(m *Manager, all []wire.Form, data map[string][]byte, asked *[]string) Source {
	fetch := func(_ context.Context, digest []byte, offset int64) (io.ReadCloser, error) {
		if d, ok := data[string(digest)]; ok {
			return io.NopCloser(bytes.NewReader(d[offset:])), nil
		}
		for _, c := range f.rel.Components {
			if bytes.Equal(c.Digest, digest) {
				*asked = append(*asked, c.Name)
				return io.NopCloser(bytes.NewReader(f.data[c.Name][offset:])), nil
			}
		}
		return nil, errors.New("no such bytes")
	}
	old := func(digest []byte) (io.ReaderAt, bool) {
		if m.rep.Release == nil {
			return nil, false
		}
		for _, c := range m.rep.Release.Components {
			if bytes.Equal(c.Digest, digest) {
				r, _, err := m.Component(c.Name)
				return r, err == nil
			}
		}
		return nil, false
	}
	return forms.New(fetch, old, all).Open
}

// updateBy is update by forms.
func updateBy(b *virtual.Board, f firmware, all []wire.Form, data map[string][]byte, asked *[]string) error {
	m, err := boot(b)
	if err != nil {
		return err
	}
	if m.rep.Digest != f.digest && !m.rep.Trial {
		if err := m.Stage(context.Background(), f.env, f.formed(m, all, data, asked), nil); err != nil {
			return err
		}
	}
	return update(b, f)
}

// The power fails in every operation of an update that is made of what runs, in every way: as with one that comes whole.
func TestPowerCutAtEveryWriteOfAnUpdateByADelta(t *testing.T) {
	m := newMaker(t)
	small := func(version string) []part {
		return []part{{"control", "1.0.0", 5000}, {"motor", version, 3000}}
	}
	for name, v := range map[string][2]firmware{
		"blob":   {m.release(t, "1.0.0", 1, nil), m.release(t, "2.0.0", 2, nil)},
		"assets": {m.assets(t, "1.0.0", 1, small("1.0.0"), nil), m.assets(t, "2.0.0", 2, small("2.0.0"), nil)},
	} {
		t.Run(name, func(t *testing.T) {
			v1, v2 := v[0], v[1]
			all, data := deltas(t, v1, v2)
			golden := born(t, m, v1)
			first, err := golden.Clone()
			if err != nil {
				t.Fatal(err)
			}
			var asked []string
			if err := updateBy(first, v2, all, data, &asked); err != nil {
				t.Fatal(err)
			}
			total := first.Power.Ops()
			whole(t, "uncut", mustBoot(t, first), v2)
			if len(asked) > 0 {
				t.Fatalf("%v came whole", asked)
			}
			for n := uint64(1); n <= total; n++ {
				for _, mode := range virtual.Modes() {
					b, err := golden.Clone()
					if err != nil {
						t.Fatal(err)
					}
					b.Power.CutAt(n, mode, n)
					if err := updateBy(b, v2, all, data, &asked); !errors.Is(err, hw.ErrPowerCut) {
						t.Fatalf("cut %d %s: the power was to fail: %v", n, mode, err)
					}
					after := fmt.Sprintf("cut %d %s", n, mode)
					checkSane(t, after, b)
					if err := updateBy(b, v2, all, data, &asked); err != nil {
						t.Fatalf("%s: the update does not succeed afterwards: %v", after, err)
					}
					mgr := mustBoot(t, b)
					if whole(t, after, mgr, v2); mgr.rep.Trial || mgr.rep.Counter != 2 {
						t.Fatalf("%s: trial %v, counter %d", after, mgr.rep.Trial, mgr.rep.Counter)
					}
				}
			}
			if len(asked) > 0 {
				t.Errorf("%v came whole", asked)
			}
		})
	}
}

// Who is told of deltas that agree with themselves and give something else has the update whole in the end.
func TestADeltaThatLiesCostsTheWholeUpdate(t *testing.T) {
	m := newMaker(t)
	v1, v2, other := m.release(t, "1.0.0", 1, nil), m.release(t, "2.0.0", 2, nil), m.release(t, "3.0.0", 3, nil)
	lies, data := deltas(t, v1, other)
	for i, f := range lies {
		lies[i].Component = v2.rel.Components[i].Digest
		d := data[string(f.Digest)]
		h, err := wiredelta.Read(bytes.NewReader(d))
		if err != nil {
			t.Fatal(err)
		}
		at, _, err := h.Frame(0)
		if err != nil {
			t.Fatal(err)
		}
		h.To = lies[i].Component
		head, err := h.Encode()
		if err != nil {
			t.Fatal(err)
		}
		data[string(f.Digest)] = append(head, d[at:]...)
	}
	b := born(t, m, v1)
	var asked []string
	for range lies { // one is found out in each attempt
		if err := updateBy(b, v2, lies, data, &asked); err == nil {
			break
		}
	}
	whole(t, "at last", mustBoot(t, b), v2)
	if len(asked) == 0 {
		t.Error("nothing came whole")
	}
}
