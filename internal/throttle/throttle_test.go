package throttle_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/throttle"
)

// door is an API that knows one token, behind a limiter whose clock the test holds.
type door struct {
	http.Handler
	now   time.Time
	asked int // what got through to it
}

func newDoor() *door {
	d := &door{now: time.Unix(1_900_000_000, 0)}
	d.Handler = throttle.New(func() time.Time { return d.now }).Watch(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.asked++
		switch r.Header.Get("Authorization") {
		case "good", "good too":
			w.WriteHeader(http.StatusOK)
		case "foreign page":
			w.WriteHeader(http.StatusForbidden)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}), func(_ *http.Request, status int) throttle.Outcome {
		switch status {
		case http.StatusUnauthorized:
			return throttle.Failed
		case http.StatusOK:
			return throttle.Proven
		}
		return throttle.Neither
	})
	return d
}

func (d *door) ask(from, with string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = from
	r.Header.Set("Authorization", with)
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

func (d *door) hammer(from string, n int) (throttled int) {
	for i := range n {
		if d.ask(from, "wrong "+strconv.Itoa(i)).Code == http.StatusTooManyRequests {
			throttled++
		}
	}
	return throttled
}

func TestWhoHammersWaitsAndNobodyElse(t *testing.T) {
	for name, c := range map[string]struct {
		from, with string
		want       int
	}{
		"the address that failed":                      {"192.0.2.1:1", "wrong", 429},
		"its first good token, which could be a guess": {"192.0.2.1:1", "good too", 429},
		"a token that was good before, from there":     {"192.0.2.1:1", "good", 200},
		"another address":                              {"192.0.2.2:1", "wrong", 401},
		"another address with a token":                 {"192.0.2.2:1", "good too", 200},
		"the same written as IPv6":                     {"[::ffff:192.0.2.1]:9", "wrong", 429},
		"another host of the IPv6 network that failed": {"[2001:db8::99]:1", "wrong", 429},
		"a host of another IPv6 network":               {"[2001:db8:0:1::1]:1", "wrong", 401},
		"what was answered without judging its secret": {"192.0.2.1:1", "foreign page", 429},
	} {
		d := newDoor()
		d.ask("192.0.2.1:1", "good")
		d.ask("192.0.2.1:1", "foreign page")
		for _, from := range []string{"192.0.2.1:1", "[2001:db8::1]:1"} {
			if got := d.hammer(from, 100); got != 100-throttle.Burst {
				t.Fatalf("%d of 100 failures from %s were throttled", got, from)
			}
		}
		w := d.ask(c.from, c.with)
		if w.Code != c.want {
			t.Errorf("%s: %d, want %d", name, w.Code, c.want)
		}
		if s, err := strconv.Atoi(w.Header().Get("Retry-After")); c.want == 429 && (err != nil || s < 1 || s > 60) {
			t.Errorf("%s: Retry-After %q", name, w.Header().Get("Retry-After"))
		}
		if ct := w.Header().Get("Content-Type"); c.want == 429 && ct != "application/problem+json" {
			t.Errorf("%s: %s", name, ct)
		}
		before := d.asked
		d.hammer("192.0.2.1:1", 50)
		if d.asked != before {
			t.Errorf("%s: %d more attempts got through", name, d.asked-before)
		}
		d.now = d.now.Add(throttle.Every)
		if d.ask("192.0.2.1:1", "good too").Code != 200 {
			t.Errorf("%s: whoever waited as told is refused", name)
		}
	}
}

func TestATokenThatWasGoodAndIsNoMoreIsOneMoreFailure(t *testing.T) {
	now, revoked := time.Unix(1_900_000_000, 0), false
	h := throttle.New(func() time.Time { return now }).Watch(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if revoked {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}), func(_ *http.Request, status int) throttle.Outcome {
		if status == http.StatusUnauthorized {
			return throttle.Failed
		}
		return throttle.Neither
	})
	through := 0
	for range 100 {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "once good")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		revoked = true
		if w.Code != http.StatusTooManyRequests {
			through++
		}
	}
	if through != throttle.Burst+1 {
		t.Errorf("%d got through", through)
	}
}

// Many addresses that fail a little each slow each other down, and nobody who has not failed.
func TestFailuresFromEverywhereSlowOnlyThoseWhoFailed(t *testing.T) {
	d := newDoor()
	for i := range 50 {
		d.hammer(fmt.Sprintf("198.51.100.%d:1", i), 10)
	}
	if got := d.ask("198.51.100.1:1", "wrong").Code; got != 429 {
		t.Errorf("who has failed of late: %d", got)
	}
	if got := d.ask("203.0.113.1:1", "good too").Code; got != 200 {
		t.Errorf("who has not: %d", got)
	}
}

// Attempts at one time are counted before their outcome is known.
func TestAttemptsAtOneTime(t *testing.T) {
	hold, arrived := make(chan struct{}), make(chan struct{}, 100)
	h := throttle.New(time.Now).Watch(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-hold
		w.WriteHeader(http.StatusUnauthorized)
	}), func(*http.Request, int) throttle.Outcome { return throttle.Failed })
	ask := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		return w.Code
	}
	var wg sync.WaitGroup
	for range throttle.Burst {
		wg.Go(func() { ask() })
		<-arrived
	}
	if got := ask(); got != http.StatusTooManyRequests {
		t.Errorf("one more than may fail: %d", got)
	}
	close(hold)
	wg.Wait()
}
