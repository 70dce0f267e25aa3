package httpapi_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/rollout"
)

func TestAChangeCanRelyOnWhatWasSeen(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.issue("olga", []access.Role{access.Operator})
	w.issue("vera", []access.Role{access.Viewer})
	w.issue("rita", []access.Role{access.ReleaseManager})
	for _, c := range []struct {
		who, path, change, method string
		in                        any
	}{
		{"olga", "/devices/" + subject, "/devices/" + subject + "/moves", http.MethodPost, httpapi.MoveRequest{Event: "maintain", Reason: "r"}},
		{"olga", "/devices/" + spare, "/devices/" + spare + "/legitimacy", http.MethodPut, httpapi.LegitimacyRequest{Legitimacy: "resold", Reason: "r"}},
		{"olga", "/findings/f1", "/findings/f1/close", http.MethodPost, httpapi.Reason{Reason: "r"}},
		{"olga", "/remedies/" + heldCase, "/remedies/" + heldCase + "/dismiss", http.MethodPost, httpapi.Reason{Reason: "r"}},
		{"olga", "/retirements/" + ending, "/retirements/" + ending + "/write-off", http.MethodPost, httpapi.Reason{Reason: "r"}},
		{"rita", "/releases/" + releaseDigest(), "/releases/" + releaseDigest() + "/withdraw", http.MethodPost, httpapi.Reason{Reason: "r"}},
		{"olga", "/rollouts/ro-1", "/rollouts/ro-1/abort", http.MethodPost, httpapi.Reason{Reason: "r"}},
	} {
		status, data, h := w.call(c.who, http.MethodGet, "/api/v1"+c.path, nil, nil)
		tag := h.Get("ETag")
		if status != http.StatusOK || len(tag) < 10 {
			t.Fatalf("%s: %d %s, tag %q", c.path, status, data, tag)
		}
		try := func(who, match string) (int, string) {
			status, data, _ := w.call(who, c.method, "/api/v1"+c.change, c.in, map[string]string{"If-Match": match})
			return status, code(data)
		}
		if status, code := try(c.who, `"other"`); status != http.StatusPreconditionFailed || code != "if-match.changed" {
			t.Errorf("%s: another tag: %d %s", c.change, status, code)
		}
		if status, _ := try(c.who, "W/"+tag); status != http.StatusPreconditionFailed {
			t.Errorf("%s: a weak tag: %d", c.change, status)
		}
		if status, _ := try(c.who, "naked"); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: no tag: %d", c.change, status)
		}
		if status, _ := try("vera", `"other"`); status != http.StatusForbidden {
			t.Errorf("%s: who may not learns something: %d", c.change, status)
		}
		if _, _, h := w.call(c.who, http.MethodGet, "/api/v1"+c.path, nil, nil); h.Get("ETag") != tag {
			t.Errorf("%s changed, and was not to", c.path)
		}
		if status, code := try(c.who, `"other", `+tag); status != http.StatusOK {
			t.Errorf("%s: %d %s", c.change, status, code)
		}
		if status, _ := try(c.who, tag); status == http.StatusOK {
			t.Errorf("%s: the old tag was taken again", c.change)
		}
	}
}

