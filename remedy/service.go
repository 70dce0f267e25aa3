package remedy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Config is what a Service works with; every field without a default must be set.
type Config struct {
	Store   Store
	Devices Devices
	Guard   *access.Guard
	Policy  Policy           // zero: DefaultPolicy
	Now     func() time.Time // nil: time.Now
}

// Service is the stage.
type Service struct{ cfg Config }

// NewService checks cfg and makes the stage.
func NewService(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Devices == nil || cfg.Guard == nil {
		return nil, errors.New("remedy: the store, the devices or the guard is missing")
	}
	if cfg.Policy == (Policy{}) {
		cfg.Policy = DefaultPolicy()
	}
	if p := cfg.Policy; p.PerHour < 0 || p.TTL < time.Second || p.TTL > wire.MaxGuardedTTL*time.Second || p.MaxHold < p.TTL {
		return nil, fmt.Errorf("remedy: policy %+v: a quarantine lasts 1 s to %d s, and no longer than it may be held", p, wire.MaxGuardedTTL)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg}, nil
}

func (s *Service) check(ctx context.Context, caller access.Caller, action access.Action, id string, d device.Device) error {
	return s.cfg.Guard.Check(ctx, caller, action, access.Resource{Type: "device", ID: id, Product: d.Product, Group: d.Group})
}

func system() access.Caller { return access.Internal("remedy") }

// Judged is told of every verdict: a contraindicated one opens a case, an acceptable one ends it.
func (s *Service) Judged(ctx context.Context, caller access.Caller, id, status string, at time.Time, reason string, cause ledger.Ref) error {
	d, err := s.device(ctx, caller, access.DeviceQuarantine, id)
	if err != nil {
		return err
	}
	switch {
	case status == "contraindicated":
		if _, err := device.Next(d.State, device.Quarantine); err != nil && d.State != device.Quarantined {
			return nil // its life leaves nothing to contain
		}
		_, err := s.Suspect(ctx, caller, Trouble{Device: id, Cause: cause, Reason: reason})
		return err
	case wire.Acceptable(status):
		return s.Affirmed(ctx, caller, id, at, cause)
	}
	return nil
}

// Suspect opens a case for a device that evidence or a finding speaks against, and contains the device, or holds the case for a
// person when too many were contained in the last hour. A device with an open case, or a cause told before, changes nothing.
func (s *Service) Suspect(ctx context.Context, caller access.Caller, t Trouble) (Case, error) {
	d, err := s.device(ctx, caller, access.DeviceQuarantine, t.Device)
	if err != nil {
		return Case{}, err
	}
	if c, err := s.cfg.Store.Case(ctx, t.Device); err == nil {
		return c, nil
	} else if !errors.Is(err, ErrNotFound) {
		return Case{}, err
	}
	if _, err := device.Next(d.State, device.Quarantine); err != nil && d.State != device.Quarantined {
		return Case{}, err
	}
	now := s.cfg.Now().UTC()
	c := Case{
		Device: t.Device, Product: d.Product, Cause: t.Cause, Reason: t.Reason, Phase: Contained, Opened: now, Since: now, Rev: 1,
	}
	c, err = s.begin(ctx, caller, c, "quarantine")
	if errors.Is(err, ErrMany) {
		c.Phase = Held
		c, err = s.begin(ctx, caller, c, fmt.Sprintf("held: %d devices of %s were quarantined within the hour", s.cfg.Policy.PerHour, d.Product))
	}
	if errors.Is(err, ErrExists) { // this cause's case is closed, or the device's was opened this moment
		return Case{}, nil
	}
	return c, err
}

func (s *Service) begin(ctx context.Context, caller access.Caller, c Case, said string) (Case, error) {
	f, err := fact(c.Opened, caller.ID, c, said)
	if err != nil {
		return c, err
	}
	return c, s.cfg.Store.OpenCase(ctx, c, Limit{Most: s.cfg.Policy.PerHour, Since: c.Opened.Add(-time.Hour)}, f)
}

// Quarantined is told when a device says that it is: it is made anew, if the policy says so.
func (s *Service) Quarantined(ctx context.Context, caller access.Caller, id string, cause ledger.Ref) error {
	if !s.cfg.Policy.Reprovide {
		return s.check(ctx, caller, access.DeviceReprovide, id, device.Device{})
	}
	return s.Remake(ctx, caller, id, nil, cause, "after quarantine")
}

