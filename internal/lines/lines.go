// Package lines knows which device is at the other end of each connection, and cuts the connections of those whose certificate was revoked.
//
// Stage 3, field. A device is looked at when it connects and again at each call; this package is for the time between: a download, a call that
// waits, a line that is kept open. It trusts the judge it was given, which is asked again before a line is cut, and nobody else: a hint that
// hits a device in good standing cuts nothing. It stores nothing and knows only the lines of its own process.
package lines

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net"
	"net/http"
	"sync"

	"github.com/hallmark-iot/hallmark/pki"
)

// Judge says whether the device of a chain may stay connected; device is its name as far as it can be told. Only a Cut ends a line: that a
// judge cannot tell is no reason, because the calls on the line ask him again.
type Judge func(chain []*x509.Certificate) (device string, v Verdict)

// Verdict is what becomes of a line.
type Verdict int

// The verdicts.
const (
	Stay Verdict = iota
	Cut
)

// line is a connection whose device has shown its certificate.
type line struct {
	conn   net.Conn
	chain  []*x509.Certificate
	device string
	cert   string // CertKey
	issuer string // subject key ID, hex
}

// Registry keeps the lines. It is safe for concurrent use.
type Registry struct {
	judge Judge

	mu sync.Mutex
	by map[net.Conn]*line            // guarded by mu
	on map[string]map[*line]struct{} // by device, certificate and issuer; guarded by mu
}

// New makes a registry whose lines are judged by judge.
func New(judge Judge) *Registry {
	return &Registry{judge: judge, by: map[net.Conn]*line{}, on: map[string]map[*line]struct{}{}}
}

// ConnState is a http.Server's hook. A line is known from its first request on: before that nothing was asked on it.
func (r *Registry) ConnState(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateActive:
		r.add(c)
	case http.StateClosed, http.StateHijacked:
		r.drop(c)
	case http.StateNew, http.StateIdle:
	}
}

func (r *Registry) add(c net.Conn) {
	r.mu.Lock()
	_, known := r.by[c]
	r.mu.Unlock()
	t, ok := c.(interface{ ConnectionState() tls.ConnectionState })
	if known || !ok {
		return
	}
	chain := t.ConnectionState().PeerCertificates
	if len(chain) == 0 {
		return
	}
	device, v := r.judge(chain)
	l := &line{conn: c, chain: chain, device: device, cert: pki.CertKey(chain[0]), issuer: hex.EncodeToString(chain[0].AuthorityKeyId)}
	r.mu.Lock()
	r.by[c] = l
	for _, k := range l.keys() {
		if r.on[k] == nil {
			r.on[k] = map[*line]struct{}{}
		}
		r.on[k][l] = struct{}{}
	}
	r.mu.Unlock()
	if v == Stay { // what was revoked before the line was known has hit nothing
		_, v = r.judge(chain)
	}
	if v == Cut {
		shut(c)
	}
}

// keys are what a line is found by; the kinds cannot be mixed up, because each begins with its own word.
func (l *line) keys() [3]string {
	return [...]string{string(pki.ScopeDevice) + l.device, string(pki.ScopeCert) + l.cert, string(pki.ScopeIssuer) + l.issuer}
}

func (r *Registry) drop(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.by[c]
	if l == nil {
		return
	}
	delete(r.by, c)
	for _, k := range l.keys() {
		if delete(r.on[k], l); len(r.on[k]) == 0 {
			delete(r.on, k)
		}
	}
}

// Revoked cuts the lines that entries hit. It is called with what is new in the list of revocations; what it costs depends on how much that
// is, not on how many are connected.
func (r *Registry) Revoked(entries []pki.Revocation) {
	hit := map[*line]struct{}{}
	r.mu.Lock()
	for _, e := range entries {
		for l := range r.on[string(e.Scope)+e.ID] {
			hit[l] = struct{}{}
		}
	}
	r.mu.Unlock()
	r.cut(hit)
}

// Sweep judges all lines: certificates run out on them, and some revocations begin later than they are made.
func (r *Registry) Sweep() {
	all := map[*line]struct{}{}
	r.mu.Lock()
	for _, l := range r.by {
		all[l] = struct{}{}
	}
	r.mu.Unlock()
	r.cut(all)
}

func (r *Registry) cut(lines map[*line]struct{}) {
	for l := range lines {
		if _, v := r.judge(l.chain); v == Cut {
			shut(l.conn) // the server's hook drops it
		}
	}
}

// shut ends a line without a word to the other side: TLS would wait for who does not read.
func shut(c net.Conn) {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	_ = c.Close() // it is the end of it either way
}

// Len is how many lines there are.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.by)
}
