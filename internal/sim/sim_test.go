package sim_test

import (
	"bytes"
	"encoding/xml"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/sim"
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

func TestTheChartIsADrawing(t *testing.T) {
	svg := sim.Chart("a < b", []sim.Line{{Name: "one & all", Hours: year(nil).PerHour}})
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		if _, err := d.Token(); err == io.EOF { //nolint:errorlint // io.Reader's own
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
