package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ears knows since when devices are listened to. While the server was away, or could not read what it knows, nobody was heard, which
// says nothing about the devices. Its zero value is ready.
type ears struct {
	mu    sync.Mutex
	since time.Time // guarded by mu
	last  time.Time // guarded by mu
	noted time.Time // when it was last written down; of Tick alone
}

// hear notes that somebody listens at now, and reports whether the silence counts from now on: after a pause longer than a device's silence may be.
func (e *ears) hear(now time.Time, contact time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	anew := e.last.IsZero() || now.Sub(e.last) > contact
	if anew {
		e.since = now
	}
	e.last = now
	return anew
}

func (e *ears) listening() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.since
}

// moment is now, as decisions see it.
func (s *Service) moment(now time.Time) Moment {
	return Moment{Now: now, Since: s.ears.listening(), Contact: s.cfg.Contact}
}

// noteEvery is how often it is written down that somebody listens, while rollouts are under way.
const noteEvery = 10 * time.Second

// listen gives the rollouts that are open with the time that nobody listened, if there was any, added to their deadlines. That somebody does is
// written down when that is done, so that it holds over restarts and between nodes: what a crash interrupts is added once more, and not lost.
func (s *Service) listen(ctx context.Context, now time.Time, open []Rollout) ([]Rollout, error) {
	anew := s.ears.hear(now, s.cfg.Contact)
	if len(open) == 0 || !anew && now.Sub(s.ears.noted) < noteEvery {
		return open, nil
	}
	last, err := s.cfg.Store.Listened(ctx)
	if err != nil {
		return nil, err
	}
	away := now.Sub(last)
	if last.IsZero() || away < s.cfg.Away {
		away = 0
	}
	for i := range open {
		if away == 0 && !anew {
			break
		}
		if open[i], err = s.wasAway(ctx, open[i], Seconds(away/time.Second)); err != nil {
			return nil, err
		}
	}
	s.ears.noted = now
	return open, s.cfg.Store.Listens(ctx, now)
}

// wasAway adds the time to the deadlines of the wave under way, and has all its devices looked at. Somebody may turn the rollout meanwhile.
func (s *Service) wasAway(ctx context.Context, r Rollout, away Seconds) (Rollout, error) {
	for range maxTurned {
		if r.Wave < 1 || r.Wave > len(r.Waves) || r.Phase.Ended() {
			return r, nil
		}
		next := r
		next.Waves = slices.Clone(r.Waves)
		if w := &next.Waves[r.Wave-1]; !w.Started.IsZero() {
			w.Away += away
		}
		next.Turns++
		err := s.cfg.Store.SaveRollout(ctx, next)
		if err == nil {
			next.Rev++
			return next, nil
		}
		if !errors.Is(err, ErrChanged) {
			return r, err
		}
		if r, err = s.cfg.Store.Rollout(ctx, r.Spec.ID); err != nil {
			return r, err
		}
	}
	return r, fmt.Errorf("rollout %s: %w", r.Spec.ID, ErrChanged)
}

// maxTurned is how often a rollout may be turned by others while one thing is done to it.
const maxTurned = 10
