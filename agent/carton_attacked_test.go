package agent_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/carton"
)

// What a line told stays with the verifier: somebody who brings the carton of an earlier install beside it does not take it away.
func TestAnOldCartonDoesNotTakeTheVerifierAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		v1, v2, v3 := w.publish("1.0.0", 1), w.publish("2.0.0", 2), w.publish("3.0.0", 3)
		d := newDevice(t, w, born(t, w, v1))
		path := w.pack(t, t.TempDir(), w.byHand(&v2), 1, nil)
		if _, at := d.visit(t, path); at.Version != "2.0.0" {
			t.Fatalf("%+v", at)
		}
		d.s.down.Store(false)
		d.s.verdict = "none"
		c := w.command(wire.ActInstall, func(c *command) { c.release = &v3 })
		d.s.tell, d.s.busy, d.s.poll = c, 1_000_000, time.Second
		stop := d.start(t)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if r := d.ask(t, `{"op":"status"}`); r.Status.Task != "install: stage" {
			t.Fatalf("%+v", r.Status)
		}
		if r := d.ask(t, `{"op":"carton","path":"`+path+`"}`); !strings.Contains(r.Error, "another act is under way") {
			t.Errorf("%+v", r)
		}
		d.s.mu.Lock()
		d.s.busy = 0
		d.s.mu.Unlock()
		for range 9 { // over its trial, and what comes behind it
			time.Sleep(3 * time.Minute)
			if err := stop(); err != nil && !errors.Is(err, agent.ErrReset) {
				t.Fatal(err)
			}
			stop = d.start(t)
		}
		if r := d.ask(t, `{"op":"status"}`); r.Status.Version != "2.0.0" || r.Status.Trial || r.Status.Fuses != 2 {
			t.Errorf("without the verifier's word it runs %+v", r.Status)
		}
		_ = stop()
	})
}

// Where a verifier answers, its answer counts for a carton's release too: what it does not affirm goes back.
func TestAVerifierThatIsThereIsHeardOfACartonsRelease(t *testing.T) {
	for verdict, want := range map[string]string{"none": "1.0.0", "affirming": "2.0.0"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			v1, v2 := w.publish("1.0.0", 1), w.publish("2.0.0", 2)
			d := newDevice(t, w, born(t, w, v1))
			d.s.verdict = verdict
			if _, at := d.bring(t, w.pack(t, t.TempDir(), w.byHand(&v2), 1, nil)); at.Version != want || at.Trial {
				t.Errorf("%s: %+v", verdict, at)
			}
		})
	}
}

// The floor that comes with a carton is above what runs, and its release mends that. The carton is over, or its release is ill: what ran before runs on.
func TestACartonThatFailsLeavesSomethingToStart(t *testing.T) {
	for name, c := range map[string]struct {
		ill   bool
		wait  time.Duration
		runs  string
		under uint64 // trust bundle
	}{
		"it is well": {runs: "2.0.0", under: 2},
		"it is ill":  {ill: true, runs: "1.0.0", under: 1},
		"it is over": {wait: 100 * 24 * time.Hour, runs: "1.0.0", under: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				v1 := w.publish("1.0.0", 1)
				d := newDevice(t, w, born(t, w, v1))
				w.replace(func(w *world) { w.bundle.Floor = 2 })
				v2 := w.publish("2.0.0", 2)
				path := w.pack(t, t.TempDir(), w.byHand(&v2), 1, nil)
				time.Sleep(c.wait)
				if c.ill {
					d.prog.spell = time.Hour
				}
				for range 2 { // the second start is the one that finds nothing, when there is nothing
					if said, at := d.visit(t, path); at.Version != c.runs || at.Bundle != c.under || at.State == "recovery" {
						t.Errorf("%+v, then %+v", said, at)
					}
				}
			})
		})
	}
}