// Of many who saw the same, one changes it.
func TestOfManyWhoSawTheSameOneChangesIt(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.issue("olga", []access.Role{access.Operator})
	_, _, h := w.call("olga", http.MethodGet, "/api/v1/devices/"+subject, nil, nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[int]int{}
	for i := range 24 {
		wg.Go(func() {
			l := []device.Legitimacy{device.Refurbished, device.Resold, device.Unknown}[i%3]
			status, _, _ := w.call("olga", http.MethodPut, "/api/v1/devices/"+subject+"/legitimacy",
				httpapi.LegitimacyRequest{Legitimacy: l, Reason: "r"}, map[string]string{"If-Match": h.Get("ETag")})
			mu.Lock()
			got[status]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if got[http.StatusOK] != 1 || got[http.StatusOK]+got[http.StatusPreconditionFailed]+got[http.StatusConflict] != 24 {
		t.Errorf("%v", got)
	}
}

// pages reads a list to its end in steps, and gives what tells its items apart.
func (w *world) pages(path string, key func(json.RawMessage) string) (out []string) {
	w.t.Helper()
	join := "?"
	if strings.Contains(path, "?") {
		join = "&"
	}
	for after := ""; ; {
		var page httpapi.Page[json.RawMessage]
		status, data, _ := w.call("olga", http.MethodGet, "/api/v1"+path+join+"limit=2&after="+after, nil, nil)
		if err := json.Unmarshal(data, &page); err != nil || status != http.StatusOK || len(page.Items) > 2 {
			w.t.Fatalf("%s: %d %s %v", path, status, data, err)
		}
		for _, i := range page.Items {
			out = append(out, key(i))
		}
		if after = page.Next; after == "" {
			return out
		}
		if len(page.Items) != 2 {
			w.t.Fatalf("%s: a page of %d with a next one", path, len(page.Items))
		}
	}
}

func TestListsComeInPages(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.issue("olga", []access.Role{access.Operator, access.Security, access.ReleaseManager})
	for i := range 5 {
		name := string(rune('a' + i))
		for path, in := range map[string]any{
			"/rollouts": rollout.Spec{
				ID: "ro-" + name, Product: "pump", Release: digestOf(t), Selection: rollout.Selection{All: true},
				Waves: []rollout.Wave{{Percent: 100, Soak: 1, Deadline: 60}}, Reason: "test",
			},
			"/commands":       command(name),
			"/streams/grants": map[string]any{"id": "p" + name, "reader": "person:x", "product": "pump", "stream": "s", "purpose": "p", "until": "2040-01-01T00:00:00Z"},
		} {
			if status, data, _ := w.call("olga", http.MethodPost, "/api/v1"+path, in, nil); status != http.StatusOK {
				t.Fatalf("%s: %d %s", path, status, data)
			}
		}
	}
	member := func(names ...string) func(json.RawMessage) string {
		return func(data json.RawMessage) string {
			for _, n := range names {
				var m map[string]json.RawMessage
				if err := json.Unmarshal(data, &m); err != nil {
					t.Fatal(err)
				}
				data = m[n]
			}
			return string(data)
		}
	}
	for path, c := range map[string]struct {
		key  func(json.RawMessage) string
		want int
	}{
		"/rollouts":                             {member("spec", "id"), 6},
		"/rollouts?product=pump":                {member("spec", "id"), 6},
		"/devices/" + subject + "/commands":     {member("command"), 6},
		"/streams/grants":                       {member("id"), 7},
		"/products":                             {member("id"), 2},
		"/orders":                               {member("id"), 1},
		"/releases?product=pump":                {member("digest"), 1},
		"/products/pump/artifacts":              {member("digest"), 3},
		"/findings":                             {member("id"), 1},
		"/remedies":                             {member("device"), 1},
		"/retirements":                          {member("device"), 1},
		"/warrants":                             {member("uid"), 1},
		"/issuers":                              {member("id"), 4},
		"/revocations":                          {member("id"), 0},
		"/commands/c1/devices":                  {member("device"), 1},
		"/devices/" + subject + "/certificates": {member("serial"), 0},
	} {
		got := w.pages(strings.TrimSuffix(path, "?"), c.key)
		seen := map[string]bool{}
		for _, k := range got {
			seen[k] = true
		}
		if len(got) != c.want || len(seen) != c.want {
			t.Errorf("%s: %v, want %d", path, got, c.want)
		}
	}
}

func digestOf(t *testing.T) []byte {
	t.Helper()
	_, _, d, err := theRelease()
	if err != nil {
		t.Fatal(err)
	}
	return d
}
