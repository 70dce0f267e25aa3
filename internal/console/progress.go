package console

import (
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/internal/plot"
	"github.com/hallmark-iot/hallmark/rollout"
)

// columns is how many values a line of a chart has.
const columns = 400

// tickSteps are the distances that ticks may have, of which the shortest is taken that leaves no more than ten.
var tickSteps = []time.Duration{
	5 * time.Second, 10 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 6 * time.Hour, 12 * time.Hour,
	24 * time.Hour, 2 * 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour, 90 * 24 * time.Hour, 365 * 24 * time.Hour,
}

// progressChart draws how a rollout stood over time; nil while there is nothing to be seen yet.
func progressChart(r rollout.Rollout, points []rollout.Point, now time.Time) []byte {
	if len(points) < 2 {
		return nil
	}
	from, to, last := points[0].At, now, points[len(points)-1]
	if !r.Ended.IsZero() {
		to = r.Ended
	}
	if to.Before(last.At) {
		to = last.At
	}
	step := max(to.Sub(from)/columns, time.Second)
	steps := int((to.Sub(from) + step - 1) / step)
	at := func(t time.Time) int { return min(max(int(t.Sub(from)/step), 0), steps) }

	counted := func(name string, n int) plot.Line { return plot.Line{Name: name + ": " + number(n)} }
	c := last.Counts
	p := plot.Plot{
		Title: "How many devices, over time", Log: false,
		Lines: []plot.Line{counted("failed", c.Failed), counted("told", c.Told()), counted("good", c.Good)},
	}
	if c.Returned > 0 {
		p.Lines = append(p.Lines, counted("sent back", c.Returned))
	}
	for i, next := 0, 0; i <= steps; i++ {
		for next < len(points)-1 && (!points[next+1].At.After(from.Add(time.Duration(i)*step)) || i == steps) {
			next++
		}
		c := points[next].Counts
		for k, n := range []int{c.Failed, c.Told(), c.Good, c.Returned}[:len(p.Lines)] {
			p.Lines[k].Points = append(p.Lines[k].Points, n)
		}
	}
	p.Axis, p.Ticks = ticks(to.Sub(from), step)
	for i, w := range r.Waves {
		if !w.Succeeded.IsZero() && !w.Open {
			p.Marks = append(p.Marks, plot.Tick{At: at(w.Succeeded), Text: fmt.Sprintf("wave %d passed", i+1)})
		}
	}
	if !r.Halted.IsZero() {
		p.Marks = append(p.Marks, plot.Tick{At: at(r.Halted), Text: "halted"})
	}
	return plot.Draw(p)
}

// ticks names steps of a time that begins at 0, in the largest unit that leaves whole numbers.
func ticks(span, step time.Duration) (axis string, out []plot.Tick) {
	every := tickSteps[len(tickSteps)-1]
	for _, d := range tickSteps {
		if span/d <= 10 {
			every = d
			break
		}
	}
	unit, name := time.Minute, "minutes"
	switch {
	case every < time.Minute:
		unit, name = time.Second, "seconds"
	case every >= 24*time.Hour:
		unit, name = 24*time.Hour, "days"
	case every >= time.Hour:
		unit, name = time.Hour, "hours"
	}
	for t := time.Duration(0); t <= span; t += every {
		out = append(out, plot.Tick{At: int(t / step), Text: number(int(t / unit))})
	}
	return name + " since it started", out
}
