package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/wire"
)

func newCommand(a *api) *cobra.Command {
	return a.noun("command", "Tell devices to do something: attest, quarantine, sleep, reset, …", a.createCommand(), a.showCommand(), a.commandDevices(), a.cancelCommand())
}

func (a *api) createCommand() *cobra.Command {
	var r client.CommandRequest
	var release string
	var ttl time.Duration
	var send sending
	c := a.verb(cobra.Command{
		Use: "create ACT DEVICE… --product PRODUCT --reason TEXT", Short: "Command devices",
		Long: `Commands devices of one product. Routine: attest, configure. Guarded, and ended by the device itself after --ttl unless renewed:
quarantine, dormant; and release, wake, reset. With --release: reprovision, which puts what a device ran in good health on it anew; any
other release takes two people, because code comes by a rollout, to one device too: see ` + "`hallmark rollout create`" + `. What must not
be undone needs an offline warrant instead: see ` + "`hallmark warrant submit`" + ` and ` + "`hallmark retirement create`" + `.`,
		Args: cobra.MinimumNArgs(2), Example: "  hallmark command create quarantine 00112233445566778899aabbccddeeff --product pump --ttl 24h --reason 'odd traffic'",
	}, func(ctx context.Context, cl *client.Client, args []string) (err error) {
		r.Act, r.Devices = wire.Act(args[0]), args[1:]
		if ttl < 0 || ttl%time.Second != 0 {
			return usagef("--ttl %s: want whole seconds, such as 24h", ttl)
		}
		r.TTL = int64(ttl / time.Second)
		if release != "" {
			if _, r.Release, err = digestOf(ctx, cl, release); err != nil {
				return err
			}
		}
		return send.command(ctx, a, cl, r)
	})
	f := c.Flags()
	f.StringVar(&r.Product, "product", "", "the devices' product")
	f.StringVar(&r.Reason, "reason", "", "why")
	f.DurationVar(&ttl, "ttl", 0, "guarded acts: until the device ends it by itself (default: the server's)")
	send.flags(f)
	f.StringVar(&release, "release", "", "acts that bring code: digest or PRODUCT@VERSION")
	return need(c, "product", "reason")
}

// sending is how a command is given: only looked at, or to as many devices as are meant.
type sending struct {
	dry       bool
	confirmed int
}

func (s *sending) flags(f *pflag.FlagSet) {
	f.BoolVar(&s.dry, "dry-run", false, "only say whom it would reach")
	f.IntVar(&s.confirmed, "confirm-count", 0, fmt.Sprintf("how many devices you mean, for more than %d", maxUnasked))
}

func (s *sending) command(ctx context.Context, a *api, cl *client.Client, r client.CommandRequest) error {
	if s.dry {
		return a.previewCommand(ctx, cl, r)
	}
	if err := bulk(len(r.Devices), s.confirmed, string(r.Act)); err != nil {
		return err
	}
	id, err := cl.Command(ctx, r)
	if err != nil {
		return err
	}
	return a.show(func(w io.Writer) error { return sheet(w, "command", id) })
}

// previewCommand says whom a command would reach.
func (a *api) previewCommand(ctx context.Context, cl *client.Client, r client.CommandRequest) error {
	p, err := cl.PreviewCommand(ctx, r)
	if err != nil {
		return err
	}
	return a.show(func(w io.Writer) error {
		pairs := []string{"would reach", fmt.Sprint(p.Devices)}
		for _, s := range slices.Sorted(maps.Keys(p.States)) {
			pairs = append(pairs, "  "+string(s), fmt.Sprint(p.States[s]))
		}
		if p.Silent > 0 {
			pairs = append(pairs, "silent for a day", fmt.Sprint(p.Silent))
		}
		if p.TakesTwo {
			pairs = append(pairs, "takes two", "yes: see --propose")
		}
		if p.Foreign > 0 {
			pairs = append(pairs, "cannot be for", fmt.Sprintf("%d, and is refused as a whole", p.Foreign))
		}
		for _, name := range p.Named {
			pairs = append(pairs, "", name)
		}
		return sheet(w, pairs...)
	})
}

func (a *api) showCommand() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "show ID", Short: "Show a command and what became of it", Args: cobra.ExactArgs(1), Example: "  hallmark command show 7c1f",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		v, err := cl.CommandOf(ctx, args[0])
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			pairs := []string{
				"command", v.ID, "product", v.Wire.Product, "act", string(v.Wire.Act), "devices", fmt.Sprint(v.Wire.Devices.Count), "reason", v.Reason,
				"issued", unix(v.Wire.Issued), "expires", unix(v.Wire.Expires),
			}
			for _, s := range slices.Sorted(maps.Keys(v.Counts)) {
				pairs = append(pairs, string(s), fmt.Sprint(v.Counts[s]))
			}
			return sheet(w, pairs...)
		})
	})
}

const outcomeHead = "STANDING ATTEMPTS CHANGED CODE TEXT"

func outcome(o client.Outcome) []string {
	return []string{string(o.Standing), fmt.Sprint(o.Attempts), when(o.At), or(o.Code), o.Text}
}

func (a *api) commandDevices() *cobra.Command {
	return listing(a, cobra.Command{
		Use: "devices ID", Short: "List the devices of a command and what became of it on each", Args: cobra.ExactArgs(1), Example: "  hallmark command devices 7c1f",
	}, "DEVICE "+outcomeHead,
		func(ctx context.Context, cl *client.Client, args []string) ([]client.Outcome, error) {
			return cl.CommandDevices(ctx, args[0])
		},
		func(o client.Outcome) []string { return append([]string{o.Device}, outcome(o)...) })
}

func (a *api) cancelCommand() *cobra.Command {
	var reason string
	c := a.verb(cobra.Command{
		Use: "cancel ID --reason TEXT", Short: "Withdraw a command from whom it has not reached", Args: cobra.ExactArgs(1),
		Example: "  hallmark command cancel 7c1f --reason 'wrong devices'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if err := cl.CancelCommand(ctx, args[0], reason); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "cancelled", args[0]) })
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	return need(c, "reason")
}