// Remake has the device of an open case made anew with a release; nil: the one it should run. Without a case, or when it is
// under way already, nothing changes.
func (s *Service) Remake(ctx context.Context, caller access.Caller, id string, release []byte, cause ledger.Ref, reason string) error {
	if err := s.mayRemake(ctx, caller, id, release); err != nil {
		return err
	}
	c, err := s.cfg.Store.Case(ctx, id)
	again := c.Phase == Remaking && caller.Kind != access.System // a person may repeat what did not work
	if errors.Is(err, ErrNotFound) || err == nil && c.Phase != Contained && !again {
		return nil
	}
	if err != nil {
		return err
	}
	if release == nil {
		if release, err = s.cfg.Store.GoodRelease(ctx, id); errors.Is(err, ErrNotFound) {
			return fault.New(fault.Conflict, "remedy.release", fmt.Sprintf("no published release that has proven itself to make device %s anew with", id),
				"roll one out for its hardware, or name one: `hallmark remedy reprovision --release`")
		}
		if err != nil {
			return err
		}
	}
	c.Release = release
	return s.turn(ctx, caller, c, Remaking, &cause, "re-provision: "+reason)
}

// Affirmed is told of an affirming verdict: the device of an open case is released. Evidence from before the case says nothing.
func (s *Service) Affirmed(ctx context.Context, caller access.Caller, id string, at time.Time, cause ledger.Ref) error {
	if _, err := s.device(ctx, caller, access.DeviceRelease, id); err != nil {
		return err
	}
	c, err := s.cfg.Store.Case(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case !at.After(c.Opened):
		return nil
	case c.Phase == Held: // nothing was done to it
		return s.turn(ctx, caller, c, Closed, &cause, "affirming evidence")
	case c.Phase == Remaking && (c.Remade.IsZero() || !at.After(c.Remade)):
		return nil // what it tries may still prove sick: it has not said that it is done
	case contains(c.Phase):
		return s.turn(ctx, caller, c, Releasing, &cause, "release: affirming evidence")
	}
	return nil
}

// Remade is told what became of a command to make a device anew. A device that did it is asked for evidence at once; one that
// failed tries again, MaxTries times.
func (s *Service) Remade(ctx context.Context, caller access.Caller, id, command string, done bool, cause ledger.Ref, text string) error {
	if _, err := s.device(ctx, caller, access.DeviceReprovide, id); err != nil {
		return err
	}
	c, err := s.cfg.Store.Case(ctx, id)
	if err == nil && c.Phase == Remaking && c.Command == "" {
		return fault.New(fault.Unavailable, "remedy.command", fmt.Sprintf("the command for device %s is not on record yet", id), "ask again")
	}
	if errors.Is(err, ErrNotFound) || err == nil && (c.Phase != Remaking || c.Command != command || !c.Remade.IsZero() || c.Tries >= MaxTries) {
		return nil // of another time
	}
	if err != nil {
		return err
	}
	if !done {
		if c.Tries++; c.Tries < MaxTries {
			return s.turn(ctx, caller, c, Remaking, &cause, "re-provision again: "+text)
		}
		return s.note(ctx, caller, c, &cause, fmt.Sprintf("given up after %d tries, a person decides: %s", c.Tries, text))
	}
	c.Remade = s.cfg.Now().UTC()
	c.Step++
	return s.note(ctx, caller, c, &cause, "made anew: evidence is asked for")
}

// Released is told when a device says that its quarantine is over: its case closes, or, when nobody released it (its time ran
// out unheard), the device is contained again.
func (s *Service) Released(ctx context.Context, caller access.Caller, id string, cause ledger.Ref) error {
	if _, err := s.device(ctx, caller, access.DeviceRelease, id); err != nil {
		return err
	}
	c, err := s.cfg.Store.Case(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case c.Phase == Releasing:
		return s.turn(ctx, caller, c, Closed, &cause, "released")
	case contains(c.Phase) && s.cfg.Now().Before(c.Opened.Add(s.cfg.Policy.MaxHold)):
		return s.turn(ctx, caller, c, Contained, &cause, "quarantine lapsed: contain again")
	}
	return nil
}

