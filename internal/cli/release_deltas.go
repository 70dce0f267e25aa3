package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/release"
)

func (a *api) releaseDeltas() *cobra.Command {
	var from string
	c := a.verb(cobra.Command{
		Use: "deltas RELEASE", Short: "List the deltas to a release, or have more made", Args: cobra.ExactArgs(1),
		Long: `Lists the deltas by which devices make the components of a release of what they run, and what those save. They are made when a release is published, of the three releases before it and of those
that at least one device in a hundred runs. With --from they are made of another release too, and those that failed are tried again.` + releaseArg,
		Example: "  hallmark release deltas pump@1.1.0\n  hallmark release deltas pump@1.1.0 --from pump@0.9.0",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r, err := findRelease(ctx, cl, args[0])
		if err != nil {
			return err
		}
		var all []client.DeltaView
		if from == "" {
			all, err = cl.Deltas(ctx, r.Digest)
		} else {
			var old client.ReleaseView
			if old, err = findRelease(ctx, cl, from); err != nil {
				return err
			}
			all, err = cl.MakeDeltas(ctx, r.Digest, old.Digest)
		}
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			rows := make([][]string, len(all))
			for i, d := range all {
				size, saves := "", d.Text
				if d.State == release.DeltaMade {
					size, saves = fmt.Sprint(d.Size), fmt.Sprintf("%.1f %%", 100-100*float64(d.Size)/float64(d.Whole))
				}
				rows[i] = []string{d.Name, d.Of, string(d.State), size, fmt.Sprint(d.Whole), saves, fmt.Sprint(d.Saved)}
			}
			return table(w, "COMPONENT FROM STATE BYTES WHOLE SAVES SAVED", rows)
		})
	})
	c.Flags().StringVar(&from, "from", "", "a release that devices run, of which deltas are to be made too")
	return c
}
