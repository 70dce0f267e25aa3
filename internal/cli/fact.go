package cli

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/ledger"
)

func newFact(a *api) *cobra.Command {
	return a.noun("fact", "What the ledger holds", a.listFacts(), a.showFact(), a.factReceipt())
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
		if err := a.show(func(w io.Writer) error { return lines(w, p.Items) }); err != nil || p.Before == nil {
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
		e, err := named(ctx, cl, args)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "fact", fmt.Sprintf("%x", e.Fact.UID), "kind", e.Fact.Kind, "time", when(time.UnixMilli(e.Fact.At)), "by", e.Fact.Actor,
				"subject", e.Fact.Subject, "text", oneLine(fleet.Describe(e.Fact, e.Private)),
				"place", fmt.Sprintf("%s/%d of %d", e.Log, e.Proof.Index, e.Proof.Size), "witnessed by", fmt.Sprint(len(e.Proof.Cosignatures)))
		})
	})
}

// named gives the fact that is named by its UID, or by its log and place there.
func named(ctx context.Context, cl *client.Client, args []string) (client.Entry, error) {
	ask := func() (client.Entry, error) { return cl.Fact(ctx, args[0]) }
	if len(args) == 2 {
		index, err := strconv.ParseUint(args[1], 10, 63)
		if err != nil {
			return client.Entry{}, usagef("index %q: want a number", args[1])
		}
		ask = func() (client.Entry, error) { return cl.Entry(ctx, args[0], index) }
	}
	return proven(ctx, ask)
}

func (a *api) factReceipt() *cobra.Command {
	var out, entry string
	c := a.verb(cobra.Command{
		Use: "receipt (UID | LOG INDEX) --out FILE", Short: "Write a fact's receipt, for verifiers that know COSE receipts",
		Long: `Writes a receipt of a fact (RFC 9942, application/scitt-receipt+cose): the log's signature over a root that is published and witnessed, with the
path from the entry to it. --entry writes the entry, whose bytes the receipt is of. The format has no place for the witnesses' cosignatures:
who has only a receipt believes the log's key alone. ` + "`hallmark log trace`" + ` has them.`,
		Args: cobra.RangeArgs(1, 2), Example: "  hallmark fact receipt control 20 --out bundle.receipt --entry bundle.entry",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		e, err := named(ctx, cl, args)
		if err != nil {
			return err
		}
		uid := hex.EncodeToString(e.Fact.UID)
		data, err := cl.Receipt(ctx, uid)
		if err != nil {
			return err
		}
		if err := durable.WriteFile(out, data, 0o644); err != nil {
			return err
		}
		if entry != "" {
			if err := durable.WriteFile(entry, e.Entry, 0o644); err != nil {
				return err
			}
		}
		if a.last, err = json.Marshal(map[string]any{"uid": uid, "log": e.Log, "index": e.Proof.Index, "receipt": data}); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "fact", uid, "kind", e.Fact.Kind, "place", fmt.Sprintf("%s/%d", e.Log, e.Proof.Index), "written", out, "entry", entry)
		})
	})
	c.Flags().StringVar(&out, "out", "", "file to write the receipt to")
	c.Flags().StringVar(&entry, "entry", "", "file to write the entry to")
	return need(c, "out")
}
