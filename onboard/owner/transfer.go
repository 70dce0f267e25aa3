package owner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
)

// Order is what Transfer takes.
type Order struct {
	Devices  []string `json:"devices"`
	Kind     Kind     `json:"kind"`
	Reason   string   `json:"reason"`
	Warrants [][]byte `json:"warrants,omitempty"` // COSE_Sign(Warrant) for the act disown: of the owner's key, one for each device; or one of the warrant keys for just these
	Offer    []byte   `json:"offer,omitempty"`    // rehome: HomeOffer of the instance they go to; the warrants are then for the act rehome
}

// MaxDevices bounds the devices of an order.
const MaxDevices = 200

// Begun is what a transfer begins with: the code for the next owner is shown this once.
type Begun struct {
	Transfer Transfer `json:"transfer"`
	Code     string   `json:"code,omitempty"`
}

// Preview is what a transfer of a device would do.
type Preview struct {
	Device  string `json:"device"`
	Period  int    `json:"period" doc:"that would end; 0: it belongs to nobody"`
	Warrant string `json:"warrant" doc:"whose the device or the house wants: none, owner (the owner's key), or maker (the product's warrant keys)"`
	Digest  []byte `json:"owner_digest,omitempty" doc:"that the owner's warrant has to name"`
	Weight
}

// Whose warrant a transfer wants.
const (
	WarrantNone  = "none"
	WarrantOwner = "owner"
	WarrantMaker = "maker"
)

// wants says whose warrant ends a period: the maker's people cannot end an owner's without the offline keys, key or no key.
func wants(caller access.Caller, p Period) string {
	switch {
	case !p.current():
		return WarrantNone
	case caller.Owner == "":
		return WarrantMaker
	case len(p.Key) > 0:
		return WarrantOwner
	}
	return WarrantNone
}

