package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/remedy"
)

func newRemedy(a *api) *cobra.Command {
	return a.noun("remedy", "The cases of devices in trouble", a.listRemedies())
}

func (a *api) listRemedies() *cobra.Command {
	return a.verb(cobra.Command{Use: "list", Short: "List open cases, oldest first", Example: "  hallmark remedy list"},
		func(ctx context.Context, cl *client.Client, _ []string) error {
			cs, err := cl.Remedies(ctx)
			if err != nil {
				return err
			}
			return rows(a, "DEVICE PRODUCT PHASE OPENED SINCE UNTIL COMMAND REASON", cs, func(c remedy.Case) []string {
				return []string{c.Device, c.Product, string(c.Phase), when(c.Opened), when(c.Since), when(c.Until), or(c.Command), c.Reason}
			})
		})
}
