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
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/supply/parts"
)

func newDevice(a *api) *cobra.Command {
	return a.noun("device", "The fleet: state, version, evidence, history", append([]*cobra.Command{
		a.listDevices(), a.showDevice(), a.labelDevices(), a.countDevices(), a.deviceCommands(), a.deviceSettings(), a.configureDevices(), a.groupDevices(), a.judgeDevices(), a.replaceDevice(), a.revokeDevices(), a.forgetDevices(), a.claimCodes(), a.claimDevices(), a.deviceOwnership(), a.transferDevices(), a.rehomeDevices(), a.giveUpHandover(), a.welcomeDevices(), a.listTransfers(), a.vouchForDevice(), a.importDevices(), a.deviceKeys(), a.deviceIdentity(), a.deviceHistory(),
	}, append(a.moves(), a.markDevices()...)...)...)
}

func (a *api) listDevices() *cobra.Command {
	var q fleet.Query
	var all bool
	var saved string
	c := a.verb(cobra.Command{
		Use: "list", Short: "List devices in order of their ID",
		Example: "  hallmark device list --product pump --state quarantined\n  hallmark device list --saved 'old pumps'",
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		if saved != "" {
			kept, err := savedQuery(ctx, cl, saved)
			if err != nil {
				return err
			}
			kept.After, kept.Limit = q.After, q.Limit
			q = kept
		}
		for {
			p, err := cl.Devices(ctx, q)
			if err != nil {
				return err
			}
			if err := a.devicePage(p); err != nil || !all || p.Next == "" {
				return err
			}
			q.After = p.Next
		}
	})
	f := c.Flags()
	selecting(f, &q)
	f.StringVar(&saved, "saved", "", "those of a query you keep: see hallmark query list")
	for _, other := range selectors {
		c.MarkFlagsMutuallyExclusive("saved", other)
	}
	f.StringVar(&q.After, "after", "", "begin behind this ID")
	f.IntVar(&q.Limit, "limit", 50, "at most so many, 1 to 200")
	f.BoolVar(&all, "all", false, "go on to the last page; with --json one object a page")
	return c
}

func (a *api) devicePage(p client.DevicePage) error {
	if err := rows(a, "ID PRODUCT GROUP STATE VERSION HEALTH EVIDENCE FINDINGS SEEN", p.Items, func(d fleet.Device) []string {
		return []string{
			d.ID, d.Product, or(d.Group), d.State, or(d.Version), d.Health, d.Verdict, fmt.Sprint(d.Findings), whenever(d.LastSeen),
		}
	}); err != nil || p.Next == "" {
		return err
	}
	_, err := fmt.Fprintf(a.s.err, "more: --after %s, or --all\n", p.Next)
	return err
}

func (a *api) showDevice() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "show DEVICE", Short: "Show one device and its history, factory to now", Args: cobra.ExactArgs(1),
		Example: "  hallmark device show 00112233445566778899aabbccddeeff",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		built, err := cl.DeviceLots(ctx, args[0])
		if err != nil {
			return err
		}
		v, err := cl.Device(ctx, args[0])
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			d := v.Device
			if err := sheet(w, "device", d.ID, "product", d.Product, "group", or(d.Group), "hardware", d.Hardware, "state", d.State, "legitimacy", d.Legitimacy, "its word", fmt.Sprintf("%s (%s)", d.Assurance, device.Assurance(d.Assurance).Words()),
				"version", or(d.Version), "release", d.Release, "on trial", yes(d.Trial), "its update", or(d.Waiting()), "health", strings.TrimSpace(d.Health+" "+d.HealthText),
				"evidence", d.Verdict+" since "+whenever(d.VerdictAt), "because", strings.Join(d.Reasons, ", "), "programs held by", oneLine(d.HeldBy()), "seen", whenever(d.LastSeen)+byHand(d),
				"boots", fmt.Sprint(d.BootCount), "room for programs", d.Flash(), "sent back from", or(strings.Join(d.Left, " ")), "own log", d.Log.Standing()+heard(d.Log), "trust bundle", fmt.Sprint(d.Bundle), "open findings", fmt.Sprint(d.Findings),
				"order", d.Order, "may have parts of lots", lotsShown(built), "made", whenever(d.Made), "chip", d.ChipUID, "keys", d.KeyOrigin, "new keys", whenever(d.Rekeyed), "virtual", yes(d.Virtual), "forgotten", whenever(d.Forgotten)); err != nil {
				return err
			}
			if d.Suspect != "" {
				fmt.Fprintf(w, "\nSuspected: %s\n", oneLine(d.Suspect))
				if err := sides(w, d.Sides); err != nil {
					return err
				}
			}
			fmt.Fprintln(w)
			return lines(w, v.Timeline)
		})
	})
}

// lotsShown names lots, and those that were recalled as that.
func lotsShown(all []parts.Lot) string {
	names := make([]string, len(all))
	for i, l := range all {
		if names[i] = l.ID; !l.Recalled.IsZero() {
			names[i] += " (recalled)"
		}
	}
	return strings.Join(names, ", ")
}

// sides writes what each holder of a device's identity was seen with.
func sides(w io.Writer, list []device.Side) error {
	rows := make([][]string, len(list))
	for i, s := range list {
		rows[i] = []string{when(s.At), or(s.Address), or(s.Version), fmt.Sprint(s.BootCount), fmt.Sprint(s.Counter), fmt.Sprint(s.Bundle)}
	}
	return table(w, "SEEN FROM VERSION BOOTS DIRECTIVE BUNDLE", rows)
}

func heard(l fleet.DeviceLog) string {
	if l.Heard == nil {
		return ""
	}
	return ", heard " + whenever(l.Heard)
}

// lines writes facts as people read them.
func lines(w io.Writer, facts []fleet.Line) error {
	all := make([][]string, len(facts))
	for i, l := range facts {
		place := "-"
		if l.Index != nil {
			place = fmt.Sprintf("%s/%d", l.Log, *l.Index)
		}
		all[i] = []string{when(l.At), place, l.Kind, or(l.Subject), l.Actor, l.Text}
	}
	return table(w, "TIME PLACE KIND SUBJECT BY TEXT", all)
}

func (a *api) countDevices() *cobra.Command {
	return a.verb(cobra.Command{Use: "summary", Short: "Count the fleet by state, version and evidence", Example: "  hallmark device summary"},
		func(ctx context.Context, cl *client.Client, _ []string) error {
			s, err := cl.Summary(ctx)
			if err != nil {
				return err
			}
			return a.show(func(w io.Writer) error {
				pairs := []string{"devices", fmt.Sprint(s.Total), "open findings", fmt.Sprint(s.Findings)}
				for _, g := range []struct {
					name   string
					counts map[string]int
				}{{"state ", s.States}, {"version ", s.Versions}, {"evidence ", s.Verdicts}} {
					for _, k := range slices.Sorted(maps.Keys(g.counts)) {
						pairs = append(pairs, g.name+or(k), fmt.Sprint(g.counts[k]))
					}
				}
				return sheet(w, pairs...)
			})
		})
}
