package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/ledger"
)

// tape is a ledger in memory.
type tape struct {
	mu    sync.Mutex
	logs  map[ledger.Log][][]byte
	reads int
}

func (x *tape) add(t *testing.T, log ledger.Log, subject string) {
	t.Helper()
	data, err := ledger.Genesis(log, time.Now(), "test", subject, []byte("{}")).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.logs[log] = append(x.logs[log], data)
}

func (x *tape) Size(_ context.Context, log ledger.Log) (uint64, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return uint64(len(x.logs[log])), nil
}

func (x *tape) Entries(_ context.Context, log ledger.Log, from, to uint64) ([][]byte, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.reads++
	n := uint64(len(x.logs[log]))
	return slices.Clone(x.logs[log][min(from, n):min(to, n)]), nil
}

type silent struct{}

func (silent) Record(context.Context, access.Decision) error { return nil }

// fleet of listeners: a handler with nothing but events.
type listeners struct {
	tape   *tape
	events *httpapi.Events
	h      http.Handler
	barred atomic.Bool // nobody is let in any more
}

func (l *listeners) Authenticate(_ context.Context, token string) (access.Caller, error) {
	if l.barred.Load() {
		return access.Caller{}, fault.New(fault.Denied, "access.unknown-token", "revoked", "")
	}
	name, products, _ := strings.Cut(token, "@")
	c := access.Caller{ID: "person:" + name, Kind: access.Person, Roles: []access.Role{access.Viewer}, Via: "token"}
	if products != "" {
		c.Scope = strings.Split(products, "+")
	}
	return c, nil
}

func (l *listeners) Certificate(context.Context, *x509.Certificate) (access.Caller, error) {
	return access.Caller{}, fault.New(fault.Denied, "x", "no", "")
}

func (l *listeners) Caller(ctx context.Context, session string) (access.Caller, error) {
	return l.Authenticate(ctx, session)
}

func newListeners(t testing.TB, c httpapi.EventsConfig) *listeners {
	t.Helper()
	guard, err := access.NewGuard(silent{})
	if err != nil {
		t.Fatal(err)
	}
	l := &listeners{tape: &tape{logs: map[ledger.Log][][]byte{}}}
	c.Ledger, c.Log = l.tape, slog.New(slog.DiscardHandler)
	c.Places = func(_ context.Context, subjects []string) (map[string]string, error) {
		out := map[string]string{}
		for _, s := range subjects {
			if i := strings.LastIndex(s, "/"); i > 0 {
				out[s] = s[:i]
			}
		}
		return out, nil
	}
	l.events = httpapi.NewEvents(c)
	l.h = httpapi.Handler(httpapi.Services{Guard: guard, Events: l.events}, l, slog.New(slog.DiscardHandler))
	return l
}

// client takes what it is sent.
type client struct {
	mu     sync.Mutex
	header http.Header
	status int
	got    bytes.Buffer
	more   *sync.Cond
	stuck  chan struct{} // writes wait for it to be closed; nil: they do not

	leave context.CancelFunc
	gone  chan struct{}
}

func (c *client) Header() http.Header { return c.header }
func (c *client) WriteHeader(status int) {
	c.mu.Lock()
	c.status = status
	c.mu.Unlock()
}

func (c *client) Write(b []byte) (int, error) {
	if c.stuck != nil && bytes.Contains(b, []byte("event:")) {
		<-c.stuck
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.more.Broadcast()
	return c.got.Write(b)
}

func (c *client) Flush() {}

// until waits for text.
func (c *client) until(text string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !strings.Contains(c.got.String(), text) {
		c.more.Wait()
	}
	return c.got.String()
}

// indices gives the places of the facts it was told of.
func (c *client) indices(t *testing.T, log ledger.Log) (out []uint64) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for line := range strings.Lines(c.got.String()) {
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		var e httpapi.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			t.Fatal(err)
		}
		if e.Log == log {
			out = append(out, e.Index)
		}
	}
	return out
}

func (l *listeners) listen(token, last string, stuck chan struct{}) *client {
	req := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/api/v1/events", nil)
	req.Header.Set("Authorization", "Bearer "+token)
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	return l.hears(req, stuck)
}

func (l *listeners) hears(req *http.Request, stuck chan struct{}) *client {
	ctx, leave := context.WithCancel(req.Context())
	c := &client{header: http.Header{}, leave: leave, gone: make(chan struct{}), stuck: stuck}
	c.more = sync.NewCond(&c.mu)
	go func() {
		defer close(c.gone)
		l.h.ServeHTTP(c, req.WithContext(ctx))
		c.mu.Lock()
		c.more.Broadcast()
		c.mu.Unlock()
	}()
	return c
}

func upTo(n int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = uint64(i)
	}
	return out
}

