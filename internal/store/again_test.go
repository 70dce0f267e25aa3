package store_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// Devices that were told, and said nothing, when their rollout was aborted are told by the next one, of the same release too.
func TestWhoWasToldByAnAbortedRolloutIsToldByTheNext(t *testing.T) {
	r := newRoll(t, 3)
	r.carrying()
	asks := func(n byte) int {
		given := 0
		for i := range 3 {
			reply, err := r.devices.Checkin(t.Context(), access.DeviceCaller(devN(i)), devN(i), wire.Checkin{
				Nonce: bytes.Repeat([]byte{n}, 32), State: "active", BootCount: 1, Healthy: true, Bundle: 1, Release: r.old.Digest[:], Version: "1.0.0",
			})
			if err != nil {
				t.Fatal(err)
			}
			if reply.Delivery != nil {
				given++
			}
		}
		return given
	}
	asks(1) // who was never heard of is in no rollout
	for _, id := range []string{"one", "two"} {
		r.begin(ofOne(id, r.new, rollout.Selection{All: true}))
		for range 20 {
			r.tick(time.Second)
		}
		if n := asks(9); n != 3 {
			t.Errorf("%s tells %d of 3", id, n)
		}
		if _, err := r.svc.Abort(t.Context(), person("op"), id, "enough"); err != nil {
			t.Fatal(err)
		}
	}
}
