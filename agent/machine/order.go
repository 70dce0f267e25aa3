package machine

import (
	"context"
	"errors"
	"slices"
	"time"
)

// A program that comes after others is started once each of them was found well since it was started itself. Whoever is stopped here takes along, before it, those that come after
// it; so they are started anew behind it. One that ends by itself takes nobody along. The list of programs is in that order.

// awaits gives the first program that x comes after and that is not up; empty: x may be started. p.mu is held.
func (p *Programs) awaits(x *program) string {
	for _, y := range p.list {
		if slices.Contains(x.what.After, y.name) && (y.proc == nil || y.up != y.proc) {
			return y.name
		}
	}
	return ""
}

// begin starts what neither runs nor waits. What does not start is there with its fault; one that waits for a key is none for whoever asks. p.mu is held.
func (p *Programs) begin() error {
	var faults []error
	for _, x := range p.list {
		if x.proc != nil || x.fault != nil || p.awaits(x) != "" {
			continue
		}
		if x.proc, x.fault = x.start(); x.fault != nil && !errors.Is(x.fault, errLocked) {
			faults = append(faults, x.fault)
		}
	}
	select {
	case p.stir <- struct{}{}:
	default: // it is going to look, or there is nobody who does
	}
	return errors.Join(faults...)
}

// halt stops x, and before it those that come after it. p.mu is held.
func (p *Programs) halt(x *program) {
	var all []*program
	for _, y := range p.list {
		if y == x || slices.ContainsFunc(all, func(z *program) bool { return slices.Contains(y.what.After, z.name) }) {
			all = append(all, y)
		}
	}
	for _, y := range slices.Backward(all) {
		if y.proc != nil {
			y.proc.Stop()
			y.proc = nil
		}
	}
}

// How long it is until it is looked again whether a program is up that others wait for: longer and longer, for one that is sick may stay so.
const (
	lookSoon = 20 * time.Millisecond
	lookLate = time.Second
)

// tend starts the programs that wait, each when it may be, until ctx ends.
func (p *Programs) tend(ctx context.Context) {
	for pause := lookSoon; ; {
		wait, some := p.look(ctx)
		if some {
			pause = lookSoon
			continue
		}
		var again <-chan time.Time
		if wait {
			again = time.After(pause)
			pause = min(2*pause, lookLate)
		}
		select {
		case <-ctx.Done():
			return
		case <-p.stir:
			pause = lookSoon
		case <-again:
		}
	}
}

// look asks the programs that others wait for how they are, and starts those others; wait: it is worth looking again, some: there are more that are up than before.
func (p *Programs) look(ctx context.Context) (wait, some bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.quiet {
		return false, false
	}
	for _, y := range p.list {
		proc := y.proc
		if proc == nil || y.up == proc || !slices.ContainsFunc(p.list, func(x *program) bool { return x.proc == nil && slices.Contains(x.what.After, y.name) }) {
			continue
		}
		wait = true
		p.mu.Unlock() // it may take its time
		good, known, _ := proc.Health(ctx)
		p.mu.Lock()
		if good && known && y.proc == proc {
			y.up, some = proc, true
		}
	}
	if some && !p.quiet {
		_ = p.begin() // what does not start says so by its fault
	}
	return wait, some
}
