package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/keyring"
)

func newKey(a *api) *cobra.Command {
	return a.noun("key", "The keys that the running instance signs with", a.listKeys(), a.rotateKey(), a.retireKey())
}

func needed(k keyring.Key) string {
	if k.Needed == nil {
		return "-"
	}
	return fmt.Sprint(*k.Needed)
}

func (a *api) listKeys() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "list", Short: "List the instance's online keys",
		Long: "Lists the instance's online keys, those that are retired too. NEEDED is how many devices in the field believe no other key of the role.\nThe keys of CAs are not among them: see `hallmark ca list`.",
		Args: cobra.NoArgs, Example: "  hallmark key list",
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		keys, err := cl.Keys(ctx)
		if err != nil {
			return err
		}
		return rows(a, "NAME ROLE KEY CREATED RETIRED NEEDED", keys, func(k keyring.Key) []string {
			return []string{k.Name, string(k.Role), k.KID, when(k.Created), when(k.Retired), needed(k)}
		})
	})
}

func (a *api) keySheet(k keyring.Key) error {
	return a.show(func(w io.Writer) error {
		return sheet(w, "key", k.Name, "role", string(k.Role), "id", k.KID, "created", when(k.Created), "retired", when(k.Retired))
	})
}

func (a *api) rotateKey() *cobra.Command {
	var suite, reason string
	c := a.verb(cobra.Command{
		Use: "rotate ROLE --reason TEXT", Short: "Make a new online key beside those of its role",
		Long: `Makes a new online key beside those of its role: directive, log-control, log-events, order, server or bucket. The old one goes on for the
devices that believe it. Then publish a trust bundle that names the new one, wait until it has come to the devices, and retire the old:
see docs/guide/trust-bundles.md. A directive key is used at once, the others from the next start of the server on.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark key rotate directive --reason 'a notebook was stolen'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		k, err := cl.RotateKey(ctx, keyring.Role(args[0]), suite, reason)
		if err != nil {
			return err
		}
		return a.keySheet(k)
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	c.Flags().StringVar(&suite, "suite", "", "suite of a directive, order or server key (default HM-P256-1)")
	return need(c, "reason")
}

func (a *api) retireKey() *cobra.Command {
	var force bool
	var reason string
	c := a.verb(cobra.Command{
		Use: "retire KEY --reason TEXT", Short: "Sign nothing with an online key any more",
		Long: `Ends the use of an online key. It is refused while devices in the field believe no other key of its role; with --force, for a key that was
stolen, those devices come back by the signed history of trust bundles. The private part stays in the key directory: destroy it there.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark key retire directive --reason 'every device is on bundle 4'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		k, err := cl.RetireKey(ctx, args[0], force, reason)
		if err != nil {
			return err
		}
		return a.keySheet(k)
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	c.Flags().BoolVar(&force, "force", false, "also when devices believe no other")
	return need(c, "reason")
}
