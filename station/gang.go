package station

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Gang is a fixture as a Source: each of its places makes a piece at a time, beside the others. A place whose commands fail before a ticket is
// spent, again and again, is given up; the others go on.
type Gang struct {
	f    Fixture
	free chan string

	mu     sync.Mutex // guards what follows
	misses map[string]int
	lost   int
	why    error         // of the last place that was given up
	none   chan struct{} // closed when no place is left
}

// missesInARow gives a place up: its probe is broken, or nobody puts fit pieces there.
const missesInARow = 3

// NewGang makes one of a fixture that was read.
func NewGang(f Fixture) *Gang {
	g := &Gang{f: f, free: make(chan string, len(f.Places)), misses: map[string]int{}, none: make(chan struct{})}
	for _, p := range f.Places {
		g.free <- p
	}
	return g
}

// Places is how many pieces can be made at once.
func (g *Gang) Places() int { return len(g.f.Places) }

// Next implements Source: it waits for a place, and there for a piece.
func (g *Gang) Next(ctx context.Context) (Programmer, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a piece: %w", ctx.Err())
		case <-g.none:
			return nil, g.allLost()
		case at := <-g.free:
			out, err := command(ctx, g.f.Next, 0, "{place}", at)
			if err == nil {
				_, err = parseSaid(out)
			}
			if ctx.Err() != nil {
				g.free <- at
				return nil, fmt.Errorf("wait for a piece: %w", ctx.Err())
			}
			if err != nil {
				g.back(at, fmt.Errorf("place %s: next: %w", at, err))
				continue
			}
			return g.probe(at)
		}
	}
}

func (g *Gang) allLost() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return fmt.Errorf("no place of the fixture is left, the last one because: %w", g.why)
}

func (g *Gang) probe(at string) (Programmer, error) {
	dir, done, err := g.f.handover()
	if err != nil {
		g.free <- at
		return nil, err
	}
	return &Probe{f: &g.f, place: at, dir: dir, done: done, leave: func(made bool) {
		if made {
			g.back(at, nil)
			return
		}
		g.back(at, errors.New("its pieces were not made"))
	}}, nil
}

// back frees a place, or gives it up.
func (g *Gang) back(at string, bad error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if bad == nil {
		g.misses[at] = 0
	} else if g.misses[at]++; g.misses[at] >= missesInARow {
		g.why = bad
		if g.lost++; g.lost == len(g.f.Places) {
			close(g.none)
		}
		return
	}
	g.free <- at
}