// Ten thousand who come at once do not take the server down: as many as there is room for are told, the others are refused at once, and
// there is room again when they leave.
func TestTenThousandClientsAreTooMany(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	const room, crowd = 2048, 10_000
	l := newListeners(t, httpapi.EventsConfig{PerCaller: crowd})
	all := make([]*client, crowd)
	for i := range all {
		all[i] = l.listen(fmt.Sprintf("p%d", i%50), "", nil)
	}
	var in []*client
	for _, c := range all {
		c.mu.Lock()
		for c.got.Len() == 0 {
			c.more.Wait()
		}
		told := strings.Contains(c.got.String(), "stream at")
		c.mu.Unlock()
		if told {
			in = append(in, c)
			continue
		}
		<-c.gone
		if c.status != http.StatusServiceUnavailable || !strings.Contains(c.got.String(), "events.full") {
			t.Fatalf("who found no room: %d %s", c.status, c.got.String())
		}
	}
	if len(in) != room {
		t.Fatalf("%d were let in, want %d", len(in), room)
	}
	l.tape.add(t, ledger.Events, "pump/0")
	for _, c := range in {
		c.until("id: control:0,events:1\n")
		c.leave()
	}
	for _, c := range in {
		<-c.gone
	}
	again := l.listen("late", "", nil)
	again.until("stream at")
	again.leave()
	<-again.gone
	l.events.Close()
}

// A thousand clients each hear everything once and in order, from one reader of the log; one that does not listen is left behind.
func TestAThousandClientsHearEverythingOnce(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l := newListeners(t, httpapi.EventsConfig{Clients: 1001, PerCaller: 10, Poll: 20 * time.Millisecond})
	var all []*client
	for i := range 1000 {
		all = append(all, l.listen(fmt.Sprintf("p%d", i%200), "", nil))
	}
	stuck := make(chan struct{})
	slow := l.listen("slow", "", stuck)
	for _, c := range append(all, slow) {
		c.until("stream at")
	}
	if c := l.listen("late", "", nil); true {
		<-c.gone
		if c.status != http.StatusServiceUnavailable || !strings.Contains(c.got.String(), "events.full") {
			t.Errorf("one too many: %d %s", c.status, c.got.String())
		}
	}
	const facts = 800
	for i := range facts {
		l.tape.add(t, ledger.Events, fmt.Sprintf("pump/%d", i))
		if i%100 == 99 { // no faster than a queue is long
			for _, c := range all {
				c.until(fmt.Sprintf("id: control:0,events:%d\n", i+1))
			}
		}
	}
	for i, c := range all {
		if got := c.indices(t, ledger.Events); !slices.Equal(got, upTo(facts)) {
			t.Fatalf("client %d heard %d facts", i, len(got))
		}
	}
	l.tape.mu.Lock()
	if l.tape.reads > len(all)*facts/100 { // a reader for each client would read in each round
		t.Errorf("the log was read %d times", l.tape.reads)
	}
	l.tape.mu.Unlock()
	close(stuck)
	<-slow.gone
	if n := len(slow.indices(t, ledger.Events)); n >= facts {
		t.Errorf("who did not listen was not left behind: %d", n)
	}
	for _, c := range all {
		c.leave()
	}
	for _, c := range all {
		<-c.gone
	}
	l.events.Close()
}

