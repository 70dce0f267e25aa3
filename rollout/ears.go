package rollout

import (
	"context"
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
// written down, so that it holds over restarts and between nodes.
func (s *Service) listen(ctx context.Context, now time.Time, open []Rollout) ([]Rollout, error) {
	anew := s.ears.hear(now, s.cfg.Contact)
	if len(open) == 0 || !anew && now.Sub(s.ears.noted) < noteEvery {
		return open, nil
	}
	last, err := s.cfg.Store.Listened(ctx, now)
	if err != nil {
		return nil, err
	}
	s.ears.noted = now
	away := now.Sub(last)
	if last.IsZero() || away < s.cfg.Away {
		away = 0
	}
	if away == 0 && !anew {
		return open, nil
	}
	for i, r := range open {
		if r.Wave == 0 || r.Phase.Ended() {
			continue
		}
		r.Waves = append([]WaveState(nil), r.Waves...)
		if w := &r.Waves[r.Wave-1]; !w.Started.IsZero() {
			w.Away += Seconds(now.Sub(later(last, now.Add(-away))) / time.Second)
		}
		r.Turns++
		if err := s.cfg.Store.SaveRollout(ctx, r); err != nil {
			return nil, err
		}
		r.Rev++
		open[i] = r
	}
	return open, nil
}
