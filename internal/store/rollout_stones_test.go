package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// over1 makes a release one that is installed over a version and later, and that may be left for another.
func over1(back release.Release, from string) func(*release.Spec) {
	return func(s *release.Spec) {
		s.Over, s.RollbackTo = []wire.VersionRange{{From: from}}, [][]byte{back.Digest[:]}
	}
}

// stonyRoll has four devices that run 1.0.0, but for the first, which runs the stepping stone 2.5.0 already; 3.0.0 is installed over 2.5.0 and later.
func stonyRoll(t *testing.T) (r *roll, stone, last release.Release, spec rollout.Spec) {
	r = newRoll(t, 4)
	stone = r.publish("2.5.0", r.old)
	last = r.published("3.0.0", over1(stone, "2.5.0"))
	r.says(devN(0), stone, true, false, nil)
	spec = twoWaves("r1", last)
	spec.Canaries, spec.Stones = []string{devN(1)}, true
	return r, stone, last, spec
}

// takes has a device do what it was told last: to install a release. It is healthy with it, or not.
func (r *roll) takes(id string, want release.Release, healthy bool) {
	r.t.Helper()
	cmds := r.commands(id, wire.ActInstall)
	if len(cmds) == 0 {
		r.t.Fatalf("device %s was told nothing", id)
	}
	last := cmds[len(cmds)-1]
	c, err := r.db.Devices().Command(r.t.Context(), last)
	if err != nil || string(c.Wire.Release) != string(want.Digest[:]) {
		r.t.Fatalf("device %s was told of %x last, want %s: %v", id, c.Wire.Release, want.Manifest.Version, err)
	}
	r.now = r.now.Add(time.Minute)
	if healthy {
		r.proves(id, want, attest.Affirming)
	} else {
		r.proves(id, want, attest.Contraindicated)
	}
	r.says(id, want, healthy, false, map[string]wire.Outcome{last: wire.OutcomeDone})
}

func TestADryRunSaysOverWhatDevicesGo(t *testing.T) {
	r, _, _, spec := stonyRoll(t)
	spec.Canaries, spec.Stones = nil, false
	got, err := r.svc.DryRun(t.Context(), person("op"), spec)
	if err != nil || got.Reached != 1 || got.LeftOut["stepping stone"] != 3 || !strings.Contains(got.Skipped[devN(2)], "runs 1.0.0, and the release is installed over versions [from 2.5.0]: it comes there over 2.5.0") {
		t.Errorf("without stepping stones: %+v, %v", got, err)
	}
	spec.Stones = true
	got, err = r.svc.DryRun(t.Context(), person("op"), spec)
	if err != nil || got.Reached != 4 || len(got.Skipped) != 0 || len(got.Stones) != 1 || got.Stones[0].Devices != 3 || !slices.Equal(got.Stones[0].Over, []string{"2.5.0"}) || got.NoWayBack != 0 {
		t.Errorf("over stepping stones: %+v, %v", got, err)
	}
	for _, m := range got.Members {
		if over := m.Device != devN(0); over != slices.Equal(m.Over, []string{"2.5.0"}) {
			t.Errorf("%+v", m)
		}
	}
}