// Ended is told when a device's life ends, or nobody has it any more: its case closes, whatever it waits for.
func (s *Service) Ended(ctx context.Context, caller access.Caller, id string, cause ledger.Ref, reason string) error {
	if _, err := s.device(ctx, caller, access.DeviceRelease, id); err != nil {
		return err
	}
	c, err := s.cfg.Store.Case(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.turn(ctx, caller, c, Closed, &cause, reason)
}

// Approve lets a held case go on: the person takes the decision that the policy would not.
func (s *Service) Approve(ctx context.Context, caller access.Caller, id, reason string) error {
	if _, err := s.device(ctx, caller, access.DeviceQuarantine, id); err != nil {
		return err
	}
	c, err := s.open(ctx, id)
	if err != nil {
		return err
	}
	if c.Phase != Held {
		return fault.New(fault.Conflict, "remedy.phase", fmt.Sprintf("the case of device %s is %s, not held", id, c.Phase), "see `hallmark remedy list`")
	}
	return s.turn(ctx, caller, c, Contained, nil, "quarantine approved: "+reason)
}

// Dismiss ends a case a person judges unfounded; a contained device is released.
func (s *Service) Dismiss(ctx context.Context, caller access.Caller, id, reason string) error {
	if _, err := s.device(ctx, caller, access.DeviceRelease, id); err != nil {
		return err
	}
	c, err := s.open(ctx, id)
	if err != nil {
		return err
	}
	if contains(c.Phase) {
		return s.turn(ctx, caller, c, Releasing, nil, "release, dismissed: "+reason)
	}
	return s.turn(ctx, caller, c, Closed, nil, "dismissed: "+reason)
}

// Replace records that after took over from before.
func (s *Service) Replace(ctx context.Context, caller access.Caller, before, after, reason string) error {
	if _, err := s.device(ctx, caller, access.DeviceRetire, before); err != nil {
		return err
	}
	return s.cfg.Devices.Replace(ctx, caller, before, after, nil, reason)
}

// Get gives a device's open case.
func (s *Service) Get(ctx context.Context, caller access.Caller, id string) (Case, error) {
	if _, err := s.device(ctx, caller, access.DeviceRead, id); err != nil {
		return Case{}, err
	}
	return s.open(ctx, id)
}

// List gives all open cases, by device.
func (s *Service) List(ctx context.Context, caller access.Caller) ([]Case, error) {
	return s.Page(ctx, caller, "", "", 0)
}

// Page gives the open cases at a place (a product, or a group of one as access.Join names it; all with an empty one), by device, from behind the device after on, at most limit; 0: all.
func (s *Service) Page(ctx context.Context, caller access.Caller, place, after string, limit int) ([]Case, error) {
	at := access.In("case", place)
	scope, err := s.cfg.Guard.Within(ctx, caller, access.FindingRead, at.Type, at.Product, at.Group)
	if err != nil {
		return nil, err
	}
	return s.cfg.Store.OpenCases(ctx, scope, after, limit)
}

// Reprovide is Remake as a person asks for it: because of what opened the case, and in a phase that allows it.
func (s *Service) Reprovide(ctx context.Context, caller access.Caller, id string, release []byte, reason string) error {
	if _, err := s.device(ctx, caller, access.DeviceReprovide, id); err != nil {
		return err
	}
	c, err := s.open(ctx, id)
	if err != nil {
		return err
	}
	if !contains(c.Phase) {
		return fault.New(fault.Conflict, "remedy.phase", fmt.Sprintf("the case of device %s is %s: only a contained device is made anew", id, c.Phase),
			"approve the quarantine first")
	}
	return s.Remake(ctx, caller, id, release, c.Cause, reason)
}

// mayRemake asks the guard. A release that a person names, and that did not run on the device in good health already, is an update past
// the rollouts: it takes two.
func (s *Service) mayRemake(ctx context.Context, caller access.Caller, id string, release []byte) error {
	d, err := s.cfg.Devices.Get(ctx, system(), id)
	grave := caller.Kind != access.System && release != nil && !device.Anew(d, release)
	if denied := s.cfg.Guard.Check(ctx, caller, access.DeviceReprovide, access.Resource{
		Type: "device", ID: id, Product: d.Product, Group: d.Group, Grave: grave,
	}); denied != nil {
		return denied
	}
	return err
}

// Tick gives the commands of what was decided, and renews quarantines before they lapse. One node does; another, or the same after a
// crash, repeats no command.
func (s *Service) Tick(ctx context.Context, now time.Time) error {
	cases, err := s.cfg.Store.OpenCases(ctx, nil, "", 0)
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range cases {
		if _, err := s.step(ctx, c, now.UTC()); err != nil {
			errs = append(errs, fmt.Errorf("case of device %s: %w", c.Device, err))
		}
	}
	return errors.Join(errs...)
}

// device finds the device and asks the guard, before anything of it is shown or done.
func (s *Service) device(ctx context.Context, caller access.Caller, action access.Action, id string) (device.Device, error) {
	d, err := s.cfg.Devices.Get(ctx, system(), id)
	if denied := s.check(ctx, caller, action, id, d); denied != nil {
		return device.Device{}, denied
	}
	return d, err
}

func (s *Service) open(ctx context.Context, id string) (Case, error) {
	c, err := s.cfg.Store.Case(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return Case{}, fault.New(fault.NotFound, "remedy.case", fmt.Sprintf("device %s has no open case", id), "see `hallmark remedy list`")
	}
	return c, err
}

// turn takes a case to its next phase, durably; the next Tick does what that phase asks for.
func (s *Service) turn(ctx context.Context, caller access.Caller, c Case, to Phase, cause *ledger.Ref, said string) error {
	now := s.cfg.Now().UTC()
	c.Phase, c.Since, c.Command, c.Renewing, c.Remade, c.Asked = to, now, "", time.Time{}, time.Time{}, false
	c.Step++
	if to == Closed {
		c.Closed = now
	}
	return s.note(ctx, caller, c, cause, said)
}

// note makes a decision durable.
func (s *Service) note(ctx context.Context, caller access.Caller, c Case, cause *ledger.Ref, said string) error {
	now := s.cfg.Now().UTC()
	f, err := fact(now, caller.ID, c, said)
	if err != nil {
		return err
	}
	if cause != nil {
		f.Cause = cause
	}
	if err := s.cfg.Store.SaveCase(ctx, c, f); err != nil {
		if errors.Is(err, ErrChanged) {
			return fault.New(fault.Conflict, "remedy.changed", fmt.Sprintf("the case of device %s changed meanwhile", c.Device), "look again and repeat")
		}
		return err
	}
	return nil
}

// step issues the command of the case's phase if it was not issued, and renews a quarantine that is about to lapse. What was
// decided is durable before, so a crash in between only delays it.
func (s *Service) step(ctx context.Context, c Case, now time.Time) (Case, error) {
	if _, acts := actOf(c.Phase); acts && c.Command == "" || !c.Remade.IsZero() && !c.Asked || renewal(c, s.cfg.Policy, now) || !c.Renewing.IsZero() {
		d, err := s.cfg.Devices.Get(ctx, system(), c.Device)
		if err != nil {
			return c, err
		}
		if Over(d.State) { // nobody is there to be told
			return c, s.turn(ctx, system(), c, Closed, nil, "the device is "+string(d.State))
		}
		if c.Phase == Releasing && d.Legitimacy == device.Stolen {
			return c, s.turn(ctx, system(), c, Closed, nil, "the device is stolen: it stays held until it is found")
		}
	}
	if c.Command == "" {
		if act, ok := actOf(c.Phase); ok {
			id, err := s.issue(ctx, c, act)
			if err != nil {
				return c, err
			}
			c.Command = id
			if act == wire.ActQuarantine {
				c.Until = c.Since.Add(s.cfg.Policy.TTL)
			}
			return s.save(ctx, c)
		}
	}
	if !c.Remade.IsZero() && !c.Asked {
		if _, err := s.issue(ctx, c, wire.ActAttest); err != nil {
			return c, err
		}
		c.Asked = true
		var err error
		if c, err = s.save(ctx, c); err != nil {
			return c, err
		}
	}
	if renewal(c, s.cfg.Policy, now) {
		c.Renewing = now
		c.Step++
		var err error
		if c, err = s.save(ctx, c); err != nil {
			return c, err
		}
	}
	if !c.Renewing.IsZero() {
		if _, err := s.issue(ctx, c, wire.ActQuarantine); err != nil {
			return c, err
		}
		c.Renewing, c.Until = time.Time{}, c.Renewing.Add(s.cfg.Policy.TTL)
		return s.save(ctx, c)
	}
	return c, nil
}

func (s *Service) save(ctx context.Context, c Case) (Case, error) {
	err := s.cfg.Store.SaveCase(ctx, c)
	c.Rev++
	return c, err
}

func actOf(p Phase) (wire.Act, bool) {
	switch p {
	case Contained:
		return wire.ActQuarantine, true
	case Remaking:
		return wire.ActReprovide, true
	case Releasing:
		return wire.ActRelease, true
	case Held, Closed:
	}
	return "", false
}

// issue tells the device, unless it was told so at this step: the crash was after the command then.
func (s *Service) issue(ctx context.Context, c Case, act wire.Act) (string, error) {
	in := device.Instruction{
		Product: c.Product, Act: act, Devices: []string{c.Device}, Reason: c.Reason, Cause: &c.Cause,
		Once: fmt.Sprintf("remedy/%s/%d/%d/%s", c.Cause.Log, c.Cause.Index, c.Step, act),
	}
	switch act {
	case wire.ActQuarantine:
		in.TTL = s.cfg.Policy.TTL
		in.Valid = s.cfg.Policy.TTL // told later than that, it would outlast what was decided
	case wire.ActReprovide:
		in.Release = c.Release
	default:
	}
	return s.cfg.Devices.Command(ctx, system(), in)
}

func fact(at time.Time, actor string, c Case, said string) (ledger.Fact, error) {
	data, err := json.Marshal(struct {
		Device   string `json:"device"`
		Phase    Phase  `json:"phase"`
		Decision string `json:"decision"`
		Reason   string `json:"reason"`
	}{c.Device, c.Phase, said, c.Reason})
	if err != nil {
		return ledger.Fact{}, fmt.Errorf("fact %s: %w", ledger.KindRemedyDecided, err)
	}
	cause := c.Cause
	return ledger.New(ledger.KindRemedyDecided, at, actor, c.Device, &cause, data), nil
}
