package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/plot"
	"github.com/hallmark-iot/hallmark/internal/sim"
)

func newSimulate(s streams) *cobra.Command {
	c := &cobra.Command{Use: "simulate", Short: "Play a fleet against a clock, before there is one"}
	c.AddCommand(simulateRenewals(s), simulateRollout(s))
	return c
}

// pattern is a way in which a fleet enrolled.
type pattern struct {
	name     string
	over     time.Duration
	together bool
}

func simulateRenewals(s streams) *cobra.Command {
	f := sim.Fleet{}
	var chart string
	var asJSON bool
	var days int
	c := &cobra.Command{
		Use: "renewals", Short: "How many certificates an hour a fleet asks for, over a year",
		Long: `Plays the renewals of a fleet, by the agent's own rules: between two thirds and five sixths of a certificate's life, and again after a failure
later and later, half of it random. "Together" is a fleet that draws nothing. An outage of the CA begins at half of the time: OUT-TRIES are the
attempts in its fullest minute, ENDED the devices whose certificate ran out (they come back by their factory identity), BACK the certificates in
the fullest minute after it, QUIET how long it takes until an hour is below twice the mean.

What it prints is to be held against what a CA of yours does a second: bench/RESULTS.md has what ours does.`,
		Args: cobra.NoArgs, Example: "  hallmark simulate renewals --devices 1000000 --life 336h --outage 24h --chart renewals.svg",
		RunE: func(*cobra.Command, []string) error {
			if f.Devices < 1 || f.Devices > 10_000_000 || f.Life < time.Hour || days < 2 || days > 3660 || f.Poll <= 0 || f.For < 0 {
				return usagef("want 1 to 10,000,000 devices, a life of an hour at least, and 2 to 3660 days")
			}
			f.Span = time.Duration(days) * 24 * time.Hour
			f.Down = f.Span / 2
			return renewals(s, f, chart, asJSON)
		},
	}
	fl := c.Flags()
	fl.IntVar(&f.Devices, "devices", 1_000_000, "how many")
	fl.DurationVar(&f.Life, "life", 14*24*time.Hour, "of a certificate")
	fl.IntVar(&days, "days", 365, "how long the clock runs")
	fl.DurationVar(&f.Poll, "poll", 5*time.Minute, "between check-ins")
	fl.DurationVar(&f.For, "outage", 24*time.Hour, "how long the CA is away; 0: never")
	fl.Uint64Var(&f.Seed, "seed", 1, "the same seed is the same year")
	fl.StringVar(&chart, "chart", "", "file to draw it in, SVG")
	fl.BoolVar(&asJSON, "json", false, "for other programs")
	return c
}

func renewals(s streams, f sim.Fleet, chart string, asJSON bool) error {
	const hour, week = time.Hour, 7 * 24 * time.Hour
	type row struct {
		Enrolled string  `json:"enrolled"`
		Together bool    `json:"together"`
		Mean     float64 `json:"mean_per_hour"`
		PeakHour int     `json:"peak_hour"`
		PeakMin  int     `json:"peak_minute"`
		OutTries int     `json:"outage_tries_peak_minute"`
		Ended    int     `json:"ended"`
		Back     int     `json:"back_peak_minute"`
		Quiet    float64 `json:"quiet_after_s"`
	}
	var rows []row
	var cells [][]string
	var drawn []plot.Line
	for _, p := range []pattern{{"in an hour", hour, true}, {"in an hour", hour, false}, {"in a week", week, true}, {"in a week", week, false}, {"over the year", f.Span, false}} {
		f := f
		f.Enrolled, f.Together = p.over, p.together
		calm := f
		calm.For = 0
		l := sim.Renewals(calm)
		r := row{Enrolled: p.name, Together: p.together, Mean: l.Mean(), PeakHour: l.PeakHour, PeakMin: l.PeakMinute}
		jitter := "spread"
		if p.together {
			jitter = "together"
		}
		if len(drawn) < 2 || p.over == week && !p.together {
			drawn = append(drawn, plot.Line{Name: "enrolled " + p.name + ", " + jitter, Points: l.PerHour})
		}
		cell := []string{p.name, jitter, fmt.Sprintf("%.0f", r.Mean), fmt.Sprint(r.PeakHour), fmt.Sprintf("%.1f", float64(r.PeakMin)/60)}
		if f.For > 0 {
			o := sim.Renewals(f)
			r.OutTries, r.Ended, r.Back, r.Quiet = o.PeakTry, o.Ended, o.BackPeak, o.Quiet.Seconds()
			cell = append(cell, fmt.Sprintf("%.1f", float64(o.PeakTry)/60), fmt.Sprint(o.Ended), fmt.Sprintf("%.1f", float64(o.BackPeak)/60), o.Quiet.String())
		}
		rows, cells = append(rows, r), append(cells, cell)
	}
	if chart != "" {
		title := fmt.Sprintf("Certificates an hour: %d devices, certificates of %s", f.Devices, f.Life)
		p := plot.Plot{Title: title, Axis: "months", Log: true, Fold: 6, Lines: drawn}
		for month := range int(f.Span/hour)/730 + 1 {
			p.Ticks = append(p.Ticks, plot.Tick{At: month * 730, Text: fmt.Sprint(month)})
		}
		if err := durable.WriteFile(chart, plot.Draw(p), 0o644); err != nil {
			return err
		}
	}
	if asJSON {
		return printJSON(s.out, rows)
	}
	head := "ENROLLED JITTER MEAN/H PEAK/H PEAK/S"
	if f.For > 0 {
		head += " OUT-TRIES/S ENDED BACK/S QUIET"
	}
	return table(s.out, head, cells)
}
