package agent_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/wire"
)

func TestMain(m *testing.M) {
	launch.Confine()
	bePartOfThief()
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// acts is what a device may be told, and how it then stands.
var acts = []struct {
	act   wire.Act
	name  string           // what is special
	model wire.UpdateModel // empty: blob
	every uint64           // nth operation is cut
	edit  func(v2 *firmware) func(c *command)
	holds func(d *device, w *world) error
}{
	{act: wire.ActConfigure, every: 1, holds: func(d *device, _ *world) error {
		if r := d.s.last.Reported; len(r) != 1 || r[0] != (wire.ConfigEntry{Name: "interval", Value: "5"}) {
			return fmt.Errorf("configuration %v", r)
		}
		if n := len(d.prog.configured); n == 0 || len(d.prog.configured[n-1]) != 1 {
			return fmt.Errorf("the program was configured with %v", d.prog.configured)
		}
		return nil
	}},
	{act: wire.ActQuarantine, every: 1, holds: func(d *device, _ *world) error {
		if d.s.last.State != "quarantined" || !d.prog.isolated.Load() {
			return fmt.Errorf("state %s, isolated %v", d.s.last.State, d.prog.isolated.Load())
		}
		return nil
	}},
	{act: wire.ActReset, every: 2, holds: func(d *device, _ *world) error {
		if d.s.last.BootCount < 2 || d.s.last.BootCount > 3 { // one reset, and one power cut
			return fmt.Errorf("%d starts", d.s.last.BootCount)
		}
		return nil
	}},
	{act: wire.ActAdopt, every: 1},
	{act: wire.ActDisown, every: 2, holds: func(d *device, _ *world) error {
		if n := d.s.last.BootCount; n < 2 || n > 3 { // it restarts, and one power cut
			return fmt.Errorf("%d starts", n)
		}
		if n := d.s.enrolled; n < 2 || n > 3 { // an enrolment may have been cut off
			return fmt.Errorf("enrolled %d times", n)
		}
		return nil
	}},
	{act: wire.ActBundle, every: 2, holds: func(d *device, _ *world) error {
		if d.s.last.Bundle != 2 {
			return fmt.Errorf("trust bundle %d", d.s.last.Bundle)
		}
		return nil
	}},
	{act: wire.ActInstall, every: 3, edit: func(v2 *firmware) func(c *command) {
		return func(c *command) { c.release = v2 }
	}, holds: func(d *device, _ *world) error {
		if in := d.s.last; in.Version != "2.0.0" || in.Trial || !in.Healthy {
			return fmt.Errorf("runs %s, trial %v, healthy %v", in.Version, in.Trial, in.Healthy)
		}
		if n, err := d.board.Fuses.SecurityCounter(); err != nil || n != 2 {
			return fmt.Errorf("security counter %d, %w", n, err)
		}
		return nil
	}},
	{act: wire.ActInstall, name: " in a window", every: 3, edit: inWindow, holds: ranInWindow},
	{act: wire.ActInstall, name: " in a window", model: wire.ModelAsset, every: 5, edit: inWindow, holds: ranInWindow},
	{act: wire.ActInstall, model: wire.ModelAsset, every: 3, edit: func(v2 *firmware) func(c *command) {
		return func(c *command) { c.release = v2 }
	}, holds: func(d *device, _ *world) error {
		if in := d.s.last; in.Version != "2.0.0" || in.Trial || !in.Healthy {
			return fmt.Errorf("runs %s, trial %v, healthy %v", in.Version, in.Trial, in.Healthy)
		}
		if n, err := d.board.Fuses.SecurityCounter(); err != nil || n != 2 {
			return fmt.Errorf("security counter %d, %w", n, err)
		}
		return nil
	}},
}

// told gives the device one command and lets it live until the server has heard once more after the result.
func (d *device) told(t *testing.T, c *command) []wire.Result {
	t.Helper()
	d.s.tell = c
	heard := false
	d.s.saw = func(wire.Checkin) bool {
		before := heard
		heard = len(d.s.outcomes(c)) > 0
		return before && heard
	}
	if err := d.live(t); err != nil {
		t.Fatal(err)
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return d.s.outcomes(c)
}

// Each act, with the power failing in each operation of it, in every way: it is done, the server hears of it once, with the
// same words however often it is told, and every restart finds what was reached. An install that the cut broke off may instead
// say so, and then runs what ran before.
func TestEachActIsDoneAndReportedOnceWhereverThePowerFails(t *testing.T) {
	for _, a := range acts {
		t.Run(string(a.act)+string(a.model)+a.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				model := cmp.Or(a.model, wire.ModelBlob)
				v1, v2 := w.publishAs(model, "1.0.0", 1), w.publishAs(model, "2.0.0", 2)
				golden := born(t, w, v1)
				var edit func(*command)
				if a.edit != nil {
					edit = a.edit(&v2)
				}
				c := w.command(a.act, edit)
				run := func(cut uint64, mode virtual.Mode) *device {
					b, err := golden.Clone()
					if err != nil {
						t.Fatal(err)
					}
					d := newDevice(t, w, b)
					if cut > 0 {
						b.Power.CutAt(cut, mode, cut)
					}
					where := fmt.Sprintf("cut %d %s", cut, mode)
					got := d.told(t, c)
					if len(got) != 1 {
						t.Fatalf("%s: %d results: %+v", where, len(got), got)
					}
					r := got[0]
					if cut > 0 && a.act == wire.ActInstall && r.Outcome == wire.OutcomeFailed && r.Code == "reverted" {
						if d.s.last.Version != "1.0.0" || d.s.last.Trial {
							t.Fatalf("%s: failed, and runs %s", where, d.s.last.Version)
						}
						return d
					}
					if r.Outcome != wire.OutcomeDone || r.Act != a.act {
						t.Fatalf("%s: %+v", where, r)
					}
					if a.holds != nil {
						if err := a.holds(d, w); err != nil {
							t.Fatalf("%s: %v", where, err)
						}
					}
					return d
				}
				total := run(0, "").board.Power.Ops()
				if total < 30 {
					t.Fatalf("only %d operations to cut", total)
				}
				for n := uint64(1); n <= total; n += a.every {
					run(n, virtual.Modes()[n/a.every%4])
				}
			})
		})
	}
}

