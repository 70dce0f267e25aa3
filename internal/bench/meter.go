package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// line is one measure as it is shown.
type line struct{ name, ours, reference, ratio, goal, verdict string }

// meter takes figures; the demo runs once for all that is read from it.
type meter struct {
	count     int
	benchtime string

	devices int    // of atSize
	dir     string // where its instance is
	demo    *demoFigures
	crowd   *crowdFigures
	runs    map[benchmark][]float64 // what alternate has measured
}

type demoFigures struct {
	seconds, rss float64
	err          error
}

// crowdFigures are what atsize printed.
type crowdFigures struct {
	printed string
	err     error
}

// take measures one and judges it against its goal.
func (m *meter) take(ctx context.Context, one measure) line {
	l := line{name: one.name, reference: "-", ratio: "-", goal: one.goal.String(one.unit)}
	a, ok := one.ours.(benchmark)
	if b, both := one.reference.(benchmark); ok && both {
		m.alternate(ctx, a, b)
	}
	ours, err := m.figure(ctx, one.ours)
	if err != nil {
		l.ours, l.verdict = "-", "not measured: "+err.Error()
		return l
	}
	l.ours = show(ours, one.unit)
	judged := ours
	if one.reference != nil {
		ref, err := m.figure(ctx, one.reference)
		if err == nil && ref == 0 {
			err = errors.New("it is zero")
		}
		if err != nil {
			l.verdict = "no reference: " + err.Error()
			return l
		}
		l.reference, l.ratio = show(ref, one.unit), strconv.FormatFloat(ours/ref, 'f', 2, 64)
		if one.goal.onRatio {
			judged = ours / ref
		}
	}
	l.verdict = one.goal.verdict(judged)
	return l
}

func (m *meter) figure(ctx context.Context, p probe) (float64, error) {
	switch p := p.(type) {
	case benchmark:
		return m.benchmark(ctx, p)
	case fileSize:
		st, err := os.Stat(p.path)
		if err != nil {
			return 0, fmt.Errorf("%s is not built", p.path)
		}
		return float64(st.Size()) / 1e6, nil
	case startTime:
		return started(ctx, p.path)
	case atSize:
		if m.crowd == nil {
			cmd := exec.CommandContext(ctx, "go", "run", "./internal/bench/atsize", "-devices", strconv.Itoa(m.devices), "-dir", m.dir)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			m.crowd = &crowdFigures{string(out), err}
			fmt.Println(m.crowd.printed)
		}
		ns := metric(m.crowd.printed, "AtSize"+p.figure, "ns/op")
		if m.crowd.err != nil || len(ns) == 0 {
			return 0, errors.Join(m.crowd.err, fmt.Errorf("no %s", p))
		}
		return ns[0] * ms, nil
	case demoTime, demoRSS:
		if m.demo == nil {
			f := runDemo(ctx)
			m.demo = &f
		}
		if _, rss := p.(demoRSS); !rss || m.demo.err != nil {
			return m.demo.seconds, m.demo.err
		}
		if m.demo.rss == 0 {
			return 0, errors.New("no agent process was seen")
		}
		return m.demo.rss, nil
	}
	return 0, fmt.Errorf("no way to measure %s", p)
}

// starts is how often a program is started; the median counts.
const starts = 21

func started(ctx context.Context, program string) (float64, error) {
	var all []float64
	for range starts {
		begun := time.Now()
		if out, err := exec.CommandContext(ctx, program, "--help").CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%s --help: %w: %.200s", program, err, out)
		}
		all = append(all, float64(time.Since(begun))*ms)
	}
	return median(all), nil
}

// alternate runs two benchmarks in turns, so that what else the machine does meanwhile weighs on both. One that fails is left to
// benchmark, which says why.
func (m *meter) alternate(ctx context.Context, pair ...benchmark) {
	m.runs = map[benchmark][]float64{}
	for range m.count {
		for _, b := range pair {
			values, err := m.run(ctx, b, 1)
			if err != nil {
				m.runs = nil
				return
			}
			m.runs[b] = append(m.runs[b], values...)
		}
	}
}

