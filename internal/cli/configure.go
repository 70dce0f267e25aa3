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
		Example: "  hallmark device settings 00112233445566778899aabbccddeeff",
	}, "NAME DESIRED REPORTED STANDING CHECKED-IN",
		func(ctx context.Context, cl *client.Client, args []string) ([]device.Setting, error) {
			return cl.Settings(ctx, args[0])
		},
		func(s device.Setting) []string {
			return []string{s.Name, given(s.Desired), given(s.Reported), string(s.Standing), when(s.ReportedAt)}
		})
}

func given(v *string) string {
	if v == nil {
		return "-"
	}
	return *v
}

func (a *api) configureDevices() *cobra.Command {
	r := client.CommandRequest{Act: wire.ActConfigure}
	var set []string
	var send sending
	c := a.verb(cobra.Command{
		Use: "configure DEVICE… --product PRODUCT --set NAME=VALUE … --reason TEXT", Short: "Tell devices to take settings",
		Long: `Tells devices of one product to take settings, which are laid over those they have. A device verifies the command before it acts, and
reports what it has from then on: see ` + "`hallmark device settings`.",
		Args: cobra.MinimumNArgs(1), Example: "  hallmark device configure 00112233445566778899aabbccddeeff --product pump --set report.every=60s --reason 'less traffic'",
	}, func(ctx context.Context, cl *client.Client, ids []string) error {
		r.Devices, r.Config = ids, nil
		for _, s := range set {
			name, value, ok := strings.Cut(s, "=")
			if !ok {
				return usagef("--set %q: want NAME=VALUE", s)
			}
			r.Config = append(r.Config, wire.ConfigEntry{Name: name, Value: value})
		}
		return send.command(ctx, a, cl, r)
	})
	f := c.Flags()
	f.StringVar(&r.Product, "product", "", "the devices' product")
	f.StringArrayVar(&set, "set", nil, "a setting, NAME=VALUE; once for each")
	f.StringVar(&r.Reason, "reason", "", "why")
	send.flags(f)
	return need(c, "product", "set", "reason")
}
