package agent

import (
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/window"
)

// The window is of the device's own clock on the wall, over each change of it.
func TestHawkbit2026TheDeviceKeepsItsOwnWindow(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct{ zone, now, until string }{
		{"Europe/Berlin", "2026-03-28T00:59:59Z", "2026-03-28T01:00:00Z"}, // the night before: 02:00 is 01:00 UTC
		{"Europe/Berlin", "2026-03-28T01:00:00Z", ""},
		{"Europe/Berlin", "2026-03-28T03:00:00Z", "2026-03-29T01:00:00Z"}, // 02:00 is not shown: it opens when the clock runs on
		{"Europe/Berlin", "2026-03-29T01:00:00Z", ""},
		{"Europe/Berlin", "2026-03-29T02:00:00Z", "2026-03-30T00:00:00Z"}, // 04:00 closes it, an hour later
		{"Europe/Berlin", "2026-10-24T23:59:59Z", "2026-10-25T00:00:00Z"}, // 02:00 is shown twice: the first
		{"Europe/Berlin", "2026-10-25T01:30:00Z", ""},
		{"Europe/Berlin", "2026-10-25T03:00:00Z", "2026-10-26T01:00:00Z"},
		{"America/New_York", "2026-03-08T06:59:59Z", "2026-03-08T07:00:00Z"},
		{"Asia/Kathmandu", "2026-07-01T20:14:59Z", "2026-07-01T20:15:00Z"},
		{"+05:30", "2026-07-01T20:29:59Z", "2026-07-01T20:30:00Z"},
		{"Asia/Tokyo", "2026-07-01T16:59:59Z", "2026-07-01T17:00:00Z"},
		{"UTC", "2026-07-01T01:59:59Z", "2026-07-01T02:00:00Z"},
	} {
		zone, err := window.Zone(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		a := &Agent{zone: zone}
		task := &task{Window: &wire.Window{From: 120, Minutes: 120}}
		what, until := a.waiting(task, at(c.now))
		want := ""
		if c.until != "" {
			want = wire.WaitsForWindow
		}
		if what != want || c.until != "" && !until.Equal(at(c.until)) {
			t.Errorf("%s at %s: waits for %q until %s, want %q", c.zone, c.now, what, until.UTC(), c.until)
		}
	}
}
