package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/wire"
)

func (a *api) deviceSettings() *cobra.Command {
	return listing(a, cobra.Command{
		Use: "settings DEVICE", Short: "Compare a device's configuration: as it is wanted, and as it is", Args: cobra.ExactArgs(1),
		Long: `Compares a device's configuration as it is wanted, with what is on its way, with what the device says; and tells what the release that it runs takes.
Of a secret is told only that there is one.`,
		Example: "  hallmark device settings 00112233445566778899aabbccddeeff",
	}, "NAME DESIRED REPORTED STANDING CHECKED-IN TAKES PROGRAMS",
		func(ctx context.Context, cl *client.Client, args []string) ([]device.Setting, error) {
			return cl.Settings(ctx, args[0])
		},
		func(s device.Setting) []string {
			takes := "-"
			if s.Parameter != nil {
				takes = s.Parameter.String()
			}
			return []string{s.Name, given(s.Desired, s.Secret), given(s.Reported, s.Secret), string(s.Standing), when(s.ReportedAt), takes, programs(s.Programs)}
		})
}

func programs(all []device.Taking) string {
	out := make([]string, len(all))
	for i, t := range all {
		out[i] = t.String()
	}
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, "; ")
}

func given(v *string, secret bool) string {
	switch {
	case v == nil:
		return "-"
	case secret:
		return "(secret)"
	}
	return *v
}

func (a *api) configureDevices() *cobra.Command {
	r := client.CommandRequest{Act: wire.ActConfigure}
	var of settings
	var send sending
	c := a.verb(cobra.Command{
		Use: "configure DEVICE… --product PRODUCT --set NAME=VALUE … --reason TEXT", Short: "Tell devices to take settings",
		Long: `Tells devices of one product to take settings, which are laid over those they have. A device verifies the command before it acts, and
reports what it has from then on: see ` + "`hallmark device settings`" + `. Where the release that a device runs has a schema of its parameters, both hold a
setting against it: a name that is not there, or a value that does not fit, is refused. Secrets are given by --set-file, so that no list of processes and no
shell's history has them.`,
		Args: cobra.MinimumNArgs(1), Example: "  hallmark device configure 00112233445566778899aabbccddeeff --product pump --set report.every=60s --reason 'less traffic'",
	}, func(ctx context.Context, cl *client.Client, ids []string) error {
		if len(of.set)+len(of.files) == 0 {
			return usagef("say what to set: --set NAME=VALUE, or --set-file NAME=FILE")
		}
		entries, err := of.entries(ctx, cl, ids[0])
		if err != nil {
			return err
		}
		r.Devices, r.Config = ids, entries
		return send.command(ctx, a, cl, r)
	})
	f := c.Flags()
	f.StringVar(&r.Product, "product", "", "the devices' product")
	f.StringArrayVar(&of.set, "set", nil, "a setting, NAME=VALUE; once for each")
	f.StringArrayVar(&of.files, "set-file", nil, "a setting from a file, NAME=FILE: text, or the bytes of a parameter of bytes; /dev/stdin is standard input")
	f.StringVar(&r.Reason, "reason", "", "why")
	send.flags(f)
	_ = c.RegisterFlagCompletionFunc("set", a.completeSetting) // it exists
	return need(c, "product", "reason")
}