// Preview says what a transfer would do, and does nothing.
func (s *Service) Preview(ctx context.Context, caller access.Caller, ids []string) ([]Preview, error) {
	if err := few(ids); err != nil {
		return nil, err
	}
	out := make([]Preview, 0, len(ids))
	for _, id := range ids {
		if _, err := s.open(ctx, caller, access.DeviceRead, id); err != nil {
			return nil, err
		}
		p, err := s.last(ctx, id)
		if err != nil {
			return nil, err
		}
		v := Preview{Device: id, Warrant: wants(caller, p)}
		if p.current() {
			v.Period, v.Digest = p.Number, p.Digest
		}
		if v.Weight, err = s.cfg.Transfers.Weight(ctx, id); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func few(ids []string) error {
	if len(ids) == 0 || len(ids) > MaxDevices {
		return fault.New(fault.Invalid, "transfer.devices", fmt.Sprintf("%d devices", len(ids)), fmt.Sprintf("name 1 to %d", MaxDevices))
	}
	return nil
}

// last gives the device's last period; one with number 0 when it never belonged to anybody.
func (s *Service) last(ctx context.Context, id string) (Period, error) {
	all, err := s.cfg.Store.Lineage(ctx, id)
	if err != nil || len(all) == 0 {
		return Period{}, err
	}
	return all[len(all)-1], nil
}

// Transfer ends the time of devices with their owner: all of them or none. When it returns, the owner is shut out, and what is stored of
// the data of their time is destroyed; the devices are told, and what they do follows as they come.
func (s *Service) Transfer(ctx context.Context, caller access.Caller, o Order) ([]Begun, error) {
	leaving, begun, facts, err := s.prepare(ctx, caller, &o)
	if err != nil {
		return nil, err
	}
	leave := s.warrants
	if o.Kind == Rehome {
		leave = s.handovers
	}
	if err := leave(ctx, caller, o, leaving); err != nil {
		return nil, err
	}
	if err := s.begun(ctx, leaving, facts); err != nil {
		return nil, err
	}
	for i, l := range leaving {
		begun[i].Transfer = shown(l.Transfer)
	}
	if err := s.cfg.Transfers.Purge(context.WithoutCancel(ctx)); err != nil {
		s.unpurged.Store(true) // the codes are shown this once, and do not wait for it; Tick tells what is wrong
	}
	return begun, nil
}

func (s *Service) begun(ctx context.Context, leaving []Leaving, facts []ledger.Fact) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.cfg.Transfers.Begin(ctx, leaving, facts...)
	if errors.Is(err, ErrChanged) {
		return fault.New(fault.Conflict, "transfer.changed", "a device changed meanwhile", "look again and repeat")
	}
	if err != nil {
		return err
	}
	for _, l := range leaving {
		if err := s.advance(ctx, l.Transfer); err != nil {
			break // it stands, and Tick goes on with it, here or on another node: with an error the codes, which are shown this once, would be lost
		}
	}
	return nil
}

// purge writes over what a transfer destroyed, when that failed at once.
func (s *Service) purge(ctx context.Context) error {
	if !s.unpurged.Load() {
		return nil
	}
	if err := s.cfg.Transfers.Purge(ctx); err != nil {
		return fmt.Errorf("traces of data that transfers destroyed may be in the database's files: %w", err)
	}
	s.unpurged.Store(false)
	return nil
}

// prepare checks everything but warrants, and touches nothing.
func (s *Service) prepare(ctx context.Context, caller access.Caller, o *Order) (leaving []Leaving, begun []Begun, facts []ledger.Fact, err error) {
	if err := few(o.Devices); err != nil {
		return nil, nil, nil, err
	}
	if o.Kind != Resale && o.Kind != Refurbish && o.Kind != Rehome || (o.Kind == Rehome) != (len(o.Offer) > 0) {
		return nil, nil, nil, fault.New(fault.Invalid, "transfer.kind", fmt.Sprintf("no kind %q, or an offer of another instance without, or not, for %q", o.Kind, Rehome),
			"resale, refurbish, or rehome with the offer of the instance that the devices go to")
	}
	if o.Reason == "" || len(o.Reason) > MaxReason {
		return nil, nil, nil, fault.New(fault.Invalid, "transfer.reason", "a transfer needs a reason", fmt.Sprintf("at most %d bytes", MaxReason))
	}
	o.Devices = slices.Compact(slices.Sorted(slices.Values(o.Devices)))
	grave := o.Kind == Rehome || s.cfg.Guard.Many(caller, o.Devices)
	for _, id := range o.Devices {
		d, err := s.cfg.Devices.Get(ctx, system(), id)
		if err != nil && fault.KindOf(err) != fault.NotFound {
			return nil, nil, nil, err
		}
		d.ID = id
		res := placed(d)
		res.Grave = grave
		if denied := s.cfg.Guard.Check(ctx, caller, access.DeviceTransfer, res); denied != nil {
			return nil, nil, nil, denied
		}
		if err != nil {
			return nil, nil, nil, err
		}
		l, b, f, err := s.leave(ctx, caller, d, *o)
		if err != nil {
			return nil, nil, nil, err
		}
		leaving, begun, facts = append(leaving, l), append(begun, b), append(facts, f)
	}
	return leaving, begun, facts, nil
}

// transferred is the Data of device.transferred, by which a period ends. Reason and who did it are private.
type transferred struct {
	Device     string            `json:"device"`
	Period     int               `json:"period"`
	Digest     []byte            `json:"owner_digest,omitempty"`
	Kind       Kind              `json:"kind"`
	Legitimacy device.Legitimacy `json:"legitimacy_to"`
	Reason     string            `json:"reason"`
	By         string            `json:"by"`
}

// leave makes of a device what leaves its owner.
func (s *Service) leave(ctx context.Context, caller access.Caller, d device.Device, o Order) (Leaving, Begun, ledger.Fact, error) {
	none := func(err error) (Leaving, Begun, ledger.Fact, error) { return Leaving{}, Begun{}, ledger.Fact{}, err }
	p, err := s.last(ctx, d.ID)
	if err != nil {
		return none(err)
	}
	switch t, err := s.cfg.Transfers.Transfer(ctx, d.ID); {
	case err != nil && !errors.Is(err, ErrNotFound):
		return none(err)
	case err == nil && t.Done.IsZero():
		return none(fault.New(fault.Conflict, "transfer.open", fmt.Sprintf("device %s is being transferred already", d.ID), "wait until it has let go"))
	case device.Ended(d.State) || d.State == device.Decommissioning || d.Legitimacy == device.Stolen || d.State == device.Suspected:
		return none(fault.New(fault.Conflict, "transfer.state", fmt.Sprintf("device %s is %s, %s", d.ID, d.State, d.Legitimacy), "what is stolen, suspected or at its end is not handed on"))
	case !p.current() && o.Kind == Resale:
		return none(fault.New(fault.Conflict, "transfer.unowned", fmt.Sprintf("device %s belongs to nobody", d.ID), "its first owner claims it with the code of its label"))
	}
	w, err := s.cfg.Transfers.Weight(ctx, d.ID)
	if err != nil {
		return none(err)
	}
	if w.Rollout != "" {
		return none(fault.New(fault.Conflict, "transfer.rollout", fmt.Sprintf("device %s is in rollout %s of its owner", d.ID, w.Rollout), "wait for its end, or abort it"))
	}
	l := Leaving{Stays: o.Kind == Rehome, From: d.Group, Base: o.Kind.legitimacy(), Legitimacy: o.Kind.legitimacy(), Transfer: Transfer{
		Device: d.ID, Product: d.Product, Kind: o.Kind, Reason: o.Reason, By: caller.ID, Begun: s.cfg.Now().UTC(), Rev: 1,
	}}
	who := caller.ID
	if p.current() {
		l.Transfer.Period, who = p.Number, actor(p)
	}
	if o.Kind == Rehome {
		offer, err := s.offered(ctx, d, o.Offer)
		if err != nil {
			return none(err)
		}
		l.Transfer.Server, l.Transfer.Offer, l.Transfer.From = offer.Server, o.Offer, d.Group
	}
	if l.Stays || d.Legitimacy == device.Recalled || d.Legitimacy == device.Unknown { // being sold makes nothing good
		l.Legitimacy = d.Legitimacy
	}
	var b Begun
	if o.Kind == Resale {
		b.Code = NewCode()
		h := hashOf(d.ID, b.Code)
		l.Code = &h
	}
	f, err := fact(ledger.KindDeviceTransferred, l.Transfer.Begun, who, d.ID, nil, transferred{
		Device: d.ID, Period: l.Transfer.Period, Digest: p.Digest, Kind: o.Kind, Legitimacy: l.Legitimacy, Reason: o.Reason, By: caller.ID,
	})
	l.Transfer.BegunUID = f.UID
	return l, b, f, err
}

// warrants checks and logs the warrants of an order. They are good for nothing but these devices, so that one which is logged before
// something fails changes nothing.
func (s *Service) warrants(ctx context.Context, caller access.Caller, o Order, leaving []Leaving) error {
	var owned []int
	periods := make([]Period, len(leaving))
	for i, l := range leaving {
		p, err := s.last(ctx, l.Transfer.Device)
		if err != nil {
			return err
		}
		periods[i] = p
		switch w := wants(caller, p); w {
		case WarrantNone:
			if caller.Owner == "" && len(o.Warrants) > 0 { // the device may know of an owner that we do not
				owned = append(owned, i)
			}
		case WarrantMaker:
			owned = append(owned, i)
		case WarrantOwner:
			envelope := forDevice(o.Warrants, l.Transfer.Device)
			if envelope == nil {
				return fault.New(fault.Invalid, "transfer.warrant", fmt.Sprintf("device %s lets go only with a warrant of its owner's key", l.Transfer.Device),
					"sign one: hallmark device transfer … --key FILE")
			}
			signed, err := s.cfg.Devices.OwnerWarrant(ctx, system(), envelope, l.Transfer.Device, p.Key)
			if err != nil {
				return err
			}
			if string(signed.Wire.Owner) != string(p.Digest) {
				return fault.New(fault.Invalid, "transfer.warrant", "the warrant is for another time of ownership", "sign one for the owner digest that the dry run tells")
			}
			leaving[i].Transfer.Warrant = &signed.UID
		}
	}
	if len(owned) == 0 {
		return nil
	}
	if len(o.Warrants) != 1 {
		return fault.New(fault.Invalid, "transfer.maker-warrant", "what is an owner's is not taken from it without the product's warrant keys",
			"have a warrant for the act disown signed for just these devices: hallmark warrant make")
	}
	ids := make([]string, 0, len(owned))
	for _, i := range owned {
		ids = append(ids, leaving[i].Transfer.Device)
	}
	w, err := s.submitted(ctx, caller, o.Warrants[0], ids)
	if err != nil {
		return err
	}
	if w.Wire.Act != wire.ActDisown {
		return fault.New(fault.Invalid, "transfer.warrant", fmt.Sprintf("warrant %s is for %s", w.Wire.ID, w.Wire.Act), "have one signed for disown")
	}
	for _, i := range owned {
		if p := periods[i]; p.current() && !ends(w.Wire, p) {
			return fault.New(fault.Invalid, "transfer.warrant", fmt.Sprintf("warrant %s is of before device %s belonged to whom it belongs to, or for another time of ownership", w.Wire.ID, p.Device),
				"have one signed now")
		}
		leaving[i].Transfer.Warrant = &w.UID
	}
	return nil
}

// ends says whether a warrant of the maker's ends the period: one that ended another, or could have, does not.
func ends(w wire.Warrant, p Period) bool {
	return !time.Unix(int64(w.Issued), 0).Before(p.From.Truncate(time.Second)) && (len(w.Owner) == 0 || string(w.Owner) == string(p.Digest))
}

// submitted submits a warrant, or finds it if it was submitted before: by somebody with that right, or before something failed.
func (s *Service) submitted(ctx context.Context, caller access.Caller, envelope []byte, ids []string) (device.Warrant, error) {
	payload, _, err := wire.ThresholdPayload(wire.TypeWarrant, envelope)
	if err != nil {
		return device.Warrant{}, fault.Newf(fault.Invalid, "transfer.warrant", "%w", err).
			With("sign the warrant that was given, as it is, by as many of the role as the trust bundle asks for")
	}
	claim, err := wire.DecodeWarrant(payload)
	if err != nil {
		return device.Warrant{}, fault.Newf(fault.Invalid, "transfer.warrant", "%w", err).
			With("sign the warrant that was given, as it is, by as many of the role as the trust bundle asks for")
	}
	known, named, err := s.cfg.Warrants.KnownWarrant(ctx, claim.ID)
	if errors.Is(err, device.ErrNotFound) {
		return s.cfg.Devices.SubmitWarrant(ctx, caller, envelope, ids)
	}
	if err != nil {
		return device.Warrant{}, err
	}
	if err := s.cfg.Devices.HoldsWarrant(ctx, envelope, ids); err != nil {
		return device.Warrant{}, err
	}
	have, err := wire.EncodeWarrant(known.Wire)
	slices.Sort(named)
	if err != nil || string(have) != string(payload) || !slices.Equal(named, slices.Sorted(slices.Values(ids))) {
		return device.Warrant{}, errors.Join(err, fault.New(fault.Conflict, "transfer.warrant",
			fmt.Sprintf("another warrant with the ID %s is here, or it names other devices", claim.ID), "have one signed with a fresh ID for just these devices"))
	}
	return known, nil
}

// forDevice finds the warrant that was signed for this device alone.
func forDevice(envelopes [][]byte, id string) []byte {
	set, err := wire.SetOf([]string{id})
	if err != nil {
		return nil
	}
	for _, e := range envelopes {
		payload, _, err := wire.ThresholdPayload(wire.TypeWarrant, e)
		if err != nil {
			continue
		}
		if w, err := wire.DecodeWarrant(payload); err == nil && string(w.Devices.Root) == string(set.Root) {
			return e
		}
	}
	return nil
}

// Transfers gives those of the devices that the caller may see, that are not done: by device, after (exclusive), at most limit.
func (s *Service) Transfers(ctx context.Context, caller access.Caller, after string, limit int) ([]Transfer, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.OwnerRead, access.Resource{Type: "transfer"}); err != nil {
		return nil, err
	}
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	all, err := s.cfg.Transfers.OpenTransfers(ctx, after, limit)
	for i := range all {
		all[i] = shown(all[i])
	}
	return all, err
}

