package rollout

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout/solve"
	"github.com/hallmark-iot/hallmark/wire"
)

// A release says over which versions it is installed. A device that runs another is taken over what comes between, when the rollout says so: its way is looked
// for each time that it is told, from what it runs then and by what is published then. Nothing of a way is kept but what a device was told.

// Detour is how many devices are taken over the same versions first.
type Detour struct {
	Over    []string `json:"over" doc:"the versions, in order"`
	Devices int      `json:"devices"`
}

// stones finds the ways of devices to one release.
type stones struct {
	graph solve.Graph
	to    [32]byte
	known map[origin]solve.Way // few, and many devices
}

// origin is what a device's way depends on, as long as nothing of its own is against it.
type origin struct {
	release, version, hardware string
	deltas                     bool
}

func (s *Service) stones(ctx context.Context, product string, to [32]byte) (*stones, error) {
	all, err := s.cfg.Releases.OfProduct(ctx, product)
	if err != nil {
		return nil, err
	}
	least, err := s.least(ctx, product)
	if err != nil {
		return nil, err
	}
	out := &stones{graph: solve.Graph{Least: least}, to: to, known: map[origin]solve.Way{}}
	for _, r := range all {
		shut := ""
		switch {
		case !r.Closed.IsZero():
			shut = "is closed"
		case r.Status != release.Published:
			shut = "is " + string(r.Status)
		}
		out.graph.Releases = append(out.graph.Releases, solve.Release{Release: r.Manifest, Digest: r.Digest, Shut: shut})
	}
	slices.SortFunc(out.graph.Releases, func(a, b solve.Release) int { return wire.CompareVersions(a.Version, b.Version) })
	type pair struct{ from, to [32]byte }
	made := map[pair]map[[32]byte]uint64{}
	out.graph.Deltas = func(from, to [32]byte) (map[[32]byte]uint64, error) {
		if sizes, ok := made[pair{from, to}]; ok {
			return sizes, nil
		}
		forms, err := s.cfg.Releases.Forms(ctx, from, to)
		sizes := map[[32]byte]uint64{}
		for _, f := range forms {
			sizes[[32]byte(f.Component)] = f.Size
		}
		made[pair{from, to}] = sizes
		return sizes, err
	}
	return out, nil
}

// way finds a device's way.
func (t *stones) way(c Candidate) (solve.Way, error) {
	deltas := slices.Contains(c.Knows, wire.FormDelta)
	from := origin{string(c.Release), c.Version, c.Hardware, deltas}
	d := solve.Device{Version: c.Version, Hardware: c.Hardware, Deltas: deltas}
	if i := slices.IndexFunc(t.graph.Releases, func(r solve.Release) bool { return bytes.Equal(r.Digest[:], c.Release) }); i >= 0 {
		d.Runs = &t.graph.Releases[i]
	}
	w, ok := t.known[from]
	if !ok {
		var err error
		if w, err = t.graph.Way(d, t.to); err != nil {
			return w, err
		}
		t.known[from] = w
	}
	runs := d.Runs
	for _, step := range w.Steps {
		if barred(c, runs, step.Release) != "" {
			d.Bars = func(runs, next *solve.Release) string { return barred(c, runs, next) }
			return t.graph.Way(d, t.to)
		}
		runs = step.Release
	}
	return w, nil
}

// barred says why a device does not take a release for a reason of its own; empty: it does.
func barred(c Candidate, runs, next *solve.Release) string {
	if slices.ContainsFunc(c.Left, func(d []byte) bool { return bytes.Equal(d, next.Digest[:]) }) {
		return "was left: the device was sent back from it"
	}
	if err := next.Parameters.Holds(c.Settings); err != nil {
		return "does not take a setting: " + err.Error()
	}
	if c.Room == nil {
		return ""
	}
	err := c.Room.Takes(next.Release)
	if runs != nil {
		err = c.Room.TakesOver(next.Release, runs.Release)
	}
	if err != nil {
		return "has no room: " + err.Error()
	}
	return ""
}

// direct reports whether a device is told of the release itself: it is installed over what runs there, or nobody here knows that.
func direct(c Candidate, m wire.Release) bool {
	return c.Trial || c.Version == "" || m.InstallsOver(c.Version)
}

