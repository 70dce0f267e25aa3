package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/rollout"
)

// rate is a flag of bytes a second.
type rate uint64

// String implements pflag.Value.
func (r *rate) String() string {
	if *r == 0 {
		return ""
	}
	return humanize.Bytes(uint64(*r)) + "/s"
}

// Set implements pflag.Value.
func (r *rate) Set(text string) error {
	n, err := humanize.ParseBytes(strings.TrimSuffix(text, "/s"))
	if err != nil {
		return fmt.Errorf("want bytes a second, such as 64kB/s or 20MB/s: %w", err)
	}
	*r = rate(n)
	return nil
}

// Type implements pflag.Value.
func (r *rate) Type() string { return "rate" }

func bandwidth(f *pflag.FlagSet, b *rollout.Bandwidth) {
	f.Var((*rate)(&b.All), "bandwidth", "how fast bytes leave each node of the server for all of its devices together, such as 20MB/s (default no limit)")
	f.Var((*rate)(&b.Each), "device-bandwidth", "the same for one device, such as 64kB/s")
}

func (a *api) rolloutBandwidth() *cobra.Command {
	var b rollout.Bandwidth
	var reason string
	var f *pflag.FlagSet
	c := a.verb(cobra.Command{
		Use: "bandwidth ROLLOUT --reason TEXT", Short: "Change how fast its bytes leave", Args: cobra.ExactArgs(1),
		Long:    "Changes how fast the bytes of a rollout leave, from the next request of each device on. A limit that is not given stays; 0 is none.",
		Example: "  hallmark rollout bandwidth pump-1.1.0 --bandwidth 20MB/s --device-bandwidth 64kB/s --reason 'the line of the plant is narrow'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if !f.Changed("bandwidth") || !f.Changed("device-bandwidth") {
			now, err := cl.Rollout(ctx, args[0])
			if err != nil {
				return err
			}
			if has := now.Rollout.Spec.Bandwidth; has != nil && f.Changed("bandwidth") {
				b.Each = has.Each
			} else if has != nil {
				b.All = has.All
			}
		}
		r, err := cl.SetRolloutBandwidth(ctx, args[0], b, reason)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return rolloutSheet(w, r) })
	})
	f = c.Flags()
	bandwidth(f, &b)
	c.MarkFlagsOneRequired("bandwidth", "device-bandwidth")
	f.StringVar(&reason, "reason", "", "why")
	return need(a.matching(c), "reason")
}
