package store_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/ddi"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
)

// hawkbit#1249: a client that fetches in small ranges made a row of its status for each of them. Here a range reads who asks and what may be given, and writes nothing.
func TestHawkbit1249ARangeWritesNothing(t *testing.T) {
	c := newClients(t)
	l, err := c.svc.Admit(t.Context(), person("sam"), legacy.Admission{Kind: legacy.DDI, Product: "pump", Name: "door-2"})
	if err != nil {
		t.Fatal(err)
	}
	digest := [32]byte(c.new.Manifest.Components[0].Digest)
	s := httptest.NewServer(ddi.Handler(ddi.Config{
		Base: "http://localhost", Poll: time.Minute, Soon: time.Second, Clients: c.svc, Offers: c.devices, Sums: c.db.Legacy(), Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		Artifact: func(ctx context.Context, caller access.Caller, digest [32]byte) (io.ReadSeekCloser, error) {
			_, r, err := c.releases.Open(ctx, caller, "", digest)
			return r, err
		},
	}))
	t.Cleanup(s.Close)
	var mu sync.Mutex
	asked, wrote := 0, []string{}
	c.db.Trace(func(query string) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		if verb, _, _ := strings.Cut(strings.TrimSpace(query), " "); !strings.EqualFold(verb, "SELECT") {
			wrote = append(wrote, query)
		}
	})
	for i := range 1000 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/pump/controller/v1/door-2/softwaremodules/"+hex.EncodeToString(digest[:])+"/artifacts/app", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "TargetToken "+l.Token)
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%[1]d", i%4))
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusPartialContent || len(body) != 1 {
			t.Fatalf("range %d: %s, %d bytes, %v", i, resp.Status, len(body), err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if asked < 1000 || len(wrote) > 0 {
		t.Errorf("1000 ranges: %d statements, and of them no reading ones: %q", asked, wrote)
	}
}
