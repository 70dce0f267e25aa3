package store_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/release/delta"
	"github.com/hallmark-iot/hallmark/wire"
)

// program is one of some size: versions of it are much alike.
func program(version string) string {
	b := make([]byte, 40_000)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return version + string(b)
}

// publishes publishes a release of one program.
func (s *stages) publishes(version, bytes string) release.Release {
	s.t.Helper()
	s.now = s.now.Add(time.Minute)
	a := s.upload(bytes)
	spec := s.spec(version)
	spec.Components[0].Artifact = a.Digest[:]
	r, err := s.releases.Propose(s.t.Context(), person("proposer"), spec)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.agreed(r)
}

// deltas makes all that are wanted, and gives those to a release.
func (s *stages) deltas(to release.Release) []release.Delta {
	s.t.Helper()
	for {
		made, err := s.releases.MakeDelta(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		if !made {
			break
		}
	}
	all, err := s.releases.ListDeltas(s.t.Context(), person("someone"), to.Digest)
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// artifact gives what a device is served by a digest.
func (s *stages) artifact(id string, digest []byte) ([]byte, error) {
	_, f, err := s.releases.Open(s.t.Context(), access.DeviceCaller(id), "", [32]byte(digest))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(f)
}

func TestDeltasAreMadeOfWhatDevicesAreLikelyToRun(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	var all []release.Release
	for _, v := range []string{"1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0"} {
		all = append(all, s.publishes(v, program(v)))
	}
	s.make(devN(0), all[0]) // a third of the fleet is far behind
	s.make(devN(1), all[4])
	s.make(devN(2), all[4])
	s.now = s.now.Add(time.Minute)
	last := s.publishes("2.0.0", program("2.0.0"))
	got := map[string]bool{}
	for _, d := range s.deltas(last) {
		got[d.Of] = true
		if d.State != release.DeltaMade || d.Size == 0 || d.Size > d.Whole/10 || d.Name != "app" {
			t.Errorf("%+v", d)
		}
		bytes, err := s.artifact(devN(0), d.Digest)
		if err != nil || uint64(len(bytes)) != d.Size {
			t.Fatalf("it is served %d bytes, %v", len(bytes), err)
		}
		if err := delta.Check([]byte(program(d.Of)), []byte(program("2.0.0")), strings.NewReader(string(bytes))); err != nil {
			t.Error(err)
		}
	}
	if len(got) != 4 || !got["1.0.0"] || !got["1.3.0"] || !got["1.4.0"] || !got["1.5.0"] {
		t.Errorf("made of %v", got)
	}
}

// delivered gives the delivery of an order to a device that runs a release and says what it knows.
func (s *stages) delivered(id string, runs release.Release, knows ...string) wire.Delivery {
	s.t.Helper()
	s.boots[id]++
	r, err := s.devices.Checkin(s.t.Context(), access.DeviceCaller(id), id, wire.Checkin{
		Nonce: bytes.Repeat([]byte{9}, 32), State: "active", BootCount: s.boots[id], Healthy: true, Release: runs.Digest[:], Version: runs.Manifest.Version, Bundle: 1, Knows: knows,
	})
	if err != nil || r.Delivery == nil {
		s.t.Fatalf("%+v, %v", r, err)
	}
	d, err := wire.DecodeDelivery(r.Delivery)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// A device is told of what it can use. One that says nothing of itself would refuse the whole delivery.
func TestADeviceIsToldOfTheFormsThatItKnows(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	one, two := s.publishes("1.0.0", program("1.0.0")), s.publishes("2.0.0", program("2.0.0"))
	other := s.publishes("1.5.0-other", strings.Repeat("something else", 4000))
	s.make(devN(0), one)
	if _, err := s.devices.Command(t.Context(), access.Internal("test"), device.Instruction{
		Product: "pump", Act: wire.ActInstall, Devices: []string{devN(0)}, Release: two.Digest[:], Reason: "new",
	}); err != nil {
		t.Fatal(err)
	}
	if d := s.delivered(devN(0), one, wire.FormDelta); len(d.Forms) != 0 {
		t.Errorf("before any is made it is told of %+v", d.Forms)
	}
	all := s.deltas(two)
	if len(all) != 1 || all[0].State != release.DeltaMade {
		t.Fatalf("%+v", all)
	}
	want := wire.Form{Component: two.Manifest.Components[0].Digest, Kind: wire.FormDelta, Digest: all[0].Digest, Size: all[0].Size, From: one.Manifest.Components[0].Digest}
	for name, c := range map[string]struct {
		runs  release.Release
		knows []string
		forms int
	}{
		"who knows them":               {one, []string{wire.FormDelta, "other"}, 1},
		"a device of yesterday":        {one, nil, 0},
		"who knows something else":     {one, []string{"delta2"}, 0},
		"who runs something else":      {other, []string{wire.FormDelta}, 0},
		"who runs nothing":             {release.Release{}, []string{wire.FormDelta}, 0},
		"who runs what it is to bring": {two, []string{wire.FormDelta}, 0},
	} {
		d := s.delivered(devN(0), c.runs, c.knows...)
		if len(d.Forms) != c.forms || c.forms == 1 && !equalForm(d.Forms[0], want) {
			t.Errorf("%s is told of %+v", name, d.Forms)
		}
	}
}

func equalForm(a, b wire.Form) bool {
	return bytes.Equal(a.Component, b.Component) && a.Kind == b.Kind && bytes.Equal(a.Digest, b.Digest) && a.Size == b.Size && bytes.Equal(a.From, b.From)
}

// Only a device of the product is served a delta, and only for as long as its release is published.
func TestADeltaIsServedLikeWhatItGives(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	one, two := s.publishes("1.0.0", program("1.0.0")), s.publishes("2.0.0", program("2.0.0"))
	s.make(devN(0), one)
	all := s.deltas(two)
	if _, err := s.artifact(devN(0), all[0].Digest); err != nil {
		t.Error(err)
	}
	if _, err := s.artifact(devN(1), all[0].Digest); fault.KindOf(err) != fault.NotFound {
		t.Errorf("who is no device of the product: %v", err)
	}
	if _, err := s.releases.Withdraw(t.Context(), person("proposer"), two.Digest, "it leaks"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.artifact(devN(0), all[0].Digest); fault.KindOf(err) != fault.NotFound {
		t.Errorf("of a release that was withdrawn: %v", err)
	}
}

func TestADeltaThatIsNotWorthItIsNotKept(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	s.publishes("1.0.0", program("1.0.0"))
	noise := make([]byte, 30_000)
	rand.NewChaCha8([32]byte{2}).Read(noise)
	two := s.publishes("2.0.0", string(noise))
	if all := s.deltas(two); len(all) != 1 || all[0].State != release.DeltaUseless || all[0].Digest != nil || !strings.Contains(all[0].Text, "of 30000") {
		t.Errorf("%+v", all)
	}
}

// What cannot be made is tried again, then said, and made when somebody asks for it and it can be.
func TestADeltaThatFailsIsSaid(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	one := s.publishes("1.0.0", program("1.0.0"))
	name := hex.EncodeToString(one.Manifest.Components[0].Digest)
	var path string
	if err := filepath.Walk(s.dir, func(p string, i os.FileInfo, err error) error {
		if err == nil && strings.HasSuffix(p, name[4:]) {
			path = p
		}
		return err
	}); err != nil || path == "" {
		t.Fatalf("where is %s: %v", name, err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	two := s.publishes("2.0.0", program("2.0.0"))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if all := s.deltas(two); len(all) != 1 || all[0].State != release.DeltaFailed || all[0].Tries != 3 || !strings.Contains(all[0].Text, name[:16]) {
		t.Fatalf("%+v", all)
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.releases.WantDeltas(t.Context(), person("proposer"), two.Digest, one.Digest); err != nil {
		t.Fatal(err)
	}
	if all := s.deltas(two); len(all) != 1 || all[0].State != release.DeltaMade || all[0].Text != "" {
		t.Errorf("%+v", all)
	}
	if _, err := s.releases.WantDeltas(t.Context(), person("proposer"), two.Digest, two.Digest); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a delta of itself: %v", err)
	}
}

// Who asks for one delta before the loop has looked takes nothing from those that are made without being asked.
func TestADeltaThatIsAskedForIsOneMore(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	var all []release.Release
	for _, v := range []string{"1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"} {
		all = append(all, s.publishes(v, program(v)))
	}
	last := s.publishes("2.0.0", program("2.0.0"))
	if _, err := s.releases.WantDeltas(t.Context(), person("proposer"), last.Digest, all[0].Digest); err != nil {
		t.Fatal(err)
	}
	if got := s.deltas(last); len(got) != 4 {
		t.Errorf("%d deltas, want that of 1.0.0 and of the three before: %+v", len(got), got)
	}
}

// A step may be done twice, by two nodes of which one was cut off.
func TestWhatIsWantedTwiceIsMadeOnce(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	one, two := s.publishes("1.0.0", program("1.0.0")), s.publishes("2.0.0", program("2.0.0"))
	made := s.deltas(two)
	wanted, err := s.releases.WantDeltas(t.Context(), person("proposer"), two.Digest, one.Digest)
	if err != nil || len(wanted) != 1 || wanted[0].State != release.DeltaMade || !bytes.Equal(wanted[0].Digest, made[0].Digest) {
		t.Errorf("%+v, %v", wanted, err)
	}
	if _, err := s.db.Releases().NextDelta(t.Context()); !errors.Is(err, release.ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.db.Releases().Unplanned(t.Context()); !errors.Is(err, release.ErrNotFound) {
		t.Error(err)
	}
}

// errKilled is what ends a process in the middle of the making of a delta, as the machine does when it takes more memory than there is.
var errKilled = errors.New("killed")

type killing struct{ release.Blobs }

func (killing) Open(context.Context, [32]byte) (io.ReadSeekCloser, error) { panic(errKilled) }

// A delta that the process is killed for is begun three times, and then left.
func TestADeltaThatIsKilledForIsLeft(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	one, two := s.publishes("1.0.0", program("1.0.0")), s.publishes("2.0.0", program("2.0.0"))
	rel, dev := s.db.Releases(), s.db.Devices()
	node, err := release.NewService(release.Config{
		Supply: s.supply, Store: rel, Artifacts: rel, Deltas: rel, Blobs: killing{}, Protector: s.protect, Products: rel, Trust: dev, Ledger: s.ledger, Commands: recaller{s}, Guard: s.guard,
		Now: func() time.Time { return s.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	begun := 0
	again := func() (more bool) {
		defer func() {
			if e := recover(); e != nil {
				if err, ok := e.(error); !ok || !errors.Is(err, errKilled) {
					panic(e)
				}
				begun, more = begun+1, begun < 10
			}
		}()
		more, err = node.MakeDelta(t.Context())
		return more
	}
	for again() {
	}
	if err != nil || begun != 3 {
		t.Errorf("it was begun %d times: %v", begun, err)
	}
	if all := s.deltas(two); len(all) != 1 || all[0].State != release.DeltaFailed || !strings.Contains(all[0].Text, "memory") {
		t.Errorf("%+v", all)
	}
	if _, err := s.releases.WantDeltas(t.Context(), person("proposer"), two.Digest, one.Digest); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop() // a node that is told to end has nothing against it
	if _, err := s.releases.MakeDelta(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if all := s.deltas(two); len(all) != 1 || all[0].State != release.DeltaMade || all[0].Tries != 0 {
		t.Errorf("asked for again: %+v", all)
	}
}

// What devices are given of deltas is counted, and stored now and then: by ranges as whole, by devices alone, on all nodes together. What cannot be stored is counted on.
func TestWhatDeltasSaveIsCounted(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	one, two := s.publishes("1.0.0", program("1.0.0")), s.publishes("2.0.0", program("2.0.0"))
	s.make(devN(0), one)
	d := s.deltas(two)[0]
	for range 2 {
		if _, err := s.artifact(devN(0), d.Digest); err != nil {
			t.Fatal(err)
		}
	}
	_, f, err := s.releases.Open(t.Context(), access.DeviceCaller(devN(0)), "", [32]byte(d.Digest))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(-10, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, f); n != 10 || err != nil {
		t.Fatal(n, err)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	if _, err := s.artifact(devN(0), two.Manifest.Components[0].Digest); err != nil { // whole: it saves nothing
		t.Fatal(err)
	}
	given := func() release.Delta {
		t.Helper()
		all, err := s.releases.ListDeltas(t.Context(), person("a"), two.Digest)
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		return all[0]
	}
	if got := given(); got.Given != 0 || got.Saved() != 0 {
		t.Errorf("a request writes: %+v", got)
	}
	over, stop := context.WithCancel(t.Context())
	stop()
	if err := s.releases.Flush(over); err == nil {
		t.Fatal("it is stored after the end")
	}
	for range 2 { // the second has nothing to store
		if err := s.releases.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := 2*d.Size + 10
	if got := given(); got.Given != want || got.Saved() < 2*(d.Whole-d.Size) || got.Saved() > 3*(d.Whole-d.Size) {
		t.Errorf("%d bytes were given and %d saved, want %d, and two deltas' of %d of %d", got.Given, got.Saved(), want, d.Size, d.Whole)
	}
	if err := s.db.Releases().Gave(t.Context(), []release.Given{{Product: "pump", Digest: [32]byte(d.Digest), Bytes: 7}, {Product: "valve", Digest: [32]byte(d.Digest), Bytes: 1}}); err != nil { // another node
		t.Fatal(err)
	}
	if got := given(); got.Given != want+7 {
		t.Errorf("of two nodes it is %d, want %d", got.Given, want+7)
	}
}
