package rollout

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

// Config is what a Service works with; every field without a default must be set.
type Config struct {
	Store    Store
	Releases Releases
	Devices  Commander
	Ledger   Ledger
	Guard    *access.Guard
	Contact  time.Duration    // how long a device may be unheard of, in a wave that does not say; default 15 min
	Now      func() time.Time // nil: time.Now; for verbs, Tick is given its own
}

// Service is the stage.
type Service struct {
	cfg Config

	mu   sync.Mutex // held by a Tick: two would both see that a command was not issued yet
	seen lastSeen
	ears ears
}

// NewService checks cfg and makes the stage.
func NewService(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Releases == nil || cfg.Devices == nil || cfg.Ledger == nil || cfg.Guard == nil {
		return nil, errors.New("rollout: the store, the releases, the devices, the ledger or the guard is missing")
	}
	if cfg.Contact == 0 {
		cfg.Contact = 15 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg}, nil
}

// check asks for the right to a rollout: to the group it is limited to, or to the whole product.
func (s *Service) check(ctx context.Context, caller access.Caller, action access.Action, id string, spec Spec) error {
	return s.cfg.Guard.Check(ctx, caller, action, access.Resource{Type: "rollout", ID: id, Product: spec.Product, Group: spec.Selection.Group})
}

// DryRun tells what Start would do now: the waves, and who is left out and why.
func (s *Service) DryRun(ctx context.Context, caller access.Caller, spec Spec) (Resolved, error) {
	if err := s.check(ctx, caller, access.RolloutRead, spec.ID, spec); err != nil {
		return Resolved{}, err
	}
	rel, err := s.checkSpec(ctx, spec)
	if err != nil {
		return Resolved{}, err
	}
	return s.resolve(ctx, spec, rel)
}

// Create stores a rollout; nothing is sent before Start.
func (s *Service) Create(ctx context.Context, caller access.Caller, spec Spec) (Rollout, error) {
	if err := s.check(ctx, caller, access.RolloutCreate, spec.ID, spec); err != nil {
		return Rollout{}, err
	}
	if _, err := s.checkSpec(ctx, spec); err != nil {
		return Rollout{}, err
	}
	now := s.cfg.Now().UTC()
	f, err := fact(ledger.KindRolloutCreated, now, caller.ID, spec.ID, nil, spec)
	if err != nil {
		return Rollout{}, err
	}
	f = caller.Tells(f)
	r := Rollout{Spec: spec, Phase: Created, By: caller.ID, Created: now, UID: f.UID, Rev: 1}
	err = s.cfg.Store.PutRollout(ctx, r, f)
	if errors.Is(err, ErrExists) {
		if same, err := s.cfg.Store.Rollout(ctx, spec.ID); err == nil && same.By == r.By && same.Phase == Created && alike(same.Spec, spec) {
			return same, nil // the same again, by who did not hear the answer
		}
		return Rollout{}, fault.New(fault.Conflict, "rollout.exists", fmt.Sprintf("there is a rollout %q already", spec.ID), "give this one another ID")
	}
	return r, err
}

// alike reports whether two specs say the same. An absent list and an empty one are written alike.
func alike(a, b Spec) bool {
	one, err1 := json.Marshal(a)
	other, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(one, other)
}

