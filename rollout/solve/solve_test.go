package solve

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/semver"
	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/wire"
)

func digest(parts ...any) []byte {
	return bytes.Repeat([]byte{byte(len(fmt.Sprint(parts...)))}, 31)
}

func named(b byte) []byte { return append(bytes.Repeat([]byte{7}, 31), b) }

func draw(t *rapid.T, name string, from, to int) int { return rapid.IntRange(from, to).Draw(t, name) }

// anyRelease draws a release of a product, the n-th of it.
func anyRelease(t *rapid.T, n int) Release {
	name := fmt.Sprint("release ", n)
	r := Release{Release: wire.Release{Version: fmt.Sprintf("%d.0.0", n+1), Hardware: []string{"a"}, Counter: uint32(n/2 + draw(t, name+" counter", 0, 2))}, Digest: [32]byte{byte(n), 1}}
	if draw(t, name+" hardware", 0, 9) == 9 {
		r.Hardware = []string{"b"}
	}
	if draw(t, name+" shut", 0, 7) == 7 {
		r.Shut = "was withdrawn"
	}
	if from := n - draw(t, name+" over", 0, n); from > 0 {
		r.Over = []wire.VersionRange{{From: fmt.Sprintf("%d.0.0", from)}}
	}
	for c := range draw(t, name+" components", 1, 2) {
		what := byte(draw(t, name+" bytes", 0, 5))
		r.Components = append(r.Components, wire.Component{Name: fmt.Sprint("c", c), Digest: named(what), Size: uint64(what)*10 + 5})
	}
	return r
}

// allowed are a device's rules, written once more.
func allowed(g Graph, version string, counter uint32, next Release) bool {
	over := len(next.Over) == 0
	for _, v := range next.Over {
		over = over || semver.Compare("v"+version, "v"+v.From) >= 0
	}
	return over && next.Shut == "" && next.Hardware[0] == "a" && next.Counter >= g.Least && next.Counter >= counter && semver.Compare("v"+next.Version, "v"+version) > 0
}

// Each path there is, of all subsets of the releases: none is shorter than what is found, and none as short takes fewer bytes.
func TestWayIsTheBestOfAll(t *testing.T) {
	paths, detours := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		n := draw(t, "releases", 1, 7)
		g := Graph{Least: uint32(draw(t, "least", 0, 1))}
		for i := range n {
			g.Releases = append(g.Releases, anyRelease(t, i))
		}
		deltas := map[[2]byte]uint64{}
		for i := range draw(t, "deltas", 0, 6) {
			deltas[[2]byte{byte(draw(t, fmt.Sprint("from ", i), 0, n)), byte(draw(t, fmt.Sprint("to ", i), 0, n))}] = uint64(draw(t, fmt.Sprint("delta ", i), 0, 60))
		}
		g.Deltas = func(from, to [32]byte) (map[[32]byte]uint64, error) {
			if n, ok := deltas[[2]byte{from[0], to[0]}]; ok {
				return map[[32]byte]uint64{[32]byte(named(3)): n}, nil
			}
			return nil, nil
		}
		runs := g.Releases[draw(t, "runs", 0, (n-1)/2)]
		d := Device{Version: runs.Version, Hardware: "a", Runs: &runs, Deltas: draw(t, "knows", 0, 1) == 1}
		fetch := func(from, to Release) (sum uint64) {
			for _, c := range to.Components {
				size := c.Size
				if by, ok := deltas[[2]byte{from.Digest[0], to.Digest[0]}]; ok && d.Deltas && c.Digest[31] == 3 {
					size = min(size, by)
				}
				for _, o := range from.Components {
					if o.Digest[31] == c.Digest[31] {
						size = 0
					}
				}
				sum += size
			}
			return sum
		}
		steps, least := 0, uint64(0)
		for subset := range 1 << (n - 1) {
			at, sum, ok := runs, uint64(0), true
			for i := range n {
				if i < n-1 && subset>>i&1 == 0 {
					continue
				}
				next := g.Releases[i]
				ok = ok && allowed(g, at.Version, at.Counter, next)
				sum, at = sum+fetch(at, next), next
			}
			k := bits.OnesCount(uint(subset)) + 1
			if ok && (steps == 0 || k < steps || k == steps && sum < least) {
				steps, least = k, sum
			}
		}
		got, err := g.Path(d, g.Releases[n-1].Digest)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Steps) != steps || got.Bytes() != least {
			t.Fatalf("%d steps of %d bytes, want %d of %d: %+v", len(got.Steps), got.Bytes(), steps, least, got)
		}
		if (got.Why == "") != (steps > 0) || strings.HasSuffix(got.Why, " ") {
			t.Fatalf("%d steps, and: %q", steps, got.Why)
		}
		at := runs
		for _, s := range got.Steps {
			if !allowed(g, at.Version, at.Counter, *s.Release) || s.Bytes != fetch(at, *s.Release) {
				t.Fatalf("from %s to %s: %+v", at.Version, s.Release.Version, got)
			}
			at = *s.Release
		}
		if steps > 0 {
			paths++
		}
		if steps > 1 {
			detours++
		}
	})
	if paths == 0 || detours == 0 {
		t.Errorf("%d paths, %d of more than one step: nothing was tried", paths, detours)
	}
}

