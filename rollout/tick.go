package rollout

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/window"
)

const (
	maxSteps = 1024 // of one Tick for one rollout: a wave is some ten, and two for each tranche, so this is never met unless Decide is wrong
	maxOwed  = 5000 // devices that are looked at in one go
	lateFor  = 7 * 24 * time.Hour
)

// Tick does what is to be done at now, for every rollout. It may be called at any time, by one process, and again after a crash:
// what was done is not done twice. One rollout's error does not hold up the others.
func (s *Service) Tick(ctx context.Context, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	open, err := s.cfg.Store.Rollouts(ctx, nil, true, "", 0)
	if err != nil {
		return err
	}
	now = now.UTC()
	if open, err = s.listen(ctx, now, open); err != nil {
		return err
	}
	if now.Sub(s.tidied) >= tidyEvery {
		if err := s.cfg.Store.FreeEnded(ctx); err != nil {
			return err
		}
		s.tidied = now
	}
	var errs []error
	for _, r := range open {
		if r.Phase == Created {
			continue
		}
		r, err := s.giveWay(ctx, now, r, open)
		if err == nil {
			r, err = s.advance(ctx, now, r)
		}
		if err := errors.Join(err, s.note(ctx, now, r), s.alarm(ctx, now, r, err)); err != nil {
			errs = append(errs, fmt.Errorf("rollout %s: %w", r.Spec.ID, err))
		}
	}
	return errors.Join(errs...)
}

// advance does what is to be done for a rollout, and gives it as it is then.
func (s *Service) advance(ctx context.Context, now time.Time, r Rollout) (Rollout, error) {
	if len(r.Spec.Release) != 32 {
		return r, fmt.Errorf("release digest of %d bytes", len(r.Spec.Release))
	}
	if r.Wave < 1 || r.Wave > len(r.Waves) {
		return r, fmt.Errorf("it is %s in wave %d of %d", r.Phase, r.Wave, len(r.Waves))
	}
	bad, err := s.cfg.Releases.Find(ctx, [32]byte(r.Spec.Release))
	if err != nil {
		return r, err
	}
	backs, err := s.allBack(ctx, r, bad.Manifest)
	if err != nil {
		return r, err
	}
	if err := s.release(ctx, now, r, bad.Manifest); err != nil {
		return r, err
	}
	if r, err = s.join(ctx, now, r, bad.Manifest); err != nil {
		return r, err
	}
	for range maxSteps {
		if err := s.look(ctx, now, r, backs); err != nil {
			return r, err
		}
		t, err := s.cfg.Store.Tally(ctx, r.Spec.ID)
		if err != nil {
			return r, err
		}
		todo := Decide(s.moment(now), r, t)
		if (r.Phase == Running || r.Phase == Paused) && bad.Status != release.Published {
			todo = []Decision{{Kind: Halt, Wave: r.Wave, Reason: fmt.Sprintf("release %s is %s", bad.Manifest.ID, bad.Status)}}
		}
		if len(todo) == 0 {
			return r, nil
		}
		for _, d := range todo {
			if r, err = s.do(ctx, now, r, d, step{bad.Manifest, backs}); err != nil {
				return r, err
			}
		}
		if r.Phase.Ended() {
			return r, nil
		}
	}
	return r, errors.New("the plan does not come to rest")
}

// freeEvery is how often it is looked whether devices that others had are free, and tidyEvery whether a rollout that has ended has any still.
const (
	freeEvery = 10 * time.Second
	tidyEvery = 10 * time.Minute
)

// release takes those that another rollout had, and has no more, into the wave under way; when that soaks already, into the next. It looks at them
// as it did when their wave began: who cannot take the release any more is in no wave. Nobody waits for them, unless a wave has nobody else: two rollouts
// that do would wait for each other.
func (s *Service) release(ctx context.Context, now time.Time, r Rollout, m wire.Release) error {
	w := r.Waves[r.Wave-1]
	wave := r.Wave
	if !w.SoakFrom.IsZero() || !w.Succeeded.IsZero() {
		wave++
	}
	if r.Phase != Running || !w.taken() || wave > len(r.Waves) || now.Sub(s.freed[r.Spec.ID]) < freeEvery {
		return nil
	}
	t, err := s.cfg.Store.Tally(ctx, r.Spec.ID)
	if err != nil || t.Counts(1, r.Wave).Held == 0 {
		return err
	}
	s.freed[r.Spec.ID] = now
	free, err := s.cfg.Store.Freed(ctx, r.Spec.ID, maxOwed)
	if err != nil || len(free) == 0 {
		return err
	}
	sel := r.Spec.Selection.among(free)
	var fit []Member
	fits := s.fitting(ctx, r.Spec, m)
	if err := s.cfg.Store.Candidates(ctx, r.Spec.Product, sel, "", nil, func(c Candidate) error {
		f, err := fits(c)
		if err == nil && f.why == "" && (len(r.Spec.Selection.IDs) > 0 || c.State == r.Spec.Selection.state()) {
			fit = append(fit, Member{Device: c.ID, Wave: wave, Previous: c.Release})
		}
		return err
	}); err != nil {
		return err
	}
	if room := r.Waves[wave-1].places(t.Counts(wave, wave)); len(fit) > room { // the others wait for the next, as whom another has
		full := map[string]bool{}
		for _, m := range fit[room:] {
			full[m.Device] = true
		}
		fit, free = fit[:room], slices.DeleteFunc(free, func(id string) bool { return full[id] })
	}
	return s.cfg.Store.FreeDevices(ctx, r, fit, free)
}

