package store_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/window"
)

// published takes a release through its whole approval, after a change to what it is proposed with.
func (s *stages) published(version string, change func(spec *release.Spec)) release.Release {
	s.t.Helper()
	spec := s.spec(version)
	change(&spec)
	r, err := s.releases.Propose(s.t.Context(), person("proposer"), spec)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.agreed(r)
}

// A rollout does not address who would refuse: a device that runs what the release is not installed over, and one whose security counter is above it; and where the
// trust bundle has closed the release, nobody is addressed at all.
func TestARolloutDoesNotAddressWhoWouldRefuse(t *testing.T) {
	r := newRoll(t, 4)
	counted := func(n uint32, over ...wire.VersionRange) func(*release.Spec) {
		return func(s *release.Spec) { s.Counter, s.Over = n, over }
	}
	between := r.published("1.2.0", counted(2))
	newest := r.published("2.0.0", counted(2, wire.VersionRange{From: "1.2.0"}))
	secure := r.published("1.9.0", counted(5))
	r.says(devN(0), between, true, false, nil)
	r.says(devN(1), secure, true, false, nil)
	plan := func(rel release.Release) (rollout.Resolved, error) {
		spec := twoWaves("r1", rel)
		spec.Canaries = nil
		return r.svc.DryRun(t.Context(), person("op"), spec)
	}
	got, err := plan(newest)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Members) != 1 || got.Members[0].Device != devN(0) || got.LeftOut["stepping stone"] != 2 || got.LeftOut["counter"] != 1 {
		t.Errorf("%+v", got)
	}
	if why := got.Skipped[devN(2)]; !strings.Contains(why, "runs 1.0.0") || !strings.Contains(why, "from 1.2.0") {
		t.Errorf("device 2 %s", why)
	}
	if why := got.Skipped[devN(1)]; !strings.Contains(why, "security counter 5, and the release has 2") {
		t.Errorf("device 1 %s", why)
	}
	r.closes(2, 3)
	if _, err := plan(newest); codeOf(err) != "rollout.closed" {
		t.Errorf("a release that is closed: %v", err)
	}
	if _, err := r.svc.Create(t.Context(), person("op"), twoWaves("r2", between)); codeOf(err) != "rollout.closed" {
		t.Errorf("a release that is closed is to be rolled out: %v", err)
	}
	if got, err := plan(secure); err != nil || len(got.Members) != 3 {
		t.Errorf("the one that mends it: %+v, %v", got, err)
	}
}

