package rollout

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Errors and no-shows have limits of their own, and all failures one when it is given, or nothing else is.
func TestErrorsAndNoShowsHaltApart(t *testing.T) {
	for name, c := range map[string]struct {
		w    Wave
		c    Counts
		want string // that the reason has in it; empty: it goes on
	}{
		"nothing given, no failure":        {Wave{}, Counts{Devices: 10, Good: 3}, ""},
		"nothing given, a no-show":         {Wave{}, Counts{Devices: 10, Failed: 1, NoShows: 1}, "1 of 10 devices failed, at most 0 may"},
		"no-shows may be":                  {Wave{MaxNoShows: 2}, Counts{Devices: 10, Failed: 2, NoShows: 2}, ""},
		"too many no-shows":                {Wave{MaxNoShows: 2}, Counts{Devices: 10, Failed: 3, NoShows: 3}, "3 of 10 devices did not show in time"},
		"errors beside a limit on others":  {Wave{MaxNoShows: 2}, Counts{Devices: 10, Failed: 1}, "1 of 10 devices said no"},
		"silence beside a limit on others": {Wave{MaxErrors: 1}, Counts{Devices: 5, Good: 1, Failed: 4, NoShows: 4}, "4 of 5 devices did not show in time"},
		"silence within the common limit":  {Wave{MaxErrors: 1, MaxFailures: 4}, Counts{Devices: 5, Good: 1, Failed: 4, NoShows: 4}, ""},
		"too many errors":                  {Wave{MaxErrors: 1, MaxNoShows: 9}, Counts{Devices: 10, Failed: 4, NoShows: 2}, "2 of 10 devices said no"},
		"all of them together":             {Wave{MaxFailures: 3, MaxErrors: 3, MaxNoShows: 3}, Counts{Devices: 100, Failed: 4, NoShows: 2}, "4 of 100 devices failed"},
		"a part":                           {Wave{MaxErrorsRate: 10}, Counts{Devices: 20, Good: 17, Failed: 3}, "at most 2 may"},
		"early":                            {Wave{MaxErrorsRate: 1}, Counts{Devices: 1000, Good: 20, Failed: 3}, "of the first 23 devices"},
		"too early to say":                 {Wave{MaxErrorsRate: 1}, Counts{Devices: 1000, Good: 300, Failed: 3}, ""},
		"two are no sign":                  {Wave{MaxErrorsRate: 1}, Counts{Devices: 1000, Good: 0, Failed: 2}, ""},
	} {
		why := c.w.TooMany(c.c, Counts{})
		if (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%s: %q, want %q", name, why, c.want)
		}
	}
}

// A wave that never had more failures than its percentage among those decided is not stopped early, in whatever order they came.
func TestWhatKeepsWithinItsPercentageIsNotStoppedEarly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		percent := rapid.IntRange(1, 99).Draw(t, "percent")
		failed, decided := 0, 0
		for range rapid.IntRange(1, 500).Draw(t, "devices") {
			decided++
			if (failed+1)*100 <= percent*decided && rapid.Bool().Draw(t, "fails") {
				failed++
			}
			if early(failed, decided, percent) {
				t.Fatalf("%d of the first %d stop a wave that bears %d %%", failed, decided, percent)
			}
		}
	})
}

// Values of Wilson's interval as they are in the literature (Newcombe 1998, table I, method 3).
func TestTheLowerBoundIsWilsons(t *testing.T) {
	for _, c := range []struct {
		n, of int
		want  float64
	}{{81, 263, 0.2553}, {15, 148, 0.0624}, {0, 20, 0}, {1, 29, 0.0061}} {
		if got := lowerBound(c.n, c.of); math.Abs(got-c.want) > 0.00006 {
			t.Errorf("%d of %d: %.4f, want %.4f", c.n, c.of, got, c.want)
		}
	}
}

// Of brickers at three times what a wave bears, a tenth of the wave or less is told before it stops, most times.
func TestThreePercentAgainstOneStopsSoon(t *testing.T) {
	worst := 0
	for seed := range 20 {
		failed, n := 0, 0
		for x := uint64(seed)*0x9e3779b97f4a7c15 + 1; !early(failed, n, 1); n++ {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			if x%100 < 3 {
				failed++
			}
			if n > 10_000 {
				t.Fatalf("seed %d: %d of %d, and it goes on", seed, failed, n)
			}
		}
		worst = max(worst, n)
	}
	if worst > 1500 {
		t.Errorf("%d devices of 10,000 had an answer before the slowest of 20 stopped", worst)
	}
}

func TestDurationsForPeople(t *testing.T) {
	for s, want := range map[Seconds]string{0: "0s", 1: "1s", 90: "1m30s", 600: "10m", 3600: "1h", 86400: "24h", 5400: "1h30m", 3601: "1h0m1s"} {
		if got := s.Text(); got != want {
			t.Errorf("%d: %s, want %s", s, got, want)
		}
	}
}
