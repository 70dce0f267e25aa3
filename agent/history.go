package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

// History reads the signed history of a product's trust bundles from whoever answers. What it gives is believed by its signatures alone;
// link.History is one.
type History interface {
	Newest(ctx context.Context, product string) (wire.NewestBundle, error)
	Step(ctx context.Context, product string, version uint64) (wire.BundleStep, error)
	Home(ctx context.Context, product, device string) (wire.HomeHint, error)
	Close()
}

// Bounds of the way back.
const (
	maxSteps     = 256       // taken at once; a device that is further behind takes the rest at its next turn
	historyPause = time.Hour // after a history that brought nothing: a server that cannot be verified does not get a device to ask all the time
)

// strays notes a sign that this device's trust bundle is too old, or gone: the server cannot be verified by its anchors, or says that it
// can tell the device nothing by them, or certifies no keys of the suites that the bundle accepts. A sign costs one look at the history, and nothing else: who gives it falsely gains nothing.
func (a *Agent) strays(err error, newest uint64) {
	unverified := errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(x509.UnknownAuthorityError)) ||
		errors.As(err, new(x509.CertificateInvalidError))
	if (unverified || oldSuite(err) || newest > a.c.Machine.Facts().Bundle.Version) && !a.now().Before(a.historyAt) {
		a.astray = true
	}
}

// regain takes the way back when there is need of it. Without a trust bundle there is no other way to go on.
func (a *Agent) regain(ctx context.Context) error {
	lost := a.c.Machine.Facts().Bundle.Version == 0
	if !lost && !a.astray || a.c.History == nil {
		return nil
	}
	a.astray = false
	if lost && a.c.Machine.Facts().Homes > 0 {
		err := a.comeHome(ctx)
		if fatal(err) {
			return err
		}
		return fmt.Errorf("no trust bundle: %w", err)
	}
	moved, err := a.wayBack(ctx)
	if fatal(err) {
		return err
	}
	if !moved {
		a.historyAt = a.now().Add(jitter(historyPause))
	}
	switch {
	case lost && err != nil:
		return fmt.Errorf("no trust bundle: %w", err)
	case lost && !moved:
		return errors.New("no trust bundle, and no history that begins with the root in the fuses")
	case err != nil:
		a.log.Warn("the history of trust bundles", "error", err)
	}
	return nil
}

// steps are bundles that follow each other, verified, and where that leads.
type steps struct {
	envelopes [][]byte
	versions  []uint64
	last      *wire.Bundle    // nil: none yet
	more      bool            // the history goes on
	trees     []wire.TreeHead // as they are known then
}

// wayBack brings the trust bundle up to the newest by the signed history. Everything is verified before anything is written.
func (a *Agent) wayBack(ctx context.Context) (moved bool, err error) {
	h, err := a.c.History("")
	if err != nil {
		return false, err
	}
	defer h.Close()
	return a.come(ctx, h)
}

// come takes what h has beyond the bundle in force.
func (a *Agent) come(ctx context.Context, h History) (moved bool, err error) {
	s, err := a.ahead(ctx, h)
	if err != nil || len(s.envelopes) == 0 {
		return false, err
	}
	return true, a.take(s)
}

// ahead verifies what h has beyond the bundle in force, and whether the board would take it. Nothing is written.
func (a *Agent) ahead(ctx context.Context, h History) (steps, error) {
	f := a.c.Machine.Facts()
	newest, err := h.Newest(ctx, f.Product)
	if err != nil {
		return steps{}, err
	}
	s, err := follow(ctx, h, f, newest.Version)
	if err != nil || len(s.envelopes) == 0 {
		return steps{}, err
	}
	s.trees = a.m.Trees
	if !s.more {
		tree, err := gate.Newest(*s.last, s.envelopes[len(s.envelopes)-1], a.m.Trees, newest)
		if err != nil {
			return steps{}, err
		}
		s.trees = gate.Grown(s.trees, tree)
	}
	if err := a.c.Machine.MaySet(s.envelopes...); err != nil {
		return steps{}, a.untaken(err, func(text string) error { return errors.New("the board does not take them: " + text) })
	}
	return s, nil
}

// take has the last of these bundles in force.
func (a *Agent) take(s steps) error {
	for _, v := range s.versions {
		if err := a.record(eventBundle, nil, fmt.Sprintf("version %d, from the signed history", v)); err != nil {
			return err
		}
	}
	if err := a.c.Machine.SetBundle(s.envelopes...); err != nil {
		return local(err)
	}
	a.clock.learn(s.last.Issued)
	next := a.m
	next.Trees = s.trees
	if err := a.save(next); err != nil {
		return local(err)
	}
	a.astray, a.doubtAt = s.more, time.Time{}
	a.hangUp()
	return nil
}

// follow fetches and verifies what comes after the bundle in force; without one, what comes from the first that has the root role in the
// fuses on.
func follow(ctx context.Context, h History, f Facts, newest uint64) (steps, error) {
	s := steps{}
	version := uint64(1)
	if f.Bundle.Version > 0 {
		s.last, version = &f.Bundle, f.Bundle.Version+1
	}
	for tried := 0; version <= newest; version++ {
		if tried++; tried > maxSteps && s.last != nil {
			s.more = true
			return s, nil
		}
		step, err := h.Step(ctx, f.Product, version)
		if err != nil {
			return s, err
		}
		b, envelope, err := wire.VerifyStep(s.last, step)
		if err != nil {
			return s, err
		}
		if s.last == nil {
			root, err := wire.RootDigest(b)
			if err != nil {
				return s, err
			}
			if root != f.Root || b.Product != f.Product {
				continue
			}
		}
		s.last, s.envelopes, s.versions = &b, append(s.envelopes, envelope), append(s.versions, b.Version)
	}
	return s, nil
}

// hangUp ends the line: the next call makes one by the anchors there are then.
func (a *Agent) hangUp() {
	if a.server != nil {
		a.server.Close()
		a.server = nil
	}
}