// Start selects the devices, takes them, and lets the first wave go at the next Tick.
func (s *Service) Start(ctx context.Context, caller access.Caller, id string) (Rollout, Resolved, error) {
	r, err := s.open(ctx, caller, access.RolloutControl, id)
	if err != nil {
		return Rollout{}, Resolved{}, err
	}
	if r.Phase != Created {
		return Rollout{}, Resolved{}, wrongPhase(r, "started")
	}
	rel, err := s.checkSpec(ctx, r.Spec)
	if err != nil {
		return Rollout{}, Resolved{}, err
	}
	res, err := s.resolve(ctx, r.Spec, rel)
	if err != nil {
		return Rollout{}, Resolved{}, err
	}
	now := s.cfg.Now().UTC()
	r.Phase, r.Wave, r.Started, r.Waves = Running, 1, now, res.Waves
	f, err := fact(ledger.KindRolloutStarted, now, caller.ID, id, s.cause(ctx, r), struct {
		Rollout string      `json:"rollout"`
		Release string      `json:"release"`
		Set     any         `json:"devices"`
		Waves   []WaveState `json:"waves"`
		Skipped int         `json:"skipped"`
	}{id, hex.EncodeToString(r.Spec.Release), res.Set, res.Waves, len(res.Skipped)})
	if err != nil {
		return Rollout{}, Resolved{}, err
	}
	f = caller.Tells(f)
	r.UID = f.UID
	err = s.cfg.Store.StartRollout(ctx, r, res.Members, f)
	if busy, ok := errors.AsType[*BusyError](err); ok {
		return Rollout{}, Resolved{}, fault.Newf(fault.Conflict, "rollout.busy", "%w: end that one first, or leave the device out", busy)
	}
	if err != nil {
		return Rollout{}, Resolved{}, changed(id, err)
	}
	r.Rev++
	return r, res, nil
}

// Pause lets no further wave go. Devices that were told already go on, and their failures still halt.
func (s *Service) Pause(ctx context.Context, caller access.Caller, id, reason string) (Rollout, error) {
	return s.turn(ctx, caller, id, reason, ledger.KindRolloutPaused, "paused", func(r *Rollout) bool {
		ok := r.Phase == Running
		r.Phase = Paused
		return ok
	})
}

// Resume undoes Pause.
func (s *Service) Resume(ctx context.Context, caller access.Caller, id, reason string) (Rollout, error) {
	return s.turn(ctx, caller, id, reason, ledger.KindRolloutResumed, "resumed", func(r *Rollout) bool {
		ok := r.Phase == Paused
		r.Phase = Running
		return ok
	})
}

// Abort ends a rollout where it is: who was not told is not told any more, and nobody is sent back.
func (s *Service) Abort(ctx context.Context, caller access.Caller, id, reason string) (Rollout, error) {
	return s.turn(ctx, caller, id, reason, ledger.KindRolloutAborted, "aborted", func(r *Rollout) bool {
		switch r.Phase {
		case Created:
			r.Phase, r.Ended = Aborted, s.cfg.Now().UTC()
		case Running, Paused, Halted:
			r.Phase = Aborting
		case Aborting, RolledBack, Aborted, Completed:
			return false
		}
		r.Reason = reason
		return true
	})
}

// Halt does by hand what too many failures do: the wave under way ends, and who confirmed the release, in any wave, is sent back.
func (s *Service) Halt(ctx context.Context, caller access.Caller, id, reason string) (Rollout, error) {
	return s.turn(ctx, caller, id, reason, ledger.KindRolloutHalted, "halted", func(r *Rollout) bool {
		if r.Phase != Running && r.Phase != Paused {
			return false
		}
		r.Phase, r.Halted, r.Reason = Halted, s.cfg.Now().UTC(), reason
		return true
	})
}

func (s *Service) turn(ctx context.Context, caller access.Caller, id, reason string, kind ledger.Kind, what string, do func(*Rollout) bool) (Rollout, error) {
	r, err := s.open(ctx, caller, access.RolloutControl, id)
	if err != nil {
		return Rollout{}, err
	}
	if len(reason) > 1024 {
		return Rollout{}, fault.New(fault.Invalid, "rollout.reason", "the reason is longer than 1024 bytes", "")
	}
	was := r
	if !do(&r) {
		return Rollout{}, wrongPhase(was, what)
	}
	f, err := fact(kind, s.cfg.Now(), caller.ID, id, s.cause(ctx, r), map[string]any{"rollout": id, "wave": r.Wave, "reason": reason})
	if err != nil {
		return Rollout{}, err
	}
	f = caller.Tells(f)
	r.UID = f.UID
	if err := s.cfg.Store.SaveRollout(ctx, r, f); err != nil {
		return Rollout{}, changed(id, err)
	}
	r.Rev++
	return r, nil
}

