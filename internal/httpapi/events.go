package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Event is the data of one server-sent event: a fact that has its place in a log.
type Event struct {
	Log     ledger.Log `json:"log"`
	Index   uint64     `json:"index"`
	Kind    string     `json:"kind"`
	Subject string     `json:"subject"`
	At      time.Time  `json:"at"`
}

// EventsConfig is what Events works with; every field without a default must be set.
type EventsConfig struct {
	Ledger EventLedger
	// Places tells where the subjects of facts are, as access.Join names it; of those that are nowhere, or nobody knows where, it is silent.
	Places    func(ctx context.Context, subjects []string) (map[string]string, error)
	Log       *slog.Logger
	Poll      time.Duration // between looks at the logs while somebody listens and nothing wakes it; default 250 ms
	Heartbeat time.Duration // default 15 s
	Clients   int           // at most in all; default 2048
	PerCaller int           // default 16
}

// EventLedger reads the logs; *ledger.Reader does.
type EventLedger interface {
	Size(ctx context.Context, log ledger.Log) (uint64, error)
	Entries(ctx context.Context, log ledger.Log, from, to uint64) ([][]byte, error)
}

const (
	eventQueue   = 512  // events a client may be behind before it is disconnected
	eventPage    = 512  // entries read at once
	eventCatchUp = 2000 // entries of both logs that a returning client is told; beyond it has to read again what it shows
	writeTimeout = 10 * time.Second
)

// Events tells many clients what is placed in the logs. One goroutine reads, while there are clients; each client has a queue.
type Events struct {
	c EventsConfig

	mu      sync.Mutex
	clients map[*listener]struct{} // guarded by mu
	callers map[string]int         // how many each has; guarded by mu
	at      position               // up to which clients were told; guarded by mu
	stop    context.CancelFunc     // of the reader; nil: it does not run; guarded by mu
	closed  bool                   // guarded by mu

	wake chan struct{}
	done sync.WaitGroup // the reader
}

// position is how far one is in each log: the next index.
type position struct{ control, events uint64 }

func (p *position) of(log ledger.Log) *uint64 {
	if log == ledger.Control {
		return &p.control
	}
	return &p.events
}

func (p position) String() string { return fmt.Sprintf("control:%d,events:%d", p.control, p.events) }

// message is an event as it is sent, and where its subject is; empty: nowhere.
type message struct {
	place string
	data  []byte
}

type listener struct {
	caller string
	queue  chan message // closed when the client was too slow, or all is over
	slow   bool         // set before the queue is closed
}

// NewEvents makes the stream of events. Nothing runs before the first client, or after the last.
func NewEvents(c EventsConfig) *Events {
	if c.Poll == 0 {
		c.Poll = 250 * time.Millisecond
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 15 * time.Second
	}
	if c.Clients == 0 {
		c.Clients = 2048
	}
	if c.PerCaller == 0 {
		c.PerCaller = 16
	}
	return &Events{c: c, clients: map[*listener]struct{}{}, callers: map[string]int{}, wake: make(chan struct{}, 1)}
}

// Wake says that there may be something new.
func (e *Events) Wake() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Close ends every stream, and takes no more. It returns when the reader has ended.
func (e *Events) Close() {
	e.mu.Lock()
	e.closed = true
	for l := range e.clients {
		e.drop(l)
	}
	e.mu.Unlock()
	e.done.Wait()
}

// join adds a client and says from where on it will be told.
func (e *Events) join(ctx context.Context, caller string) (*listener, position, error) {
	full := func(text string) error {
		return fault.New(fault.Unavailable, "events.full", text, "close other streams, or come back later")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return nil, position{}, full("the server is stopping")
	case len(e.clients) >= e.c.Clients:
		return nil, position{}, full(fmt.Sprintf("%d clients are listening already", e.c.Clients))
	case e.callers[caller] >= e.c.PerCaller:
		return nil, position{}, full(fmt.Sprintf("%s has %d streams already", caller, e.c.PerCaller))
	}
	if e.stop == nil {
		at, err := e.sizes(ctx)
		if err != nil {
			return nil, position{}, err
		}
		e.at = at
		reading, stop := context.WithCancel(context.WithoutCancel(ctx)) // it is for everybody, not for who came first
		e.stop = stop
		e.done.Go(func() { e.read(reading) })
	}
	l := &listener{caller: caller, queue: make(chan message, eventQueue)}
	e.clients[l] = struct{}{}
	e.callers[caller]++
	return l, e.at, nil
}

func (e *Events) sizes(ctx context.Context) (p position, err error) {
	if p.control, err = e.c.Ledger.Size(ctx, ledger.Control); err != nil {
		return p, err
	}
	p.events, err = e.c.Ledger.Size(ctx, ledger.Events)
	return p, err
}

