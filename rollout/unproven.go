package rollout

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sort"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
)

// Unbounded is how many devices a wave tells that takes however many come.
const Unbounded = math.MaxInt32

// unproven gives how many devices a plan tells before it looks whether any of them is good: of its waves, or tranches of them, up to the first that would halt if
// all of it failed. Of a dynamic rollout whose wave takes however many come it is Unbounded.
func unproven(spec Spec, waves []WaveState) int {
	told := 0
	for _, w := range waves {
		rule, of := spec.Waves[w.Rule], w.Devices
		if spec.Dynamic {
			of = Unbounded
			if w.Most > 0 {
				of = w.Most
			}
		}
		n := of
		if step := rule.Tranche; step > 0 {
			n = min(of, step*(1+sort.Search(of/step, func(i int) bool { return rule.halts(step*(1+i), of) })))
		}
		if n > Unbounded-told {
			return Unbounded
		}
		if told += n; rule.halts(n, of) {
			break
		}
	}
	return told
}

// halts reports whether a wave of so many devices halts when n of them were told and have failed, whichever way they did.
func (w Wave) halts(n, of int) bool {
	return w.TooMany(Counts{Devices: of, Failed: n}, Counts{}) != "" && w.TooMany(Counts{Devices: of, Failed: n, NoShows: n}, Counts{}) != ""
}

// second has two people start what would tell more devices unproven than one person may act on, with those of the last hour.
func (s *Service) second(ctx context.Context, caller access.Caller, spec Spec, res Resolved) error {
	grave := res.TakesTwo
	if !grave {
		first := res.Members[:min(res.Unproven, len(res.Members))] // in the order in which they are told
		ids := make([]string, len(first))
		for i, m := range first {
			ids[i] = m.Device
		}
		grave = s.cfg.Guard.Many(caller, ids)
	}
	if !grave {
		return nil
	}
	err := s.cfg.Guard.Check(ctx, caller, access.RolloutControl, access.Resource{Type: "rollout", ID: spec.ID, Product: spec.Product, Group: spec.Selection.Group, Grave: true})
	need, ok := errors.AsType[*access.SecondNeededError](err)
	if !ok {
		return err
	}
	return &access.SecondNeededError{Action: need.Action, Resource: need.Resource, Fault: fault.New(fault.Denied, "access.four-eyes",
		fmt.Sprintf("%s: %s told before it is seen whether any is good, and %d in an hour are what one person may act on", need.Text, many(res.Unproven), access.BulkDevices),
		"begin with a wave of fewer devices, which halts when all of them fail; or propose it, with the reason")}
}

// grown has two people resume what one may not start any more: a rollout that was paused before its first wave was taken, while the fleet grew.
func (s *Service) grown(ctx context.Context, caller access.Caller, id string) error {
	r, err := s.open(ctx, caller, access.RolloutControl, id)
	if err != nil || r.Phase != Paused || r.Wave > 1 || r.Waves[0].taken() {
		return err
	}
	rel, err := s.checkSpec(ctx, r.Spec)
	if err != nil {
		return err
	}
	res, err := s.resolve(ctx, r.Spec, rel)
	if err != nil {
		return err
	}
	return s.second(ctx, caller, r.Spec, res)
}

func many(n int) string {
	if n == Unbounded {
		return "however many devices come are"
	}
	return fmt.Sprintf("%d devices would be", n)
}