func product(versions ...string) (g Graph) {
	for i, v := range versions {
		version, over, _ := strings.Cut(v, " over ")
		version, shut, _ := strings.Cut(version, " ")
		r := Release{Release: wire.Release{Version: version, Hardware: []string{"a"}, Counter: 1, Components: []wire.Component{{Digest: named(byte(i)), Size: 100}}}, Digest: [32]byte{byte(i), 1}, Shut: shut}
		if over != "" {
			from, below, _ := strings.Cut(over, "<")
			r.Over = []wire.VersionRange{{From: from, Below: below}}
		}
		g.Releases = append(g.Releases, r)
	}
	return g
}

func TestWhyThereIsNoWay(t *testing.T) {
	closed := product("1.2.0", "2.5.0 closed", "3.0.0 over 2.5.0")
	closed.Releases[1].Shut = "is closed"
	low := product("1.2.0", "2.5.0", "3.0.0 over 2.5.0")
	low.Least, low.Releases[0].Counter, low.Releases[2].Counter = 2, 0, 2
	hardware := product("1.2.0", "2.5.0", "3.0.0 over 2.5.0")
	hardware.Releases[1].Hardware = []string{"b"}
	for want, g := range map[string]Graph{
		"3.0.0 is installed over versions from 2.5.0; nothing leads from 1.2.0 to there: 2.5.0 is closed":                                                                                      closed,
		"3.0.0 is installed over versions from 2.5.0; nothing leads from 1.2.0 to there: 2.5.0 has security counter 1, and devices install from 2 on":                                          low,
		"3.0.0 is installed over versions from 2.5.0; nothing leads from 1.2.0 to there: 2.5.0 is for hardware b":                                                                              hardware,
		"3.0.0 is installed over versions from 2.5.0; nothing leads from 1.2.0 to there: no release comes between that it is installed over":                                                   product("1.2.0", "2.0.0", "3.0.0 over 2.5.0"),
		"3.0.0 is installed over versions from 2.5.0; nothing leads from 1.2.0 to there: 2.7.0 is installed over versions from 2.0.0 below 2.6.0; 2.5.0 is installed over versions from 2.0.0": product("1.2.0", "2.5.0 over 2.0.0", "2.7.0 over 2.0.0<2.6.0", "3.0.0 over 2.5.0"),
		"9.0.0 is installed over versions from 2.0.0; nothing leads from 1.2.0 to there: 7.0.0 is withdrawn; 6.0.0 is withdrawn; 5.0.0 is withdrawn; 4.0.0 is withdrawn; and 2 more":           withdrawn("2.0.0", "3.0.0", "4.0.0", "5.0.0", "6.0.0", "7.0.0"),
	} {
		runs := g.Releases[0]
		got, err := g.Path(Device{Version: "1.2.0", Hardware: "a", Runs: &runs}, g.Releases[len(g.Releases)-1].Digest)
		if err != nil || got.Why != want {
			t.Errorf("%q, %v\nwant %q", got.Why, err, want)
		}
	}
	if _, err := closed.Path(Device{}, [32]byte{99}); err == nil {
		t.Error("a release that is none of the product's")
	}
}

