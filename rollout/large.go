package rollout

import (
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
	wave int
	at   time.Time
	snap []Status
}

// keep remembers what was seen of a wave, if it took long.
func (l *lastSeen) keep(id string, wave int, snap []Status, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if took < slowAfter || len(snap) > maxKept {
		delete(l.all, id)
		return
	}
	if l.all == nil {
		l.all = map[string]sight{}
	}
	l.all[id] = sight{wave: wave, at: time.Now(), snap: snap}
}

// of gives what was seen of a wave not long ago; nil when it is to be read.
func (l *lastSeen) of(id string, wave int) []Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.all[id]
	if ok && time.Since(s.at) > maxAge {
		delete(l.all, id) // it has ended, or nobody ticks
		return nil
	}
	if s.wave != wave {
		return nil
	}
	return s.snap
}