// LastTransfer gives a device's last transfer.
func (s *Service) LastTransfer(ctx context.Context, caller access.Caller, id string) (Transfer, error) {
	if _, err := s.open(ctx, caller, access.DeviceRead, id); err != nil {
		return Transfer{}, err
	}
	t, err := s.cfg.Transfers.Transfer(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return t, fault.New(fault.NotFound, "transfer.unknown", fmt.Sprintf("device %s was never transferred", id), "see what there is with `hallmark device transfers`")
	}
	if caller.Owner != "" { // it is another owner's end
		t.By, t.Reason, t.Warrant = "", "", nil
	}
	return shown(t), err
}

// shown is a transfer as it is told of: where the device was is its group's to know.
func shown(t Transfer) Transfer {
	t.Offer, t.From = nil, ""
	return t
}

// advance does what can be done of a transfer now, one durable step after the other.
func (s *Service) advance(ctx context.Context, t Transfer) error {
	if t.Kind != Rehome {
		if err := s.revoked(ctx, &t); err != nil {
			return err
		}
	}
	if !t.LetGo {
		done, err := s.tell(ctx, &t)
		if err != nil || !done {
			return err
		}
	}
	if t.Kind == Rehome { // it had its certificate to hear of it, and to say that it goes
		if err := s.revoked(ctx, &t); err != nil {
			return err
		}
	}
	return s.finish(ctx, t)
}