func withdrawn(versions ...string) Graph {
	g := product(slices.Concat([]string{"1.2.0"}, versions, []string{"9.0.0 over 2.0.0"})...)
	for i := range versions {
		g.Releases[i+1].Shut = "is withdrawn"
	}
	return g
}

// What a device does not take for a reason of its own is no step of its way, and one of which nothing is known but its version fetches all.
func TestWayOfOneDevice(t *testing.T) {
	g := product("1.0.0", "2.0.0", "2.5.0", "3.0.0 over 2.0.0")
	d := Device{Version: "1.0.0", Hardware: "a", Bars: func(_, next *Release) string {
		if next.Version == "2.5.0" {
			return "was left"
		}
		return ""
	}}
	got, err := g.Path(d, g.Releases[3].Digest)
	if err != nil || !slices.Equal(got.Stones(), []string{"2.0.0"}) || got.Bytes() != 200 {
		t.Errorf("%+v, %v", got, err)
	}
}

// anyPool draws a pool of up to six components in up to four versions.
func anyPool(t *rapid.T) (p Problem) {
	names := []string{"a", "b", "c", "d", "e", "f"}[:draw(t, "components", 1, 6)]
	some := func(name string) (q wire.Requirement) {
		q.Component = rapid.SampledFrom(names).Draw(t, name)
		if draw(t, name+" from", 0, 1) == 1 {
			q.From = fmt.Sprintf("%d.0.0", draw(t, name+" from", 1, 3))
		}
		if draw(t, name+" below", 0, 2) == 1 {
			q.Below = fmt.Sprintf("%d.0.0", draw(t, name+" below", 2, 4))
		}
		return q
	}
	for _, n := range names {
		for v := range draw(t, n+" versions", 0, 4) {
			at := fmt.Sprintf("%s %d", n, v+1)
			c := wire.Component{Name: n, Version: fmt.Sprintf("%d.0.0", v+1), Size: uint64(draw(t, at+" size", 1, 3)), Digest: named(byte(len(p.Pool)))}
			for i := range draw(t, at+" requires", 0, 3) / 2 {
				c.Requires = append(c.Requires, some(fmt.Sprint(at, " requires ", i)))
			}
			for i := range draw(t, at+" after", 0, 3) / 2 {
				c.After = append(c.After, rapid.SampledFrom(names).Draw(t, fmt.Sprint(at, " after ", i)))
			}
			if draw(t, at+" hardware", 0, 5) == 5 {
				c.Hardware = []string{rapid.SampledFrom([]string{"x", "y"}).Draw(t, at+" on")}
			}
			p.Pool = append(p.Pool, c)
			if draw(t, at+" had", 0, 3) == 0 {
				p.Have = append(p.Have, c.Digest)
			}
		}
	}
	for i := range draw(t, "wants", 1, 3) {
		p.Want = append(p.Want, some(fmt.Sprint("want ", i)))
	}
	p.Hardware = []string{"x"}
	return p
}

func holds(q wire.Requirement, version string) bool {
	return (q.From == "" || semver.Compare("v"+version, "v"+q.From) >= 0) && (q.Below == "" || semver.Compare("v"+version, "v"+q.Below) < 0)
}

// comes reports whether a component can be started before another: neither it nor what it comes after comes after that.
func comes(p Problem, rules []rule, parts []int, name, before string, seen []string) bool {
	if name == before {
		return false
	}
	for _, r := range rules {
		if r.after && slices.Contains(parts, r.of) && p.Pool[r.of].Name == name && !slices.Contains(seen, r.needs.Component) &&
			!comes(p, rules, parts, r.needs.Component, before, append(seen, name)) {
			return false
		}
	}
	return true
}

