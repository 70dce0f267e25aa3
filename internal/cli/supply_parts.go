package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/supply/parts"
)

// under holds verbs over one kind of thing of a noun.
func under(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short}
	c.AddCommand(verbs...)
	return c
}

func newSuppliers(a *api) *cobra.Command {
	return under("supplier", "Who supplies what devices are built of", a.listSuppliers(), a.showSupplier(), a.setSupplier(), a.endSupplier())
}

func (a *api) listSuppliers() *cobra.Command {
	return listing(a, cobra.Command{Use: "list", Short: "List suppliers", Example: "  hallmark supply supplier list"}, "ID NAME CALLED SINCE ENDED",
		func(ctx context.Context, cl *client.Client, _ []string) ([]parts.Supplier, error) {
			return cl.Suppliers(ctx)
		},
		func(v parts.Supplier) []string {
			return []string{v.ID, or(oneLine(v.Name)), or(oneLine(strings.Join(v.Names, ", "))), when(v.At), when(v.Ended)}
		})
}

func (a *api) showSupplier() *cobra.Command {
	return a.verb(cobra.Command{Use: "show SUPPLIER", Short: "Show a supplier", Args: cobra.ExactArgs(1), Example: "  hallmark supply supplier show acme-memory"},
		func(ctx context.Context, cl *client.Client, args []string) error {
			v, err := cl.Supplier(ctx, args[0])
			return a.supplier(v, err)
		})
}

func (a *api) supplier(v parts.Supplier, err error) error {
	if err != nil {
		return err
	}
	return a.show(func(w io.Writer) error {
		return sheet(w, "supplier", v.ID, "name", v.Name, "bills of materials call it", strings.Join(v.Names, ", "), "site", v.Site, "changed", when(v.At), "by", v.By, "ended", when(v.Ended))
	})
}

func (a *api) setSupplier() *cobra.Command {
	var r client.SupplierRequest
	c := a.matching(a.verb(cobra.Command{
		Use: "set SUPPLIER --name NAME", Short: "Write a supplier down, or change what is said of it", Args: cobra.ExactArgs(1),
		Long: `Writes a supplier down, or changes what is said of it; all of it is said anew. --called is what bills of materials call it: a policy that names SUPPLIER among its supplier_ids allows these names.
It takes two people to take a supplier again that was ended, and to give one another name when a policy that is enforced allows it.`,
		Example: "  hallmark supply supplier set acme-memory --name 'Acme Memory' --called 'ACME Memory GmbH'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		v, err := cl.SetSupplier(ctx, args[0], r)
		return a.supplier(v, err)
	}))
	f := c.Flags()
	f.StringVar(&r.Name, "name", "", "its name")
	f.StringArrayVar(&r.Names, "called", nil, "what bills of materials call it; once for each")
	f.StringVar(&r.Site, "site", "", "where more is said of it")
	return need(c, "name")
}

func (a *api) endSupplier() *cobra.Command {
	var reason string
	c := a.matching(a.verb(cobra.Command{
		Use: "end SUPPLIER --reason TEXT", Short: "Take nothing of a supplier any more", Args: cobra.ExactArgs(1),
		Long:    `Takes nothing of a supplier any more: no new parts and lots, and gates whose policy names it among supplier_ids allow it no more. What was built in stays: see its lots.`,
		Example: "  hallmark supply supplier end acme-memory --reason 'it sold on what it had rejected'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		v, err := cl.EndSupplier(ctx, args[0], reason)
		return a.supplier(v, err)
	}))
	c.Flags().StringVar(&reason, "reason", "", "why")
	return need(c, "reason")
}

func newParts(a *api) *cobra.Command {
	return under("part", "What devices are built of", a.listParts(), a.showPart(), a.setPart())
}

