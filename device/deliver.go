package device

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// word is what a device is told at a check-in.
type word struct {
	delivery    []byte    // nil: nothing
	outstanding bool      // it should come back soon
	newest      uint64    // the trust bundle it has to come up to before anything can be told; 0: none
	opens       time.Time // when it may be given what waits for its hours; zero: nothing does
}

// deliver makes the delivery of the most urgent command that can be proven now.
func (s *Service) deliver(ctx context.Context, d Device, in wire.Checkin, now time.Time) (t word, err error) {
	list, err := s.cfg.Reports.Outstanding(ctx, d.ID, now)
	if err != nil || len(list) == 0 {
		return t, err
	}
	held, current, err := s.bundles(ctx, d.Product, in.Bundle)
	if in.Bundle == 0 || errors.Is(err, ErrNotFound) {
		return t, nil // a bundle that was never published: it is on record as inconsistent, if it claims to have had a later one
	}
	if err != nil {
		return t, err
	}
	key, ok := s.authority(held.Wire)
	blind := !ok
	told := len(list)
	if list, err = s.mendedFirst(ctx, d, in, list, now); err != nil {
		return t, err
	}
	if len(list) < told {
		t.opens = now.Add(s.cfg.Poll) // it may be told what was held back at its next poll
	}
	waits := false
	for _, c := range list {
		if waitsFor(in, c) {
			waits = true
			continue
		}
		if waits && wire.NeedsRelease(c.Wire.Act) || !understands(in, c) {
			continue
		}
		if c.Wire.Act == wire.ActBundle && in.Bundle >= current.Wire.Version {
			continue // it has come up by the history; this is for the next bundle then
		}
		if opens := c.opens(now, d.Twin.Zone); opens.After(now) {
			t.opens = earlier(t.opens, opens)
			continue
		}
		t.outstanding = true
		if !ok || !fits(d, in, c) {
			continue
		}
		out, err := s.assemble(ctx, d, in, c, held.Wire, current.Wire.Version)
		var refused *fault.Fault
		if errors.Is(err, errBlind) {
			blind = true
			continue
		}
		if errors.Is(err, ledger.ErrNotYetWitnessed) || errors.As(err, &refused) && refused.Kind != fault.Internal {
			continue // what cannot be proven now, or never again (its release was withdrawn), keeps nothing else from the device
		}
		if err != nil {
			return t, err
		}
		t.delivery, err = s.direct(ctx, d, in, c, out, key, now)
		if errors.Is(err, ErrChanged) { // cancelled meanwhile
			continue
		}
		return t, err
	}
	if blind && current.Wire.Version > in.Bundle {
		t.newest = current.Wire.Version
	}
	return t, nil
}

// bundles gives a product's trust bundle of a version, which nearly all devices have, and the newest.
func (s *Service) bundles(ctx context.Context, product string, version uint64) (held, current Bundle, err error) {
	if current, err = s.cfg.Trust.Bundle(ctx, product, 0); err != nil || version == current.Wire.Version {
		return current, current, err
	}
	held, err = s.cfg.Trust.Bundle(ctx, product, version)
	return held, current, err
}

