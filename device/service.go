package device

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Config is what a Service needs. Every field without "default" must be set.
type Config struct {
	Registry   Registry
	Reports    Reports
	Offers     Offers // nil: clients of other update systems are offered nothing
	Commands   Commands
	Trust      Trust
	Groups     Groups
	Forgetter  Forgetter
	Guard      *access.Guard
	Ledger     Ledger
	Releases   Releases
	Challenger Challenger // nil: nobody is ever asked to attest
	Evidence   Evidence   // nil: no history is taken in; so is Journal
	Journal    Journal    //
	Wakes      Wakes      // nil: no answer is given from memory
	Later      Later      // nil: nobody is known to be told of what mends something later
	Bundles    Bundles
	Records    Records
	// Authorities gives the keys of the directive authority, newest first. A device is told by one that its trust bundle names.
	Authorities func() []crypto.Signer
	Poll        time.Duration    // between check-ins when nothing is outstanding; default 5 min
	Soon        time.Duration    // when something is; default 5 s
	Directive   time.Duration    // how long a directive is valid; default 2 min
	Roll        time.Duration    // how long a rolling check-in token lasts; default 12 h
	Now         func() time.Time // default time.Now
}

// Service is the registry and the directive authority.
type Service struct {
	cfg      Config
	sets     setCache
	prepared prepared
	signers  signers
	steps    stepCache
	lines    lines
	quiet    quiet

	mu      sync.Mutex               // guards what follows
	seen    map[string]time.Time     // check-ins not yet stored
	unasked map[string]*rate.Limiter // see mayTell
	pruned  time.Time                // when those of quiet devices were forgotten
}

// NewService checks cfg and fills its defaults.
func NewService(cfg Config) (*Service, error) {
	if cfg.Registry == nil || cfg.Reports == nil || cfg.Commands == nil || cfg.Trust == nil || cfg.Groups == nil || cfg.Forgetter == nil || cfg.Guard == nil ||
		cfg.Ledger == nil || cfg.Releases == nil || cfg.Bundles == nil || cfg.Records == nil || cfg.Authorities == nil {
		return nil, errors.New("device: a store, the guard, the ledger, the releases or the authority is missing")
	}
	if cfg.Poll == 0 {
		cfg.Poll = 5 * time.Minute
	}
	if cfg.Soon == 0 {
		cfg.Soon = 5 * time.Second
	}
	if cfg.Roll == 0 {
		cfg.Roll = 12 * time.Hour
	}
	if cfg.Directive == 0 {
		cfg.Directive = 2 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Service{cfg: cfg, seen: map[string]time.Time{}}
	if cfg.Wakes != nil {
		cfg.Wakes.OnWake(s.quiet.wake)
	}
	return s, nil
}

// Get gives one device.
func (s *Service) Get(ctx context.Context, caller access.Caller, id string) (Device, error) {
	return s.open(ctx, caller, access.DeviceRead, id)
}

// open finds the device, whose product the guard has to know, and asks the guard before anything of it is shown or done. Who
// may not read every product learns nothing from asking for an ID that is not there.
func (s *Service) open(ctx context.Context, caller access.Caller, action access.Action, id string) (Device, error) {
	d, err := s.cfg.Registry.Device(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Device{}, err
	}
	if err := s.cfg.Guard.Check(ctx, caller, action, access.Resource{Type: "device", ID: id, Product: d.Product, Group: d.Group}); err != nil {
		return Device{}, err
	}
	if errors.Is(err, ErrNotFound) {
		return Device{}, noDevice(id)
	}
	s.mu.Lock()
	if at := s.seen[id]; at.After(d.LastSeen) {
		d.LastSeen = at
	}
	s.mu.Unlock()
	return d, nil
}

func noDevice(id string) error {
	return fault.New(fault.NotFound, "device.unknown", fmt.Sprintf("no device %q", id), "look for it with `hallmark device list`")
}

// List gives a page; the next begins after the last ID of this one.
func (s *Service) List(ctx context.Context, caller access.Caller, q Query) ([]Device, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.DeviceRead, access.Resource{Type: "device", Product: q.Product}); err != nil {
		return nil, err
	}
	if q.State != "" && !Known(q.State) {
		return nil, fault.New(fault.Invalid, "device.state", fmt.Sprintf("no state %q", q.State), fmt.Sprint("use one of ", States()))
	}
	if q.Limit <= 0 || q.Limit > MaxPage {
		q.Limit = MaxPage
	}
	if len(q.IDs) > MaxPage {
		return nil, fault.New(fault.Invalid, "device.page", fmt.Sprintf("%d IDs in one query", len(q.IDs)), fmt.Sprintf("ask for at most %d", MaxPage))
	}
	return s.cfg.Registry.Devices(ctx, q)
}

