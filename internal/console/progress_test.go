package console

import (
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/rollout"
)

// A line is where the rollout stood at each time, to its end, and says at what it ended; what happened is named where it did.
func TestAChartOfARollout(t *testing.T) {
	start := time.Date(2030, 1, 2, 3, 0, 0, 0, time.UTC)
	at := func(d time.Duration, told, good, failed int) rollout.Point {
		return rollout.Point{At: start.Add(d), Counts: rollout.Counts{Devices: 1000, Untold: 1000 - told, Good: good, Failed: failed}}
	}
	r := rollout.Rollout{Phase: rollout.Halted, Halted: start.Add(100 * time.Minute), Ended: start.Add(200 * time.Minute), Waves: []rollout.WaveState{{Succeeded: start.Add(50 * time.Minute)}, {}}}
	points := []rollout.Point{at(0, 10, 0, 0), at(20*time.Minute, 10, 10, 0), at(50*time.Minute, 1000, 10, 0), at(90*time.Minute, 1000, 600, 400)}
	svg := string(progressChart(r, points, start.Add(1000*time.Hour)))
	for _, want := range []string{"told: 1\u202f000", "good: 600", "failed: 400", "wave 1 passed", "halted", "minutes since it started"} {
		if !strings.Contains(svg, ">"+want+"<") {
			t.Errorf("it does not say %q", want)
		}
	}
	for _, no := range []string{"sent back", "wave 2 passed", "NaN"} {
		if strings.Contains(svg, no) {
			t.Errorf("it says %q", no)
		}
	}
	points = append(points, rollout.Point{At: start.Add(150 * time.Minute), Counts: rollout.Counts{Devices: 1000, Good: 600, Failed: 400, Returned: 5}})
	if svg := string(progressChart(r, points, start)); !strings.Contains(svg, ">sent back: 5<") {
		t.Error("it does not say who was sent back")
	}
	if progressChart(r, points[:1], start) != nil {
		t.Error("one point makes a chart")
	}
}

// Whatever a rollout's time is, its chart has a few ticks in whole units.
func TestTicksOfAChart(t *testing.T) {
	for span, want := range map[time.Duration]struct {
		axis, last string
		n          int
	}{
		5 * time.Minute:          {"minutes since it started", "5", 6},
		10 * time.Hour:           {"hours since it started", "10", 11},
		40 * 24 * time.Hour:      {"days since it started", "35", 6},
		4 * 365 * 24 * time.Hour: {"days since it started", "1\u202f460", 5},
	} {
		axis, all := ticks(span, max(span/columns, time.Second))
		if axis != want.axis || len(all) != want.n || all[len(all)-1].Text != want.last {
			t.Errorf("%s: %s, %d ticks, the last %q", span, axis, len(all), all[len(all)-1].Text)
		}
	}
}
