package legacytest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// Line is what lies between clients and the server: it hears all that is said, and may break.
type Line struct {
	to string

	mu    sync.Mutex
	said  []Exchange // guarded by mu, as is cut
	cut   int64      // break the next download after so many bytes; 0: not
	seen  map[string]bool
	lines []string // what was said first of its kind
}

// Exchange is a request, and its answer.
type Exchange struct {
	Method, Path, Sent, Ranged string
	Status                     int
	Got                        string
}

func (l *Line) open(t testing.TB) string {
	s := httptest.NewServer(l)
	t.Cleanup(s.Close)
	return strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
}

func (l *Line) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	req, err := http.NewRequestWithContext(r.Context(), r.Method, l.to+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header = r.Header.Clone()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	e := Exchange{Method: r.Method, Path: r.URL.RequestURI(), Sent: string(body), Ranged: r.Header.Get("Range"), Status: resp.StatusCode}
	if strings.Contains(e.Path, "/artifacts/") || strings.Contains(e.Path, "/download/") {
		l.mu.Lock()
		cut := l.cut
		if r.Method == http.MethodGet {
			l.cut = 0
		}
		l.mu.Unlock()
		l.note(e)
		if cut > 0 && r.Method == http.MethodGet {
			_, _ = io.CopyN(w, resp.Body, cut)
			panic(http.ErrAbortHandler) // the line is broken
		}
		_, _ = io.Copy(w, resp.Body)
		return
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	e.Got = string(got)
	l.note(e)
	_, _ = w.Write(got)
}

// BreakAfter breaks the next download after so many bytes.
func (l *Line) BreakAfter(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = n
}

func (l *Line) note(e Exchange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, e)
	text := e.String()
	key := fmt.Sprint(e.Status) + kindOf.FindString(text) + execution.FindString(e.Sent) + strings.Join(rel.FindAllString(e.Got, -1), " ")
	if l.seen == nil {
		l.seen = map[string]bool{}
	}
	if !l.seen[key] {
		l.seen[key] = true
		l.lines = append(l.lines, text)
	}
}

var (
	kindOf    = regexp.MustCompile(`^[A-Z]+ [^ ?]*`)
	execution = regexp.MustCompile(`"execution"[^,}]*|"status":"[a-z_-]*"`)
	rel       = regexp.MustCompile(`"(configData|deploymentBase|cancelAction|artifact)"`)
)

var masks = []struct {
	what *regexp.Regexp
	as   string
}{
	{regexp.MustCompile(`http://localhost:[0-9]+`), "https://updates.example"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "‹sha256›"},
	{regexp.MustCompile(`\b[0-9a-f]{40}\b`), "‹sha1›"},
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "‹md5›"},
	{regexp.MustCompile(`\?c=[0-9a-f]{8}`), "?c=‹hash›"},
	{regexp.MustCompile(`"time": *"[^"]*"`), `"time": "‹time›"`},
	{regexp.MustCompile(`"size":[0-9]+`), `"size":‹size›`},
	{regexp.MustCompile(`"details": *\[[^\]]*\]`), `"details": [‹details›]`},
	{regexp.MustCompile(`"progress": *\{[^}]*\}`), `"progress": {‹progress›}`},
	{regexp.MustCompile(`/download/[^/"]*`), "/download/‹sealed›"},
	{regexp.MustCompile(`"expire":"[^"]*"`), `"expire":"‹time›"`},
	{regexp.MustCompile(`"pubkey":"[^"]*"`), `"pubkey":"‹PEM›"`},
	{regexp.MustCompile(`"messages":\[.*\]`), `"messages":[‹messages›]`},
	{regexp.MustCompile(`^[A-Za-z0-9_-]{32}$`), "‹token›"},
	{regexp.MustCompile(`\s+`), " "},
}

func masked(text string) string {
	for _, m := range masks {
		text = m.what.ReplaceAllString(text, m.as)
	}
	return strings.TrimSpace(text)
}

func (e Exchange) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", e.Method, masked(e.Path))
	if e.Ranged != "" {
		b.WriteString("\n  > Range: bytes=‹from›-")
	}
	if e.Sent != "" {
		fmt.Fprintf(&b, "\n  > %s", masked(e.Sent))
	}
	fmt.Fprintf(&b, "\n  < %d %s", e.Status, masked(e.Got))
	return strings.TrimRight(b.String(), " ")
}

// All gives all that was said.
func (l *Line) All() []Exchange {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Exchange(nil), l.said...)
}

// Count tells how many there were of a kind.
func (l *Line) Count(of func(Exchange) bool) (n int) {
	for _, e := range l.All() {
		if of(e) {
			n++
		}
	}
	return n
}

// Transcript is what was said, the first of each kind.
func (l *Line) Transcript() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n\n") + "\n"
}
