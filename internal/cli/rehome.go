package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/wire"
)

// offerHome writes whom devices would believe here, and where they would call.
func (a *api) offerHome() *cobra.Command {
	var productID, server, out string
	c := a.verb(cobra.Command{
		Use: "offer --product PRODUCT --server URL --out FILE", Short: "Offer to have devices that another instance has",
		Long: `Writes the offer of this instance to have a product's devices that another one has: the trust bundle in force here, and where devices call. The other
instance's warrant keys sign what is in it: ` + "`hallmark warrant payload --act rehome --offer FILE`" + `. The product has to have the same ID at both. Nothing in the offer is
secret, and nobody need believe it: compare the digest that it prints with the one that the approvers there see.`,
		Args: cobra.NoArgs, Example: "  hallmark bundle offer --product pump --server https://devices.clinic.example:8444 --out clinic.offer",
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		if err := wire.CheckHomeServer(server); err != nil {
			return usagef("--server: %v", err)
		}
		b, envelope, err := currentBundle(ctx, cl, productID)
		if err != nil {
			return err
		}
		o := wire.HomeOffer{V: 1, Bundle: envelope, Server: server}
		data, err := wire.EncodeHomeOffer(o)
		if err != nil {
			return err
		}
		home, err := o.Home()
		if err != nil {
			return err
		}
		if err := durable.WriteFile(out, data, 0o644); err != nil {
			return err
		}
		if a.last, err = json.Marshal(home); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "product", b.Product, "trust bundle", fmt.Sprint(b.Version), "digest", fmt.Sprintf("%x", home.Bundle), "server", server, "written", out)
		})
	})
	f := c.Flags()
	f.StringVar(&productID, "product", "", "the product")
	f.StringVar(&server, "server", "", "where devices call here: https://host:port, without a path")
	f.StringVar(&out, "out", "", "file to write")
	return need(c, "product", "server", "out")
}

// offerIn reads an offer, and what a warrant names of it.
func offerIn(path string) ([]byte, wire.Home, error) {
	data, err := readFile(path, wire.MaxHomeOffer)
	if err != nil {
		return nil, wire.Home{}, fmt.Errorf("--offer: %w", err)
	}
	o, _, err := wire.DecodeHomeOffer(data)
	if err != nil {
		return nil, wire.Home{}, usagef("--offer %s: %v", path, err)
	}
	h, err := o.Home()
	return data, h, err
}

func (a *api) rehomeDevices() *cobra.Command {
	r := client.TransferRequest{Kind: owner.Rehome}
	var offer string
	var warrants []string
	var confirmed int
	c := a.verb(cobra.Command{
		Use: "rehome DEVICE… --offer FILE --warrant FILE --reason TEXT", Short: "Hand devices to another instance, for good",
		Long: `Hands devices to another instance, which has offered to have them. This one has no say over them afterwards, with whatever keys, and cannot take them back: it
always takes two people here, the product's warrant keys, and of a device that defends its owner the owner's key too, on the same document. What is stored here of their
sealed data is destroyed at once: read before what is to be kept. The devices are told when they come; until then they work as they did. When they have said
that they go, their certificates are revoked, and their life here has ended.

The other instance has to know them when they come: give it the chain of custody of each, see ` + "`hallmark device welcome`" + `.`,
		Args: cobra.MinimumNArgs(1), Example: "  hallmark device rehome 00112233445566778899aabbccddeeff --offer clinic.offer --warrant rehome.cose --reason 'the clinic runs its own'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if err := bulk(len(args), confirmed, "rehome"); err != nil {
			return err
		}
		data, _, err := offerIn(offer)
		if err != nil {
			return err
		}
		r.Devices, r.Offer = args, data
		for _, path := range warrants {
			envelope, err := readFile(path, wire.MaxEnvelope)
			if err != nil {
				return fmt.Errorf("--warrant: %w", err)
			}
			r.Warrants = append(r.Warrants, envelope)
		}
		begun, err := cl.Transfer(ctx, r)
		if err != nil {
			return err
		}
		return rows(a, "DEVICE BEGUN TO", begun, func(x owner.Begun) []string {
			return []string{x.Transfer.Device, when(x.Transfer.Begun), x.Transfer.Server}
		})
	})
	f := c.Flags()
	f.StringVar(&offer, "offer", "", "the other instance's offer, as hallmark bundle offer wrote it there")
	f.StringArrayVar(&warrants, "warrant", nil, "a signed warrant for the act rehome: one for all the devices, or one for each")
	f.StringVar(&r.Reason, "reason", "", "why")
	f.IntVar(&confirmed, "confirm-count", 0, "how many devices you mean, for more than 5")
	return need(c, "offer", "warrant", "reason")
}

