package agent_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

// opensAt is the minute of the day at which the window of these tests opens; time begins at midnight in them.
const opensAt = 3

func inWindow(v2 *firmware) func(c *command) {
	return func(c *command) {
		c.release, c.cmd.Window = v2, &wire.Window{From: opensAt, Minutes: 30}
	}
}

// ranInWindow: the new release first ran when the window had opened, however often the power failed before.
func ranInWindow(d *device, _ *world) error {
	if in := d.s.last; in.Version != "2.0.0" || in.Trial || !in.Healthy {
		return fmt.Errorf("runs %s, trial %v, healthy %v", in.Version, in.Trial, in.Healthy)
	}
	for _, r := range d.runs {
		if at := r.at.UTC(); r.version == "2.0.0" && at.Hour()*60+at.Minute() < opensAt {
			return fmt.Errorf("2.0.0 ran at %s, before its window", at)
		}
	}
	return nil
}

// waiting is what the device said last that it waits for.
func (s *server) waiting() string {
	if w := s.heard().Waits; w != nil {
		return w.For
	}
	return ""
}

// tells has the server tell something else.
func (s *server) tells(c *command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell = c
}

// offered starts a device that is told to install 2.0.0 as edit says, and gives it an hour.
func offered(t *testing.T, edit func(c *command)) (d *device, c *command, stop func() error) {
	t.Helper()
	w := newWorld()
	v1, v2 := w.publish("1.0.0", 1), w.publish("2.0.0", 2)
	d = newDevice(t, w, born(t, w, v1))
	c = w.command(wire.ActInstall, func(c *command) {
		c.release, c.cmd.Expires = &v2, c.cmd.Issued+10*24*3600
		edit(c)
	})
	d.s.tell, d.s.poll = c, time.Minute
	d.busy.Store(true)
	stop = d.start(t)
	time.Sleep(time.Hour)
	synctest.Wait()
	return d, c, stop
}

// resets gives a device time to begin to try the release.
func resets(t *testing.T, stop func() error) {
	t.Helper()
	time.Sleep(2 * time.Minute)
	if err := stop(); !errors.Is(err, agent.ErrReset) {
		t.Fatalf("it ended with %v, and not to try the release", err)
	}
}

// goes has a device go on until it has said what became of the command.
func (d *device) goes(t *testing.T, c *command) wire.Result {
	t.Helper()
	d.s.poll = time.Second
	got := d.told(t, c)
	if len(got) != 1 {
		t.Fatalf("%d results: %+v", len(got), got)
	}
	return got[0]
}

func TestAnInstallWaitsForConsentOverRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, c, stop := offered(t, func(c *command) { c.cmd.Manner = wire.Consent })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		stop = d.start(t)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		s := d.ask(t, `{"op":"status"}`).Status
		if d.s.waiting() != wire.WaitsForConsent || s == nil || s.Waits == nil || s.Waits.For != wire.WaitsForConsent || s.Wanted != "2.0.0" || s.Version != "1.0.0" {
			t.Fatalf("after a day it waits for %q, and says beside it %+v", d.s.waiting(), s)
		}
		if r := d.ask(t, `{"op":"consent","answer":"perhaps"}`); r.Error == "" || r.Outcome != "" {
			t.Errorf("perhaps: %+v", r)
		}
		if r := d.ask(t, `{"op":"consent","answer":"yes"}`); r.Error != "" || r.Outcome != wire.OutcomeDone {
			t.Fatalf("yes: %+v", r)
		}
		resets(t, stop)
		if r := d.goes(t, c); r.Outcome != wire.OutcomeDone || d.s.heard().Version != "2.0.0" {
			t.Errorf("%+v, and it runs %s", r, d.s.heard().Version)
		}
	})
}

func TestConsentThatIsRefusedIsAResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, c, stop := offered(t, func(c *command) { c.cmd.Manner = wire.Consent })
		if r := d.ask(t, `{"op":"consent","answer":"no"}`); r.Error != "" || r.Outcome != wire.OutcomeDone {
			t.Fatalf("no: %+v", r)
		}
		if r := d.ask(t, `{"op":"consent","answer":"yes"}`); r.Error == "" {
			t.Errorf("yes, after no: %+v", r)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		got := d.s.outcomes(c)
		if len(got) != 1 || got[0].Outcome != wire.OutcomeRefused || got[0].Code != wire.CodeDeclined {
			t.Errorf("results %+v", got)
		}
		if in := d.s.heard(); in.Version != "1.0.0" || in.Waits != nil {
			t.Errorf("it runs %s and waits %+v", in.Version, in.Waits)
		}
	})
}

