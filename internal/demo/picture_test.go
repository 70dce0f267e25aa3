package demo

import (
	"bytes"
	"cmp"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/chromedp/chromedp"
)

const (
	pictures   = "../../docs/pictures"
	maxPicture = 150 << 10 // bytes: a repository keeps each of them for ever
)

func picturing() bool { return os.Getenv("HALLMARK_PICTURES") != "" }

// picture takes one for the documentation when HALLMARK_PICTURES asks for it:
//
//	HALLMARK_PICTURES=1 go test ./internal/demo -run Journeys
func (p *person) picture(name, scheme string) {
	p.t.Helper()
	if !picturing() {
		return
	}
	was := look[[]int64](p, "[innerWidth, innerHeight]")
	height := int64(860)
	if was[0] < 800 {
		height = 844
	}
	p.scheme(scheme)
	p.do("hold still", chromedp.EmulateViewport(was[0], height, chromedp.EmulateScale(1.5)))
	p.until("nothing to move", `(scrollTo(0, 0), document.activeElement.blur(), document.getAnimations().length === 0)`)
	ctx := p.ctx
	shot, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.lost("take a picture", err)
	}
	small, err := pale(shot)
	if err != nil {
		p.t.Fatal(err)
	}
	if len(small) > maxPicture {
		p.t.Errorf("the picture %s has %d bytes, more than %d", name, len(small), maxPicture)
	}
	if err := os.WriteFile(filepath.Join(pictures, name+".png"), small, 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.do("go on", chromedp.EmulateViewport(was[0], was[1]))
	p.scheme("light")
}

// pale writes a picture with a palette of the colours it has most of; a page has few, and the shades between them.
func pale(shot []byte) ([]byte, error) {
	img, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		return nil, err
	}
	count := map[color.RGBA]int{}
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(img.At(x, y)).(color.RGBA) }
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			c := at(x, y)
			count[color.RGBA{c.R &^ 3, c.G &^ 3, c.B &^ 3, 0xff}]++
		}
	}
	most := slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int {
		return cmp.Or(count[b]-count[a], int(a.R)-int(b.R), int(a.G)-int(b.G), int(a.B)-int(b.B))
	})
	var palette color.Palette
	for _, c := range most[:min(len(most), 256)] {
		palette = append(palette, c)
	}
	out, nearest := image.NewPaletted(b, palette), map[color.RGBA]uint8{}
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			c := at(x, y)
			i, known := nearest[c]
			if !known {
				i = uint8(palette.Index(c))
				nearest[c] = i
			}
			out.SetColorIndex(x, y, i)
		}
	}
	var file bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&file, out)
	return file.Bytes(), err
}
