// Package sim plays a fleet against a clock, faster than it is.
//
// Over all stages. It uses the agent's own rules for when a device asks again (agent/renewal), so that what it says of a fleet is what the
// fleet would do. It is deterministic for its seed, and trusts nobody: there is nobody in it.
package sim

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/agent/renewal"
)

// Fleet is what is played.
type Fleet struct {
	Devices  int
	Life     time.Duration // of a certificate
	Span     time.Duration // how long the clock runs
	Enrolled time.Duration // over which the devices enrolled first, evenly from the beginning
	Poll     time.Duration // between check-ins, at which a device looks whether it is time
	Together bool          // no jitter: every device renews at two thirds of the life, and tries again at fixed times
	Down     time.Duration // when the CA goes away, from the beginning; 0: never
	For      time.Duration // how long it is away
	Seed     uint64
}

// Times of the agent (agent/identity.go, agent/loop.go).
const (
	retryBase = time.Second
	retryMost = time.Hour        // while the present certificate is good
	deadMost  = 15 * time.Minute // when there is none: the device can do nothing else
)

// Load is what the CA saw.
type Load struct {
	Fleet
	PerHour []int // certificates
	Certs   int   // without the first of each device
	PeakHour,
	PeakMinute int // certificates
	Tries    int           // attempts while the CA was away
	PeakTry  int           // of them in a minute
	Ended    int           // devices whose certificate ran out meanwhile: they come back by their factory identity
	BackPeak int           // certificates in the fullest minute of the two days after
	Quiet    time.Duration // after the return until the load of an hour is below twice the mean again; 0 without an outage
}

// Mean is certificates an hour, of renewals alone, once all have enrolled.
func (l Load) Mean() float64 {
	return float64(l.Certs) / (l.Span - l.Enrolled/2).Hours()
}

// counts are those of one part of the devices.
type counts struct {
	minutes, tries []int
	certs, ended   int
}

// Renewals plays the fleet.
func Renewals(f Fleet) Load {
	parts := runtime.GOMAXPROCS(0)
	out := make([]counts, parts)
	var wg sync.WaitGroup
	for p := range parts {
		wg.Go(func() {
			c := counts{minutes: make([]int, f.Span/time.Minute+1), tries: make([]int, f.Span/time.Minute+1)}
			for i := p; i < f.Devices; i += parts {
				f.device(i, &c)
			}
			out[p] = c
		})
	}
	wg.Wait()
	all := out[0]
	for _, c := range out[1:] {
		all.certs, all.ended = all.certs+c.certs, all.ended+c.ended
		for m := range all.minutes {
			all.minutes[m] += c.minutes[m]
			all.tries[m] += c.tries[m]
		}
	}
	return f.load(all)
}

// device plays one.
func (f Fleet) device(i int, c *counts) {
	r := rand.New(rand.NewPCG(f.Seed, uint64(i)))
	began := time.Duration(float64(f.Enrolled) * (float64(i) + 0.5) / float64(f.Devices))
	for began < f.Span {
		random := r.Float64()
		if f.Together {
			random = 0
		}
		at := renewal.RenewAt(time.Time{}.Add(began), time.Time{}.Add(began+f.Life), random).Sub(time.Time{})
		at += f.draw(r, f.Poll)
		ended := false
		for failures := 1; f.away(at) && at < f.Span; failures++ {
			c.tries[at/time.Minute]++
			most := retryMost
			if at >= began+f.Life {
				ended, most = true, deadMost
			}
			at += f.again(r, most, failures)
		}
		if ended {
			c.ended++
		}
		if at >= f.Span {
			return
		}
		c.minutes[at/time.Minute]++
		c.certs++
		began = at
	}
}

func (f Fleet) draw(r *rand.Rand, d time.Duration) time.Duration {
	if f.Together {
		return 0
	}
	return time.Duration(r.Float64() * float64(d))
}

// again is the pause after an attempt that failed: what a device does, or a fixed time for a fleet that draws nothing.
func (f Fleet) again(r *rand.Rand, most time.Duration, failures int) time.Duration {
	if f.Together {
		return most
	}
	return max(renewal.Again(retryBase, most, failures, 0, r.Float64()), f.draw(r, f.Poll))
}

func (f Fleet) away(at time.Duration) bool {
	return f.For > 0 && at >= f.Down && at < f.Down+f.For
}

// load says what the minutes amount to.
func (f Fleet) load(c counts) Load {
	l := Load{Fleet: f, Certs: c.certs, Ended: c.ended, PeakMinute: slices.Max(c.minutes), PeakTry: slices.Max(c.tries)}
	for m := 0; m < len(c.minutes); m += 60 {
		hour := 0
		for _, n := range c.minutes[m:min(m+60, len(c.minutes))] {
			hour += n
		}
		l.PerHour = append(l.PerHour, hour)
		l.PeakHour = max(l.PeakHour, hour)
	}
	for _, n := range c.tries {
		l.Tries += n
	}
	if f.For == 0 {
		return l
	}
	back := int((f.Down + f.For) / time.Minute)
	for m := back; m < min(back+2*24*60, len(c.minutes)); m++ {
		l.BackPeak = max(l.BackPeak, c.minutes[m])
	}
	limit := int(math.Ceil(2 * l.Mean()))
	hour := back / 60
	for h := hour; h < len(l.PerHour); h++ {
		if l.PerHour[h] <= limit {
			l.Quiet = time.Duration(h-hour) * time.Hour
			break
		}
	}
	return l
}
