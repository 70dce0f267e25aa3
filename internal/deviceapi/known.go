package deviceapi

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Who is at the other end of a connection is remembered, so that a device which calls often is not verified at each call: while nothing changed that
// tells, and for no longer than a moment, because certificates run out and revocations begin without a change. Only a device at work is remembered.

// knownFor is how long.
const knownFor = time.Second

// known is the peer of a connection.
type known struct {
	peer  Peer
	epoch uint64
	until time.Time
}

type knownKey struct{}

// ConnContext gives a connection its memory: it is the http.Server's. Without it each call is verified.
func ConnContext(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, knownKey{}, new(atomic.Pointer[known]))
}

// peer says who calls.
func (h *handler) peer(r *http.Request) (Peer, error) {
	memory, ok := r.Context().Value(knownKey{}).(*atomic.Pointer[known])
	if !ok || h.cfg.Epoch == nil {
		return h.cfg.Identify(r.TLS.PeerCertificates)
	}
	epoch, now := h.cfg.Epoch(), time.Now() // before it is looked at: what changes meanwhile is another epoch
	if k := memory.Load(); k != nil && k.epoch == epoch && now.Before(k.until) {
		return k.peer, nil
	}
	p, err := h.cfg.Identify(r.TLS.PeerCertificates)
	if err == nil && p.Operational && !p.Ended {
		memory.Store(&known{p, epoch, now.Add(knownFor)})
	}
	return p, err
}
