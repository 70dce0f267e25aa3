package rollout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

// Again says when a device that did not show in time is told once more.
type Again struct {
	After Seconds `json:"after_s" doc:"how long after it was told last, at the soonest; then when it is heard of"`
	Times int     `json:"times" doc:"how often at most"`
}

// The bounds of Again.
const (
	MinAgain = time.Minute
	MaxAgain = 1000 // times
)

// checkJoins looks at what the spec says of who joins a rollout of a release with a security counter.
func (s Spec) checkJoins(counter uint32) error {
	switch a := s.Again; {
	case s.Dynamic && len(s.Selection.IDs) > 0:
		return bad("dynamic", "devices that are named one by one are not joined by others", "select all, a group, a state or a query")
	case s.Dynamic && len(s.Waves) > 0 && s.Waves[len(s.Waves)-1].Size > 0:
		return bad("waves", fmt.Sprintf("the last wave of a dynamic rollout takes %d devices", s.Waves[len(s.Waves)-1].Size), "let the last take the rest: devices join it that come to fit later")
	case s.Below > counter:
		return bad("below", fmt.Sprintf("devices below security counter %d would be brought to %d, and be below it still", s.Below, counter),
			fmt.Sprintf("give at most %d, or a release with a higher counter", counter))
	case a == nil:
	case !s.Dynamic:
		return bad("again", "only a dynamic rollout goes on when its waves have passed, and tells devices again", "make it dynamic, or leave it out")
	case a.After.D() < MinAgain || a.Times < 1 || a.Times > MaxAgain:
		return bad("again", fmt.Sprintf("%s after, %d times", a.After.Text(), a.Times), fmt.Sprintf("give %s or more, and 1 to %d times", Seconds(MinAgain/time.Second).Text(), MaxAgain))
	}
	return nil
}

// Text says it as people do.
func (a *Again) Text() string {
	return fmt.Sprintf("who does not show in time is told again when it is heard of, %s after it was told at the soonest, %d times at most", a.After.Text(), a.Times)
}

// againEvery is how often it is looked who is back of those that did not show: they may be many, and few are back at a time.
const againEvery = 10 * time.Second

// again takes those into the wave under way that did not show in time, and that are heard of again.
func (s *Service) again(ctx context.Context, now time.Time, r Rollout, m wire.Release) error {
	a := r.Spec.Again
	if a == nil || !r.Waves[r.Wave-1].Open || now.Sub(s.recalled[r.Spec.ID]) < againEvery {
		return nil
	}
	back := Heard{Told: now.Add(-a.After.D()), Since: now.Add(-s.moment(now).contact(r.Spec.Waves[r.Waves[r.Wave-1].Rule]))}
	for after := ""; ; {
		some, err := s.cfg.Store.Missing(ctx, r, &back, after, maxOwed)
		if err == nil && len(some) > 0 {
			err = errors.Join(s.cameByItself(ctx, now, r, m, some), s.recall(ctx, now, r, m, names(some)))
		}
		if err != nil || len(some) < maxOwed {
			s.recalled[r.Spec.ID] = now
			return err
		}
		after = some[len(some)-1].Device
	}
}

// recall takes those of the devices into the wave under way that fit still.
func (s *Service) recall(ctx context.Context, now time.Time, r Rollout, m wire.Release, some []string) error {
	members, err := s.joiners(ctx, r, m, some)
	if err != nil || len(members) == 0 {
		return err
	}
	_, err = s.admit(ctx, now, r, members)
	return err
}

// cameByItself marks those that are not to be told again: they run the release by now, and have proven it, or a later one, or their life is over.
func (s *Service) cameByItself(ctx context.Context, now time.Time, r Rollout, m wire.Release, some []Status) error {
	var marks []Marking
	known := s.manifests(ctx)
	for _, st := range some {
		runs, err := known(st.Running)
		if err != nil {
			return err
		}
		mark := Mark("")
		switch {
		case device.Ended(st.State):
			mark = Gone
		case st.Trial:
		case bytes.Equal(st.Running, r.Spec.Release) && st.Health == Healthy && byWord(st):
			mark = Worded
		case bytes.Equal(st.Running, r.Spec.Release) && st.Health == Healthy && wire.Acceptable(st.Verdict) && bytes.Equal(st.Proven, r.Spec.Release):
			mark = Well
		case runs != nil && newer(runs.Version, m.Version):
			mark = Gone
		}
		if mark != "" {
			marks = append(marks, Marking{Device: st.Device, Stirs: st.Stirs, Was: st.Mark, Now: mark, Turn: r.Turns, At: now})
		}
	}
	return s.cfg.Store.PutMarks(ctx, r.Spec.ID, marks)
}