func (a *api) listParts() *cobra.Command {
	var supplier string
	c := listing(a, cobra.Command{Use: "list", Short: "List parts", Example: "  hallmark supply part list --supplier acme-memory"}, "ID SUPPLIER KIND NAME NUMBER PURL",
		func(ctx context.Context, cl *client.Client, _ []string) ([]parts.Part, error) {
			return cl.Parts(ctx, supplier)
		},
		func(p parts.Part) []string {
			return []string{p.ID, p.Supplier, string(p.Kind), or(oneLine(p.Name)), or(oneLine(p.Number)), or(oneLine(p.PURL))}
		})
	c.Flags().StringVar(&supplier, "supplier", "", "only this one's")
	return c
}

func (a *api) showPart() *cobra.Command {
	return a.verb(cobra.Command{Use: "show PART", Short: "Show a part", Args: cobra.ExactArgs(1), Example: "  hallmark supply part show flash"},
		func(ctx context.Context, cl *client.Client, args []string) error {
			p, err := cl.Part(ctx, args[0])
			return a.part(p, err)
		})
}

func (a *api) part(p parts.Part, err error) error {
	if err != nil {
		return err
	}
	return a.show(func(w io.Writer) error {
		return sheet(w, "part", p.ID, "supplier", p.Supplier, "kind", string(p.Kind), "name", p.Name, "number", p.Number, "package URL", p.PURL, "changed", when(p.At), "by", p.By)
	})
}

func (a *api) setPart() *cobra.Command {
	var r client.PartRequest
	c := a.matching(a.verb(cobra.Command{
		Use: "set PART --supplier SUPPLIER --name NAME", Short: "Write a part down, or change what is said of it", Args: cobra.ExactArgs(1),
		Long: `Writes a part down, or changes what is said of it; all of it is said anew. Whose it is, and whether it is hardware, stays. Software that is bought has a package URL: by that it is found in bills
of materials (` + "`hallmark advisory find`" + `), and so it has no lots.`,
		Example: "  hallmark supply part set flash --supplier acme-memory --name 'NOR flash' --number W25Q128JV\n" +
			"  hallmark supply part set modem-stack --supplier acme-radio --kind software --name 'modem stack' --purl pkg:generic/modem-stack@4.2",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		p, err := cl.SetPart(ctx, args[0], r)
		return a.part(p, err)
	}))
	f := c.Flags()
	f.StringVar(&r.Supplier, "supplier", "", "who supplies it")
	f.StringVar((*string)(&r.Kind), "kind", string(parts.Hardware), "hardware or software")
	f.StringVar(&r.Name, "name", "", "its name")
	f.StringVar(&r.Number, "number", "", "the supplier's part number, or the version")
	f.StringVar(&r.PURL, "purl", "", "package URL of software")
	return need(c, "supplier", "name")
}

func newLots(a *api) *cobra.Command {
	return under("lot", "In which lots parts came, and what was made of them", a.listLots(), a.showLot(), a.receiveLot(), a.certifyLot(), a.lotCertificate(), a.recallLot(), a.clearLot(), a.lotDevices(),
		a.lotsOf(), a.nameLots(), a.takeLot())
}

const lotHead = "ID PART NUMBER RECEIVED CERTIFICATE RECALLED WHY"

func lotRow(l parts.Lot) []string {
	why := "-"
	if !l.Recalled.IsZero() {
		why = oneLine(l.Reason)
	}
	return []string{l.ID, l.Part, oneLine(l.Number), when(l.Received), yes(l.Certificate != ""), when(l.Recalled), why}
}

func (a *api) listLots() *cobra.Command {
	var part string
	c := listing(a, cobra.Command{Use: "list", Short: "List lots of parts", Example: "  hallmark supply lot list --part flash"}, lotHead,
		func(ctx context.Context, cl *client.Client, _ []string) ([]parts.Lot, error) {
			return cl.Lots(ctx, part)
		}, lotRow)
	c.Flags().StringVar(&part, "part", "", "only of this part")
	return c
}

func (a *api) showLot() *cobra.Command {
	return a.verb(cobra.Command{Use: "show LOT", Short: "Show a lot", Args: cobra.ExactArgs(1), Example: "  hallmark supply lot show flash-2626"},
		func(ctx context.Context, cl *client.Client, args []string) error {
			l, err := cl.Lot(ctx, args[0])
			return a.lot(l, err)
		})
}

