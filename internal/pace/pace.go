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

// Limit is what a device's bytes are held to, in bytes a second; 0: nothing. Those of one Name share All.
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
)

// Pacer slows readers.
type Pacer struct {
	of func(ctx context.Context, device string) (Limit, error)

	mu  sync.Mutex
	all map[string]*shared
}

type shared struct {
	limit   *rate.Limiter
	readers int
	left    time.Time // when the last reader did
}

// New makes a Pacer; of says what a device is held to.
func New(of func(ctx context.Context, device string) (Limit, error)) *Pacer {
	return &Pacer{of: of, all: map[string]*shared{}}
}

// Slow gives f as fast as the device may have it. ctx ends what waits; closing gives the turn up.
func (p *Pacer) Slow(ctx context.Context, device string, f io.ReadSeekCloser) (io.ReadSeekCloser, error) {
	l, err := p.of(ctx, device)
	if err != nil || l.All == 0 && l.Each == 0 {
		return f, err
	}
	r := &reader{ReadSeekCloser: f, ctx: ctx, leave: func() {}}
	if l.Each > 0 {
		r.limits = append(r.limits, limiter(l.Each))
	}
	if l.All > 0 {
		s, err := p.join(l)
		if err != nil {
			return nil, err
		}
		r.limits, r.leave = append(r.limits, s.limit), sync.OnceFunc(func() { p.part(s) })
	}
	r.most = quantum
	for _, l := range r.limits {
		r.most = min(r.most, l.Burst())
	}
	return r, nil
}

func limiter(perSecond uint64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), burst(perSecond))
}

// burst is a turn: no more than a second's bytes.
func burst(perSecond uint64) int { return int(min(quantum, perSecond)) }

// join takes a place among those that share a limit.
func (p *Pacer) join(l Limit) (*shared, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for name, s := range p.all {
		if s.readers == 0 && now.Sub(s.left) > forget {
			delete(p.all, name)
		}
	}
	s := p.all[l.Name]
	if s == nil {
		s = &shared{limit: limiter(l.All)}
		p.all[l.Name] = s
	}
	if s.limit.Limit() != rate.Limit(l.All) { // it was changed
		s.limit.SetLimit(rate.Limit(l.All))
		s.limit.SetBurst(burst(l.All))
	}
	if most := max(1, l.All*uint64(patience/time.Second)/uint64(burst(l.All))); uint64(s.readers) >= most {
		return nil, fault.New(fault.Unavailable, "artifact.busy", fmt.Sprintf("%d devices share %d bytes a second of rollout %s, as many as have a turn in %s", s.readers, l.All, l.Name, patience),
			"try again; whoever runs the rollout gives it more: `hallmark rollout bandwidth`")
	}
	s.readers++
	return s, nil
}

func (p *Pacer) part(s *shared) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.readers--
	s.left = time.Now()
}

// reader gives a turn's bytes at a time.
type reader struct {
	io.ReadSeekCloser
	ctx    context.Context //nolint:containedctx // that of the request which the reader is for
	limits []*rate.Limiter
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
