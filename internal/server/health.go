package server

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/internal/console"
)

// pulse knows when each of the instance's loops last went well.
type pulse struct {
	witnessed func() map[string]time.Time // by log; nil until it is known

	mu   sync.Mutex
	last map[string]console.Beat // by loop; guarded by mu
}

// beat notes that a loop went well, and runs again after wait.
func (p *pulse) beat(name string, wait time.Duration) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		p.last = map[string]console.Beat{}
	}
	p.last[name] = console.Beat{At: now, Due: now.Add(wait)}
}

// health is what /healthz tells: nothing that an outsider could use.
type health struct {
	OK        bool             `json:"ok"`
	Loops     map[string]int64 `json:"loops_s"`     // seconds since each last went well
	Witnessed map[string]int64 `json:"witnessed_s"` // seconds since each log was last published under a quorum of witnesses
}

// ServeHTTP answers 200 while every loop goes on, 503 with the loops that do not otherwise.
func (p *pulse) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	h := health{OK: true, Loops: map[string]int64{}, Witnessed: map[string]int64{}}
	p.mu.Lock()
	now := time.Now()
	for name, b := range p.last {
		h.Loops[name] = int64(now.Sub(b.At).Seconds())
		h.OK = h.OK && b.Well(now)
	}
	p.mu.Unlock()
	if p.witnessed != nil {
		for log, at := range p.witnessed() { // for who watches: an instance that lacks witnesses serves all the same
			h.Witnessed[log] = int64(time.Since(at).Seconds())
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if !h.OK {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(h) // who asked has gone
}
