package demo

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// maker publishes trust bundles with whatever people there are.
type maker struct {
	*demo
	t *testing.T
}

// next publishes a bundle with what change makes of the current one, signed by people.
func (m maker) next(change func(b *wire.Bundle), people ...crypto.Signer) wire.Bundle {
	m.t.Helper()
	v, err := m.people["admin"].Bundle(m.t.Context(), productID, "")
	if err != nil {
		m.t.Fatal(err)
	}
	b := v.Bundle
	b.Version, b.Issued = b.Version+1, uint64(time.Now().Unix())
	change(&b)
	payload, err := wire.EncodeBundle(b)
	if err != nil {
		m.t.Fatal(err)
	}
	envelope, err := wire.NewThreshold(wire.TypeBundle, payload, people[0])
	for _, p := range people[1:] {
		if err == nil {
			envelope, err = wire.AddSignature(wire.TypeBundle, envelope, p)
		}
	}
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := m.people["sam"].PublishBundle(m.t.Context(), envelope); err != nil {
		m.t.Fatal(err)
	}
	return b
}

func (m maker) approver(name string) crypto.Signer {
	m.t.Helper()
	k, err := m.demo.approver(name)
	if err != nil {
		m.t.Fatal(err)
	}
	return k
}

// rotated makes a new online key of a role, and retires those before it when told so later.
func (m maker) rotated(role keyring.Role) keyring.Key {
	m.t.Helper()
	k, err := m.people["admin"].RotateKey(m.t.Context(), role, "", "it was stolen")
	if err != nil {
		m.t.Fatal(err)
	}
	return k
}

func (m maker) retired(name string, force bool) error {
	_, err := m.people["admin"].RetireKey(m.t.Context(), name, force, "it was stolen")
	return err
}

// reach waits until just n devices have the version of the bundle.
func (m maker) reach(version uint64, n int) {
	m.t.Helper()
	ok, saw := wait(m.t.Context(), 90*time.Second, func() (bool, string) {
		s, err := m.people["olga"].BundleStatus(m.t.Context(), productID)
		for _, c := range s.Counts {
			if c.Version == version && c.Devices == n && s.Seen {
				return true, ""
			}
		}
		return false, observed(err, fmt.Sprintf("%+v", s))
	})
	if !ok {
		logs, _ := os.ReadFile(filepath.Join(m.dir, "server.log"))
		m.t.Fatalf("bundle %d on %d devices: %s\n%s\n%s", version, n, saw, tail(filepath.Join(m.agents[0].dir, "agent.log")), logs[max(0, len(logs)-3000):])
	}
}

// again restarts the server: log keys count from its next start on.
func (m maker) again() {
	m.t.Helper()
	m.serve.stop(os.Interrupt)
	if err := m.startServer(); err != nil {
		m.t.Fatal(err)
	}
}

// One campaign after the other, everybody whom a fleet believes is replaced: the directive authority and an approver, then both logs' keys.
// Devices follow; one that was away for both comes back by the signed history, although none of the keys it believes is used any more.
func TestEverybodyIsReplaced(t *testing.T) {
	if testing.Short() || os.Getenv("HALLMARK_LONG") == "" {
		t.Skip("plays whole lives, for minutes: set HALLMARK_LONG=1")
	}
	d := plan(Options{Devices: 3, Out: io.Discard, programs: programs(t)})
	d.dir = t.TempDir()
	if keep := os.Getenv("HALLMARK_KEEP"); keep != "" { // to look at what happened
		d.dir = keep
	}
	t.Cleanup(d.stopAll)
	for _, chapter := range []func(context.Context) error{d.build, d.instance, d.firstRelease, d.produce, d.field} {
		if err := chapter(t.Context()); err != nil {
			logs, _ := os.ReadFile(filepath.Join(d.dir, "server.log"))
			t.Fatalf("%v\n%s", err, logs[max(0, len(logs)-4000):])
		}
	}
	m := maker{d, t}
	away := d.agents[2]
	d.setLive(slices.DeleteFunc(d.powered(), func(o *device) bool { return o == away })...)
	away.run.stop(os.Interrupt)

	// The directive key was stolen, and carol has lost hers: dora takes her place.
	dora, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	carols, err := wire.SPKIOf(m.approver("carol").Public())
	if err != nil {
		t.Fatal(err)
	}
	doras, err := wire.SPKIOf(dora.Public())
	if err != nil {
		t.Fatal(err)
	}
	directive := m.rotated(keyring.Directive)
	m.next(func(b *wire.Bundle) {
		b.Directive.Keys = [][]byte{directive.SPKI}
		for _, role := range []*wire.KeySet{&b.Root, &b.Release, &b.Warrant} {
			role.Keys = append(slices.DeleteFunc(slices.Clone(role.Keys), func(k []byte) bool { return string(k) == string(carols) }), doras)
		}
	}, m.approver("alice"), m.approver("bob"))
	m.reach(2, 2)
	if err := m.retired("directive", false); client.Code(err) != "key.needed" {
		t.Fatalf("a key that a device still needs: %v", err)
	}
	if err := m.retired("directive", true); err != nil {
		t.Fatal(err)
	}

	// The logs' keys.
	control, events := m.rotated(keyring.LogControl), m.rotated(keyring.LogEvents)
	m.again()
	m.next(func(b *wire.Bundle) { b.Control.Key, b.Events.Key = control.SPKI, events.SPKI }, m.approver("alice"), dora)
	m.reach(3, 2)
	for _, name := range []string{"log-control", "log-events"} {
		if err := m.retired(name, true); err != nil {
			t.Fatal(err)
		}
	}
	m.again()

	if err := away.on(); err != nil {
		t.Fatal(err)
	}
	m.reach(3, 3)
	if err := d.publish(t.Context(), v2, 2); err != nil {
		t.Fatal(err)
	}
	if err := d.rollout(t.Context(), "update-1", v2, "", []rollout.Wave{{Soak: 1, Deadline: 90}}); err != nil {
		t.Fatalf("%v\n%s", err, tail(filepath.Join(away.dir, "agent.log")))
	}
	for _, a := range d.agents {
		if ok, saw := d.waitWorks(t.Context(), a.id, v2); !ok {
			t.Errorf("%s: %s\n%s", a.id, saw, tail(filepath.Join(a.dir, "agent.log")))
		}
	}
	if err := d.verify(t.Context()); err != nil {
		t.Error(err)
	}
}
