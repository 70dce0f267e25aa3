package store_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// A rollout leaves out who was sent back from its release: such a device refuses it for good.
func TestARolloutLeavesOutWhoWasSentBackFromItsRelease(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	one, two := s.publish("1.0.0"), s.publish("2.0.0")
	for i, left := range [][][]byte{nil, {two.Digest[:]}} {
		s.make(devN(i), one)
		if _, err := s.devices.Checkin(t.Context(), access.DeviceCaller(devN(i)), devN(i), wire.Checkin{
			Nonce: bytes.Repeat([]byte{9}, 32), State: "active", BootCount: 1, Release: one.Digest[:], Version: "1.0.0", Healthy: true, Left: left,
		}); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := s.db.FleetDevice(t.Context(), devN(1)); err != nil || len(d.Left) != 1 {
		t.Errorf("it is shown as sent back from %v, %v", d.Left, err)
	}
	r, _ := rollouts(s)
	got, err := r.DryRun(t.Context(), person("op"), rollout.Spec{
		ID: "r", Product: "pump", Release: two.Digest[:], Selection: rollout.Selection{All: true}, Waves: []rollout.Wave{{Deadline: 60}},
	})
	if err != nil || len(got.Members) != 1 || got.LeftOut["left"] != 1 || !strings.Contains(got.Skipped[devN(1)], "was sent back from it") {
		t.Errorf("%+v, %v", got, err)
	}
}