// mendedFirst leaves out the trust bundle under which what the device runs would not start again, for as long as it is told of a release that would: a device that took
// the bundle first would be without anything to start until it has the other. A device that comes back late is told by a rollout that waited for it, some seconds after it is heard of. Where nothing mends it that the device is given now, the bundle is what its signers wanted: an order that
// waits for its hours, or for somebody's consent, does not keep it from a device, nor those after it.
func (s *Service) mendedFirst(ctx context.Context, d Device, in wire.Checkin, list []Command, now time.Time) ([]Command, error) {
	raises := func(c Command) bool { return c.Wire.Act == wire.ActBundle }
	if len(in.Release) != sha256.Size || !slices.ContainsFunc(list, raises) {
		return list, nil
	}
	next, err := s.cfg.Trust.Bundle(ctx, d.Product, in.Bundle+1)
	if errors.Is(err, ErrNotFound) {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	if runs, _, err := s.cfg.Releases.Manifest(ctx, [32]byte(in.Release)); err != nil || runs.Counter >= next.Wire.Floor {
		return list, unlessUnknown(err)
	}
	for _, c := range list {
		if !wire.NeedsRelease(c.Wire.Act) {
			continue
		}
		if waitsFor(in, c) {
			break // and what comes after it
		}
		if !understands(in, c) || c.opens(now, d.Twin.Zone).After(now) {
			continue
		}
		m, open, err := s.cfg.Releases.Manifest(ctx, [32]byte(c.Wire.Release))
		if err := unlessUnknown(err); err != nil {
			return nil, err
		}
		if open && m.Counter >= next.Wire.Floor && reads(in, m) {
			return slices.DeleteFunc(slices.Clone(list), raises), nil
		}
	}
	if s.cfg.Later == nil || now.Sub(d.LastSeen) <= 2*s.cfg.Poll {
		return list, nil // at its first contact alone: nobody keeps a bundle from a device for longer by what he promises
	}
	will, err := s.cfg.Later.WillTell(ctx, d.ID, next.Wire.Floor)
	if will {
		list = slices.DeleteFunc(slices.Clone(list), raises)
	}
	return list, err
}

// Later knows what devices will be told that no command tells yet.
type Later interface {
	// WillTell reports whether a device, now that it is heard of, is about to be told of a release with this security counter or a higher one.
	WillTell(ctx context.Context, device string, counter uint32) (bool, error)
}

// waitsFor reports whether the device has the command, and says itself when it is to be told again.
func waitsFor(in wire.Checkin, c Command) bool {
	return in.Waits != nil && bytes.Equal(c.Digest[:], in.Waits.Command)
}

func unlessUnknown(err error) error {
	if fault.KindOf(err) == fault.NotFound {
		return nil
	}
	return err
}

// understands reports whether a device of ours keeps to all that it would be told: it may be another agent's than when it was looked at for that. Consent that the
// command does not tell of nobody would be asked for.
func understands(in wire.Checkin, c Command) bool {
	switch {
	case c.Wire.Window != nil && !slices.Contains(in.Knows, wire.KnowsWindow), c.Wire.Manner != wire.Forced && !slices.Contains(in.Knows, wire.KnowsManner),
		c.Wire.Alone && !slices.Contains(in.Knows, wire.KnowsCarton):
		return false
	}
	return c.Manner != wire.Consent
}

// reads reports whether a device can be told of a release: it knows all that the release asks for.
func reads(in wire.Checkin, m wire.Release) bool {
	return !slices.ContainsFunc(m.Asks(), func(kind string) bool { return !slices.Contains(in.Knows, kind) })
}

// fits leaves code alone while the device is busy with code, and gives a device on its way out nothing but its end.
func fits(d Device, in wire.Checkin, c Command) bool {
	if d.State == Decommissioning || d.State == Lost || d.State == Suspected {
		return c.Wire.Act == wire.ActWipe || c.Wire.Act == wire.ActQuarantine || c.Wire.Act == wire.ActAttest
	}
	if !wire.NeedsRelease(c.Wire.Act) {
		return true
	}
	return !in.Trial && in.Progress == nil // what it is at comes to its own end first
}

// assemble gathers the proofs.
func (s *Service) assemble(ctx context.Context, d Device, in wire.Checkin, c Command, held wire.Bundle, newest uint64) (wire.Delivery, error) {
	out := wire.Delivery{Config: c.Config}
	var err error
	if out.Command, err = s.commandFor(ctx, c, held, in); err != nil {
		return out, err
	}
	tree, err := s.sets.get(ctx, "c"+c.ID, func(ctx context.Context) ([]string, error) {
		return s.cfg.Commands.CommandSet(ctx, c.ID)
	})
	if err != nil {
		return out, err
	}
	if out.Member, err = tree.membership(d.ID); err != nil {
		return out, err
	}
	if wire.NeedsRelease(c.Wire.Act) {
		l, err := s.releaseFor(ctx, [32]byte(c.Wire.Release), held, in)
		if err != nil {
			return out, err
		}
		out.Release = &l
		if out.Forms, err = s.forms(ctx, in, c.Wire.Release); err != nil {
			return out, err
		}
	}
	if c.Warrant != nil {
		if err := s.addWarrant(ctx, d, *c.Warrant, held, &out); err != nil {
			return out, err
		}
	}
	if in.Bundle >= newest {
		return out, nil
	}
	return out, s.addBundle(ctx, d, in, c, held, &out)
}

func (s *Service) addWarrant(ctx context.Context, d Device, uid [16]byte, held wire.Bundle, out *wire.Delivery) error {
	l, err := s.loggedFor(ctx, uid, held)
	if err != nil {
		return err
	}
	tree, err := s.sets.get(ctx, "w"+hex.EncodeToString(uid[:]), func(ctx context.Context) ([]string, error) {
		return s.cfg.Trust.WarrantDevices(ctx, uid)
	})
	if err != nil {
		return err
	}
	m, err := tree.membership(d.ID)
	out.Warrant, out.WarrantMember = &l, &m
	return err
}

// addBundle adds the bundle that follows the device's, when there is one: it takes them one after another.
func (s *Service) addBundle(ctx context.Context, d Device, in wire.Checkin, c Command, held wire.Bundle, out *wire.Delivery) error {
	b, err := s.cfg.Trust.Bundle(ctx, d.Product, in.Bundle+1)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	l, err := s.loggedFor(ctx, b.UID, held)
	if errors.Is(err, ledger.ErrNotYetWitnessed) && c.Wire.Act != wire.ActBundle {
		return nil // it comes with the next delivery
	}
	out.Bundle = &l
	return err
}

// direct signs the directive. Its counter is durable before it exists.
func (s *Service) direct(ctx context.Context, d Device, in wire.Checkin, c Command, out wire.Delivery, key crypto.Signer, now time.Time) ([]byte, error) {
	floor := in.Counter
	if floor > d.Counter+wire.MaxCounterGap {
		floor = 0 // nonsense: it is on record as inconsistent, and a counter we would never reach helps nobody
	}
	counter, err := s.cfg.Reports.NextCounter(ctx, d.ID, c.ID, floor, false, now)
	if err != nil {
		return nil, err
	}
	expires := now.Add(s.cfg.Directive)
	if expires.After(c.Expires) {
		expires = c.Expires
	}
	if !expires.After(now.Add(time.Second)) {
		return nil, ErrChanged // it runs out as we speak
	}
	payload, err := wire.EncodeDirective(wire.Directive{
		Device: d.ID, Counter: counter, Nonce: in.Nonce, Act: c.Wire.Act, Command: c.Digest[:],
		Issued: uint64(now.Unix()), Expires: uint64(expires.Unix()),
	})
	if err != nil {
		return nil, err
	}
	if out.Directive, err = wire.Sign1(wire.TypeDirective, payload, key); err != nil {
		return nil, err
	}
	return wire.EncodeDelivery(out)
}
