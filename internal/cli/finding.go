package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/monitor"
)

func newFinding(a *api) *cobra.Command {
	return a.noun("finding", "What is wrong, and not yet dealt with", a.listFindings(), a.closeFinding())
}

func (a *api) listFindings() *cobra.Command {
	var q monitor.Query
	c := a.verb(cobra.Command{Use: "list", Short: "List findings, open ones first", Example: "  hallmark finding list --open --product pump"},
		func(ctx context.Context, cl *client.Client, _ []string) error {
			fs, err := cl.Findings(ctx, q)
			if err != nil {
				return err
			}
			return rows(a, "ID SEVERITY KIND SUBJECT RAISED CLOSED TEXT", fs, func(f monitor.Finding) []string {
				return []string{f.ID, string(f.Severity), string(f.Kind), f.Subject, when(f.Raised), when(f.Closed), f.Text}
			})
		})
	f := c.Flags()
	f.StringVar(&q.Product, "product", "", "only this product's")
	f.StringVar(&q.Subject, "subject", "", "only about this, a device mostly")
	f.BoolVar(&q.OpenOnly, "open", false, "only open ones")
	return c
}

func (a *api) closeFinding() *cobra.Command {
	var reason string
	c := a.verb(cobra.Command{
		Use: "close ID --reason TEXT", Short: "Close a finding, with the reason", Args: cobra.ExactArgs(1),
		Example: "  hallmark finding close 5d2e --reason 'device was on the bench'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if err := cl.CloseFinding(ctx, args[0], reason); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "closed", args[0]) })
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	return need(c, "reason")
}
