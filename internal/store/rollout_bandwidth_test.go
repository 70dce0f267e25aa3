package store_test

import (
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/rollout"
)

// A device's bytes are held to what its rollout says now, for as long as the rollout has it; who is in none is held to nothing.
func TestADeviceIsHeldToItsRolloutsBandwidth(t *testing.T) {
	r := newRoll(t, 3)
	spec := ofOne("r1", r.new, rollout.Selection{IDs: []string{devN(0), devN(1)}})
	spec.Bandwidth = &rollout.Bandwidth{All: 1 << 20}
	for _, wrong := range []uint64{1, 1023, 1<<40 + 1} {
		bad := spec
		bad.Bandwidth = &rollout.Bandwidth{Each: wrong}
		if _, err := r.svc.Create(t.Context(), person("op"), bad); codeOf(err) != "rollout.bandwidth" {
			t.Errorf("%d: %v", wrong, err)
		}
	}
	r.begin(spec)
	held := func(device, id string, want rollout.Bandwidth) {
		t.Helper()
		if got, b, err := r.svc.BandwidthOf(t.Context(), device); err != nil || got != id || b != want {
			t.Errorf("%s: %q, %+v, %v", device, got, b, err)
		}
	}
	r.tick(time.Second)
	held(devN(0), "r1", rollout.Bandwidth{All: 1 << 20})
	held(devN(2), "", rollout.Bandwidth{})
	next := rollout.Bandwidth{All: 5 << 20, Each: 4096}
	if _, err := r.svc.SetBandwidth(t.Context(), person("op"), "r1", next, "at night"); err != nil {
		t.Fatal(err)
	}
	held(devN(0), "r1", next)
	if _, err := r.svc.SetBandwidth(t.Context(), person("op"), "r1", rollout.Bandwidth{All: 7}, "x"); codeOf(err) != "rollout.bandwidth" {
		t.Error(err)
	}
	if _, err := r.svc.Abort(t.Context(), person("op"), "r1", "enough"); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Second)
	held(devN(0), "", rollout.Bandwidth{})
	if _, err := r.svc.SetBandwidth(t.Context(), person("op"), "r1", next, "x"); codeOf(err) != "rollout.phase" {
		t.Error(err)
	}
}

// What was said of it in the lost time holds again.
func TestAReplayGivesTheBandwidthAgain(t *testing.T) {
	r := newRoll(t, 1)
	r.begin(ofOne("r1", r.new, rollout.Selection{IDs: []string{devN(0)}}))
	r.tick(time.Second)
	state, err := r.db.State(t.Context(), ledger.Control)
	if err != nil {
		t.Fatal(err)
	}
	f := ledger.New(ledger.KindRolloutPaced, r.now, "person:op", "r1", nil, []byte(`{"rollout":"r1","wave":1,"bandwidth":{"all":4096}}`))
	entry, err := f.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.db.Replay(t.Context(), ledger.Control, state.Size, [][]byte{entry}, map[ledger.Kind]store.Replayed{}); err != nil {
		t.Fatal(err)
	}
	if id, b, err := r.svc.BandwidthOf(t.Context(), devN(0)); err != nil || id != "r1" || b.All != 4096 {
		t.Errorf("%q, %+v, %v", id, b, err)
	}
}
