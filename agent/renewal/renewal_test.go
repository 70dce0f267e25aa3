package renewal_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/agent/renewal"
)

func TestAFleetThatEnrolledTogetherDoesNotRenewTogether(t *testing.T) {
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	to := from.Add(30 * 24 * time.Hour)
	const fleet = 100_000
	perHour := map[time.Time]int{}
	for i := range fleet {
		at := renewal.RenewAt(from, to, float64(i)/fleet)
		if at.Before(from.Add(20*24*time.Hour)) || !at.Before(from.Add(25*24*time.Hour)) {
			t.Fatalf("device %d renews at %s", i, at)
		}
		perHour[at.Truncate(time.Hour)]++
	}
	most := 0
	for _, n := range perHour {
		most = max(most, n)
	}
	if most > fleet/100 {
		t.Errorf("%d of %d devices renew in one hour", most, fleet)
	}
}

func TestTimesStayInTheirBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "from"), 0)
		life := time.Duration(rapid.Int64Range(-1000, 1<<60).Draw(t, "life"))
		random := rapid.OneOf(rapid.Float64Range(0, 1), rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), -1})).Draw(t, "random")
		at := renewal.RenewAt(from, from.Add(life), random)
		if at.Before(from) || life > 0 && !at.Before(from.Add(life)) {
			t.Errorf("a certificate of %s is renewed at %s after it began", life, at.Sub(from))
		}
		base, most := time.Second, 15*time.Minute
		asked := time.Duration(rapid.Int64Range(-1, math.MaxInt64).Draw(t, "asked"))
		failures := rapid.IntRange(-1, 1<<30).Draw(t, "failures")
		got := renewal.Again(base, most, failures, asked, random)
		if got < min(asked, renewal.MaxWait) || got < base/2 || got > max(most, renewal.MaxWait+renewal.MaxWait/2) {
			t.Errorf("after %d failures, asked for %s: %s", failures, asked, got)
		}
	})
}