// A device that is wiped says so once, by a receipt it can sign only once, and is silent from then on; whatever is cut or lost.
func TestAWipeEndsInAReceiptAndSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		golden := born(t, w, w.publish("1.0.0", 1))
		c := w.command(wire.ActWipe, nil)
		run := func(what string, before func(d *device)) uint64 {
			b, err := golden.Clone()
			if err != nil {
				t.Fatal(err)
			}
			d := newDevice(t, w, b)
			d.s.tell = c
			before(d)
			err = d.live(t)
			if !errors.Is(err, agent.ErrOver) && !errors.Is(err, boot.ErrDead) {
				t.Fatalf("%s: %v", what, err)
			}
			ops := b.Power.Ops()
			checkEnd(t, what, d, c)
			err = d.power(t.Context())
			if errors.Is(err, hw.ErrPowerCut) { // a life differs by a write or two: the cut lay behind its end
				err = d.power(t.Context())
			}
			if !errors.Is(err, boot.ErrDead) {
				t.Fatalf("%s: it starts after its end: %v", what, err)
			}
			return ops
		}
		total := run("undisturbed", func(*device) {})
		run("answer lost", func(d *device) { d.s.lose = "receipt" })
		run("gone", func(d *device) { d.s.receipt = 410 })
		for n := uint64(1); n <= total; n++ {
			mode := virtual.Modes()[n%4]
			run(fmt.Sprintf("cut %d %s", n, mode), func(d *device) { d.board.Power.CutAt(n, mode, n) })
		}
	})
}

func checkEnd(t *testing.T, what string, d *device, c *command) {
	t.Helper()
	d.board.Reset()
	if l, err := d.board.Fuses.Lifecycle(); err != nil || l != hw.Decommissioned {
		t.Fatalf("%s: life cycle %s, %v", what, l, err)
	}
	for _, name := range []string{hw.KeyIDevID, hw.KeyAttest, hw.KeyLDevID, hw.KeyLDevID + "-2"} {
		if _, err := d.board.Keys.Signer(name); !errors.Is(err, hw.ErrNoKey) {
			t.Fatalf("%s: key %s is left: %v", what, name, err)
		}
	}
	if len(d.s.receipts) == 0 {
		t.Fatalf("%s: no receipt", what)
	}
	for _, env := range d.s.receipts[1:] {
		if string(env) != string(d.s.receipts[0]) {
			t.Fatalf("%s: two receipts were signed", what)
		}
	}
	payload, err := wire.Verify1(wire.TypeReceipt, d.s.receipts[0], d.s.attest)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	r, err := wire.DecodeReceipt(payload)
	if err != nil || r.Device != me || string(r.Command) != string(c.digest[:]) || r.Warrant != "w1" || len(r.Erased) < 2 {
		t.Fatalf("%s: receipt %+v, %v", what, r, err)
	}
	first := strings.Index(strings.Join(d.s.calls, " "), "receipt")
	if rest := strings.ReplaceAll(strings.Join(d.s.calls, " ")[first:], "receipt", ""); strings.TrimSpace(rest) != "" {
		t.Fatalf("%s: after its receipt it still says%s", what, rest)
	}
}