// WillTell reports whether a device that is heard of is about to be told of a release with this security counter or a higher one, by a rollout that tells devices again: what
// would leave it without anything to start waits for that.
func (s *Service) WillTell(ctx context.Context, id string, counter uint32) (bool, error) {
	open, err := s.cfg.Store.Rollouts(ctx, nil, true, "", 0)
	if err != nil {
		return false, err
	}
	for _, r := range open {
		if r.Spec.Again == nil || !r.Joins() || r.Phase != Running {
			continue
		}
		rel, err := s.cfg.Releases.Find(ctx, [32]byte(r.Spec.Release))
		if err != nil {
			return false, err
		}
		if rel.Status != release.Published || rel.Manifest.Counter < counter {
			continue
		}
		if will, err := s.willTell(ctx, r, rel.Manifest, id); err != nil || will {
			return will, err
		}
	}
	return false, nil
}

func (s *Service) willTell(ctx context.Context, r Rollout, m wire.Release, id string) (will bool, err error) {
	st, in, err := s.cfg.Store.Place(ctx, r.Spec.ID, id)
	if err != nil || in && st.Mark == Queued {
		return err == nil, err
	}
	if in && !st.Closed && (st.Mark != Missed || st.Again >= r.Spec.Again.Times) {
		return false, nil // it has been told, and is not told again
	}
	fits, at := s.fitting(ctx, r.Spec, m), r.Spec.Selection.among([]string{id})
	err = s.cfg.Store.Candidates(ctx, r.Spec.Product, at, "", nil, func(c Candidate) error {
		f, err := fits(c)
		will = err == nil && f.why == "" && c.State == r.Spec.Selection.state()
		return err
	})
	return will, err
}

// shown is c without those that did not show.
func (c Counts) shown() Counts {
	c.Devices, c.Failed, c.NoShows = c.Devices-c.NoShows, c.Failed-c.NoShows, 0
	return c
}

// spared says why a device is left out that runs what is not below the rollout's security counter; empty when it is below, or nobody here knows.
func (s Spec) spared(runs *wire.Release) string {
	if s.Below > 0 && runs != nil && runs.Counter >= s.Below {
		return fmt.Sprintf("runs %s with security counter %d, and the rollout is for devices below %d", runs.ID, runs.Counter, s.Below)
	}
	return ""
}

// missing gives who did not show in time, and is not under way.
func (s *Service) missing(ctx context.Context, r Rollout, after string, limit int) ([]DeviceView, error) {
	if r.Spec.Again == nil {
		return nil, nil
	}
	some, err := s.cfg.Store.Missing(ctx, r, nil, after, limit)
	if err != nil {
		return nil, err
	}
	barred, err := s.barred(ctx, r, names(some))
	out := make([]DeviceView, len(some))
	for i, st := range some {
		out[i] = DeviceView{Status: st, Class: st.Mark.Class(), Why: r.awaited(st, barred[st.Device])}
	}
	return out, err
}

// barred says why those of the devices would not be told that the release is not for, or that the rollout does not select any more.
func (s *Service) barred(ctx context.Context, r Rollout, some []string) (map[string]string, error) {
	if !r.Joins() || len(some) == 0 {
		return nil, nil
	}
	rel, err := s.cfg.Releases.Find(ctx, [32]byte(r.Spec.Release))
	if err != nil {
		return nil, err
	}
	why := make(map[string]string, len(some))
	for _, id := range some {
		why[id] = "the rollout does not select it any more"
	}
	fits := s.fitting(ctx, r.Spec, rel.Manifest)
	err = s.cfg.Store.Candidates(ctx, r.Spec.Product, r.Spec.Selection.among(some), "", nil, func(c Candidate) error {
		f, err := fits(c)
		if why[c.ID] = f.why; f.why == "" && c.State != r.Spec.Selection.state() {
			why[c.ID] = "is " + string(c.State)
		}
		return err
	})
	return why, err
}

// awaited says in words what is known of a device that is missing, and that would not be told now for what bars it.
func (r Rollout) awaited(st Status, bar string) string {
	switch {
	case !r.Joins():
		return "did not show in time, and is told no more: nobody joins"
	case st.Again >= r.Spec.Again.Times:
		return fmt.Sprintf("did not show in time, and was told again %d times: it is told no more", st.Again)
	case bar != "":
		return "did not show in time, and is not told again as it is: " + bar
	}
	return "did not show in time; it is told again when it is heard of"
}
