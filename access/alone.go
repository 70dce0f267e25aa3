package access

import (
	"crypto/sha256"
	"sync"
	"time"
)

// BulkDevices is how many devices one person may act on alone, within AloneFor.
const BulkDevices = 100

// AloneFor is how long devices that somebody has acted on count: who acts on many little by little acts on many.
const AloneFor = time.Hour

// Alone knows which devices each caller acted on of late without a second person. The zero value is ready. It is kept in memory: a new
// start forgets it, and callers cannot have one made.
type Alone struct {
	mu sync.Mutex
	by map[string]map[[32]byte]time.Time // when each of at most BulkDevices devices was last acted on, by caller; guarded by mu
}

// Grave reports whether caller takes a second person to act on those devices: when they are, with the others of the last hour, more than
// BulkDevices. When not, they count from now on, whatever becomes of the act.
func (a *Alone) Grave(caller Caller, devices []string, now time.Time) bool {
	if caller.Kind == System || caller.Seconded != "" || len(devices) > BulkDevices {
		return len(devices) > BulkDevices
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	had := a.by[caller.ID]
	for id, at := range had {
		if now.Sub(at) >= AloneFor {
			delete(had, id)
		}
	}
	asked, more := map[[32]byte]bool{}, 0
	for _, id := range devices {
		asked[sha256.Sum256([]byte(id))] = true // an ID is anything yet
	}
	for id := range asked {
		if _, known := had[id]; !known {
			more++
		}
	}
	if len(had)+more > BulkDevices {
		return true
	}
	if a.by == nil {
		a.by = map[string]map[[32]byte]time.Time{}
	}
	if had == nil {
		had = map[[32]byte]time.Time{}
		a.by[caller.ID] = had
	}
	for id := range asked {
		had[id] = now
	}
	return false
}
