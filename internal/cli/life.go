package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/client"
)

// moves are the verbs for what a device does not say itself.
func (a *api) moves() []*cobra.Command {
	return []*cobra.Command{
		a.move(device.Lose, "Record that nobody knows where devices are", "not in its rack since the move"),
		a.move(device.Find, "Record that lost devices are back", "found in store 2"),
		a.move(device.Maintain, "Take devices out of service for repair", "its fan is loud"),
		a.move(device.Resume, "Put repaired devices back into service", "new fan"),
		a.move(device.Clear, "Say that somebody has looked into a suspicion of two devices with one identity", "a copy of its flash ran in the laboratory"),
	}
}

func (a *api) move(e device.Event, short, why string) *cobra.Command {
	r := client.MoveRequest{Event: e}
	c := a.overDevices(cobra.Command{
		Use: string(e) + " DEVICE… --reason TEXT", Short: short,
		Example: "  hallmark device " + string(e) + " 00112233445566778899aabbccddeeff --reason '" + why + "'",
	}, func(ctx context.Context, cl *client.Client, ids []string) error {
		done, err := each(a, ids, func(id string) (client.Standing, error) { return cl.Move(ctx, id, r) })
		return a.standings(done, err)
	})
	c.Flags().StringVar(&r.Reason, "reason", "", "why")
	return need(a.matching(c), "reason")
}

func (a *api) standings(done []client.Standing, err error) error {
	return after(err, len(done), func() error {
		return rows(a, "DEVICE PRODUCT STATE LEGITIMACY SINCE REPLACES REPLACED-BY", done, func(s client.Standing) []string {
			return []string{s.ID, s.Product, string(s.State), string(s.Legitimacy), when(s.Since), or(s.Replaces), or(s.ReplacedBy)}
		})
	})
}

func (a *api) judgeDevices() *cobra.Command {
	var r client.LegitimacyRequest
	c := a.overDevices(cobra.Command{
		Use: "judge DEVICE… --as WORD --reason TEXT", Short: "Say whether devices are what they say they are, and whose",
		Example: "  hallmark device judge 00112233445566778899aabbccddeeff --as refurbished --reason 'new board, tested'",
	}, func(ctx context.Context, cl *client.Client, ids []string) error {
		done, err := each(a, ids, func(id string) (client.Standing, error) { return cl.Judge(ctx, id, r) })
		return a.standings(done, err)
	})
	c.Flags().StringVar((*string)(&r.Legitimacy), "as", "", "genuine, refurbished, resold or unknown; for stolen and recalled see hallmark device stolen and hallmark recall create")
	c.Flags().StringVar(&r.Reason, "reason", "", "why")
	return need(a.matching(c), "as", "reason")
}

func (a *api) forgetDevices() *cobra.Command {
	return a.matching(a.overDevices(cobra.Command{
		Use: "forget DEVICE…", Short: "Destroy what is private of devices whose life has ended",
		Long: `Destroys what is known of devices that are decommissioned or disposed of, beside the ledger: their settings, their group, their sealed
data, and what people and programs said of them in words, with the keys and salts of all that. The ledger has salted hashes of the words only,
stays as it is, and verifies as before. It cannot be undone. Backups have it until you destroy them.`,
		Example: "  hallmark device forget 00112233445566778899aabbccddeeff",
	}, func(ctx context.Context, cl *client.Client, ids []string) error {
		done, err := each(a, ids, func(id string) (client.Standing, error) { return cl.Forget(ctx, id) })
		return a.standings(done, err)
	}))
}

func (a *api) replaceDevice() *cobra.Command {
	var r client.ReplacementRequest
	c := a.verb(cobra.Command{
		Use: "replace DEVICE --by DEVICE --reason TEXT", Short: "Record that another device took over from this one", Args: cobra.ExactArgs(1),
		Example: "  hallmark device replace 00112233445566778899aabbccddeeff --by ffeeddccbbaa99887766554433221100 --reason 'its sensor broke'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		s, err := cl.Replace(ctx, args[0], r)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "device", s.ID, "product", s.Product, "state", string(s.State), "replaced by", s.ReplacedBy)
		})
	})
	c.Flags().StringVar(&r.By, "by", "", "the device that took over")
	c.Flags().StringVar(&r.Reason, "reason", "", "why")
	_ = c.RegisterFlagCompletionFunc("by", a.live(deviceNames)) // it exists
	return need(a.matching(c), "by", "reason")
}

func (a *api) deviceCommands() *cobra.Command {
	return listing(a, cobra.Command{
		Use: "commands DEVICE", Short: "List a device's commands, newest first", Args: cobra.ExactArgs(1),
		Example: "  hallmark device commands 00112233445566778899aabbccddeeff",
	}, "COMMAND ACT "+outcomeHead,
		func(ctx context.Context, cl *client.Client, args []string) ([]client.Outcome, error) {
			return cl.DeviceCommands(ctx, args[0])
		},
		func(o client.Outcome) []string { return append([]string{o.Command, string(o.Act)}, outcome(o)...) })
}

func (a *api) revokeDevices() *cobra.Command {
	var why cause
	c := a.overDevices(cobra.Command{
		Use: "revoke DEVICE… --cause WORD", Short: "Take every identity of devices, for good",
		Long:    "Takes every identity of devices, the factory's too: they can never enrol again. It is not to be undone.",
		Example: "  hallmark device revoke 00112233445566778899aabbccddeeff --cause key-compromise",
	}, func(ctx context.Context, cl *client.Client, ids []string) error {
		done, err := each(a, ids, func(id string) (string, error) { return id, cl.RevokeDevice(ctx, id, why.code()) })
		return after(err, len(done), func() error {
			return rows(a, "REVOKED CAUSE", done, func(id string) []string { return []string{id, why.String()} })
		})
	})
	why.flag(c)
	return need(c, "cause")
}

// cause is why something is revoked: a word for a code of RFC 5280 §5.3.1. It implements pflag.Value.
type cause string

func causes() map[string]int {
	return map[string]int{
		"unspecified": 0, "key-compromise": 1, "ca-compromise": 2, "affiliation-changed": 3, "superseded": 4, "cessation": 5,
		"privilege-withdrawn": 9, "aa-compromise": 10,
	}
}

func causeWords() []string { return slices.Sorted(maps.Keys(causes())) }

// causeOf gives the word of a code.
func causeOf(code int) string {
	for word, c := range causes() {
		if c == code {
			return word
		}
	}
	return fmt.Sprint(code)
}

func (c *cause) code() int { return causes()[string(*c)] }

func (c *cause) flag(cmd *cobra.Command) {
	cmd.Flags().Var(c, "cause", "why: "+strings.Join(causeWords(), ", "))
	_ = cmd.RegisterFlagCompletionFunc("cause", cobra.FixedCompletions(causeWords(), cobra.ShellCompDirectiveNoFileComp)) // it exists
}

// String implements pflag.Value.
func (c *cause) String() string { return string(*c) }

// Set implements pflag.Value.
func (c *cause) Set(s string) error {
	if _, ok := causes()[s]; !ok {
		return fmt.Errorf("%q: want one of %s", s, strings.Join(causeWords(), ", "))
	}
	*c = cause(s)
	return nil
}

// Type implements pflag.Value.
func (c *cause) Type() string { return "WORD" }
