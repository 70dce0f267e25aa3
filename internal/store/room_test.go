package store_test

import (
	"bytes"
	"context"
	"crypto"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// reporting counts what check-ins have the store write.
type reporting struct {
	device.Reports
	n int
}

func (c *reporting) ApplyReport(ctx context.Context, r device.Report) error {
	c.n++
	return c.Reports.ApplyReport(ctx, r)
}

// A rollout leaves out whose flash has no room for the release, and says of how many nobody knows; a device that says the same room again costs no write.
func TestARolloutLeavesOutWhoseFlashHasNoRoom(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	small, large := s.publish("1.0.0"), s.publish("1.1.0-"+strings.Repeat("x", 40)) // of one sector, and of two
	rooms := []*wire.Room{{Sectors: 4, Sector: 32}, {Sectors: 3, Sector: 32}, nil}
	reports := &reporting{Reports: s.db.Devices()}
	devices, err := device.NewService(device.Config{
		Registry: s.db.Devices(), Reports: reports, Commands: s.db.Devices(), Trust: s.db.Devices(), Groups: s.db.Devices(), Forgetter: s.db.Devices(), Guard: s.guard,
		Ledger: s.ledger, Releases: s.releases, Bundles: s.db.Devices(), Records: s.db.Devices(), Authorities: func() []crypto.Signer { return []crypto.Signer{s.authority} }, Now: func() time.Time { return s.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, room := range rooms {
		s.make(devN(i), small)
		in := wire.Checkin{
			Nonce: bytes.Repeat([]byte{9}, 32), State: "active", BootCount: 1, Release: small.Digest[:], Version: "1.0.0", Healthy: true, Room: room,
		}
		for range 3 {
			if _, err := devices.Checkin(t.Context(), access.DeviceCaller(devN(i)), devN(i), in); err != nil {
				t.Fatal(err)
			}
		}
		if reports.n != i+1 {
			t.Errorf("device %d said three times what room it has: %d writes in all", i, reports.n)
		}
		d, err := s.db.FleetDevice(t.Context(), devN(i))
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"4 sectors of 32 bytes", "3 sectors of 32 bytes", "not known"}[i]; d.Flash() != want {
			t.Errorf("device %d: %q, want %q", i, d.Flash(), want)
		}
	}
	r, _ := rollouts(s)
	spec := rollout.Spec{ID: "r", Product: "pump", Release: large.Digest[:], Selection: rollout.Selection{All: true}, Waves: []rollout.Wave{{Deadline: 60}}}
	got, err := r.DryRun(t.Context(), person("op"), spec)
	if err != nil || len(got.Members) != 2 || got.LeftOut["room"] != 1 || !strings.Contains(got.Skipped[devN(1)], "it needs 4 sectors of 32 bytes, the flash has 3") || got.Unsized != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	spec.Selection = rollout.Selection{IDs: []string{devN(0), devN(1)}}
	if _, err := r.DryRun(t.Context(), person("op"), spec); codeOf(err) != "rollout.device" || !strings.Contains(err.Error(), "has no room") {
		t.Errorf("a device that is named, and has no room: %v", err)
	}
}
