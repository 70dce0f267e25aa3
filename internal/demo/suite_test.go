package demo

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// successors are approvers with keys of a suite, under the names of those before, in a directory of their own.
func (m maker) successors(id suite.ID) (*soft.Store, []crypto.Signer, [][]byte) {
	m.t.Helper()
	store, err := soft.Create(filepath.Join(m.t.TempDir(), "offline"), "pass", 1000)
	if err != nil {
		m.t.Fatal(err)
	}
	var keys []crypto.Signer
	var ders [][]byte
	for _, name := range []string{"alice", "bob", "carol"} {
		k, err := store.Generate("approver-"+name, id)
		if err != nil {
			m.t.Fatal(err)
		}
		der, err := wire.SPKIOf(k.Public())
		if err != nil {
			m.t.Fatal(err)
		}
		keys, ders = append(keys, k), append(ders, der)
	}
	return store, keys, ders
}

func (m maker) rotatedTo(role keyring.Role, id suite.ID) keyring.Key {
	m.t.Helper()
	k, err := m.people["admin"].RotateKey(m.t.Context(), role, string(id), "another suite")
	if err != nil {
		m.t.Fatal(err)
	}
	return k
}

// One campaign moves a whole fleet to another suite: a trust bundle with both, then one with the new alone. The devices change their keys, take only
// what is signed in the new suite from then on, and their chains of custody hold throughout.
func TestAFleetMovesToAnotherSuite(t *testing.T) {
	if testing.Short() || os.Getenv("HALLMARK_LONG") == "" {
		t.Skip("plays whole lives, for minutes: set HALLMARK_LONG=1")
	}
	bin := programs(t)
	for _, id := range []suite.ID{suite.P384, suite.MLDSA44} {
		t.Run(string(id), func(t *testing.T) { moves(t, bin, id) })
	}
}

func moves(t *testing.T, bin string, id suite.ID) {
	d := plan(Options{Devices: 3, Out: io.Discard, programs: bin})
	d.dir = t.TempDir()
	t.Cleanup(d.stopAll)
	for _, chapter := range []func(context.Context) error{d.build, d.instance, d.firstRelease, d.produce, d.field} {
		if err := chapter(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, tail(filepath.Join(d.dir, "server.log")))
		}
	}
	m := maker{d, t}
	alice, bob := m.approver("alice"), m.approver("bob")
	store, people, keys := m.successors(id)
	directive, order := m.rotatedTo(keyring.Directive, id), m.rotatedTo(keyring.Order, id)

	m.next(func(b *wire.Bundle) {
		b.Suites = []string{string(suite.P256), string(id)}
		b.Directive.Keys = append(b.Directive.Keys, directive.SPKI)
		b.Orders.Keys = append(b.Orders.Keys, order.SPKI)
		for _, role := range []*wire.KeySet{&b.Root, &b.Release, &b.Warrant} {
			role.Keys = append(role.Keys, keys...)
		}
	}, alice, bob)
	m.reach(2, 3)
	m.next(func(b *wire.Bundle) {
		b.Suites = []string{string(id)}
		b.Directive.Keys, b.Orders.Keys = [][]byte{directive.SPKI}, [][]byte{order.SPKI}
		for _, role := range []*wire.KeySet{&b.Root, &b.Release, &b.Warrant} {
			role.Keys = keys
		}
	}, alice, people[0], people[1])
	m.reach(3, 3)
	m.signIn(id, 3)
	if err := m.retired("directive", false); err != nil {
		t.Fatal(err)
	}

	if err := d.publish(t.Context(), v2, 2); client.Code(err) != "release.signature" {
		t.Errorf("a release approved by keys of the suite before: %v", err)
	}
	d.offline = store
	if err := d.publish(t.Context(), v2, 2); err != nil {
		t.Fatal(err)
	}
	if err := d.rollout(t.Context(), "update-1", v2, "", []rollout.Wave{{Soak: 1, Deadline: 90}}); err != nil {
		t.Fatal(err)
	}
	for _, a := range d.agents {
		if ok, saw := d.waitWorks(t.Context(), a.id, v2); !ok {
			t.Errorf("%s: %s\n%s", a.id, saw, tail(filepath.Join(a.dir, "agent.log")))
		}
	}
	if err := d.verify(t.Context()); err != nil {
		t.Error(err)
	}
	m.custody(d.agents[0].id, id)
}

// signIn waits until n devices sign their evidence in a suite.
func (m maker) signIn(id suite.ID, n int) {
	m.t.Helper()
	ok, saw := wait(m.t.Context(), 90*time.Second, func() (bool, string) {
		s, err := m.people["olga"].BundleStatus(m.t.Context(), productID)
		return err == nil && len(s.Suites) == 1 && s.Suites[0].Suite == string(id) && s.Suites[0].Devices == n, observed(err, fmt.Sprintf("%+v", s.Suites))
	})
	if !ok {
		m.t.Fatalf("%s\n%s\n%s", saw, tail(filepath.Join(m.agents[0].dir, "agent.log")), tail(filepath.Join(m.dir, "server.log")))
	}
}

// custody has the device's chain of custody checked by the program that anybody has.
func (m maker) custody(device string, id suite.ID) {
	m.t.Helper()
	token, err := os.ReadFile(m.layout.AdminToken())
	if err != nil {
		m.t.Fatal(err)
	}
	var out string
	ok, saw := wait(m.t.Context(), 30*time.Second, func() (bool, string) {
		cmd := exec.CommandContext(m.t.Context(), m.bin.hallmark, "log", "trace", device, "--trust", filepath.Join(m.layout.Dir, "log", "trust.json"), "--url", m.console)
		cmd.Env = append(os.Environ(), "HALLMARK_TOKEN="+string(token))
		b, err := cmd.CombinedOutput()
		out = string(b)
		if _, ok := errors.AsType[*exec.ExitError](err); ok || err != nil {
			return false, out
		}
		return strings.Contains(out, "of suite "+string(id)), out
	})
	if !ok {
		m.t.Errorf("chain of custody: %s", saw)
	}
}
