package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Stream is a place in the stream of facts: it can be left and found again.
type Stream struct {
	Last  string        // ID of the last event; empty: from now on
	Retry time.Duration // how long to wait before coming back, as the server says
	Begun bool          // the server answered, this time or before
}

// Bounds of what a server may send as one event.
const (
	maxEventLine = 64 << 10
	maxRetry     = time.Minute
)

// ErrMissed says that the server could not tell all that happened meanwhile.
var ErrMissed = errors.New("more happened than the server tells at once")

// Events has tell given each fact as it is placed, with its bytes as the server wrote them, until the stream breaks, ctx ends or
// tell gives an error. Called again with the same s it goes on where it was. tell is given ErrMissed, and no fact, when there is a gap.
func (c *Client) Events(ctx context.Context, s *Stream, tell func(e Event, data []byte, gap error) error) error {
	h := http.Header{"Accept": {"text/event-stream"}}
	if s.Last != "" {
		h.Set("Last-Event-ID", s.Last)
	}
	req, err := c.request(ctx, http.MethodGet, "/events", h, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: c.http.Transport}).Do(req) // a stream has no end that could come too late
	if err != nil {
		return unreached(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxEventLine))
		if err != nil {
			return err
		}
		return problem(resp, data)
	}
	s.Begun = true
	return readEvents(resp.Body, s, tell)
}

// readEvents reads server-sent events (HTML Living Standard §9.2.6): lines "field: value", an empty one after each event. An event
// is told before its ID is taken over: one that was cut off is told again. What is no event may bear one too: where the stream begins.
func readEvents(r io.Reader, s *Stream, tell func(e Event, data []byte, gap error) error) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 4096), maxEventLine)
	var id, kind string
	var data []byte
	for in.Scan() {
		field, value, _ := strings.Cut(in.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			id = value
		case "event":
			kind = value
		case "data":
			data = []byte(value) // the server writes one line
		case "retry":
			if ms, err := strconv.ParseUint(value, 10, 31); err == nil {
				s.Retry = min(time.Duration(ms)*time.Millisecond, maxRetry)
			}
		}
		if in.Text() != "" {
			continue
		}
		if err := tellOne(kind, data, tell); err != nil {
			return err
		}
		if id != "" {
			s.Last = id
		}
		id, kind, data = "", "", nil
	}
	return in.Err()
}

func tellOne(kind string, data []byte, tell func(e Event, data []byte, gap error) error) error {
	switch kind {
	case "reset":
		return tell(Event{}, nil, ErrMissed)
	case "fact":
		var e Event
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("the server sent an event that this version of hallmark does not know: %w", err)
		}
		return tell(e, data, nil)
	}
	return nil
}