func (m *meter) benchmark(ctx context.Context, b benchmark) (float64, error) {
	values := m.runs[b]
	if len(values) == 0 {
		var err error
		if values, err = m.run(ctx, b, m.count); err != nil {
			return 0, err
		}
	}
	v := median(values)
	if b.perSecond {
		v = float64(time.Second) / v
	}
	if b.scale != 0 {
		v *= b.scale
	}
	return v, nil
}

func (m *meter) run(ctx context.Context, b benchmark, count int) ([]float64, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^Benchmark"+b.name+"$",
		"-benchtime", m.benchtime, "-count", strconv.Itoa(count), b.pkg)
	cmd.Dir = b.in
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		_, _ = os.Stderr.Write(out)
		return nil, fmt.Errorf("%s: %w", b, err)
	}
	values := metric(string(out), b.name, b.metric)
	if len(values) == 0 {
		return nil, fmt.Errorf("no %s", b)
	}
	return values, nil
}

// metric reads one metric of one benchmark from what go test -bench printed (golang.org/design/14313-benchmark-format).
func metric(output, name, unit string) []float64 {
	var out []float64
	for l := range strings.Lines(output) {
		f := strings.Fields(l)
		if len(f) < 4 || f[0] != "Benchmark"+name && !strings.HasPrefix(f[0], "Benchmark"+name+"-") {
			continue
		}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil && f[i+1] == unit {
				out = append(out, v)
			}
		}
	}
	return out
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// runDemo runs the demo as a person would, and looks at its agents from outside meanwhile.
func runDemo(ctx context.Context) demoFigures {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "hallmark-bench")
	if err != nil {
		return demoFigures{err: err}
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program, err := filepath.Abs("bin/hallmark")
	if err != nil {
		return demoFigures{err: err}
	}
	cmd := exec.CommandContext(ctx, program, "demo", "--once", "--json", "--devices", "20", "--dir", filepath.Join(dir, "demo"))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return demoFigures{err: fmt.Errorf("the demo does not start: %w", err)}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var f demoFigures
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case err := <-ended:
			f.seconds = time.Since(start).Seconds()
			if err != nil {
				_, _ = os.Stderr.Write(said.Bytes())
				f.err = fmt.Errorf("the demo failed: %w", err)
			}
			return f
		case <-look.C:
			f.rss = max(f.rss, largest("hallmark-agent"))
		}
	}
}

// largest is the greatest peak resident set, in MB, of the processes that run a program.
func largest(program string) float64 {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	most := 0.0
	for _, link := range links {
		if exe, err := os.Readlink(link); err != nil || filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != program {
			continue
		}
		status, err := os.ReadFile(filepath.Join(filepath.Dir(link), "status"))
		if err == nil {
			most = max(most, peak(string(status)))
		}
	}
	return most
}

// peak reads VmHWM (proc(5)), in MB; 0 when it is not there.
func peak(status string) float64 {
	for l := range strings.Lines(status) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "VmHWM:" {
			kb, _ := strconv.ParseFloat(f[1], 64)
			return kb * 1024 / 1e6
		}
	}
	return 0
}

func (g goal) String(unit string) string {
	if g.bound == 0 {
		return "-"
	}
	sign := "≤ "
	if g.atLeast {
		sign = "≥ "
	}
	if g.onRatio {
		return sign + strconv.FormatFloat(g.bound, 'g', -1, 64) + " of reference"
	}
	return sign + show(g.bound, unit)
}

func (g goal) verdict(v float64) string {
	switch {
	case g.bound == 0:
		return ""
	case g.atLeast && v >= g.bound, !g.atLeast && v <= g.bound:
		return "met"
	}
	return "NOT met"
}

func show(v float64, unit string) string {
	digits := 0
	switch {
	case v < 1:
		digits = 4
	case v < 100:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " " + unit
}
