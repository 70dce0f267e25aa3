package device

import (
	"maps"
	"time"

	"golang.org/x/time/rate"
)

// How many facts a device may add to the ledger, which keeps them for good, that no command led to: what it says of its health, and
// results of commands that it was never given.
const (
	unasked     = 100         // at once
	unaskedEach = time.Minute // and then one
	devicesKept = 1 << 14     // from which on those that have been quiet are forgotten
)

// mayTell takes one of them. It is this node's count alone, and of this run.
func (s *Service) mayTell(device string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.unasked[device]
	if l == nil {
		if s.unasked == nil {
			s.unasked = map[string]*rate.Limiter{}
		}
		if len(s.unasked) >= devicesKept && now.Sub(s.pruned) > unaskedEach {
			s.pruned = now
			maps.DeleteFunc(s.unasked, func(_ string, l *rate.Limiter) bool { return l.TokensAt(now) >= unasked })
		}
		l = rate.NewLimiter(rate.Every(unaskedEach), unasked)
		s.unasked[device] = l
	}
	return l.AllowN(now, 1)
}
