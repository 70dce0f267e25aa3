package httpapi_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
)

// Who is limited to a part is told of what is elsewhere just what they are told of what is nowhere.
func TestWhatIsElsewhereIsAsWhatIsNowhere(t *testing.T) {
	w := newWorld(t)
	w.start()
	roles := access.Roles()[:7] // all but the administrator's
	w.issue("valve", roles, "valve")
	w.issue("us", roles, "pump/us")
	because := map[string]string{"reason": "x"}
	const nowhere = "abcdefabcdefabcdefabcdefabcdefab"
	for _, ask := range []struct {
		method, path, id string
		in               any
	}{
		{http.MethodGet, "/devices/" + subject, subject, nil},
		{http.MethodGet, "/devices/" + groupless, groupless, nil},
		{http.MethodGet, "/devices/" + subject + "/commands", subject, nil},
		{http.MethodGet, "/devices/" + subject + "/settings", subject, nil},
		{http.MethodGet, "/devices/" + subject + "/certificates", subject, nil},
		{http.MethodGet, "/findings/f1", "f1", nil},
		{http.MethodGet, "/remedies/" + heldCase, heldCase, nil},
		{http.MethodGet, "/retirements/" + ending, ending, nil},
		{http.MethodGet, "/retirements/" + ending + "/proof", ending, nil},
		{http.MethodGet, "/rollouts/ro-1", "ro-1", nil},
		{http.MethodGet, "/rollouts/ro-1/devices", "ro-1", nil},
		{http.MethodGet, "/commands/c1", "c1", nil},
		{http.MethodGet, "/commands/c1/devices", "c1", nil},
		{http.MethodGet, "/orders/ord-1", "ord-1", nil},
		{http.MethodGet, "/proposals/0p1", "0p1", nil},
		{http.MethodPost, "/proposals/0p1/approve", "0p1", map[string]string{}},
		{http.MethodPost, "/proposals/0p1/run", "0p1", nil},
		{http.MethodPost, "/findings/f1/close", "f1", because},
		{http.MethodPost, "/remedies/" + heldCase + "/dismiss", heldCase, because},
		{http.MethodPost, "/retirements/" + ending + "/write-off", ending, because},
		{http.MethodPost, "/rollouts/ro-1/start", "ro-1", nil},
		{http.MethodPost, "/commands/c1/cancel", "c1", because},
		{http.MethodPost, "/orders/ord-1/close", "ord-1", because},
		{http.MethodPost, "/devices/" + subject + "/moves", subject, map[string]string{"event": "lose", "reason": "x"}},
		{http.MethodPost, "/groups", subject, map[string]any{"devices": []string{subject}, "group": "a", "reason": "x"}},
		{http.MethodPost, "/streams/read", subject, map[string]any{"device": subject, "stream": "s", "purpose": "p", "kem": 16, "key": "AA=="}},
	} {
		for _, who := range []string{"valve", "us"} {
			for _, tag := range []string{"", `"x"`} {
				other := nowhere[:len(ask.id)]
				header := map[string]string{}
				if tag != "" && ask.method != http.MethodGet {
					header["If-Match"] = tag
				}
				in := ask.in
				status, data, _ := w.call(who, ask.method, "/api/v1"+ask.path, in, header)
				if m, ok := in.(map[string]any); ok {
					in = aboutAnother(m, ask.id, other)
				}
				got, told, _ := w.call(who, ask.method, "/api/v1"+strings.ReplaceAll(ask.path, ask.id, other), in, header)
				if status != http.StatusForbidden || status != got || string(data) != strings.ReplaceAll(string(told), other, ask.id) {
					t.Errorf("%s %s %s %s:\nof what is elsewhere %d %s\nof what is nowhere   %d %s", who, ask.method, ask.path, tag, status, data, got, told)
				}
			}
		}
	}
}

// aboutAnother is a body about another device.
func aboutAnother(in map[string]any, id, other string) map[string]any {
	out := map[string]any{}
	for k, v := range in {
		switch v := v.(type) {
		case string:
			out[k] = strings.ReplaceAll(v, id, other)
		case []string:
			out[k] = []string{other}
		default:
			out[k] = v
		}
	}
	return out
}