// Position is up to where something that is read from now on knows the logs: who then listens from there misses nothing, and may be told
// of what was read already.
func (e *Events) Position(ctx context.Context) (string, error) {
	e.mu.Lock()
	at, reading := e.at, e.stop != nil
	e.mu.Unlock()
	if reading {
		return at.String(), nil
	}
	at, err := e.sizes(ctx)
	return at.String(), err
}

func (e *Events) leave(l *listener) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drop(l)
}

// drop takes a client off; mu is held.
func (e *Events) drop(l *listener) {
	if _, ok := e.clients[l]; !ok {
		return
	}
	delete(e.clients, l)
	if e.callers[l.caller]--; e.callers[l.caller] == 0 {
		delete(e.callers, l.caller)
	}
	close(l.queue)
	if len(e.clients) == 0 {
		e.stop()
		e.stop = nil
	}
}

// read tells the clients what is new until ctx ends.
func (e *Events) read(ctx context.Context) {
	tick := time.NewTicker(e.c.Poll)
	defer tick.Stop()
	for {
		for _, log := range []ledger.Log{ledger.Control, ledger.Events} {
			if err := e.advance(ctx, log); err != nil && ctx.Err() == nil {
				e.c.Log.ErrorContext(ctx, "events: read the log", "log", log, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-e.wake:
		}
	}
}

// advance tells of what was placed in a log since.
func (e *Events) advance(ctx context.Context, log ledger.Log) error {
	for {
		e.mu.Lock()
		at := e.at
		e.mu.Unlock()
		from := *at.of(log)
		ms, err := e.messages(ctx, log, from, from+eventPage, at)
		if err != nil || len(ms) == 0 {
			return err
		}
		e.mu.Lock()
		if ctx.Err() != nil { // another reader may have begun
			e.mu.Unlock()
			return ctx.Err()
		}
		*e.at.of(log) = from + uint64(len(ms))
		for l := range e.clients {
			e.tell(l, ms)
		}
		e.mu.Unlock()
		if len(ms) < eventPage {
			return nil
		}
	}
}

// tell queues messages for a client, or gives it up; mu is held.
func (e *Events) tell(l *listener, ms []message) {
	for _, m := range ms {
		select {
		case l.queue <- m:
		default:
			l.slow = true
			e.drop(l)
			return
		}
	}
}

// messages writes the entries [from, to) of a log; at is where a client is in the other one.
func (e *Events) messages(ctx context.Context, log ledger.Log, from, to uint64, at position) ([]message, error) {
	entries, err := e.c.Ledger.Entries(ctx, log, from, to)
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	facts := make([]wire.Fact, len(entries))
	subjects := make([]string, len(entries))
	for i, data := range entries {
		if facts[i], err = wire.DecodeFact(data); err != nil {
			return nil, fmt.Errorf("%s entry %d: %w", log, from+uint64(i), err)
		}
		subjects[i] = facts[i].Subject
	}
	places, err := e.c.Places(ctx, subjects)
	if err != nil {
		return nil, err
	}
	out := make([]message, len(facts))
	for i, f := range facts {
		index := from + uint64(i)
		*at.of(log) = index + 1
		data, err := json.Marshal(Event{Log: log, Index: index, Kind: f.Kind, Subject: f.Subject, At: time.UnixMilli(f.At).UTC()})
		if err != nil {
			return nil, err
		}
		out[i] = message{place: places[f.Subject], data: fmt.Appendf(nil, "id: %s\nevent: fact\ndata: %s\n\n", at, data)}
	}
	return out, nil
}

// parsePosition reads a Last-Event-ID; a log it does not name is at its end.
func parsePosition(s string, end position) (position, error) {
	p := end
	for part := range strings.SplitSeq(s, ",") {
		log, index, _ := strings.Cut(part, ":")
		n, err := strconv.ParseUint(index, 10, 63)
		if err != nil || ledger.Log(log) != ledger.Control && ledger.Log(log) != ledger.Events {
			return p, fault.New(fault.Invalid, "events.id", fmt.Sprintf("%.80q is no ID of an event", s), "give the last one as it came, or none")
		}
		*p.of(ledger.Log(log)) = n
	}
	return p, nil
}

func (a *api) registerEvents(h huma.API) {
	o := op("stream-events", http.MethodGet, "/events", "Be told of facts as they are placed in the ledger")
	o.Responses = map[string]*huma.Response{"200": {
		Description: "A stream that does not end", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: "string"}}},
	}}
	huma.Register(h, o, func(ctx context.Context, in *struct {
		Last string `header:"Last-Event-ID" maxLength:"128" doc:"ID of the last event of the stream before" example:"control:17,events:4711"`
		From string `query:"from" maxLength:"128" doc:"The same, for whoever cannot set the header, as a browser's first request cannot; the header goes before it" example:"control:17,events:4711"`
	},
	) (*huma.StreamResponse, error) {
		if a.Events == nil {
			return nil, a.problem(ctx, fault.New(fault.Unavailable, "events.off", "this server tells nobody of events", "list what there is instead: `hallmark fact list`"))
		}
		caller := callerOf(ctx)
		if err := a.mayListen(ctx, caller); err != nil {
			return nil, a.problem(ctx, err)
		}
		s, err := a.Events.subscribe(ctx, caller, cmp.Or(in.Last, in.From))
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) { //nolint:contextcheck // it has the context of its request
			r, w := humago.Unwrap(hc)
			hc.SetHeader("Content-Type", "text/event-stream")
			hc.SetHeader("Cache-Control", "no-store")
			hc.SetHeader("X-Accel-Buffering", "no")
			s.again = func() error { // who may not any more is not told any more
				now, err := a.callerOfRequest(r)
				if err != nil {
					return err
				}
				s.scope = now.Scope
				return a.mayListen(r.Context(), now)
			}
			s.run(w, r)
		}}, nil
	})
}