// brute finds the best set that holds the rules by looking at all; each set has of each component one version, or none.
func brute(p Problem, rules []rule) *chosen {
	var best *chosen
	of := map[string][]int{}
	var names []string
	for i, c := range p.Pool {
		if of[c.Name] == nil {
			names = append(names, c.Name)
		}
		of[c.Name] = append(of[c.Name], i)
	}
	slices.Sort(names)
	var all func(k int, parts []int)
	all = func(k int, parts []int) {
		if k < len(names) {
			all(k+1, parts)
			for _, i := range of[names[k]] {
				all(k+1, append(slices.Clone(parts), i))
			}
			return
		}
		sum := uint64(0)
		for _, i := range parts {
			if !slices.ContainsFunc(p.Have, func(d []byte) bool { return bytes.Equal(d, p.Pool[i].Digest) }) {
				sum += p.Pool[i].Size
			}
		}
		for _, r := range rules {
			if r.of >= 0 && !slices.Contains(parts, r.of) {
				continue
			}
			if r.only && !slices.Contains(p.Pool[r.of].Hardware, "x") {
				return
			}
			if r.after && !comes(p, rules, parts, r.needs.Component, p.Pool[r.of].Name, nil) {
				return
			}
			if !r.only && !slices.ContainsFunc(parts, func(i int) bool { return p.Pool[i].Name == r.needs.Component && holds(r.needs, p.Pool[i].Version) }) {
				return
			}
		}
		if best != nil && (sum > best.cost.bytes || sum == best.cost.bytes && !preferred(p, parts, best.parts)) {
			return
		}
		best = &chosen{parts, cost{sum, len(parts)}}
	}
	all(0, nil)
	return best
}

func preferred(p Problem, a, b []int) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	for i := range a {
		if x, y := p.Pool[a[i]], p.Pool[b[i]]; x.Name != y.Name {
			return x.Name < y.Name
		} else if by := semver.Compare("v"+x.Version, "v"+y.Version); by != 0 {
			return by > 0
		}
	}
	return false
}

// A set is the best of all that there are; where there is none, the core has none either, and has one without any of its rules.
func TestSetIsTheBestOfAll(t *testing.T) {
	sets, cores := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		p := anyPool(t)
		got, err := Choose(p)
		if err != nil {
			t.Fatal(err)
		}
		want := brute(p, p.rules())
		if want != nil {
			sets++
			if len(got.Core) > 0 || got.Bytes != want.cost.bytes || len(got.Components) != len(want.parts) {
				t.Fatalf("%+v, want %+v of %+v", got, want, p)
			}
			for i, c := range got.Components {
				if w := p.Pool[want.parts[i]]; c.Name != w.Name || c.Version != w.Version {
					t.Fatalf("%s %s, want %s %s", c.Name, c.Version, w.Name, w.Version)
				}
			}
			return
		}
		cores++
		if len(got.Core) == 0 || len(got.Components) > 0 {
			t.Fatalf("there is no set: %+v", got)
		}
		core, err := newSearch(p).core(nil, p.rules(), false)
		if err != nil || len(core) != len(got.Core) || brute(p, core) != nil {
			t.Fatalf("core %v, %v: %v", core, err, got.Core)
		}
		for i := range core {
			if brute(p, slices.Delete(slices.Clone(core), i, i+1)) == nil {
				t.Fatalf("without %q there is none either: %q", p.text(core[i]), got.Core)
			}
		}
	})
	if sets == 0 || cores == 0 {
		t.Errorf("%d sets and %d cores: nothing was tried", sets, cores)
	}
}

