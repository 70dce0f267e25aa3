package rollout

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/access"
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
	Alarms   Alarms           // nil: nobody is told
	Contact  time.Duration    // how long a device may be unheard of, in a wave that does not say; default 15 min
	Away     time.Duration    // a pause between two Ticks from which on nobody is taken to have listened: deadlines are later by it; default 30 s
	Now      func() time.Time // nil: time.Now; for verbs, Tick is given its own
}

// Service is the stage.
type Service struct {
	cfg Config

	mu       sync.Mutex           // held by a Tick: two would both see that a command was not issued yet
	freed    map[string]time.Time // by rollout, when it was looked whether devices that it wants are free; guarded by mu
	joined   map[string]time.Time // by rollout, when it was looked who joins; guarded by mu
	recalled map[string]time.Time // by rollout, when it was looked who is back; guarded by mu
	noted    map[string]noted     // by rollout; guarded by mu
	tidied   time.Time            // when it was looked whether rollouts that have ended have devices still; guarded by mu
	alarms   map[string]alarmed   // by rollout; guarded by mu
	ears     ears
}

// NewService checks cfg and makes the stage.
func NewService(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Releases == nil || cfg.Devices == nil || cfg.Ledger == nil || cfg.Guard == nil {
		return nil, errors.New("rollout: the store, the releases, the devices, the ledger or the guard is missing")
	}
	if cfg.Contact == 0 {
		cfg.Contact = 15 * time.Minute
	}
	if cfg.Away == 0 {
		cfg.Away = 30 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg, freed: map[string]time.Time{}, joined: map[string]time.Time{}, recalled: map[string]time.Time{}, noted: map[string]noted{}, alarms: map[string]alarmed{}}, nil
}

// check asks for the right to a rollout: to the group it is limited to, or to the whole product. One that goes before others, or behind them, is not made by
// one person.
func (s *Service) check(ctx context.Context, caller access.Caller, action access.Action, id string, spec Spec) error {
	return s.cfg.Guard.Check(ctx, caller, action, access.Resource{
		Type: "rollout", ID: id, Product: spec.Product, Group: spec.Selection.Group, Grave: action == access.RolloutCreate && spec.Priority != 0,
	})
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
	res, err := s.resolve(ctx, spec, rel)
	return res.shown(), err
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
	r := Rollout{Spec: spec, Phase: Created, By: caller.ID, Created: now, Stir: Unfollowed, UID: f.UID, Rev: 1}
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

// Start selects the devices, and lets the first wave go at the next Tick. A wave's devices are taken when it begins: those that can take the release
// then.
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
	if r.Stir, err = s.stir(ctx, r.Spec); err != nil { // who changes from here on is looked at
		return Rollout{}, Resolved{}, err
	}
	res, err := s.resolve(ctx, r.Spec, rel)
	if err != nil {
		return Rollout{}, Resolved{}, err
	}
	if err := s.second(ctx, caller, r.Spec, res); err != nil {
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
		Stones  []Detour    `json:"stepping_stones,omitempty"`
	}{id, hex.EncodeToString(r.Spec.Release), res.Set, res.Waves, len(res.Skipped), res.Stones})
	if err != nil {
		return Rollout{}, Resolved{}, err
	}
	f = caller.Tells(f)
	r.UID = f.UID
	if err := s.cfg.Store.SaveRollout(ctx, r, f); err != nil {
		return Rollout{}, Resolved{}, changed(id, err)
	}
	r.Rev++
	return r, res.shown(), nil
}

// Pause lets no further wave go. Devices that were told already go on, and their failures still halt.
func (s *Service) Pause(ctx context.Context, caller access.Caller, id, reason string) (Rollout, error) {
	return s.turn(ctx, caller, id, reason, ledger.KindRolloutPaused, nil, "paused", func(r *Rollout) bool {
		ok := r.Phase == Running
		r.Phase = Paused
		return ok
	})
}

