package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/release"
)

func (a *api) releaseDocument() *cobra.Command {
	var out string
	c := a.verb(cobra.Command{
		Use: "document RELEASE (sbom|provenance) --out FILE", Short: "Get the bill of materials or the provenance of a release, as it was uploaded", Args: cobra.ExactArgs(2),
		Long:    "Gets a document that a release names by its SHA-256, and that its approvers have signed so." + releaseArg,
		Example: "  hallmark release document pump@1.1.0 sbom --out pump-1.1.0.cdx.json",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r, err := findRelease(ctx, cl, args[0])
		if err != nil {
			return err
		}
		data, err := cl.ReleaseDocument(ctx, r.Digest, release.DocumentKind(args[1]))
		if err != nil {
			return err
		}
		return a.laidDown(out, data)
	})
	c.Flags().StringVar(&out, "out", "", "file to write")
	return need(c, "out")
}

// laidDown puts a document that was asked for where the caller wants it, and says so.
func (a *api) laidDown(out string, data []byte) error {
	if err := durable.WriteFile(out, data, 0o644); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.s.out, "%s written, %d bytes\n", out, len(data))
	return err
}
