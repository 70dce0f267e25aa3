package rollout

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/window"
)

// Joining says in words who joins a dynamic rollout, and who did.
func Joining(r Rollout) string {
	text := "nobody joins any more"
	switch {
	case r.Joins():
		text = "devices join that come to fit"
	case r.Phase == Created:
		text = "devices will join that come to fit"
	}
	if r.Spec.Again != nil && (r.Joins() || r.Phase == Created) {
		text += "; " + r.Spec.Again.Text()
	}
	if r.Later.Devices > 0 {
		text += fmt.Sprintf("; since the waves have passed, %d did: %d good, %d failed", r.Later.Devices, r.Later.Good, r.Later.Failed)
	}
	if r.Missing > 0 {
		text += fmt.Sprintf("; %d did not show yet", r.Missing)
	}
	return text
}

// joinEvery is how often it is looked who joins.
const joinEvery = time.Second

// join takes devices that came to fit since the wave under way was taken: those of its ranks, and of the ranks before. Who has a later rank is
// taken with its wave, and whoever comes while one soaks, or when its first devices should have shown what they can, waits for the next: a factory that
// never stops would keep a wave from ever passing. Only devices that changed are looked at. Whom the wave has no room for is looked at again, when it has, or with the next.
func (s *Service) join(ctx context.Context, now time.Time, r Rollout, m wire.Release) (Rollout, error) {
	w := r.Waves[r.Wave-1]
	if !r.Joins() || !w.taken() || !w.SoakFrom.IsZero() || !w.Succeeded.IsZero() || w.old(now, r.Spec) || now.Sub(s.joined[r.Spec.ID]) < joinEvery {
		return r, nil
	}
	t, err := s.cfg.Store.Tally(ctx, r.Spec.ID)
	if err != nil {
		return r, err
	}
	for room := w.room(t.Counts(r.Wave, r.Wave)); room > 0; {
		changed, upTo, err := s.cfg.Store.Stirred(ctx, r.Stir, maxOwed)
		if err == nil && len(changed) == 0 {
			err = s.again(ctx, now, r, m)
		}
		if err != nil {
			return r, err
		}
		if len(changed) == 0 {
			break
		}
		members, err := s.joiners(ctx, r, m, changed)
		if err != nil {
			return r, err
		}
		byRank(members)
		for room > 0 && len(members) > room { // who is in already takes no room
			joined, err := s.admit(ctx, now, r, members[:room])
			if err != nil {
				return r, err
			}
			members, room = members[room:], room-joined
		}
		if len(members) > room {
			break
		}
		r.Stir = upTo
		joined, err := s.admit(ctx, now, r, members)
		if err != nil {
			return r, err
		}
		room -= joined
	}
	s.joined[r.Spec.ID] = now
	return r, nil
}

// admit takes members into the wave under way, and keeps r.Stir. It gives how many were not in yet.
func (s *Service) admit(ctx context.Context, now time.Time, r Rollout, members []Member) (n int, err error) {
	err = s.cfg.Store.JoinDevices(ctx, r, members, func(joined []string) (ledger.Fact, error) {
		n = len(joined)
		return s.joinedFact(ctx, now, r, joined)
	})
	return n, err
}

// old reports whether a wave has had the time that its rules give to those who were told first.
func (w WaveState) old(now time.Time, spec Spec) bool {
	if len(w.Tranches) == 0 {
		return false
	}
	due := w.Tranches[0].At.Add(spec.Waves[w.Rule].Deadline.D() + spec.Grace.D())
	if spec.Window != nil {
		due = due.Add(window.Longest)
	}
	return !now.Before(due)
}

func (s *Service) joiners(ctx context.Context, r Rollout, m wire.Release, changed []string) (out []Member, err error) {
	ranks, fits := rankingOf(r.Spec), s.fitting(ctx, r.Spec, m)
	due := func(id string) bool { return r.Waves[r.Wave-1].Open || waveOf(r.Waves, ranks.of(id)) <= r.Wave }
	at := r.Spec.Selection.among(changed)
	err = s.cfg.Store.Candidates(ctx, r.Spec.Product, at, "", due, func(c Candidate) error {
		if c.State != r.Spec.Selection.state() || c.Busy == r.Spec.ID {
			return nil
		}
		if f, err := fits(c); err != nil || f.why != "" {
			return err
		}
		out = append(out, Member{Device: c.ID, Wave: r.Wave, Previous: c.Release, Rank: ranks.of(c.ID)})
		return nil
	})
	return out, err
}

