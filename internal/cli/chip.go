package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/factory/chips"
	"github.com/hallmark-iot/hallmark/internal/client"
)

func newChip(a *api) *cobra.Command {
	return a.noun("chip", "Chips that come with keys from where the silicon is made", a.trustVendor(), a.vendors(), a.endVendor(), a.importChips(), a.showChip())
}

func (a *api) trustVendor() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "trust VENDOR FILE", Short: "Believe a vendor's manifests of chips", Args: cobra.ExactArgs(2),
		Long: `Believes the manifests of chips that a vendor signs. FILE has the certificates whose keys sign them, PEM or DER; compare their fingerprints with what the
vendor publishes, over another way than the file came. It always takes two people. Certificates that were there before are replaced: name all of them.`,
		Example: "  hallmark chip trust acme-silicon log-signers.pem --propose 'the secure elements of revision B'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		pem, err := certificatesIn(args[1])
		if err != nil {
			return err
		}
		v, err := cl.TrustChipVendor(ctx, args[0], pem)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "vendor", v.ID, "certificates", fmt.Sprint(len(v.Certificates)), "since", when(v.At))
		})
	})
}

func (a *api) vendors() *cobra.Command {
	return listing(a, cobra.Command{Use: "vendors", Short: "List the vendors whose manifests are believed", Example: "  hallmark chip vendors"},
		"VENDOR CERTIFICATES CHIPS USED SINCE ENDED",
		func(ctx context.Context, cl *client.Client, _ []string) ([]chips.Vendor, error) {
			return cl.ChipVendors(ctx)
		},
		func(v chips.Vendor) []string {
			return []string{v.ID, fmt.Sprint(len(v.Certificates)), fmt.Sprint(v.Chips), fmt.Sprint(v.Used), when(v.At), when(v.Ended)}
		})
}

func (a *api) endVendor() *cobra.Command {
	var reason string
	c := a.verb(cobra.Command{
		Use: "end VENDOR --reason TEXT", Short: "Take a vendor's word no more", Args: cobra.ExactArgs(1),
		Long: `Takes a vendor's word no more. Chips that are known stay known, and orders that demand them go on: cancel those, and look at the devices, if there is doubt
of chips that are here already.`,
		Example: "  hallmark chip end acme-silicon --reason 'its signing key was stolen'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if err := cl.EndChipVendor(ctx, args[0], reason); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "vendor", args[0], "believed", "no more") })
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	return need(c, "reason")
}

func (a *api) importChips() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "import VENDOR FILE", Short: "Take in a vendor's manifest of chips", Args: cobra.ExactArgs(2),
		Long: `Takes in a vendor's manifest: a JSON array of signed entries (JWS), one for each chip, with its number and its public keys. The file is sent as it is read;
what was taken before changes nothing, so that an import that broke off is begun again. Entries that are not taken are told by their number; the others are.`,
		Example: "  hallmark chip import acme-silicon manifest.json",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		f, err := os.Open(args[1])
		if err != nil {
			return err
		}
		defer f.Close()
		rep, err := cl.ImportChips(ctx, args[0], f)
		if err != nil {
			return err
		}
		for _, p := range rep.Problems {
			fmt.Fprintf(a.s.err, "entry %d: %s\n", p.Entry, oneLine(p.Text))
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "entries", fmt.Sprint(rep.Entries), "imported", fmt.Sprint(rep.Imported), "known already", fmt.Sprint(rep.Known), "refused", fmt.Sprint(rep.Refused))
		})
	})
}

func (a *api) showChip() *cobra.Command {
	return a.verb(cobra.Command{Use: "show UID", Short: "Show a chip, and what was made of it", Args: cobra.ExactArgs(1), Example: "  hallmark chip show 0123f1822c38dd7a01"},
		func(ctx context.Context, cl *client.Client, args []string) error {
			c, err := cl.Chip(ctx, args[0])
			if err != nil {
				return err
			}
			return a.show(func(w io.Writer) error {
				return sheet(w, "chip", c.UID, "vendor", c.Vendor, "model", c.Model, "part", c.Part, "group", c.Group, "provisioned", when(c.Provisioned),
					"keys", fmt.Sprint(len(c.Keys)), "order", c.Order, "device", c.Device)
			})
		})
}