// What the gate refuses touches nothing, and is reported as that.
func TestARefusalIsReportedAndTouchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		c := w.command(wire.ActQuarantine, func(c *command) { c.nobody = true })
		got := d.told(t, c)
		if len(got) != 1 || got[0].Outcome != wire.OutcomeRefused || got[0].Code != "signature" {
			t.Fatalf("%+v", got)
		}
		if d.prog.isolated.Load() || d.s.last.State != "active" || d.s.last.Counter != 0 {
			t.Errorf("isolated %v, state %s, counter %d", d.prog.isolated.Load(), d.s.last.State, d.s.last.Counter)
		}
	})
}

// A release that is sick, or that the verifier does not affirm, or that says nothing in time, does not stay; and the counter
// in the fuses does not rise for it.
func TestATrialEndsUnlessHealthAndVerdictAreGood(t *testing.T) {
	for name, c := range map[string]struct {
		health  agent.Health
		verdict string
		down    bool
		code    string
	}{
		"sick":            {agent.HealthSick, "affirming", false, "sick"},
		"contraindicated": {agent.HealthGood, "contraindicated", false, "not-affirmed"},
		"no verdict":      {agent.HealthGood, "none", false, "trial-timeout"},
		"health unknown":  {agent.HealthUnknown, "affirming", false, "trial-timeout"},
		"no server":       {agent.HealthGood, "affirming", true, "trial-timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
				d.prog.health, d.s.verdict = c.health, c.verdict
				v2 := w.publish("2.0.0", 2)
				cmd := w.command(wire.ActInstall, func(o *command) { o.release = &v2 })
				began := time.Now()
				if c.down {
					d.s.falls = time.Hour
				}
				got := d.told(t, cmd)
				if len(got) != 1 || got[0].Outcome != wire.OutcomeFailed || got[0].Code != c.code {
					t.Fatalf("%+v", got)
				}
				if d.s.last.Version != "1.0.0" || d.s.last.Trial {
					t.Errorf("runs %s, trial %v", d.s.last.Version, d.s.last.Trial)
				}
				if n, err := d.board.Fuses.SecurityCounter(); err != nil || n != 1 {
					t.Errorf("security counter %d, %v", n, err)
				}
				if back := d.runs[len(d.runs)-1]; back.version != "1.0.0" || back.at.Sub(began) > 11*time.Minute {
					t.Errorf("%s ran again after %s", back.version, back.at.Sub(began))
				}
				d.lives(t, 2)
				told := false
				for _, e := range d.s.events {
					told = told || e.Kind == "update.failed"
					if e.Kind == "update.failed" && string(e.Data) != c.code { // what the program says is not for the public
						t.Errorf("the log has %q", e.Data)
					}
				}
				if !told {
					t.Error("the log does not tell that it failed")
				}
			})
		})
	}
}

