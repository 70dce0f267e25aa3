package httpapi_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// What an API GET costs beside a bare handler that sends the same bytes, both over loopback TCP and without a database.
func BenchmarkGet(b *testing.B) {
	l := newListeners(b, httpapi.EventsConfig{})
	rec := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/api/v1/me", nil)
	req.Header.Set("Authorization", "Bearer ann")
	l.h.ServeHTTP(rec, req)
	same := rec.Body.Bytes()
	for name, h := range map[string]http.Handler{
		"ours": l.h,
		"bare": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(same) // a client that goes away is not our loss
		}),
	} {
		b.Run(name, func(b *testing.B) {
			s := httptest.NewServer(h)
			defer s.Close()
			for b.Loop() {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, s.URL+"/api/v1/me", nil)
				if err != nil {
					b.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer ann")
				resp, err := s.Client().Do(req)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					b.Fatal(resp.Status)
				}
			}
		})
	}
}
