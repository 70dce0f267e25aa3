package server_test

import (
	"context"
	"crypto"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/wire"
)

func unlocked(dir string) (server.Vault, error) { return soft.Open(dir, "pass") }

// offline answers a request with keys that were never on the server.
func offline(t *testing.T, request []byte, oem string) wire.CeremonyAnswer {
	t.Helper()
	store, err := soft.Create(t.TempDir(), "elsewhere", quick)
	if err != nil {
		t.Fatal(err)
	}
	var people []ceremony.Approver
	for _, name := range []string{"alice", "bob"} {
		k, err := store.GenerateP256(name)
		if err != nil {
			t.Fatal(err)
		}
		people = append(people, ceremony.Approver{Label: name, Key: k})
	}
	k, err := store.GenerateP256("root")
	if err != nil {
		t.Fatal(err)
	}
	root, err := pki.NewRoot(oem, k, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a, err := ceremony.Answer(request, root, people, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func prepared(t *testing.T) (l server.Layout, request []byte) {
	t.Helper()
	l = server.Layout{Dir: filepath.Join(t.TempDir(), "inst")}
	if _, err := server.Prepare(t.Context(), l, options(), vault); err != nil {
		t.Fatal(err)
	}
	request, err := os.ReadFile(l.Request())
	if err != nil {
		t.Fatal(err)
	}
	return l, request
}

func encoded(t *testing.T, a wire.CeremonyAnswer) []byte {
	t.Helper()
	data, err := wire.EncodeCeremonyAnswer(a)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func finish(t *testing.T, l server.Layout, answer []byte) error {
	t.Helper()
	_, err := server.Finish(t.Context(), l, answer, time.Now(), unlocked)
	return err
}

// The server never holds an offline key, and serves with what was made elsewhere.
func TestAnInstanceComesOfACeremonysAnswer(t *testing.T) {
	l, request := prepared(t)
	if _, err := open(t, l); err == nil {
		t.Error("an instance that waits for its ceremony was opened")
	}
	if _, err := server.Make(t.Context(), l, options(), vault); err == nil || !strings.Contains(err.Error(), "waits for its key ceremony") {
		t.Errorf("another was made over it: %v", err)
	}
	if err := finish(t, l, encoded(t, offline(t, request, options().Config.OEM))); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(l.Dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(path, "oem-root.key") || strings.Contains(path, "approver") || strings.Contains(path, "offline") {
			t.Errorf("%s is on the server", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	inst, err := open(t, l)
	if err != nil {
		t.Fatal(err)
	}
	if err := inst.Close(); err != nil {
		t.Fatal(err)
	}
	if err := finish(t, l, encoded(t, offline(t, request, options().Config.OEM))); err == nil {
		t.Error("finished twice")
	}
}

func TestAnswersThatMakeNoInstance(t *testing.T) {
	l, request := prepared(t)
	oem := options().Config.OEM
	good := offline(t, request, oem)
	_, foreign := prepared(t)
	for name, answer := range map[string][]byte{
		"no answer":          []byte("x"),
		"to another request": encoded(t, offline(t, foreign, oem)),
		"of a rehearsal":     encoded(t, func(a wire.CeremonyAnswer) wire.CeremonyAnswer { a.Rehearsal = true; return a }(good)),
		"a CA too few":       encoded(t, func(a wire.CeremonyAnswer) wire.CeremonyAnswer { a.Grants = a.Grants[1:]; return a }(good)),
		"CAs in another's place": encoded(t, func(a wire.CeremonyAnswer) wire.CeremonyAnswer {
			a.Grants = [][]byte{a.Grants[1], a.Grants[0], a.Grants[2]}
			return a
		}(good)),
		"no trust bundle":        encoded(t, func(a wire.CeremonyAnswer) wire.CeremonyAnswer { a.Bundle = nil; return a }(good)),
		"another's trust bundle": encoded(t, func(a wire.CeremonyAnswer) wire.CeremonyAnswer { a.Bundle = offline(t, foreign, oem).Bundle; return a }(good)),
		"under another root":     encoded(t, func(a wire.CeremonyAnswer) wire.CeremonyAnswer { a.Root = offline(t, request, oem).Root; return a }(good)),
	} {
		if err := finish(t, l, answer); err == nil {
			t.Errorf("%s: finished", name)
		}
	}
	if err := finish(t, l, encoded(t, good)); err != nil {
		t.Errorf("after all that, the right one: %v", err)
	}
}

// interrupted is a vault whose user leaves when the key of the control log is asked for.
type interrupted struct {
	server.Vault
	leave func()
}

func (v interrupted) Signer(name string) (crypto.Signer, error) {
	if name == "log-control" {
		v.leave()
	}
	return v.Vault.Signer(name)
}

// What an interrupted Finish has left is in nobody's way.
func TestAFinishThatWasInterruptedIsCalledAgain(t *testing.T) {
	l, request := prepared(t)
	answer := encoded(t, offline(t, request, options().Config.OEM))
	ctx, cancel := context.WithCancel(t.Context())
	opened := func(dir string) (server.Vault, error) {
		v, err := unlocked(dir)
		return interrupted{v, cancel}, err
	}
	if _, err := server.Finish(ctx, l, answer, time.Now(), opened); err == nil {
		t.Fatal("finished, though it was interrupted")
	}
	if _, err := os.Stat(l.Database()); err != nil {
		t.Fatalf("it had not begun: %v", err)
	}
	if _, err := open(t, l); err == nil {
		t.Error("what is half made was opened")
	}
	if err := finish(t, l, answer); err != nil {
		t.Fatal(err)
	}
	inst, err := open(t, l)
	if err != nil {
		t.Fatal(err)
	}
	if err := inst.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAPreparationThatFailsLeavesNothing(t *testing.T) {
	boom := errors.New("boom")
	parent := t.TempDir()
	l := server.Layout{Dir: filepath.Join(parent, "inst")}
	if _, err := server.Prepare(t.Context(), l, options(), func(string) (server.Vault, error) { return nil, boom }); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(parent); err != nil || len(names) != 0 {
		t.Errorf("left %v, %v", names, err)
	}
	o := options()
	o.Config.OEM, o.Product.OEM = "rehearsal.acme", "rehearsal.acme"
	if _, err := server.Prepare(t.Context(), l, o, vault); err == nil {
		t.Error("an instance of a rehearsal's maker")
	}
}
