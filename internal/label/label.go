// Package label draws what a device's label says to a telephone: a QR code that leads to the page that says whether it is genuine.
//
// Over all stages. It is pure. The code holds the address of the page and the device's ID, and nothing that is secret; what is read from a
// label proves nothing, and the page says so.
package label

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"

	"rsc.io/qr"
)

// quiet is the white border that the standard asks for, modules (ISO/IEC 18004 §9.1).
const quiet = 4

// URL is where the code of a device leads. site is https://host, without a path.
func URL(site, device string) (string, error) {
	u, err := url.Parse(site)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("site %q: want https://host, where people reach the console", site)
	}
	return u.Scheme + "://" + u.Host + "/g/" + url.PathEscape(device), nil
}

// SVG draws text as a QR code, black on white whatever it is laid on.
func SVG(text string) ([]byte, error) {
	c, err := qr.Encode(text, qr.M)
	if err != nil {
		return nil, fmt.Errorf("QR code: %w", err)
	}
	n := c.Size + 2*quiet
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" shape-rendering="crispEdges">`, n, n, 4*n, 4*n)
	fmt.Fprintf(&b, `<path fill="#fff" d="M0 0h%dv%dH0z"/><path fill="#000" d="`, n, n)
	for y := range c.Size {
		for x := 0; x < c.Size; x++ {
			run := 0
			for x+run < c.Size && c.Black(x+run, y) {
				run++
			}
			if run > 0 {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", x+quiet, y+quiet, run, run)
				x += run
			}
		}
	}
	b.WriteString(`"/></svg>` + "\n")
	return b.Bytes(), nil
}

// PNG draws text as a QR code with eight pixels a module.
func PNG(text string) ([]byte, error) {
	c, err := qr.Encode(text, qr.M)
	if err != nil {
		return nil, fmt.Errorf("QR code: %w", err)
	}
	return c.PNG(), nil
}