// A device is told of the stepping stone, is good with it, is told of the release at once, and counts for its wave when it is good with that.
func TestARolloutGoesOverSteppingStones(t *testing.T) {
	r, stone, last, spec := stonyRoll(t)
	r.begin(spec)
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	r.takes(devN(1), stone, true)
	r.tick(0)
	got := r.phase("r1", rollout.Running, 1)
	if ts := got.Waves[0].Tranches; len(ts) != 2 || ts[0].Version != "2.5.0" || len(ts[1].Release) != 0 || got.Last.Good != 0 || !got.Waves[0].SoakFrom.IsZero() {
		t.Fatalf("the first wave, when its device is good with the stepping stone: %+v %+v", got.Waves[0], got.Last)
	}
	r.now = r.now.Add(time.Minute)
	r.takes(devN(1), last, true)
	r.soaks(last, 1)
	r.tick(0)
	r.phase("r1", rollout.Running, 2)
	r.now = r.now.Add(time.Minute)
	r.takes(devN(0), last, true) // at once
	r.takes(devN(2), stone, true)
	r.tick(0)
	r.takes(devN(2), last, true)
	r.tick(time.Minute)
	if got := r.phase("r1", rollout.Running, 2); got.Last.Good != 2 || got.Last.Waiting != 1 {
		t.Errorf("one is on its way: %+v", got.Last)
	}
	_, views, err := r.svc.Get(t.Context(), person("op"), "r1")
	if err != nil || views[0].Device != devN(3) || !strings.HasPrefix(views[0].Why, "on its way over 2.5.0: pending") {
		t.Errorf("%+v, %v", views, err)
	}
	r.takes(devN(3), stone, true)
	r.tick(time.Minute)
	r.takes(devN(3), last, true)
	r.soaks(last, 0, 2, 3)
	r.tick(time.Minute)
	r.phase("r1", rollout.Completed, 2)
	for i := range 4 {
		if n, want := len(r.commands(devN(i), wire.ActInstall)), 2-boolInt(i == 0); n != want {
			t.Errorf("device %d was told %d times, want %d", i, n, want)
		}
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// soaks has devices show through a soak, and behind it, that they are good.
func (r *roll) soaks(with release.Release, who ...int) {
	r.t.Helper()
	r.tick(0)
	r.now = r.now.Add(11 * time.Minute)
	for _, i := range who {
		r.proves(devN(i), with, attest.Affirming)
		r.says(devN(i), with, true, false, nil)
	}
	r.tick(0)
	r.tick(time.Second)
}

// A halt in the middle: who is good with a stepping stone stays there and can be taken on later, who is ill with it goes back, who runs the release goes back to the
// stepping stone, and who was not reached is told nothing any more.
func TestAHaltOnSteppingStones(t *testing.T) {
	r, stone, last, spec := stonyRoll(t)
	spec.Canaries, spec.Waves = nil, []rollout.Wave{{Deadline: 3600, Soak: 600}}
	r.begin(spec)
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	r.takes(devN(0), last, true)
	r.takes(devN(1), stone, true)
	r.tick(0)
	r.takes(devN(2), stone, false)
	r.tick(time.Minute)
	got := r.phase("r1", rollout.Halted, 1)
	if !strings.Contains(got.Reason, "1 of 4 devices failed") {
		t.Errorf("reason %q", got.Reason)
	}
	r.tick(time.Second)
	for i, want := range []*release.Release{&stone, nil, &r.old, nil} {
		backs := r.commands(devN(i), wire.ActRollback)
		if want == nil {
			if len(backs) > 0 {
				t.Errorf("device %d is sent back by %v", i, backs)
			}
			continue
		}
		if len(backs) != 1 {
			t.Fatalf("device %d is sent back by %v", i, backs)
		}
		c, err := r.db.Devices().Command(t.Context(), backs[0])
		if err != nil || string(c.Wire.Release) != string(want.Digest[:]) {
			t.Errorf("device %d is sent back to %x, want %s: %v", i, c.Wire.Release, want.Manifest.Version, err)
		}
		r.says(devN(i), *want, true, false, map[string]wire.Outcome{backs[0]: wire.OutcomeDone})
	}
	r.nothingOutstanding(devN(1))
	r.nothingOutstanding(devN(3))
	r.tick(time.Minute)
	if got := r.phase("r1", rollout.RolledBack, 1); got.Last.Returned != 2 || got.Last.Stranded != 0 {
		t.Errorf("%+v", got.Last)
	}
	spec.ID, spec.Canaries = "r2", nil
	if again, err := r.svc.DryRun(t.Context(), person("op"), spec); err != nil || again.Reached < 1 || again.Skipped[devN(1)] != "" {
		t.Errorf("the next rollout: %+v, %v", again, err)
	}
}

// An abort cancels what devices are told, stones too, and sends nobody back.
func TestAnAbortOnSteppingStones(t *testing.T) {
	r, stone, _, spec := stonyRoll(t)
	spec.Canaries, spec.Waves = nil, []rollout.Wave{{Deadline: 3600, Soak: 600}}
	r.begin(spec)
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	r.takes(devN(1), stone, true)
	r.tick(0)
	if _, err := r.svc.Abort(t.Context(), person("op"), "r1", "not now"); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Minute)
	r.phase("r1", rollout.Aborted, 1)
	for i := range 4 {
		r.nothingOutstanding(devN(i))
	}
}

// A stepping stone that is withdrawn on the way: who is not over it yet has no way any more, which is a failure and says why; nobody is told in vain.
func TestASteppingStoneIsWithdrawn(t *testing.T) {
	r, stone, last, spec := stonyRoll(t)
	spec.Canaries, spec.Waves = nil, []rollout.Wave{{Deadline: 3600, Soak: 600, Tranche: 2, MaxFailures: 3}}
	r.begin(spec)
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	if _, err := r.releases.Withdraw(t.Context(), person("op"), stone.Digest, "it is bad"); err != nil {
		t.Fatal(err)
	}
	first := 0 // of the three that are to go over it, those that were told
	for i := 1; i < 4; i++ {
		first += len(r.commands(devN(i), wire.ActInstall))
	}
	r.tick(time.Minute)
	for len(r.commands(devN(0), wire.ActInstall)) == 0 {
		r.tick(time.Minute)
	}
	r.takes(devN(0), last, true)
	r.tick(time.Minute)
	got, views, err := r.svc.Get(t.Context(), person("op"), "r1")
	if err != nil {
		t.Fatal(err)
	}
	if got.Phase != rollout.Running || got.Last.Good != 1 || got.Last.Failed != 3 {
		t.Fatalf("%s %+v", got.Phase, got.Last)
	}
	lost := 0
	for _, v := range views {
		if strings.Contains(v.Why, "3.0.0 is installed over versions from 2.5.0; nothing leads from 1.0.0 to there: 2.5.0 is withdrawn") {
			lost++
		}
	}
	if told := r.installsOf(1, 2, 3); lost == 0 || lost+first != 3 || told != first {
		t.Errorf("%d have no way any more, %d were told before, and %d after all: %+v", lost, first, told, views)
	}
}

func (r *roll) installsOf(who ...int) (n int) {
	for _, i := range who {
		n += len(r.commands(devN(i), wire.ActInstall))
	}
	return n
}

// The way of one device, with what it has to fetch.
func TestThePathOfADevice(t *testing.T) {
	r, stone, last, _ := stonyRoll(t)
	way, err := r.svc.PathOf(t.Context(), person("op"), devN(1), last.Digest)
	whole := stone.Manifest.Components[0].Size + last.Manifest.Components[0].Size
	if err != nil || len(way.Steps) != 2 || way.Steps[0].Version != "2.5.0" || way.Bytes != whole || way.Runs != "1.0.0" || way.Release != "3.0.0" {
		t.Errorf("%+v, %v; want %d bytes", way, err, whole)
	}
	if way, err = r.svc.PathOf(t.Context(), person("op"), devN(0), last.Digest); err != nil || len(way.Steps) != 1 {
		t.Errorf("%+v, %v", way, err)
	}
	if way, err = r.svc.PathOf(t.Context(), person("op"), devN(0), r.new.Digest); err != nil || len(way.Steps) != 0 || way.Why != "runs 2.5.0, which is newer" {
		t.Errorf("%+v, %v", way, err)
	}
	if _, err = r.svc.PathOf(t.Context(), person("op"), "pump-9999", last.Digest); codeOf(err) != "device.unknown" {
		t.Errorf("a device that is not there: %v", err)
	}
	if _, err = r.svc.PathOf(t.Context(), person("op"), devN(0), [32]byte{9}); codeOf(err) != "release.unknown" {
		t.Errorf("a release that is not there: %v", err)
	}
	if _, err := r.releases.Close(t.Context(), person("op"), stone.Digest, "it is bad"); err != nil {
		t.Fatal(err)
	}
	if way, err = r.svc.PathOf(t.Context(), person("op"), devN(1), last.Digest); err != nil || !strings.HasSuffix(way.Why, "nothing leads from 1.0.0 to there: 2.5.0 is closed") {
		t.Errorf("%+v, %v", way, err)
	}
}

// A device that leaves the group of the rollout between two steps is told no more.
func TestWhoLeavesBetweenSteppingStones(t *testing.T) {
	r, stone, _, spec := stonyRoll(t)
	r.group("eu", devN(0), devN(1), devN(2))
	spec.Canaries, spec.Selection, spec.Waves = nil, rollout.Selection{Group: "eu", All: true}, []rollout.Wave{{Deadline: 3600, Soak: 600}}
	r.begin(spec)
	r.tick(0)
	r.now = r.now.Add(time.Minute)
	if _, err := r.svc.Pause(t.Context(), person("op"), "r1", "lunch"); err != nil {
		t.Fatal(err)
	}
	r.takes(devN(1), stone, true)
	r.tick(time.Minute)
	r.group("", devN(1))
	if _, err := r.svc.Resume(t.Context(), person("op"), "r1", "back"); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Minute)
	if got := r.phase("r1", rollout.Running, 1); got.Last.Left != 1 || r.installsOf(1) != 1 {
		t.Errorf("%+v, told %d times", got.Last, r.installsOf(1))
	}
	r.nothingOutstanding(devN(1))
}
