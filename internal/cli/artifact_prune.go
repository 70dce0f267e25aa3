package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
)

func artifactPrune(s streams) *cobra.Command {
	a := &api{s: s}
	var productID, older string
	var dry bool
	c := a.verb(cobra.Command{
		Use: "prune --product PRODUCT", Short: "Delete artifacts that nothing names, and deltas that nobody needs",
		Long: `Deletes what was uploaded to a product of a running instance and is named by nothing: no release, whatever became of it, no lot's certificate and no master. Deltas go with it that
lead to no published release any more, or from one that no device runs; ` + "`hallmark release deltas --from`" + ` has them made again. What somebody uploaded within the time that --older says stays, if it was
there before too. Under 30 days it takes two people, where others than you uploaded some of it: add --propose and the reason. --dry-run says what would go, and deletes nothing.

The ledger has one fact of it, with the digests. The bytes leave their place within seconds, unless another product has the same.`,
		Example: "  hallmark artifact prune --product pump --dry-run\n  hallmark artifact prune --product pump --older 90d\n  hallmark artifact prune --product pump --older 1d --propose 'a build that was too large'",
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		age, ok := ageOf(older)
		if !ok {
			return usagef("--older %q: want days or a duration, such as 30d or 12h, in whole seconds", older)
		}
		p, err := cl.PruneArtifacts(ctx, productID, client.PruneRequest{Older: age, Dry: dry})
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			what := "deleted"
			if dry {
				what = "would be deleted"
			}
			pairs := []string{what, fmt.Sprintf("%d artifacts, %d deltas", p.Artifacts, p.Deltas), "broken uploads", fmt.Sprint(p.Strays), "bytes", fmt.Sprint(p.Bytes)}
			for _, n := range p.Names {
				pairs = append(pairs, "artifact "+n.Name, fmt.Sprintf("%s, %d bytes by %s, %s", n.Digest, n.Size, n.By, when(n.At)))
			}
			return sheet(w, pairs...)
		})
	})
	f := c.Flags()
	f.StringVar(&productID, "product", "", "product")
	f.StringVar(&older, "older", "30d", "since nobody touched it for so long: days or a duration, an hour at least")
	f.BoolVar(&dry, "dry-run", false, "say what would be deleted, and delete nothing")
	a.flags(c)
	return need(c, "product")
}

// ageOf reads days, as 30d, or a duration; in seconds.
func ageOf(text string) (uint64, bool) {
	days, isDays := strings.CutSuffix(text, "d")
	if !isDays {
		s, ok := seconds(text)
		return uint64(s), ok
	}
	n, err := strconv.ParseUint(days, 10, 16)
	return n * uint64((24 * time.Hour).Seconds()), err == nil
}
