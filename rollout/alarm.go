package rollout

import (
	"context"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/wire/window"
)

// Alarms tells people of rollouts that need them. Telling twice does no harm.
type Alarms interface {
	// Halted says that a rollout was halted.
	Halted(ctx context.Context, r Rollout) error
	// Stuck says that a wave is not decided when it should be, and why; and, with an empty text, that it goes on.
	Stuck(ctx context.Context, r Rollout, text string) error
}

// alarmed is what was told of a rollout by this process.
type alarmed struct {
	halted bool
	stuck  bool
	looked bool // whether it is stuck: what another process said may be over
}

// alarm tells of a rollout that was halted, or that does not get on; err is what kept it from being looked at.
func (s *Service) alarm(ctx context.Context, now time.Time, r Rollout, err error) error {
	if s.cfg.Alarms == nil {
		return nil
	}
	was := s.alarms[r.Spec.ID]
	next := was
	if (r.Phase == Halted || r.Phase == RolledBack) && !was.halted {
		if err := s.cfg.Alarms.Halted(ctx, r); err != nil {
			return err
		}
		next.halted = true
	}
	text := overdue(s.moment(now), r)
	if text != "" && err != nil {
		text += ": " + err.Error()
	}
	next.stuck, next.looked = text != "", true
	if next.stuck != was.stuck || !was.looked {
		if err := s.cfg.Alarms.Stuck(ctx, r, text); err != nil {
			return err
		}
	}
	if s.alarms[r.Spec.ID] = next; r.Phase.Ended() {
		delete(s.alarms, r.Spec.ID)
	}
	return nil
}

// overdue says that the wave under way is not decided in the time that its rules give it, twice over for the soak; empty: it is not overdue.
func overdue(m Moment, r Rollout) string {
	if r.Phase != Running && r.Phase != Halted && r.Phase != Aborting || r.Wave == 0 {
		return ""
	}
	w := r.Waves[r.Wave-1]
	if w.Open && len(w.Tranches) == 0 && r.Phase == Running {
		return "" // who joins is told at once
	}
	rule := r.Spec.Waves[w.Rule]
	from := later(r.Started, r.Halted)
	if r.Wave > 1 {
		from = later(from, r.Waves[r.Wave-2].Succeeded)
	}
	if n := len(w.Tranches); n > 0 {
		from = later(from, w.Tranches[n-1].At)
	}
	if n := len(r.Backs); n > 0 {
		from = later(from, r.Backs[n-1].At)
	}
	if r.Spec.Window != nil {
		from = from.Add(window.Longest)
	}
	by := from.Add(rule.Deadline.D() + w.Away.D() + 2*rule.Soak.D() + 2*m.contact(rule) + time.Hour)
	if m.Now.Before(by) {
		return ""
	}
	return fmt.Sprintf("rollout %s is %s, and nothing has come of wave %d since %s: %d good, %d waited for, %d failed when it was last decided", r.Spec.ID, r.Phase, r.Wave,
		from.UTC().Format(time.RFC3339), r.Last.Good, r.Last.Waiting, r.Last.Failed)
}
