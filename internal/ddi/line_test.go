package ddi_test

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

// line is what lies between clients and the server: it hears all that is said, and may break.
type line struct {
	to string

	mu    sync.Mutex
	said  []exchange // guarded by mu, as is cut
	cut   int64      // break the next download after so many bytes; 0: not
	seen  map[string]bool
	lines []string // what was said first of its kind
}

type exchange struct {
	method, path, sent, ranged string
	status                     int
	got                        string
}

func (l *line) open(t *testing.T) string {
	s := httptest.NewServer(l)
	t.Cleanup(s.Close)
	return strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
}

func (l *line) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
	e := exchange{method: r.Method, path: r.URL.RequestURI(), sent: string(body), ranged: r.Header.Get("Range"), status: resp.StatusCode}
	if strings.Contains(e.path, "/artifacts/") {
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
	e.got = string(got)
	l.note(e)
	_, _ = w.Write(got)
}

func (l *line) breakAfter(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = n
}

func (l *line) note(e exchange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, e)
	text := e.String()
	key := fmt.Sprint(e.status) + kindOf.FindString(text) + execution.FindString(e.sent) + strings.Join(rel.FindAllString(e.got, -1), " ")
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
	execution = regexp.MustCompile(`"execution"[^,}]*`)
	rel       = regexp.MustCompile(`"(configData|deploymentBase|cancelAction)"`)
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
	{regexp.MustCompile(`\s+`), " "},
}

func masked(text string) string {
	for _, m := range masks {
		text = m.what.ReplaceAllString(text, m.as)
	}
	return strings.TrimSpace(text)
}

func (e exchange) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", e.method, masked(e.path))
	if e.ranged != "" {
		b.WriteString("\n  > Range: bytes=‹from›-")
	}
	if e.sent != "" {
		fmt.Fprintf(&b, "\n  > %s", masked(e.sent))
	}
	fmt.Fprintf(&b, "\n  < %d %s", e.status, masked(e.got))
	return strings.TrimRight(b.String(), " ")
}

func (l *line) all() []exchange {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]exchange(nil), l.said...)
}

func (l *line) count(of func(exchange) bool) (n int) {
	for _, e := range l.all() {
		if of(e) {
			n++
		}
	}
	return n
}

// transcript is what was said, the first of each kind.
func (l *line) transcript() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n\n") + "\n"
}

func polls(e exchange) bool {
	return e.method == http.MethodGet && strings.Count(e.path, "/") == 4
}