// While the release is on trial, another carton is put in the place of its own, with a floor that is above this release as well: that floor is not taken.
func TestAnotherCartonInItsPlaceLeavesSomethingToStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		v1 := w.publish("1.0.0", 1)
		d := newDevice(t, w, born(t, w, v1))
		w.replace(func(w *world) { w.bundle.Floor = 2 })
		v2 := w.publish("2.0.0", 2)
		dir := t.TempDir()
		path := w.pack(t, dir, w.byHand(&v2), 1, nil)
		d.s.down.Store(true)
		stop := d.start(t)
		if r := d.ask(t, `{"op":"carton","path":"`+path+`"}`); r.Act != wire.ActInstall {
			t.Fatalf("%+v", r)
		}
		time.Sleep(10 * time.Second)
		if err := stop(); !errors.Is(err, agent.ErrReset) {
			t.Fatalf("not to be tried yet: %v", err)
		}
		w.replace(func(w *world) { w.bundle.Floor = 3 })
		v3 := w.publish("3.0.0", 3)
		c := w.byHand(&v3)
		w.pack(t, dir, c, 2, nil)
		for range 2 {
			stop = d.start(t)
			time.Sleep(10 * time.Minute)
			at := d.ask(t, `{"op":"status"}`).Status
			if at.Version != "2.0.0" || at.Trial || at.Task != "" || at.State != "active" || at.Bundle != 1 {
				t.Errorf("%+v", at)
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
		}
		if said, at := d.visit(t, path); at.Version != "3.0.0" || at.Bundle != 3 {
			t.Errorf("%+v, then %+v", said, at)
		}
	})
}

// The power fails at each write of such an install: the device never stands below its own floor, and has the carton's trust bundle where it has its release.
func TestPowerCutAtEveryWriteOfACartonThatRaisesTheFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		v1 := w.publish("1.0.0", 1)
		golden := born(t, w, v1)
		w.replace(func(w *world) { w.bundle.Floor, w.bundle.Offline = 2, 7200 })
		v2 := w.publish("2.0.0", 2)
		dir := t.TempDir()
		run := func(cut uint64) uint64 {
			b, err := golden.Clone()
			if err != nil {
				t.Fatal(err)
			}
			path := w.pack(t, dir, w.byHand(&v2), 1, nil)
			d := newDevice(t, w, b)
			if cut > 0 {
				b.Power.CutAt(cut, virtual.Modes()[cut%4], cut)
			}
			said, at := d.visit(t, path)
			if said.Act == "" { // before it could answer: somebody asks once more
				said, at = d.visit(t, path)
			}
			want := uint64(1)
			if at.Version == "2.0.0" {
				want = 2
			}
			if at.State != "active" || at.Bundle != want || len(at.Results) != 1 || (at.Results[0].Outcome == wire.OutcomeDone) != (want == 2) {
				t.Errorf("cut %d: %+v, then %+v", cut, said, at)
			}
			return b.Power.Ops()
		}
		total := run(0)
		if total < 60 {
			t.Fatalf("only %d operations to cut", total)
		}
		for n := uint64(1); n <= total; n++ {
			run(n)
		}
	})
}

// A bundle that closes a release reaches the device that is fetching it, and the release is not tried.
func TestABundleReachesADeviceThatFetches(t *testing.T) {
	for name, c := range map[string]struct {
		install uint32
		runs    string
		outcome wire.Outcome
	}{
		"it closes what is fetched": {3, "1.0.0", wire.OutcomeFailed},
		"it does not":               {2, "2.0.0", wire.OutcomeDone},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				v1, v2 := w.publish("1.0.0", 1), w.publish("2.0.0", 2)
				d := newDevice(t, w, born(t, w, v1))
				install := w.command(wire.ActInstall, func(c *command) { c.release = &v2 })
				d.s.tell, d.s.busy, d.s.poll = install, 1_000_000, time.Second
				stop := d.start(t)
				time.Sleep(30 * time.Second)
				synctest.Wait()
				d.s.mu.Lock()
				w.replace(func(w *world) { w.bundle.Install = c.install })
				bundle := w.command(wire.ActBundle, func(c *command) { c.bundle = w.newest })
				d.s.tell = bundle
				d.s.mu.Unlock()
				time.Sleep(30 * time.Second)
				synctest.Wait()
				d.s.mu.Lock()
				if got := d.s.outcomes(bundle); len(got) != 1 || got[0].Outcome != wire.OutcomeDone {
					t.Errorf("the bundle: %+v", got)
				}
				d.s.busy, d.s.tell = 0, nil
				d.s.mu.Unlock()
				for range 4 {
					time.Sleep(2 * time.Minute)
					if err := stop(); err != nil && !errors.Is(err, agent.ErrReset) {
						t.Fatal(err)
					}
					stop = d.start(t)
				}
				if r := d.ask(t, `{"op":"status"}`); r.Status.Version != c.runs || r.Status.Bundle != 2 || r.Status.Task != "" {
					t.Errorf("%+v", r.Status)
				}
				_ = stop()
				if got := d.s.outcomes(install); len(got) != 1 || got[0].Outcome != c.outcome {
					t.Errorf("the install: %+v", got)
				}
			})
		})
	}
}

