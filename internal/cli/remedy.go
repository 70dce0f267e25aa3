package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/remedy"
)

func newRemedy(a *api) *cobra.Command {
	return a.noun("remedy", "The cases of devices in trouble", a.listRemedies(), a.showRemedy(),
		a.decide("approve", "Quarantine the devices of held cases after all", "seen on site: it is not ours"),
		a.decide("dismiss", "End unfounded cases: contained devices are released", "the reference value was wrong"),
		a.reprovision())
}

func (a *api) listRemedies() *cobra.Command {
	var productID string
	c := listing(a, cobra.Command{Use: "list", Short: "List open cases, by device", Example: "  hallmark remedy list --product pump"},
		"DEVICE PRODUCT PHASE OPENED SINCE UNTIL COMMAND REASON",
		func(ctx context.Context, cl *client.Client, _ []string) ([]remedy.Case, error) {
			return cl.RemediesOf(ctx, productID)
		},
		func(c remedy.Case) []string {
			return []string{c.Device, c.Product, string(c.Phase), when(c.Opened), when(c.Since), when(c.Until), or(c.Command), c.Reason}
		})
	c.Flags().StringVar(&productID, "product", "", "only this product's")
	return c
}

func (a *api) showRemedy() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "show CASE", Short: "Show a device's open case", Long: "Shows a device's open case. CASE is the device's ID.", Args: cobra.ExactArgs(1),
		Example: "  hallmark remedy show 00112233445566778899aabbccddeeff",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		c, err := cl.Remedy(ctx, args[0])
		if err != nil {
			return err
		}
		tries := ""
		if c.Tries > 0 {
			tries = fmt.Sprint(c.Tries)
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "device", c.Device, "product", c.Product, "phase", string(c.Phase), "reason", c.Reason, "cause", fmt.Sprintf("%s/%d", c.Cause.Log, c.Cause.Index),
				"opened", when(c.Opened), "since", when(c.Since), "quarantined until", when(c.Until), "command", c.Command,
				"to be made anew with", fmt.Sprintf("%x", c.Release), "failed tries", tries, "made anew", when(c.Remade))
		})
	})
}

// decided prints the devices whose cases were decided.
func (a *api) decided(verb string, done []string, err error) error {
	return after(err, len(done), func() error {
		return rows(a, "DEVICE DECIDED", done, func(id string) []string { return []string{id, verb} })
	})
}

func (a *api) decide(verb, short, why string) *cobra.Command {
	var reason string
	c := a.overDevices(cobra.Command{
		Use: verb + " CASE… --reason TEXT", Short: short, Long: short + ". CASE is the device's ID.",
		Example: "  hallmark remedy " + verb + " 00112233445566778899aabbccddeeff --reason '" + why + "'",
	}, func(ctx context.Context, cl *client.Client, ids []string) error {
		done, err := each(a, ids, func(id string) (string, error) { return id, cl.DecideRemedy(ctx, id, verb, reason) })
		return a.decided(verb, done, err)
	})
	c.Flags().StringVar(&reason, "reason", "", "why; it is in the ledger for good")
	return need(a.matching(c), "reason")
}

func (a *api) reprovision() *cobra.Command {
	var r client.ReprovideRequest
	var release string
	c := a.overDevices(cobra.Command{
		Use: "reprovision CASE… --reason TEXT", Short: "Have the contained devices of cases made anew",
		Long:    "Has the contained devices of cases made anew, also after the attempts without a person have failed. CASE is the device's ID.",
		Example: "  hallmark remedy reprovision 00112233445566778899aabbccddeeff --release pump@1.1.0 --reason 'the disk was replaced'",
	}, func(ctx context.Context, cl *client.Client, ids []string) (err error) {
		if release != "" {
			if _, r.Release, err = digestOf(ctx, cl, release); err != nil {
				return err
			}
		}
		done, err := each(a, ids, func(id string) (string, error) { return id, cl.Reprovision(ctx, id, r) })
		return a.decided("reprovision", done, err)
	})
	c.Flags().StringVar(&release, "release", "", "what to put on it: digest or PRODUCT@VERSION (default: what it should run)")
	c.Flags().StringVar(&r.Reason, "reason", "", "why")
	return need(a.matching(c), "reason")
}
