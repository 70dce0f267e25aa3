package server

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A loop that runs each hour is well between its hours, and one that is behind its own time is not.
func TestALoopIsMeasuredByItsOwnTime(t *testing.T) {
	ask := func(p *pulse) int {
		rec := httptest.NewRecorder()
		p.ServeHTTP(rec, nil)
		return rec.Code
	}
	var p pulse
	p.beat("hourly", time.Hour)
	p.beat("often", time.Second)
	aged := func(name string, d time.Duration) {
		b := p.last[name]
		b.At, b.Due = b.At.Add(-d), b.Due.Add(-d)
		p.last[name] = b
	}
	aged("hourly", 59*time.Minute)
	if got := ask(&p); got != http.StatusOK {
		t.Errorf("between its hours: %d", got)
	}
	aged("often", 2*time.Minute)
	if got := ask(&p); got != http.StatusServiceUnavailable {
		t.Errorf("two minutes behind: %d", got)
	}
	p.beat("often", time.Second)
	aged("hourly", time.Hour)
	if got := ask(&p); got != http.StatusServiceUnavailable {
		t.Errorf("an hour behind: %d", got)
	}
}
