package device

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/carton"
)

// CartonOf says for whom a carton is. Without either, it is for all that may be told so.
type CartonOf struct {
	Devices []string `json:"devices,omitempty"` // just these
	Group   string   `json:"group,omitempty"`   // those in it, or in one below
}

// names reports whether a device may be one of those, by its name alone.
func (of CartonOf) names(id string) bool {
	return len(of.Devices) == 0 || slices.Contains(of.Devices, id)
}

// takes reports whether a device is one of those.
func (of CartonOf) takes(d Device) bool {
	return of.names(d.ID) && (of.Group == "" || access.Holds(access.Join(d.Product, of.Group), access.Join(d.Product, d.Group)))
}

// recipient is a device that a carton is for.
type recipient struct {
	device  Device
	command Command
}

// Carton writes the head of a carton: what devices are told that were commanded to install a release, and may be told by hand. Each has a directive of its own, whose counter is durable before it exists; a device
// that is told anything else meanwhile, or is given a later carton, refuses this one. It gives the head as its reader knows it, beside its bytes.
func (s *Service) Carton(ctx context.Context, caller access.Caller, release [32]byte, of CartonOf) (h carton.Head, encoded []byte, err error) {
	m, _, unknown := s.cfg.Releases.Manifest(ctx, release)
	if unknown != nil && fault.KindOf(unknown) != fault.NotFound {
		return h, nil, unknown
	}
	now := s.cfg.Now().UTC()
	read := sync.OnceValues(func() ([]recipient, error) {
		if unknown != nil {
			return nil, nil //nolint:nilerr // it is given behind the guard, below
		}
		return s.recipients(ctx, m.Product, release, of, now)
	})
	if err := s.overAll(ctx, caller, access.RolloutControl, access.Resource{Type: "device", Product: m.Product}, func() ([]string, error) {
		all, err := read()
		return groupsOf(all), err
	}); err != nil {
		return h, nil, err
	}
	all, err := read()
	switch {
	case err != nil:
		return h, nil, err
	case unknown != nil:
		return h, nil, unknown
	case len(all) == 0:
		return h, nil, nobody(m)
	case len(all) > carton.MaxDevices:
		return h, nil, tooMany(fmt.Errorf("more than %d devices, which is what a carton has at most", carton.MaxDevices))
	}
	if h, err = s.packed(ctx, m, release, all, now); errors.Is(err, ledger.ErrNotYetWitnessed) {
		return h, nil, fault.Newf(fault.Unavailable, "carton.not-witnessed", "what is to go into the carton: %w", err).With("try again when the log is witnessed; `hallmark log keys` shows its witnesses")
	} else if err != nil {
		return h, nil, err
	}
	if len(h.Devices) == 0 { // each has answered meanwhile
		return h, nil, nobody(m)
	}
	if encoded, err = carton.Encode(h); errors.Is(err, wire.ErrTooLarge) {
		err = tooMany(err)
	}
	return h, encoded, err
}

func tooMany(err error) error {
	return fault.Newf(fault.Invalid, "carton.devices", "too much for one carton: %w", err).With("name a group, or devices")
}

func nobody(m wire.Release) error {
	return fault.New(fault.Conflict, "carton.nobody", fmt.Sprintf("no such device was told to install release %s in a way that may be carried, or each has answered", m.ID),
		"see who has not answered with `hallmark rollout show`; if nobody was told, create a rollout of it with `hallmark rollout create --alone`, and start it")
}

func groupsOf(all []recipient) (groups []string) {
	for _, r := range all {
		if !slices.Contains(groups, r.device.Group) {
			groups = append(groups, r.device.Group)
		}
	}
	return groups
}

// recipients are the devices that have not answered a command to install the release which may be carried, by name; no more are given than a carton has, and one. Each device that may be one is
// read by itself: of those that are named no other, but of a group all that have not answered, until there are enough.
func (s *Service) recipients(ctx context.Context, product string, release [32]byte, of CartonOf, now time.Time) (out []recipient, err error) {
	commands, err := s.cfg.Commands.CommandsFor(ctx, product, release[:], now)
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for _, c := range slices.Backward(commands) { // the newest first
		if !c.Wire.Alone {
			continue
		}
		for after, more := "", true; more; {
			some, err := s.cfg.Commands.CommandDevices(ctx, c.ID, now, after, MaxPage)
			if err != nil {
				return nil, err
			}
			for _, x := range some {
				after = x.Device
				if x.Standing != Pending && x.Standing != Delivered || have[x.Device] || !of.names(x.Device) {
					continue
				}
				d, err := s.cfg.Registry.Device(ctx, x.Device)
				if err != nil {
					return nil, err
				}
				if of.takes(d) && Works(d.State) {
					have[d.ID], out = true, append(out, recipient{d, c})
				}
				if len(out) > carton.MaxDevices {
					return out, nil
				}
			}
			more = len(some) == MaxPage
		}
	}
	slices.SortFunc(out, func(a, b recipient) int { return strings.Compare(a.device.ID, b.device.ID) })
	return out, nil
}

