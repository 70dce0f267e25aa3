package throttle

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What strangers may ask: an address so many at once, then one each askEvery; all of them together no more than the database does aside.
const (
	askBurst = 10
	askEvery = 2 * time.Second

	allAskBurst = 100
	allAskEvery = 20 * time.Millisecond
)

// Asks bounds what those may ask who need not say who they are. Memory is bounded; addresses that are forgotten begin anew, and what all of
// them may ask together stays.
type Asks struct {
	now func() time.Time

	mu   sync.Mutex
	all  *rate.Limiter         // guarded by mu, as is each
	each *recent[netip.Prefix] // by address
}

// NewAsks makes one that goes by now.
func NewAsks(now func() time.Time) *Asks {
	return &Asks{now: now, all: rate.NewLimiter(rate.Every(allAskEvery), allAskBurst), each: newRecent[netip.Prefix](maxAddresses)}
}

// Allow takes one ask of a remote address, host:port, and reports whether it may be answered.
func (a *Asks) Allow(remote string) bool {
	from := Sender(remote)
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	rec, known := a.each.get(from)
	if !known {
		rec = &record{failures: rate.NewLimiter(rate.Every(askEvery), askBurst)}
	}
	a.each.put(from, rec)
	return rec.failures.AllowN(now, 1) && a.all.AllowN(now, 1)
}