// Count counts devices by state.
func (s *Service) Count(ctx context.Context, caller access.Caller, product string) (map[State]int, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.DeviceRead, access.Resource{Type: "device", Product: product}); err != nil {
		return nil, err
	}
	return s.cfg.Registry.CountDevices(ctx, product)
}

// StateChange is the Data of a fact of a transition.
type StateChange struct {
	Device string `json:"device"`
	From   State  `json:"from"`
	To     State  `json:"to"`
	Event  Event  `json:"event"`
	Reason string `json:"reason,omitempty"`
}

// Move takes a device through ev, with the fact that led there. Taking it twice is a Conflict.
func (s *Service) Move(ctx context.Context, caller access.Caller, id string, ev Event, cause *ledger.Ref, reason string) (Device, error) {
	d, err := s.open(ctx, caller, ActionOf(ev), id)
	if err != nil {
		return Device{}, err
	}
	if caller.Owner != "" && ev != Lose && ev != Find && ev != Maintain && ev != Resume {
		return Device{}, makersWord(id)
	}
	// Who takes a device into maintenance, and out of it again, has it as free as one that was never held.
	if caller.Kind != access.System && (ev == Maintain || ev == Resume || ev == Release || ev == Wake) && (d.Legitimacy == Stolen || caller.Owner != "" && d.State == Quarantined) {
		return Device{}, fault.New(fault.Denied, "device.held", fmt.Sprintf("device %s is %s, and %s", id, d.State, d.Legitimacy), "it is let go first: `hallmark command create release`, or `hallmark device found` when it is marked as stolen")
	}
	to, err := Next(d.State, ev)
	if err != nil {
		return Device{}, err
	}
	now := s.cfg.Now().UTC()
	f, err := s.stateFact(d, to, ev, now, caller.ID, cause, reason)
	if err != nil {
		return Device{}, err
	}
	c := Change{Device: id, From: d.State, To: to, At: now, Absolve: ev == Clear, Fact: caller.Tells(f)}
	if err := s.cfg.Registry.MoveDevice(ctx, c); err != nil {
		return Device{}, changed(id, err)
	}
	d.State, d.Since, d.GuardUntil = to, now, time.Time{}
	if c.Absolve {
		d = absolved(d)
	}
	return d, nil
}

// absolved is a device whose suspicion somebody has looked into. What only rises on one device begins again, for the copy may have been ahead: in its
// counts, and in the results that were taken from it.
func absolved(d Device) Device {
	d.Twin = forgetful(d.Twin)
	d.Twin.Suspect, d.Twin.Sides, d.Token, d.TokenAnew, d.AckedSeq = "", nil, TokenAwaited, false, 0
	return d
}

func (s *Service) stateFact(d Device, to State, ev Event, at time.Time, actor string, cause *ledger.Ref, reason string) (ledger.Fact, error) {
	kind := ledger.KindDeviceState
	switch ev {
	case Onboard, Reonboard:
		kind = ledger.KindDeviceOnboarded
	case Quarantine:
		kind = ledger.KindDeviceQuarantined
	case Release:
		kind = ledger.KindDeviceReleased
	default:
	}
	return jsonFact(kind, at, actor, d.ID, cause, StateChange{Device: d.ID, From: d.State, To: to, Event: ev, Reason: reason})
}

func jsonFact(kind ledger.Kind, at time.Time, actor, subject string, cause *ledger.Ref, data any) (ledger.Fact, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return ledger.Fact{}, fmt.Errorf("fact %s: %w", kind, err)
	}
	return ledger.New(kind, at, actor, subject, cause, b), nil
}

func changed(id string, err error) error {
	if errors.Is(err, ErrChanged) {
		return fault.New(fault.Conflict, "device.changed", fmt.Sprintf("device %s changed meanwhile", id), "read it again and decide anew")
	}
	return err
}

