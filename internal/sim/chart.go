package sim

import (
	"bytes"
	"fmt"
	"math"
	"strings"
)

// Line is one of a chart.
type Line struct {
	Name  string
	Hours []int
}

// Sizes of the chart, in its own units.
const (
	chartWidth, chartHeight = 900, 380
	chartLeft, chartTop     = 80, 60
	chartRight, chartBottom = 20, 50
	perPoint                = 6 // hours: the fullest of them is drawn
)

var chartColours = [...]string{"#b3261e", "#0b57d0", "#1e7d34", "#8a5a00"}

// Chart draws certificates an hour over a year, on a logarithmic scale: a fleet that renews together and one that does not differ by powers
// of ten. What a person needs is in its title, description and labels.
func Chart(title string, lines []Line) []byte {
	top := 1.0
	hours := 0
	for _, l := range lines {
		hours = max(hours, len(l.Hours))
		for _, n := range l.Hours {
			top = max(top, float64(n))
		}
	}
	decades := math.Ceil(math.Log10(top))
	w, h := float64(chartWidth-chartLeft-chartRight), float64(chartHeight-chartTop-chartBottom)
	x := func(hour int) float64 { return chartLeft + w*float64(hour)/float64(max(hours, 1)) }
	y := func(n float64) float64 { return chartTop + h*(1-math.Log10(max(n, 1))/max(decades, 1)) }
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" font-family="system-ui, sans-serif" font-size="13">`+"\n", chartWidth, chartHeight)
	fmt.Fprintf(&b, "<title>%s</title><rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", escape(title))
	fmt.Fprintf(&b, `<text x="%d" y="20" font-size="15" font-weight="600">%s</text>`+"\n", chartLeft, escape(title))
	for d := 0.0; d <= decades; d++ {
		at := y(math.Pow(10, d))
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end" fill="#444">%s</text>`+"\n",
			chartLeft, at, chartWidth-chartRight, chartLeft-8, at+4, thousands(math.Pow(10, d)))
	}
	for month := range hours/730 + 1 {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#444">%d</text>`+"\n", x(month*730), chartHeight-chartBottom+18, month)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" fill="#444">months</text>`+"\n", chartLeft+int(w/2), chartHeight-12)
	for i, l := range lines {
		colour := chartColours[i%len(chartColours)]
		fmt.Fprintf(&b, `<path fill="none" stroke="%s" stroke-width="1.2" d="`, colour)
		for p := 0; p < len(l.Hours); p += perPoint {
			most := 0
			for _, n := range l.Hours[p:min(p+perPoint, len(l.Hours))] {
				most = max(most, n)
			}
			fmt.Fprintf(&b, "%c%.1f %.1f", "ML"[min(p, 1)], x(p), y(float64(most)))
		}
		b.WriteString("\"/>\n")
		fmt.Fprintf(&b, `<path d="M%d 41h18" stroke="%s" stroke-width="3"/><text x="%d" y="45" fill="#222">%s</text>`+"\n", chartLeft+i*275, colour, chartLeft+i*275+24, escape(l.Name))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(s)
}

func thousands(n float64) string {
	s := fmt.Sprintf("%.0f", n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
