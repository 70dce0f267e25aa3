package rollout

import (
	"slices"
	"sync"
	"time"
)

// What is known of a wave is read anew for who looks at it, unless that takes long: then they see what the last Tick saw, some seconds ago.
const (
	slowAfter = 50 * time.Millisecond
	maxKept   = 50_000 // devices of a wave, in memory
	maxAge    = time.Minute
)

// lastSeen is what the Ticks saw of large waves that are under way. Its zero value is ready.
type lastSeen struct {
	mu  sync.Mutex
	all map[string]sight // by rollout; guarded by mu
}

type sight struct {
	from, to int // waves
	at       time.Time
	snap     []Status
}

// keep remembers what was seen of waves, if it took long.
func (l *lastSeen) keep(id string, from, to int, snap []Status, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if took < slowAfter || len(snap) > maxKept {
		delete(l.all, id)
		return
	}
	if l.all == nil {
		l.all = map[string]sight{}
	}
	l.all[id] = sight{from: from, to: to, at: time.Now(), snap: snap}
}

// forget drops what was seen of rollouts that are not open any more.
func (l *lastSeen) forget(open []Rollout) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.all {
		if !slices.ContainsFunc(open, func(r Rollout) bool { return r.Spec.ID == id }) {
			delete(l.all, id)
		}
	}
}

// of gives what was seen of waves not long ago; nil when it is to be read.
func (l *lastSeen) of(id string, from, to int) []Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.all[id]
	if ok && time.Since(s.at) > maxAge {
		delete(l.all, id) // nobody ticks
		return nil
	}
	if s.from != from || s.to != to {
		return nil
	}
	return s.snap
}