// ActionOf is the permission that an event takes.
func ActionOf(ev Event) access.Action {
	switch ev {
	case Quarantine, Suspect, Lose, Find, Clear:
		return access.DeviceQuarantine
	case Release, Activate:
		return access.DeviceRelease
	case Sleep, Wake:
		return access.DeviceDormant
	case Maintain, Resume:
		return access.DeviceReset
	case Onboard, Reonboard:
		return access.DeviceEnrol
	case Remake:
		return access.DeviceReprovide
	case Depart:
		return access.DeviceTransfer
	case Retire, Wiped, Dispose, Reinstate:
		return access.DeviceRetire
	}
	return access.DeviceCommand
}

// Judge sets the legitimacy of a device.
func (s *Service) Judge(ctx context.Context, caller access.Caller, id string, l Legitimacy, cause *ledger.Ref, reason string) error {
	d, err := s.open(ctx, caller, access.DeviceQuarantine, id)
	if err != nil {
		return err
	}
	if caller.Owner != "" {
		return makersWord(id)
	}
	if !l.valid() {
		return fault.New(fault.Invalid, "device.legitimacy", fmt.Sprintf("no legitimacy %q", l), "use genuine, recalled, refurbished, resold, stolen or unknown")
	}
	if l == Stolen || l == Recalled {
		return fault.New(fault.Invalid, "device.legitimacy", "a device is stolen or recalled by a mark, which can be lifted again", "`hallmark device stolen`, `hallmark recall create`")
	}
	if d.Legitimacy == l {
		return nil
	}
	if d.Legitimacy == Stolen || d.Legitimacy == Recalled {
		return fault.New(fault.Conflict, "device.marked", fmt.Sprintf("device %s is marked: it is %s", id, d.Legitimacy), "lift the mark: `hallmark device found`, `hallmark recall mended`")
	}
	if (l == Imported) != (d.KeyOrigin == OriginImported) && (l == Imported || l == Genuine) {
		return fault.New(fault.Conflict, "device.imported", fmt.Sprintf("device %s: whether it was imported follows from how it came here", id), "an imported device is genuine by nobody's word, and no other is imported")
	}
	f, err := jsonFact(ledger.KindDeviceState, s.cfg.Now(), caller.ID, id, cause, map[string]string{
		"device": id, "legitimacy_from": string(d.Legitimacy), "legitimacy_to": string(l), "reason": reason,
	})
	if err != nil {
		return err
	}
	return changed(id, s.cfg.Registry.JudgeDevice(ctx, id, d.Legitimacy, l, f))
}

// makersWord denies an owner what only the maker can know: whether a piece is what it says it is.
func makersWord(id string) error {
	return fault.New(fault.Denied, "device.makers-word", "that is for the maker of device "+id+" to say", "an owner marks its device as stolen or found: hallmark device stolen")
}

// Replace records that after took over from before. Both must be of one product, and neither replaced or replacing already.
func (s *Service) Replace(ctx context.Context, caller access.Caller, before, after string, cause *ledger.Ref, reason string) error {
	old, err := s.open(ctx, caller, access.DeviceRetire, before)
	if err != nil {
		return err
	}
	next, err := s.open(ctx, caller, access.DeviceRetire, after)
	if err != nil {
		return err
	}
	if before == after || old.Product != next.Product || Ended(next.State) {
		return fault.New(fault.Invalid, "device.replace", fmt.Sprintf("%s cannot take over from %s", after, before), "name a living device of the same product")
	}
	f, err := jsonFact(ledger.KindDeviceReplaced, s.cfg.Now(), caller.ID, before, cause, map[string]string{
		"device": before, "by": after, "reason": reason,
	})
	if err != nil {
		return err
	}
	return changed(before, s.cfg.Registry.ReplaceDevice(ctx, before, after, f))
}

// saw notes a check-in; Flush stores it.
func (s *Service) saw(id string, at time.Time) {
	s.mu.Lock()
	s.seen[id] = at
	s.mu.Unlock()
}

// Flush stores the check-in times gathered since the last call; the server calls it every few seconds and when it stops. What
// could not be stored is kept for the next call.
func (s *Service) Flush(ctx context.Context) error {
	s.mu.Lock()
	batch := s.seen
	s.seen = make(map[string]time.Time, len(batch))
	s.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	err := s.cfg.Reports.MarkSeen(ctx, batch)
	if err != nil {
		s.mu.Lock()
		for id, at := range batch {
			if s.seen[id].Before(at) {
				s.seen[id] = at
			}
		}
		s.mu.Unlock()
	}
	return err
}
