package rollout

import (
	"fmt"
	"math"
)

// bear is the smaller of a number and a percentage of n, of those that are given.
func bear(most, rate, n int) int {
	part := rate * n / 100
	switch {
	case rate == 0:
		return most
	case most == 0:
		return part
	}
	return min(part, most)
}

// TooMany says why failures halt a wave; empty: they do not. All failures are counted together unless only their kinds have limits: then a kind without one bears
// none. Both are of the wave and of what came before it, if that counts.
func (w Wave) TooMany(c, before Counts) string {
	errors, shows := w.MaxErrors+w.MaxErrorsRate > 0, w.MaxNoShows+w.MaxNoShowsRate > 0
	together := w.MaxFailures+w.MaxFailuresRate > 0 || !errors && !shows
	for _, l := range []struct {
		applies               bool
		what                  string
		n, was, most, percent int
	}{
		{together, "failed", c.Failed, before.Failed, w.MaxFailures, w.MaxFailuresRate},
		{errors || !together, "said no, fell back or are bad with it", c.Failed - c.NoShows, before.Failed - before.NoShows, w.MaxErrors, w.MaxErrorsRate},
		{shows || !together, "did not show in time that they are good", c.NoShows, before.NoShows, w.MaxNoShows, w.MaxNoShowsRate},
	} {
		if !l.applies || l.n == 0 {
			continue
		}
		if n := l.n + l.was; (l.most > 0 || l.percent == 0) && n > l.most {
			return fmt.Sprintf("%d of %d devices %s, at most %d may", n, c.Devices+before.Devices, l.what, bear(l.most, l.percent, c.Devices+before.Devices))
		}
		if all, limit := c.Devices+before.Devices, bear(0, l.percent, c.Devices+before.Devices); l.percent > 0 && l.n+l.was > limit {
			return fmt.Sprintf("%d of %d devices %s, at most %d may", l.n+l.was, all, l.what, limit)
		}
		if early(l.n, c.Failed+c.Good, l.percent) {
			return fmt.Sprintf("%d of the first %d devices %s: that all of them will keep within %d %% is not to be expected", l.n, c.Failed+c.Good, l.what, l.percent)
		}
	}
	return ""
}

// early reports whether n of the first so many devices say already that a wave will not keep within its percentage: at least three, and the lower
// bound of what is to be expected of all, at 95 %, is above it.
func early(n, of, percent int) bool {
	return percent > 0 && n >= 3 && lowerBound(n, of) > float64(percent)/100
}

// lowerBound is the lower end of Wilson's score interval of n out of so many, at 95 %.
func lowerBound(n, of int) float64 {
	const z = 1.959964
	if of == 0 {
		return 0
	}
	k, all := float64(n), float64(of)
	p := k / all
	return (p + z*z/(2*all) - z*math.Sqrt(p*(1-p)/all+z*z/(4*all*all))) / (1 + z*z/all)
}
