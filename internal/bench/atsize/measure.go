package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/bench/crowd"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/osv"
	"github.com/hallmark-iot/hallmark/supply/parts"
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
	lot, err := slowestLot(ctx, db, o)
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
	figure("Lot", lot)
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

// slowestLot asks which devices have a part of a lot that every order was made of, and how many they are: from the beginning, and from half-way on.
func slowestLot(ctx context.Context, db *store.DB, o options) (out time.Duration, err error) {
	const lot = "everywhere"
	if err := db.Parts().PutLot(ctx, parts.Lot{ID: lot, Part: "flash", Number: "1"}); err != nil && !errors.Is(err, parts.ErrExists) {
		return 0, err
	}
	orders, err := db.Orders(ctx, "", "", 0)
	if err != nil {
		return 0, err
	}
	for _, order := range orders {
		if err := db.Parts().Name(ctx, order.ID, []string{lot}, ledger.New(ledger.KindOrderLotsNamed, time.Now(), "person:ann", order.ID, nil, []byte("{}"))); err != nil {
			return 0, err
		}
	}
	fmt.Printf("\nDevices with a part of a lot that is everywhere\n")
	slices.SortFunc(orders, func(a, b factory.Order) int { return cmp.Compare(a.ID, b.ID) })
	for _, scope := range [][]string{nil, {crowd.Products()[0]}, {crowd.Group}} {
		for _, after := range []string{"", orders[len(orders)/2].ID + "/8"} {
			var counts, pages []time.Duration
			var devices int64
			for range max(o.runs/4, 3) {
				begun := time.Now()
				if devices, err = db.Parts().Count(ctx, lot, scope); err != nil {
					return 0, err
				}
				counts = append(counts, time.Since(begun))
				begun = time.Now()
				if _, err := db.Parts().Devices(ctx, lot, scope, after, 51); err != nil {
					return 0, err
				}
				pages = append(pages, time.Since(begun))
			}
			slices.Sort(counts)
			slices.Sort(pages)
			fmt.Printf("%8s ms to count, %s ms for a page after %q  %v: %d devices\n", millis(counts[len(counts)/2]), millis(pages[len(pages)/2]), after, scope, devices)
			out = max(out, counts[len(counts)/2], pages[len(pages)/2])
		}
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
					Filter: device.Filter{State: f.Get("state"), Verdict: f.Get("verdict"), Version: f.Get("version"), Release: f.Get("release"), Findings: f.Get("findings") != ""},
					After:  crowd.ID(after, t.n), Limit: 51,
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