// The power fails at each write of a bundle that is taken beside a fetch: it is in force in the end, and what it closes is not tried.
func TestPowerCutAtEveryWriteOfABundleBesideAFetch(t *testing.T) {
	run := func(cut uint64) (ops uint64) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			v1, v2 := w.publish("1.0.0", 1), w.publish("2.0.0", 2)
			d := newDevice(t, w, born(t, w, v1))
			install := w.command(wire.ActInstall, func(c *command) { c.release = &v2 })
			d.s.tell, d.s.busy, d.s.poll = install, 1_000_000, time.Second
			stop := d.start(t)
			time.Sleep(30 * time.Second)
			synctest.Wait()
			d.s.mu.Lock()
			w.replace(func(w *world) { w.bundle.Install = 3 })
			bundle := w.command(wire.ActBundle, func(c *command) { c.bundle = w.newest })
			d.s.tell = bundle
			before := d.board.Power.Ops()
			if cut > 0 {
				d.board.Power.CutAt(cut, virtual.Modes()[cut%4], cut)
			}
			d.s.mu.Unlock()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			ops = d.board.Power.Ops() - before
			for i := range 6 {
				time.Sleep(2 * time.Minute)
				if err := stop(); err != nil && !errors.Is(err, agent.ErrReset) && !errors.Is(err, hw.ErrPowerCut) {
					t.Fatalf("cut %d: %v", cut, err)
				}
				if i == 2 { // now its bytes can be had
					d.s.mu.Lock()
					d.s.busy = 0
					d.s.mu.Unlock()
				}
				stop = d.start(t)
			}
			at := d.ask(t, `{"op":"status"}`).Status
			_ = stop()
			if at.Version != "1.0.0" || at.Bundle != 2 || at.Trial || at.Task != "" {
				t.Errorf("cut %d: %+v", cut, at)
			}
			if got := d.s.outcomes(install); len(got) != 1 || got[0].Outcome != wire.OutcomeFailed {
				t.Errorf("cut %d, the install: %+v", cut, got)
			}
			// Where the cut comes between the bundle and its result, the command that comes again finds it in force.
			if got := d.s.outcomes(bundle); len(got) != 1 || got[0].Outcome != wire.OutcomeDone && (cut == 0 || got[0].Code != string(gate.BundleRefused)) {
				t.Errorf("cut %d, the bundle: %+v", cut, got)
			}
		})
		return ops
	}
	total := run(0)
	if total < 5 {
		t.Fatalf("only %d operations to cut", total)
	}
	for n := uint64(1); n <= total; n++ {
		run(n)
	}
}

// The stick is lost while the device fetches. A carton that is written anew takes its place, of the same command as of a newer release.
func TestALostStickIsReplaced(t *testing.T) {
	for name, version := range map[string]string{"the same command": "2.0.0", "a newer release": "3.0.0"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				v1, v2 := w.publish("1.0.0", 1), w.publish("2.0.0", 2)
				golden, c := born(t, w, v1), w.byHand(&v2)
				path := w.pack(t, t.TempDir(), c, 1, nil)
				whole := must(os.ReadFile(path))
				d := begun(t, w, golden, path, whole, func() {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				})
				if version == "3.0.0" {
					v3 := w.publish("3.0.0", 3)
					c = w.byHand(&v3)
				}
				if said, at := d.visit(t, w.pack(t, t.TempDir(), c, 2, nil)); at.Version != version {
					t.Errorf("%+v, then %+v", said, at)
				}
				if h, says := d.history(t); says != "" || h.Directive == nil {
					t.Error(says)
				}
			})
		})
	}
}

