package telemetry

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
)

// Who asks for what they may not read is on record for good, about a device that they name: so many in an hour, on this node and in this run.
// Beyond it they are refused all the same, and that is in the audit trail alone.
const (
	refusedIn   = time.Hour
	perCaller   = 60
	maxRefusers = 10_000 // callers counted; with more, nothing more is put on record
)

type refused struct {
	mu    sync.Mutex
	since time.Time
	by    map[string]int // guarded by mu
}

// told reports whether another refusal of a caller's is put on record.
func (r *refused) told(caller string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.since) >= refusedIn || r.by == nil {
		r.since, r.by = now, map[string]int{}
	}
	if _, known := r.by[caller]; r.by[caller] >= perCaller || !known && len(r.by) >= maxRefusers {
		return false
	}
	r.by[caller]++
	return true
}

// refuse puts a refusal on record.
func (s *Service) refuse(ctx context.Context, caller access.Caller, req ReadRequest) error {
	if !s.refused.told(caller.ID, s.cfg.Now()) {
		return fault.New(fault.Exhausted, "stream.often", fmt.Sprintf("%s was refused %d times within an hour", caller.ID, perCaller), "ask who manages the stream for a grant")
	}
	return s.decide(ctx, caller, req, nil, "", nil)
}
