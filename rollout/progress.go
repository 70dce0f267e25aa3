package rollout

import (
	"context"
	"time"

	"github.com/hallmark-iot/hallmark/access"
)

// Point is how a rollout stood from a step of its time on, until the next point.
type Point struct {
	At     time.Time `json:"at" doc:"when the step began: of 5 seconds in the first ten minutes, of a minute on the first day, of an hour in 60 days, of a day then"`
	Counts Counts    `json:"counts" doc:"of all waves that have begun"`
}

// Told is how many devices have been told.
func (c Counts) Told() int { return c.Devices - c.Untold }

// progressEvery is how often it is looked at the soonest whether a rollout stands as it did.
const progressEvery = 5 * time.Second

// noted is what was written last of a rollout's progress.
type noted struct {
	at     time.Time
	counts Counts
}

// since gives the step of a rollout's time that a moment is in. Steps are counted from its start and grow with its age: one that is open for years has no more points than a page can show. Each
// length is a part of the next one, so that a step that is longer begins behind those before.
func since(started, now time.Time) time.Time {
	const day = 24 * time.Hour
	step, age := day, now.Sub(started)
	switch {
	case age < 10*time.Minute:
		step = progressEvery
	case age < day:
		step = time.Minute
	case age < 60*day:
		step = time.Hour
	}
	return started.Add(max(age, 0).Truncate(step))
}

// note writes how a rollout stands, when that has changed. What it says last is how it ended.
func (s *Service) note(ctx context.Context, now time.Time, r Rollout) error {
	was, known := s.noted[r.Spec.ID]
	if known && !r.Phase.Ended() && now.Sub(was.at) < progressEvery {
		return nil
	}
	t, err := s.cfg.Store.Tally(ctx, r.Spec.ID)
	if err != nil {
		return err
	}
	counts := t.Counts(1, r.Wave)
	if !known || counts != was.counts {
		if err := s.cfg.Store.PutPoint(ctx, r.Spec.ID, Point{At: since(r.Started.Truncate(time.Second), now), Counts: counts}); err != nil {
			return err
		}
	}
	if s.noted[r.Spec.ID] = (noted{now, counts}); r.Phase.Ended() {
		delete(s.noted, r.Spec.ID)
	}
	return nil
}

// Progress gives how a rollout stood over time, the oldest first.
func (s *Service) Progress(ctx context.Context, caller access.Caller, id string) ([]Point, error) {
	if _, err := s.open(ctx, caller, access.RolloutRead, id); err != nil {
		return nil, err
	}
	return s.cfg.Store.Points(ctx, id)
}
