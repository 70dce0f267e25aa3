// Package client calls a Hallmark instance from Go.
//
// Over all stages, for programs of others. api.gen.go is generated from the API's description (`make clients`): one method an
// operation, named as there. What is written by hand is here: a problem (RFC 9457) is a Go error with its stable code, what changes
// something carries an Idempotency-Key, lists are iterated over all their pages, and events are followed.
package client

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"time"
)

// Hallmark is one caller's line to one instance. Its methods are the operations; use those that end in WithResponse, whose JSON200 is
// set whenever their error is nil, unless the parameters say HallmarkPropose and it takes a second person: then it is JSON202, the proposal.
// It is safe for concurrent use.
type Hallmark struct{ *ClientWithResponses }

// NewHallmark makes a client of the instance at base, http(s)://host:port, with an access token, hmk_…. With WithHTTPClient it goes
// over an *http.Client of yours, which trusts the instance's root or has a timeout; without it only a context limits a call.
func NewHallmark(base, token string, opts ...ClientOption) (*Hallmark, error) {
	c, err := NewClient(base, opts...)
	if err != nil {
		return nil, err
	}
	c.Client = caller{token: token, to: c.Client}
	return &Hallmark{&ClientWithResponses{ClientInterface: c}}, nil
}

// Problem is what the server answered instead of success.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"` // what is wrong, naming the thing, and the remedy
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"` // in the request, e.g. body.name
	} `json:"errors"`
}

// Error implements error.
func (p *Problem) Error() string {
	s := p.Detail
	if s == "" {
		s = p.Title
	}
	for _, e := range p.Errors {
		s += "; " + e.Location + ": " + e.Message
	}
	return s
}

// Code gives the stable code of a problem, as docs/reference/faults.md lists them: "product.exists". It is empty when err is no
// problem of the server's, or one of plain HTTP.
func Code(err error) string {
	if p, ok := errors.AsType[*Problem](err); ok {
		if code, ours := strings.CutPrefix(p.Type, "urn:hallmark:fault:"); ours {
			return code
		}
	}
	return ""
}

const maxProblem = 1 << 20 // bytes that are read of a failure

// caller sends requests in somebody's name.
type caller struct {
	token string
	to    HttpRequestDoer
}

// Do implements HttpRequestDoer. A key of its own also has net/http repeat a request whose connection broke before an answer began.
func (c caller) Do(r *http.Request) (*http.Response, error) {
	r.Header.Set("Authorization", "Bearer "+c.token)
	if r.Method != http.MethodGet && r.Header.Get("Idempotency-Key") == "" {
		r.Header.Set("Idempotency-Key", rand.Text())
	}
	resp, err := c.to.Do(r)
	if err != nil || resp.StatusCode < 300 {
		return resp, err
	}
	defer resp.Body.Close()
	p := &Problem{}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil || json.Unmarshal(data, p) != nil {
		p.Detail = strings.TrimSpace(string(data[:min(len(data), 512)])) // not ours: something between answered
	}
	p.Status = resp.StatusCode
	if p.Title == "" {
		p.Title = resp.Status
	}
	return nil, p
}

// All goes over every row of a list. page gives the rows behind after, nil for the first ones, and where the next page begins, nil on
// the last. What goes wrong is the last pair's error.
func All[T any](ctx context.Context, page func(ctx context.Context, after *string) ([]T, *string, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		for after := (*string)(nil); ; {
			rows, next, err := page(ctx, after)
			if err != nil {
				yield(none, err)
				return
			}
			for _, row := range rows {
				if !yield(row, nil) {
					return
				}
			}
			if next == nil || *next == "" {
				return
			}
			if after != nil && *after == *next {
				yield(none, fmt.Errorf("the page behind %q says that it is its own next one", *next))
				return
			}
			after = next
		}
	}
}

// Event is a fact that was placed in a log.
type Event struct {
	ID      string    `json:"-"` // where in the stream it is: give it to Follow to go on behind it
	Missed  bool      `json:"-"` // no fact: more happened since than is told at once; read again what you show
	Log     string    `json:"log"`
	Index   uint64    `json:"index"`
	Kind    string    `json:"kind"`
	Subject string    `json:"subject"`
	At      time.Time `json:"at"`
}

const maxEvent = 64 << 10 // bytes of one line

// Follow tells events as they happen; last is the ID of the last one you know, empty for from now on. It ends with an error when the
// connection does, or ctx: wait a little, and follow again from the ID that comes with it, which is there though no event was.
func (h *Hallmark) Follow(ctx context.Context, last string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		params := &StreamEventsParams{}
		if last != "" {
			params.LastEventID = &last
		}
		resp, err := h.StreamEvents(ctx, params)
		if err != nil {
			yield(Event{ID: last}, err)
			return
		}
		defer resp.Body.Close()
		in := bufio.NewScanner(resp.Body)
		in.Buffer(nil, maxEvent)
		for event, err := range events(in, last) {
			if !yield(event, err) {
				return
			}
		}
	}
}

// events reads server-sent events as this server writes them: lines "field: value", the data on one, and an empty one behind each. A line
// without a field is a comment. What is no event may bear an ID: where the stream begins.
func events(in *bufio.Scanner, last string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		id, kind, data := last, "", ""
		for in.Scan() {
			field, value, _ := strings.Cut(in.Text(), ": ")
			switch field {
			case "id":
				id = value
			case "event":
				kind = value
			case "data":
				data = value
			}
			if in.Text() != "" {
				continue
			}
			e := Event{ID: id, Missed: kind == "reset"}
			if kind == "fact" {
				if err := json.Unmarshal([]byte(data), &e); err != nil {
					yield(Event{ID: last}, fmt.Errorf("event %s: %w", id, err))
					return
				}
			}
			if (e.Missed || kind == "fact") && !yield(e, nil) {
				return
			}
			last, kind, data = id, "", ""
		}
		err := in.Err()
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		yield(Event{ID: last}, err)
	}
}
