// Package solve finds the path of a device to a release, and sets of components that go together.
//
// Stage 3, field. Both are pure. A path is over releases of which each may be installed over the one before, by the rules that the device itself
// holds to: it has as few steps as can be, because each is a restart and a trial, and of those as few bytes as can be. A set (Choose) has every
// component that is wanted, and that one of it needs, in versions that go together: as few bytes as can be, then the highest versions. Where there
// is none, both say why in words that name what stands against it.
//
// It trusts what it is given. A device checks each step by itself, and whoever proposes a set is asked by its device again.
package solve

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/wire"
)

// Release is one that a path may be over.
type Release struct {
	wire.Release
	Digest [32]byte
	Shut   string // why no device is told of it, as "was withdrawn"; empty: it is published
}

// Device is what is known of one.
type Device struct {
	Version  string // of what it runs
	Hardware string
	Runs     *Release // what that is; nil: unknown, and all is fetched
	Deltas   bool     // it understands them

	// Bars says why it does not take a release, when it runs another (nil: unknown), beyond what Graph knows; empty: it does. nil: nothing.
	Bars func(runs, next *Release) string
}

// Graph is the releases of one product, in rising order of their versions, of which no two are the same.
type Graph struct {
	Releases []Release
	Least    uint32 // the lowest security counter that devices install

	// Deltas gives the sizes of the deltas from the components of one release to those of another, by the digests of these. nil: there are none.
	Deltas func(from, to [32]byte) (map[[32]byte]uint64, error)
}

// Step is one release on a path.
type Step struct {
	Release *Release
	Bytes   uint64 // to be fetched for it
}

// Path is how a device comes to a release.
type Path struct {
	Steps []Step // the last is the release itself
	Why   string // of no steps: why there is no path
}

// Bytes is what is to be fetched on the path.
func (p Path) Bytes() (n uint64) {
	for _, s := range p.Steps {
		n += s.Bytes
	}
	return n
}

// Stones are the versions that it is over before the last.
func (p Path) Stones() (out []string) {
	for _, s := range p.Steps[:max(0, len(p.Steps)-1)] {
		out = append(out, s.Release.Version)
	}
	return out
}

// place is where a device stands on its path.
type place struct {
	version string
	counter uint32
	runs    *Release // nil: unknown
}

func (d Device) start() place {
	p := place{version: d.Version, runs: d.Runs}
	if d.Runs != nil {
		p.counter = d.Runs.Counter
	}
	return p
}

func (r *Release) place() place { return place{r.Version, r.Counter, r} }

// reached is a release with the best path to it.
type reached struct {
	place
	before int // in the list; -1: where the device is
	steps  int
	bytes  uint64 // all of them
	fetch  uint64 // the last step's
}

// Path finds the path of a device to a release of the graph. Versions only rise on it, so that the best path to each release is known when the next is looked at.
func (g Graph) Path(d Device, to [32]byte) (Path, error) {
	last := slices.IndexFunc(g.Releases, func(r Release) bool { return r.Digest == to })
	if last < 0 {
		return Path{}, fmt.Errorf("release %x is none of the product's", to[:8])
	}
	var known []reached
	for i := range g.Releases[:last+1] {
		next := &g.Releases[i]
		best, ok := reached{}, false
		for before := -1; before < len(known); before++ {
			at := reached{place: d.start()}
			if before >= 0 {
				at = known[before]
			}
			if ok && at.steps+1 > best.steps || g.misses(d, at.place, next) != "" {
				continue
			}
			n, err := g.fetches(d, at.runs, next)
			if err != nil {
				return Path{}, err
			}
			if by := (reached{next.place(), before, at.steps + 1, at.bytes + n, n}); !ok || by.steps < best.steps || by.bytes <= best.bytes {
				best, ok = by, true
			}
		}
		if ok {
			known = append(known, best)
		}
	}
	if len(known) == 0 || known[len(known)-1].runs.Digest != to {
		return Path{Why: g.why(d, last)}, nil
	}
	var p Path
	for i := len(known) - 1; i >= 0; i = known[i].before {
		p.Steps = append(p.Steps, Step{known[i].runs, known[i].fetch})
	}
	slices.Reverse(p.Steps)
	return p, nil
}

// misses says why a device that stands somewhere does not take a release next; empty: it does.
func (g Graph) misses(d Device, at place, next *Release) string {
	switch {
	case next.Shut != "":
		return next.Shut
	case !next.RunsOn(d.Hardware):
		return "is for hardware " + strings.Join(next.Hardware, ", ")
	case next.Counter < g.Least:
		return fmt.Sprintf("has security counter %d, and devices install from %d on", next.Counter, g.Least)
	case next.Counter < at.counter:
		return fmt.Sprintf("has security counter %d, and %s has %d", next.Counter, at.version, at.counter)
	case wire.CompareVersions(next.Version, at.version) <= 0:
		return "is not newer than " + at.version
	case !next.InstallsOver(at.version):
		return "is installed over versions " + over(next.Over)
	case d.Bars != nil:
		return d.Bars(at.runs, next)
	}
	return ""
}

func over(ranges []wire.VersionRange) string {
	out := make([]string, len(ranges))
	for i, v := range ranges {
		out[i] = v.String()
	}
	return strings.Join(out, ", or ")
}

// fetches is how many bytes a device fetches for a release: what it has of it already it does not.
func (g Graph) fetches(d Device, runs, next *Release) (n uint64, err error) {
	var deltas map[[32]byte]uint64
	if d.Deltas && runs != nil && g.Deltas != nil {
		if deltas, err = g.Deltas(runs.Digest, next.Digest); err != nil {
			return 0, err
		}
	}
	for _, c := range next.Components {
		if runs != nil && slices.ContainsFunc(runs.Components, func(o wire.Component) bool { return o.Size == c.Size && bytes.Equal(o.Digest, c.Digest) }) {
			continue
		}
		size := c.Size
		if by, ok := deltas[[32]byte(c.Digest)]; ok {
			size = min(size, by)
		}
		n += size
	}
	return n, nil
}

// maxNamed bounds the releases that a reason names.
const maxNamed = 4

// why says why there is no path to a release: what stands against taking it at once, and then what does against each release from which it could be taken.
func (g Graph) why(d Device, last int) string {
	to := &g.Releases[last]
	text := to.Version + " " + g.misses(d, d.start(), to)
	if to.InstallsOver(d.Version) || to.Shut != "" || !to.RunsOn(d.Hardware) || to.Counter < g.Least {
		return text // no step in between helps
	}
	var named []string
	for i := range g.Releases[:last] {
		stone := &g.Releases[i]
		if wire.CompareVersions(stone.Version, d.Version) > 0 && g.leads(d, i, last) {
			named = append(named, stone.Version+" "+g.misses(d, d.start(), stone))
		}
	}
	text += "; nothing leads from " + d.Version + " to there: "
	if len(named) == 0 {
		return text + "no release comes between that it is installed over"
	}
	slices.Reverse(named)
	if n := len(named) - maxNamed; n > 0 {
		named = append(named[:maxNamed], fmt.Sprintf("and %d more", n))
	}
	return text + strings.Join(named, "; ")
}

// leads reports whether a path leads from one release, if a device ran it, to another.
func (g Graph) leads(d Device, from, to int) bool {
	there := map[int]bool{from: true}
	for i := from + 1; i <= to; i++ {
		for j := range there {
			if g.misses(d, g.Releases[j].place(), &g.Releases[i]) == "" {
				there[i] = true
				break
			}
		}
	}
	return there[to]
}
