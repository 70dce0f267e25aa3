package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/failpoint"
	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/ledger"
)

// The headers of an answer that tell which facts became durable before it was given. A bulk operation names the first ones and
// counts all.
const (
	HeaderFacts     = "Hallmark-Facts"      // log/uid, comma-separated
	HeaderFactCount = "Hallmark-Fact-Count" // present when there are more than the header names
	MaxNamedFacts   = 32
)

const (
	headerKey      = "Idempotency-Key"
	headerReplayed = "Idempotency-Replayed"

	maxBody   = 8 << 20 // bytes of a request that is not streamed
	maxAnswer = 4 << 20 // bytes of an answer that is kept

	patience = time.Minute // for a request that is not streamed to be there whole
)

// front is what every request passes: who asks, and whether it was asked before.
type front struct {
	*api
	mux       *http.ServeMux
	summaries map[string]string          // of operations, by pattern
	marks     map[string]map[string]bool // what is said of operations, by mark and pattern

	mu      sync.Mutex
	running map[[2]string][32]byte // requests under way, by caller and key; guarded by mu
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/api/v1/") { // the description, which is public
		f.mux.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	ctx := r.Context()
	if _, pattern := f.mux.Handler(r); f.marks[forAnybody][pattern] {
		f.serveAnybody(w, r)
		return
	}
	caller, err := f.callerOfRequest(r)
	if err != nil {
		f.refuse(w, r, err)
		return
	}
	r = r.WithContext(context.WithValue(ctx, callerKey{}, caller))
	_, pattern := f.mux.Handler(r)
	if pattern == "" {
		f.nothingThere(w, r)
		return
	}
	var body []byte
	if r.Method != http.MethodGet && r.Method != http.MethodHead && !f.marks[readsBody][pattern] {
		var problem *huma.ErrorModel
		if body, problem = f.whole(w, r); problem != nil {
			f.write(w, r, problem)
			return
		}
		if len(body) > 0 { // it may have come late: who asks is who it is now
			if caller, err = f.callerOfRequest(r); err != nil {
				f.refuse(w, r, err)
				return
			}
			r = r.WithContext(context.WithValue(ctx, callerKey{}, caller))
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
	}
	key, marked := r.Header[headerKey]
	if !marked || f.Once == nil || r.Method == http.MethodGet || r.Method == http.MethodHead || f.marks[readsBody][pattern] || pattern == carriesOut {
		f.dispatch(w, r, pattern)
		return
	}
	f.serveOnce(w, r, body, pattern, strings.Join(key, ","))
}

// whole reads a body that is not streamed; who sends it has so long.
func (f *front) whole(w http.ResponseWriter, r *http.Request) ([]byte, *huma.ErrorModel) {
	problem := func(status int, err error) *huma.ErrorModel {
		return &huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: "the request's body: " + err.Error()}
	}
	if r.ContentLength == 0 {
		return nil, nil
	}
	out := http.NewResponseController(w)
	if err := out.SetReadDeadline(time.Now().Add(patience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, problem(http.StatusBadRequest, err)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, problem(http.StatusRequestEntityTooLarge, err)
	}
	if err != nil {
		return nil, problem(http.StatusBadRequest, err)
	}
	if err := out.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, problem(http.StatusBadRequest, err)
	}
	return body, nil
}

// carriesOut is done once by the proposal's own key, whatever key comes with it, and its answer is kept there if it may be: kept for the
// caller's key as well, a secret that two people have made would be in the database.
const carriesOut = "POST /api/v1/proposals/{id}/run"

