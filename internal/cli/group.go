package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
)

func newGroup(a *api) *cobra.Command {
	return a.noun("group", "Parts of a product's fleet: who answers for which devices", a.listGroups())
}

func (a *api) listGroups() *cobra.Command {
	var product, group string
	c := listing(a, cobra.Command{
		Use: "list", Short: "List groups by name, with how many devices are in them and below", Example: "  hallmark group list --product pump --group eu",
	}, "PRODUCT GROUP DEVICES",
		func(ctx context.Context, cl *client.Client, _ []string) ([]fleet.Group, error) {
			return cl.Groups(ctx, product, group)
		},
		func(g fleet.Group) []string { return []string{g.Product, g.Path, fmt.Sprint(g.Devices)} })
	c.Flags().StringVar(&product, "product", "", "only this product's")
	c.Flags().StringVar(&group, "group", "", "only this group of the product, and those below")
	return c
}

func (a *api) groupDevices() *cobra.Command {
	var r client.GroupRequest
	var confirmed int
	c := a.verb(cobra.Command{
		Use: "group GROUP DEVICE… --reason TEXT", Short: "Put devices into a group of their product", Args: cobra.MinimumNArgs(2),
		Long: `Puts devices into a group of their product, all or none, up to 1000 at once. A group is a path, such as eu/berlin/ward-3, and is there while
it has devices. A device is in one group at most, and with it in those above; - takes devices out of theirs.`,
		Example: "  hallmark device group eu/berlin 00112233445566778899aabbccddeeff --reason 'sold to the Berlin clinic'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r.Group, r.Devices = args[0], args[1:]
		if r.Group == "-" {
			r.Group = ""
		}
		if err := bulk(len(r.Devices), confirmed, "group"); err != nil {
			return err
		}
		if err := cl.GroupDevices(ctx, r); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "group", or(r.Group), "devices", fmt.Sprint(len(r.Devices)))
		})
	})
	c.Flags().StringVar(&r.Reason, "reason", "", "why")
	c.Flags().IntVar(&confirmed, "confirm-count", 0, "how many devices you mean, for more than 5")
	return need(c, "reason")
}
