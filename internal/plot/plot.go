// Package plot draws lines over time, as SVG.
//
// Under all stages: it knows nothing of what it draws.
package plot

import (
	"bytes"
	"fmt"
	"math"
	"strings"
)

// Line is one of a plot: a value for each step.
type Line struct {
	Name   string
	Points []int

	room int // of a name, in the legend
}

// Tick is a step with a name.
type Tick struct {
	At   int
	Text string
}

// Plot is values over time.
type Plot struct {
	Title string
	Axis  string // what the ticks are
	Ticks []Tick
	Marks []Tick // what happened, as lines across
	Log   bool   // on a logarithmic scale
	Fold  int    // of so many points the highest is drawn; 0: each
	Lines []Line // at most four
}

// Sizes of a plot, in its own units.
const (
	chartWidth, chartHeight = 900, 380
	chartLeft, chartTop     = 80, 60
	chartRight, chartBottom = 20, 50
	chartTall, chartWide    = float64(chartHeight - chartTop - chartBottom), float64(chartWidth - chartLeft - chartRight)
)

var chartColours = [...]string{"#b3261e", "#0b57d0", "#1e7d34", "#8a5a00"}

// scale is where values are drawn.
type scale struct {
	steps int
	top   float64
	log   bool
}

func scaleOf(p Plot) scale {
	s := scale{top: 1, log: p.Log}
	for _, l := range p.Lines {
		s.steps = max(s.steps, len(l.Points))
		for _, n := range l.Points {
			s.top = max(s.top, float64(n))
		}
	}
	return s
}

func (s scale) x(step int) float64 {
	return chartLeft + chartWide*float64(step)/float64(max(s.steps, 1))
}

func (s scale) y(n float64) float64 {
	part := n / s.top
	if s.log {
		part = math.Log10(max(n, 1)) / max(math.Ceil(math.Log10(s.top)), 1)
	}
	return chartTop + chartTall*(1-part)
}

// grid gives the values that have a line of their own.
func (s scale) grid() (out []float64) {
	if s.log {
		for d := 0.0; d <= math.Ceil(math.Log10(s.top)); d++ {
			out = append(out, math.Pow(10, d))
		}
		return out
	}
	step := math.Pow(10, math.Floor(math.Log10(s.top)))
	for s.top/step < 4 {
		step /= 2
	}
	for v := 0.0; v <= s.top; v += step {
		out = append(out, v)
	}
	return out
}

// Draw draws a plot. What a person needs is in its title and labels. Its parts have classes (ground, grid, event, line0 and on), so that a page may give them its own
// colours.
func Draw(p Plot) []byte {
	s := scaleOf(p)
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" font-family="system-ui, sans-serif" font-size="13">`+"\n", chartWidth, chartHeight)
	fmt.Fprintf(&b, "<title>%s</title><rect class=\"ground\" width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", escape(p.Title))
	fmt.Fprintf(&b, `<text x="%d" y="20" font-size="15" font-weight="600">%s</text>`+"\n", chartLeft, escape(p.Title))
	for _, v := range s.grid() {
		fmt.Fprintf(&b, `<path class="grid" d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end" fill="#444">%s</text>`+"\n",
			chartLeft, s.y(v), chartWidth-chartRight, chartLeft-8, s.y(v)+4, Thousands(v))
	}
	for _, t := range p.Ticks {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#444">%s</text>`+"\n", s.x(t.At), chartHeight-chartBottom+18, escape(t.Text))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" fill="#444">%s</text>`+"\n", chartLeft+int(chartWide/2), chartHeight-12, escape(p.Axis))
	for i, t := range p.Marks {
		x, side, beside := s.x(t.At), "end", -4.0
		if x < chartLeft+chartWide/2 { // what is said of the beginning is not said over the numbers
			side, beside = "start", 4
		}
		fmt.Fprintf(&b, `<path class="event" d="M%.1f %dV%d" stroke="#777" stroke-dasharray="4 3"/><text x="%.1f" y="%d" text-anchor="%s" fill="#222">%s</text>`+"\n",
			x, chartTop, chartHeight-chartBottom, x+beside, chartTop+14+16*(i%4), side, escape(t.Text))
	}
	for i, l := range p.Lines {
		l.room = (chartWidth - chartLeft) / max(len(p.Lines), 3)
		drawLine(&b, s, i, l, max(p.Fold, 1))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func drawLine(b *bytes.Buffer, s scale, i int, l Line, fold int) {
	colour := chartColours[i%len(chartColours)]
	fmt.Fprintf(b, `<path class="line%d" fill="none" stroke="%s" stroke-width="1.6" d="`, i, colour)
	for p := 0; p < len(l.Points); p += fold {
		most := 0
		for _, n := range l.Points[p:min(p+fold, len(l.Points))] {
			most = max(most, n)
		}
		fmt.Fprintf(b, "%c%.1f %.1f", "ML"[min(p, 1)], s.x(p), s.y(float64(most)))
	}
	b.WriteString("\"/>\n")
	at := chartLeft + i*l.room
	fmt.Fprintf(b, `<path class="line%d" d="M%d 41h18" stroke="%s" stroke-width="3"/><text x="%d" y="45" fill="#222">%s</text>`+"\n", i, at, colour, at+24, escape(l.Name))
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(s)
}

// Thousands writes a number as people read it.
func Thousands(n float64) string {
	s := fmt.Sprintf("%.0f", n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
