package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/wire"
)

func newOrder(a *api) *cobra.Command {
	return a.noun("order", "Birth: what a station may make, and what it made",
		a.listOrders(), a.showOrder(), a.createOrder(), a.oemFile(), a.importRecords(), a.reconcileOrder(), a.closeOrder(), a.cancelOrder(), a.abandonOrder())
}

func (a *api) listOrders() *cobra.Command {
	var productID string
	c := listing(a, cobra.Command{Use: "list", Short: "List orders, newest first", Example: "  hallmark order list --product pump"},
		"ID PRODUCT HARDWARE QUOTA STATE VERSION STATION UNTIL",
		func(ctx context.Context, cl *client.Client, _ []string) ([]factory.Order, error) {
			return cl.Orders(ctx, productID)
		},
		func(o factory.Order) []string {
			return []string{o.ID, o.Product, o.Hardware, fmt.Sprint(o.Quota), string(o.State), o.Version, o.StationName, when(o.NotAfter)}
		})
	c.Flags().StringVar(&productID, "product", "", "only this product's")
	return c
}

func (a *api) showOrder() *cobra.Command {
	return a.verb(cobra.Command{Use: "show ORDER", Short: "Show an order", Args: cobra.ExactArgs(1), Example: "  hallmark order show order-7"},
		func(ctx context.Context, cl *client.Client, args []string) error {
			o, err := cl.Order(ctx, args[0])
			if err != nil {
				return err
			}
			return a.show(func(w io.Writer) error {
				return sheet(w, "order", o.ID, "product", o.Product, "hardware", o.Hardware, "quota", fmt.Sprint(o.Quota), "state", string(o.State),
					"station", o.StationName, "its record key", o.Station, "its module", o.Module, "version", o.Version, "release", o.Release,
					"trust bundle", fmt.Sprint(o.Bundle), "from", when(o.NotBefore), "until", when(o.NotAfter), "created", when(o.Created), "closed", when(o.Closed))
			})
		})
}

// orderCall is what one order was asked for.
type orderCall struct {
	req                          client.OrderRequest
	descriptor, station, release string
	days, slots                  uint32
	slotSize                     uint64
	erase                        uint32
	server, mqtt, config, out    string
}

func (a *api) createOrder() *cobra.Command {
	var o orderCall
	c := a.verb(cobra.Command{
		Use:   "create --product PRODUCT --quota N --release RELEASE --descriptor FILE --station FINGERPRINT --server URL --slot-size BYTES --out FILE",
		Short: "Order devices from one station, and write the order's file",
		Long: `Orders devices from one station, and writes the order's file, which is safe to mail. The server gives it out this once: keep it.

--descriptor is what ` + "`hallmark-station descriptor`" + ` wrote there; --station is the fingerprint it printed, learned another way than
the file. RELEASE is the digest of the release to put on the devices, or PRODUCT@VERSION.`,
		Example: `  hallmark order create --product pump --hardware A --quota 500 --release pump@1.0.0 --descriptor station.hmd \
    --station 3f0c…(64 hex digits) --server https://devices.example.com:8443 --slot-size 8388608 --out order-7.hmo`,
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		return a.order(ctx, cl, o)
	})
	f := c.Flags()
	f.StringVar(&o.req.Product, "product", "", "product")
	f.StringVar(&o.req.Hardware, "hardware", "A", "hardware revision")
	f.Uint32Var(&o.req.Quota, "quota", 0, "how many devices may be made, at most")
	f.StringVar(&o.release, "release", "", "release to put on them")
	f.StringVar(&o.descriptor, "descriptor", "", "the station's signed descriptor")
	f.StringVar(&o.station, "station", "", "fingerprint of the station's record key, 64 hex digits")
	f.Uint32Var(&o.days, "days", 30, "days until the order ends")
	f.Uint32Var(&o.req.MaxOfflineDays, "max-offline-days", 0, "days the station may work without reporting (default: the server's)")
	f.StringVar(&o.req.Chips, "chips", "", "only chips of this vendor, which came with their keys: see hallmark chip import")
	f.StringVar(&o.req.ID, "id", "", "the order's ID (default: the server's choice)")
	f.StringVar(&o.server, "server", "", "https address the devices call")
	f.StringVar(&o.mqtt, "mqtt", "", "mqtts address for telemetry")
	f.Uint64Var(&o.slotSize, "slot-size", 0, "largest release a device must take, bytes")
	f.Uint32Var(&o.slots, "slots", 2, "slots for releases")
	f.Uint32Var(&o.erase, "erase-size", 16<<10, "erase unit of the flash, bytes")
	f.StringVar(&o.config, "config", "", "file: first configuration of the devices")
	f.BoolVar(&o.req.FirstArticle, "first-article", false, "have one made and inspected before the others")
	f.StringVar(&o.out, "out", "", "order file to write; must not exist")
	return need(c, "product", "quota", "release", "descriptor", "station", "server", "slot-size", "out")
}

