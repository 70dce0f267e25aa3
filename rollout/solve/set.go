package solve

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/wire"
)

// Problem asks for a set of components.
type Problem struct {
	Pool     []wire.Component   // components in versions, with what they require
	Want     []wire.Requirement // what has to be in the set; without a From and a Below: in any version
	Hardware []string           // revisions on which all of it has to work
	Have     [][]byte           // digests that need not be fetched
}

// Set is components that go together.
type Set struct {
	Components []wire.Component `json:"components,omitempty"` // in rising order of their names
	Bytes      uint64           `json:"bytes"`                // to be fetched
	Core       []string         `json:"core,omitempty"`       // of none: what cannot all hold. Without any of it there would be a set
}

// Bounds of a problem.
const (
	MaxPool = 2048
	maxLook = 200_000 // partial sets
)

// ErrHard says that a problem was given up.
var ErrHard = errors.New("too many sets to look at: want fewer components, or narrower versions")

// rule is one thing that a set has to hold, or that may be left out to see whether another stands against it.
type rule struct {
	of    int              // the component in the pool whose rule it is; -1: somebody wants it
	needs wire.Requirement // it wants or requires this
	only  bool             // it works on its hardware only
	after bool             // it is started after what it needs, which is any version
}

func (p Problem) rules() (out []rule) {
	for _, q := range p.Want {
		out = append(out, rule{of: -1, needs: q})
	}
	for i, c := range p.Pool {
		if len(c.Hardware) > 0 && len(p.Hardware) > 0 {
			out = append(out, rule{of: i, only: true})
		}
		for _, q := range c.Requires {
			out = append(out, rule{of: i, needs: q})
		}
		for _, name := range c.After {
			out = append(out, rule{of: i, needs: wire.Requirement{Component: name}, after: true})
		}
	}
	return out
}

func (p Problem) text(r rule) string {
	want := strings.TrimSpace(r.needs.String())
	if r.needs.From == "" && r.needs.Below == "" {
		want = r.needs.Component
	}
	if r.of < 0 {
		return want + " is wanted"
	}
	c := p.Pool[r.of]
	if r.only {
		return fmt.Sprintf("%s %s works on hardware %s only", c.Name, c.Version, strings.Join(c.Hardware, ", "))
	}
	if r.after {
		return fmt.Sprintf("%s %s is started after %s", c.Name, c.Version, want)
	}
	return fmt.Sprintf("%s %s requires %s", c.Name, c.Version, want)
}

func (p Problem) check() error {
	if len(p.Want) == 0 {
		return errors.New("no component is wanted")
	}
	if len(p.Pool) > MaxPool {
		return fmt.Errorf("%d components in versions, at most %d", len(p.Pool), MaxPool)
	}
	seen := map[string]bool{}
	for _, c := range p.Pool {
		at := c.Name + " " + c.Version
		switch {
		case c.Name == "" || !wire.ValidVersion(c.Version):
			return fmt.Errorf("component %q: version %q is not semver", c.Name, c.Version)
		case seen[at]:
			return fmt.Errorf("component %s is in the pool twice", at)
		}
		seen[at] = true
	}
	for _, r := range p.rules() {
		for _, v := range []string{r.needs.From, r.needs.Below} {
			if v != "" && !wire.ValidVersion(v) {
				return fmt.Errorf("%s: %q is not semver", p.text(r), v)
			}
		}
	}
	return nil
}

// Choose finds the set that takes the fewest bytes; of those one of as few components as can be, and then of the highest versions, in the order of
// their names. Where there is none, it finds a core: rules that cannot all hold, while they can without any one of them.
func Choose(p Problem) (Set, error) {
	if err := p.check(); err != nil {
		return Set{}, err
	}
	s := newSearch(p)
	rules := p.rules()
	best, err := s.choose(rules)
	if err != nil || best != nil {
		return p.set(best), err
	}
	core, err := s.core(nil, rules, false)
	if err != nil {
		return Set{}, err
	}
	slices.SortFunc(core, func(a, b rule) int { return cmp.Or(cmp.Compare(a.of, b.of), strings.Compare(p.text(a), p.text(b))) })
	var out Set
	for _, r := range core {
		out.Core = append(out.Core, s.explain(r))
	}
	return out, nil
}