func (s *Service) revoked(ctx context.Context, t *Transfer) error {
	if t.Revoked {
		return nil
	}
	if err := s.revoke(ctx, *t); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	t.Revoked = true
	if err := s.cfg.Transfers.SaveTransfer(ctx, *t); err != nil {
		return err
	}
	t.Rev++
	return nil
}

// affiliationChanged is the reason of RFC 5280 §5.3.1.
const affiliationChanged = 3

// passes bounds how often revoke looks again.
const passes = 16

// revoke takes the operational certificates that were given out before the transfer. With them the device's line ends; it enrols again
// with its factory identity, and a key that the old owner may have copied is good for nothing. Who has such a key may renew its certificate
// while this goes on, so that it looks until there is nothing left to revoke: what holds at no moment of a pass renews nothing.
func (s *Service) revoke(ctx context.Context, t Transfer) error {
	revoked := map[string]bool{}
	for range passes {
		more := false
		for after := ""; ; {
			page, err := s.cfg.Certificates.Certificates(ctx, system(), t.Device, t.Product, after, MaxPage)
			if err != nil {
				return err
			}
			if len(page) == 0 {
				break
			}
			for _, c := range page {
				after = c.Key
				if revoked[c.Key] || c.Role != profile.LDevID || !c.Ended.IsZero() && !c.Ended.After(t.Begun) || !c.NotAfter.After(t.Begun) {
					continue
				}
				if err := s.cfg.Certificates.Revoke(ctx, system(), c.Key, affiliationChanged); err != nil && fault.KindOf(err) != fault.Conflict {
					return err
				}
				revoked[c.Key], more = true, true
			}
		}
		if !more {
			return nil
		}
	}
	return fault.New(fault.Unavailable, "transfer.renews", fmt.Sprintf("device %s gets new certificates as fast as they are revoked", t.Device), "it is tried again; look at who calls as this device")
}

