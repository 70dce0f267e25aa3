package plot_test

import (
	"bytes"
	"encoding/xml"
	"io"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/plot"
)

func TestTheChartIsADrawing(t *testing.T) {
	svg := plot.Draw(plot.Plot{Title: "a < b", Axis: "hours & days", Log: true, Fold: 6, Lines: []plot.Line{{Name: "one & all", Points: []int{0, 3, 1000}}}, Marks: []plot.Tick{{At: 5, Text: "<here>"}}})
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		if _, err := d.Token(); err == io.EOF { //nolint:errorlint // io.Reader's own
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
