package agent_test

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// kinds are the kinds of events the server got, in order.
func (s *server) kinds() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for seq := uint64(1); len(out) < len(s.events); seq++ {
		if e, ok := s.events[seq]; ok {
			out = append(out, e.Kind)
		}
	}
	return out
}

// lives starts the device again and lets it check in n times.
func (d *device) lives(t *testing.T, n int) {
	t.Helper()
	d.s.saw = func(wire.Checkin) bool { n--; return n < 0 }
	if err := d.live(t); err != nil {
		t.Fatal(err)
	}
}

// What a thief of the server can do with its keys, as the device takes it. Each is refused with its code before and after a restart, in
// the log with it, and what is good is still taken afterwards.
func TestWhatAThiefOfTheServerCanDo(t *testing.T) {
	for _, c := range []struct {
		name, code string
		do         func(w *world)
	}{
		{"the log's key without witnesses", "not-witnessed", func(w *world) { w.alone = true }},
		{"a log that witnesses have not seen for long", "stale-checkpoint", func(w *world) { w.stopped = w.now().Add(-2 * time.Hour) }},
		{"an old checkpoint again, freshly cosigned", "shrunk-log", nil},
		{"another log of the same size", "forked-log", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
				bad := w.command(wire.ActConfigure, nil)
				old := len(w.entries)
				d.told(t, w.command(wire.ActAttest, nil))
				switch c.code {
				case "shrunk-log":
					w.upTo = old
				case "forked-log":
					w.truncate(t, old-1)
					w.append("other", []byte("another past"))
					bad = w.command(wire.ActConfigure, nil)
				default:
					c.do(w)
				}
				for range 2 {
					got := d.told(t, bad)
					if n := len(got); n == 0 || got[n-1].Outcome != wire.OutcomeRefused || got[n-1].Code != c.code {
						t.Fatalf("%+v, want %s", got, c.code)
					}
					if len(d.prog.configured) > 0 || len(d.s.last.Reported) > 0 {
						t.Fatal("it was acted on")
					}
					clear(d.s.results) // the restart follows: told again
				}
				if !slices.Contains(d.s.kinds(), "directive.refused") {
					t.Errorf("the device's log does not tell of it: %v", d.s.kinds())
				}
			})
		})
	}
}

// truncate is a log that has forgotten all from entry n on.
func (w *world) truncate(t *testing.T, n int) {
	t.Helper()
	kept := w.entries[:n]
	w.entries, w.hashes = nil, nil
	for _, e := range kept {
		w.place(e)
	}
}

// A device whose clock stands years behind, and does so again after each start, does what it is told, judges what is old as old,
// and ends a quarantine by itself.
func TestADeviceWithoutAClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldAhead(20 * 365 * 24 * time.Hour)
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		time.Sleep(3 * 24 * time.Hour) // all that the device knows, its bundle, is three days old, and its clock has not run
		if got := d.told(t, w.command(wire.ActQuarantine, nil)); len(got) != 1 || got[0].Outcome != wire.OutcomeDone {
			t.Fatalf("%+v", got)
		}
		if d.s.last.State != "quarantined" {
			t.Fatalf("state %s", d.s.last.State)
		}
		w.stopped = w.now()
		time.Sleep(5 * time.Minute)
		d.lives(t, 1)
		began := time.Now()
		for d.s.last.State == "quarantined" {
			d.s.saw = func(in wire.Checkin) bool { return in.State != "quarantined" }
			if err := d.live(t); err != nil {
				t.Fatal(err)
			}
		}
		if ran := time.Since(began); ran > 10*time.Minute+5*time.Second {
			t.Errorf("it ended the quarantine after running for %s", ran)
		}
		time.Sleep(2 * time.Hour)
		if got := d.told(t, w.command(wire.ActConfigure, nil)); len(got) != 1 || got[0].Code != "stale-checkpoint" {
			t.Fatalf("%+v", got)
		}
		w.stopped = time.Time{}
		again := w.command(wire.ActConfigure, func(c *command) { c.cmd.ID = "c-again" })
		if got := d.told(t, again); len(got) != 1 || got[0].Outcome != wire.OutcomeDone {
			t.Fatalf("%+v", got)
		}
	})
}

// Each event that follows from a command says from which.
func TestAnEventNamesTheCommandItFollowsFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for act, want := range map[wire.Act][]string{
			wire.ActConfigure:  {"directive.accepted", "config.changed"},
			wire.ActQuarantine: {"directive.accepted", "guard.began", "guard.ended"},
			wire.ActReset:      {"directive.accepted", "boot"},
			wire.ActBundle:     {"directive.accepted", "bundle.replaced"},
			wire.ActInstall:    {"directive.accepted", "update.staged", "boot", "update.trial", "update.confirmed"},
		} {
			w := newWorld()
			v1, v2 := w.publish("1.0.0", 1), w.publish("2.0.0", 2)
			d := newDevice(t, w, born(t, w, v1))
			c := w.command(act, func(c *command) {
				if act == wire.ActInstall {
					c.release = &v2
				}
			})
			d.told(t, c)
			time.Sleep(11 * time.Minute)
			d.lives(t, 3)
			var got []string
			for seq := uint64(1); seq <= d.s.batch.Last; seq++ {
				if e := d.s.events[seq]; e.Cause != nil {
					if e.Cause.Origin != origin || e.Cause.Index != uint64(c.entry) {
						t.Errorf("%s: %s names %+v, it was entry %d", act, e.Kind, *e.Cause, c.entry)
					}
					if e.Kind == "directive.accepted" && !strings.Contains(string(e.Data), hex.EncodeToString(c.digest[:])) {
						t.Errorf("%s: it accepted %q, and not %x", act, e.Data, c.digest)
					}
					got = append(got, e.Kind)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: events %v, want %v", act, got, want)
			}
		}
	})
}

// A device whose flash is set back says so at once, and goes on from where the ledger proves that it was: with its counters, as far as
// it had told them.
func TestASetBackFlashIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		d.s.anchors = true
		d.lives(t, 3)
		size := d.board.Spec.Flash.Size
		old := make([]byte, size)
		if _, err := d.board.Flash.ReadAt(old, 0); err != nil {
			t.Fatal(err)
		}
		d.told(t, w.command(wire.ActConfigure, nil))
		d.lives(t, 3)
		before, grown := d.s.logSeq, d.s.last.TreeSize
		for n := range size / sector {
			if err := d.board.Flash.Erase(n); err != nil {
				t.Fatal(err)
			}
		}
		for off := int64(0); off < size; off += page {
			if p := old[off : off+page]; !bytes.Equal(p, bytes.Repeat([]byte{0xff}, page)) {
				if err := d.board.Flash.Program(off, p); err != nil {
					t.Fatal(err)
				}
			}
		}
		d.s.tell = nil
		d.lives(t, 6)
		if !slices.Contains(d.s.kinds(), wire.LogRollback) {
			t.Fatalf("events %v", d.s.kinds())
		}
		if d.s.logSeq <= before || d.s.batch.Counter < d.s.logSeq {
			t.Errorf("the log went on to %d, counter %d; before it was at %d", d.s.logSeq, d.s.batch.Counter, before)
		}
		if got := d.s.last.TreeSize; got < grown {
			t.Errorf("the device accepts a log of %d, it had accepted %d", got, grown)
		}
	})
}
