package devicelog

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What one device may add to the ledger, which keeps it for good. A device that was away for long hands in what its flash holds at
// once; one that says ever more than this is not working as it was made.
const (
	burst  = 2 << 20 // bytes at once
	steady = 128     // and a second
	prunes = 1 << 14 // devices, from which on those that have been quiet are forgotten
)

// allowance bounds what each device adds. It is this node's alone, and of this run.
type allowance struct {
	mu     sync.Mutex // over all below
	of     map[string]*rate.Limiter
	pruned time.Time
}

// takes says whether a device may add n bytes now.
func (a *allowance) takes(device string, n int, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.of[device]
	if l == nil {
		if a.of == nil {
			a.of = map[string]*rate.Limiter{}
		}
		if len(a.of) >= prunes && now.Sub(a.pruned) > time.Minute {
			a.pruned = now
			for id, l := range a.of {
				if l.TokensAt(now) >= burst {
					delete(a.of, id)
				}
			}
		}
		l = rate.NewLimiter(steady, burst)
		a.of[device] = l
	}
	return l.AllowN(now, n)
}
