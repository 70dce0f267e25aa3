// Package door bounds what strangers hold open of a TLS listener for devices.
//
// Under all stages, before the devices' adapters. A connection is a stranger's until its client certificate has been verified and the first byte of a
// request has come over it; one without a certificate stays a stranger's. Of strangers' connections there is a number for each address and
// one for all: the newest of an address that has its number is closed at once, and the oldest of all makes room when all have theirs, so
// that a flood costs bounded memory and a device that is quick still gets through it. Who is known is not bounded here. It trusts the
// tls.Config to verify, and an address to be one sender's: behind one address may be many devices, so its number is not small.
package door

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/internal/throttle"
)

// Limits are the bounds.
type Limits struct {
	Strangers int // connections of strangers; 0: 4096
	Address   int // of these, from one IPv4 address or one IPv6 /64; 0: 512

	Header time.Duration // for a handshake, and for the header of each request; 0: 10 s
	Body   time.Duration // for the body of one; 0: 5 min, because some lines are slow
	Idle   time.Duration // between requests; 0: 5 min
}

func (l Limits) orDefault() Limits {
	if l.Strangers == 0 {
		l.Strangers = 4096
	}
	if l.Address == 0 {
		l.Address = 512
	}
	for _, d := range []struct {
		of *time.Duration
		is time.Duration
	}{{&l.Header, 10 * time.Second}, {&l.Body, 5 * time.Minute}, {&l.Idle, 5 * time.Minute}} {
		if *d.of == 0 {
			*d.of = d.is
		}
	}
	return l
}

// Door is a net.Listener whose connections are TLS.
type Door struct {
	net.Listener
	conf   *tls.Config
	limits Limits

	mu        sync.Mutex
	strangers list.List            // of *stranger, the oldest first; guarded by mu
	addresses map[netip.Prefix]int // how many of them from each; guarded by mu
	turned    uint64               // how many were closed because of a bound; guarded by mu
}

// stranger is a connection under its TLS. Its place in the list is the door's.
type stranger struct {
	net.Conn
	door *Door
	from netip.Prefix
	at   *list.Element // nil: known, or closed; guarded by door.mu
}

// New makes the door before l. Serve it with its Server.
func New(l net.Listener, conf *tls.Config, limits Limits) *Door {
	return &Door{Listener: l, conf: conf, limits: limits.orDefault(), addresses: map[netip.Prefix]int{}}
}

// Suites are what is taken of TLS 1.2, for clients that know no more: forward secrecy and authenticated encryption. With RSA key exchange
// or CBC there is no session. Keys are ECDSA, because our own certificates are.
func Suites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

// Accept implements net.Listener.
func (d *Door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		s := &stranger{Conn: c, door: d, from: throttle.Sender(c.RemoteAddr().String())}
		oldest, ok := d.enter(s)
		if oldest != nil {
			drop(oldest.Conn)
		}
		if !ok {
			drop(c)
			continue
		}
		return tls.Server(s, d.conf), nil
	}
}

// enter takes s in, and gives who has to go for it.
func (d *Door) enter(s *stranger) (oldest *stranger, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.addresses[s.from] >= d.limits.Address {
		d.turned++
		return nil, false
	}
	if d.strangers.Len() >= d.limits.Strangers {
		oldest, _ = d.strangers.Front().Value.(*stranger)
		d.forget(oldest)
		d.turned++
	}
	d.addresses[s.from]++
	s.at = d.strangers.PushBack(s)
	return oldest, true
}

// forget takes s off the list. The caller holds mu.
func (d *Door) forget(s *stranger) {
	if s.at == nil {
		return
	}
	d.strangers.Remove(s.at)
	s.at = nil
	if d.addresses[s.from]--; d.addresses[s.from] == 0 {
		delete(d.addresses, s.from)
	}
}

// Close implements net.Conn.
func (s *stranger) Close() error {
	s.door.mu.Lock()
	s.door.forget(s)
	s.door.mu.Unlock()
	return s.Conn.Close()
}

// Server makes the server that serves the door. A stranger gets one answer; also is told of the states of connections, and may be nil.
func (d *Door) Server(h http.Handler, also func(net.Conn, http.ConnState)) *http.Server {
	return &http.Server{
		ReadHeaderTimeout: d.limits.Header, IdleTimeout: d.limits.Idle, MaxHeaderBytes: 16 << 10,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ContentLength != 0 {
				_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(d.limits.Body)) // a connection that has none has gone
			}
			if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
				w.Header().Set("Connection", "close")
			}
			h.ServeHTTP(w, r)
		}),
		ConnState: func(c net.Conn, state http.ConnState) {
			d.seen(c, state)
			if also != nil {
				also(c, state)
			}
		},
	}
}

// seen finds who is known: a connection that asks for something, and has shown a certificate that was verified, is no stranger's.
func (d *Door) seen(c net.Conn, state http.ConnState) {
	if state != http.StateActive {
		return
	}
	t, ok := c.(*tls.Conn)
	if !ok {
		return
	}
	s, ok := t.NetConn().(*stranger)
	if !ok {
		return
	}
	d.mu.Lock()
	known := s.at == nil
	d.mu.Unlock()
	if known || len(t.ConnectionState().PeerCertificates) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(s)
}

// Held is how many connections strangers hold, and Turned how many were closed because of a bound.
func (d *Door) Held() (strangers int, turned uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.strangers.Len(), d.turned
}

// drop closes at once: what is unsent is thrown away, and nothing of the connection stays behind in the kernel.
func drop(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // it closes all the same
	}
	_ = c.Close() // whoever it was is gone
}
