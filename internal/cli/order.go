package cli

import (
	"cmp"
	"context"
	"crypto/rand"
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
		a.listOrders(), a.showOrder(), a.createOrder(), wrapOrder(a.s), a.registerOrder(), a.oemFile(), a.importRecords(), a.reconcileOrder(), a.orderDifferences(), a.closeOrder(), a.cancelOrder(), a.abandonOrder())
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
					"keys made by", keysBy(o), "station", o.StationName, "wrapped at desk", o.Desk, "its record key", o.Station, "its module", o.Module, "version", o.Version, "release", o.Release,
					"master", madeOf(o.Master), "trust bundle", fmt.Sprint(o.Bundle), "from", when(o.NotBefore), "until", when(o.NotAfter), "created", when(o.Created), "closed", when(o.Closed))
			})
		})
}

// madeOf names the master of an order; empty for none.
func madeOf(m *factory.MasterRef) string {
	if m == nil {
		return ""
	}
	return fmt.Sprintf("%d, %s", m.Revision, m.Digest)
}

// orderCall is what one order was asked for.
type orderCall struct {
	req                          client.OrderRequest
	descriptor, station, release string
	days, slots                  uint32
	slotSize                     uint64
	erase                        uint32
	server, config, out          string
	master                       string
}

func (a *api) createOrder() *cobra.Command {
	var o orderCall
	c := a.verb(cobra.Command{
		Use:   "create --product PRODUCT --quota N (--master FILE | --release RELEASE --server URL --slot-size BYTES) --descriptor FILE --station FINGERPRINT --out FILE",
		Short: "Order devices from one station, and write the order's file",
		Long: `Orders devices from one station, and writes the order's file, which is safe to mail. The server gives it out this once: keep it.

--descriptor is what ` + "`hallmark-station descriptor`" + ` wrote there; --station is the fingerprint it printed, learned another way than
the file. RELEASE is the digest of the release to put on the devices, or PRODUCT@VERSION. A master (` + "`hallmark master build`" + `) that is sealed to this instance says
release and parameters in its place: its file is checked here, and its bytes are those of the release, which has to be published.`,
		Example: `  hallmark order create --product pump --hardware A --quota 500 --release pump@1.0.0 --descriptor station.hmd \
    --station 3f0c…(64 hex digits) --server https://devices.example.com:8443 --slot-size 8388608 --out order-7.hmo`,
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		return a.order(ctx, cl, o)
	})
	o.flags(c)
	c.Flags().StringVar(&o.release, "release", "", "release to put on them")
	c.Flags().StringArrayVar(&o.req.Lots, "lot", nil, "lot of parts that they are made of; once for each: see hallmark supply lot name")
	return o.or(need(c, "product", "quota", "descriptor", "station", "out"), "release", "server", "slot-size")
}

// ofMaster has the order say what a master does: the server gets how its file begins, which is all but the firmware.
func (o *orderCall) ofMaster() error {
	head, _, err := openMasterFile(o.master)
	if err != nil {
		return err
	}
	o.req.Master, err = readHead(o.master, head.Size)
	return err
}

// readHead reads the first size bytes of a file.
func readHead(path string, size int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, size)
	_, err = io.ReadFull(f, b)
	return b, err
}

func (a *api) order(ctx context.Context, cl *client.Client, o orderCall) (err error) {
	if _, err := os.Stat(o.out); !errors.Is(err, os.ErrNotExist) {
		return usagef("%s exists: choose another --out, because the server gives an order's file out once", o.out)
	}
	if err = o.read(time.Now()); err != nil {
		return err
	}
	if o.master != "" {
		err = o.ofMaster()
	} else {
		_, o.req.Release, err = digestOf(ctx, cl, o.release)
	}
	if err != nil {
		return err
	}
	o.req.ID = cmp.Or(o.req.ID, "ord-"+strings.ToLower(rand.Text()[:12])) // chosen here: when the line breaks, it is known which one to look for
	var made client.OrderView
	if err := durable.Write(o.out, 0o600, func(w io.Writer) (err error) {
		made, err = cl.CreateOrder(ctx, o.req, w)
		return err
	}); err != nil {
		if made.ID == "" {
			return fmt.Errorf("order %s: %w (where it was made all the same, as `hallmark order show %s` tells, its file is lost: `hallmark order cancel %s`, and order anew)", o.req.ID, err, o.req.ID, o.req.ID)
		}
		return fmt.Errorf("order %s was made, and its file is lost: `hallmark order cancel %s`, and order anew: %w", made.ID, made.ID, err)
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
		r, err := importFile(ctx, cl, args[0], args[1])
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

func importFile(ctx context.Context, cl *client.Client, order, path string) (factory.ImportReport, error) {
	f, err := os.Open(path)
	if err != nil {
		return factory.ImportReport{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return factory.ImportReport{}, err
	}
	return cl.ImportRecords(ctx, order, f, info.Size())
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

func (a *api) orderDifferences() *cobra.Command {
	var q string
	c := listing(a, cobra.Command{
		Use: "differences ORDER", Short: "List what does not agree: clones, alarms, what is missing, what came without a record", Args: cobra.ExactArgs(1),
		Long: `Lists what does not agree about an order. LIST is one of

  clone            records with the chip or a key of another piece
  over-production  records with a ticket or a place that was used, or from after the end
  refused          records that hold their place, and whose pieces are no devices
  alarm            all records that cannot be true, those above included
  missing          records that the station must have and that are not here
  unregistered     devices that came with a certificate of the order and are on no record: they get none, and wait or are refused
  unseen           devices that were made and never heard of
  rework           records of pieces that failed before, with the record before

With --output csv it is for a spreadsheet; with --output json both records are whole.`,
		Example: "  hallmark order differences order-7 --list clone\n  hallmark order differences order-7 --list alarm --all --output csv >alarms.csv",
	}, "SEQ KIND DEVICE AT TICKET CHIP OTHER-ORDER OTHER-SEQ OTHER-DEVICE REASON REMEDY",
		func(ctx context.Context, cl *client.Client, args []string) ([]factory.Difference, error) {
			return cl.Differences(ctx, args[0], q)
		}, differenceRow)
	c.Flags().StringVar(&q, "list", string(factory.Alarms), "which list")
	return c
}

func differenceRow(d factory.Difference) []string {
	seq := "-"
	switch {
	case d.To > d.Seq:
		seq = fmt.Sprintf("%d..%d", d.Seq, d.To)
	case d.Seq > 0:
		seq = fmt.Sprint(d.Seq)
	}
	ticket, chip, other := "-", "-", []string{"-", "-", "-"}
	if d.Record != nil {
		ticket, chip = fmt.Sprint(d.Record.Ticket), or(d.Record.Chip)
	}
	if d.Other != nil {
		other = []string{d.Other.Order, fmt.Sprint(d.Other.Seq), or(d.Other.Device)}
	}
	return []string{seq, string(d.Kind), or(d.Device), when(d.At), ticket, chip, other[0], other[1], other[2], d.Reason, d.Remedy}
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

// keysBy says who may make the keys of an order's devices.
func keysBy(o factory.Order) string {
	switch {
	case o.Chips != "":
		return "the chips' vendor, " + o.Chips
	case o.Keys == wire.OriginStation:
		return "the device or the station"
	}
	return "the device"
}
