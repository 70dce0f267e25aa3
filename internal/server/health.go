package server

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// pulse knows when each of the instance's loops last went well.
type pulse struct {
	mu   sync.Mutex
	last map[string]time.Time // by loop; guarded by mu
}

func (p *pulse) beat(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		p.last = map[string]time.Time{}
	}
	p.last[name] = time.Now()
}

// stalled is how long a loop may fail before the instance is not well.
const stalled = time.Minute

// health is what /healthz tells: nothing that an outsider could use.
type health struct {
	OK    bool             `json:"ok"`
	Loops map[string]int64 `json:"loops_s"` // seconds since each last went well
}

// ServeHTTP answers 200 while every loop goes on, 503 with the loops that do not otherwise.
func (p *pulse) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	h := health{OK: true, Loops: map[string]int64{}}
	p.mu.Lock()
	for name, at := range p.last {
		age := time.Since(at)
		h.Loops[name] = int64(age.Seconds())
		h.OK = h.OK && age < stalled
	}
	p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if !h.OK {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(h) // who asked has gone
}