func (p Problem) set(c *chosen) (out Set) {
	if c == nil {
		return out
	}
	out.Bytes = c.cost.bytes
	for _, i := range c.parts {
		out.Components = append(out.Components, p.Pool[i])
	}
	return out
}

// search looks for sets in a pool.
type search struct {
	p    Problem
	of   map[string][]int // the versions of each component, the highest first
	cost []cost
	left int // partial sets that may be looked at yet

	wants []wire.Requirement
	needs map[int][]wire.Requirement
	after map[int][]string
	bad   map[int]bool   // does not work on the hardware
	fixed map[string]int // what of a component has to be in; none: it must not be
	best  *chosen
	any   bool // the first set is as good as any other
}

const none = -1

// cost is what a set is judged by first.
type cost struct {
	bytes uint64 // to be fetched
	parts int
}

func (c cost) plus(o cost) cost { return cost{c.bytes + o.bytes, c.parts + o.parts} }

func (c cost) compare(o cost) int {
	return cmp.Or(cmp.Compare(c.bytes, o.bytes), cmp.Compare(c.parts, o.parts))
}

// chosen is a set: components of the pool.
type chosen struct {
	parts []int
	cost  cost
}

func newSearch(p Problem) *search {
	s := &search{p: p, of: map[string][]int{}, cost: make([]cost, len(p.Pool)), left: maxLook, fixed: map[string]int{}}
	for i, c := range p.Pool {
		s.of[c.Name] = append(s.of[c.Name], i)
		if s.cost[i] = (cost{c.Size, 1}); slices.ContainsFunc(p.Have, func(d []byte) bool { return bytes.Equal(d, c.Digest) }) {
			s.cost[i].bytes = 0
		}
	}
	for _, versions := range s.of {
		slices.SortFunc(versions, func(a, b int) int { return wire.CompareVersions(p.Pool[b].Version, p.Pool[a].Version) })
	}
	return s
}

// choose gives the best set that holds the rules; nil: there is none. First what it costs is found, and then, component by component, the highest version
// that a set of that cost can have.
func (s *search) choose(rules []rule) (*chosen, error) {
	best, err := s.find(rules, nil)
	if best == nil || err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(s.of)) {
		fixed := none
		for _, i := range s.of[name] {
			s.fixed[name] = i
			same, err := s.find(rules, &best.cost)
			if err != nil {
				return nil, err
			}
			if same != nil {
				best, fixed = same, i
				break
			}
		}
		s.fixed[name] = fixed
	}
	slices.SortFunc(best.parts, func(a, b int) int { return strings.Compare(s.p.Pool[a].Name, s.p.Pool[b].Name) })
	return best, nil
}

// find gives a set that holds the rules and costs the least, or any that costs no more than most; nil: there is none.
func (s *search) find(rules []rule, most *cost) (*chosen, error) {
	s.best, s.any, s.wants, s.needs, s.after, s.bad = nil, most != nil, nil, map[int][]wire.Requirement{}, map[int][]string{}, map[int]bool{}
	for _, r := range rules {
		switch {
		case r.of < 0:
			s.wants = append(s.wants, r.needs)
		case r.only:
			s.bad[r.of] = slices.ContainsFunc(s.p.Hardware, func(h string) bool { return !slices.Contains(s.p.Pool[r.of].Hardware, h) })
		default:
			s.needs[r.of] = append(s.needs[r.of], r.needs)
			if r.after {
				s.after[r.of] = append(s.after[r.of], r.needs.Component)
			}
		}
	}
	for name, i := range s.fixed {
		if i != none {
			s.wants = append(s.wants, wire.Requirement{Component: name})
		}
	}
	err := s.grow(nil, cost{}, most)
	return s.best, err
}

// grow looks at all sets that have the parts, which go together so far, and that may yet be better than what there is.
func (s *search) grow(parts []int, spent cost, most *cost) error {
	if s.left--; s.left < 0 {
		return ErrHard
	}
	if !s.starts(parts) {
		return nil
	}
	next, rest, open := s.open(parts)
	least := spent.plus(rest)
	if s.best != nil && (s.any || least.compare(s.best.cost) >= 0) || most != nil && least.compare(*most) > 0 {
		return nil
	}
	if !open {
		s.best = &chosen{slices.Clone(parts), spent}
		return nil
	}
	for _, i := range next {
		if err := s.grow(append(slices.Clone(parts), i), spent.plus(s.cost[i]), most); err != nil {
			return err
		}
	}
	return nil
}

