package httpapi_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/monitor"
)

// late begins a request and gives what sends its body and reads the answer's status. The server has asked for the body by then: it
// knows who asks.
func (w *world) late(who, method, path, body string, header ...string) func() int {
	w.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(w.t.Context(), "tcp", strings.TrimPrefix(w.api, "http://"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n",
		method, path, w.tokens[who], len(body))
	for _, h := range header {
		fmt.Fprintf(conn, "%s\r\n", h)
	}
	fmt.Fprint(conn, "\r\n")
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, " 100 ") {
		w.t.Fatalf("the server does not want the body: %q %v", line, err)
	}
	if _, err := in.ReadString('\n'); err != nil {
		w.t.Fatal(err)
	}
	return func() int {
		fmt.Fprint(conn, body)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
}

// Who has been ended does not go on with a request that was begun before.
func TestWhoAsksIsWhoItIsOnceAllIsSaid(t *testing.T) {
	for name, header := range map[string][]string{"plain": nil, "with a key": {"Idempotency-Key: k"}, "proposed": {"Hallmark-Propose: why"}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			w.issue("olga", []access.Role{access.Operator})
			finish := w.late("olga", http.MethodPost, "/api/v1/findings/f1/close", `{"reason":"seen"}`, header...)
			status, data, _ := w.call("root", http.MethodPost, "/api/v1/members/person:olga/end", nil, nil)
			w.is(status, data, http.StatusOK, "")
			if got := finish(); got != http.StatusUnauthorized {
				t.Errorf("answered %d", got)
			}
			_, data, _ = w.call("root", http.MethodGet, "/api/v1/findings/f1", nil, nil)
			var f monitor.Finding
			if err := json.Unmarshal(data, &f); err != nil || !f.Closed.IsZero() {
				t.Errorf("the finding: %s %v", data, err)
			}
		})
	}
}

// A request that says who it is is judged by that alone; and what is answered is for who asked.
func TestWhatIsSaidIsNotMended(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.issue("vera", []access.Role{access.Viewer})
	good := w.tokens["vera"]
	form := "token=" + good
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.api+"/login", strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	session := resp.Cookies()[0]
	for said, want := range map[string]int{
		"": http.StatusOK, "bearer " + good: http.StatusOK, "Bearer hmk_no": http.StatusUnauthorized, "bearer hmk_no": http.StatusUnauthorized,
		"Basic dmVyYTp2ZXJh": http.StatusUnauthorized, "Bearer": http.StatusUnauthorized, good: http.StatusUnauthorized,
	} {
		header := map[string]string{"Cookie": session.Name + "=" + session.Value}
		if said != "" {
			header["Authorization"] = said
		}
		status, data, h := w.call("", http.MethodGet, "/api/v1/me", nil, header)
		if status != want || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%.10q: %d %s, Cache-Control %q; want %d", said, status, data, h.Get("Cache-Control"), want)
		}
	}
}

// What a second person sees is what is read: not one of two members of one name, of which the check sees the other.
func TestABodyHasOneReading(t *testing.T) {
	w := newWorld(t)
	w.start()
	long := strings.Repeat("x", 4000)
	for _, body := range []string{
		`{"name":"n","query":{"state":"` + long + `"},"query":{"state":"active"}}`,
		`{"name":"n","query":{"state":"active","State":"` + long + `"}}`,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.api+"/api/v1/me/queries", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+w.tokens["root"])
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%.60s: %d", body, resp.StatusCode)
		}
	}
}
