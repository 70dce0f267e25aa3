package label_test

import (
	"bytes"
	"encoding/xml"
	"image/png"
	"strconv"
	"strings"
	"testing"

	"rsc.io/qr"

	"github.com/hallmark-iot/hallmark/internal/label"
)

const device = "00112233445566778899aabbccddeeff"

func TestALabelLeadsToThePage(t *testing.T) {
	u, err := label.URL("https://genuine.acme.example/", device)
	if err != nil || u != "https://genuine.acme.example/g/"+device {
		t.Errorf("%q, %v", u, err)
	}
	for _, bad := range []string{"", "genuine.acme.example", "ftp://x", "https://", "https://x/y", "https://x?y"} {
		if u, err := label.URL(bad, device); err == nil {
			t.Errorf("site %q gives %q", bad, u)
		}
	}
}

// The drawing is the code's: every module of it, and nothing else, is black.
func TestTheDrawingIsTheCode(t *testing.T) {
	text := "https://genuine.acme.example/g/" + device
	svg, err := label.SVG(text)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths []struct {
			D string `xml:"d,attr"`
		} `xml:"path"`
	}
	if err := xml.Unmarshal(svg, &doc); err != nil || len(doc.Paths) != 2 {
		t.Fatalf("%v: %s", err, svg)
	}
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		t.Fatal(err)
	}
	black := map[[2]int]bool{}
	for run := range strings.SplitSeq(strings.Trim(doc.Paths[1].D, "Mz"), "zM") {
		place, rest, _ := strings.Cut(run, "h")
		xs, ys, _ := strings.Cut(place, " ")
		length, _, _ := strings.Cut(rest, "v")
		x, e1 := strconv.Atoi(xs)
		y, e2 := strconv.Atoi(ys)
		n, e3 := strconv.Atoi(length)
		if e1 != nil || e2 != nil || e3 != nil {
			t.Fatalf("run %q", run)
		}
		for i := range n {
			black[[2]int{x + i - 4, y - 4}] = true
		}
	}
	for y := range code.Size {
		for x := range code.Size {
			if code.Black(x, y) != black[[2]int{x, y}] {
				t.Fatalf("module %d %d is drawn %v", x, y, black[[2]int{x, y}])
			}
		}
	}
	img, err := label.PNG(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(img)); err != nil {
		t.Error(err)
	}
}
