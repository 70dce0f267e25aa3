package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/ledger"
)

func newFact(a *api) *cobra.Command {
	return a.noun("fact", "What the ledger holds", a.listFacts(), a.showFact())
}

func (a *api) listFacts() *cobra.Command {
	var q fleet.FactQuery
	c := a.verb(cobra.Command{
		Use: "list", Short: "Search a log, newest first", Example: "  hallmark fact list --log control --kind release.published",
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		p, err := cl.Facts(ctx, q)
		if err != nil {
			return err
		}
		if err := a.show(func(w io.Writer) error { return lines(w, p.Facts) }); err != nil || p.Before == nil {
			return err
		}
		_, err = fmt.Fprintf(a.s.err, "older: --before %d\n", *p.Before)
		return err
	})
	f := c.Flags()
	f.StringVar(&q.Log, "log", string(ledger.Events), "control or events")
	f.StringVar(&q.Subject, "subject", "", "only about this: a device, an order, a release, …")
	f.StringVar(&q.Kind, "kind", "", "only of this kind, such as release.published")
	f.Uint64Var(&q.Before, "before", 0, "only entries with a smaller index")
	f.IntVar(&q.Limit, "limit", 50, "at most so many, 1 to 200")
	return c
}

func (a *api) showFact() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "show (UID | LOG INDEX)", Short: "Show a fact with its inclusion proof",
		Long: "Shows a fact with its inclusion proof, by its UID of 32 hex digits, or by its log and place there. --json gives the entry and the proof themselves.",
		Args: cobra.RangeArgs(1, 2), Example: "  hallmark fact show control 0",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		ask := func() (client.Entry, error) { return cl.Fact(ctx, args[0]) }
		if len(args) == 2 {
			index, err := strconv.ParseUint(args[1], 10, 63)
			if err != nil {
				return usagef("index %q: want a number", args[1])
			}
			ask = func() (client.Entry, error) { return cl.Entry(ctx, args[0], index) }
		}
		e, err := proven(ctx, ask)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "fact", fmt.Sprintf("%x", e.Fact.UID), "kind", e.Fact.Kind, "time", when(time.UnixMilli(e.Fact.At)), "by", e.Fact.Actor,
				"subject", e.Fact.Subject, "text", oneLine(fleet.Describe(ledger.Kind(e.Fact.Kind), e.Fact.Data)),
				"place", fmt.Sprintf("%s/%d of %d", e.Log, e.Proof.Index, e.Proof.Size), "witnessed by", fmt.Sprint(len(e.Proof.Cosignatures)))
		})
	})
}