func (s *Service) joinedFact(ctx context.Context, now time.Time, r Rollout, joined []string) (ledger.Fact, error) {
	set, err := wire.SetOf(joined)
	if err != nil {
		return ledger.Fact{}, err
	}
	return fact(ledger.KindRolloutJoined, now, system().ID, r.Spec.ID, s.cause(ctx, r), struct {
		Rollout string         `json:"rollout"`
		Wave    int            `json:"wave"`
		Set     wire.DeviceSet `json:"devices"`
	}{r.Spec.ID, r.Wave, set})
}

// stir gives the change from behind which devices join a rollout that begins.
func (s *Service) stir(ctx context.Context, spec Spec) (int64, error) {
	if !spec.Dynamic {
		return Unfollowed, nil
	}
	return s.cfg.Store.LastStir(ctx)
}

// settle lets go of the devices of the waves that have passed, when who joined later has a wave of its own: another rollout may want them, and a
// halt of that wave is not about them.
func (s *Service) settle(ctx context.Context, r Rollout) error {
	if r.Waves[r.Wave-1].Open {
		return s.cfg.Store.SettleDevices(ctx, r.Spec.ID, r.Wave, r.Wave-1)
	}
	for wave := 1; wave <= r.Wave; wave++ {
		if err := s.cfg.Store.SettleDevices(ctx, r.Spec.ID, wave, wave); err != nil {
			return err
		}
	}
	return nil
}

// giveWay shuts a dynamic rollout when a later one of the same selection is under way: who joins, joins that, or
// nothing when it is not dynamic, as the later release is what the fleet goes to.
func (s *Service) giveWay(ctx context.Context, now time.Time, r Rollout, open []Rollout) (Rollout, error) {
	for _, o := range open {
		if !r.Joins() || o.Phase != Running || !r.Started.Before(o.Started) || !o.Spec.covers(r.Spec) {
			continue
		}
		if all, err := s.reachesAll(ctx, o.Spec, r.Spec); err != nil {
			return r, err
		} else if !all {
			continue
		}
		reason := fmt.Sprintf("rollout %s takes over", o.Spec.ID)
		f, err := fact(ledger.KindRolloutShut, now, system().ID, r.Spec.ID, s.cause(ctx, r), map[string]any{"rollout": r.Spec.ID, "wave": r.Wave, "reason": reason})
		if err != nil {
			return r, err
		}
		next := r
		next.Shut, next.Reason, next.Stir, next.UID = now, reason, Unfollowed, f.UID
		if err := s.cfg.Store.SaveRollout(ctx, next, f); err != nil {
			return r, err
		}
		next.Rev++
		r = next
	}
	return r, nil
}

// reachesAll reports whether all that one rollout can tell can be told by another: whoever the later release is not for would be told by neither.
func (s *Service) reachesAll(ctx context.Context, spec, o Spec) (bool, error) {
	is, err := s.cfg.Releases.Find(ctx, [32]byte(spec.Release))
	if err != nil {
		return false, err
	}
	was, err := s.cfg.Releases.Find(ctx, [32]byte(o.Release))
	return err == nil && spec.reaches(is.Manifest, o, was.Manifest), err
}

// reaches reports whether a release, as a rollout brings it, is for all that another is for, as another brings that: it asks no more of a device (see unfit). What a device's owner
// can change, its settings and its room, is left out.
func (s Spec) reaches(is wire.Release, o Spec, was wire.Release) bool {
	return !slices.ContainsFunc(was.Hardware, func(rev string) bool { return !is.RunsOn(rev) }) &&
		!slices.ContainsFunc(is.Asks(), func(kind string) bool { return !slices.Contains(was.Asks(), kind) }) &&
		is.Counter >= was.Counter && wire.CompareVersions(is.Version, was.Version) >= 0 &&
		(len(is.Over) == 0 || s.Stones || !o.Stones && slices.Equal(is.Over, was.Over)) &&
		(s.Manner != wire.Consent || o.Manner == wire.Consent) &&
		(!is.Sealed() || was.Sealed())
}

// covers reports whether a rollout reaches all that another does: one that waits for those who are away is not done by one that does not.
func (s Spec) covers(o Spec) bool {
	return s.Product == o.Product && s.Selection.covers(o.Selection) && s.Assurance == o.Assurance &&
		(s.Below == 0 || o.Below > 0 && s.Below >= o.Below) && (s.Again != nil || o.Again == nil)
}

// covers reports whether a selection of the same product has all that another has.
func (s Selection) covers(o Selection) bool {
	if len(s.IDs) > 0 || s.Group != o.Group || s.state() != o.state() {
		return false
	}
	if s.Query == nil || o.Query == nil {
		return s.Query == nil
	}
	all, some := *s.Query, *o.Query
	all.State, some.State = "", "" // one that names none means active ones
	return all.Covers(some)
}
