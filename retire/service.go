package retire

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Config is what a Service works with; every field without a default must be set.
type Config struct {
	Store    Store
	Devices  Devices
	Warrants Warrants
	Revoker  Revoker
	Keys     Keys
	Ledger   Ledger
	Guard    *access.Guard
	Now      func() time.Time // nil: time.Now
}

// Service is the stage.
type Service struct{ cfg Config }

// NewService checks cfg and makes the stage.
func NewService(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Devices == nil || cfg.Warrants == nil || cfg.Revoker == nil || cfg.Keys == nil ||
		cfg.Ledger == nil || cfg.Guard == nil {
		return nil, errors.New("retire: the store, the devices, the warrants, the revoker, the keys, the ledger or the guard is missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg}, nil
}

func system() access.Caller { return access.Internal("retire") }

func (s *Service) check(ctx context.Context, caller access.Caller, action access.Action, d device.Device) error {
	return s.cfg.Guard.Check(ctx, caller, action, access.Resource{Type: "device", ID: d.ID, Product: d.Product, Group: d.Group})
}

// Retire decides the end of devices, by a warrant that names just them. They are told to wipe themselves at the next Tick.
func (s *Service) Retire(ctx context.Context, caller access.Caller, o Order) ([]Retirement, error) {
	whole := access.Resource{Type: "device", Product: o.Product, Grave: s.cfg.Guard.Many(caller, o.Devices)}
	grouped := !access.Covers(caller.Scope, o.Product, "")
	if !grouped || whole.Grave || len(o.Devices) == 0 {
		if err := s.cfg.Guard.Check(ctx, caller, access.DeviceRetire, whole); err != nil {
			return nil, err
		}
	}
	if o.Reason == "" || len(o.Reason) > 1024 {
		return nil, fault.New(fault.Invalid, "retire.reason", "a retirement needs a reason of at most 1024 bytes", "say why, with --reason")
	}
	for _, id := range o.Devices {
		d, err := s.cfg.Devices.Get(ctx, system(), id)
		if grouped { // each for itself, before anything of it is told
			if denied := s.check(ctx, caller, access.DeviceRetire, d); denied != nil {
				return nil, denied
			}
		}
		if err != nil {
			return nil, err
		}
		if d.Product != o.Product {
			return nil, fault.New(fault.Invalid, "retire.product", fmt.Sprintf("device %s is of product %s, not %s", id, d.Product, o.Product), "retire the devices of each product by themselves")
		}
		if _, err := device.Next(d.State, device.Retire); err != nil {
			return nil, fault.Newf(fault.Conflict, "retire.state", "device %s: %w", id, err).
				With("look at the device: one whose life has ended is retired already")
		}
	}
	w, err := s.warrant(ctx, caller, o)
	if err != nil {
		return nil, err
	}
	rs, f, err := s.orders(caller, o, w)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Store.PutRetirements(ctx, rs, f); err != nil {
		if errors.Is(err, ErrExists) {
			return nil, fault.New(fault.Conflict, "retire.exists", "a device of the order is being retired already", "leave it out")
		}
		return nil, err
	}
	return rs, nil
}

// warrant submits the warrant, or finds it if it was submitted before (by somebody with that right, or before a crash).
func (s *Service) warrant(ctx context.Context, caller access.Caller, o Order) (device.Warrant, error) {
	payload, _, err := wire.ThresholdPayload(wire.TypeWarrant, o.Warrant)
	if err != nil {
		return device.Warrant{}, fault.Newf(fault.Invalid, "retire.warrant", "%w", err).
			With("sign the warrant that was given, as it is, by as many of the role as the trust bundle asks for")
	}
	claim, err := wire.DecodeWarrant(payload)
	if err != nil {
		return device.Warrant{}, fault.Newf(fault.Invalid, "retire.warrant", "%w", err).
			With("sign the warrant that was given, as it is, by as many of the role as the trust bundle asks for")
	}
	set, err := wire.SetOf(o.Devices)
	if err != nil {
		return device.Warrant{}, fault.Newf(fault.Invalid, "retire.devices", "%w", err).
			With("name each device once, and no more than one warrant has")
	}
	if claim.Act != wire.ActWipe || claim.Product != o.Product || string(claim.Devices.Root) != string(set.Root) || claim.Devices.Count != set.Count {
		return device.Warrant{}, fault.New(fault.Invalid, "retire.warrant",
			fmt.Sprintf("warrant %s is not for wiping just these %d devices of %s", claim.ID, len(o.Devices), o.Product), "have one signed for them")
	}
	known, err := s.cfg.Store.KnownWarrant(ctx, claim.ID)
	if errors.Is(err, ErrNotFound) {
		return s.cfg.Devices.SubmitWarrant(ctx, caller, o.Warrant, o.Devices)
	}
	if err != nil {
		return device.Warrant{}, err
	}
	if err := s.cfg.Devices.HoldsWarrant(ctx, o.Warrant, o.Devices); err != nil {
		return device.Warrant{}, err
	}
	if have, err := wire.EncodeWarrant(known.Wire); err != nil || string(have) != string(payload) {
		return device.Warrant{}, errors.Join(err, fault.New(fault.Conflict, "retire.warrant",
			fmt.Sprintf("another warrant with the ID %s is here", claim.ID), "have one signed with a fresh ID"))
	}
	return known, nil
}

func (s *Service) orders(caller access.Caller, o Order, w device.Warrant) ([]Retirement, ledger.Fact, error) {
	now := s.cfg.Now().UTC()
	data, err := json.Marshal(map[string]any{
		"product": o.Product, "devices": w.Wire.Devices, "ids": o.Devices[:min(len(o.Devices), maxNamed)], "warrant": w.Wire.ID, "reason": o.Reason,
	})
	if err != nil {
		return nil, ledger.Fact{}, err
	}
	f := ledger.New(ledger.KindRetireOrdered, now, caller.ID, w.Wire.ID, nil, data)
	rs := make([]Retirement, 0, len(o.Devices))
	for _, id := range slices.Sorted(slices.Values(o.Devices)) {
		rs = append(rs, Retirement{
			Device: id, Product: o.Product, Phase: Ordered, Warrant: w.Wire.ID, WarrantUID: w.UID, OrderUID: f.UID, EndUID: f.UID,
			Reason: o.Reason, By: caller.ID, Ordered: now, Rev: 1,
		})
	}
	return rs, f, nil
}

// maxNamed bounds the devices a fact names one by one; its Merkle root names them all.
const maxNamed = 1000

// Tick does what follows from what was decided, and goes on with what a crash or an outage interrupted. One node does; what another does
// at the same time is not done twice.
func (s *Service) Tick(ctx context.Context) error {
	open, err := s.cfg.Store.OpenRetirements(ctx)
	if err != nil {
		return err
	}
	orders := map[[16]byte][]Retirement{}
	var errs []error
	for _, r := range open {
		if r.Phase == Ordered {
			orders[r.OrderUID] = append(orders[r.OrderUID], r)
			continue
		}
		if _, err := s.finish(ctx, r); err != nil {
			errs = append(errs, fmt.Errorf("retire device %s: %w", r.Device, err))
		}
	}
	for _, rs := range orders {
		if err := s.advance(ctx, rs); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// advance takes the devices of one order to Wiping: the registry first, then one command for all.
func (s *Service) advance(ctx context.Context, rs []Retirement) error {
	if len(rs) == 0 {
		return nil
	}
	first := rs[0]
	cause := s.cause(ctx, first.OrderUID)
	ids := make([]string, len(rs))
	for i, r := range rs {
		ids[i] = r.Device
		d, err := s.cfg.Devices.Get(ctx, system(), r.Device)
		if err != nil {
			return err
		}
		if d.State == device.Decommissioning {
			continue
		}
		if _, err := s.cfg.Devices.Move(ctx, system(), r.Device, device.Retire, cause, r.Reason); err != nil {
			return fmt.Errorf("device %s: %w", r.Device, err)
		}
	}
	cmd, err := s.cfg.Store.WipeCommand(ctx, first.WarrantUID)
	if errors.Is(err, ErrNotFound) {
		cmd.ID, err = s.cfg.Devices.Command(ctx, system(), device.Instruction{
			Product: first.Product, Act: wire.ActWipe, Devices: ids, Reason: first.Reason, Cause: cause, WarrantUID: &first.WarrantUID,
			Once: "retire/" + hex.EncodeToString(first.WarrantUID[:]),
		})
	}
	if err != nil {
		return fmt.Errorf("wipe by warrant %s: %w", first.Warrant, err)
	}
	next := slices.Clone(rs)
	for i := range next {
		next[i].Phase, next[i].Command = Wiping, cmd.ID
	}
	return s.cfg.Store.SaveRetirements(ctx, next)
}

// Receipt takes a device's signed word that it wiped itself. It is durable when this returns; what follows from it goes on by
// itself. The same receipt again changes nothing.
func (s *Service) Receipt(ctx context.Context, caller access.Caller, id string, envelope []byte) error {
	d, err := s.cfg.Devices.Get(ctx, system(), id)
	if denied := s.check(ctx, caller, access.DeviceCheckin, d); denied != nil {
		return denied
	}
	if caller.Kind == access.Device && caller.ID != access.DeviceCaller(id).ID {
		return fault.New(fault.Denied, "retire.caller", fmt.Sprintf("%s brings a receipt of device %s", caller.ID, id), "a device brings the receipt of its own wipe")
	}
	if err != nil {
		return err
	}
	r, err := s.open(ctx, id)
	if err != nil {
		return err
	}
	if string(r.Receipt) == string(envelope) && len(envelope) > 0 {
		return nil
	}
	if r.Phase != Wiping && r.Phase != WrittenOff || len(r.Receipt) > 0 {
		return fault.New(fault.Conflict, "retire.phase", fmt.Sprintf("the retirement of device %s is %s", id, r.Phase), "see `hallmark retirement show`")
	}
	if _, err := s.checkReceipt(ctx, r, d, envelope); err != nil {
		return err
	}
	f := ledger.New(ledger.KindRetireWiped, s.cfg.Now(), caller.ID, id, s.cause(ctx, r.OrderUID), envelope)
	r.Phase, r.Receipt, r.Ended, r.EndUID = Wiped, envelope, f.At, f.UID
	return changed(id, s.cfg.Store.SaveRetirements(ctx, []Retirement{r}, f))
}

func (s *Service) checkReceipt(ctx context.Context, r Retirement, d device.Device, envelope []byte) (wire.Receipt, error) {
	rec, err := openReceipt(envelope, d.AttestKey)
	if err != nil {
		return rec, fault.Newf(fault.Invalid, "retire.receipt", "receipt of device %s: %w", d.ID, err).
			With("hand in the receipt that the device itself gave, unchanged")
	}
	cmd, err := s.cfg.Store.WipeCommand(ctx, r.WarrantUID)
	if err != nil {
		return rec, err
	}
	if rec.Device != d.ID || rec.Warrant != r.Warrant || string(rec.Command) != string(cmd.Digest[:]) {
		return rec, fault.New(fault.Invalid, "retire.receipt",
			fmt.Sprintf("the receipt is of device %s for warrant %s, command %x", rec.Device, rec.Warrant, rec.Command),
			fmt.Sprintf("expected is device %s, warrant %s, command %x", d.ID, r.Warrant, cmd.Digest))
	}
	return rec, nil
}

// WriteOff ends the retirement of a device that will not send a receipt: lost, destroyed, or without power for good. Its keys
// are revoked all the same; the proof will say that nobody saw it wiped, and who wrote it off.
func (s *Service) WriteOff(ctx context.Context, caller access.Caller, id, reason string) (Retirement, error) {
	r, err := s.checked(ctx, caller, access.DeviceRetire, id)
	if err != nil {
		return Retirement{}, err
	}
	if r.Phase != Wiping && r.Phase != Ordered {
		return Retirement{}, fault.New(fault.Conflict, "retire.phase", fmt.Sprintf("the retirement of device %s is %s", id, r.Phase), "see `hallmark retirement show`")
	}
	if reason == "" || len(reason) > 1024 {
		return Retirement{}, fault.New(fault.Invalid, "retire.reason", "a device is written off for a reason of at most 1024 bytes", "say why, with --reason")
	}
	data, err := json.Marshal(WriteOff{Device: id, Product: r.Product, Warrant: r.Warrant, Reason: reason})
	if err != nil {
		return Retirement{}, err
	}
	f := ledger.New(ledger.KindRetireWrittenOff, s.cfg.Now(), caller.ID, id, s.cause(ctx, r.OrderUID), data)
	r.Phase, r.Ended, r.Reason, r.EndUID = WrittenOff, f.At, reason, f.UID
	if err := s.cfg.Store.SaveRetirements(ctx, []Retirement{r}, f); err != nil {
		return Retirement{}, changed(id, err)
	}
	r.Rev++
	return r, nil
}

// finish does what follows from a wipe, a write-off or a disposal, one durable step after the other.
func (s *Service) finish(ctx context.Context, r Retirement) (Retirement, error) {
	cause := s.cause(ctx, r.EndUID)
	step := func(done *bool, do func() error) error {
		if *done {
			return nil
		}
		if err := do(); err != nil {
			return err
		}
		*done = true
		if err := s.cfg.Store.SaveRetirements(ctx, []Retirement{r}); err != nil {
			return err
		}
		r.Rev++
		return nil
	}
	if err := step(&r.Revoked, func() error { return s.cfg.Revoker.RevokeDevice(ctx, system(), r.Device, r.Product, cessation) }); err != nil {
		return r, fmt.Errorf("revoke: %w", err)
	}
	if err := step(&r.KeysGone, func() error { return s.cfg.Keys.DestroyDevice(ctx, system(), r.Device, cause) }); err != nil {
		return r, fmt.Errorf("destroy the data's keys: %w", err)
	}
	if err := step(&r.Moved, func() error { return s.move(ctx, r, device.Wiped, device.Decommissioned, cause, r.Reason) }); err != nil {
		return r, fmt.Errorf("decommission: %w", err)
	}
	if r.Phase != Disposed {
		return r, nil
	}
	err := step(&r.Settled, func() error { return s.move(ctx, r, device.Dispose, device.Disposed, cause, r.How) })
	return r, err
}

// move takes the device through ev, if it is not there already.
func (s *Service) move(ctx context.Context, r Retirement, ev device.Event, to device.State, cause *ledger.Ref, reason string) error {
	d, err := s.cfg.Devices.Get(ctx, system(), r.Device)
	if err != nil || d.State == to || d.State == device.Disposed {
		return err
	}
	if ev == device.Wiped && d.State != device.Decommissioning {
		if _, err := s.cfg.Devices.Move(ctx, system(), r.Device, device.Retire, cause, reason); err != nil {
			return err
		}
	}
	_, err = s.cfg.Devices.Move(ctx, system(), r.Device, ev, cause, reason)
	return err
}

// Dispose records what was done with the piece itself. It comes after everything else is done.
func (s *Service) Dispose(ctx context.Context, caller access.Caller, id, how string) (Retirement, error) {
	r, err := s.checked(ctx, caller, access.DeviceRetire, id)
	if err != nil {
		return Retirement{}, err
	}
	if how == "" || len(how) > 1024 {
		return Retirement{}, fault.New(fault.Invalid, "retire.how", "say what was done with the piece, in at most 1024 bytes", "name the way and the proof, in fewer words")
	}
	if r.Phase == Disposed {
		return r, nil
	}
	if (r.Phase == Wiped || r.Phase == WrittenOff) && openEnd(r) {
		return Retirement{}, fault.New(fault.Unavailable, "retire.unfinished", fmt.Sprintf("what follows from device %s being %s is not done yet", id, r.Phase), "ask again")
	}
	if openEnd(r) {
		return Retirement{}, fault.New(fault.Conflict, "retire.phase", fmt.Sprintf("device %s is %s, not decommissioned with all its keys revoked", id, r.Phase),
			"wait for its receipt, or write it off")
	}
	uids, _, err := s.factsOf(ctx, r)
	if err != nil {
		return Retirement{}, err
	}
	doc := Disposal{Device: id, Product: r.Product, Wiped: len(r.Receipt) > 0, Warrant: r.Warrant, How: how}
	for _, u := range uids {
		doc.Facts = append(doc.Facts, hex.EncodeToString(u.UID[:]))
	}
	data, err := json.Marshal(doc)
	if err != nil {
		return Retirement{}, err
	}
	f := ledger.New(ledger.KindRetireDisposed, s.cfg.Now(), caller.ID, id, s.cause(ctx, r.EndUID), data)
	r.Phase, r.Disposed, r.How, r.EndUID = Disposed, f.At, how, f.UID
	if err := s.cfg.Store.SaveRetirements(ctx, []Retirement{r}, f); err != nil {
		return Retirement{}, changed(id, err)
	}
	r.Rev++
	return r, nil
}

// openEnd reports whether something that must come before the disposal is not done.
func openEnd(r Retirement) bool { return !r.Moved || !r.Revoked || !r.KeysGone }

// Get gives a device's retirement.
func (s *Service) Get(ctx context.Context, caller access.Caller, id string) (Retirement, error) {
	return s.checked(ctx, caller, access.DeviceRead, id)
}

// Page gives the retirements at a place (a product, or a group of one as access.Join names it; all with an empty one), by device, from behind the device after on, at most limit.
func (s *Service) Page(ctx context.Context, caller access.Caller, place, after string, limit int) ([]Retirement, error) {
	at := access.In("retirement", place)
	scope, err := s.cfg.Guard.Within(ctx, caller, access.DeviceRead, at.Type, at.Product, at.Group)
	if err != nil {
		return nil, err
	}
	return s.cfg.Store.Retirements(ctx, scope, after, limit)
}

func (s *Service) checked(ctx context.Context, caller access.Caller, action access.Action, id string) (Retirement, error) {
	d, err := s.cfg.Devices.Get(ctx, system(), id)
	d.ID = id
	if denied := s.check(ctx, caller, action, d); denied != nil {
		return Retirement{}, denied
	}
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return Retirement{}, err
	}
	return s.open(ctx, id)
}

func (s *Service) open(ctx context.Context, id string) (Retirement, error) {
	r, err := s.cfg.Store.Retirement(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return Retirement{}, fault.New(fault.NotFound, "retire.unknown", fmt.Sprintf("device %s is not being retired", id), "order its retirement first")
	}
	return r, err
}

func changed(id string, err error) error {
	if errors.Is(err, ErrChanged) {
		return fault.New(fault.Conflict, "retire.changed", fmt.Sprintf("the retirement of device %s changed meanwhile", id), "look again and repeat")
	}
	return err
}

// cause gives the place of a fact; nil while it has none: what is decided does not wait for it.
func (s *Service) cause(ctx context.Context, uid [16]byte) *ledger.Ref {
	ref, ok, err := s.cfg.Ledger.Locate(ctx, uid)
	if err != nil || !ok {
		return nil
	}
	return &ref
}
