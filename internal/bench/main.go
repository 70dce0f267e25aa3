// Command bench measures what speed is promised for, each against a reference in the same run, because figures of different
// machines cannot be compared and ratios can.
//
// Under all stages. It prints one line a measure (name, ours, reference, ratio, goal) and writes its part of bench/RESULTS.md. What could
// not be measured is printed as such, with the reason, and never as met. It judges nobody: no test depends on it.
//
//	bench [-count N] [-benchtime D] [-only TEXT] [-quick] [-dir DIR] [-peers]
package main

import (
	"context"
	"errors"
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
	if err := w.Flush(); err != nil || *only != "" {
		return err
	}
	part := page(lines, m.devices, time.Now())
	if *others {
		part = beside + "\n" + beyond(lines, time.Now())
	}
	return write(part, *others)
}

// beside is the heading of what `make peers` writes. `make bench` writes what stands before it, and each leaves the other's part alone.
const beside = "## Beside others\n"

func write(part string, others bool) error {
	if err := os.MkdirAll("bench", 0o750); err != nil {
		return err
	}
	before, err := os.ReadFile(results)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return durable.WriteFile(results, []byte(replaced(string(before), part, others)), 0o644)
}

// replaced puts a part into the report in the place of the one that was there.
func replaced(report, part string, others bool) string {
	own, theirs, both := strings.Cut(report, beside)
	switch {
	case others && own == "":
		return part
	case others:
		return strings.TrimRight(own, "\n") + "\n\n" + part
	case both:
		return part + "\n" + beside + theirs
	}
	return part
}

// page is the report as Markdown.
func page(lines []line, devices int, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Results\n\nWritten by `make bench` on %s: %d CPUs, %s/%s, %s. Ratio is ours to reference, of the same run; many devices are %d.\n\n",
		now.UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), devices)
	table(&b, "reference", lines)
	return b.String()
}

// beyond is the report of other systems, with what has to be known to read it.
func beyond(lines []line, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Written by `make peers` on %s: %d CPUs, %s/%s, %s. The same machine, in turns.\n\n",
		now.UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	table(&b, "other", lines)
	b.WriteString(remarks)
	return b.String()
}

const remarks = `
Entries are of 300 bytes, from 256 writers, each waiting for its own. What a writer of ours waits for is a round of the sequencer, and what that costs is
the rows' places and the exported files: many writers are not what makes it faster. Tessera gives a place without a database, and so without the state
that a fact commits with. rekor-tiles verifies a signature for each entry and answers when its checkpoint, every 200 ms, has it.

step-ca has a JWK provisioner, one-time tokens made before the clock starts, badger, and TLS 1.3. It checks a token and a request and stores a certificate;
ours checks a client certificate, the device's record, product and state, lints before and after signing, and stores certificate, registry row and two
facts. Both answer when that is durable, over connections that are kept. step-ca runs as a process of its own beside its clients, ours in the process of
its devices; both share the same processors with them.

hawkBit's update server is no program in Maven's central registry; it is put together of its own starters there, the newest that has them, without its user
interface (internal/bench/peers/hawkbit; java and mvn have to be there). The same clients poll both, with a token each, over TLS and connections that they keep; hawkBit is
asked for ten seconds before it is measured. It reads and writes its database at each poll. Ours answers from memory who has no news, and stores last contacts
in batches; ours runs over SQLite, and in the process of its clients.
`

func table(b *strings.Builder, other string, lines []line) {
	fmt.Fprintf(b, "| name | ours | %s | ratio | goal | |\n|---|---|---|---|---|---|\n", other)
	for _, l := range lines {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", l.name, l.ours, l.reference, l.ratio, l.goal, l.verdict)
	}
}
