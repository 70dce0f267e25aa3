package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/internal/client"
)

func newProposal(a *api) *cobra.Command {
	return a.noun("proposal", "Four eyes: what waits for a second person",
		a.listProposals(), a.showProposal(),
		a.decideProposal("approve", true, "Agree to what somebody else wants to do", "olga called, the traffic is real"),
		a.decideProposal("refuse", false, "Refuse what somebody else wants to do, or withdraw your own", "not before the weekend"),
		a.runProposal())
}

// waiting tells, on the error stream, that a second person is needed and what they have to do.
func (a *api) waiting(p proposal.Proposal) {
	fmt.Fprintf(a.s.err, "this takes two: proposal %s waits until %s; another person who may do it says\n  hallmark proposal approve %s\n", p.ID, when(p.Expires), p.ID)
}

func (a *api) listProposals() *cobra.Command {
	var product, group string
	c := listing(a, cobra.Command{Use: "list", Short: "List what waits for a second person, or did, newest first", Example: "  hallmark proposal list --product pump --group eu"},
		"ID STATE BY WHAT PRODUCT GROUP MADE EXPIRES REASON",
		func(ctx context.Context, cl *client.Client, _ []string) ([]proposal.Proposal, error) {
			return cl.Proposals(ctx, product, group)
		},
		func(p proposal.Proposal) []string {
			return []string{p.ID, string(p.State), p.By, p.Asked.Summary, or(p.Resource.Product), or(p.Resource.Group), when(p.Made), when(p.Expires), p.Reason}
		})
	c.Flags().StringVar(&product, "product", "", "only about this product")
	c.Flags().StringVar(&group, "group", "", "only about this group of the product, or one below")
	return c
}

func (a *api) proposal(p proposal.Proposal) error {
	return a.show(func(w io.Writer) error {
		err := sheet(w, "proposal", p.ID, "state", string(p.State), "by", p.By, "reason", p.Reason, "what", p.Asked.Summary,
			"operation", p.Asked.Method+" "+p.Asked.Path, "permission", string(p.Action), "product", or(p.Resource.Product), "group", or(p.Resource.Group), "made", when(p.Made),
			"expires", when(p.Expires), "decided by", or(p.Second), "decided", when(p.Decided), "comment", or(p.Comment))
		if err != nil || len(p.Asked.Body) == 0 {
			return err
		}
		fmt.Fprintln(w, "with")
		return printJSON(w, p.Asked.Body)
	})
}

func (a *api) showProposal() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "show PROPOSAL", Short: "Show a proposal: what would be done, by whom and why", Args: cobra.ExactArgs(1), Example: "  hallmark proposal show 018f2a3b4c5abcdef",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		p, err := cl.Proposal(ctx, args[0])
		if err != nil {
			return err
		}
		return a.proposal(p)
	})
}

func (a *api) decideProposal(verb string, approve bool, short, why string) *cobra.Command {
	var comment string
	c := a.verb(cobra.Command{
		Use: verb + " PROPOSAL", Short: short, Args: cobra.ExactArgs(1),
		Example: fmt.Sprintf("  hallmark proposal %s 018f2a3b4c5abcdef --comment '%s'", verb, why),
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		p, err := cl.DecideProposal(ctx, args[0], approve, comment)
		if err != nil {
			return err
		}
		return a.proposal(p)
	})
	c.Flags().StringVar(&comment, "comment", "", "what you say to it, for the ledger")
	return a.matching(c)
}

func (a *api) runProposal() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "run PROPOSAL", Short: "Do what you proposed and somebody approved", Args: cobra.ExactArgs(1),
		Long:    "Does what you proposed and somebody approved, and prints what the operation itself answers. It is done once; again it gives the same answer for a day.",
		Example: "  hallmark proposal run 018f2a3b4c5abcdef",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		answer, err := cl.RunProposal(ctx, args[0])
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return printJSON(w, answer) })
	})
}
