package device

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// What a delivery is made of is the same for each of a command's devices but for the directive and the device's own place in the set: it is proven once,
// and given out for a moment. A device that has seen a larger tree than that of the proof gets one of its own, for it would refuse the other.

// prepared remembers facts with their proofs, as the log's key that a trust bundle names has signed them. Its zero value is empty and ready.
type prepared struct {
	mu sync.Mutex
	by map[preparedKey]proven // guarded by mu
}

type preparedKey struct{ what, signer string }

type proven struct {
	wire.Logged
	at time.Time
}

const (
	preparedFor = 30 * time.Second
	maxPrepared = 1024 // proofs of some kilobytes
)

// get gives what prove gave a moment ago, or gives now. What may have been taken back since is for the caller to ask.
func (p *prepared) get(what string, held wire.Bundle, in wire.Checkin, now time.Time, prove func() (wire.Logged, error)) (wire.Logged, error) {
	k := preparedKey{what, string(held.Control.Key)}
	p.mu.Lock()
	have, ok := p.by[k]
	p.mu.Unlock()
	if age := now.Sub(have.at); ok && age >= 0 && age < lasts(held) && have.Proof.Size >= in.TreeSize {
		return have.Logged, nil
	}
	l, err := prove()
	if err != nil {
		return l, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil || len(p.by) >= maxPrepared {
		p.by = map[preparedKey]proven{} // start over: simple, and rare
	}
	p.by[k] = proven{l, now}
	return l, nil
}

// lasts is how long a proof is given out: a small part of the time for which a device believes it.
func lasts(held wire.Bundle) time.Duration {
	if held.MaxAge == 0 {
		return preparedFor
	}
	return min(preparedFor, time.Duration(min(held.MaxAge, 1<<32))*time.Second/4)
}

// releaseFor proves a release that is handed out, to a device that knows all that it asks for: it may be another agent's than when it was looked at for that.
func (s *Service) releaseFor(ctx context.Context, digest [32]byte, held wire.Bundle, in wire.Checkin) (wire.Logged, error) {
	prove := func() (wire.Logged, error) {
		m, _, err := s.cfg.Releases.Manifest(ctx, digest)
		if err != nil {
			return wire.Logged{}, err
		}
		if !reads(in, m) {
			return wire.Logged{}, fault.New(fault.Conflict, "device.knows", fmt.Sprintf("release %s asks for what the agent of the device does not know, of %v", m.ID, m.Asks()), "upgrade its agent")
		}
		l, err := s.cfg.Releases.Logged(ctx, digest)
		if err != nil {
			return l, err
		}
		return s.signedFor(ctx, l, held)
	}
	if open, err := s.cfg.Releases.HandsOut(ctx, digest); err != nil || !open {
		return prove() // which says why it is not
	}
	what := "release " // and to whom it is not given
	if unknown := wire.Unknown(in.Knows); len(unknown) > 0 {
		what = "release without " + strings.Join(unknown, ",") + " "
	}
	return s.prepared.get(what+string(digest[:]), held, in, s.cfg.Now(), prove)
}