// mayListen asks for the right to read the ledger: of everything, or of all that the caller is limited to.
func (a *api) mayListen(ctx context.Context, caller access.Caller) error {
	_, err := a.Guard.Within(ctx, caller, access.LedgerRead, "ledger", "", "")
	return err
}

// stream is one client's.
type stream struct {
	e        *Events
	l        *listener
	from, to position     // what is to be told before the queue
	reset    bool         // that would be too much
	scope    []string     // empty: all
	again    func() error // whether the caller still may
}

func (e *Events) subscribe(ctx context.Context, caller access.Caller, last string) (*stream, error) {
	if last != "" { // before the client counts
		if _, err := parsePosition(last, position{}); err != nil {
			return nil, err
		}
	}
	l, at, err := e.join(ctx, caller.ID)
	if err != nil {
		return nil, err
	}
	s := &stream{e: e, l: l, from: at, to: at}
	if last != "" {
		s.from, _ = parsePosition(last, at) // it was looked at above
		missed := max(at.control, s.from.control) - s.from.control + max(at.events, s.from.events) - s.from.events
		s.reset = missed > eventCatchUp || s.from.control > at.control || s.from.events > at.events
	}
	s.scope = caller.Scope
	return s, nil
}

var errGone = errors.New("the stream has ended")

// run sends until the client goes, is too slow, or may not any more.
func (s *stream) run(w http.ResponseWriter, r *http.Request) {
	defer s.e.leave(s.l)
	out := http.NewResponseController(w)
	send := func(b []byte) error {
		if err := out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		return out.Flush()
	}
	err := s.begin(r.Context(), send)
	beat := time.NewTicker(s.e.c.Heartbeat)
	defer beat.Stop()
	for err == nil {
		select {
		case <-r.Context().Done():
			return
		case m, open := <-s.l.queue:
			if !open {
				return
			}
			err = send(s.batch(m))
		case <-beat.C:
			if err = s.again(); err == nil {
				err = send([]byte(": still here\n\n"))
			}
		}
	}
	s.e.c.Log.DebugContext(r.Context(), "event stream ended", "caller", s.l.caller, "slow", s.l.slow, "error", err)
}

// batch takes what waits behind m along, so that a burst is one write.
func (s *stream) batch(m message) []byte {
	var b bytes.Buffer
	for {
		if s.sees(m) {
			b.Write(m.data)
		}
		if b.Len() > 64<<10 {
			return b.Bytes()
		}
		select {
		case next, open := <-s.l.queue:
			if !open {
				return b.Bytes()
			}
			m = next
		default:
			return b.Bytes()
		}
	}
}

func (s *stream) sees(m message) bool {
	product, group, _ := strings.Cut(m.place, "/")
	return len(s.scope) == 0 || m.place != "" && access.Covers(s.scope, product, group)
}

// begin sends what the client missed.
func (s *stream) begin(ctx context.Context, send func([]byte) error) error {
	hello := fmt.Appendf(nil, "retry: 2000\nid: %s\n: stream at %s\n\n", s.from, s.to) // the ID is for a stream that breaks before its first event
	if s.reset {
		hello = fmt.Appendf(nil, "retry: 2000\nid: %s\nevent: reset\ndata: {}\n\n", s.to)
		return send(hello)
	}
	if err := send(hello); err != nil {
		return err
	}
	for _, log := range []ledger.Log{ledger.Control, ledger.Events} {
		from, to := s.from.of(log), *s.to.of(log)
		for *from < to {
			ms, err := s.e.messages(ctx, log, *from, min(to, *from+eventPage), s.from)
			if err != nil {
				return err
			}
			if len(ms) == 0 {
				return errGone
			}
			var b []byte
			for _, m := range ms {
				if s.sees(m) {
					b = append(b, m.data...)
				}
			}
			if err := send(b); err != nil {
				return err
			}
			*from += uint64(len(ms))
		}
	}
	return nil
}
