package rollout

import (
	"testing"
	"time"
)

// Steps grow with a rollout's age, and none begins before one that was there already: what is last of a progress is how the rollout stands.
func TestAStepThatIsLongerBeginsBehindThoseBefore(t *testing.T) {
	const day = 24 * time.Hour
	started := time.Date(2026, 3, 1, 11, 47, 31, 0, time.UTC)
	for _, around := range []time.Duration{0, 10 * time.Minute, day, 60 * day} {
		last := since(started, started)
		for age := around - 2*time.Hour; age < around+2*time.Hour; age += 700 * time.Millisecond {
			at := since(started, started.Add(age))
			if age >= 0 && (at.After(started.Add(age)) || started.Add(age).Sub(at) > day) {
				t.Fatalf("%s after the start is in the step of %s", age, at.Sub(started))
			}
			if at.Before(last) && age > around-2*time.Hour {
				t.Fatalf("%s after the start is in the step of %s, behind one of %s", age, at.Sub(started), last.Sub(started))
			}
			last = at
		}
	}
	for age, want := range map[time.Duration]time.Duration{
		-time.Hour: 0, 9*time.Minute + 59*time.Second: 9*time.Minute + 55*time.Second, 11*time.Minute + 59*time.Second: 11 * time.Minute, day + 90*time.Minute: day + time.Hour, 61*day + time.Hour: 61 * day,
	} {
		if got := since(started, started.Add(age)).Sub(started); got != want {
			t.Errorf("%s after the start is in the step of %s, want %s", age, got, want)
		}
	}
}
