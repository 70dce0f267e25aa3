package store_test

import (
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/wire"
)

// A setting says of when it is: a device that was silent since may have another by now.
func TestASettingSaysOfWhenItIs(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	rel := s.publish("1.0.0")
	s.make(devN(0), rel)
	config, err := wire.EncodeConfig([]wire.ConfigEntry{{Name: "rate", Value: "5"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.devices.Command(t.Context(), person("op"), device.Instruction{
		Product: "pump", Act: wire.ActConfigure, Devices: []string{devN(0)}, TTL: time.Hour, Reason: "test", Config: config,
	})
	if err != nil {
		t.Fatal(err)
	}
	of := func() time.Time {
		t.Helper()
		all, err := s.devices.Settings(t.Context(), access.Internal("test"), devN(0))
		if err != nil || len(all) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		return all[0].ReportedAt
	}
	if at := of(); !at.IsZero() {
		t.Errorf("of a device that never checked in: %s", at)
	}
	s.says(devN(0), rel, true, false, nil)
	said := s.now
	s.now = s.now.Add(time.Minute)
	if at := of(); !at.Equal(said) {
		t.Errorf("%s, not %s", at, said)
	}
}