// look marks the devices that are to be looked at, as they are now.
func (s *Service) look(ctx context.Context, now time.Time, r Rollout, backs Ways) error {
	m := s.moment(now)
	from, to := r.watched()
	for {
		owed, err := s.cfg.Store.Owed(ctx, r, from, to, now, maxOwed)
		if err != nil || len(owed) == 0 {
			return err
		}
		marks := make([]Marking, len(owed))
		for i, st := range owed {
			mark, _ := MarkOf(m, r, backs, st)
			marks[i] = Marking{Device: st.Device, Stirs: st.Stirs, Was: st.Mark, Now: mark, Turn: r.Turns, Due: DueOf(m, r, st), At: now}
			if at := st.Install.Standing; mark == Missed && (at == device.Pending || at == device.Delivered) {
				marks[i].Late = st.Install.Command
			}
			marks[i].Free = mark == Gone && st.Strayed && st.Install.Standing == "" // who was told stays, should it come back
		}
		if err := s.cfg.Store.PutMarks(ctx, r.Spec.ID, marks); err != nil || len(owed) < maxOwed {
			return err
		}
	}
}

// step is what decisions are carried out with.
type step struct {
	release wire.Release // that is rolled out
	backs   Ways         // of all that was told
}

// do carries out one decision. Whom a command is for is kept before it is issued, and that it was, after: between them it may be issued again, by
// its name, which does nothing.
func (s *Service) do(ctx context.Context, now time.Time, r Rollout, d Decision, with step) (Rollout, error) {
	var err error
	switch d.Kind {
	case StartWave, NextTranche:
		return s.tell(ctx, now, r, d, with.release)
	case SendBack:
		return s.sendBack(ctx, now, r, d, with.backs)
	case TakeWave:
		if r, err = s.take(ctx, r, with.release); err == nil {
			var t Tally
			t, err = s.cfg.Store.Tally(ctx, r.Spec.ID)
			d.Counts = t.Counts(r.Wave, r.Wave)
			d.N = d.Counts.Devices
		}
	case Issue:
		err = s.issue(ctx, r, d)
	case AskProof:
		err = s.askProof(ctx, now, r, d)
	case Settle:
		err = s.settle(ctx, r)
	case Cancel:
		for _, w := range r.Waves[:r.Wave] {
			if !w.Cancelled && err == nil {
				err = s.cancel(ctx, w.Tranches, d.Reason)
			}
		}
	case CancelBacks:
		return r, s.cancel(ctx, r.Backs, d.Reason) // the commands tell of it
	default:
	}
	if err != nil {
		return r, err
	}
	next := Apply(now, r, d)
	facts, err := s.factsOf(ctx, now, r, &next, d, Tranche{})
	if err != nil {
		return r, err
	}
	if err := s.cfg.Store.SaveRollout(ctx, next, facts...); err != nil {
		return r, err
	}
	next.Rev++
	return next, nil
}

func (s *Service) factsOf(ctx context.Context, now time.Time, r Rollout, next *Rollout, d Decision, told Tranche) ([]ledger.Fact, error) {
	kind, ok := factOf[d.Kind]
	if !ok {
		return nil, nil
	}
	data, err := s.factData(ctx, r, d, told)
	if err != nil {
		return nil, err
	}
	f, err := fact(kind, now, system().ID, r.Spec.ID, s.cause(ctx, r), data)
	if err != nil {
		return nil, err
	}
	next.UID = f.UID
	return []ledger.Fact{f}, nil
}

