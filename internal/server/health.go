package server

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// pulse knows when each of the instance's loops last went well.
type pulse struct {
	witnessed func() map[string]time.Time // by log; nil until it is known

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
	OK        bool             `json:"ok"`
	Loops     map[string]int64 `json:"loops_s"`     // seconds since each last went well
	Witnessed map[string]int64 `json:"witnessed_s"` // seconds since each log was last published under a quorum of witnesses
}

// ServeHTTP answers 200 while every loop goes on, 503 with the loops that do not otherwise.
func (p *pulse) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	h := health{OK: true, Loops: map[string]int64{}, Witnessed: map[string]int64{}}
	p.mu.Lock()
	for name, at := range p.last {
		age := time.Since(at)
		h.Loops[name] = int64(age.Seconds())
		h.OK = h.OK && age < stalled
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
