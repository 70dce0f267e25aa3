package client

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// A change whose answer is lost is asked for once more, with the key it had; what only reads is not, and has none.
func TestALostAnswerIsAskedForWithTheSameKey(t *testing.T) {
	var keys, matches []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys, matches = append(keys, r.Header.Get("Idempotency-Key")), append(matches, r.Header.Get("If-Match"))
		if len(keys) == 1 || r.Method == http.MethodGet {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write([]byte(`{"id":"d1"}`))
	}))
	defer s.Close()
	c := New(s.URL, "hmk_x", nil).OnlyIf("7")
	if got, err := c.Move(t.Context(), "d1", httpapi.MoveRequest{Event: "lose", Reason: "x"}); err != nil || got.ID != "d1" {
		t.Fatalf("%+v %v", got, err)
	}
	if len(keys) != 2 || keys[0] == "" || keys[0] != keys[1] || matches[1] != `"7"` {
		t.Errorf("keys %q, If-Match %q", keys, matches)
	}
	first := keys[0]
	keys = append(keys[:0], "")
	if _, err := c.Move(t.Context(), "d1", httpapi.MoveRequest{Event: "lose", Reason: "x"}); err != nil || keys[1] == first {
		t.Errorf("%v, keys %q", err, keys)
	}
	if _, err := c.Product(t.Context(), "pump"); err == nil || keys[len(keys)-1] != "" || matches[len(matches)-1] != "" {
		t.Errorf("%v, keys %q, If-Match %q", err, keys, matches)
	}
}

// Who comes back to a stream says where it was, and is told what is missing.
func TestEventsGoOnWhereTheyBroke(t *testing.T) {
	var came []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		came = append(came, r.Header.Get("Last-Event-ID"))
		switch len(came) {
		case 1: // it ends before anything happens
			_, _ = w.Write([]byte("retry: 5\nid: control:0\n: hello\n\n"))
			return
		case 2:
			_, _ = w.Write([]byte("id: control:1\nevent: fact\ndata: {\"log\":\"control\",\"kind\":\"a\"}\n\nid: control:2\nevent: fact\ndata: {\"lo"))
			return
		}
		_, _ = w.Write([]byte("id: control:9\nevent: reset\ndata: {}\n\n"))
	}))
	defer s.Close()
	var told []string
	var gaps int
	st := Stream{}
	for range 4 {
		if err := New(s.URL, "hmk_x", nil).Events(t.Context(), &st, func(e Event, _ []byte, gap error) error {
			if errors.Is(gap, ErrMissed) {
				gaps++
			} else {
				told = append(told, e.Kind)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(came, []string{"", "control:0", "control:1", "control:9"}) || !slices.Equal(told, []string{"a"}) || gaps != 2 || st.Retry != 5*time.Millisecond || !st.Begun {
		t.Errorf("came with %q, told %q, %d gaps, %+v", came, told, gaps, st)
	}
}

// A list is as long as its window, and says where it goes on.
func TestListsAreAsLongAsTheirWindow(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch q := r.URL.Query(); {
		case q.Get("after") == "a" && q.Get("limit") == "1":
			_, _ = w.Write([]byte(`{"items":[{"id":"b"}],"next":"b"}`))
		case q.Get("after") == "":
			_, _ = w.Write([]byte(`{"items":[{"id":"a"}],"next":"a"}`))
		default:
			_, _ = w.Write([]byte(`{"items":[{"id":"b"},{"id":"c"}]}`))
		}
	}))
	defer s.Close()
	for limit, want := range map[int]struct {
		rows int
		next string
	}{1: {1, "a"}, 2: {2, "b"}, 3: {3, ""}, 0: {3, ""}} {
		w := Window{Limit: limit}
		ms, err := New(s.URL, "hmk_x", nil).Within(&w).Members(context.Background())
		if err != nil || len(ms) != want.rows || w.Next != want.next {
			t.Errorf("limit %d: %v, next %q, %v", limit, ms, w.Next, err)
		}
	}
}

func FuzzEvents(f *testing.F) {
	f.Add("retry: 2000\n: hi\n\nid: control:1,events:2\nevent: fact\ndata: {\"log\":\"control\",\"index\":0}\n\n")
	f.Add("event: reset\ndata: {}\n\n")
	f.Add("data\n\nevent: fact\ndata: [\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		s := Stream{}
		_ = readEvents(strings.NewReader(text), &s, func(_ Event, data []byte, gap error) error {
			if gap == nil && len(data) == 0 {
				t.Error("a fact of nothing was told")
			}
			return nil
		})
		if s.Retry > maxRetry || strings.ContainsAny(s.Last, "\n") {
			t.Errorf("%+v", s)
		}
	})
}
