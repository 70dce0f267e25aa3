package device

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// ActionFor gives the right one needs to command an act.
func ActionFor(a wire.Act) access.Action {
	switch a {
	case wire.ActQuarantine:
		return access.DeviceQuarantine
	case wire.ActRelease:
		return access.DeviceRelease
	case wire.ActDormant, wire.ActWake:
		return access.DeviceDormant
	case wire.ActReset:
		return access.DeviceReset
	case wire.ActReprovide:
		return access.DeviceReprovide
	case wire.ActConfigure:
		return access.DeviceConfigure
	case wire.ActInstall, wire.ActRollback:
		return access.RolloutControl
	case wire.ActBundle:
		return access.BundlePublish
	case wire.ActWipe:
		return access.DeviceRetire
	case wire.ActAttest, wire.ActUnlock:
		return access.DeviceCommand
	case wire.ActAdopt:
		return access.DeviceClaim
	case wire.ActDisown, wire.ActRehome:
		return access.DeviceTransfer
	}
	return access.DeviceCommand
}

// urgency orders acts for one device: what contains harm comes before what changes code.
func urgency(a wire.Act) int {
	switch a {
	case wire.ActWipe:
		return 7
	case wire.ActQuarantine:
		return 6
	case wire.ActBundle:
		return 5
	case wire.ActRelease, wire.ActWake, wire.ActDormant:
		return 4
	case wire.ActReprovide, wire.ActRollback, wire.ActAdopt, wire.ActDisown, wire.ActRehome:
		return 3
	case wire.ActInstall:
		return 2
	default:
		return 1
	}
}

// Rank is what a store orders outstanding commands by, higher first; then the older first.
func (in Instruction) Rank() int { return urgency(in.Act)*1000 + max(-499, min(499, in.Priority)) }

// Command signs what is wanted, stores it with the devices it is for, and logs it; the returned ID names it. Devices hear of it
// when they ask and the fact is provable. It does not wait for them.
func (s *Service) Command(ctx context.Context, caller access.Caller, in Instruction) (string, error) {
	if (wire.ChangesOwner(in.Act) || in.Act == wire.ActRehome) && caller.Kind != access.System {
		return "", fault.New(fault.Denied, "command.owner", fmt.Sprintf("%s is not commanded", in.Act), "claim the device, or transfer it: what it is told follows")
	}
	if err := byRollout(caller, in.Act); err != nil {
		return "", err
	}
	grave, err := s.grave(ctx, caller, in)
	if err != nil {
		return "", err
	}
	if err := s.overAll(ctx, caller, ActionFor(in.Act), access.Resource{
		Type: "device", Product: in.Product, Grave: grave,
	}, func() ([]string, error) { return s.cfg.Groups.GroupsOf(ctx, in.Product, in.Devices) }); err != nil {
		return "", s.unseen(ctx, caller, in, err)
	}
	if err := s.heldBack(ctx, in.Act, in.Devices); err != nil {
		return "", err
	}
	if known, err := s.commandedOnce(ctx, in.Once); err != nil || known != "" {
		return known, err
	}
	now := s.cfg.Now().UTC()
	var salted []byte
	if in.Act == wire.ActConfigure {
		entries, err := s.settings(ctx, caller, in)
		if err != nil {
			return "", err
		}
		if in.Config, err = wire.EncodeConfig(entries); err != nil {
			return "", fault.Newf(fault.Invalid, "command.invalid", "%w", err).With("correct the command, and give it again")
		}
		salted, in.Config = wire.SaltConfig(in.Config)
	}
	if in.Act == wire.ActAdopt {
		if _, err := wire.DecodeOwnership(in.Config); err != nil {
			return "", fault.Newf(fault.Invalid, "command.invalid", "%w", err).With("correct the command, and give it again")
		}
		salted, in.Config = wire.SaltConfig(in.Config)
	}
	if in.Act == wire.ActRehome { // its warrant has the digest
		salted, in.Config = in.Config, nil
	}
	w, err := s.compose(ctx, in, now)
	if err != nil {
		return "", err
	}
	payload, err := wire.EncodeCommand(w)
	if err != nil {
		return "", fault.Newf(fault.Invalid, "command.invalid", "%w", err).With("correct the command, and give it again")
	}
	authority, err := s.authorityOf(ctx, in.Product)
	if err != nil {
		return "", err
	}
	envelope, err := wire.Sign1(wire.TypeCommand, payload, authority)
	if err != nil {
		return "", err
	}
	f := ledger.New(ledger.KindCommandIssued, now, caller.ID, w.ID, in.Cause, envelope)
	f.Private = ledger.Say("reason", in.Reason)
	f = caller.Tells(f)
	c := Command{
		ID: w.ID, UID: f.UID, Digest: sha256.Sum256(payload), Wire: w, Config: salted, Reason: in.Reason, Priority: in.Rank(), Warrant: in.WarrantUID, Hours: in.Hours, Manner: in.Manner, Grace: in.Grace,
		Issued: now, Expires: time.Unix(int64(w.Expires), 0).UTC(), Within: caller.Scope,
	}.unlessTold()
	err = s.cfg.Commands.PutCommand(ctx, c, in.Devices, f)
	if errors.Is(err, ErrExists) && in.Once != "" {
		return w.ID, nil // by another node, this moment
	}
	if errors.Is(err, ErrForeign) {
		return "", fault.New(fault.Invalid, "command.devices",
			fmt.Sprintf("a device of the command is unknown, has ended, is not of product %q, or was handed on meanwhile", in.Product), "select the devices again")
	}
	if err != nil {
		return "", err
	}
	return w.ID, nil
}