func (a *api) callerOfRequest(r *http.Request) (access.Caller, error) {
	if said := r.Header.Get("Authorization"); said != "" { // whatever it says: a wrong one is not mended by what comes beside it
		scheme, token, _ := strings.Cut(said, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			token = ""
		}
		return a.auth.Authenticate(r.Context(), token)
	}
	if c, err := r.Cookie(sessionCookie); err == nil {
		return a.auth.Caller(r.Context(), c.Value)
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 { // what is given with the request wins over what the connection has
		return a.auth.Certificate(r.Context(), r.TLS.PeerCertificates[0])
	}
	return access.Caller{}, fault.New(fault.Denied, "access.no-token", "no access token", "send one as Authorization: Bearer TOKEN; `hallmark token create` makes them")
}

func (f *front) refuse(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="hallmark"`)
	if fault.KindOf(err) != fault.Denied {
		f.log.ErrorContext(r.Context(), "authenticate", "error", err)
		f.write(w, r, &huma.ErrorModel{Status: http.StatusServiceUnavailable, Title: "unavailable", Detail: "callers cannot be told apart at the moment: try again"})
		return
	}
	f.write(w, r, &huma.ErrorModel{
		Status: http.StatusUnauthorized, Type: "urn:hallmark:fault:access.no-token", Title: "not signed in",
		Detail: "a valid access token is needed: Authorization: Bearer hmk_…",
	})
}

func (f *front) nothingThere(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := *r
		other.Method = m
		if _, pattern := f.mux.Handler(&other); pattern != "" {
			allowed = append(allowed, m)
		}
	}
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		f.write(w, r, &huma.ErrorModel{Status: http.StatusMethodNotAllowed, Title: "method not allowed", Detail: "here goes " + strings.Join(allowed, ", ")})
		return
	}
	f.write(w, r, &huma.ErrorModel{Status: http.StatusNotFound, Title: "not found", Detail: "there is no such operation: see /openapi.json"})
}

func (f *front) write(w http.ResponseWriter, r *http.Request, p *huma.ErrorModel) {
	data, err := json.Marshal(p)
	if err != nil {
		f.log.ErrorContext(r.Context(), "problem", "error", err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	if _, err := w.Write(data); err != nil {
		f.log.DebugContext(r.Context(), "client went away", "error", err)
	}
}

// keyed is a problem with a request's key.
func keyed(status int, code, detail string) *huma.ErrorModel {
	title := fault.Conflict.String()
	if status != http.StatusConflict {
		title = fault.Invalid.String()
	}
	return &huma.ErrorModel{Status: status, Type: "urn:hallmark:fault:idempotency." + code, Title: title, Detail: detail}
}

var (
	answerLost = keyed(http.StatusConflict, "answer-lost",
		"the operation with this key was done, or begun, and its answer was lost: read the resource to see what became of it")
	inProgress = keyed(http.StatusConflict, "in-progress", "the operation with this key is under way: ask again in a moment")
	reused     = keyed(http.StatusUnprocessableEntity, "reused", "this key was used for another request: make a new one for each operation")
)

func validKey(key string) bool {
	return len(key) > 0 && len(key) <= 255 && !strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' })
}

// serveOnce does what was asked for if it was not done before with this key, and gives the answer that was given then if it was.
func (f *front) serveOnce(w http.ResponseWriter, r *http.Request, body []byte, pattern, key string) {
	if !validKey(key) {
		f.write(w, r, keyed(http.StatusBadRequest, "key", "an Idempotency-Key is 1 to 255 printable ASCII characters"))
		return
	}
	m := once.Mark{Caller: callerOf(r.Context()).ID, Key: key, Request: fingerprint(r, body)}
	end, problem := f.begin(m)
	if problem != nil {
		f.write(w, r, problem)
		return
	}
	defer end()
	kept, found, err := f.Once.Kept(r.Context(), m.Caller, m.Key)
	switch {
	case err != nil:
		f.log.ErrorContext(r.Context(), "marks", "error", err)
		f.write(w, r, &huma.ErrorModel{Status: http.StatusServiceUnavailable, Title: "unavailable", Detail: "what was done before cannot be read: try again"})
	case found && kept.Request != m.Request:
		f.write(w, r, reused)
	case found && !kept.Done:
		f.write(w, r, answerLost)
	case found:
		w.Header().Set(headerReplayed, "true")
		f.give(w, r, kept.Answer)
	default:
		if a, given := f.do(w, r, body, m, pattern); !given {
			f.give(w, r, a)
		}
	}
}

func fingerprint(r *http.Request, body []byte) [32]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%s\n%q\n", r.Method, r.URL.RequestURI(), r.Header.Get("If-Match"), r.Header.Get(HeaderPropose))
	_, _ = h.Write(body) // a hash takes everything
	return [32]byte(h.Sum(nil))
}

// begin notes that a request is under way; end takes the note away.
func (f *front) begin(m once.Mark) (end func(), problem *huma.ErrorModel) {
	k := [2]string{m.Caller, m.Key}
	f.mu.Lock()
	defer f.mu.Unlock()
	if other, ok := f.running[k]; ok {
		if other != m.Request {
			return nil, reused
		}
		return nil, inProgress
	}
	f.running[k] = m.Request
	return func() {
		f.mu.Lock()
		delete(f.running, k)
		f.mu.Unlock()
	}, nil
}

// do has the operation done, and keeps its answer before anybody hears it. An answer to a request that wrote nothing is not kept:
// it may be asked for again. One that is
// too long to be kept is given to w as it comes.
func (f *front) do(w http.ResponseWriter, r *http.Request, body []byte, m once.Mark, pattern string) (a once.Answer, given bool) {
	ctx, req := once.With(r.Context(), &m, nil)
	r = r.WithContext(ctx)
	r.Body = io.NopCloser(bytes.NewReader(body))
	rec := &recorder{header: http.Header{}, beyond: w}
	f.dispatch(rec, r, pattern)
	if rec.begun {
		return a, true
	}
	a = rec.answer()
	if c := ledger.ReceiptsOf(ctx); c != nil {
		names, count := c.Names(MaxNamedFacts)
		if a.Facts = names; count > MaxNamedFacts {
			a.FactCount = strconv.Itoa(count)
		}
	}
	failpoint.Hit("idempotency.before-answer")
	if !req.Settled() || f.marks[givesSecret][pattern] && a.Status != http.StatusAccepted || a.Status >= http.StatusInternalServerError {
		return a, false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second) // who asked may have gone: what was done stays done
	defer cancel()
	if err := f.Once.PutAnswer(ctx, m, a); err != nil {
		f.log.ErrorContext(ctx, "keep an answer", "error", err)
	}
	return a, false
}

func (f *front) give(w http.ResponseWriter, r *http.Request, a once.Answer) {
	h := w.Header()
	for name, value := range map[string]string{"Content-Type": a.Type, "ETag": a.Tag, HeaderFacts: a.Facts, HeaderFactCount: a.FactCount} {
		if value != "" {
			h.Set(name, value)
		}
	}
	w.WriteHeader(a.Status)
	if _, err := w.Write(a.Body); err != nil {
		f.log.DebugContext(r.Context(), "client went away", "error", err)
	}
}

// recorder keeps an answer instead of sending it, up to maxAnswer. A longer one is passed on.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
	beyond http.ResponseWriter // nil: all of it is kept, which only an answer that is small may be
	begun  bool                // it is being passed on
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	if r.begun {
		return r.beyond.Write(b)
	}
	if r.beyond == nil || r.body.Len()+len(b) <= maxAnswer {
		return r.body.Write(b)
	}
	r.pass(r.beyond)
	r.begun, r.body = true, bytes.Buffer{}
	return r.beyond.Write(b)
}

func (r *recorder) answer() once.Answer {
	r.WriteHeader(http.StatusOK)
	return once.Answer{Status: r.status, Type: r.header.Get("Content-Type"), Tag: r.header.Get("ETag"), Body: r.body.Bytes()}
}
