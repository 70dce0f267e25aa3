package console

import (
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/fleet"
)

// curbs bounds what strangers may ask: each address a little, all of them together no more than the database does aside.
type curbs struct {
	now func() time.Time

	mu   sync.Mutex
	all  bucket
	each map[string]bucket // by address; guarded by mu, as is all
}

// bucket holds the asks that are left, as of at.
type bucket struct {
	left float64
	at   time.Time
}

const (
	allRate, allBurst   = 50, 100
	eachRate, eachBurst = 0.5, 10
	maxAddresses        = 10_000
)

func newCurbs(now func() time.Time) *curbs { return &curbs{now: now, each: map[string]bucket{}} }

func (b bucket) take(now time.Time, rate, burst float64) (bucket, bool) {
	left := burst
	if !b.at.IsZero() {
		left = min(burst, b.left+rate*now.Sub(b.at).Seconds())
	}
	if left < 1 {
		return bucket{left: left, at: now}, false
	}
	return bucket{left: left - 1, at: now}, true
}

// allow takes one ask of an address.
func (c *curbs) allow(addr string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if len(c.each) >= maxAddresses {
		for a, b := range c.each {
			if now.Sub(b.at).Seconds()*eachRate >= eachBurst {
				delete(c.each, a) // full again: as good as unknown
			}
		}
	}
	b, known := c.each[addr]
	if !known && len(c.each) >= maxAddresses {
		return false
	}
	b, ok := b.take(now, eachRate, eachBurst)
	c.each[addr] = b
	if !ok {
		return false
	}
	c.all, ok = c.all.take(now, allRate, allBurst)
	return ok
}

// address is whom a request counts for: a host, and of IPv6 the network that one host has all of.
func address(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	ip := net.ParseIP(host)
	if ip == nil || ip.To4() != nil {
		return host
	}
	return ip.Mask(net.CIDRMask(64, 128)).String()
}

// genuine answers anybody whether a device is one of this maker's.
func (h *handler) genuine(w http.ResponseWriter, r *http.Request) {
	asked := strings.TrimSpace(r.URL.Query().Get("id"))
	id := strings.ToLower(strings.NewReplacer(" ", "", "-", "", ":", "").Replace(clip(asked, 64)))
	switch {
	case asked == "":
		h.render(w, r, http.StatusOK, genuinePage(view{}, "", nil, ""))
	case !h.curbs.allow(address(r.RemoteAddr)):
		w.Header().Set("Retry-After", "10")
		h.render(w, r, http.StatusTooManyRequests, genuinePage(view{}, clip(asked, 64), nil, "Too many questions just now. Try again in a moment."))
	case !isDevice(id):
		h.render(w, r, http.StatusOK, genuinePage(view{}, clip(asked, 64), &fleet.Genuine{}, ""))
	default:
		g, err := h.cfg.Fleet.Genuine(r.Context(), id)
		if err != nil {
			h.cfg.Log.ErrorContext(r.Context(), "console", "path", r.URL.Path, "error", err)
			h.render(w, r, http.StatusServiceUnavailable, genuinePage(view{}, id, nil, "It cannot be looked up just now. Try again later."))
			return
		}
		h.render(w, r, http.StatusOK, genuinePage(view{}, id, &g, ""))
	}
}
