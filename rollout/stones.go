package rollout

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout/solve"
	"github.com/hallmark-iot/hallmark/wire"
)

// A release says over which versions it is installed. A device that runs another is taken over what comes between, when the rollout says so: its path is looked
// for each time that it is told, from what it runs then and by what is published then. Nothing of a path is kept but what a device was told.

// Detour is how many devices are taken over the same versions first.
type Detour struct {
	Over    []string `json:"over" doc:"the versions, in order"`
	Devices int      `json:"devices"`
}

// OverStones says in words who was told of a stepping stone, and for whom there is no path any more.
func OverStones(r Rollout) string {
	told, lost := map[string]int{}, 0
	for _, w := range r.Waves {
		for _, t := range w.Tranches {
			switch {
			case t.Lost != "":
				lost += t.Devices
			case len(t.Release) > 0:
				told[t.Version] += t.Devices
			}
		}
	}
	text := "devices are taken over what comes between"
	var of []string
	for _, v := range slices.SortedFunc(maps.Keys(told), wire.CompareVersions) {
		of = append(of, fmt.Sprintf("%d were told of %s", told[v], v))
	}
	if len(of) > 0 {
		text += "; so far " + strings.Join(of, ", ")
	}
	if lost > 0 {
		text += fmt.Sprintf("; for %d there is no path any more", lost)
	}
	return text
}

// stones finds the paths of devices to one release.
type stones struct {
	graph solve.Graph
	to    [32]byte
	known map[origin]solve.Path // few, and many devices
}

// origin is what a device's path depends on, as long as nothing of its own is against it.
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
	out := &stones{graph: solve.Graph{Least: least}, to: to, known: map[origin]solve.Path{}}
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
		if err != nil {
			return nil, err
		}
		sizes := map[[32]byte]uint64{}
		for _, f := range forms {
			sizes[[32]byte(f.Component)] = f.Size
		}
		made[pair{from, to}] = sizes
		return sizes, nil
	}
	return out, nil
}

// path finds a device's path.
func (t *stones) path(c Candidate) (solve.Path, error) {
	deltas := slices.Contains(c.Knows, wire.FormDelta)
	from := origin{string(c.Release), c.Version, c.Hardware, deltas}
	d := solve.Device{Version: c.Version, Hardware: c.Hardware, Deltas: deltas}
	if i := slices.IndexFunc(t.graph.Releases, func(r solve.Release) bool { return bytes.Equal(r.Digest[:], c.Release) }); i >= 0 {
		d.Runs = &t.graph.Releases[i]
	}
	p, ok := t.known[from]
	if !ok {
		var err error
		if p, err = t.graph.Path(d, t.to); err != nil {
			return p, err
		}
		t.known[from] = p
	}
	runs := d.Runs
	for _, step := range p.Steps {
		if barred(c, runs, step.Release) != "" {
			d.Bars = func(runs, next *solve.Release) string { return barred(c, runs, next) }
			return t.graph.Path(d, t.to)
		}
		runs = step.Release
	}
	return p, nil
}

// barred says why a device does not take a release for a reason of its own; empty: it does.
func barred(c Candidate, runs, next *solve.Release) string {
	if slices.ContainsFunc(c.Left, func(d []byte) bool { return bytes.Equal(d, next.Digest[:]) }) {
		return "was left: the device was sent back from it"
	}
	if words := c.unknown(next.Release); len(words) > 0 {
		return "has " + strings.Join(words, ", and ") + ", and the agent of the device does not know how"
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
	var over *stones
	at := Selection{Group: r.Spec.Selection.Group, IDs: queued} // of those that were taken: whatever its query says of them now
	err := s.cfg.Store.Candidates(ctx, r.Spec.Product, at, "", nil, func(c Candidate) (err error) {
		if direct(c, m) {
			return nil
		}
		if over == nil {
			if over, err = s.stones(ctx, r.Spec.Product, [32]byte(r.Spec.Release)); err != nil {
				return err
			}
		}
		p, err := over.path(c)
		switch {
		case err != nil:
			return err
		case len(p.Steps) == 0:
			steps[c.ID] = Tranche{Lost: p.Why}
		case len(p.Steps) > 1:
			steps[c.ID] = Tranche{Release: p.Steps[0].Release.Digest[:], Version: p.Steps[0].Release.Version}
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

// Path is how a device comes to a release, whether or not a rollout brings it.
type Path struct {
	Device  string     `json:"device"`
	Runs    string     `json:"runs" doc:"the version"`
	Release string     `json:"release" doc:"the version that it is the path to"`
	Steps   []PathStep `json:"steps,omitempty" doc:"what it is told, in order; the last is the release itself"`
	Bytes   uint64     `json:"bytes" doc:"to be fetched for all of it"`
	Why     string     `json:"why,omitempty" doc:"of no steps: why there is no path"`
}

// PathStep is one release that a device is told.
type PathStep struct {
	Version string `json:"version"`
	Digest  []byte `json:"digest"`
	Bytes   uint64 `json:"bytes" doc:"to be fetched for it: what the device has of it already is not, and of what it has a delta of, the delta"`
}

// PathOf finds the path of a device to a release, with as few steps as can be, and of those with as few bytes.
func (s *Service) PathOf(ctx context.Context, caller access.Caller, id string, to [sha256.Size]byte) (Path, error) {
	d, err := s.cfg.Devices.Get(ctx, caller, id)
	if err != nil {
		return Path{}, err
	}
	rel, err := s.cfg.Releases.Find(ctx, to)
	switch {
	case err != nil:
		return Path{}, err
	case rel.Manifest.Product != d.Product:
		return Path{}, bad("product", fmt.Sprintf("release %s is for %s, and the device is of %s", rel.Manifest.ID, rel.Manifest.Product, d.Product), "name a release of the product of the device")
	case rel.Published.IsZero():
		return Path{}, fault.New(fault.Conflict, "rollout.release", fmt.Sprintf("release %s is %s", rel.Manifest.ID, rel.Status), "ask for one that is published")
	}
	over, err := s.stones(ctx, rel.Manifest.Product, to)
	if err != nil {
		return Path{}, err
	}
	out := Path{Device: id, Release: rel.Manifest.Version}
	fits := s.fitting(ctx, Spec{Product: d.Product, Release: to[:], Assurance: device.Says, Stones: true}, rel.Manifest)
	err = s.cfg.Store.Candidates(ctx, d.Product, Selection{IDs: []string{id}}, "", nil, func(c Candidate) error {
		out.Runs = c.Version
		f, err := fits(c)
		switch {
		case err != nil:
			return err
		case f.why != "":
			out.Why = f.why
			return nil
		case c.Version == "":
			out.Why = "has not said what it runs"
			return nil
		}
		p, err := over.path(c)
		for _, step := range p.Steps {
			out.Steps = append(out.Steps, PathStep{step.Release.Version, step.Release.Digest[:], step.Bytes})
		}
		out.Bytes, out.Why = p.Bytes(), p.Why
		return err
	})
	return out, err
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