func wrongPhase(r Rollout, what string) error {
	return fault.New(fault.Conflict, "rollout.phase", fmt.Sprintf("rollout %s is %s, it cannot be %s", r.Spec.ID, r.Phase, what),
		"look at it with `hallmark rollout show`")
}

func changed(id string, err error) error {
	if errors.Is(err, ErrChanged) {
		return fault.New(fault.Conflict, "rollout.changed", fmt.Sprintf("rollout %s changed meanwhile", id), "look again and repeat")
	}
	return err
}

// DeviceView is one device of a wave and how the gate sees it.
type DeviceView struct {
	Status
	Class Class
	Why   string
}

// Get gives a rollout and the devices of its current wave; of a halted one those of all waves that began.
func (s *Service) Get(ctx context.Context, caller access.Caller, id string) (Rollout, []DeviceView, error) {
	r, err := s.open(ctx, caller, access.RolloutRead, id)
	if err != nil || r.Wave == 0 {
		return r, nil, err
	}
	from, to := r.watched()
	snap := s.seen.of(id, from, to)
	if snap == nil {
		if snap, err = s.cfg.Store.RolloutSnapshot(ctx, id, from, to); err != nil {
			return Rollout{}, nil, err
		}
	}
	m := s.moment(s.cfg.Now())
	out := make([]DeviceView, len(snap))
	for i, st := range snap {
		out[i] = DeviceView{Status: st, Why: "its wave has not begun"}
		if at := r; !r.Waves[st.Wave-1].Started.IsZero() {
			at.Wave = st.Wave
			out[i].Class, out[i].Why = Judge(m, at, st)
		}
	}
	return r, out, nil
}

// List gives a product's rollouts, newest first.
func (s *Service) List(ctx context.Context, caller access.Caller, product string) ([]Rollout, error) {
	return s.Page(ctx, caller, product, false, "", 0)
}

// Page is List, of a product or of a group of one as access.Join names it, from behind the rollout after on, at most limit (0: all); with open only those that have not ended.
func (s *Service) Page(ctx context.Context, caller access.Caller, place string, open bool, after string, limit int) ([]Rollout, error) {
	at := access.In("rollout", place)
	scope, err := s.cfg.Guard.Within(ctx, caller, access.RolloutRead, at.Type, at.Product, at.Group)
	if err != nil {
		return nil, err
	}
	return s.cfg.Store.Rollouts(ctx, scope, open, after, limit)
}

func (s *Service) open(ctx context.Context, caller access.Caller, action access.Action, id string) (Rollout, error) {
	r, err := s.cfg.Store.Rollout(ctx, id)
	if denied := s.check(ctx, caller, action, id, r.Spec); denied != nil {
		return Rollout{}, denied
	}
	if errors.Is(err, ErrNotFound) {
		return Rollout{}, fault.New(fault.NotFound, "rollout.unknown", fmt.Sprintf("no rollout %q", id), "see `hallmark rollout list`")
	}
	return r, err
}

// maxSteps bounds the decisions of one Tick for one rollout: a wave is at most five, so this is never met unless Plan is wrong.
const maxSteps = 64

