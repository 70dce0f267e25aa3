// Command atsize measures what people wait for, in an instance with very many devices: each page of the console and each list of the
// API, the real server over loopback, as who may see everything, one product, or one group.
//
// Under all stages. It prints a line a request, the slowest first, and at the end the figures that package bench reads, in the form of
// go test -bench. It judges nobody.
//
//	atsize [-devices N] [-dir DIR] [-runs N] [-only TEXT]
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "atsize:", err)
		os.Exit(1)
	}
}

type options struct {
	devices, runs int
	dir, only     string
	all           bool
}

func run(ctx context.Context) error {
	var o options
	flag.IntVar(&o.devices, "devices", 100_000, "how many there are")
	flag.IntVar(&o.runs, "runs", 20, "how often each is asked, after one time to warm up")
	flag.StringVar(&o.dir, "dir", "", "keep the instance here, or find it here; empty: make one and throw it away")
	flag.StringVar(&o.only, "only", "", "only what has this in its path")
	flag.BoolVar(&o.all, "all", false, "print every request, not only the slowest")
	flag.Parse()
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "hallmark-atsize")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		o.dir = dir
	}
	begun := time.Now()
	l, err := made(ctx, o.dir, o.devices)
	if err != nil {
		return err
	}
	fmt.Printf("%d devices in the store after %s\n", o.devices, time.Since(begun).Round(time.Second))
	db, err := sqlite.Open(ctx, l.Database())
	if err != nil {
		return err
	}
	w, err := serve(ctx, l)
	if err != nil {
		return errors.Join(err, db.Close())
	}
	if err = settled(ctx, db); err == nil {
		fmt.Printf("every fact has its place after %s\n", time.Since(begun).Round(time.Second))
		err = w.measure(ctx, db, o)
	}
	return errors.Join(err, w.stop(), db.Close())
}

// times are of one request: the first, and those after one to warm up, sorted.
type times struct {
	ask
	cold time.Duration
	warm []time.Duration
	err  error
}

func (t times) at(percent int) time.Duration {
	if len(t.warm) == 0 {
		return 0
	}
	return t.warm[min(len(t.warm)*percent/100, len(t.warm)-1)]
}

func (w *world) time(ctx context.Context, a ask, runs int) times {
	t := times{ask: a}
	for i := range runs + 2 {
		begun := time.Now()
		if _, err := w.get(ctx, a); err != nil {
			t.err = err
			return t
		}
		took := time.Since(begun)
		switch {
		case i == 0:
			t.cold = took
		case i > 1:
			t.warm = append(t.warm, took)
		}
	}
	slices.Sort(t.warm)
	return t
}

// slowest prints what was asked, the slowest first, and gives the largest p95.
func (w *world) slowest(ctx context.Context, title string, asks []ask, o options) time.Duration {
	var all []times
	for _, a := range asks {
		if strings.Contains(a.path, o.only) && ctx.Err() == nil {
			all = append(all, w.time(ctx, a, o.runs))
		}
	}
	slices.SortFunc(all, func(a, b times) int { return cmp.Compare(b.at(95), a.at(95)) })
	fmt.Printf("\n%s\n", title)
	tw := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "cold ms\tp50\tp95\tmax\t  who, what")
	for i, t := range all {
		if t.err != nil {
			fmt.Fprintf(tw, "-\t-\t-\t-\t  %v\n", t.err)
		} else if o.all || i < 25 {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t  %s: %s\n", millis(t.cold), millis(t.at(50)), millis(t.at(95)), millis(t.at(100)), t.who, t.path)
		}
	}
	_ = tw.Flush() // to the terminal
	if len(all) == 0 {
		return 0
	}
	fmt.Printf("%d requests\n", len(all))
	return all[0].at(95)
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }
