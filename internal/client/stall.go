package client

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// How long nothing may happen in a call. A call as a whole may take as long as it takes: what it carries may be gigabytes, over a line that is slow.
const (
	stall   = time.Minute      // between one part of a body and the next, either way
	answers = 2 * time.Minute  // from the end of a request to the beginning of its answer
	works   = 15 * time.Minute // the same, where the server works through what was sent: firmware, records, lists
)

var errStalled = errors.New("nothing came or went any more: the line or the server hangs")

// working gives a client for a call that the server has long work with.
func (c *Client) working() *Client {
	other := *c
	other.patience = works
	return &other
}

// watch ends a call in which nothing happens.
type watch struct {
	ctx      context.Context //nolint:containedctx // the call's: what it ended with is told to who reads
	timer    *time.Timer
	patience time.Duration // for an answer to begin
}

func (c *Client) watch(ctx context.Context) (watched context.Context, w *watch, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w = &watch{ctx: ctx, patience: cmp.Or(c.patience, answers)}
	w.timer = time.AfterFunc(w.patience, func() { cancel(errStalled) })
	return ctx, w, func() {
		w.timer.Stop()
		cancel(nil)
	}
}

// why says of an error whether it is the watch's.
func (w *watch) why(err error) error {
	if err != nil && errors.Is(context.Cause(w.ctx), errStalled) {
		return errStalled
	}
	return err
}

// do sends a request, and watches it and its answer.
func (w *watch) do(c *http.Client, req *http.Request) (*http.Response, error) {
	if req.Body != nil && req.Body != http.NoBody {
		w.timer.Reset(stall)
		req.Body = &moving{ReadCloser: req.Body, w: w, then: w.patience}
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, w.why(err)
	}
	w.timer.Reset(stall)
	resp.Body = &moving{ReadCloser: resp.Body, w: w, then: stall}
	return resp, nil
}

// moving tells the watch of each part that is read.
type moving struct {
	io.ReadCloser
	w    *watch
	then time.Duration // how long nothing may happen behind its end
}

func (m *moving) Read(b []byte) (int, error) {
	n, err := m.ReadCloser.Read(b)
	switch {
	case errors.Is(err, io.EOF):
		m.w.timer.Reset(m.then)
	case err == nil:
		m.w.timer.Reset(stall)
	default:
		err = m.w.why(err)
	}
	return n, err
}