// Resume undoes Pause. Where no wave has its devices yet, it is as Start.
func (s *Service) Resume(ctx context.Context, caller access.Caller, id, reason string) (Rollout, error) {
	if err := s.grown(ctx, caller, id); err != nil {
		return Rollout{}, err
	}
	return s.turn(ctx, caller, id, reason, ledger.KindRolloutResumed, nil, "resumed", func(r *Rollout) bool {
		ok := r.Phase == Paused
		r.Phase = Running
		return ok
	})
}

// Abort ends a rollout where it is: who was not told is not told any more, and nobody is sent back.
func (s *Service) Abort(ctx context.Context, caller access.Caller, id, reason string) (Rollout, error) {
	return s.turn(ctx, caller, id, reason, ledger.KindRolloutAborted, nil, "aborted", func(r *Rollout) bool {
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

// Shut lets no further device join a dynamic rollout: it completes when the waves that there are have.
func (s *Service) Shut(ctx context.Context, caller access.Caller, id, reason string) (Rollout, error) {
	return s.turn(ctx, caller, id, reason, ledger.KindRolloutShut, nil, "shut", func(r *Rollout) bool {
		ok := r.Joins()
		r.Shut, r.Stir = s.cfg.Now().UTC(), Unfollowed
		return ok
	})
}

// Halt does by hand what too many failures do: the wave under way ends, and who confirmed the release, in any wave, is sent back.
func (s *Service) Halt(ctx context.Context, caller access.Caller, id, reason string) (Rollout, error) {
	return s.turn(ctx, caller, id, reason, ledger.KindRolloutHalted, nil, "halted", func(r *Rollout) bool {
		if r.Phase != Running && r.Phase != Paused {
			return false
		}
		r.Phase, r.Halted, r.Reason = Halted, s.cfg.Now().UTC(), reason
		r.Turns++
		return true
	})
}

// turn does something to a rollout that changes its phase, or how it goes; says is what its fact has beside what all such facts have. A rollout under way moves by itself, and who wants it to stop is
// not told to look again for that: it is done to what it is by then.
func (s *Service) turn(ctx context.Context, caller access.Caller, id, reason string, kind ledger.Kind, says map[string]any, what string, do func(*Rollout) bool) (Rollout, error) {
	if len(reason) > 1024 {
		return Rollout{}, fault.New(fault.Invalid, "rollout.reason", "the reason is longer than 1024 bytes", "shorten it")
	}
	for range maxTurned {
		r, err := s.turnOnce(ctx, caller, id, reason, kind, says, what, do)
		if !errors.Is(err, ErrChanged) {
			return r, err
		}
	}
	return Rollout{}, changed(id, ErrChanged)
}

func (s *Service) turnOnce(ctx context.Context, caller access.Caller, id, reason string, kind ledger.Kind, says map[string]any, what string, do func(*Rollout) bool) (Rollout, error) {
	r, err := s.open(ctx, caller, access.RolloutControl, id)
	if err != nil {
		return Rollout{}, err
	}
	was := r
	if !do(&r) {
		return Rollout{}, wrongPhase(was, what)
	}
	data := map[string]any{"rollout": id, "wave": r.Wave, "reason": reason}
	maps.Copy(data, says)
	f, err := fact(kind, s.cfg.Now(), caller.ID, id, s.cause(ctx, r), data)
	if err != nil {
		return Rollout{}, err
	}
	f = caller.Tells(f)
	r.UID = f.UID
	if err := s.cfg.Store.SaveRollout(ctx, r, f); err != nil {
		return Rollout{}, err
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
	Class Class  `json:"class"`
	Why   string `json:"why,omitempty"`
}

// maxShown bounds the devices that come with a rollout.
const maxShown = 1000

// Get gives a rollout and devices of its current wave, of a halted one of all waves that began: those that are not good first, by ID, at most 1000.
func (s *Service) Get(ctx context.Context, caller access.Caller, id string) (Rollout, []DeviceView, error) {
	r, err := s.open(ctx, caller, access.RolloutRead, id)
	if err == nil {
		r, err = s.asOf(ctx, r)
	}
	if err != nil || r.Wave == 0 {
		return r, nil, err
	}
	out, err := s.views(ctx, r, notGood, "", maxShown)
	if err == nil && len(out) < maxShown {
		var good []DeviceView
		good, err = s.views(ctx, r, []Mark{Well, Worded}, "", maxShown-len(out))
		out = append(out, good...)
	}
	return r, out, err
}

// notGood are all marks but that of who is good.
var notGood = []Mark{Queued, Held, Awaited, Proving, Erred, Missed, Waived, Gone, Settled, Returned, Returns, Moving, Stranded}

// Which says which devices of a wave are asked for.
type Which string

// Of a wave.
const (
	Everyone Which = ""       // all of them
	Stuck    Which = "stuck"  // those that are not good
	Bad      Which = "failed" // those that failed; after a halt, those that do not run the release or stay with it

	// Missing are, of a rollout that tells devices again, those of any wave that did not show in time and are not under way.
	Missing Which = "missing"
)

func (w Which) marks() []Mark {
	switch w {
	case Stuck:
		return notGood
	case Bad:
		return []Mark{Erred, Missed, Settled, Stranded}
	case Everyone, Missing:
	}
	return nil
}

// Devices pages through the devices that Get gives, by ID, from behind one on.
func (s *Service) Devices(ctx context.Context, caller access.Caller, id string, which Which, after string, limit int) ([]DeviceView, error) {
	r, err := s.open(ctx, caller, access.RolloutRead, id)
	if err != nil || r.Wave == 0 {
		return nil, err
	}
	if which == Missing {
		return s.missing(ctx, r, after, limit)
	}
	return s.views(ctx, r, which.marks(), after, limit)
}

// asOf counts the devices of the waves that decisions look at, as they were last looked at. After a halt those that failed stay what halted it, and who is
// sent back is counted; of what has ended it is all as it was decided.
func (s *Service) asOf(ctx context.Context, r Rollout) (Rollout, error) {
	if r.Wave == 0 || !r.Ended.IsZero() && r.Spec.Again == nil {
		return r, nil
	}
	t, err := s.cfg.Store.Tally(ctx, r.Spec.ID)
	if err != nil {
		return r, err
	}
	if r.Spec.Again != nil && r.Waves[r.Wave-1].Open {
		r.Missing = t.Counts(1, r.Wave-1).NoShows
	}
	if !r.Ended.IsZero() {
		return r, nil
	}
	now := t.Counts(r.watched())
	if !r.Halted.IsZero() {
		back := now
		now = r.Last
		now.Returned, now.Stranded, now.Unknown = back.Returned, back.Stranded, back.Unknown
	}
	r.Last = now
	return r, nil
}

// afterHalt says of a device of a halted rollout why it is where it is.
var afterHalt = map[Mark]string{
	Settled:  "does not run the release",
	Returned: "went back",
	Returns:  "is to be sent back",
	Moving:   "has not said yet what it runs now",
	Stranded: "runs what it was told, and nothing leads back from it",
}

func (s *Service) views(ctx context.Context, r Rollout, marks []Mark, after string, limit int) ([]DeviceView, error) {
	from, to := r.watched()
	snap, err := s.cfg.Store.Marked(ctx, r.Spec.ID, from, to, marks, after, limit)
	if err != nil {
		return nil, err
	}
	m := s.moment(s.cfg.Now())
	out := make([]DeviceView, len(snap))
	for i, st := range snap {
		out[i].Status = st
		if r.Halted.IsZero() {
			out[i].Mark, out[i].Why = gate(m, r, st)
		} else { // what is counted: where it is depends on the ways back, which a tick looks up
			out[i].Why = afterHalt[st.Mark]
		}
		out[i].Class = out[i].Mark.Class()
	}
	return out, nil
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
	all, err := s.cfg.Store.Rollouts(ctx, scope, open, after, limit)
	for i := range all {
		if err == nil {
			all[i], err = s.asOf(ctx, all[i])
		}
	}
	return all, err
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

// waysBack is the manifest with the ways back that are open: a release that was withdrawn is handed out to nobody, whoever allowed it, and one below what is
// installed is taken by nobody.
func (s *Service) waysBack(ctx context.Context, m wire.Release) (wire.Release, error) {
	var open [][]byte
	least, err := s.least(ctx, m.Product)
	if err != nil {
		return m, err
	}
	for _, d := range m.RollbackTo {
		to, err := s.cfg.Releases.Find(ctx, [32]byte(d))
		if err != nil && fault.KindOf(err) != fault.NotFound {
			return m, err
		}
		if err == nil && to.Status == release.Published && to.Manifest.Counter >= least {
			open = append(open, d)
		}
	}
	m.RollbackTo = open
	return m, nil
}

// allBack are the ways back from all that a rollout has told devices.
func (s *Service) allBack(ctx context.Context, r Rollout, m wire.Release) (Ways, error) {
	open, err := s.waysBack(ctx, m)
	out := Ways{string(r.Spec.Release): open}
	for _, w := range r.Waves {
		for _, t := range w.Tranches {
			if _, ok := out[string(t.Release)]; ok || len(t.Release) != sha256.Size || err != nil {
				continue
			}
			var stone release.Release
			if stone, err = s.cfg.Releases.Find(ctx, [32]byte(t.Release)); err == nil {
				out[string(t.Release)], err = s.waysBack(ctx, stone.Manifest)
			}
		}
	}
	return out, err
}

func system() access.Caller { return access.Internal("rollout") }

// factOf gives the kind of fact of a decision; the others are no decisions about devices, or have their fact in the command.
var factOf = map[Kind]ledger.Kind{
	StartWave:   ledger.KindWaveStarted,
	NextTranche: ledger.KindTrancheIssued,
	PassWave:    ledger.KindWaveSucceeded,
	Complete:    ledger.KindRolloutCompleted,
	Halt:        ledger.KindRolloutHalted,
	EndRollback: ledger.KindRolloutRolledBack,
}

// maxNamed bounds the devices a fact names.
const maxNamed = 100

func (s *Service) factData(ctx context.Context, r Rollout, d Decision, told Tranche) (any, error) {
	out := struct {
		Rollout string   `json:"rollout"`
		Wave    int      `json:"wave"`
		Tranche int      `json:"tranche,omitempty"`
		Release string   `json:"release"`
		Command string   `json:"command,omitempty"`
		Kept    []string `json:"kept,omitempty"` // see Tranche
		Reason  string   `json:"reason,omitempty"`
		Counts  Counts   `json:"counts"`
		Failed  []string `json:"failed,omitempty"`
		Stone   string   `json:"stepping_stone,omitempty"` // that the devices are told of first
	}{Rollout: r.Spec.ID, Wave: d.Wave, Release: hex.EncodeToString(r.Spec.Release), Command: told.Command, Kept: told.Kept, Reason: d.Reason, Counts: d.Counts}
	if d.Kind != SendBack {
		out.Stone = hex.EncodeToString(told.Release)
	}
	if told.Lost != "" {
		out.Reason, out.Command = told.Lost, ""
	}
	switch d.Kind {
	case NextTranche:
		out.Tranche = len(r.Waves[r.Wave-1].Tranches) + 1
	case Halt:
		failed, err := s.cfg.Store.Marked(ctx, r.Spec.ID, r.Wave, r.Wave, []Mark{Erred, Missed}, "", maxNamed)
		if err != nil {
			return nil, err
		}
		for _, f := range failed {
			out.Failed = append(out.Failed, f.Device)
		}
	default:
	}
	return out, nil
}

func fact(kind ledger.Kind, at time.Time, actor, subject string, cause *ledger.Ref, data any) (ledger.Fact, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return ledger.Fact{}, fmt.Errorf("fact %s: %w", kind, err)
	}
	return ledger.New(kind, at, actor, subject, cause, b), nil
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