// heldBack refuses to let go of stolen devices: it may be their owner who asks, and the maker who holds them. The mark is lifted first, and lets go of them.
func (s *Service) heldBack(ctx context.Context, act wire.Act, ids []string) error {
	if act != wire.ActRelease && act != wire.ActWake && act != wire.ActDormant { // a device that sleeps is held by nothing when it wakes
		return nil
	}
	for _, id := range ids {
		d, err := s.cfg.Registry.Device(ctx, id)
		if errors.Is(err, ErrNotFound) {
			continue // it is refused behind
		}
		if err != nil {
			return err
		}
		if d.Legitimacy == Stolen {
			return stolen(id)
		}
	}
	return nil
}

func stolen(id string) error {
	return fault.New(fault.Denied, "command.stolen", fmt.Sprintf("device %s is marked as stolen", id), "lift the mark: `hallmark device found`")
}

// holding refuses to take back what holds a stolen device.
func (s *Service) holding(ctx context.Context, caller access.Caller, c Command) error {
	if c.Wire.Act != wire.ActQuarantine || caller.Kind == access.System {
		return nil
	}
	for after := ""; ; {
		some, err := s.cfg.Commands.CommandDevices(ctx, c.ID, s.cfg.Now(), after, MaxPage)
		if err != nil {
			return err
		}
		for _, x := range some {
			if err := s.heldBack(ctx, wire.ActRelease, []string{x.Device}); err != nil {
				return err
			}
		}
		if len(some) < MaxPage {
			return nil
		}
		after = some[len(some)-1].Device
	}
}

// OnceID is the ID of the command of a decision that has a name.
func OnceID(name string) string {
	sum := sha256.Sum256([]byte("hallmark command\x00" + name))
	return hex.EncodeToString(sum[:16])
}

// commandedOnce finds the command that was given by the name of a decision; empty: none was.
func (s *Service) commandedOnce(ctx context.Context, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	c, err := s.cfg.Commands.Command(ctx, OnceID(name))
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	return c.ID, err
}