func (a *api) order(ctx context.Context, cl *client.Client, o orderCall) (err error) {
	if o.req.StationPin, err = hex.DecodeString(o.station); err != nil || len(o.req.StationPin) != 32 {
		return usagef("--station %q: want the fingerprint that `hallmark-station init` printed, 64 hex digits", o.station)
	}
	if _, err := os.Stat(o.out); !errors.Is(err, os.ErrNotExist) {
		return usagef("%s exists: choose another --out, because the server gives an order's file out once", o.out)
	}
	if o.req.Descriptor, err = readFile(o.descriptor, wire.MaxEnvelope); err != nil {
		return fmt.Errorf("--descriptor: %w", err)
	}
	o.req.NotAfter = time.Now().AddDate(0, 0, int(o.days)).UTC()
	o.req.Params = wire.DeviceParams{
		Flash:   wire.Flash{Size: uint64(o.slots) * o.slotSize, Erase: o.erase, Slots: o.slots, SlotSize: o.slotSize},
		Servers: wire.Servers{Device: o.server, MQTT: o.mqtt},
	}
	if o.config != "" {
		if o.req.Params.Config, err = readFile(o.config, wire.MaxEnvelope); err != nil {
			return fmt.Errorf("--config: %w", err)
		}
	}
	if _, o.req.Release, err = digestOf(ctx, cl, o.release); err != nil {
		return err
	}
	var made client.OrderView
	if err := durable.Write(o.out, 0o600, func(w io.Writer) (err error) {
		made, err = cl.CreateOrder(ctx, o.req, w)
		return err
	}); err != nil {
		if made.ID != "" {
			err = fmt.Errorf("order %s was made, and its file is lost: `hallmark order cancel %s`, and order anew: %w", made.ID, made.ID, err)
		}
		return err
	}
	return a.show(func(w io.Writer) error {
		return sheet(w, "order", made.ID, "station", made.StationName, "quota", fmt.Sprint(made.Quota), "until", when(made.NotAfter), "written", o.out)
	})
}

func (a *api) oemFile() *cobra.Command {
	var out string
	c := a.verb(cobra.Command{
		Use: "oem --out FILE", Short: "Write what a station must pin of this maker", Long: "Writes what a station must pin of this maker, for `hallmark-station trust`, which prints the same fingerprint: compare them by telephone.",
		Example: "  hallmark order oem --out acme.json",
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		f, err := cl.OEM(ctx)
		if err != nil {
			return err
		}
		if err := durable.WriteFile(out, a.last, 0o644); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "oem", f.ID, "fingerprint", f.Fingerprint(), "written", out) })
	})
	c.Flags().StringVar(&out, "out", "", "file to write")
	return need(c, "out")
}

func (a *api) importRecords() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "import ORDER FILE", Short: "Import production records; the same file again changes nothing",
		Long:    "Imports production records; the same file again changes nothing. Records that cannot be true become findings, and the exit code is 3.",
		Args:    cobra.ExactArgs(2),
		Example: "  hallmark order import order-7 records.hmr",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		data, err := readFile(args[1], client.MaxRecords)
		if err != nil {
			return err
		}
		r, err := cl.ImportRecords(ctx, args[0], data)
		if err != nil {
			return err
		}
		if err := a.show(func(w io.Writer) error {
			pairs := []string{
				"order", r.Order, "accepted", fmt.Sprint(r.Accepted), "known before", fmt.Sprint(r.Known), "not made", fmt.Sprint(r.NotMade), "waiting", waiting(r),
				"alarms", fmt.Sprint(len(r.Alarms)), "station's end", yes(r.JobEnd),
			}
			for _, s := range r.Alarms {
				pairs = append(pairs, fmt.Sprintf("record %d", s.Seq), s.Reason)
			}
			return sheet(w, pairs...)
		}); err != nil || len(r.Alarms) == 0 {
			return err
		}
		return partError{fmt.Errorf("%d records cannot be true: see `hallmark finding list`", len(r.Alarms))}
	})
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (a *api) reconcileOrder() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "reconcile ORDER", Short: "Compare what was ordered with what was made and seen", Args: cobra.ExactArgs(1), Example: "  hallmark order reconcile order-7",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r, err := cl.Reconcile(ctx, args[0])
		if err != nil {
			return err
		}
		return a.reconciliation(r)
	})
}