// tell has the device let go; done is true when it said that it has.
func (s *Service) tell(ctx context.Context, t *Transfer) (done bool, err error) {
	now := s.cfg.Now().UTC()
	act := wire.ActDisown
	if t.Kind == Rehome {
		act = wire.ActRehome
	}
	last, err := s.cfg.Transfers.Answer(ctx, t.Device, act, t.Begun)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return false, err
	case last.Standing == device.Done:
		t.LetGo, t.Command, t.Refused = true, last.Command, ""
		if err := s.cfg.Transfers.SaveTransfer(ctx, *t); err != nil {
			return false, err
		}
		t.Rev++
		return true, nil
	case last.Standing == device.Pending || last.Standing == device.Delivered || now.Before(retry(t.Tries, t.Tried)):
		return false, nil
	default:
		t.Refused = string(last.Standing)
		if last.Code != "" {
			t.Refused = last.Code
		}
	}
	in := device.Instruction{
		Product: t.Product, Act: act, Devices: []string{t.Device}, WarrantUID: t.Warrant, Valid: told, Cause: s.cause(ctx, t.BegunUID),
		Reason: string(t.Kind), Once: onceOf(act, t.Device, t.Begun, t.Tries),
	}
	if t.Kind == Rehome {
		o, _, err := wire.DecodeHomeOffer(t.Offer)
		if err != nil {
			return false, err
		}
		in.Config = o.Bundle
	}
	t.Command, err = s.cfg.Devices.Command(ctx, system(), in)
	if err != nil {
		return false, err
	}
	t.Tries, t.Tried = t.Tries+1, now
	return false, s.cfg.Transfers.SaveTransfer(ctx, *t)
}

