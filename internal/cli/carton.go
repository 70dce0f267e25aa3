package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/wire/carton"
)

// pack writes a carton.
func (a *api) pack(ctx context.Context, cl *client.Client, release string, of device.CartonOf, out string) error {
	r, err := findRelease(ctx, cl, release)
	if err != nil {
		return err
	}
	v, err := retried(ctx, func() (client.CartonView, error) { return cl.PackCarton(ctx, r.Digest, of) }, "carton.not-witnessed")
	if err != nil {
		return err
	}
	if err := durable.Write(out, 0o644, func(w io.Writer) error {
		_, err := w.Write(v.Head)
		for _, b := range v.Blobs {
			if err == nil {
				err = fetched(ctx, cl, r.Manifest.Product, b.Digest, w)
			}
		}
		return err
	}); err != nil {
		return err
	}
	return a.show(func(w io.Writer) error {
		return sheet(w, "written", out, "for", fleet.Count(len(v.Devices), "device", "devices"), "until", time.Unix(int64(v.Expires), 0).UTC().Format(time.RFC3339))
	})
}

// fetched writes the bytes with a digest.
func fetched(ctx context.Context, cl *client.Client, product, digest string, to io.Writer) error {
	h := sha256.New()
	if err := cl.Artifact(ctx, product, digest, io.MultiWriter(to, h)); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != digest {
		return fmt.Errorf("artifact %s came with other bytes, whose SHA-256 is %s", digest, got)
	}
	return nil
}

func (a *api) deviceHistory() *cobra.Command {
	c := &cobra.Command{Use: "history", Short: "What devices say that no line reaches"}
	c.AddCommand(a.verb(cobra.Command{
		Use: "import FILE…", Short: "Take in what devices wrote that installed from a carton",
		Long: `Takes in what devices wrote with ` + "`hallmark-agent history`" + `: what they run, what became of what they were told, their evidence and their own logs. Files may be given twice
and in any order: of one that is known already, older than what is known, or of before the device was handed on, only its log counts. Each file is tried, whatever becomes of the others.`,
		Args: cobra.MinimumNArgs(1), Example: "  hallmark device history import /media/stick/*.history",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		done, err := each(a, args, func(name string) (device.Taken, error) {
			data, err := readFile(name, carton.MaxHistory)
			if err != nil {
				return device.Taken{}, err
			}
			t, err := cl.TakeHistory(ctx, data)
			if err != nil && len(args) == 1 {
				err = fmt.Errorf("%s: %w", name, err)
			}
			return t, err
		})
		return after(err, len(done), func() error {
			return rows(a, "DEVICE AS-OF LOG NOTE", done, func(t device.Taken) []string {
				var notes []string
				if t.Known {
					notes = append(notes, "only its log counts")
				}
				if t.Behind > 0 {
					notes = append(notes, fleet.Count(t.Behind, "event of its log is missing: import it again later", "events of its log are missing: import it again later"))
				}
				return []string{t.Device, when(t.At), fmt.Sprint(t.Log), strings.Join(notes, "; ")}
			})
		})
	}))
	return c
}

// byHand says that what is shown of a device was carried here.
func byHand(d fleet.Detail) string {
	if d.Carried == nil {
		return ""
	}
	return ", as its word that was carried here says: how it is since, nobody knows"
}