// packed proves and signs all that goes into the head.
func (s *Service) packed(ctx context.Context, m wire.Release, release [32]byte, all []recipient, now time.Time) (h carton.Head, err error) {
	current, err := s.CurrentBundle(ctx, m.Product)
	if err != nil {
		return h, err
	}
	key, ok := s.authority(current.Wire)
	if !ok {
		return h, fault.New(fault.Conflict, "carton.key", fmt.Sprintf("trust bundle %d of %s believes no directive key of this instance", current.Wire.Version, m.Product),
			"see `hallmark key list`, and have a bundle published that names one: `hallmark bundle payload`")
	}
	anew := wire.Checkin{TreeSize: math.MaxUint64} // nobody asks who could say how far it has seen the log: the newest there is
	h = carton.Head{V: 1, Product: m.Product}
	if h.Release, err = s.releaseFor(ctx, release, current.Wire, anew); err != nil {
		return h, err
	}
	for _, c := range m.Components {
		if !slices.ContainsFunc(h.Blobs, func(b carton.Blob) bool { return string(b.Digest) == string(c.Digest) }) {
			h.Blobs = append(h.Blobs, carton.Blob{Digest: c.Digest, Size: c.Size})
		}
	}
	places, oldest, room := map[string]uint{}, current.Wire.Version, carton.MaxLogs
	if err := near(all, current.Wire.Version); err != nil {
		return h, err
	}
	for _, r := range all {
		at, ok := places[r.command.ID]
		if !ok {
			l, err := s.commandFor(ctx, r.command, current.Wire, anew)
			if err != nil {
				return h, err
			}
			at = uint(len(h.Commands))
			places[r.command.ID], h.Commands = at, append(h.Commands, l)
		}
		d, err := s.told(ctx, r, current.Wire, key, now)
		if errors.Is(err, ErrChanged) { // it has answered, or was cancelled, meanwhile
			continue
		}
		if err != nil {
			return h, err
		}
		if d.Log, err = s.reached(ctx, d.ID, &room); err != nil {
			return h, err
		}
		d.Command = at
		h.Devices = append(h.Devices, d)
		oldest = min(oldest, max(r.device.Twin.Bundle, 1))
	}
	return h, s.addSteps(ctx, &h, m.Product, oldest, current.Wire.Version)
}

// near refuses devices whose trust bundle is farther from the newest than a carton leads.
func near(all []recipient, newest uint64) error {
	const named = 20
	var far []string
	for _, r := range all {
		if has := max(r.device.Twin.Bundle, 1); newest > has+carton.MaxSteps {
			far = append(far, fmt.Sprintf("%s has %d", r.device.ID, has))
		}
	}
	if len(far) == 0 {
		return nil
	}
	text := strings.Join(far[:min(len(far), named)], ", ")
	if more := len(far) - named; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	return fault.New(fault.Conflict, "carton.steps", fmt.Sprintf("the newest trust bundle is %d, a carton brings %d, and these devices are farther behind: %s", newest, carton.MaxSteps, text),
		"bring those onto a line, and export for the others")
}

// told signs what one device is told. It is for as long as the proofs beside it are believed.
func (s *Service) told(ctx context.Context, r recipient, b wire.Bundle, key crypto.Signer, now time.Time) (out carton.Device, err error) {
	tree, err := s.sets.get(ctx, "c"+r.command.ID, func(ctx context.Context) ([]string, error) {
		return s.cfg.Commands.CommandSet(ctx, r.command.ID)
	})
	if err != nil {
		return out, err
	}
	if out.Member, err = tree.membership(r.device.ID); err != nil {
		return out, err
	}
	lasts := uint64(wire.MaxOffline)
	for _, age := range []uint64{b.Offline, b.MaxAge} {
		if age > 0 {
			lasts = min(lasts, age)
			break
		}
	}
	counter, err := s.cfg.Reports.NextCounter(ctx, r.device.ID, r.command.ID, r.device.Twin.Accepted, true, now)
	if err != nil {
		return out, err
	}
	payload, err := wire.EncodeOfflineDirective(wire.OfflineDirective{
		Device: r.device.ID, Counter: counter, Command: r.command.Digest[:],
		Issued: uint64(now.Unix()), Expires: min(uint64(now.Unix())+lasts, uint64(r.command.Expires.Unix())),
	})
	if err != nil {
		return out, err
	}
	out.ID = r.device.ID
	out.Directive, err = wire.Sign1(wire.TypeOffline, payload, key)
	return out, err
}

// reached is how far a device's log is here, as long as there is room for it: the device goes on from there in its next history, and its log is free up to there.
func (s *Service) reached(ctx context.Context, id string, room *int) (*wire.Logged, error) {
	if s.cfg.Journal == nil {
		return nil, nil
	}
	anchor, err := s.cfg.Journal.Anchor(ctx, id)
	if err != nil || anchor == nil {
		return nil, err
	}
	encoded, err := wire.Marshal(*anchor)
	if err != nil || len(encoded) > *room {
		return nil, err
	}
	*room -= len(encoded)
	return anchor, nil
}

// addSteps adds the trust bundles that follow the oldest which any of the devices is known to have.
func (s *Service) addSteps(ctx context.Context, h *carton.Head, product string, oldest, newest uint64) error {
	if oldest >= newest {
		return nil
	}
	for v := oldest + 1; v <= newest; v++ {
		encoded, _, err := s.BundleStep(ctx, product, v)
		if err != nil {
			return err
		}
		step, err := wire.DecodeBundleStep(encoded)
		if err != nil {
			return err
		}
		h.Steps = append(h.Steps, step)
	}
	encoded, err := s.NewestBundle(ctx, product)
	if err != nil {
		return err
	}
	end, err := wire.DecodeNewestBundle(encoded)
	h.From, h.Newest = oldest+1, &end
	return err
}