// take finds the devices of the wave that begins: by rank, those that can take the release now. Those that it has no room for are the next one's.
func (s *Service) take(ctx context.Context, r Rollout, m wire.Release) (Rollout, error) {
	t, err := s.cfg.Store.Tally(ctx, r.Spec.ID)
	if err != nil {
		return r, err
	}
	w, from := r.Waves[r.Wave-1], int64(math.MinInt64)
	if r.Wave > 1 {
		from = r.Waves[r.Wave-2].Below
	}
	ranks, fits := rankingOf(r.Spec), s.fitting(ctx, r.Spec, m)
	within := func(id string) bool {
		rank := ranks.of(id)
		return rank >= from && (rank < w.Below || w.Below == math.MaxInt64)
	}
	some := lowest{most: w.room(t.Counts(r.Wave, r.Wave)), below: w.Below}
	put := func(least int) error {
		for len(some.members) >= least {
			n := min(maxOwed, len(some.members))
			if err := s.cfg.Store.TakeDevices(ctx, r, some.members[:n]); err != nil {
				return err
			}
			some.members = append(some.members[:0], some.members[n:]...)
		}
		return nil
	}
	err = s.cfg.Store.Candidates(ctx, r.Spec.Product, r.Spec.Selection, r.Spec.Selection.state(), within, func(c Candidate) error {
		if c.Busy == r.Spec.ID {
			return nil // it is in already
		}
		if f, err := fits(c); err != nil || f.why != "" {
			return err
		}
		some.add(Member{Device: c.ID, Wave: r.Wave, Previous: c.Release, Rank: ranks.of(c.ID)})
		if some.most < math.MaxInt {
			return nil // who is among the lowest is known at the end
		}
		return put(maxOwed)
	})
	if err != nil {
		return r, err
	}
	r.Waves = slices.Clone(r.Waves)
	r.Waves[r.Wave-1].Below = some.bound()
	return r, put(1)
}

// tell decides who is in the next tranche. Who has no way to the release any more is in one that nobody is told by.
func (s *Service) tell(ctx context.Context, now time.Time, r Rollout, d Decision, m wire.Release) (Rollout, error) {
	queued, err := s.cfg.Store.Waiting(ctx, r.Spec.ID, r.Wave, d.N)
	if err != nil {
		return r, err
	}
	if len(queued) == 0 {
		return r, fmt.Errorf("%d devices of wave %d are to be told, and none of them waits for it: %w", d.N, r.Wave, ErrChanged)
	}
	who, t, err := s.next(ctx, r, m, queued)
	if err != nil {
		return r, err
	}
	who, kept, err := s.together(ctx, r.Spec, who)
	if err != nil {
		return r, err
	}
	t.Kept = kept
	t.Command, t.Devices, t.At, t.Issued = device.OnceID(installOnce(r, len(r.Waves[r.Wave-1].Tranches))), len(who), now, t.Lost != ""
	return s.put(ctx, now, r, d, t, r.Wave, who)
}

// together gives those of the devices that keep to as much themselves as the first: one command is told to all of a tranche. The others are in the next.
func (s *Service) together(ctx context.Context, spec Spec, all []string) (some, kept []string, err error) {
	if spec.Window == nil && spec.Manner == wire.Forced {
		return all, nil, nil
	}
	keeps := make(map[string][]string, len(all))
	err = s.cfg.Store.Candidates(ctx, spec.Product, Selection{IDs: all}, "", nil, func(c Candidate) error {
		keeps[c.ID] = spec.keeps(c)
		return nil
	})
	kept = keeps[all[0]]
	return slices.DeleteFunc(all, func(id string) bool { return !slices.Equal(keeps[id], kept) }), kept, err
}

// installOnce names the command of a tranche of the wave.
func installOnce(r Rollout, i int) string {
	wave := strconv.Itoa(r.Wave)
	if r.Joined > 0 {
		wave += "." + strconv.Itoa(r.Joined)
	}
	name := fmt.Sprintf("rollout/%s/%s/install", r.Spec.ID, wave)
	if i > 0 {
		name += fmt.Sprintf("/%d", i+1)
	}
	return name
}

func (s *Service) put(ctx context.Context, now time.Time, r Rollout, d Decision, t Tranche, wave int, who []string) (Rollout, error) {
	next := Apply(now, r, d, t)
	facts, err := s.factsOf(ctx, now, r, &next, d, t)
	if err != nil {
		return r, err
	}
	due := now
	if t.Lost == "" {
		due = now.Add(r.Spec.Waves[r.Waves[r.Wave-1].Rule].Deadline.D())
	}
	if err := s.cfg.Store.TellDevices(ctx, next, wave, who, due, facts...); err != nil {
		return r, err
	}
	next.Rev++
	return next, nil
}

func names(all []Status) []string {
	out := make([]string, len(all))
	for i, st := range all {
		out[i] = st.Device
	}
	return out
}