func TestCoreInWords(t *testing.T) {
	need := func(c, from, below string) wire.Requirement {
		return wire.Requirement{Component: c, From: from, Below: below}
	}
	part := func(name, version string, requires ...wire.Requirement) wire.Component {
		return wire.Component{Name: name, Version: version, Size: 1, Digest: digest(name, version), Requires: requires}
	}
	pool := []wire.Component{
		part("app", "1.0.0", need("net", "1.0.0", "2.0.0")), part("app", "2.0.0", need("net", "2.0.0", ""), need("ui", "3.0.0", "")),
		part("net", "1.4.0"), part("net", "2.1.0"),
		{Name: "ui", Version: "2.0.0", Size: 1, Digest: digest("ui"), Hardware: []string{"rev-b"}},
		{Name: "log", Version: "1.0.0", Size: 1, Digest: digest("log"), After: []string{"gps"}},
		{Name: "egg", Version: "1.0.0", Size: 1, Digest: digest("egg"), After: []string{"hen"}},
		{Name: "hen", Version: "1.0.0", Size: 1, Digest: digest("hen"), After: []string{"egg"}},
	}
	for name, c := range map[string]struct {
		want []wire.Requirement
		core []string
	}{
		"two that exclude each other":  {[]wire.Requirement{need("app", "", "2.0.0"), need("net", "2.0.0", "")}, []string{"app below 2.0.0 is wanted", "net from 2.0.0 is wanted", "app 1.0.0 requires net from 1.0.0 below 2.0.0"}},
		"started after what is not":    {[]wire.Requirement{need("log", "", "")}, []string{"log is wanted", "log 1.0.0 is started after gps, and the pool has no gps"}},
		"started after each other":     {[]wire.Requirement{need("egg", "", "")}, []string{"egg is wanted", "egg 1.0.0 is started after hen", "hen 1.0.0 is started after egg"}},
		"no such version":              {[]wire.Requirement{need("app", "2.0.0", "")}, []string{"app from 2.0.0 is wanted", "app 2.0.0 requires ui from 3.0.0, and the pool has 2.0.0"}},
		"no such component":            {[]wire.Requirement{need("gps", "", "")}, []string{"gps is wanted, and the pool has no gps"}},
		"not on this hardware":         {[]wire.Requirement{need("ui", "", "")}, []string{"ui is wanted", "ui 2.0.0 works on hardware rev-b only, and the set is for rev-a"}},
		"it goes, and takes the least": {[]wire.Requirement{need("app", "", "")}, nil},
	} {
		got, err := Choose(Problem{Pool: pool, Want: c.want, Hardware: []string{"rev-a"}})
		if err != nil || !slices.Equal(got.Core, c.core) {
			t.Errorf("%s: %q, %v, want %q", name, got.Core, err, c.core)
		}
	}
}

func TestProblemsThatAreNone(t *testing.T) {
	for name, p := range map[string]Problem{
		"nothing wanted": {Pool: []wire.Component{{Name: "a", Version: "1.0.0"}}},
		"no version":     {Pool: []wire.Component{{Name: "a", Version: "one"}}, Want: []wire.Requirement{{Component: "a"}}},
		"twice":          {Pool: []wire.Component{{Name: "a", Version: "1.0.0"}, {Name: "a", Version: "1.0.0"}}, Want: []wire.Requirement{{Component: "a"}}},
		"no range":       {Pool: []wire.Component{{Name: "a", Version: "1.0.0"}}, Want: []wire.Requirement{{Component: "a", From: "x"}}},
		"too many":       {Pool: make([]wire.Component, MaxPool+1), Want: []wire.Requirement{{Component: "a"}}},
	} {
		if _, err := Choose(p); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Forty components in four versions each are a small problem; what would take too long is given up.
func TestLargeProblems(t *testing.T) {
	var p Problem
	for i := range 40 {
		for v := range 4 {
			c := wire.Component{Name: fmt.Sprintf("c%02d", i), Version: fmt.Sprintf("%d.0.0", v+1), Size: 1, Digest: named(byte(4*i + v))}
			if i > 0 {
				c.Requires = []wire.Requirement{{Component: fmt.Sprintf("c%02d", i-1), Below: "4.0.0"}}
			}
			p.Pool = append(p.Pool, c)
		}
	}
	p.Want = []wire.Requirement{{Component: "c39"}}
	got, err := Choose(p)
	if err != nil || len(got.Components) != 40 || got.Components[0].Version != "3.0.0" || got.Components[39].Version != "4.0.0" {
		t.Errorf("%+v, %v", got, err)
	}
	s := newSearch(p)
	s.left = 30
	if _, err := s.choose(p.rules()); !errors.Is(err, ErrHard) {
		t.Errorf("%v, want %v", err, ErrHard)
	}
}
