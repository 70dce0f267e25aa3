package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/bench/crowd"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/osv"
)

// measure asks for everything, and prints the figures.
func (w *world) measure(ctx context.Context, db *store.DB, o options) error {
	t, err := find(ctx, db, o.devices)
	if err != nil {
		return err
	}
	page := w.slowest(ctx, "Pages of the console", t.pages(), o)
	list := w.slowest(ctx, "Lists of the API", t.lists(), o)
	query, err := slowestQuery(ctx, db, t, o)
	if err != nil {
		return err
	}
	component, err := slowestComponent(ctx, db, o)
	if err != nil {
		return err
	}
	paint, err := w.firstPaint(ctx)
	if err != nil && !errors.Is(err, errNoBrowser) {
		return err
	}
	fmt.Println()
	figure("Page", page)
	figure("List", list)
	figure("Query", query)
	figure("Component", component)
	if err == nil {
		figure("Paint", paint)
	}
	return nil
}

// slowestComponent asks which devices run a component that every release has inside, and gives the largest median.
func slowestComponent(ctx context.Context, db *store.DB, o options) (out time.Duration, err error) {
	of, _, _ := osv.Of(crowd.Component)
	fmt.Printf("\nDevices with a component that is everywhere\n")
	for _, scope := range [][]string{nil, {crowd.Products()[0]}, {crowd.Group}} {
		var ds []time.Duration
		var devices int64
		for range max(o.runs/4, 3) {
			begun := time.Now()
			uses, err := db.Supply().Uses(ctx, of.Base(), of.Name, scope)
			if err != nil {
				return 0, err
			}
			ds = append(ds, time.Since(begun))
			devices = supply.Devices(uses)
		}
		slices.Sort(ds)
		fmt.Printf("%8s ms  %v: %d devices\n", millis(ds[len(ds)/2]), scope, devices)
		out = max(out, ds[len(ds)/2])
	}
	return out, nil
}

// figure prints one in the form of go test -bench.
func figure(name string, d time.Duration) {
	fmt.Printf("BenchmarkAtSize%s 1 %d ns/op\n", name, d.Nanoseconds())
}

// slowestQuery takes the device list's queries alone, without a server, and gives the largest median.
func slowestQuery(ctx context.Context, db *store.DB, t things, o options) (time.Duration, error) {
	type took struct {
		name string
		d    time.Duration
	}
	var all []took
	for _, scope := range []string{"", crowd.Products()[0], crowd.Products()[2], crowd.Group, crowd.SmallGroup} {
		for _, f := range filters(t.release) {
			if f.Get("product") != "" || f.Get("release") != "" && scope == crowd.Products()[2] { // the release is another product's
				continue
			}
			for _, after := range []int{0, t.n / 2, t.n - t.n/50} {
				q := fleet.Query{
					State: f.Get("state"), Verdict: f.Get("verdict"), Version: f.Get("version"), Release: f.Get("release"), Findings: f.Get("findings") != "",
					After: crowd.ID(after, t.n), Limit: 51,
				}
				if scope != "" {
					q.Scope = []string{scope}
				}
				var ds []time.Duration
				for range max(o.runs/2, 3) {
					begun := time.Now()
					if _, err := db.FleetDevices(ctx, q); err != nil {
						return 0, err
					}
					ds = append(ds, time.Since(begun))
				}
				slices.Sort(ds)
				all = append(all, took{fmt.Sprintf("%s %s after %d", scope, f.Encode(), after), ds[len(ds)/2]})
			}
		}
	}
	slices.SortFunc(all, func(a, b took) int { return cmp.Compare(b.d, a.d) })
	fmt.Printf("\nQueries of the device list\n")
	for _, q := range all[:min(20, len(all))] {
		fmt.Printf("%8s ms  %s\n", millis(q.d), q.name)
	}
	return all[0].d, nil
}
