package store_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/wire"
)

// What a device understands is what it said last: one that went back to an older agent understands what that does.
func TestWhatADeviceKnowsIsWhatItSaidLast(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	one := s.publish("1.0.0")
	s.make(devN(0), one)
	for _, knows := range [][]string{{"delta1", "window1"}, nil} {
		if _, err := s.devices.Checkin(t.Context(), access.DeviceCaller(devN(0)), devN(0), wire.Checkin{
			Nonce: bytes.Repeat([]byte{9}, 32), State: "active", BootCount: 1, Release: one.Digest[:], Version: "1.0.0", Healthy: true, Knows: knows,
		}); err != nil {
			t.Fatal(err)
		}
		if d, err := s.db.FleetDevice(t.Context(), devN(0)); err != nil || !slices.Equal(d.Knows, knows) {
			t.Errorf("it said that it knows %q, and is shown with %q, %v", knows, d.Knows, err)
		}
	}
}
