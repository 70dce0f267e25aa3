package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
)

func artifactList(s streams) *cobra.Command {
	a := &api{s: s}
	var productID string
	c := listing(a, cobra.Command{
		Use: "list --product PRODUCT", Short: "List what was uploaded to a product, and which releases name it",
		Long: `Lists what was uploaded to a product of a running instance, in the order of the digests: with which name, by whom and when at first, and which releases name it. What none names was
uploaded and never proposed. Deltas are listed by ` + "`hallmark release deltas`" + `.`,
		Example: "  hallmark artifact list --product pump\n  hallmark artifact list --product pump --all --json",
	}, "NAME BYTES BY UPLOADED RELEASES DIGEST",
		func(ctx context.Context, cl *client.Client, _ []string) ([]client.StoredArtifact, error) {
			return cl.Artifacts(ctx, productID)
		},
		func(v client.StoredArtifact) []string {
			names := make([]string, len(v.Releases))
			for i, r := range v.Releases {
				names[i] = r.Version + " (" + r.As + ")"
			}
			return []string{v.Name, fmt.Sprint(v.Size), v.By, when(v.At), strings.Join(names, ", "), v.Digest}
		})
	c.Flags().StringVar(&productID, "product", "", "product")
	a.flags(c)
	return need(c, "product")
}