// onceOf names a telling, so that two nodes that come to it at one time tell the device once: told twice, it would let go of the next owner too.
func onceOf(act wire.Act, device string, began time.Time, tries int) string {
	return fmt.Sprintf("%s %s %d %d", act, device, began.UnixMilli(), tries)
}

// done is the Data of device.transfer.done.
type done struct {
	Device string `json:"device"`
	Period int    `json:"period"`
	Kind   Kind   `json:"kind,omitempty"` // rehome, or absent
	Epoch  uint64 `json:"epoch"`          // of sealed data, up to which the keys are destroyed
}

// finish ends a transfer whose device has let go. It has restarted since: what it seals now is of an epoch above those of its boots before.
func (s *Service) finish(ctx context.Context, t Transfer) error {
	d, err := s.cfg.Devices.Get(ctx, system(), t.Device)
	if err != nil {
		return err
	}
	cause := s.cause(ctx, t.BegunUID)
	if t.Kind == Rehome && d.State != device.Moved {
		if _, err := s.cfg.Devices.Move(ctx, system(), t.Device, device.Depart, cause, "handed to another instance"); err != nil {
			return err
		}
	} else if d.State == device.Active || d.State == device.Dormant { // good evidence makes it active again, as it did the first time
		if _, err := s.cfg.Devices.Move(ctx, system(), t.Device, device.Reonboard, cause, "let go of its owner"); err != nil {
			return err
		}
	}
	t.Done, t.Offer = s.cfg.Now().UTC(), nil
	epoch := wire.EpochOf(max(d.Twin.BootCount, 1)-1, wire.MaxNth)
	over := done{Device: t.Device, Period: t.Period, Epoch: epoch}
	if t.Kind == Rehome {
		over.Kind = Rehome
	}
	f, err := fact(ledger.KindTransferDone, t.Done, system().ID, t.Device, cause, over)
	if err != nil {
		return err
	}
	return s.cfg.Transfers.Finish(ctx, t, epoch, f)
}
