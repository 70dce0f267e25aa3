package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/label"
)

// labelDevices draws the codes that lead from a device to the page that says whether it is genuine.
func (a *api) labelDevices() *cobra.Command {
	var dir, site, format string
	c := a.verb(cobra.Command{
		Use: "label DEVICE…", Short: "Draw QR codes for labels: from the device to the page that says whether it is genuine", Args: cobra.MinimumNArgs(1),
		Long: `Writes a QR code for each device, DIR/DEVICE.svg or .png, which leads to SITE/g/DEVICE. Nothing in it is secret. IDs come as arguments, so that
any list of devices can be labelled:

  hallmark device list --product pump --all -o name | xargs hallmark device label --site https://genuine.acme.example --dir labels`,
		Example: "  hallmark device label 00112233445566778899aabbccddeeff --site https://genuine.acme.example --dir labels",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		draw, ok := map[string]func(string) ([]byte, error){"svg": label.SVG, "png": label.PNG}[format]
		if !ok {
			return usagef("--format %q: svg or png", format)
		}
		type written struct {
			Device string `json:"device"`
			URL    string `json:"url"`
			File   string `json:"file"`
		}
		var all []written
		for _, id := range args {
			if _, err := cl.Device(ctx, id); err != nil { // a label for a device that is not there would be read for years
				return err
			}
			u, err := label.URL(site, id)
			if err != nil {
				return usageError{err}
			}
			data, err := draw(u)
			if err != nil {
				return err
			}
			w := written{id, u, filepath.Join(dir, id+"."+format)}
			if err := durable.WriteFile(w.File, data, 0o644); err != nil {
				return err
			}
			all = append(all, w)
		}
		if a.output == asJSON {
			return printJSON(a.s.out, all)
		}
		return a.show(func(w io.Writer) error {
			for _, l := range all {
				if _, err := fmt.Fprintf(w, "%s  %s\n", l.File, l.URL); err != nil {
					return err
				}
			}
			return nil
		})
	})
	f := c.Flags()
	f.StringVar(&site, "site", "", "where people reach the console, https://host")
	f.StringVar(&dir, "dir", ".", "directory to write to; it must be there")
	f.StringVar(&format, "format", "svg", "svg or png")
	return need(c, "site")
}