func (a *api) lot(l parts.Lot, err error) error {
	if err != nil {
		return err
	}
	certificate := "none"
	if l.Certificate != "" {
		certificate = fmt.Sprintf("%s, %d bytes", l.Certificate, l.Size)
	}
	return a.show(func(w io.Writer) error {
		return sheet(w, "lot", l.ID, "part", l.Part, "the supplier's number", l.Number, "received", when(l.Received), "certificate of conformity", certificate, "recalled", when(l.Recalled), "because", l.Reason,
			"changed", when(l.At), "by", l.By)
	})
}

func (a *api) receiveLot() *cobra.Command {
	var r client.LotRequest
	var received, certificate string
	c := a.verb(cobra.Command{
		Use: "receive LOT --part PART --number NUMBER", Short: "Write a lot down that was received", Args: cobra.ExactArgs(1),
		Long: `Writes a lot down that was received. LOT is your name for it, and NUMBER the supplier's. Its certificate of conformity, if it came with one, is kept and can be had again; it can also come
later (` + "`hallmark supply lot certify`" + `).`,
		Example: "  hallmark supply lot receive flash-2626 --part flash --number 2626/A --certificate coc-2626.pdf",
	}, func(ctx context.Context, cl *client.Client, args []string) (err error) {
		r.ID = args[0]
		if received != "" {
			if r.Received, err = time.Parse(time.DateOnly, received); err != nil {
				return usagef("--received %q: want a day, such as 2026-06-23", received)
			}
		}
		l, err := cl.ReceiveLot(ctx, r)
		if err == nil && certificate != "" {
			l, err = certify(ctx, cl, l.ID, certificate)
		}
		return a.lot(l, err)
	})
	f := c.Flags()
	f.StringVar(&r.Part, "part", "", "what it is a lot of")
	f.StringVar(&r.Number, "number", "", "the supplier's number")
	f.StringVar(&received, "received", "", "the day, such as 2026-06-23 (default: now)")
	f.StringVar(&certificate, "certificate", "", "file: its certificate of conformity")
	return need(c, "part", "number")
}

func certify(ctx context.Context, cl *client.Client, lot, path string) (parts.Lot, error) {
	f, err := os.Open(path)
	if err != nil {
		return parts.Lot{}, err
	}
	defer f.Close()
	return cl.CertifyLot(ctx, lot, f)
}

func (a *api) certifyLot() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "certify LOT FILE", Short: "Bring a lot's certificate of conformity", Args: cobra.ExactArgs(2),
		Long:    `Brings a lot's certificate of conformity, at most 16 MiB of any kind. The same again changes nothing; another than is here takes two people.`,
		Example: "  hallmark supply lot certify flash-2626 coc-2626.pdf",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		l, err := certify(ctx, cl, args[0], args[1])
		return a.lot(l, err)
	})
}

func (a *api) lotCertificate() *cobra.Command {
	var out string
	c := a.verb(cobra.Command{Use: "certificate LOT --out FILE", Short: "Get a lot's certificate of conformity, as it was brought", Args: cobra.ExactArgs(1), Example: "  hallmark supply lot certificate flash-2626 --out coc.pdf"},
		func(ctx context.Context, cl *client.Client, args []string) error {
			data, err := cl.LotCertificate(ctx, args[0])
			if err != nil {
				return err
			}
			return a.laidDown(out, data)
		})
	c.Flags().StringVar(&out, "out", "", "file to write")
	return need(c, "out")
}

func (a *api) recallLot() *cobra.Command {
	var reason string
	c := a.matching(a.verb(cobra.Command{
		Use: "recall LOT --reason TEXT", Short: "Say that a lot is bad", Args: cobra.ExactArgs(1),
		Long: `Says that a lot is bad. One finding says how many devices may have a part of it, and no order is made of it any more. Devices and their owners are told nothing: that is
` + "`hallmark recall create`" + `.`,
		Example: "  hallmark supply lot recall flash-2626 --reason 'it forgets what it holds below -20 °C'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		l, err := cl.RecallLot(ctx, args[0], reason)
		return a.lot(l, err)
	}))
	c.Flags().StringVar(&reason, "reason", "", "why")
	return need(c, "reason")
}