func (a *api) closeOrder() *cobra.Command {
	return a.matching(a.verb(cobra.Command{
		Use: "close ORDER", Short: "Close an order whose records are all here", Args: cobra.ExactArgs(1), Example: "  hallmark order close order-7",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r, err := cl.CloseOrder(ctx, args[0])
		if err != nil {
			return err
		}
		return a.reconciliation(r)
	}))
}

func (a *api) cancelOrder() *cobra.Command {
	return a.voidOrder(cobra.Command{
		Use: "cancel ORDER --reason TEXT", Short: "End an order whose file never came to use", Args: cobra.ExactArgs(1),
		Long: `Ends an order whose file never came to use: it was lost, or is not wanted. It is possible while no record of the order is here; one that comes later
is an alarm, and its piece never becomes a device.`,
		Example: "  hallmark order cancel order-7 --reason 'the file was lost on its way'",
	}, func(ctx context.Context, cl *client.Client, id, reason string) (client.OrderView, error) {
		return cl.CancelOrder(ctx, id, reason)
	})
}

func (a *api) abandonOrder() *cobra.Command {
	return a.voidOrder(cobra.Command{
		Use: "abandon ORDER --reason TEXT", Short: "End an order whose station is gone; takes two people", Args: cobra.ExactArgs(1),
		Long: `Ends an order whose station is gone: it burnt, or its owner did not answer any more, so that the job's end never comes. Devices that are on record stay.
Whatever else the station made never becomes a device, and a record that comes later is an alarm. It takes two people.`,
		Example: "  hallmark order abandon order-7 --reason 'the centre burnt down' --propose 'see the letter of the 3rd'",
	}, func(ctx context.Context, cl *client.Client, id, reason string) (client.OrderView, error) {
		return cl.AbandonOrder(ctx, id, reason)
	})
}

func (a *api) voidOrder(c cobra.Command, do func(ctx context.Context, cl *client.Client, id, reason string) (client.OrderView, error)) *cobra.Command {
	var reason string
	v := a.matching(a.verb(c, func(ctx context.Context, cl *client.Client, args []string) error {
		o, err := do(ctx, cl, args[0], reason)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "order", o.ID, "state", string(o.State), "since", when(o.Closed))
		})
	}))
	v.Flags().StringVar(&reason, "reason", "", "why")
	return need(v, "reason")
}

// inspected says what was said of first articles, in the order it was said.
func inspected(r factory.Reconciliation) string {
	said := []string{}
	if r.FirstArticle && len(r.Inspections) == 0 {
		said = append(said, "demanded, none inspected")
	}
	for _, i := range r.Inspections {
		word := "failed"
		if i.Passed {
			word = "passed"
		}
		said = append(said, fmt.Sprintf("%s %s, by %s", i.Device, word, i.By))
	}
	return strings.Join(said, "; ")
}

func (a *api) reconciliation(r factory.Reconciliation) error {
	n := func(v uint32) string { return fmt.Sprint(v) }
	return a.show(func(w io.Writer) error {
		return sheet(w, "order", r.Order, "state", string(r.State), "ordered", n(r.Ordered), "records", n(r.Records), "missing", n(r.Missing),
			"made", n(r.Made), "scrapped", n(r.Scrapped), "interrupted", n(r.Interrupted), "reworked", n(r.Reworked), "refused", n(r.Refused), "alarms", n(r.Alarms),
			"seen", n(r.FirstSeen), "unused", n(r.Unused), "first articles", inspected(r), "station's end", yes(r.JobEnd), "not closed for", strings.Join(r.Blocked, "; "))
	})
}

// waiting says what records of chips that nobody vouched for yet wait for.
func waiting(r factory.ImportReport) string {
	if r.Waiting == 0 {
		return "0"
	}
	return fmt.Sprintf("%d: %s: import its manifest, then these records again", r.Waiting, r.Waits[0].Reason)
}
