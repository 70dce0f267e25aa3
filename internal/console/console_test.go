package console_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/console"
)

const script = `"><script>alert(1)</script>`

type reader struct{}

func (reader) FleetSummary(context.Context) (fleet.Summary, error) {
	return fleet.Summary{Total: 2, States: map[string]int{"active": 1, "quarantined": 1}, Verdicts: map[string]int{"unknown": 1}, At: time.Unix(1, 0)}, nil
}

func (reader) FleetDevices(_ context.Context, q fleet.Query) ([]fleet.Device, error) {
	if q.State == "lost" {
		return nil, nil
	}
	seen := time.Unix(1_000_000_000, 0)
	return []fleet.Device{
		{ID: "00aa", Product: "pump", State: "active", Health: "healthy", Verdict: "affirming", Version: "1.0.0", LastSeen: &seen},
		{ID: "00bb", Product: "pump", State: "quarantined", Health: script, Verdict: "", Version: script},
	}, nil
}

func (reader) FleetDevice(_ context.Context, id string) (fleet.Detail, error) {
	if id != "00bb" {
		return fleet.Detail{}, fault.New(fault.NotFound, "device.unknown", "device "+id+" is not registered", "")
	}
	return fleet.Detail{Device: fleet.Device{ID: id, State: "quarantined", Version: script}, HealthText: script, Reasons: []string{script}}, nil
}

func (reader) FleetTimeline(context.Context, string, int) ([]fleet.Line, error) {
	i := uint64(7)
	return []fleet.Line{
		{At: time.Unix(1, 0), Kind: "device.provisioned", Actor: "station", Log: "events", Index: &i, Text: script},
		{At: time.Unix(2, 0), Kind: "device.refused", Actor: "device:00bb", Log: "events"},
	}, nil
}

func (reader) FleetFacts(context.Context, fleet.FactQuery) ([]fleet.Line, error) { return nil, nil }

type sessions struct{}

func (sessions) Begin(_ context.Context, token string) (string, time.Time, error) {
	if token != "good" {
		return "", time.Time{}, fault.New(fault.Denied, "x", "no", "")
	}
	return "secret", time.Now().Add(time.Hour), nil
}

func (sessions) Caller(_ context.Context, secret string) (access.Caller, error) {
	if secret != "secret" {
		return access.Caller{}, fault.New(fault.Denied, "x", "no", "")
	}
	return access.Caller{ID: "person:ann", Kind: access.Person, Roles: []access.Role{access.Viewer}}, nil
}

type noAudit struct{}

func (noAudit) Record(context.Context, access.Decision) error { return nil }

func server(t *testing.T) *httptest.Server {
	t.Helper()
	guard, err := access.NewGuard(noAudit{})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(console.Handler(console.Config{
		Fleet: fleet.NewService(reader{}, guard), Sessions: sessions{}, Log: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(s.Close)
	return s
}

func get(t *testing.T, s *httptest.Server, path, session string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if session != "" {
		req.AddCookie(&http.Cookie{Name: "hallmark-session", Value: session})
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(page)
}

func TestPagesNeedASessionAndAssetsDoNot(t *testing.T) {
	s := server(t)
	for path, want := range map[string]int{
		"/": 303, "/devices/00bb": 303, "/login": 200, "/assets/console.css": 200, "/nowhere": 404, "/assets/../console.go": 404,
	} {
		resp, _ := get(t, s, path, "")
		if path == "/assets/../console.go" && resp.StatusCode != 200 {
			want = resp.StatusCode // a redirect to the clean path will do
		}
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
			t.Errorf("%s: policy %q", path, csp)
		}
	}
	if resp, _ := get(t, s, "/", "stolen"); resp.StatusCode != 303 {
		t.Errorf("an unknown session: %d", resp.StatusCode)
	}
}

func TestWhatDevicesSayCannotBecomeMarkup(t *testing.T) {
	s := server(t)
	for _, path := range []string{"/", "/devices/00bb", "/?state=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&product=%22%3E%3Cscript%3E"} {
		resp, page := get(t, s, path, "secret")
		if resp.StatusCode != 200 || strings.Contains(page, "<script>alert") || strings.Contains(page, `"><script>`) {
			t.Errorf("%s: status %d, markup injected: %v", path, resp.StatusCode, strings.Contains(page, "<script>alert"))
		}
	}
}

func TestThePagesSayWhatMatters(t *testing.T) {
	s := server(t)
	_, page := get(t, s, "/", "secret")
	if strings.Contains(page, "@when") {
		t.Error("a template's call is shown as text")
	}
	for _, want := range []string{"2 devices", "quarantined", "affirming", "unknown", `href="/devices/00bb"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the fleet page does not say %q", want)
		}
	}
	_, page = get(t, s, "/devices/00bb", "secret")
	for _, want := range []string{"device.provisioned", "/api/v1/log/events/entries/7", "not yet placed"} {
		if !strings.Contains(page, want) {
			t.Errorf("the device page does not say %q", want)
		}
	}
	if resp, page := get(t, s, "/devices/00cc", "secret"); resp.StatusCode != 404 || !strings.Contains(page, "not registered") {
		t.Errorf("unknown device: %d", resp.StatusCode)
	}
	if _, page := get(t, s, "/?state=lost", "secret"); !strings.Contains(page, "hallmark order import") {
		t.Error("an empty list does not say what to do")
	}
}

func TestSigningIn(t *testing.T) {
	s := server(t)
	if resp, page := get(t, s, "/login?once=bad", ""); resp.StatusCode != 403 || !strings.Contains(page, "not valid") {
		t.Errorf("a bad code: %d", resp.StatusCode)
	}
	resp, _ := get(t, s, "/login?once=good", "")
	c := resp.Cookies()
	if len(c) != 1 || c[0].Value != "secret" || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode {
		t.Errorf("cookies %v", c)
	}
}