// sendBack decides who is told to go back, and where to.
func (s *Service) sendBack(ctx context.Context, now time.Time, r Rollout, d Decision, backs Ways) (Rollout, error) {
	all, err := s.cfg.Store.Marked(ctx, r.Spec.ID, 1, r.Wave, []Mark{Returns}, "", MaxTranche)
	if err != nil {
		return r, err
	}
	groups := map[string][]Status{}
	for _, st := range all {
		to, ok := backs.target(r.Spec, st)
		if !ok { // it was withdrawn, since they were looked at
			r.Turns++
			if err := s.cfg.Store.SaveRollout(ctx, r); err != nil {
				return r, err
			}
			r.Rev++
			return r, nil
		}
		groups[string(to)] = append(groups[string(to)], st)
	}
	for to, who := range groups {
		t := Tranche{Command: device.OnceID(backOnce(r, len(r.Backs))), Release: []byte(to), Devices: len(who), At: now}
		if r, err = s.put(ctx, now, r, d, t, 0, names(who)); err != nil {
			return r, err
		}
	}
	return r, nil
}

func backOnce(r Rollout, i int) string { return fmt.Sprintf("rollout/%s/back/%d", r.Spec.ID, i+1) }

// issue commands what was decided. An install is good for a week beyond its deadline, so that time in which nobody listened can be made up for: who
// is too late for it is told no more.
func (s *Service) issue(ctx context.Context, r Rollout, d Decision) error {
	w := r.Waves[r.Wave-1]
	if n := len(w.Tranches); r.Halted.IsZero() && n > 0 && !w.Tranches[n-1].Issued {
		valid := r.Spec.Waves[w.Rule].Deadline.D() + lateFor + r.Spec.Grace.D()
		if r.Spec.Window != nil {
			valid += window.Longest
		}
		return s.command(ctx, r, w.Tranches[n-1].Command, device.Instruction{
			Act: wire.ActInstall, Release: r.Brings(w.Tranches[n-1]), Wave: uint(d.Wave), Valid: valid, Hours: r.Spec.Window, Alone: r.Spec.Alone, Reason: r.Spec.Reason,
			Manner: r.Spec.Manner, Grace: r.Spec.Grace.D(), Kept: w.Tranches[n-1].Kept, Once: installOnce(r, n-1),
		})
	}
	for i, b := range r.Backs {
		if b.Issued {
			continue
		}
		if err := s.command(ctx, r, b.Command, device.Instruction{
			Act: wire.ActRollback, Release: b.Release, Wave: uint(d.Wave), Reason: d.Reason, Once: backOnce(r, i),
		}); err != nil {
			return err
		}
	}
	return nil
}

// command issues a command to those that it was decided for; who has ended meanwhile is left out.
func (s *Service) command(ctx context.Context, r Rollout, id string, in device.Instruction) error {
	var err error
	in.Product, in.Rollout, in.Cause = r.Spec.Product, r.Spec.ID, s.cause(ctx, r)
	if in.Devices, err = s.cfg.Store.ToldDevices(ctx, r.Spec.ID, id, in.Act == wire.ActRollback); err != nil || len(in.Devices) == 0 {
		return err
	}
	by := system()
	if in.Act == wire.ActInstall { // who leaves before the command is stored is not told by it: it is not, and is composed again
		by.Scope = []string{access.Join(r.Spec.Product, r.Spec.Selection.Group)}
	}
	_, err = s.cfg.Devices.Command(ctx, by, in)
	return err
}

// askProof has devices attest that were good when the soak began. It asks some of them twice after a crash, which does no harm: a command is named by
// the devices that it is for, as others may have to prove it then.
func (s *Service) askProof(ctx context.Context, now time.Time, r Rollout, d Decision) error {
	w := r.Waves[r.Wave-1]
	for after := ""; ; {
		some, err := s.cfg.Store.Marked(ctx, r.Spec.ID, r.Wave, r.Wave, []Mark{Proving}, after, MaxTranche)
		if err != nil || len(some) == 0 {
			return err
		}
		if _, err := s.cfg.Devices.Command(ctx, system(), device.Instruction{
			Product: r.Spec.Product, Act: wire.ActAttest, Devices: names(some), Rollout: r.Spec.ID, Wave: uint(d.Wave), Reason: d.Reason,
			Valid: max(time.Second, s.moment(now).contact(r.Spec.Waves[w.Rule])), Cause: s.cause(ctx, r),
			Once: fmt.Sprintf("rollout/%s/%d/attest/%d/%x", r.Spec.ID, d.Wave, w.SoakFrom.UnixMilli(), sha256.Sum256([]byte(strings.Join(names(some), "\x00")))),
		}); err != nil {
			return err
		}
		after = some[len(some)-1].Device
	}
}

// cancel ends commands. One that was decided and never issued, or was cancelled before a crash, is no trouble.
func (s *Service) cancel(ctx context.Context, all []Tranche, reason string) error {
	for _, t := range all {
		err := s.cfg.Devices.CancelCommand(ctx, system(), t.Command, reason)
		if k := fault.KindOf(err); err != nil && k != fault.Conflict && k != fault.NotFound {
			return err
		}
	}
	return nil
}
