package agent_test

import (
	"crypto"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

func suiteOf(t testing.TB, pub crypto.PublicKey) suite.ID {
	t.Helper()
	set, err := suite.Of(pub)
	if err != nil {
		t.Fatal(err)
	}
	return set.ID
}

// moved gives everybody keys of a suite.
func moved(t testing.TB, w *world, id suite.ID) {
	t.Helper()
	set, err := suite.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	key := func() crypto.Signer { return must(set.Generate()) }
	w.root, w.release, w.warrant = []crypto.Signer{key(), key()}, []crypto.Signer{key(), key()}, []crypto.Signer{key(), key()}
	w.directive = key()
}

// certified is the key that the device shows in TLS.
func (d *device) certified(t testing.TB) crypto.PublicKey {
	t.Helper()
	for _, name := range hw.Names(hw.KeyLDevID) {
		if k, err := d.board.Keys.Signer(name); err == nil {
			return k.Public()
		}
	}
	t.Fatal("no certified key")
	return nil
}

// A device makes its keys of the suite that its trust bundle wants, and goes on when the bundle accepts nothing else. What is signed in the suite
// before is refused then, whoever signed it.
func TestADeviceMovesToAnotherSuite(t *testing.T) {
	for _, id := range []suite.ID{suite.P384, suite.MLDSA44} {
		t.Run(string(id), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				set := must(suite.Get(id))
				w := newWorld()
				d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
				d.s.history, d.s.anchors, d.s.leaf, d.s.poll = &history{w: w}, true, 3*time.Hour, 10*time.Minute
				d.lives(t, 2)
				w.replace(func(w *world) { w.bundle.Suites = []string{string(suite.P256), string(id)} })
				before := d.s.enrolments()
				stop := d.start(t)
				time.Sleep(30 * time.Minute)
				synctest.Wait()
				if got := suiteOf(t, d.s.attest); d.s.heard().Bundle != 2 || got != suite.P256 || d.s.enrolments() != before {
					t.Errorf("at once: bundle %d, attestation key of %s: a fleet is to move over the life of its certificates", d.s.heard().Bundle, got)
				}
				time.Sleep(6 * time.Hour)
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				if a, c := suiteOf(t, d.s.attest), suiteOf(t, d.certified(t)); a != id || c != set.Certified() {
					t.Fatalf("attestation key of %s, certified key of %s", a, c)
				}
				if !slices.Contains(d.s.kinds(), "attest-key.replaced") {
					t.Errorf("the device's own log does not tell of it: %v", d.s.kinds())
				}
				old := w.directive
				w.replace(func(w *world) {
					moved(t, w, id)
					w.bundle.Suites = []string{string(id)}
				})
				stop = d.start(t)
				time.Sleep(time.Hour)
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				if got := d.s.heard().Bundle; got != 3 {
					t.Fatalf("it is at bundle %d", got)
				}
				d.s.poll = time.Second
				next := w.publish("2.0.0", 2)
				if got := d.told(t, w.command(wire.ActInstall, func(o *command) { o.release = &next })); len(got) != 1 || got[0].Outcome != wire.OutcomeDone {
					t.Fatalf("%+v", got)
				}
				now := w.directive
				w.directive = old
				got := d.told(t, w.command(wire.ActReset, nil))
				if w.directive = now; len(got) != 1 || got[0].Outcome != wire.OutcomeRefused || got[0].Code != "suite" {
					t.Errorf("told by the key of before: %+v", got)
				}
			})
		})
	}
}

// One that was away while the fleet moved has keys of a suite that nobody accepts any more, and comes up by itself.
func TestADeviceThatWasAwayMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := newDevice(t, w, born(t, w, w.publish("1.0.0", 1)))
		d.s.strict, d.s.history, d.s.poll, d.s.leaf = true, &history{w: w}, 10*time.Minute, 48*time.Hour
		d.s.asks = func(key crypto.PublicKey) error {
			for _, id := range w.bundle.Suites {
				if set, err := suite.Get(suite.ID(id)); err == nil && set.Certifies(key) {
					return nil
				}
			}
			return refusal("csr.suite: the certificate request's key is not of a suite that is accepted")
		}
		d.lives(t, 2)
		w.replace(func(w *world) { w.bundle.Suites = []string{string(suite.P256), string(suite.P384)} })
		w.replace(func(w *world) {
			moved(t, w, suite.P384)
			w.bundle.Suites = []string{string(suite.P384)}
		})
		time.Sleep(365 * 24 * time.Hour)
		stop := d.start(t)
		time.Sleep(3 * time.Hour)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if a, c := suiteOf(t, d.s.attest), suiteOf(t, d.certified(t)); d.s.heard().Bundle != 3 || a != suite.P384 || c != suite.P384 {
			t.Errorf("bundle %d, attestation key of %s, certified key of %s", d.s.heard().Bundle, a, c)
		}
	})
}

// refusal is an enrolment server's.
type refusal string

func (r refusal) Error() string { return string(r) }
func (r refusal) Because(code string) bool {
	return len(r) >= len(code) && string(r[:len(code)]) == code
}

// The power fails in every operation of the move, and an answer is lost: the key that the server has is the one that the device uses.
func TestPowerCutsWhileTheAttestationKeyChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		golden := born(t, w, w.publish("1.0.0", 1))
		w.replace(func(w *world) { w.bundle.Suites = []string{string(suite.P256), string(suite.P384)} })
		w.replace(func(w *world) {
			moved(t, w, suite.P384)
			w.bundle.Suites = []string{string(suite.P384)}
		})
		run := func(cut uint64, lose string) *virtual.Board {
			b := must(golden.Clone())
			d := newDevice(t, w, b)
			d.s.history, d.s.anchors, d.s.lose = &history{w: w}, true, lose
			if cut > 0 {
				b.Power.CutAt(cut, virtual.Random, cut)
			}
			d.lives(t, 6)
			name := hw.KeyAttest
			k, err := b.Keys.Signer(name)
			if errors.Is(err, hw.ErrNoKey) {
				k, err = b.Keys.Signer(hw.Other(hw.KeyAttest, name))
			}
			if err != nil {
				t.Fatalf("cut %d: %v", cut, err)
			}
			if got := suiteOf(t, d.s.attest); got != suite.P384 || !k.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(d.s.attest) {
				t.Fatalf("cut %d, lost %q: the server has a key of %s, and it is not the device's", cut, lose, got)
			}
			return b
		}
		start := golden.Power.Ops()
		ops := run(0, "").Power.Ops() - start
		run(0, "attest-key")
		for n := uint64(1); n <= ops; n += max(ops/60, 1) {
			run(n, "")
		}
	})
}
