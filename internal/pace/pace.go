// Package pace slows the bytes that leave for devices to what was asked for.
//
// Under all stages, beneath the adapters. A reader is slowed, so that whoever copies from it is, whatever the protocol. It guarantees that no more than a limit leaves
// this process in a second, but for one quantum of each limit, that who shares a limit has turns of one quantum each, and that nobody waits for a turn longer than clients are patient:
// whoever comes beyond that is turned away, to come again. Memory is that of the limits in use.
package pace

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/hallmark-iot/hallmark/fault"
)

// Limit is what a device's bytes are held to, in bytes a second; 0: nothing. Those of one Name share All; Each is for all that one device fetches at the same time.
type Limit struct {
	Name string
	All  uint64
	Each uint64
}

// Bounds of a turn: its bytes, and how long one waits for it. A client of SWUpdate's or Mender's gives a line up that brought nothing for five minutes.
const (
	quantum  = 16 << 10
	patience = time.Minute
	forget   = time.Minute // a limit that nobody has used for so long is whole again
	atOnce   = 8           // requests of one device, so that it does not take the places of others
)

// Pacer slows readers.
type Pacer struct {
	of func(ctx context.Context, device string) (Limit, error)

	mu     sync.Mutex
	shares map[share]*shared
	swept  time.Time // when those that are whole again were let go of last
}

// share is who has a limit together: those of a rollout, or all requests of a device.
type share struct{ rollout, device string }

type shared struct {
	limit   *rate.Limiter
	readers int
	left    time.Time // when the last reader did
}

// New makes a Pacer; of says what a device is held to.
func New(of func(ctx context.Context, device string) (Limit, error)) *Pacer {
	return &Pacer{of: of, shares: map[share]*shared{}}
}

// Slow gives f as fast as the device may have it. ctx ends what waits; closing gives the turn up.
func (p *Pacer) Slow(ctx context.Context, device string, f io.ReadSeekCloser) (io.ReadSeekCloser, error) {
	l, err := p.of(ctx, device)
	if err != nil || l.All == 0 && l.Each == 0 {
		return f, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(time.Now())
	own, all := p.share(share{device: device}, l.Each), p.share(share{rollout: l.Name}, l.All)
	most := max(1, l.All*uint64(patience/time.Second)/uint64(all.limit.Burst()))
	switch {
	case own.readers >= atOnce:
		return nil, fault.New(fault.Unavailable, "artifact.busy", fmt.Sprintf("device %s fetches %d things already", device, own.readers), "try again when one of them is here")
	case l.All > 0 && uint64(all.readers) >= most:
		return nil, fault.New(fault.Unavailable, "artifact.busy", fmt.Sprintf("%d devices share %d bytes a second of rollout %s, as many as have a turn in %s", all.readers, l.All, l.Name, patience),
			"try again; whoever runs the rollout gives it more: `hallmark rollout bandwidth`")
	}
	own.readers++
	all.readers++
	return &reader{
		ReadSeekCloser: f, ctx: ctx, limits: [2]*rate.Limiter{own.limit, all.limit}, most: min(own.limit.Burst(), all.limit.Burst()),
		leave: sync.OnceFunc(func() { p.part(own, all) }),
	}, nil
}

// forget lets go of limits that are whole again, now and then: it looks at each, and everybody waits.
func (p *Pacer) forget(now time.Time) {
	if now.Sub(p.swept) < forget {
		return
	}
	p.swept = now
	for of, s := range p.shares {
		if s.readers == 0 && now.Sub(s.left) > forget {
			delete(p.shares, of)
		}
	}
}

// share gives what a limit is kept by, as it is now; of none nobody waits.
func (p *Pacer) share(of share, perSecond uint64) *shared {
	limit, burst := rate.Inf, quantum
	if perSecond > 0 {
		limit, burst = rate.Limit(perSecond), int(min(quantum, perSecond)) // no more than a second's bytes are a turn
	}
	s := p.shares[of]
	if s == nil {
		s = &shared{limit: rate.NewLimiter(limit, burst)}
		p.shares[of] = s
	}
	if s.limit.Limit() != limit { // it was changed
		s.limit.SetLimit(limit)
		s.limit.SetBurst(burst)
	}
	return s
}

func (p *Pacer) part(from ...*shared) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range from {
		s.readers--
		s.left = time.Now()
	}
}

// reader gives a turn's bytes at a time.
type reader struct {
	io.ReadSeekCloser
	ctx    context.Context //nolint:containedctx // that of the request which the reader is for
	limits [2]*rate.Limiter
	most   int
	leave  func()
}

// Read implements io.Reader. What was read is given when its turn is over.
func (r *reader) Read(b []byte) (int, error) {
	n, err := r.ReadSeekCloser.Read(b[:min(len(b), r.most)])
	for _, l := range r.limits {
		if err := l.WaitN(r.ctx, min(n, l.Burst())); err != nil { // less, where the limit was lowered meanwhile
			return 0, fmt.Errorf("while it waited for its turn: %w", err)
		}
	}
	return n, err
}

// Close implements io.Closer.
func (r *reader) Close() error {
	r.leave()
	return r.ReadSeekCloser.Close()
}
