// Command bench measures what speed is promised for, each against a reference in the same run, because figures of different
// machines cannot be compared and ratios can.
//
// Under all stages. It prints one line a measure (name, ours, reference, ratio, goal) and writes bench/RESULTS.md. What could
// not be measured is printed as such, with the reason, and never as met. It judges nobody: no test depends on it.
//
//	bench [-count N] [-benchtime D] [-only TEXT] [-quick] [-dir DIR] [-peers]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hallmark-iot/hallmark/internal/durable"
)

const results = "bench/RESULTS.md"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var m meter
	flag.IntVar(&m.count, "count", 3, "runs of each benchmark; the median counts")
	flag.StringVar(&m.benchtime, "benchtime", "1s", "time of each run")
	quick := flag.Bool("quick", false, "measure lists and pages with 100,000 devices instead of 1,000,000")
	flag.StringVar(&m.dir, "dir", "", "keep the instance with many devices here, or find it here; empty: make one and throw it away")
	only := flag.String("only", "", "only the measures whose name contains this")
	others := flag.Bool("peers", false, "measure against other systems instead")
	flag.Parse()
	list := measures
	if *others {
		list = peers
	}
	m.devices = 1_000_000
	if *quick {
		m.devices = 100_000
	}
	lines := []line{}
	for _, one := range list {
		if strings.Contains(one.name, *only) {
			lines = append(lines, m.take(ctx, one))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "name\tours\treference\tratio\tgoal\t")
	for _, l := range lines {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", l.name, l.ours, l.reference, l.ratio, l.goal, l.verdict)
	}
	if err := w.Flush(); err != nil || *only != "" || *others {
		return err
	}
	if err := os.MkdirAll("bench", 0o750); err != nil {
		return err
	}
	return durable.WriteFile(results, []byte(page(lines, m.devices, time.Now())), 0o644)
}

// page is the report as Markdown.
func page(lines []line, devices int, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Results\n\nWritten by `make bench` on %s: %d CPUs, %s/%s, %s. Ratio is ours to reference, of the same run; many devices are %d.\n\n",
		now.UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), devices)
	fmt.Fprintf(&b, "| name | ours | reference | ratio | goal | |\n|---|---|---|---|---|---|\n")
	for _, l := range lines {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", l.name, l.ours, l.reference, l.ratio, l.goal, l.verdict)
	}
	return b.String()
}
