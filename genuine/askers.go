package genuine

import (
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"
)

// What one stranger may ask of one device in a day, so that it takes several to use up what a device answers; on this node and in this run.
const (
	perAsker  = 3
	maxAskers = 1 << 16 // strangers and devices counted; with more the device's own limit is left alone
)

// askers counts what strangers ask of devices. The zero value is ready.
type askers struct {
	mu    sync.Mutex
	since time.Time
	by    map[[16]byte]uint8 // of a stranger and a device; guarded by mu
}

// may counts a question to the device from a remote address, and reports whether it may be asked.
func (a *askers) may(from, device string, now time.Time) bool {
	sum := sha256.Sum256([]byte(sender(from) + " " + device))
	key := [16]byte(sum[:16])
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.by == nil || now.Sub(a.since) >= 24*time.Hour {
		a.since, a.by = now, map[[16]byte]uint8{}
	}
	n, known := a.by[key]
	if n >= perAsker {
		return false
	}
	if known || len(a.by) < maxAskers {
		a.by[key] = n + 1
	}
	return true
}

// back takes a count back: the question was not put.
func (a *askers) back(from, device string) {
	sum := sha256.Sum256([]byte(sender(from) + " " + device))
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := a.by[[16]byte(sum[:16])]; n > 0 {
		a.by[[16]byte(sum[:16])] = n - 1
	}
}

// sender is whom an address counts for: a host has all of its IPv6 /64. Whoever cannot be told apart counts together.
func sender(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ""
	}
	addr := at.Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}