func (a *api) giveUpHandover() *cobra.Command {
	var reason string
	c := a.overDevices(cobra.Command{
		Use: "stay DEVICE… --reason TEXT", Short: "Give up handing devices to another instance, before they have been told",
		Long: `Takes back what ` + "`hallmark device rehome`" + ` began, as long as a device has not been told to go, or has refused. It belongs to whom it did, in the group that
it was in. What was destroyed at the beginning, sealed data and settings, does not come back. A device that was told may have gone already: it cannot stay.`,
		Example: "  hallmark device stay 00112233445566778899aabbccddeeff --reason 'the clinic has changed its mind'",
	}, func(ctx context.Context, cl *client.Client, ids []string) error {
		done, err := each(a, ids, func(id string) (owner.Transfer, error) { return cl.GiveUp(ctx, id, reason) })
		return after(err, len(done), func() error {
			return rows(a, "DEVICE GIVEN-UP", done, func(t owner.Transfer) []string { return []string{t.Device, when(t.GivenUp)} })
		})
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	return need(c, "reason")
}

func (a *api) welcomeDevices() *cobra.Command {
	var productID, trust string
	c := a.verb(cobra.Command{
		Use: "welcome FILE… --product PRODUCT --trust FILE", Short: "Take devices that another instance hands over, each by its chain of custody",
		Long: `Takes devices that another instance hands over. Each FILE is one's chain of custody, as ` + "`hallmark log trace --bundle`" + ` wrote it there; --trust has whom it is
believed by, the trust file of the other instance's logs, which you have from somewhere that you believe. Registered is only what the chain shows without a gap:
how the device was made, and its keys. It keeps its ID, and enrols with its factory identity when it comes; no CA of the other instance is believed for
anything. The same file again changes nothing.`,
		Args: cobra.MinimumNArgs(1), Example: "  hallmark device welcome pump-7.custody --product pump --trust maker-trust.json",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		keys, err := readFile(trust, 64<<10)
		if err != nil {
			return fmt.Errorf("--trust: %w", err)
		}
		var out []foreign.Welcomed
		for _, path := range args {
			data, err := readFile(path, foreign.MaxHanded)
			if err != nil {
				return err
			}
			w, err := cl.WelcomeDevice(ctx, productID, client.Arriving{Trust: string(keys), Custody: data})
			if err != nil {
				return errors.Join(fmt.Errorf("%s: %w", path, err), a.welcomed(out))
			}
			out = append(out, w)
		}
		return a.welcomed(out)
	})
	c.Flags().StringVar(&productID, "product", "", "the devices' product, of the same ID as where they come from")
	c.Flags().StringVar(&trust, "trust", "", "trust file of the other instance's logs")
	return need(c, "product", "trust")
}

func (a *api) welcomed(ws []foreign.Welcomed) error {
	return rows(a, "DEVICE HARDWARE MADE OUTCOME FROM", ws, func(w foreign.Welcomed) []string {
		return []string{w.Device, w.Hardware, when(w.Made), string(w.Outcome), w.From}
	})
}
