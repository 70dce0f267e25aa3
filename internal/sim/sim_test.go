package sim_test

import (
	"bytes"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/plot"
	"github.com/hallmark-iot/hallmark/internal/sim"
	"github.com/hallmark-iot/hallmark/rollout"
)

const day = 24 * time.Hour

func year(change func(*sim.Fleet)) sim.Load {
	f := sim.Fleet{Devices: 20_000, Life: 14 * day, Span: 365 * day, Enrolled: time.Hour, Poll: 5 * time.Minute, Seed: 1}
	if change != nil {
		change(&f)
	}
	return sim.Renewals(f)
}

func TestJitterSpreadsAFleet(t *testing.T) {
	together, spread := year(func(f *sim.Fleet) { f.Together = true }), year(nil)
	if together.PeakHour < 9_000 {
		t.Errorf("a fleet without jitter renews %d in its fullest hour: the comparison is with nothing", together.PeakHour)
	}
	if spread.PeakHour > together.PeakHour/20 {
		t.Errorf("with jitter %d in the fullest hour, without %d", spread.PeakHour, together.PeakHour)
	}
	last := spread.PerHour[len(spread.PerHour)-30*24:]
	if mean := spread.Mean(); float64(slices.Max(last)) > 2*mean {
		t.Errorf("after a year the fullest hour has %d, the mean is %.0f: it does not smooth out", slices.Max(last), mean)
	}
	// Each device renews between two thirds and five sixths of 14 days: 31 to 39 times a year.
	if n := float64(spread.Certs) / 20_000; n < 31 || n > 39 {
		t.Errorf("%.1f renewals a device", n)
	}
}

func TestNobodyIsLostInAnOutage(t *testing.T) {
	down := func(f *sim.Fleet) { f.Down, f.For = 200*day, day }
	l, calm := year(down), year(nil)
	if l.Ended != 0 {
		t.Errorf("%d certificates ran out in a day: a sixth of their life is left", l.Ended)
	}
	if l.Tries == 0 || l.BackPeak == 0 {
		t.Fatal("nobody asked during the outage, or after it")
	}
	if d := float64(calm.Certs-l.Certs) / float64(calm.Certs); d > 0.01 || d < -0.01 {
		t.Errorf("%d certificates with the outage, %d without", l.Certs, calm.Certs)
	}
	if waited := 20_000 / 10; l.BackPeak > waited/10 {
		t.Errorf("%d in the fullest minute after the outage: the herd comes at once", l.BackPeak)
	}
	if l.Quiet > 6*time.Hour {
		t.Errorf("it is quiet again only after %s", l.Quiet)
	}
	long := year(func(f *sim.Fleet) { f.Down, f.For = 200*day, 7*day })
	if long.Ended == 0 {
		t.Error("a week without a CA, and no certificate of two weeks ran out")
	}
}

func TestTheSameSeedIsTheSameYear(t *testing.T) {
	a, b := year(nil), year(nil)
	if !slices.Equal(a.PerHour, b.PerHour) {
		t.Error("two runs of one seed differ")
	}
}

// careful is a plan that bears one device in a hundred.
func careful(brick int) sim.Rollout {
	return sim.Rollout{
		Devices: 10_000, Poll: 5 * time.Minute, Takes: 20 * time.Minute, Seed: 1, Brick: brick,
		Waves: []rollout.Wave{
			{Size: 50, Soak: 3600, Deadline: 3600, MaxFailures: 3},
			{Percent: 10, Soak: 3600, Deadline: 3600, MaxFailuresRate: 1, PerHour: 200},
			{Soak: 3600, Deadline: 3600, MaxFailuresRate: 1, PerHour: 2000},
		},
	}
}

// Ten thousand devices, and a release that bricks three in a hundred: the rollout halts in its second wave, before that is told to the end, and whoever
// runs the release is sent back. The same plan brings a good release to all.
func TestTenThousandDevicesAndAReleaseThatBricks(t *testing.T) {
	c, err := sim.Rollouts(careful(30))
	if err != nil {
		t.Fatal(err)
	}
	if c.Phase != rollout.RolledBack || c.Wave != 2 {
		t.Errorf("it is %s in wave %d: %s", c.Phase, c.Wave, c.Reason)
	}
	if c.Told > 500 || c.Bricked > 20 || c.Bricked < 3 {
		t.Errorf("%d devices were told, and %d are bricked", c.Told, c.Bricked)
	}
	if end := c.PerPoll[len(c.PerPoll)-1]; end.Runs != 0 || c.Last.Returned == 0 || c.Last.Stranded != 0 {
		t.Errorf("at the end %d run it: %+v", end.Runs, c.Last)
	}
	if good, err := sim.Rollouts(careful(0)); err != nil || good.Phase != rollout.Completed || good.Told != 10_000 || good.PerPoll[len(good.PerPoll)-1].Runs != 10_000 {
		t.Errorf("of a good release: %s, %d told, %v", good.Phase, good.Told, err)
	}
	all := careful(30)
	all.Waves = []rollout.Wave{{Soak: 3600, Deadline: 3600, MaxFailures: 10_000}}
	if c, err := sim.Rollouts(all); err != nil || c.Bricked < 250 {
		t.Errorf("all at once %d are bricked, %v: the comparison is with nothing", c.Bricked, err)
	}
	picture, err := os.ReadFile("../../docs/pictures/rollout-halted.svg")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(picture, plot.Draw(c.Plot("10,000 devices, and a release that bricks 3 % of them", 5*time.Minute))) {
		t.Error("the guide's picture is another: make it by the command that the guide gives")
	}
}
