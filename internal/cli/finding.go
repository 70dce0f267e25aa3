package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/monitor"
)

func newFinding(a *api) *cobra.Command {
	return a.noun("finding", "What is wrong, and not yet dealt with", a.listFindings(), a.showFinding(), a.closeFinding())
}

func (a *api) listFindings() *cobra.Command {
	var q monitor.Query
	c := listing(a, cobra.Command{Use: "list", Short: "List findings, newest first", Example: "  hallmark finding list --open --product pump"},
		"ID SEVERITY KIND SUBJECT RAISED CLOSED TEXT",
		func(ctx context.Context, cl *client.Client, _ []string) ([]monitor.Finding, error) {
			return cl.Findings(ctx, q)
		},
		func(f monitor.Finding) []string {
			return []string{f.ID, string(f.Severity), string(f.Kind), f.Subject, when(f.Raised), when(f.Closed), f.Text}
		})
	f := c.Flags()
	f.StringVar(&q.Product, "product", "", "only this product's")
	f.StringVar(&q.Subject, "subject", "", "only about this, a device mostly")
	f.StringVar((*string)(&q.Kind), "kind", "", "only of this kind, such as checkin.overdue")
	f.BoolVar(&q.OpenOnly, "open", false, "only open ones")
	return c
}

func (a *api) showFinding() *cobra.Command {
	return a.verb(cobra.Command{Use: "show FINDING", Short: "Show a finding", Args: cobra.ExactArgs(1), Example: "  hallmark finding show 5d2e"},
		func(ctx context.Context, cl *client.Client, args []string) error {
			f, err := cl.Finding(ctx, args[0])
			if err != nil {
				return err
			}
			cause := ""
			if f.Cause != nil {
				cause = fmt.Sprintf("%s/%d", f.Cause.Log, f.Cause.Index)
			}
			return a.show(func(w io.Writer) error {
				return sheet(w, "finding", f.ID, "kind", string(f.Kind), "severity", string(f.Severity), "product", f.Product, "subject", f.Subject,
					"text", f.Text, "cause", cause, "raised", when(f.Raised), "closed", when(f.Closed), "by", f.By, "reason", f.Reason)
			})
		})
}

func (a *api) closeFinding() *cobra.Command {
	var reason string
	c := a.verb(cobra.Command{
		Use: "close FINDING --reason TEXT", Short: "Close a finding, with the reason", Args: cobra.ExactArgs(1),
		Example: "  hallmark finding close 5d2e --reason 'device was on the bench'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if err := cl.CloseFinding(ctx, args[0], reason); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "closed", args[0]) })
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	return need(a.matching(c), "reason")
}
