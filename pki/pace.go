package pki

import (
	"fmt"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// How often a device gets a certificate that it did not have: so many at once, then one each paceEvery. What is issued is on record for good,
// so that a device that asks for ever new ones would fill the ledger. Its factory identity and its operational one are counted apart: who has
// stolen the one does not keep the device from the other, which is its way back.
const (
	paceBurst = 64
	paceEvery = 30 * time.Minute
	maxPaced  = 1 << 16 // that are remembered
)

// pace counts, on this node and in this run. The zero value is ready.
type pace struct {
	mu sync.Mutex
	by map[paced]taken // guarded by mu
}

type paced struct {
	device string
	kind   idevid.Kind
}

// taken is how many of the burst are in use, at a time; one becomes free each paceEvery.
type taken struct {
	n  float64
	at time.Time
}

func (t taken) now(at time.Time) float64 {
	return max(0, t.n-float64(max(0, at.Sub(t.at)))/float64(paceEvery))
}

// take takes one of a device's; back gives it back when nothing new came of it.
func (p *pace) take(d paced, burst int, now time.Time) (back func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.by[d].now(now)
	if n+1 > float64(burst) {
		return nil, fault.New(fault.Exhausted, "enrol.often", fmt.Sprintf("device %s had %d new certificates of late", d.device, burst),
			fmt.Sprintf("have it keep its key and ask with the same request; it gets another in %s", paceEvery))
	}
	if p.by == nil || len(p.by) >= maxPaced {
		p.forget(now)
	}
	p.by[d] = taken{n + 1, now}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if t, ok := p.by[d]; ok {
			t.n = max(0, t.n-1)
			p.by[d] = t
		}
	}, nil
}

// forget drops those of whom nothing is in use any more, and all if that is nobody.
func (p *pace) forget(now time.Time) {
	for d, t := range p.by {
		if t.now(now) == 0 {
			delete(p.by, d)
		}
	}
	if p.by == nil || len(p.by) >= maxPaced {
		p.by = map[paced]taken{}
	}
}
