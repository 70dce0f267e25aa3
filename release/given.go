package release

import (
	"context"
	"io"
	"sync"
)

// Given is how many bytes of a delta devices were given.
type Given struct {
	Product string
	Digest  [32]byte // of the delta
	Bytes   uint64
}

// given counts what deltas gave since it was stored last: in memory, because a request writes nothing. What a crash loses is of a statistic.
type given struct {
	mu sync.Mutex
	n  map[Given]uint64 // by those without bytes
}

func (g *given) add(product string, digest [32]byte, bytes uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n == nil {
		g.n = map[Given]uint64{}
	}
	g.n[Given{Product: product, Digest: digest}] += bytes
}

func (g *given) take() (all []Given) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for of, n := range g.n {
		of.Bytes = n
		all = append(all, of)
	}
	g.n = nil
	return all
}

// Flush stores what was counted of deltas. What cannot be stored is counted on.
func (s *Service) Flush(ctx context.Context) error {
	all := s.given.take()
	if len(all) == 0 {
		return nil
	}
	err := s.cfg.Deltas.Gave(ctx, all)
	if err != nil {
		for _, g := range all {
			s.given.add(g.Product, g.Digest, g.Bytes)
		}
	}
	return err
}

// counted counts what is read of a delta.
type counted struct {
	io.ReadSeekCloser
	n    uint64
	told func(n uint64)
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadSeekCloser.Read(p)
	c.n += uint64(n)
	return n, err
}

// Close implements io.Closer.
func (c *counted) Close() error {
	if c.n > 0 {
		c.told(c.n)
		c.n = 0
	}
	return c.ReadSeekCloser.Close()
}

// Saved is how many bytes less were given than without the delta, reckoned from what was given of it: a part of it stands for as large a part of the component.
func (d Delta) Saved() uint64 {
	if d.Size == 0 || d.Whole < d.Size {
		return 0
	}
	return uint64(float64(d.Given) * float64(d.Whole-d.Size) / float64(d.Size))
}