func TestAStreamGoesOnWhereItEnded(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l := newListeners(t, httpapi.EventsConfig{Poll: time.Millisecond, PerCaller: 2})
	for i := range 5 {
		l.tape.add(t, ledger.Events, fmt.Sprintf("pump/%d", i))
		l.tape.add(t, ledger.Control, fmt.Sprintf([]string{"valve/%d", "valve/us/%d", "valve/eu/%d", "valve/eur/%d", "valve/eu/berlin/%d"}[i], i))
	}
	hear := func(token, last, until string) *client {
		c := l.listen(token, last, nil)
		c.until(until)
		c.leave()
		<-c.gone
		return c
	}
	c := hear("ann", "control:3,events:1", "id: control:5,events:5\n")
	if got := c.indices(t, ledger.Control); !slices.Equal(got, []uint64{3, 4}) {
		t.Errorf("control: %v", got)
	}
	if got := c.indices(t, ledger.Events); !slices.Equal(got, []uint64{1, 2, 3, 4}) {
		t.Errorf("events: %v", got)
	}
	// A browser cannot say it in a header when it first comes, and does when it comes back.
	for _, last := range []string{"", "control:4,events:5"} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/events?from=control:3,events:5", nil)
		req.Header.Set("Authorization", "Bearer ann")
		req.Header.Set("Last-Event-ID", last)
		c := l.hears(req, nil)
		c.until("id: control:5,events:5\n")
		c.leave()
		<-c.gone
		if got, want := c.indices(t, ledger.Control), []uint64{3, 4}; !slices.Equal(got, want[min(len(last), 1):]) {
			t.Errorf("from an address, and %q in the header: %v", last, got)
		}
	}
	// A stream that breaks before anything happened is known by where it began.
	if c := hear("ann", "", "stream at"); !strings.Contains(c.got.String(), "id: control:5,events:5\n: stream at") {
		t.Errorf("from now on: %s", c.got.String())
	}
	if got := c.got.String(); !strings.HasPrefix(got, "retry: 2000\nid: control:3,events:1\n") {
		t.Errorf("from a place: %s", got)
	}
	// Of one log only, as a client may keep it; the other is at its end.
	if c := hear("ann", "events:4", "events:5\n"); len(c.indices(t, ledger.Control)) != 0 || len(c.indices(t, ledger.Events)) != 1 {
		t.Errorf("one log: %s", c.got.String())
	}
	// Who is limited to a product hears of that one.
	if c := hear("vera@valve", "control:0,events:0", "id: control:5"); len(c.indices(t, ledger.Control)) != 5 || len(c.indices(t, ledger.Events)) != 0 {
		t.Errorf("of valve: %s", c.got.String())
	}
	// Who is limited to a group hears of it and of those below, and of nothing that is the whole product's.
	if c := hear("gus@valve/eu", "control:0,events:0", "id: control:5"); !slices.Equal(c.indices(t, ledger.Control), []uint64{2, 4}) || len(c.indices(t, ledger.Events)) != 0 {
		t.Errorf("of valve/eu: %s", c.got.String())
	}
	// Too much, or a future that was never: read again.
	for range 2500 {
		l.tape.add(t, ledger.Events, "pump/more")
	}
	for _, last := range []string{"control:0,events:0", "control:9,events:2505"} {
		if c := hear("ann", last, "event: reset"); len(c.indices(t, ledger.Events)) != 0 {
			t.Errorf("from %s: %s", last, c.got.String())
		}
	}
	bad := l.listen("ann", "nonsense", nil)
	<-bad.gone
	if bad.status != http.StatusUnprocessableEntity {
		t.Errorf("nonsense: %d", bad.status)
	}
	a, b := l.listen("ann", "", nil), l.listen("ann", "", nil)
	a.until("stream at")
	b.until("stream at")
	third := l.listen("ann", "", nil)
	<-third.gone
	if third.status != http.StatusServiceUnavailable {
		t.Errorf("a third stream: %d", third.status)
	}
	l.events.Close() // ends what is open, and takes no more
	<-a.gone
	<-b.gone
	after := l.listen("ann", "", nil)
	<-after.gone
	if after.status != http.StatusServiceUnavailable {
		t.Errorf("after the end: %d", after.status)
	}
}

func TestWhoMayNoLongerIsToldNoMore(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l := newListeners(t, httpapi.EventsConfig{Poll: time.Millisecond, Heartbeat: time.Millisecond})
	c := l.listen("ann", "", nil)
	c.until("still here")
	l.barred.Store(true)
	<-c.gone
	l.events.Close()
}

// Over the network, from a real server: what is done is heard of.
func TestEventsTellWhatIsDone(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.issue("olga", []access.Role{access.Operator})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.api+"/api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.tokens["olga"])
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	_, data, _ := w.call("olga", http.MethodPost, "/api/v1/commands", command("listen"), nil)
	var made httpapi.CommandReply
	if err := json.Unmarshal(data, &made); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if strings.Contains(lines.Text(), `"kind":"command.issued","subject":"`+made.ID+`"`) {
			w.stop() // which does not wait for the stream
			return
		}
	}
	t.Fatal(lines.Err())
}

// What is placed after a page has asked where the logs are is told to whoever listens from there, whether others listen meanwhile or not.
func TestNothingIsMissedBetweenAPageAndItsStream(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l := newListeners(t, httpapi.EventsConfig{Poll: time.Millisecond})
	defer l.events.Close()
	l.tape.add(t, ledger.Events, "pump/0")
	for n := range 2 {
		at, err := l.events.Position(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l.tape.add(t, ledger.Events, "pump/1")
		want := uint64(n + 1)
		c := l.listen("ann", at, nil)
		c.until(fmt.Sprintf("id: control:0,events:%d\n", want+1))
		if got := c.indices(t, ledger.Events); got[len(got)-1] != want || strings.Contains(c.until(""), "event: reset") {
			t.Errorf("from %s: %v", at, got)
		}
		if n == 0 {
			other := l.listen("bob", "", nil) // from now on, somebody listens
			other.until("stream at")
			defer func() { other.leave(); <-other.gone }()
		}
		c.leave()
		<-c.gone
	}
}
