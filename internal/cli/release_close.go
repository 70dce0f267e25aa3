package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/wire"
)

func (a *api) closeRelease() *cobra.Command {
	var reason, out string
	var fix mend
	c := a.verb(cobra.Command{
		Use: "close RELEASE --reason TEXT (--out FILE | --fix RELEASE)", Short: "Have no device install a release again",
		Long: `Has no device install a release again: not one that comes back after years, and not by a stolen directive key. The release is withdrawn, commands that bring it
and were not carried out are cancelled, and the product's next trust bundle is written for the holders of the root keys to sign, as ` + "`hallmark bundle payload --install`" + `
does: devices that have it install from the release's security counter and one on. What is below that counter is closed with it. Publish what mends it with such a counter.

Devices that run it go on. With --fix they are brought what mends it: a rollout begins that takes the devices which run the release, or what is closed with it, through
its waves, and goes on when these have passed. Whoever comes back later, in two years perhaps, is told of the fix as soon as it is heard of, and joins in. It ends when
somebody shuts it: ` + "`hallmark rollout shut`" + `.

Called again, it completes what broke off; so a fix that is not there yet is named when it is published.` + releaseArg,
		Args: cobra.ExactArgs(1), Example: "  hallmark release close pump@1.1.0 --reason 'CVE-2029-1234' --out pump-2.payload --fix pump@1.1.1",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		_, digest, err := digestOf(ctx, cl, args[0])
		if err != nil {
			return err
		}
		if err := fix.ready(ctx, cl, digest, reason); err != nil {
			return err // before anything is closed
		}
		r, err := cl.CloseRelease(ctx, digest, reason)
		if err != nil {
			return err
		}
		before, _, err := currentBundle(ctx, cl, r.Manifest.Product)
		if err != nil {
			return err
		}
		s, err := cl.BundleStatus(ctx, r.Manifest.Product)
		if err != nil {
			return err
		}
		cells := []string{
			"closed", r.Manifest.ID, "reason", r.Reason, "go on", fleet.Count(s.Below(r.Install()), "device that runs it, or what is closed with it", "devices that run it, or what is closed with it"),
		}
		next := before
		if out == "" {
			cells = append(cells, "trust bundle", "not written: --out FILE does, for the holders of the root keys to sign")
		} else if before.Least() >= r.Install() {
			cells = append(cells, "trust bundle", fmt.Sprintf("%d closes it already: nothing is to be signed", before.Version))
		} else {
			if next, err = (bundleChange{install: r.Install(), hasInstall: true}).apply(before); err != nil {
				return err
			}
			if next, err = writeNext(next, out); err != nil {
				return err
			}
			cells = append(cells, "trust bundle", fmt.Sprintf("%d, to be signed by %d of %d root keys: hallmark approve", next.Version, before.Root.Threshold, len(before.Root.Keys)), "written", out)
		}
		more, err := fix.begin(ctx, cl)
		if err != nil {
			return err
		}
		cells = append(cells, more...)
		return a.show(func(w io.Writer) error {
			if err := sheet(w, cells...); err != nil {
				return err
			}
			return printChanges(w, before, next)
		})
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	c.Flags().StringVar(&out, "out", "", "file to write: the trust bundle to be signed")
	fix.flags(c.Flags())
	c.MarkFlagsOneRequired("out", "fix")
	return need(a.matching(c), "reason")
}

// versions reads a range of versions: >=VERSION, <VERSION, or both.
func versions(text string) (v wire.VersionRange, ok bool) {
	rest, below, _ := strings.Cut(text, "<")
	from, given := strings.CutPrefix(rest, ">=")
	v = wire.VersionRange{From: from, Below: below}
	return v, given == (rest != "") && v != wire.VersionRange{}
}

// waysOf says in words over what a release is installed, and how one may go back from it; empty where it does not say.
func waysOf(r wire.Release) string {
	var out strings.Builder
	for i, v := range r.Over {
		if out.WriteString(", or "); i == 0 {
			out.Reset()
			out.WriteString("; installed over versions ")
		}
		out.WriteString(v.String())
	}
	if len(r.RollbackTo) > 0 {
		fmt.Fprintf(&out, "; may be left for %s", fleet.Count(len(r.RollbackTo), "release before", "releases before"))
	}
	if r.BackFor > 0 {
		fmt.Fprintf(&out, "; back within %s", time.Duration(r.BackFor)*time.Second)
	}
	return out.String()
}
