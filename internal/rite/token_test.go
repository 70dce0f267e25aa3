//go:build cgo

package rite

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/keys/pkcs11"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/suite"
)

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// hsm gives tokens to a ceremony: SoftHSM's, as they are or cut off at an act.
type hsm struct {
	t   *testing.T
	lib *pkcs11.Library
	cut string // act after which the program dies: made or destroyed
}

func newHSM(t *testing.T, labels ...string) *hsm {
	t.Helper()
	if _, err := os.Stat(softHSM); err != nil {
		t.Skip("SoftHSM is not installed: apt-get install softhsm2")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", dir), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	for _, l := range labels {
		pin := "1234-" + l
		if out, err := exec.CommandContext(t.Context(), "softhsm2-util", "--init-token", "--free", "--label", l, "--pin", pin, "--so-pin", "87654321").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	lib, err := pkcs11.Load(softHSM)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lib.Close() }) // a second time, where a test did it before
	return &hsm{t: t, lib: lib}
}

// session opens tokens for one run of the program, and closes them when the test has gone on.
func (h *hsm) session(o Options) (Options, func()) {
	var open []*pkcs11.Store
	o.Token = func(c ceremony.Token, pin string) (Token, error) {
		s, err := h.lib.Open(c.Token, []byte(pin))
		if err != nil {
			return nil, err
		}
		open = append(open, s)
		return mortal{s, h}, nil
	}
	return o, func() {
		h.t.Helper()
		for _, s := range open {
			if err := s.Close(); err != nil {
				h.t.Error(err)
			}
		}
	}
}

func (h *hsm) run(o Options, d Desk) (Done, error) {
	h.t.Helper()
	o, end := h.session(o)
	defer end()
	return Run(h.t.Context(), o, d)
}

// mortal is a token of a program that dies right after an act.
type mortal struct {
	Token
	h *hsm
}

var errDied = errors.New("the program died")

func (m mortal) Generate(name string, id suite.ID) (crypto.Signer, error) {
	s, err := m.Token.Generate(name, id)
	if err == nil && m.h.cut == "made" {
		return nil, errDied
	}
	return s, err
}

func (m mortal) Destroy(ctx context.Context, name string) error {
	err := m.Token.Destroy(ctx, name)
	if err == nil && m.h.cut == "destroyed" {
		return errDied
	}
	return err
}

// inTokens plans a first ceremony with the root in alice's token, where her own key is too, and bob's key in his.
func inTokens(t *testing.T, change func(*ceremony.Script)) (Options, ceremony.Brought) {
	t.Helper()
	request := instanceRequest(t)
	c := cast()
	alice, bob := ceremony.Token{Module: softHSM, Token: "alice"}, ceremony.Token{Module: softHSM, Token: "bob"}
	c.Tokens = map[string]ceremony.Token{"alice": alice, "bob": bob}
	c.RootHolder, c.RootToken = "alice", &alice
	s, err := ceremony.PlanFirst("acme-first", request, c)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&s)
	}
	return place(t, s, request), request
}

func TestKeysAreMadeAndUsedInTokens(t *testing.T) {
	h := newHSM(t, "alice", "bob")
	o, request := inTokens(t, nil)
	d := &table{}
	done, err := h.run(o, d)
	if err != nil {
		t.Fatal(err)
	}
	checkFirst(t, answerOf(t, done), request, o.Script)
	for _, name := range []string{"oem-root", "approver-alice", "approver-bob"} {
		if _, err := os.Stat(filepath.Join(o.Dir, dirKeys, name)); err == nil {
			t.Errorf("%s is in a file", name)
		}
	}
	if said := strings.Join(d.said, "\n"); !strings.Contains(said, "in token alice: SoftHSM project SoftHSM v2, serial number ") {
		t.Errorf("where the keys are was not told:\n%s", said)
	}
	found := false
	for _, st := range done.Transcript.Steps {
		found = found || st.Key == "oem-root" && strings.HasPrefix(st.Note, "in token alice")
	}
	if !found {
		t.Error("the transcript does not say where the root is")
	}
}

// Wherever somebody leaves, with whatever tokens, it goes on there.
func TestACeremonyWithTokensMayBeLeftAtAnyMoment(t *testing.T) {
	h := newHSM(t, "alice", "bob")
	o, _ := inTokens(t, nil)
	whole := &table{}
	if _, err := h.run(o, whole); err != nil {
		t.Fatal(err)
	}
	_ = h.lib.Close()
	for n := 1; n <= whole.asked; n += 7 {
		h := newHSM(t, "alice", "bob")
		o, request := inTokens(t, nil)
		if _, err := h.run(o, &table{leave: n}); !errors.Is(err, errLeft) {
			t.Fatalf("left at %d: %v", n, err)
		}
		done, err := h.run(o, &table{})
		if err != nil {
			t.Fatalf("left at %d, and went on: %v", n, err)
		}
		checkFirst(t, answerOf(t, done), request, o.Script)
		_ = h.lib.Close()
	}
}

func TestAProgramThatDiesInATokenGoesOn(t *testing.T) {
	spare := func(s *ceremony.Script) {
		s.Keys = append(s.Keys, ceremony.Key{Name: "spare", Holders: []string{"bob"}, PKCS11: &ceremony.Token{Module: softHSM, Token: "bob"}})
		s.Steps = append(s.Steps, ceremony.Step{Do: ceremony.DoMakeKey, Key: "spare"}, ceremony.Step{Do: ceremony.DoDestroy, Key: "spare"})
	}
	for _, act := range []string{"made", "destroyed"} {
		h := newHSM(t, "alice", "bob")
		o, request := inTokens(t, spare)
		h.cut = act
		for deaths := 0; ; deaths++ {
			done, err := h.run(o, &table{})
			if errors.Is(err, errDied) && deaths < 9 {
				continue
			}
			if err != nil || deaths == 0 {
				t.Fatalf("%s: after %d deaths: %v", act, deaths, err)
			}
			checkFirst(t, answerOf(t, done), request, o.Script)
			break
		}
		s, err := h.lib.Open("bob", []byte("1234-bob"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Signer("spare"); !errors.Is(err, pkcs11.ErrNoKey) {
			t.Errorf("%s: the key that was to be destroyed: %v", act, err)
		}
		if err := errors.Join(s.Close(), h.lib.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestTokensThatEndACeremony(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*hsm)
		want   string
	}{
		"a key that was there before": {func(h *hsm) {
			s, err := h.lib.Open("alice", []byte("1234-alice"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.GenerateP256("oem-root"); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}, "has a key called oem-root that this ceremony did not make"},
		"another token": {func(h *hsm) {
			if out, err := exec.CommandContext(t.Context(), "softhsm2-util", "--delete-token", "--token", "alice").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}, `no token labelled "alice"`},
	} {
		h := newHSM(t, "alice", "bob")
		c.before(h)
		_ = h.lib.Close()
		h2 := &hsm{t: t}
		var err error
		if h2.lib, err = pkcs11.Load(softHSM); err != nil {
			t.Fatal(err)
		}
		o, _ := inTokens(t, nil)
		if _, err := h2.run(o, &table{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		_ = h2.lib.Close()
	}
}

// A rehearsal comes near no real token.
func TestARehearsalOpensNoToken(t *testing.T) {
	o, _ := inTokens(t, nil)
	o.Rehearsal = true
	o.Token = func(ceremony.Token, string) (Token, error) {
		t.Error("a token was opened")
		return nil, errDied
	}
	if _, err := Run(t.Context(), o, &table{}); err != nil {
		t.Fatal(err)
	}
}
