package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/onboard/owner"
)

func newRecall(a *api) *cobra.Command {
	return a.noun("recall", "Devices that are called back, for everybody to see", a.listRecalls(), a.createRecall(), a.mendDevices())
}

func (a *api) listRecalls() *cobra.Command {
	var product string
	c := listing(a, cobra.Command{Use: "list", Short: "List recalls, newest first", Example: "  hallmark recall list --product pump"},
		"ID PRODUCT HARDWARE ORDER DEVICES OPEN DUE REASON",
		func(ctx context.Context, cl *client.Client, _ []string) ([]owner.Recall, error) {
			return cl.Recalls(ctx, product)
		},
		func(r owner.Recall) []string {
			return []string{r.ID, r.Product, or(r.Hardware), or(r.Order), fmt.Sprint(r.Devices), fmt.Sprint(r.Open), when(r.Due), r.Reason}
		})
	c.Flags().StringVar(&product, "product", "", "only this product's")
	return c
}

func (a *api) createRecall() *cobra.Command {
	var r client.RecallRequest
	var due string
	var dry bool
	var confirmed int
	c := a.verb(cobra.Command{
		Use: "create --product PRODUCT --reason TEXT --remedy TEXT --due DAY", Short: "Recall devices of a product",
		Long: `Marks the living devices of a product, of a hardware revision, of an order or in a range of IDs as recalled, until each is mended. What is wrong,
what to do and until when is public for ever: whoever asks whether a device is genuine is told.`,
		Example: "  hallmark recall create --product pump --order ord-1 --reason 'the seal may leak' --remedy 'have it replaced' --due 2029-06-30 --dry-run",
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		day, err := time.Parse(time.DateOnly, due)
		if err != nil {
			return usagef("--due %q: want a day, as 2029-06-30", due)
		}
		r.Due = day.UTC().Format(time.RFC3339)
		seen, err := cl.Recall(ctx, r, true)
		if err != nil {
			return err
		}
		if !dry {
			if err := bulk(seen.Devices, confirmed, "recall"); err != nil {
				return err
			}
			if seen, err = cl.Recall(ctx, r, false); err != nil {
				return err
			}
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "recall", or(seen.ID), "product", seen.Product, "devices", fmt.Sprint(seen.Devices), "reason", seen.Reason, "remedy", seen.Remedy, "due", when(seen.Due))
		})
	})
	f := c.Flags()
	f.StringVar(&r.Product, "product", "", "the devices' product")
	f.StringVar(&r.Hardware, "hardware", "", "only this revision")
	f.StringVar(&r.Order, "order", "", "only of this production order")
	f.StringVar(&r.From, "from", "", "only from this device ID on")
	f.StringVar(&r.To, "to", "", "only up to this device ID")
	f.StringVar(&r.Reason, "reason", "", "what is wrong, for everybody to read")
	f.StringVar(&r.Remedy, "remedy", "", "what to do, for everybody to read")
	f.StringVar(&due, "due", "", "until when it should be done: a day")
	f.BoolVar(&dry, "dry-run", false, "count the devices only")
	f.IntVar(&confirmed, "confirm-count", 0, "how many devices you mean, for more than 5")
	return need(c, "product", "reason", "remedy", "due")
}

func (a *api) mendDevices() *cobra.Command {
	var recall, reason string
	c := a.overDevices(cobra.Command{
		Use: "mended DEVICE… --recall RECALL --reason TEXT", Short: "Lift a recall for devices that were mended",
		Example: "  hallmark recall mended 00112233445566778899aabbccddeeff --recall rc-4k2m7zq3x5nd --reason 'seal replaced'",
	}, func(ctx context.Context, cl *client.Client, ids []string) error {
		done, err := each(a, ids, func(id string) (string, error) {
			_, err := cl.Mended(ctx, recall, id, reason)
			return id, err
		})
		return after(err, len(done), func() error {
			return rows(a, "DEVICE MENDED", done, func(id string) []string { return []string{id, recall} })
		})
	})
	c.Flags().StringVar(&recall, "recall", "", "ID of the recall")
	c.Flags().StringVar(&reason, "reason", "", "what was done")
	return need(c, "recall", "reason")
}