// However many histories are written, the next one reaches to the end of the log; and a carton that says how far the log is has them begin there, and frees it.
func TestHistoriesReachToTheEndOfTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		v1, v2 := w.publish("1.0.0", 1), w.publish("2.0.0", 2)
		d := newDevice(t, w, born(t, w, v1))
		d.visit(t, w.pack(t, t.TempDir(), w.byHand(&v2), 1, nil))
		var h carton.History
		for range 80 { // each with a start in it
			var says string
			if h, says = d.history(t); says != "" {
				t.Fatal(says)
			}
		}
		e := must(wire.DecodeEvidence(must(wire.Verify1(wire.TypeEvidence, h.Evidence, d.s.attest))))
		batch := func(i int) wire.LogBatch {
			return must(wire.DecodeLogBatch(must(wire.Verify1(wire.TypeDeviceLog, h.Log[i], d.s.attest))))
		}
		if last := batch(len(h.Log) - 1); last.Last != e.LogSeq {
			t.Errorf("%d batches end with %d, the log with %d", len(h.Log), last.Last, e.LogSeq)
		}
		reached := batch(len(h.Log) - 2)
		anchor := w.append("device.log.anchored", h.Log[len(h.Log)-2])
		v3 := w.publish("3.0.0", 3)
		path := w.pack(t, t.TempDir(), w.byHand(&v3), 2, func(h *carton.Head) { h.Devices[0].Log = w.logged(anchor) })
		if said, at := d.visit(t, path); at.Version != "3.0.0" {
			t.Fatalf("%+v, then %+v", said, at)
		}
		if h, _ = d.history(t); batch(0).First != reached.Last+1 {
			t.Errorf("the next history begins with %d, and the log is anchored to %d", batch(0).First, reached.Last)
		}
	})
}

// An anchor that is of another device, or of no witnessed log, frees nothing.
func TestAFalseAnchorInACartonFreesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		v1, v2 := w.publish("1.0.0", 1), w.publish("2.0.0", 2)
		d := newDevice(t, w, born(t, w, v1))
		d.visit(t, w.pack(t, t.TempDir(), w.byHand(&v2), 1, nil))
		before, _ := d.history(t)
		anchor := w.append("device.log.anchored", before.Log[0])
		v3 := w.publish("3.0.0", 3)
		path := w.pack(t, t.TempDir(), w.byHand(&v3), 2, func(h *carton.Head) {
			h.Devices[0].Log = w.logged(anchor)
			h.Devices[0].Log.Proof.LogSignature = make([]byte, 64)
		})
		if said, at := d.visit(t, path); at.Version != "3.0.0" {
			t.Fatalf("%+v, then %+v", said, at)
		}
		first := func(h carton.History) uint64 {
			return must(wire.DecodeLogBatch(must(wire.Verify1(wire.TypeDeviceLog, h.Log[0], d.s.attest)))).First
		}
		if after, _ := d.history(t); first(after) != first(before) {
			t.Errorf("it goes on from %d, want %d", first(after), first(before))
		}
	})
}

// Somebody brings a carton that is refused, again and again: what the device has to tell of the one that it took stays.
func TestRefusalsDoNotPushAResultOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		v1, v2 := w.publish("1.0.0", 1), w.publish("2.0.0", 2)
		d := newDevice(t, w, born(t, w, v1))
		c := w.byHand(&v2)
		d.visit(t, w.pack(t, t.TempDir(), c, 1, nil))
		stop := d.start(t)
		var paths []string
		for range 35 {
			paths = append(paths, w.pack(t, t.TempDir(), w.byHand(&v1), 1, nil)) // its counter was used
		}
		for range 2 {
			for _, p := range paths {
				if r := d.ask(t, `{"op":"carton","path":"`+p+`"}`); r.Outcome != wire.OutcomeRefused {
					t.Fatalf("%+v", r)
				}
			}
		}
		kept := d.ask(t, `{"op":"status"}`).Status.Results
		if !slices.ContainsFunc(kept, func(r wire.Result) bool {
			return r.Outcome == wire.OutcomeDone && string(r.Command) == string(c.digest[:])
		}) {
			t.Errorf("of %d results none is that of the install", len(kept))
		}
		_ = stop()
	})
}
