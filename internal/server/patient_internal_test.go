package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// limited is a connection that remembers how long it may be read.
type limited struct {
	*httptest.ResponseRecorder
	until time.Time
}

func (l *limited) SetReadDeadline(t time.Time) error {
	l.until = t
	return nil
}

// Who sends a body bit by bit holds a connection for a minute; who sends none may listen for hours.
func TestABodyIsNotWaitedForForEver(t *testing.T) {
	for method, want := range map[string]bool{http.MethodPost: true, http.MethodGet: false} {
		w := &limited{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest(method, "/login", nil)
		if want {
			r = httptest.NewRequest(method, "/login", strings.NewReader("token=x"))
		}
		begun, served := time.Now(), false
		patient(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served = true })).ServeHTTP(w, r)
		if !served || w.until.IsZero() == want || want && w.until.Before(begun.Add(patience)) {
			t.Errorf("%s: served %v, until %v", method, served, w.until)
		}
	}
}
