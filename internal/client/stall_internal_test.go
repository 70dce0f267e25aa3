package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// far is a server at the other end of a slow line.
type far struct {
	part  time.Duration // between one part and the next, each way
	think time.Duration // before it answers
	parts int           // after which nothing comes or goes any more; 0: all of them
}

func (f far) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f far) RoundTrip(r *http.Request) (*http.Response, error) {
	buf := make([]byte, 1<<10)
	for n := 1; r.Body != nil; n++ {
		if _, err := r.Body.Read(buf); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		d := f.part
		if n == f.parts {
			d = 24 * time.Hour
		}
		if err := f.pause(r.Context(), d); err != nil {
			return nil, err
		}
	}
	if err := f.pause(r.Context(), f.think); err != nil {
		return nil, err
	}
	answer := &slow{ctx: r.Context(), far: f, r: strings.NewReader(`{"digest":"00ff",` + strings.Repeat(" ", 30<<10) + `"size":1}`)}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: answer, Request: r}, nil
}

type slow struct {
	far
	ctx context.Context
	r   io.Reader
}

func (s *slow) Read(b []byte) (int, error) {
	if err := s.pause(s.ctx, s.part); err != nil {
		return 0, err
	}
	return s.r.Read(b[:min(len(b), 1<<10)])
}

func (s *slow) Close() error { return nil }

// What is large takes as long as it takes; what hangs is given up.
func TestACallEndsWhenNothingMoves(t *testing.T) {
	for name, c := range map[string]struct {
		far far
		ok  bool
	}{
		"a slow line":                    {far{part: stall - time.Second}, true},
		"a line that hangs":              {far{part: time.Second, parts: 10}, false},
		"a server that works":            {far{think: works - time.Second}, true},
		"a server that hangs":            {far{think: works + time.Second}, false},
		"an answer that hangs":           {far{part: stall + time.Second}, false},
		"quick, and a long upload of it": {far{part: time.Second}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl := New("http://far.example", "t", nil)
				cl.http.Transport = c.far
				d, err := cl.Upload(t.Context(), "p", "app", false, bytes.NewReader(make([]byte, 300<<10)))
				if c.ok != (err == nil) || c.ok && len(d) != 2 || !c.ok && !errors.Is(err, errStalled) {
					t.Errorf("%x, %v", d, err)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // what is answered at once elsewhere is not waited for so long
		cl := New("http://far.example", "t", nil)
		cl.http.Transport = far{think: answers + time.Second}
		if _, err := cl.Summary(t.Context()); !errors.Is(err, errStalled) {
			t.Errorf("%v", err)
		}
	})
}