// Quarantine ends by itself, to the second, also when the server is not there to end it and the device restarts in between.
func TestAGuardedStateEndsByItself(t *testing.T) {
	for _, act := range []wire.Act{wire.ActQuarantine, wire.ActDormant} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
			began := time.Now()
			d.told(t, w.command(act, nil))
			if !d.prog.isolated.Load() {
				t.Fatalf("%s: the program is not isolated", act)
			}
			d.s.down.Store(true)
			stop := d.start(t)
			time.Sleep(590*time.Second - time.Since(began))
			synctest.Wait()
			if !d.prog.isolated.Load() {
				t.Errorf("%s: over before its time", act)
			}
			time.Sleep(20 * time.Second)
			synctest.Wait()
			if d.prog.isolated.Load() {
				t.Errorf("%s: not over at its time", act)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// start runs the device beside the test, until stop.
func (d *device) start(t *testing.T) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	d.s.hook = nil
	go func() { ended <- d.power(ctx) }()
	synctest.Wait()
	return func() error { cancel(); return <-ended }
}

// A device that reaches nobody runs what is confirmed, for as long as it takes, and comes back when there is somebody.
func TestWithoutAServerTheDeviceRunsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		d.s.down.Store(true) // not even enrolled yet
		boots, err := d.board.Boots.Value()
		if err != nil {
			t.Fatal(err)
		}
		stop := d.start(t)
		time.Sleep(30 * 24 * time.Hour)
		synctest.Wait()
		if s := d.ask(t, `{"op":"status"}`).Status; s == nil || s.Version != "1.0.0" || s.State != "active" || !s.Healthy || s.Trial || d.prog.isolated.Load() {
			t.Errorf("after a month alone: %+v", s)
		}
		if n, err := d.board.Boots.Value(); err != nil || n != boots+1 {
			t.Errorf("it restarted %d times, %v", n-boots-1, err)
		}
		d.s.down.Store(false)
		time.Sleep(16 * time.Minute) // the longest it waits between attempts
		synctest.Wait()
		if d.s.heard().Version != "1.0.0" {
			t.Errorf("it did not come back: %+v", d.s.heard())
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// A download that breaks off, on whatever side, goes on; a certificate is renewed in time and used from then on.
func TestWhatFailsOnTheLineIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		v2 := w.publish("2.0.0", 2)
		d.s.lose = "artifact"
		got := d.told(t, w.command(wire.ActInstall, func(c *command) { c.release = &v2 }))
		if len(got) != 1 || got[0].Outcome != wire.OutcomeDone {
			t.Fatalf("%+v", got)
		}
		for _, lost := range []string{"checkin", "log"} {
			d.s.lose = lost
			c := w.command(wire.ActConfigure, func(c *command) { c.cmd.ID += lost })
			if got := d.told(t, c); len(got) != 1 || got[0].Outcome != wire.OutcomeDone {
				t.Errorf("%s lost: %+v", lost, got)
			}
		}
	})
}

// Data that the server refuses, or wants later, does not keep a device from being commanded at its pace.
func TestRefusedDataDoesNotHoldCommandsUp(t *testing.T) {
	for what, c := range map[string]struct{ status, most int }{"refused": {http.StatusBadRequest, 4000}, "later": {http.StatusTooManyRequests, 61}} {
		t.Run(what, func(t *testing.T) { dataAnswered(t, c.status, c.most) })
	}
}

// dataAnswered has the server answer data with that status for an hour; it is sent at most so often.
func dataAnswered(t *testing.T, status, most int) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		d.data, d.s.sealed = new(data), status
		stop := d.start(t)
		time.Sleep(time.Hour)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		asked, sent := 0, 0
		for _, c := range d.s.calls {
			switch c {
			case "checkin":
				asked++
			case "telemetry":
				sent++
			}
		}
		if asked < 3000 || sent == 0 || sent > most { // once a second, give or take a tenth
			t.Errorf("it asked %d times in an hour, and sent data %d times", asked, sent)
		}
	})
}

func TestACertificateIsRenewedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		d.s.leaf, d.s.poll = 3*time.Hour, 10*time.Minute
		stop := d.start(t)
		time.Sleep(24 * time.Hour) // the server refuses a certificate that has expired
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if d.s.enrolled < 9 || d.s.enrolled > 13 {
			t.Errorf("%d enrolments in a day of certificates for 3 hours, renewed after 2", d.s.enrolled)
		}
		stop = d.start(t)
		time.Sleep(time.Minute)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		d.s.down.Store(true)
		stop = d.start(t)
		time.Sleep(6 * time.Hour) // it expires while nobody answers
		synctest.Wait()
		before := d.s.heard()
		d.s.down.Store(false)
		time.Sleep(time.Hour)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(d.s.last.Nonce, before.Nonce) {
			t.Error("a device whose certificate expired does not enrol anew")
		}
	})
}

