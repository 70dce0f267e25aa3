package store_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/protect"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

// vault turns every bit around, and adds what for: enough to see that what is kept is not the key.
type vault struct{}

func (vault) Seal(label string, plain []byte) ([]byte, error) {
	out := []byte(label + "\x00")
	for _, b := range plain {
		out = append(out, ^b)
	}
	return out, nil
}

func (vault) Open(label string, sealed []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(sealed, []byte(label+"\x00"))
	if !ok {
		return nil, errors.New("sealed for something else")
	}
	out := make([]byte, len(rest))
	for i, b := range rest {
		out[i] = ^b
	}
	return out, nil
}

var recipe = []byte(strings.Repeat("the recipe that nobody may read\n", 5000))

// protected publishes a release of one protected program.
func (s *stages) protected(version string) release.Release {
	s.t.Helper()
	ctx := s.t.Context()
	a, err := s.releases.Upload(ctx, person("builder"), "pump", "app", true, bytes.NewReader(recipe))
	if err != nil {
		s.t.Fatal(err)
	}
	spec := s.spec(version)
	spec.Components[0].Artifact = a.Digest[:]
	r, err := s.releases.Propose(ctx, person("proposer"), spec)
	if err != nil {
		s.t.Fatal(err)
	}
	for i, name := range []string{"alice", "bob"} {
		if _, err := s.releases.Approve(ctx, person(name), r.Digest, s.sign(wire.TypeRelease, r.Payload, i)); err != nil {
			s.t.Fatal(err)
		}
	}
	if r, err = s.releases.Publish(ctx, person("proposer"), r.Digest); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// What is stored of a protected program is sealed, and the signed manifest has both digests; a device at work with good evidence opens it, with its own key
// alone.
func TestAProtectedProgramIsForGenuineDevices(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	ctx := t.Context()
	r := s.protected("1.0.0")
	c, sum := r.Manifest.Components[0], sha256.Sum256(recipe)
	if c.Protected == nil || !bytes.Equal(c.Protected.Digest, sum[:]) || c.Protected.Size != uint64(len(recipe)) || bytes.Equal(c.Digest, sum[:]) {
		t.Fatalf("the manifest says %+v", c)
	}
	if err := filepath.WalkDir(s.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, recipe[:64]) {
			t.Errorf("%s has it in the clear", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s.make(devN(0), r)
	own, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	asked := protect.Asked{Device: devN(0), Status: attest.Warning.String(), Release: r.Digest[:], Nonce: bytes.Repeat([]byte{3}, 32), CodeKey: own.PublicKey().Bytes()}
	wraps, err := s.protect.Give(ctx, access.DeviceCaller(devN(0)), asked)
	if err != nil || len(wraps) != 1 {
		t.Fatalf("%d keys, %v", len(wraps), err)
	}
	if n := s.kinds(devN(0))["code.keys.given"]; n != 1 {
		t.Errorf("%d facts of it", n)
	}
	key, err := wraps[0].Open(own, devN(0), asked.Nonce)
	if err != nil {
		t.Fatal(err)
	}
	_, sealed, err := s.releases.Open(ctx, access.DeviceCaller(devN(0)), "", [32]byte(c.Digest))
	if err != nil {
		t.Fatal(err)
	}
	defer sealed.Close()
	plain, err := wire.OpenComponent(sealed, key, c)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(plain); err != nil || !bytes.Equal(got, recipe) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	other, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wraps[0].Open(other, devN(1), asked.Nonce); err == nil {
		t.Error("another device opens it")
	}
}

// Who does not get a key: evidence that is not good, a device that is not at work, was stolen, or ended, one that measured what is not protected. None of it is a
// fact that a key was given.
func TestWhoGetsNoContentKey(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	ctx := t.Context()
	r, open := s.protected("1.0.0"), s.publish("0.9.0")
	own, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range []struct {
		what, code string
		events     []device.Event
		change     func(a *protect.Asked)
	}{
		{"contraindicated", "code.evidence", nil, func(a *protect.Asked) { a.Status = attest.Contraindicated.String() }},
		{"no verdict", "code.evidence", nil, func(a *protect.Asked) { a.Status = attest.None.String() }},
		{"nothing measured", "code.evidence", nil, func(a *protect.Asked) { a.Release = nil }},
		{"another release", "code.none", nil, func(a *protect.Asked) { a.Release = open.Digest[:] }},
		{"no point of the curve", "code.key", nil, func(a *protect.Asked) { a.CodeKey = make([]byte, wire.CodeKeySize) }},
		{"in quarantine", "code.state", []device.Event{device.Quarantine}, nil},
		{"retired", "code.state", []device.Event{device.Retire}, nil},
	} {
		id := devN(i)
		s.make(id, r)
		for _, ev := range x.events {
			if _, err := s.devices.Move(ctx, access.Internal("test"), id, ev, nil, "test"); err != nil {
				t.Fatalf("%s: %v", x.what, err)
			}
		}
		a := protect.Asked{Device: id, Status: attest.Affirming.String(), Release: r.Digest[:], Nonce: bytes.Repeat([]byte{3}, 32), CodeKey: own.PublicKey().Bytes()}
		if x.change != nil {
			x.change(&a)
		}
		keys, err := s.protect.Give(ctx, access.DeviceCaller(id), a)
		f, ok := errors.AsType[*fault.Fault](err)
		if !ok || f.Code != x.code || len(keys) != 0 {
			t.Errorf("%s: %d keys, %v; want %s", x.what, len(keys), err, x.code)
		}
		if n := s.kinds(id)["code.keys.given"]; n != 0 {
			t.Errorf("%s: %d facts that keys were given", x.what, n)
		}
	}
}

// An image is opened before it runs: its key is given to a device that is told to install it, and works well with what it runs; to no other, and not when it is told no more.
func TestAnImagesKeyIsForWhoIsToldToInstallIt(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	ctx := t.Context()
	runs := s.publish("1.0.0")
	a, err := s.releases.Upload(ctx, person("builder"), "pump", "root", true, bytes.NewReader(recipe))
	if err != nil {
		t.Fatal(err)
	}
	next := s.published("1.1.0", func(spec *release.Spec) {
		spec.Components = append(spec.Components, release.Component{
			Name: "root", Kind: wire.KindImage, Version: "1.1.0", Artifact: a.Digest[:], Health: wire.HealthNone, Laid: &wire.Laid{Size: 1, Digest: make([]byte, 32)},
		})
	})
	own, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		s.make(devN(i), runs)
		s.says(devN(i), runs, true, false, nil)
	}
	ask := func(i int, change func(a *protect.Asked)) ([]wire.Wrap, string) {
		t.Helper()
		asked := protect.Asked{Device: devN(i), Status: attest.Affirming.String(), Release: runs.Digest[:], Nonce: bytes.Repeat([]byte{3}, 32), CodeKey: own.PublicKey().Bytes()}
		if change != nil {
			change(&asked)
		}
		wraps, err := s.protect.Give(ctx, access.DeviceCaller(devN(i)), asked)
		return wraps, codeOf(err)
	}
	if _, code := ask(0, nil); code != "code.none" {
		t.Errorf("before it is told: %s", code)
	}
	c, err := s.devices.Command(ctx, access.Internal("test"), device.Instruction{Product: "pump", Rollout: "r1", Act: wire.ActInstall, Devices: []string{devN(0)}, Release: next.Digest[:], Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	wraps, code := ask(0, nil)
	if len(wraps) != 1 || code != "" {
		t.Fatalf("%d keys, %s", len(wraps), code)
	}
	key, err := wraps[0].Open(own, devN(0), bytes.Repeat([]byte{3}, 32))
	if err != nil {
		t.Fatal(err)
	}
	image, _ := next.Manifest.Image()
	_, sealed, err := s.releases.Open(ctx, access.DeviceCaller(devN(0)), "", [32]byte(image.Digest))
	if err != nil {
		t.Fatal(err)
	}
	defer sealed.Close()
	plain, err := wire.OpenComponent(sealed, key, image)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(plain); err != nil || !bytes.Equal(got, recipe) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, code := ask(1, nil); code != "code.none" {
		t.Errorf("who is not told: %s", code)
	}
	if _, code := ask(0, func(a *protect.Asked) { a.Status = attest.Contraindicated.String() }); code != "code.evidence" {
		t.Errorf("with bad evidence: %s", code)
	}
	if _, code := ask(0, func(a *protect.Asked) { a.Release = next.Digest[:] }); code != "" {
		t.Errorf("of the release on trial, while it is told still: %s", code)
	}
	if err := s.devices.CancelCommand(ctx, person("olga"), c, "test"); err != nil {
		t.Fatal(err)
	}
	if _, code := ask(0, nil); code != "code.none" {
		t.Errorf("when it is told no more: %s", code)
	}
}