// Nobody proposes, or publishes, what every device would refuse.
func TestNobodyProposesWhatIsClosed(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	early, err := s.releases.Propose(t.Context(), person("proposer"), s.spec("1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	s.closes(2, early.Manifest.Counter+1)
	for i, name := range []string{"alice", "bob"} {
		if _, err := s.releases.Approve(t.Context(), person(name), early.Digest, s.sign(wire.TypeRelease, early.Payload, i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.releases.Publish(t.Context(), person("proposer"), early.Digest); codeOf(err) != "release.closed" {
		t.Errorf("published: %v", err)
	}
	if _, err := s.releases.Propose(t.Context(), person("proposer"), s.spec("1.1.0")); codeOf(err) != "release.closed" {
		t.Errorf("proposed: %v", err)
	}
	spec := s.spec("1.2.0")
	spec.Counter = early.Manifest.Counter + 1
	if _, err := s.releases.Propose(t.Context(), person("proposer"), spec); err != nil {
		t.Errorf("the one that mends it: %v", err)
	}
}

// A release is closed once, by who may publish: it is withdrawn, what devices were told of it and have not done is cancelled, and it says what the next trust bundle has
// to. Devices that run it go on, and are counted. Done again, it completes what broke off, and is no other fact.
func TestAReleaseIsClosed(t *testing.T) {
	r := newRoll(t, 4)
	ctx := t.Context()
	for i := range 2 {
		r.says(devN(i), r.new, true, false, nil)
	}
	flawed, other := r.published("1.2.0", func(*release.Spec) {}), r.published("1.3.0", func(*release.Spec) {})
	told := func(rel release.Release, id string) string {
		t.Helper()
		cmd, err := r.devices.Command(ctx, access.Internal("test"), device.Instruction{Product: "pump", Act: wire.ActInstall, Devices: []string{id}, Release: rel.Digest[:], Reason: "new"})
		if err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	bad, good := told(flawed, devN(2)), told(other, devN(3))
	outstanding := func(id string) (out []string) {
		t.Helper()
		all, err := r.db.Devices().Outstanding(ctx, id, r.now)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			out = append(out, c.ID)
		}
		return out
	}
	closes := func(who access.Caller, digest [32]byte, reason, want string) release.Release {
		t.Helper()
		got, err := r.releases.Close(ctx, who, digest, reason)
		if codeOf(err) != want {
			t.Fatalf("%v, want %q", err, want)
		}
		return got
	}
	proposed, err := r.releases.Propose(ctx, person("proposer"), r.spec("9.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	closes(person("proposer"), proposed.Digest, "no", "release.status")
	closes(person("proposer"), flawed.Digest, "", "release.reason")
	closes(person("proposer"), [32]byte{1}, "what is not there", "release.unknown")
	closes(access.DeviceCaller(devN(0)), flawed.Digest, "a device", "access.denied")
	if got := outstanding(devN(2)); !slices.Contains(got, bad) {
		t.Fatalf("it is told %v", got)
	}
	for range 2 {
		got := closes(person("proposer"), flawed.Digest, "it leaks keys", "")
		if got.Status != release.Withdrawn || got.Closed.IsZero() || got.Install() != flawed.Manifest.Counter+1 || got.Reason != "it leaks keys" {
			t.Errorf("%+v", got)
		}
		if got := outstanding(devN(2)); slices.Contains(got, bad) {
			t.Errorf("it is still told %v", got)
		}
	}
	if got := outstanding(devN(3)); !slices.Contains(got, good) {
		t.Error("another release's command was cancelled")
	}
	if n := r.kinds(flawed.Manifest.ID)[string(ledger.KindReleaseClosed)]; n != 1 {
		t.Errorf("%d facts that it was closed", n)
	}
	if n := r.kinds(bad)[string(ledger.KindCommandCancelled)]; n != 1 {
		t.Errorf("%d facts that the command was cancelled", n)
	}
	status, err := r.devices.BundleStatus(ctx, person("sam"), "pump")
	if err != nil || status.Below(2) != 4 || status.Below(1) != 0 || len(status.Runs) != 1 {
		t.Errorf("%+v, %v", status.Runs, err)
	}

	// To withdraw it cancels as much; done again, it cancels what a crash left behind. One that was withdrawn can be closed as well.
	for range 2 {
		if _, err := r.releases.Withdraw(ctx, person("proposer"), other.Digest, "leaks memory"); err != nil {
			t.Fatal(err)
		}
		if got := outstanding(devN(3)); len(got) != 0 {
			t.Errorf("of what was withdrawn it is still told %v", got)
		}
		told(other, devN(3))
	}
	if n := r.kinds(good)[string(ledger.KindCommandCancelled)]; n != 1 {
		t.Errorf("%d facts that the command was cancelled", n)
	}
	if n := r.kinds(other.Manifest.ID)[string(ledger.KindReleaseWithdrawn)]; n != 1 {
		t.Errorf("%d facts that it was withdrawn", n)
	}
	if got := closes(person("proposer"), other.Digest, "and keys", ""); got.Reason != "and keys" || len(outstanding(devN(3))) != 0 {
		t.Errorf("%+v, told %v", got, outstanding(devN(3)))
	}
}

// A trust bundle under which what a device runs would not start again waits for as long as the device is told of a release that would; where nothing mends it, and where
// the device runs what is above, it comes as ever.
func TestWhatMendsADeviceComesBeforeTheFloorThatStopsIt(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	s.ledger.witnessed = true
	ctx := t.Context()
	old := s.publish("1.0.0")
	mended := s.published("2.0.0", func(spec *release.Spec) { spec.Counter = 3 })
	small := s.published("1.1.0", func(spec *release.Spec) { spec.Counter = 2 })
	for i := range 4 {
		s.make(devN(i), old)
	}
	s.bundleWith(2, func(b *wire.Bundle) { b.Floor = 3 })
	if err := s.devices.DistributeBundle(ctx, access.Internal("test"), "pump"); err != nil {
		t.Fatal(err)
	}
	tell := func(i int, rel release.Release) {
		t.Helper()
		if _, err := s.devices.Command(ctx, access.Internal("test"), device.Instruction{Product: "pump", Act: wire.ActInstall, Devices: []string{devN(i)}, Release: rel.Digest[:], Reason: "new"}); err != nil {
			t.Fatal(err)
		}
	}
	tell(1, mended)
	tell(2, small)
	tell(3, mended)
	asked := func(i int, rel release.Release, change func(in *wire.Checkin)) wire.Act {
		t.Helper()
		s.boots[devN(i)]++
		in := wire.Checkin{
			Nonce: bytes.Repeat([]byte{9}, 32), State: "active", BootCount: s.boots[devN(i)], Healthy: true, Release: rel.Digest[:], Version: rel.Manifest.Version, Bundle: 1,
		}
		change(&in)
		r, err := s.devices.Checkin(ctx, access.DeviceCaller(devN(i)), devN(i), in)
		if err != nil {
			t.Fatal(err)
		}
		if r.Delivery == nil {
			return ""
		}
		return actOf(t, r.Delivery)
	}
	same := func(*wire.Checkin) {}
	if act := asked(0, old, same); act != wire.ActBundle {
		t.Errorf("who is told of nothing else is told %q", act)
	}
	if act := asked(1, old, same); act != wire.ActInstall {
		t.Errorf("who is told of what mends it is told %q first", act)
	}
	if act := asked(1, old, func(in *wire.Checkin) { in.Progress = &wire.Progress{Done: 1, Of: 2} }); act != "" {
		t.Errorf("while that comes it is told %q", act)
	}
	if act := asked(1, mended, func(in *wire.Checkin) { in.Trial = true }); act == wire.ActInstall {
		t.Errorf("on trial it is told %q", act)
	}
	if act := asked(2, old, same); act != wire.ActBundle {
		t.Errorf("who is told of what does not mend it is told %q", act)
	}
	if _, err := s.releases.Withdraw(ctx, person("proposer"), mended.Digest, "it was not"); err != nil {
		t.Fatal(err)
	}
	if act := asked(3, old, same); act != wire.ActBundle {
		t.Errorf("who is told of what was withdrawn is told %q", act)
	}
}

// What would mend a device keeps the bundle from it only if it is given it now: an order that waits, or is never given, does not keep stolen keys believed.
func TestAnOrderThatIsNotGivenKeepsNoBundleBack(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	s.ledger.witnessed = true
	ctx := t.Context()
	old := s.publish("1.0.0")
	mended := s.published("2.0.0", func(spec *release.Spec) { spec.Counter = 3 })
	s.bundleWith(2, func(b *wire.Bundle) { b.Floor = 3 })
	ordered := s.published("2.1.0", func(spec *release.Spec) { spec.Counter = 3; inOrder(spec) })
	later := uint16((s.now.UTC().Hour()*60 + s.now.UTC().Minute() + 720) % 1440)
	cases := []struct {
		name  string
		told  func(in *device.Instruction)
		knows []string
		waits bool // the device says that it waits
		want  wire.Act
	}{
		{name: "may be carried, to who knows nothing of that", told: func(in *device.Instruction) { in.Alone = true }, want: wire.ActBundle},
		{name: "may be carried", told: func(in *device.Instruction) { in.Alone = true }, knows: []string{wire.KnowsCarton}, want: wire.ActInstall},
		{name: "consent that is asked for here", told: func(in *device.Instruction) { in.Manner = wire.Consent }, want: wire.ActBundle},
		{name: "consent, of who knows nothing of it", told: func(in *device.Instruction) { in.Manner, in.Kept = wire.Consent, []string{wire.KnowsManner} }, want: wire.ActBundle},
		{name: "consent", told: func(in *device.Instruction) { in.Manner, in.Kept = wire.Consent, []string{wire.KnowsManner} }, knows: []string{wire.KnowsManner}, want: wire.ActInstall},
		{name: "consent that it waits for", told: func(in *device.Instruction) { in.Manner, in.Kept = wire.Consent, []string{wire.KnowsManner} }, knows: []string{wire.KnowsManner}, waits: true, want: wire.ActBundle},
		{name: "an order of programs, to who knows none", told: func(in *device.Instruction) { in.Release = ordered.Digest[:] }, want: wire.ActBundle},
		{name: "an order of programs", told: func(in *device.Instruction) { in.Release = ordered.Digest[:] }, knows: []string{wire.KnowsAfter}, want: wire.ActInstall},
		{name: "other hours", told: func(in *device.Instruction) {
			in.Hours = &window.Hours{Window: window.Window{From: later, Minutes: 60}}
		}, want: wire.ActBundle},
	}
	for i := range cases {
		s.make(devN(i), old)
	}
	if err := s.devices.DistributeBundle(ctx, access.Internal("test"), "pump"); err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		in := device.Instruction{Product: "pump", Act: wire.ActInstall, Devices: []string{devN(i)}, Release: mended.Digest[:], Reason: "new", Valid: 90 * 24 * time.Hour}
		c.told(&in)
		if _, err := s.devices.Command(ctx, access.Internal("test"), in); err != nil {
			t.Fatal(err)
		}
		said := wire.Checkin{
			Nonce: bytes.Repeat([]byte{9}, 32), State: "active", BootCount: s.boots[devN(i)], Healthy: true, Release: old.Digest[:], Version: "1.0.0", Bundle: 1, Knows: c.knows,
		}
		if c.waits {
			told, err := s.db.Devices().Outstanding(ctx, devN(i), s.now)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range told {
				if x.Wire.Act == wire.ActInstall {
					said.Waits = &wire.Waits{For: "consent", Command: x.Digest[:], Since: uint64(s.now.Unix())}
				}
			}
		}
		r, err := s.devices.Checkin(ctx, access.DeviceCaller(devN(i)), devN(i), said)
		if err != nil {
			t.Fatal(err)
		}
		if r.Delivery == nil {
			t.Errorf("%s: it is told nothing", c.name)
		} else if act := actOf(t, r.Delivery); act != c.want {
			t.Errorf("%s: it is told %s, want %s", c.name, act, c.want)
		}
	}
}

// actOf reads what a delivery is about.
func actOf(t *testing.T, delivery []byte) wire.Act {
	t.Helper()
	d, err := wire.DecodeDelivery(delivery)
	if err != nil {
		t.Fatal(err)
	}
	o, err := wire.Parse1(wire.TypeDirective, d.Directive)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := wire.DecodeDirective(o.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return dir.Act
}

// That a release was closed is public, with what the trust bundle has to say; why is not.
func TestThatAReleaseWasClosedIsPublic(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	flawed := s.publish("1.0.0")
	if _, err := s.releases.Close(t.Context(), person("proposer"), flawed.Digest, "it leaks keys"); err != nil {
		t.Fatal(err)
	}
	facts := s.entriesOf(ledger.KindReleaseClosed)
	if len(facts) != 1 {
		t.Fatalf("%d facts", len(facts))
	}
	f, err := wire.DecodeFact(facts[0])
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		Release, ID string
		Install     uint32
	}
	if err := json.Unmarshal(f.Data, &said); err != nil || said.Release != hex.EncodeToString(flawed.Digest[:]) || said.ID != flawed.Manifest.ID || said.Install != 2 {
		t.Fatalf("%+v, %v", said, err)
	}
	if strings.Contains(string(f.Data), "leaks") {
		t.Error("the reason is public")
	}
}

// What was closed in the lost time is closed again, as it was.
func TestAReplayClosesReleasesAgain(t *testing.T) {
	r := newRig(t)
	r.grow(t, 5)
	at := time.UnixMilli(1_800_000_000_000).UTC()
	old := r.backup(t)
	m := wire.Release{
		ID: "pump-1", Product: "pump", Hardware: []string{"A"}, Model: wire.ModelBlob, Version: "1.0.0", Counter: 4, Created: 1,
		Components: []wire.Component{{Name: "app", Kind: wire.KindExec, Version: "1.0.0", Size: 1, Digest: make([]byte, 32), Health: wire.HealthAlive}},
	}
	payload, err := wire.EncodeRelease(m)
	if err != nil {
		t.Fatal(err)
	}
	rel := release.Release{Digest: wire.ReleaseDigest(payload), Manifest: m, Payload: payload, Status: release.Published, Created: at, Published: at, Rev: 1}
	for _, db := range []*store.DB{r.db, old} {
		if err := db.Releases().PutRelease(t.Context(), rel); err != nil {
			t.Fatal(err)
		}
	}
	data, err := json.Marshal(map[string]any{"release": hex.EncodeToString(rel.Digest[:]), "id": m.ID, "install": 5, "reason": "it leaks"})
	if err != nil {
		t.Fatal(err)
	}
	appendAll(t, r.db, oneLog(ledger.New(ledger.KindReleaseClosed, at.Add(time.Hour), "person:a", m.ID, nil, data))...)
	r.grow(t, 1)
	if err := old.Replay(t.Context(), ledger.Events, 5, r.entries(t, 5), map[ledger.Kind]store.Replayed{}); err != nil {
		t.Fatal(err)
	}
	got, err := old.Releases().Release(t.Context(), rel.Digest)
	if err != nil || got.Status != release.Withdrawn || !got.Closed.Equal(at.Add(time.Hour)) {
		t.Errorf("%s, closed %s, %v", got.Status, got.Closed, err)
	}
}