// starts reports whether the parts can be started: none of them waits for itself, through others.
func (s *search) starts(parts []int) bool {
	for left := slices.Clone(parts); len(left) > 0; {
		rest := slices.DeleteFunc(slices.Clone(left), func(i int) bool {
			return !slices.ContainsFunc(left, func(j int) bool { return slices.Contains(s.after[i], s.p.Pool[j].Name) })
		})
		if len(rest) == len(left) {
			return false
		}
		left = rest
	}
	return true
}

// open gives the versions that fit of a component that is needed and not in yet: of the one with the fewest, the cheapest first. What all versions of one that is
// needed require is needed as well. All that are needed and not in cost rest at least. false: nothing is needed.
func (s *search) open(parts []int) (fewest []int, rest cost, open bool) {
	all := slices.Clone(s.wants)
	in := map[string]bool{}
	for _, i := range parts {
		all = append(all, s.needs[i]...)
		in[s.p.Pool[i].Name] = true
	}
	for k := 0; k < len(all); k++ {
		q := all[k]
		if in[q.Component] {
			continue
		}
		in[q.Component] = true // it is looked at once
		var fit []int
		for _, i := range s.of[q.Component] {
			if s.fits(i, all, parts) {
				fit = append(fit, i)
			}
		}
		slices.SortStableFunc(fit, func(a, b int) int { return s.cost[a].compare(s.cost[b]) })
		if len(fit) == 0 {
			return nil, rest, true
		}
		rest = rest.plus(s.cost[fit[0]])
		for _, sure := range s.needs[fit[0]] {
			if !slices.ContainsFunc(fit, func(i int) bool { return !s.requires(i, sure.Component) }) {
				all = append(all, wire.Requirement{Component: sure.Component})
			}
		}
		if !open || len(fit) < len(fewest) {
			fewest, open = fit, true
		}
	}
	return fewest, rest, open
}

func (s *search) requires(i int, component string) bool {
	return slices.ContainsFunc(s.needs[i], func(q wire.Requirement) bool { return q.Component == component })
}

// fits reports whether a part goes with what is needed, and with the parts that are in.
func (s *search) fits(i int, needed []wire.Requirement, parts []int) bool {
	c := s.p.Pool[i]
	if fixed, ok := s.fixed[c.Name]; ok && fixed != i {
		return false
	}
	if s.bad[i] || slices.ContainsFunc(needed, func(q wire.Requirement) bool { return q.Component == c.Name && !q.Allows(c.Version) }) {
		return false
	}
	return !slices.ContainsFunc(s.needs[i], func(q wire.Requirement) bool {
		return slices.ContainsFunc(append(slices.Clone(parts), i), func(j int) bool { return s.p.Pool[j].Name == q.Component && !q.Allows(s.p.Pool[j].Version) })
	})
}

// core is QuickXplain (Junker, 2004): of rules that cannot all hold with those that do, some that cannot, while they can without any one of them.
func (s *search) core(hold, rules []rule, added bool) ([]rule, error) {
	if added {
		if some, err := s.find(hold, &cost{math.MaxUint64, math.MaxInt}); err != nil || some == nil {
			return nil, err
		}
	}
	if len(rules) <= 1 {
		return rules, nil
	}
	one, other := rules[:len(rules)/2], rules[len(rules)/2:]
	second, err := s.core(slices.Concat(hold, one), other, len(one) > 0)
	if err != nil {
		return nil, err
	}
	first, err := s.core(slices.Concat(hold, second), one, len(second) > 0)
	return slices.Concat(first, second), err
}

// explain says a rule in words, and what there is of what it needs when that is why it cannot hold.
func (s *search) explain(r rule) string {
	text := s.p.text(r)
	if r.only {
		return text + ", and the set is for " + strings.Join(s.p.Hardware, ", ")
	}
	versions := s.of[r.needs.Component]
	if len(versions) == 0 {
		return text + ", and the pool has no " + r.needs.Component
	}
	if slices.ContainsFunc(versions, func(i int) bool { return r.needs.Allows(s.p.Pool[i].Version) }) {
		return text
	}
	has := make([]string, len(versions))
	for k, i := range versions {
		has[k] = s.p.Pool[i].Version
	}
	return text + ", and the pool has " + strings.Join(has, ", ")
}