// Tick does what is to be done at now, for every rollout. It may be called at any time, by one process, and again after a crash:
// what was done is not done twice. One rollout's error does not hold up the others.
func (s *Service) Tick(ctx context.Context, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	open, err := s.cfg.Store.Rollouts(ctx, nil, true, "", 0)
	if err != nil {
		return err
	}
	s.ears.hear(now, s.cfg.Contact)
	s.seen.forget(open)
	var errs []error
	for _, r := range open {
		if err := s.advance(ctx, now.UTC(), r); err != nil {
			errs = append(errs, fmt.Errorf("rollout %s: %w", r.Spec.ID, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Service) advance(ctx context.Context, now time.Time, r Rollout) error {
	if r.Phase == Created || r.Phase.Ended() {
		return nil
	}
	if len(r.Spec.Release) != 32 {
		return fmt.Errorf("release digest of %d bytes", len(r.Spec.Release))
	}
	bad, err := s.cfg.Releases.Find(ctx, [32]byte(r.Spec.Release))
	if err != nil {
		return err
	}
	manifest, err := s.waysBack(ctx, bad.Manifest)
	if err != nil {
		return err
	}
	for range maxSteps {
		begun := time.Now()
		from, to := r.watched()
		snap, err := s.cfg.Store.RolloutSnapshot(ctx, r.Spec.ID, from, to)
		if err != nil {
			return err
		}
		s.seen.keep(r.Spec.ID, from, to, snap, time.Since(begun))
		todo := Plan(s.moment(now), r, manifest, snap)
		if (r.Phase == Running || r.Phase == Paused) && bad.Status != release.Published {
			todo = []Decision{{Kind: Halt, Wave: r.Wave, Reason: fmt.Sprintf("release %s is %s", bad.Manifest.ID, bad.Status)}}
		}
		if len(todo) == 0 {
			return nil
		}
		sent := false
		for _, d := range todo {
			if r, err = s.do(ctx, now, r, d); err != nil {
				return err
			}
			sent = sent || d.Kind == SendBack
		}
		if sent || r.Phase.Ended() {
			return nil // what was sent is seen at the next Tick
		}
	}
	return errors.New("the plan does not come to rest")
}

// do carries out one decision. Commands are issued before the state says so: whether one was is read from the commands.
func (s *Service) do(ctx context.Context, now time.Time, r Rollout, d Decision) (Rollout, error) {
	command := ""
	var err error
	switch d.Kind {
	case StartWave:
		command, err = s.install(ctx, r, d)
	case SendBack:
		return r, s.sendBack(ctx, r, d) // the next snapshot shows it
	case AskProof:
		_, err = s.cfg.Devices.Command(ctx, system(), device.Instruction{
			Product: r.Spec.Product, Act: wire.ActAttest, Devices: d.Devices, Rollout: r.Spec.ID, Wave: uint(d.Wave), Reason: d.Reason,
			Valid: max(time.Second, s.moment(now).contact(r.Spec.Waves[r.Waves[r.Wave-1].Rule])), Cause: s.cause(ctx, r),
			Once: fmt.Sprintf("rollout/%s/%d/attest/%d", r.Spec.ID, d.Wave, r.Waves[r.Wave-1].SoakFrom.UnixMilli()),
		})
	case Cancel, CancelBack:
		err = s.cfg.Devices.CancelCommand(ctx, system(), d.Command, d.Reason)
		if fault.KindOf(err) == fault.Conflict {
			err = nil // cancelled before a crash
		}
	default:
	}
	if err != nil || d.Kind == CancelBack { // the command tells of it
		return r, err
	}
	next := Apply(now, r, d, command)
	var facts []ledger.Fact
	if kind, ok := factOf[d.Kind]; ok {
		f, err := fact(kind, now, system().ID, r.Spec.ID, s.cause(ctx, r), factData(r, d, command))
		if err != nil {
			return r, err
		}
		next.UID = f.UID
		facts = append(facts, f)
	}
	if err := s.cfg.Store.SaveRollout(ctx, next, facts...); err != nil {
		return r, err
	}
	next.Rev++
	return next, nil
}

// install issues the wave's command, unless it was issued before a crash. It is good until the deadline only: a device that
// comes later is a failure already, and must not change under an operator who was told so.
func (s *Service) install(ctx context.Context, r Rollout, d Decision) (string, error) {
	if d.Command != "" {
		return d.Command, nil
	}
	return s.cfg.Devices.Command(ctx, system(), device.Instruction{
		Product: r.Spec.Product, Act: wire.ActInstall, Devices: d.Devices, Release: r.Spec.Release, Rollout: r.Spec.ID, Wave: uint(d.Wave),
		Valid: r.Spec.Waves[r.Waves[r.Wave-1].Rule].Deadline.D(), Reason: r.Spec.Reason, Cause: s.cause(ctx, r),
		Once: fmt.Sprintf("rollout/%s/%d/install", r.Spec.ID, d.Wave),
	})
}

// sendBack tells devices to go back. They are its name: a node that was cut off, and sees what its successor saw, tells nobody twice.
func (s *Service) sendBack(ctx context.Context, r Rollout, d Decision) error {
	set, err := wire.SetOf(d.Devices)
	if err != nil {
		return err
	}
	_, err = s.cfg.Devices.Command(ctx, system(), device.Instruction{
		Product: r.Spec.Product, Act: wire.ActRollback, Devices: d.Devices, Release: d.Release, Rollout: r.Spec.ID, Wave: uint(d.Wave),
		Reason: d.Reason, Cause: s.cause(ctx, r), Once: fmt.Sprintf("rollout/%s/back/%x/%x", r.Spec.ID, d.Release, set.Root),
	})
	return err
}

// waysBack is the manifest with the ways back that are open: a release that was withdrawn is handed out to nobody, whoever allowed it.
func (s *Service) waysBack(ctx context.Context, m wire.Release) (wire.Release, error) {
	var open [][]byte
	for _, d := range m.RollbackTo {
		to, err := s.cfg.Releases.Find(ctx, [32]byte(d))
		if err != nil && fault.KindOf(err) != fault.NotFound {
			return m, err
		}
		if err == nil && to.Status == release.Published {
			open = append(open, d)
		}
	}
	m.RollbackTo = open
	return m, nil
}

func system() access.Caller { return access.Internal("rollout") }

// factOf gives the kind of fact of a decision; the others are no decisions about devices, or have their fact in the command.
var factOf = map[Kind]ledger.Kind{
	StartWave:   ledger.KindWaveStarted,
	PassWave:    ledger.KindWaveSucceeded,
	Complete:    ledger.KindRolloutCompleted,
	Halt:        ledger.KindRolloutHalted,
	EndRollback: ledger.KindRolloutRolledBack,
}

// maxNamed bounds the devices a fact names.
const maxNamed = 100

func factData(r Rollout, d Decision, command string) any {
	out := struct {
		Rollout string   `json:"rollout"`
		Wave    int      `json:"wave"`
		Release string   `json:"release"`
		Command string   `json:"command,omitempty"`
		Reason  string   `json:"reason,omitempty"`
		Counts  Counts   `json:"counts"`
		Failed  []string `json:"failed,omitempty"`
	}{Rollout: r.Spec.ID, Wave: d.Wave, Release: hex.EncodeToString(r.Spec.Release), Command: command, Reason: d.Reason, Counts: d.Counts}
	if d.Kind == Halt {
		out.Failed = d.Devices[:min(len(d.Devices), maxNamed)]
	}
	return out
}

func fact(kind ledger.Kind, at time.Time, actor, subject string, cause *ledger.Ref, data any) (ledger.Fact, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return ledger.Fact{}, fmt.Errorf("fact %s: %w", kind, err)
	}
	return ledger.New(ledger.Control, kind, at, actor, subject, cause, b), nil
}

// cause gives the place of the rollout's latest fact. One that is not sequenced yet, or cannot be found, is left out: what is
// decided does not wait for it.
func (s *Service) cause(ctx context.Context, r Rollout) *ledger.Ref {
	if r.UID == ([16]byte{}) {
		return nil
	}
	ref, ok, err := s.cfg.Ledger.Locate(ctx, r.UID)
	if err != nil || !ok {
		return nil
	}
	return &ref
}