// A device whose certificate is let in no more, be it revoked or from before it was lost, enrols anew by itself, with its factory
// identity; it does not when there is only nobody to answer, and not at every refusal.
func TestADeviceThatIsDisownedEnrolsAnew(t *testing.T) {
	for name, status := range map[string]int{"revoked: refused at the handshake": 0, "found again: to be onboarded anew": http.StatusForbidden} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
				stop := d.start(t)
				time.Sleep(time.Hour)
				synctest.Wait()
				if d.s.enrolments() != 1 {
					t.Fatalf("%d enrolments of a device that is well", d.s.enrolments())
				}
				d.s.mu.Lock()
				d.s.disown, d.s.status = time.Now(), status
				d.s.mu.Unlock()
				time.Sleep(3 * time.Hour)
				synctest.Wait()
				if d.s.enrolments() != 2 || d.s.heard().Version != "1.0.0" {
					t.Errorf("%d enrolments, heard %q", d.s.enrolments(), d.s.heard().Version)
				}
				d.s.mu.Lock()
				d.s.disown = time.Now().Add(100 * 24 * time.Hour) // whatever it shows
				d.s.mu.Unlock()
				time.Sleep(24 * time.Hour)
				synctest.Wait()
				if d.s.enrolments() < 10 || d.s.enrolments() > 30 {
					t.Errorf("%d enrolments in a day of refusals", d.s.enrolments())
				}
				before := d.s.enrolments()
				d.s.down.Store(true)
				time.Sleep(24 * time.Hour)
				d.s.down.Store(false)
				if d.s.enrolments() != before {
					t.Errorf("%d enrolments while nobody answered", d.s.enrolments()-before)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A server that is ill, or behind, says nothing of the certificate: nobody enrols anew for that.
func TestAServerThatIsIllDisownsNobody(t *testing.T) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
				stop := d.start(t)
				time.Sleep(time.Hour)
				d.s.mu.Lock()
				d.s.disown, d.s.status = time.Now(), status
				d.s.mu.Unlock()
				time.Sleep(3 * time.Hour)
				synctest.Wait()
				if n, refused := d.s.enrolments(), d.s.refusals(); n != 1 || refused < 10 {
					t.Errorf("%d enrolments, after %d calls that came to nothing", n, refused)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A server that comes back after a long time, and knows the device's certificate no more, is not waited for as if it were still away.
func TestADeviceThatIsRefusedAfterALongOutageIsSoonBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		stop := d.start(t)
		time.Sleep(time.Hour)
		d.s.down.Store(true)
		time.Sleep(10 * time.Hour)
		d.s.mu.Lock()
		d.s.disown = time.Now()
		d.s.mu.Unlock()
		d.s.down.Store(false)
		for d.s.refusals() == 0 {
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Minute)
		if n := d.s.enrolments(); n != 2 {
			t.Errorf("%d enrolments, two minutes after the first of %d refusals", n, d.s.refusals())
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// A device that is refused, and does not reach who would give it another certificate, goes on asking: so does one whose request a person
// has still to look at.
func TestADeviceThatIsRefusedAsksUntilItIsAnswered(t *testing.T) {
	for name, no := range map[string]error{
		"the server is away just then": errNoNetwork, "a person has to approve": &est.Pending{After: time.Minute},
		"a person has to say that it is no copy": &est.Status{Code: http.StatusForbidden, Text: "enrol.state"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
				stop := d.start(t)
				time.Sleep(time.Hour)
				d.s.mu.Lock()
				d.s.disown = time.Now()
				failed := 0
				d.s.asks = func(crypto.PublicKey) error {
					if failed++; failed <= 3 {
						return no
					}
					return nil
				}
				d.s.mu.Unlock()
				for d.s.refusals() == 0 {
					time.Sleep(time.Second)
				}
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if n := d.s.enrolments(); n != 2 || d.s.heard().Version != "1.0.0" {
					t.Errorf("%d enrolments, ten minutes after the first refusal, %d attempts that came to nothing", n, failed)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A device that never runs long enough to be refused five times in a row gets there as well, once, and not at each start from then on.
func TestADeviceThatRestartsAllTheTimeEnrolsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		stop := d.start(t)
		time.Sleep(time.Hour)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		d.s.disown = time.Now()
		short := func(starts int) {
			t.Helper()
			for range starts {
				stop := d.start(t)
				time.Sleep(1500 * time.Millisecond)
				if err := stop(); err != nil {
					t.Fatal(err)
				}
			}
		}
		short(2)
		if n := d.s.enrolments(); n != 1 {
			t.Fatalf("%d enrolments after a few refusals", n)
		}
		short(10)
		if n := d.s.enrolments(); n != 2 || d.s.heard().Version != "1.0.0" {
			t.Errorf("%d enrolments, heard %q", n, d.s.heard().Version)
		}
		calls := len(d.s.calls)
		short(10)
		if n := d.s.enrolments(); n != 2 || len(d.s.calls) == calls {
			t.Errorf("%d enrolments once it is known again, %d calls", n, len(d.s.calls)-calls)
		}
	})
}

// Who is held is not let go by being put to sleep, or woken.
func TestSleepEndsNoQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		d.told(t, w.command(wire.ActQuarantine, nil))
		for _, act := range []wire.Act{wire.ActWake, wire.ActDormant} {
			d.told(t, w.command(act, nil))
			if !d.prog.isolated.Load() {
				t.Errorf("%s lets it go", act)
			}
		}
		d.told(t, w.command(wire.ActRelease, nil))
		if d.prog.isolated.Load() {
			t.Error("a release does not")
		}
	})
}
