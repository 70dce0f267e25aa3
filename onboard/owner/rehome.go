package owner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// A device that goes to an instance of its owner's own leaves as one that is handed on, but for three things: the warrant keys and the owner's key both
// have to sign, by one document that names where to; it keeps its certificate until it has said that it goes; and then its life here has ended.

// offered reads the offer of the instance that a device goes to, and says what the device would refuse in it.
func (s *Service) offered(ctx context.Context, d device.Device, data []byte) (wire.HomeOffer, error) {
	o, b, err := wire.DecodeHomeOffer(data)
	if err == nil {
		var home wire.Home
		if home, err = o.Home(); err == nil {
			_, err = home.Opens(o.Bundle) // as the device will
		}
	}
	if err != nil {
		return o, fault.Newf(fault.Invalid, "rehome.offer", "the offer of the other instance: %w", err).
			With("have the other instance make its offer anew, for this device")
	}
	if b.Product != d.Product {
		return o, fault.New(fault.Invalid, "rehome.product", fmt.Sprintf("device %s is of product %s, the other instance offers to have %s", d.ID, d.Product, b.Product),
			"its product has to have the same ID there: the device's releases and its certificate name it")
	}
	here, err := s.cfg.Devices.CurrentBundle(ctx, d.Product)
	if err != nil {
		return o, err
	}
	return o, startsThere(d, here.Wire, b)
}

// startsThere refuses an instance where nothing could start the device: one that has started under a list of boot managers demands to be on one for good.
func startsThere(d device.Device, here, there wire.Bundle) error {
	if len(here.BootManagers) == 0 {
		return nil
	}
	for _, m := range here.BootManagers {
		code := [32]byte(m.Digest)
		if here.Starts(code, d.Hardware) == nil && len(there.BootManagers) > 0 && there.Starts(code, d.Hardware) == nil {
			return nil
		}
	}
	return fault.New(fault.Conflict, "rehome.boot-manager",
		fmt.Sprintf("device %s starts only by a boot manager that its trust bundle names: that of the other instance names none of those that may start it here", d.ID),
		"have the other instance sign for the same hallmark-agent (hallmark bundle payload --add-boot-manager), and offer again")
}

// handovers checks and logs the warrants by which devices go to another instance: one for all that belong to nobody, or one for each. What is wrong with them is
// told here, and not by the device weeks later.
func (s *Service) handovers(ctx context.Context, _ access.Caller, o Order, leaving []Leaving) error {
	for i, l := range leaving {
		id := l.Transfer.Device
		envelope, named := o.Warrants, []string{id}
		if one := forDevice(o.Warrants, id); one != nil {
			envelope = [][]byte{one}
		} else {
			named = o.Devices
		}
		if len(envelope) != 1 {
			return fault.New(fault.Invalid, "rehome.warrant", fmt.Sprintf("device %s goes to another instance by a warrant of the product's warrant keys only", id),
				"have one signed for just this device, or for just these: hallmark warrant payload --act rehome")
		}
		p, err := s.last(ctx, id)
		if err != nil {
			return err
		}
		if err := s.handover(p, envelope[0], l); err != nil {
			return err
		}
		w, err := s.submitted(ctx, system(), envelope[0], slices.Clone(named))
		if err != nil {
			return err
		}
		leaving[i].Transfer.Warrant = &w.UID
	}
	return nil
}

// handover checks what a warrant says, and that the owner has signed it. The threshold is for who logs it to check.
func (s *Service) handover(p Period, envelope []byte, l Leaving) error {
	id := l.Transfer.Device
	wrong := func(text, remedy string) error { return fault.New(fault.Invalid, "rehome.warrant", text, remedy) }
	payload, _, err := wire.ThresholdPayload(wire.TypeWarrant, envelope)
	if err != nil {
		return fault.Newf(fault.Invalid, "rehome.warrant", "%w", err).
			With("sign the warrant that was given, as it is, by as many of the role as the trust bundle asks for")
	}
	w, err := wire.DecodeWarrant(payload)
	if err != nil {
		return fault.Newf(fault.Invalid, "rehome.warrant", "%w", err).
			With("sign the warrant that was given, as it is, by as many of the role as the trust bundle asks for")
	}
	offer, _, err := wire.DecodeHomeOffer(l.Transfer.Offer)
	if err != nil {
		return err
	}
	home, err := offer.Home()
	if err != nil {
		return err
	}
	if w.Act != wire.ActRehome || !bytes.Equal(w.Home.Bundle, home.Bundle) || w.Home.Server != home.Server {
		return wrong(fmt.Sprintf("warrant %s is not for the instance whose offer came with it", w.ID), "have one signed for this offer: hallmark warrant payload --act rehome --offer FILE")
	}
	var owner []byte
	if p.current() && len(p.Key) > 0 {
		owner = p.Digest
		if !p.Holds {
			return fault.New(fault.Conflict, "rehome.adopting", fmt.Sprintf("device %s has still to say that it defends its owner", id), "wait until it was heard of")
		}
		if _, err := wire.VerifyThreshold(wire.TypeWarrant, envelope, wire.KeySet{Keys: [][]byte{p.Key}, Threshold: 1}); err != nil {
			return wrong(fmt.Sprintf("device %s defends its owner, whose key has not signed warrant %s", id, w.ID), "have the owner sign it as well: hallmark approve FILE --key acme/owner.key")
		}
	}
	if !bytes.Equal(w.Owner, owner) {
		return wrong(fmt.Sprintf("warrant %s ends the ownership %x, device %s belongs to %x", w.ID, w.Owner, id, owner),
			"have one signed that names the ownership: hallmark device transfer --dry-run tells it")
	}
	return nil
}

// HandedTo says where a device was told to go from here, for anybody: the warrant that says so is in the public log. Empty: nowhere.
func (s *Service) HandedTo(ctx context.Context, product, id string) (server string, err error) {
	t, err := s.cfg.Transfers.Transfer(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return "", nil
	case err != nil:
		return "", err
	case t.Kind != Rehome || t.Product != product || !t.GivenUp.IsZero() || t.Tries == 0:
		return "", nil
	}
	return t.Server, nil
}
