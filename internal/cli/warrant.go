package cli

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/wire"
)

func newWarrant(a *api) *cobra.Command {
	return a.noun("warrant", "Offline leave for what must not be undone", a.listWarrants(), a.showWarrant(), a.warrantPayload(), a.submitWarrant())
}

func (a *api) listWarrants() *cobra.Command {
	var productID string
	c := listing(a, cobra.Command{Use: "list", Short: "List the warrants that were submitted, by ID", Example: "  hallmark warrant list --product pump"},
		"ID PRODUCT ACT DEVICES ISSUED UNTIL REASON",
		func(ctx context.Context, cl *client.Client, _ []string) ([]client.WarrantReply, error) {
			return cl.Warrants(ctx, productID)
		},
		func(r client.WarrantReply) []string {
			w := r.Warrant
			return []string{w.ID, w.Product, string(w.Act), fmt.Sprint(w.Devices.Count), unix(w.Issued), unix(w.Expires), w.Reason}
		})
	c.Flags().StringVar(&productID, "product", "", "only this product's")
	return c
}

func (a *api) showWarrant() *cobra.Command {
	var productID string
	c := a.verb(cobra.Command{
		Use: "show WARRANT", Short: "Show a warrant that was submitted", Args: cobra.ExactArgs(1), Example: "  hallmark warrant show warrant-20270101-120000",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		ws, err := cl.Warrants(ctx, productID)
		if err != nil {
			return err
		}
		r, found, err := pick(a, ws, func(r client.WarrantReply) bool { return r.Warrant.ID == args[0] })
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("no warrant %q was submitted: see `hallmark warrant list`", args[0])
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "warrant", r.Warrant.ID, "product", r.Warrant.Product, "act", string(r.Warrant.Act), "devices", fmt.Sprint(r.Warrant.Devices.Count),
				"reason", r.Warrant.Reason, "issued", unix(r.Warrant.Issued), "until", unix(r.Warrant.Expires), "fact", fmt.Sprintf("%x", r.UID))
		})
	})
	c.Flags().StringVar(&productID, "product", "", "its product, for callers who are limited to products")
	return c
}

// warrantPayload needs no server: what it writes is worth nothing before approvers have signed it.
func (a *api) warrantPayload() *cobra.Command {
	var w wire.Warrant
	var act, out, offer, ownership string
	var valid time.Duration
	c := &cobra.Command{
		Use: "payload DEVICE… --product PRODUCT --act wipe --reason TEXT --out FILE", Short: "Write a warrant for approvers to sign",
		Long: `Writes a warrant for approvers to sign, one after the other, with ` + "`hallmark approve`" + `. It names the act, the product and just these
devices, and ends by itself. No server is asked.`,
		Args:    cobra.MinimumNArgs(1),
		Example: "  hallmark warrant payload 00112233445566778899aabbccddeeff --product pump --act wipe --reason 'end of life' --out wipe-7.payload",
		RunE: func(_ *cobra.Command, args []string) error {
			set, err := wire.SetOf(args)
			if err != nil {
				return usageError{err}
			}
			now := time.Now()
			w.Act, w.Devices, w.Issued, w.Expires = wire.Act(act), set, uint64(now.Unix()), uint64(now.Add(valid).Unix())
			if w.ID == "" {
				w.ID = "warrant-" + now.UTC().Format("20060102-150405")
			}
			if !wire.NeedsWarrant(w.Act) && w.Act != wire.ActDisown {
				return usagef("--act %q: an act that needs a warrant is %s, %s, %s or %s", act, wire.ActWipe, wire.ActDisown, wire.ActRehome, wire.ActUnlock)
			}
			if err := whereTo(&w, offer, ownership); err != nil {
				return err
			}
			payload, err := wire.EncodeWarrant(w)
			if err != nil {
				return usageError{err}
			}
			if err := durable.WriteFile(out, payload, 0o644); err != nil {
				return err
			}
			if a.last, err = json.Marshal(w); err != nil {
				return err
			}
			return a.show(func(o io.Writer) error {
				return sheet(o, "warrant", w.ID, "act", act, "devices", fmt.Sprint(set.Count), "until", unix(w.Expires), "written", out)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&w.Product, "product", "", "the devices' product")
	f.StringVar(&act, "act", "", "what it gives leave for: wipe, disown, rehome or debug-unlock")
	f.StringVar(&offer, "offer", "", "rehome: the offer of the instance that the devices go to")
	f.StringVar(&ownership, "owner-digest", "", "rehome, disown: the ownership that it ends, as hallmark device ownership tells it, for one device")
	f.StringVar(&w.Reason, "reason", "", "why")
	f.DurationVar(&valid, "valid", 24*time.Hour, "how long it holds")
	f.StringVar(&w.ID, "id", "", "the warrant's ID (default: made of the time)")
	f.StringVar(&out, "out", "", "file to write")
	return need(c, "product", "act", "reason", "out")
}

// whereTo puts in what a warrant says of another instance, and of the owner who signs it as well.
func whereTo(w *wire.Warrant, offer, ownership string) (err error) {
	if (w.Act == wire.ActRehome) != (offer != "") {
		return usagef("--offer is for --act %s, which needs it", wire.ActRehome)
	}
	if offer != "" {
		_, home, err := offerIn(offer)
		if err != nil {
			return err
		}
		w.Home = &home
	}
	if ownership != "" {
		if w.Owner, err = hex.DecodeString(ownership); err != nil {
			return usagef("--owner-digest: %v", err)
		}
	}
	return nil
}

func (a *api) submitWarrant() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "submit FILE DEVICE…", Short: "Log a warrant that enough approvers signed",
		Long: "Logs a warrant that enough approvers signed, with the devices it names. To end devices' lives give it to `hallmark retirement create` instead.",
		Args: cobra.MinimumNArgs(2), Example: "  hallmark warrant submit unlock-3.cose 00112233445566778899aabbccddeeff",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		envelope, err := readFile(args[0], wire.MaxEnvelope)
		if err != nil {
			return err
		}
		r, err := cl.Warrant(ctx, envelope, args[1:])
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "warrant", r.Warrant.ID, "act", string(r.Warrant.Act), "devices", fmt.Sprint(r.Warrant.Devices.Count),
				"until", unix(r.Warrant.Expires), "fact", fmt.Sprintf("%x", r.UID))
		})
	})
}
