package agent_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/release/delta"
	"github.com/hallmark-iot/hallmark/wire"
)

// delta makes a delta of the first components of two releases, and has the server serve it.
func (w *world) delta(t *testing.T, from, to firmware) wire.Form {
	t.Helper()
	old, c := from.rel.Components[0], to.rel.Components[0]
	var d bytes.Buffer
	if err := delta.Make(t.Context(), w.bytes[string(old.Digest)], w.bytes[string(c.Digest)], &d); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(d.Bytes())
	w.bytes[string(sum[:])] = d.Bytes()
	return wire.Form{Component: c.Digest, Kind: wire.FormDelta, Digest: sum[:], Size: uint64(d.Len()), From: old.Digest}
}

// A device makes an update of what it runs, and where that fails has it whole; a command brings the forms, and they are remembered with it.
func TestAnUpdateIsMadeOfWhatRuns(t *testing.T) {
	for name, c := range map[string]struct {
		model wire.UpdateModel
		spoil func(w *world, f *wire.Form)
		busy  int // answers without bytes, the first of them to the form
		whole bool
	}{
		"of a whole image":             {wire.ModelBlob, nil, 0, false},
		"of an asset":                  {wire.ModelAsset, nil, 0, false},
		"by a delta that is damaged":   {wire.ModelBlob, func(w *world, f *wire.Form) { w.bytes[string(f.Digest)][int(f.Size)-3] ^= 1 }, 0, true},
		"by a delta that is not there": {wire.ModelBlob, func(w *world, f *wire.Form) { delete(w.bytes, string(f.Digest)) }, 0, true},
		"of what does not run":         {wire.ModelBlob, func(_ *world, f *wire.Form) { f.From = make([]byte, 32) }, 0, true},
		"from a server that is busy":   {wire.ModelBlob, nil, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				v1 := w.publishAs(c.model, "1.0.0", 1)
				d := newDevice(t, w, born(t, w, v1))
				v2 := w.publishAs(c.model, "2.0.0", 2)
				form := w.delta(t, v1, v2)
				if c.spoil != nil {
					c.spoil(w, &form)
				}
				d.s.busy = c.busy
				got := d.told(t, w.command(wire.ActInstall, func(o *command) { o.release, o.forms = &v2, []wire.Form{form} }))
				if len(got) != 1 || got[0].Outcome != wire.OutcomeDone || d.s.last.Version != "2.0.0" {
					t.Fatalf("%+v, runs %s", got, d.s.last.Version)
				}
				if !slices.Equal(d.s.last.Knows, []string{wire.KnowsAfter, wire.KnowsCarton, wire.FormDelta, wire.KnowsManner, wire.KnowsSealedImage, wire.KnowsWindow}) {
					t.Errorf("it knows %q", d.s.last.Knows)
				}
				whole := slices.Contains(d.s.calls, fmt.Sprintf("artifact/%x", v2.rel.Components[0].Digest))
				if whole != c.whole && name != "from a server that is busy" {
					t.Errorf("it came whole: %v; asked %q", whole, d.s.calls)
				}
			})
		})
	}
}

// Bytes that are wrong whenever they are fetched end the command: the server is told, and does not send them for as long as the command stands.
func TestBytesThatAreNeverRightAreAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publishAs(wire.ModelBlob, "1.0.0", 1)))
		v2 := w.publishAs(wire.ModelBlob, "2.0.0", 2)
		w.bytes[string(v2.rel.Components[0].Digest)][0] ^= 1
		got := d.told(t, w.command(wire.ActInstall, func(o *command) { o.release = &v2 }))
		if len(got) != 1 || got[0].Outcome != wire.OutcomeFailed || !strings.Contains(got[0].Text, "not the bytes that were signed") || d.s.last.Version != "1.0.0" {
			t.Fatalf("%+v, runs %s", got, d.s.last.Version)
		}
		asked := fmt.Sprintf("artifact/%x", v2.rel.Components[0].Digest)
		if n := len(slices.DeleteFunc(slices.Clone(d.s.calls), func(c string) bool { return c != asked })); n != 2 {
			t.Errorf("it fetched them %d times", n)
		}
	})
}

// The power may fail at any write: the forms are in the task, and the device goes on by them.
func TestFormsAreRememberedOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		v1, v2 := w.publish("1.0.0", 1), w.publish("2.0.0", 2)
		golden, form := born(t, w, v1), w.delta(t, v1, v2)
		c := w.command(wire.ActInstall, func(o *command) { o.release, o.forms = &v2, []wire.Form{form} })
		run := func(cut uint64) uint64 {
			b, err := golden.Clone()
			if err != nil {
				t.Fatal(err)
			}
			d := newDevice(t, w, b)
			if cut > 0 {
				b.Power.CutAt(cut, virtual.Modes()[cut%4], cut)
			}
			got := d.told(t, c)
			if len(got) != 1 || got[0].Outcome != wire.OutcomeDone && got[0].Code != "reverted" {
				t.Fatalf("cut %d: %+v", cut, got)
			}
			if slices.Contains(d.s.calls, fmt.Sprintf("artifact/%x", v2.rel.Components[0].Digest)) {
				t.Fatalf("cut %d: it came whole: %q", cut, d.s.calls)
			}
			return b.Power.Ops()
		}
		total := run(0)
		for n := uint64(1); n <= total; n += 3 {
			run(n)
		}
	})
}