// A device that is busy puts a soft install off, and no longer than its grace.
func TestASoftInstallWaitsNoLongerThanItsGrace(t *testing.T) {
	const grace = 6 * time.Hour
	for name, ends := range map[string]bool{"what it is at ends": true, "its grace ends": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				d, c, stop := offered(t, func(c *command) { c.cmd.Manner, c.cmd.Grace = wire.Soft, uint64(grace/time.Second) })
				if got := d.s.waiting(); got != wire.WaitsForGrace {
					t.Fatalf("it waits for %q", got)
				}
				if d.busy.Store(!ends); !ends {
					time.Sleep(grace - time.Hour)
				}
				resets(t, stop)
				if r := d.goes(t, c); r.Outcome != wire.OutcomeDone {
					t.Fatalf("%+v", r)
				}
				for _, r := range d.runs {
					if tried := r.at.Sub(began); r.version == "2.0.0" && (tried < grace) != ends {
						t.Errorf("it ran after %s", tried)
					}
				}
			})
		})
	}
}

// What was taken back while it waited is not told again, and so never carried out; what is told instead is.
func TestWhatWasTakenBackIsNotInstalledWhenItsWindowOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, c, stop := offered(t, func(c *command) { c.cmd.Window = &wire.Window{From: 120, Minutes: 60} })
		if got := d.s.waiting(); got != wire.WaitsForWindow {
			t.Fatalf("it waits for %q", got)
		}
		d.s.tells(nil)
		time.Sleep(3 * 24 * time.Hour) // three windows
		synctest.Wait()
		if in := d.s.heard(); in.Version != "1.0.0" || len(d.s.outcomes(c)) > 0 {
			t.Fatalf("it runs %s, and said %+v", in.Version, d.s.outcomes(c))
		}
		v3 := d.s.w.publish("3.0.0", 2)
		next := d.s.w.command(wire.ActInstall, func(c *command) { c.cmd.ID, c.release = "next", &v3 })
		d.s.tells(next)
		resets(t, stop)
		if r := d.goes(t, next); r.Outcome != wire.OutcomeDone || d.s.heard().Version != "3.0.0" {
			t.Errorf("%+v, and it runs %s", r, d.s.heard().Version)
		}
	})
}

// What waits is judged once more when its window opens: it may have been closed meanwhile, and what closes it does not wait for it.
func TestWhatWaitsIsJudgedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, c, stop := offered(t, func(c *command) { c.cmd.Window = &wire.Window{From: 120, Minutes: 60} })
		w := d.s.w
		w.replace(func(w *world) { w.bundle.Install = 3 })
		d.s.tells(w.command(wire.ActBundle, func(c *command) { c.cmd.ID, c.bundle = "closes", w.newest }))
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if got := d.s.heard().Bundle; got != 2 {
			t.Fatalf("it is at trust bundle %d: what waits holds it up", got)
		}
		d.s.tells(c)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if got := d.s.outcomes(c); len(got) != 1 || got[0].Outcome != wire.OutcomeRefused || got[0].Code != string(gate.Closed) || d.s.heard().Waits != nil {
			t.Errorf("%+v, and it waits %+v", got, d.s.heard().Waits)
		}
	})
}

// A window that is missed is waited for once more, until the command ends.
func TestAWindowThatIsMissedIsWaitedForOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, c, stop := offered(t, func(c *command) {
			c.cmd.Window, c.cmd.Expires = &wire.Window{From: 120, Minutes: 60}, c.cmd.Issued+3*24*3600
		})
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(12 * time.Hour) // switched off
		stop = d.start(t)
		time.Sleep(time.Hour)
		synctest.Wait()
		tomorrow := time.Now().UTC().Truncate(24 * time.Hour).Add(26 * time.Hour)
		if w := d.s.heard().Waits; w == nil || w.For != wire.WaitsForWindow || w.Until != uint64(tomorrow.Unix()) {
			t.Fatalf("it waits %+v, want until %s", w, tomorrow)
		}
		d.s.down.Store(true) // nobody hears it in the next ones, and the command ends
		time.Sleep(4 * 24 * time.Hour)
		d.s.down.Store(false)
		time.Sleep(time.Hour)
		synctest.Wait()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if got := d.s.outcomes(c); len(got) != 1 || got[0].Outcome != wire.OutcomeFailed || got[0].Code != string(gate.Expired) || d.s.heard().Version != "1.0.0" {
			t.Errorf("%+v, and it runs %s", got, d.s.heard().Version)
		}
	})
}
