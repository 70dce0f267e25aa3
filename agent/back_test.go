package agent_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

// after publishes a release from which one may go back to the given ones.
func (w *world) after(version string, counter uint32, to ...firmware) firmware {
	f := w.publish(version, counter)
	for _, b := range to {
		f.rel.RollbackTo = append(f.rel.RollbackTo, b.digest[:])
	}
	payload := must(wire.EncodeRelease(f.rel))
	f.envelope, f.digest = threshold(wire.TypeRelease, payload, w.release), wire.ReleaseDigest(payload)
	f.entry = w.append("release.published", f.envelope)
	return f
}

// A device is sent back once from what an update brought, and does not run that again; another release takes it on. It tells which it left.
func TestADeviceIsSentBackOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		v1 := w.publish("1.0.0", 1)
		d := newDevice(t, w, born(t, w, v1))
		v2, v3 := w.after("2.0.0", 1, v1), w.after("3.0.0", 1, v1)
		n := 0
		tell := func(act wire.Act, f firmware) wire.Result {
			t.Helper()
			n++
			r := d.told(t, w.command(act, func(c *command) { c.cmd.ID, c.release = string(rune('a'+n)), &f }))
			if len(r) != 1 {
				t.Fatalf("%s of %s: %+v", act, f.rel.Version, r)
			}
			return r[0]
		}
		done := func(act wire.Act, f firmware) {
			t.Helper()
			if r := tell(act, f); r.Outcome != wire.OutcomeDone {
				t.Fatalf("%s of %s: %+v", act, f.rel.Version, r)
			}
			d.lives(t, 1)
			if d.s.last.Version != f.rel.Version {
				t.Fatalf("it runs %s, not %s", d.s.last.Version, f.rel.Version)
			}
		}
		refused := func(act wire.Act, f firmware, code gate.Code) {
			t.Helper()
			if r := tell(act, f); r.Outcome != wire.OutcomeRefused || r.Code != string(code) {
				t.Errorf("%s of %s: %+v, want %s", act, f.rel.Version, r, code)
			}
		}
		done(wire.ActInstall, v2)
		done(wire.ActRollback, v1)
		if in := d.s.last; len(in.Left) != 1 || !bytes.Equal(in.Left[0], v2.digest[:]) {
			t.Errorf("it says that it left %x, and left %x", in.Left, v2.digest)
		}
		refused(wire.ActInstall, v2, gate.LeftBehind)
		refused(wire.ActReprovide, v2, gate.LeftBehind)
		done(wire.ActInstall, v3)
		d.lives(t, 1)
		time.Sleep(gate.BackTime + time.Hour)
		refused(wire.ActRollback, v1, gate.BackTooLate)
	})
}

// A trust bundle that the board does not take, because what runs would not start again under it, is refused in words, and the device goes on: it takes the next one.
func TestABundleThatTheBoardDoesNotTakeStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		other := w.bundle
		other.Version, other.BootManagers = 2, []wire.BootManager{{Digest: bytes.Repeat([]byte{7}, 32)}}
		bad := w.command(wire.ActBundle, func(c *command) {
			c.bundle = w.append("bundle.published", threshold(wire.TypeBundle, must(wire.EncodeBundle(other)), w.root))
		})
		if r := d.told(t, bad); len(r) != 1 || r[0].Outcome != wire.OutcomeFailed || r[0].Text == "" {
			t.Fatalf("a bundle under which it would not start again: %+v", r)
		}
		d.lives(t, 2)
		if d.s.last.Bundle != 1 {
			t.Errorf("it has bundle %d", d.s.last.Bundle)
		}
		good := w.command(wire.ActBundle, func(c *command) { c.cmd.ID = "good" })
		if r := d.told(t, good); len(r) != 1 || r[0].Outcome != wire.OutcomeDone {
			t.Errorf("the next bundle: %+v", r)
		}
	})
}