func (a *api) clearLot() *cobra.Command {
	var reason string
	c := a.matching(a.verb(cobra.Command{
		Use: "clear LOT --reason TEXT", Short: "Say that a lot that was recalled is good after all", Args: cobra.ExactArgs(1),
		Long:    `Says that a lot that was recalled is good after all; its finding closes. It takes two people.`,
		Example: "  hallmark supply lot clear flash-2626 --reason 'the supplier meant another' --propose 'see their letter'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		l, err := cl.ClearLot(ctx, args[0], reason)
		return a.lot(l, err)
	}))
	c.Flags().StringVar(&reason, "reason", "", "why")
	return need(c, "reason")
}

func (a *api) lotDevices() *cobra.Command {
	return listing(a, cobra.Command{
		Use: "devices LOT", Short: "List the devices that may have a part of a lot", Args: cobra.ExactArgs(1), Example: "  hallmark supply lot devices flash-2626 --all -o name",
		Long: `Lists the devices that may have a part of a lot: all of the orders that name it. On the error stream it says how many they are, without those whose life has ended.`,
	}, "DEVICE PRODUCT ORDER STATE",
		func(ctx context.Context, cl *client.Client, args []string) ([]parts.Built, error) {
			n, all, err := cl.LotDevices(ctx, args[0])
			if err == nil {
				fmt.Fprintf(a.s.err, "%d devices may have a part of lot %s\n", n, oneLine(args[0]))
			}
			return all, err
		},
		func(b parts.Built) []string { return []string{b.Device, b.Product, b.Order, b.State} })
}

func (a *api) lotsOf() *cobra.Command {
	var order, device string
	c := a.verb(cobra.Command{
		Use: "of (--order ORDER | --device DEVICE)", Short: "List the lots that an order is made of, or a device may have parts of", Example: "  hallmark supply lot of --order order-7",
	}, func(ctx context.Context, cl *client.Client, _ []string) (err error) {
		var all []parts.Lot
		if order != "" {
			all, err = cl.OrderLots(ctx, order)
		} else {
			all, err = cl.DeviceLots(ctx, device)
		}
		return a.lots(all, err)
	})
	c.Flags().StringVar(&order, "order", "", "order")
	c.Flags().StringVar(&device, "device", "", "device")
	c.MarkFlagsOneRequired("order", "device")
	c.MarkFlagsMutuallyExclusive("order", "device")
	return c
}

func (a *api) lots(all []parts.Lot, err error) error {
	if err != nil {
		return err
	}
	return rows(a, lotHead, all, lotRow)
}

func (a *api) nameLots() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "name ORDER LOT…", Short: "Say of which lots an order is made, beside those that it names already", Args: cobra.MinimumNArgs(2),
		Long: `Says of which lots an order is made, beside those that it names already: while it runs, or afterwards. ` + "`hallmark order create --lot`" + ` says so from the start. All of its devices are found by
each of them: who has to know more exactly makes an order for each lot. A lot that was recalled can be named too, and then it is told.`,
		Example: "  hallmark supply lot name order-7 flash-2626 radio-19",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		all, err := cl.NameLots(ctx, args[0], args[1:])
		return a.lots(all, err)
	})
}

func (a *api) takeLot() *cobra.Command {
	var reason string
	c := a.verb(cobra.Command{
		Use: "take ORDER LOT --reason TEXT", Short: "Say that an order has nothing of a lot after all", Args: cobra.ExactArgs(2),
		Long:    `Says that an order has nothing of a lot after all. Its devices are found by the lot no more, and so it takes two people.`,
		Example: "  hallmark supply lot take order-7 flash-2626 --reason 'it was on the other line' --propose 'see the shift book'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		all, err := cl.TakeLot(ctx, args[0], args[1], reason)
		return a.lots(all, err)
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	return need(c, "reason")
}
