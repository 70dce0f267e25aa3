package rollout

import (
	"sync"
	"time"
)

// ears knows since when devices are listened to. While the server was away, or could not read what it knows, nobody was heard, which
// says nothing about the devices. Its zero value is ready.
type ears struct {
	mu    sync.Mutex
	since time.Time // guarded by mu
	last  time.Time // guarded by mu
}

// hear notes that somebody listens at now. After a pause longer than a device's silence may be, the silence counts from now on.
func (e *ears) hear(now time.Time, contact time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.last.IsZero() || now.Sub(e.last) > contact {
		e.since = now
	}
	e.last = now
}

func (e *ears) listening() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.since
}

// moment is now, as decisions see it.
func (s *Service) moment(now time.Time) Moment {
	return Moment{Now: now, Since: s.ears.listening(), Contact: s.cfg.Contact}
}