func (s *Service) compose(ctx context.Context, in Instruction, now time.Time) (wire.Command, error) {
	if wire.ClassOf(in.Act) == wire.Guarded && in.TTL == 0 {
		in.TTL = DefaultTTL
	}
	if in.Valid == 0 {
		in.Valid = DefaultValid
	}
	if in.Valid < time.Second || in.TTL < 0 {
		return wire.Command{}, fault.New(fault.Invalid, "command.time", "the command would be over before it begins", "give a validity of a second or more")
	}
	set, err := wire.SetOf(in.Devices)
	if err != nil {
		return wire.Command{}, fault.Newf(fault.Invalid, "command.devices", "%w", err).With("name devices of one product, and fewer of them")
	}
	if err := s.checkWarrant(ctx, in, now); err != nil {
		return wire.Command{}, err
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the process instead
	name := hex.EncodeToString(id[:])
	if in.Once != "" {
		name = OnceID(in.Once)
	}
	out := wire.Command{
		ID: name, Product: in.Product, Act: in.Act, Devices: set, Release: in.Release, Rollout: in.Rollout,
		Wave: in.Wave, TTL: uint64(in.TTL / time.Second), Config: in.Config, Alone: in.Alone,
		Issued: uint64(now.Unix()), Expires: uint64(now.Add(in.Valid).Unix()),
	}
	if slices.Contains(in.Kept, wire.KnowsManner) {
		out.Manner, out.Grace = in.Manner, uint64(in.Grace/time.Second)
	}
	if in.Hours != nil && slices.Contains(in.Kept, wire.KnowsWindow) {
		out.Window = in.Hours.Told()
	}
	return out, nil
}

// checkWarrant spares the devices a command they would all refuse.
func (s *Service) checkWarrant(ctx context.Context, in Instruction, now time.Time) error {
	if !wire.NeedsWarrant(in.Act) {
		return nil
	}
	refuse := func(text string) error {
		return fault.New(fault.Denied, "command.warrant", fmt.Sprintf("%s: %s", in.Act, text),
			"have the warrant holders sign one for exactly these devices and submit it")
	}
	if in.WarrantUID == nil {
		return refuse("needs a warrant")
	}
	w, err := s.cfg.Trust.Warrant(ctx, *in.WarrantUID)
	if errors.Is(err, ErrNotFound) {
		return refuse("its warrant is not here")
	}
	if err != nil {
		return err
	}
	if w.Wire.Act != in.Act || w.Wire.Product != in.Product || w.Wire.Expires <= uint64(now.Unix()) {
		return refuse("its warrant is for another act or product, or over")
	}
	ids, err := s.cfg.Trust.WarrantDevices(ctx, w.UID)
	if err != nil {
		return err
	}
	named := make(map[string]bool, len(ids))
	for _, id := range ids {
		named[id] = true
	}
	for _, id := range in.Devices {
		if !named[id] {
			return refuse("its warrant does not name device " + id)
		}
	}
	return nil
}

// CancelCommand ends a command for every device without a result. A device that was told already may still act.
func (s *Service) CancelCommand(ctx context.Context, caller access.Caller, id, reason string) error {
	c, err := s.command(ctx, caller, "", id)
	if err != nil {
		return err
	}
	if err := s.holding(ctx, caller, c); err != nil {
		return err
	}
	return s.cancel(ctx, caller, c, reason)
}

// Recall cancels the commands that bring a release and may still be told. It is for the stage that closes the release, which has asked whether the caller may.
func (s *Service) Recall(ctx context.Context, caller access.Caller, product string, release [32]byte, reason string) error {
	all, err := s.cfg.Commands.CommandsFor(ctx, product, release[:], s.cfg.Now())
	if err != nil {
		return err
	}
	for _, c := range all {
		if err := s.cancel(ctx, caller, c, reason); err != nil && fault.KindOf(err) != fault.Conflict {
			return err
		}
	}
	return nil
}

func (s *Service) cancel(ctx context.Context, caller access.Caller, c Command, reason string) error {
	id := c.ID
	data, err := json.Marshal(map[string]string{"command": id, "reason": reason})
	if err != nil {
		return err
	}
	now := s.cfg.Now().UTC()
	var cause *ledger.Ref
	if ref, ok, err := s.cfg.Ledger.Locate(ctx, c.UID); err != nil {
		return err
	} else if ok {
		cause = &ref
	}
	f := caller.Tells(ledger.New(ledger.KindCommandCancelled, now, caller.ID, id, cause, data))
	err = s.cfg.Commands.CancelCommand(ctx, id, now, f)
	if errors.Is(err, ErrChanged) {
		return fault.New(fault.Conflict, "command.ended", fmt.Sprintf("command %s has ended already", id), "nothing is left to cancel; `hallmark command show` says how it ended")
	}
	return err
}

// command finds a command and asks the guard for action, or for the right to its act when action is empty: over every device it is for.
func (s *Service) command(ctx context.Context, caller access.Caller, action access.Action, id string) (Command, error) {
	c, err := s.cfg.Commands.Command(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Command{}, err
	}
	if action == "" {
		action = ActionFor(c.Wire.Act)
	}
	if err := s.overAll(ctx, caller, action, access.Resource{Type: "device", ID: id, Product: c.Wire.Product},
		func() ([]string, error) { return s.cfg.Groups.CommandGroups(ctx, id) }); err != nil {
		return Command{}, err
	}
	if errors.Is(err, ErrNotFound) {
		return Command{}, fault.New(fault.NotFound, "command.unknown", fmt.Sprintf("no command %q", id), "`hallmark device show` names the commands of a device")
	}
	return c, nil
}

// CommandOf gives a stored command.
func (s *Service) CommandOf(ctx context.Context, caller access.Caller, id string) (Command, error) {
	return s.command(ctx, caller, access.DeviceRead, id)
}

// CommandStatus counts the command's devices by standing.
func (s *Service) CommandStatus(ctx context.Context, caller access.Caller, id string) (map[Standing]int, error) {
	if _, err := s.command(ctx, caller, access.DeviceRead, id); err != nil {
		return nil, err
	}
	return s.cfg.Commands.CountCommand(ctx, id, s.cfg.Now())
}

// CommandDevices pages through the command's devices by ID; limit 0 means MaxPage.
func (s *Service) CommandDevices(ctx context.Context, caller access.Caller, id, after string, limit int) ([]CommandDevice, error) {
	if _, err := s.command(ctx, caller, access.DeviceRead, id); err != nil {
		return nil, err
	}
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	return s.cfg.Commands.CommandDevices(ctx, id, s.cfg.Now(), after, limit)
}

// DeviceCommands lists a device's commands, newest first.
func (s *Service) DeviceCommands(ctx context.Context, caller access.Caller, id string) ([]CommandDevice, error) {
	return s.DeviceCommandPage(ctx, caller, id, "", MaxPage)
}

// DeviceCommandPage is DeviceCommands from behind the command after on, at most limit; 0 means MaxPage.
func (s *Service) DeviceCommandPage(ctx context.Context, caller access.Caller, id, after string, limit int) ([]CommandDevice, error) {
	d, err := s.open(ctx, caller, access.DeviceRead, id)
	if err != nil {
		return nil, err
	}
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	cs, err := s.cfg.Commands.DeviceCommands(ctx, id, s.cfg.Now(), after, limit)
	if caller.Owner != "" { // newest first: what follows is of before its time
		if i := slices.IndexFunc(cs, func(c CommandDevice) bool { return c.Issued.Before(d.Owned) }); i >= 0 {
			cs = cs[:i]
		}
	}
	return cs, err
}
