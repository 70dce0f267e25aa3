package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is one line of go test -json.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

type timed struct {
	name    string
	seconds float64
}

type report struct {
	out    io.Writer
	label  string // of the pass that is running
	strict bool   // a test that lacks its program fails

	output                  map[string][]string // of each test still running
	blamed                  map[string]bool     // packages with a failing test
	passed, failed, skipped int
	untested                int      // packages without a test
	why                     []string // each test that did not run, with its reason
	slow                    []timed
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: map[string][]string{}, blamed: map[string]bool{}}
}

func (r *report) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		r.output[key] = append(r.output[key], e.Output)
		return
	case "build-output":
		r.output["build "+e.ImportPath] = append(r.output["build "+e.ImportPath], e.Output)
		return
	case "build-fail":
		fmt.Fprint(r.out, strings.Join(r.output["build "+e.ImportPath], ""))
		delete(r.output, "build "+e.ImportPath)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	if e.Action == "fail" {
		fmt.Fprint(r.out, strings.Join(r.output[key], ""))
	}
	if e.Test == "" {
		r.takePackage(e)
	} else {
		r.takeTest(e, key)
	}
	delete(r.output, key)
}

func (r *report) takeTest(e event, key string) {
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		r.blamed[e.Package] = true
	case "skip":
		r.skip(r.name(e), reason(r.output[key]))
	}
	if e.Elapsed >= 1 && !strings.Contains(e.Test, "/") {
		r.slow = append(r.slow, timed{r.name(e), e.Elapsed})
	}
}

func (r *report) takePackage(e event) {
	if e.Action == "skip" {
		r.untested++
		return
	}
	if e.Action == "fail" && !r.blamed[e.Package] {
		r.failed++ // it did not build, or ended outside any test
	}
	delete(r.blamed, e.Package)
	fmt.Fprintf(r.out, "%-4s %7.1fs  %s\n", e.Action, e.Elapsed, short(e.Package))
}

func (r *report) skip(name, why string) {
	if r.strict && strings.Contains(why, "not installed") {
		fmt.Fprintf(r.out, "fail: %s did not run: %s\n", name, why)
		r.failed++
		return
	}
	r.skipped++
	r.why = append(r.why, name+": "+why)
}

func (r *report) name(e event) string {
	n := short(e.Package) + " " + e.Test
	if r.label != "" {
		n += " (" + r.label + ")"
	}
	return n
}

func short(importPath string) string {
	_, after, ok := strings.Cut(importPath, "/hallmark/")
	if !ok {
		return importPath
	}
	return after
}

// reason finds what a test said when it skipped.
func reason(output []string) string {
	for _, l := range slices.Backward(output) {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "=== ") && !strings.HasPrefix(l, "--- ") {
			return l
		}
	}
	return "no reason given"
}

func (r *report) close() {
	slices.SortFunc(r.slow, func(a, b timed) int { return cmp.Compare(b.seconds, a.seconds) })
	if len(r.slow) > 0 {
		fmt.Fprintln(r.out, "\nThe slowest tests:")
		for _, s := range r.slow[:min(10, len(r.slow))] {
			fmt.Fprintf(r.out, "  %7.1fs  %s\n", s.seconds, s.name)
		}
	}
	if len(r.why) > 0 {
		fmt.Fprintln(r.out, "\nThese tests did not run:")
		for _, w := range r.why {
			fmt.Fprintln(r.out, "  "+w)
		}
	}
	if r.untested > 0 {
		fmt.Fprintf(r.out, "\n%d packages have no test that was asked for.\n", r.untested)
	}
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
}