// next gives those of the queued devices, from the first on, that are told of the same release, and what they are told. Of a rollout that takes nobody over
// stepping stones that is all of them, and the release.
func (s *Service) next(ctx context.Context, r Rollout, m wire.Release, queued []string) ([]string, Tranche, error) {
	if !r.Spec.Stones || len(queued) == 0 {
		return queued, Tranche{}, nil
	}
	steps := map[string]Tranche{} // of those that are told of something else than the release
	var ways *stones
	at := Selection{Group: r.Spec.Selection.Group, IDs: queued}
	err := s.cfg.Store.Candidates(ctx, r.Spec.Product, at, "", nil, func(c Candidate) (err error) {
		if direct(c, m) {
			return nil
		}
		if ways == nil {
			if ways, err = s.stones(ctx, r.Spec.Product, [32]byte(r.Spec.Release)); err != nil {
				return err
			}
		}
		w, err := ways.way(c)
		switch {
		case err != nil:
			return err
		case len(w.Steps) == 0:
			steps[c.ID] = Tranche{Lost: w.Why}
		case len(w.Steps) > 1:
			steps[c.ID] = Tranche{Release: w.Steps[0].Release.Digest[:], Version: w.Steps[0].Release.Version}
		}
		return nil
	})
	if err != nil {
		return nil, Tranche{}, err
	}
	first := steps[queued[0]]
	return slices.DeleteFunc(queued, func(id string) bool {
		t := steps[id]
		return t.Lost != first.Lost || t.Version != first.Version
	}), first, nil
}

// Way is how a device comes to a release, whether or not a rollout brings it.
type Way struct {
	Device  string    `json:"device"`
	Runs    string    `json:"runs" doc:"the version"`
	Release string    `json:"release" doc:"the version that it is the way to"`
	Steps   []WayStep `json:"steps,omitempty" doc:"what it is told, in order; the last is the release itself"`
	Bytes   uint64    `json:"bytes" doc:"to be fetched for all of it"`
	Why     string    `json:"why,omitempty" doc:"of no steps: why there is no way"`
}

// WayStep is one release that a device is told.
type WayStep struct {
	Version string `json:"version"`
	Digest  []byte `json:"digest"`
	Bytes   uint64 `json:"bytes" doc:"to be fetched for it: what the device has of it already is not, and of what it has a delta of, the delta"`
}

// WayOf finds the way of a device to a release, with as few steps as can be, and of those with as few bytes.
func (s *Service) WayOf(ctx context.Context, caller access.Caller, id string, to [sha256.Size]byte) (Way, error) {
	rel, err := s.cfg.Releases.Find(ctx, to)
	if denied := s.check(ctx, caller, access.RolloutRead, "", Spec{Product: rel.Manifest.Product}); denied != nil {
		return Way{}, denied
	}
	if err != nil {
		return Way{}, err
	}
	if rel.Published.IsZero() {
		return Way{}, fault.New(fault.Conflict, "rollout.release", fmt.Sprintf("release %s is %s", rel.Manifest.ID, rel.Status), "ways lead to releases that are published")
	}
	ways, err := s.stones(ctx, rel.Manifest.Product, to)
	if err != nil {
		return Way{}, err
	}
	var out *Way
	spec := Spec{Product: rel.Manifest.Product, Release: to[:], Assurance: device.Says, Stones: true}
	fits := s.fitting(ctx, spec, rel.Manifest)
	err = s.cfg.Store.Candidates(ctx, rel.Manifest.Product, Selection{IDs: []string{id}}, "", nil, func(c Candidate) error {
		out = &Way{Device: id, Runs: c.Version, Release: rel.Manifest.Version}
		f, err := fits(c)
		if err != nil || f.why != "" {
			out.Why = f.why
			return err
		}
		w, err := ways.way(c)
		if err != nil {
			return err
		}
		for _, step := range w.Steps {
			out.Steps = append(out.Steps, WayStep{step.Release.Version, step.Release.Digest[:], step.Bytes})
		}
		out.Bytes, out.Why = w.Bytes(), w.Why
		return nil
	})
	switch {
	case err != nil:
		return Way{}, err
	case out == nil:
		return Way{}, fault.New(fault.NotFound, "device.unknown", fmt.Sprintf("%s has no device %s", rel.Manifest.Product, id), "see `hallmark device list`")
	}
	return *out, nil
}

// detours counts the devices that are taken over other versions first, the most first.
func detours(all []Member) []Detour {
	var out []Detour
	at := map[string]int{}
	for _, m := range all {
		if len(m.Over) == 0 {
			continue
		}
		key := strings.Join(m.Over, " ")
		i, ok := at[key]
		if !ok {
			i, at[key] = len(out), len(out)
			out = append(out, Detour{Over: m.Over})
		}
		out[i].Devices++
	}
	slices.SortStableFunc(out, func(a, b Detour) int { return b.Devices - a.Devices })
	return out
}
