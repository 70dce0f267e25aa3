package cli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

func newBundle(a *api) *cobra.Command {
	return a.noun("bundle", "Whom a product's devices believe", a.listBundles(), a.showBundle(), a.nextBundle(), a.publishBundle(), a.bundleStatus(), a.bundleDue(), a.offerHome())
}

// currentBundle reads a product's newest trust bundle from the ledger.
func currentBundle(ctx context.Context, cl *client.Client, productID string) (wire.Bundle, []byte, error) {
	p, err := cl.Facts(ctx, fleet.FactQuery{Log: string(ledger.Control), Kind: string(ledger.KindBundlePublished), Subject: productID, Limit: 1})
	if err != nil {
		return wire.Bundle{}, nil, err
	}
	if len(p.Items) == 0 || p.Items[0].Index == nil {
		return wire.Bundle{}, nil, fmt.Errorf("the ledger has no trust bundle of product %q: see `hallmark product list`", productID)
	}
	e, err := proven(ctx, func() (client.Entry, error) { return cl.Entry(ctx, string(ledger.Control), *p.Items[0].Index) })
	if err != nil {
		return wire.Bundle{}, nil, err
	}
	b, err := wire.VerifyBundle(nil, e.Fact.Data)
	return b, e.Fact.Data, err
}

func bundleSheet(w io.Writer, b wire.Bundle, out string) error {
	role := func(k wire.KeySet) string { return fmt.Sprintf("%d of %d keys", k.Threshold, len(k.Keys)) }
	return sheet(w, "product", b.Product, "trust bundle", fmt.Sprint(b.Version), "issued", unix(b.Issued), "root", role(b.Root), "releases", role(b.Release),
		"warrants", role(b.Warrant), "directives", role(b.Directive), "witnesses", fmt.Sprintf("%d of %d", b.Quorum, len(b.Witnesses)),
		"floor", fmt.Sprintf("security counter %d", b.Floor), "installs from", fmt.Sprintf("security counter %d", b.Least()), "suites", strings.Join(b.Suites, ", "),
		"starts by", startsBy(b), "written", out)
}

// approverSheet lists the offline keys: what --remove-approver takes, of which suite, in which roles.
func approverSheet(w io.Writer, b wire.Bundle) error {
	var order []string
	roles := map[string][]string{}
	for _, r := range []struct {
		name string
		set  wire.KeySet
	}{{"root", b.Root}, {"release", b.Release}, {"warrant", b.Warrant}} {
		for _, der := range r.set.Keys {
			if roles[string(der)] == nil {
				order = append(order, string(der))
			}
			roles[string(der)] = append(roles[string(der)], r.name)
		}
	}
	var cells []string
	for _, der := range order {
		pub, err := wire.ParseKey([]byte(der))
		if err != nil {
			return err
		}
		set, err := suite.Of(pub)
		if err != nil {
			return err
		}
		cells = append(cells, "approver", fmt.Sprintf("%s %s (%s)", keyName([]byte(der)), set.ID, strings.Join(roles[der], ", ")))
	}
	return sheet(w, cells...)
}

func (a *api) listBundles() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "list", Short: "List the current trust bundle of each product",
		Long:    "Lists the current trust bundle of each product. Those before are in the ledger: `hallmark fact list --log control --kind bundle.published`.",
		Example: "  hallmark bundle list",
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		ps, err := cl.Products(ctx)
		if err != nil {
			return err
		}
		ids := make([]string, len(ps))
		for i, p := range ps {
			ids[i] = p.ID
		}
		bs, err := each(a, ids, func(id string) (client.BundleView, error) { return cl.Bundle(ctx, id, "") })
		if len(bs) == 1 && err == nil {
			a.last = fmt.Appendf(nil, "[%s]", a.last)
		}
		if err != nil && len(bs) == 0 {
			return err
		}
		return after(err, 1, func() error {
			return rows(a, "PRODUCT VERSION FLOOR ISSUED", bs, func(v client.BundleView) []string {
				return []string{v.Bundle.Product, fmt.Sprint(v.Bundle.Version), fmt.Sprint(v.Bundle.Floor), unix(v.Bundle.Issued)}
			})
		})
	})
}

func (a *api) showBundle() *cobra.Command {
	var out string
	c := a.verb(cobra.Command{
		Use: "show PRODUCT", Short: "Show a product's current trust bundle, as the ledger has it", Args: cobra.ExactArgs(1), Example: "  hallmark bundle show pump --out pump.bundle",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		b, envelope, err := currentBundle(ctx, cl, args[0])
		if err != nil {
			return err
		}
		if out != "" {
			if err := durable.WriteFile(out, envelope, 0o644); err != nil {
				return err
			}
		}
		return a.show(func(w io.Writer) error {
			return errors.Join(bundleSheet(w, b, out), sheet(w, "fingerprint", ceremony.Fingerprint(sha256.Sum256(envelope))), approverSheet(w, b))
		})
	})
	c.Flags().StringVar(&out, "out", "", "also write the signed bundle")
	return c
}

func (a *api) nextBundle() *cobra.Command {
	var out string
	var change bundleChange
	var confirmed int
	var c *cobra.Command
	c = a.verb(cobra.Command{
		Use: "payload PRODUCT --out FILE", Short: "Write a product's next trust bundle for approvers to sign",
		Long: `Writes a product's next trust bundle for approvers to sign, one after the other, with ` + "`hallmark approve`" + `: the current one with what the
flags change, which is printed. Approvers see the same with ` + "`hallmark approve --against`" + `. It takes the threshold of the root role as it is and as
it will be. docs/guide/trust-bundles.md has the order of things for each key.

A role is root, release or warrant; without one, an approver is of all three. Online keys are given by their names, as ` + "`hallmark key list`" + `
shows them, and take the place of those there are; the first bucket is the one that devices seal for.

--install closes releases to installation: devices that run them go on (see ` + "`hallmark release close`" + `). --floor stops them: a device below it has nothing that it
may start. Where devices run what is below, the floor takes --confirm-count with how many they are.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark bundle payload pump --remove-approver 1f2e3d4c --add-approver dora.pub --out pump-2.payload",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		before, _, err := currentBundle(ctx, cl, args[0])
		if err != nil {
			return err
		}
		change.hasFloor, change.hasInstall = c.Flags().Changed("floor"), c.Flags().Changed("install")
		change.hasOffline = c.Flags().Changed("offline")
		if change.online() {
			if change.keys, err = change.found(ctx, cl); err != nil {
				return err
			}
		}
		b, err := change.apply(before)
		if err != nil {
			return err
		}
		if b.Floor > before.Floor {
			if err := stops(ctx, cl, b, confirmed); err != nil {
				return err
			}
		}
		if b, err = writeNext(b, out); err != nil {
			return err
		}
		if a.last, err = json.Marshal(b); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			if err := bundleSheet(w, b, out); err != nil {
				return err
			}
			return printChanges(w, before, b)
		})
	})
	change.flags(c.Flags())
	c.Flags().IntVar(&confirmed, "confirm-count", 0, "with --floor: how many devices run what is below it, and would start nothing at their next start")
	c.Flags().StringVar(&out, "out", "", "file to write")
	return need(c, "out")
}

// writeNext writes the payload of the bundle that follows, and gives it.
func writeNext(b wire.Bundle, out string) (wire.Bundle, error) {
	b.Version, b.Issued = b.Version+1, uint64(time.Now().Unix())
	payload, err := wire.EncodeBundle(b)
	if err != nil {
		return b, usageError{err}
	}
	if _, err := wire.DecodeBundle(payload); err != nil { // what no device would take is not handed out to be signed
		return b, err
	}
	return b, durable.WriteFile(out, payload, 0o644)
}

// stops refuses a floor above what devices run, unless it was said how many they are.
func stops(ctx context.Context, cl *client.Client, b wire.Bundle, confirmed int) error {
	s, err := cl.BundleStatus(ctx, b.Product)
	if err != nil {
		return err
	}
	if n := s.Below(b.Floor); n != confirmed {
		return usagef("--floor %d: %s what is below it, and would start nothing at the next start: roll out what is above first, close releases with --install, or say --confirm-count %d",
			b.Floor, fleet.Count(n, "device runs", "devices run"), n)
	}
	return nil
}

func (a *api) bundleStatus() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "status PRODUCT", Short: "Show how far a product's trust bundle has come",
		Long: "Counts the devices in the field by the version of the trust bundle that they last said to have, and by the suite of the keys that sign\ntheir evidence. The suite wanted is the one that they move to, when their certificates are renewed: see docs/guide/suites.md.",
		Args: cobra.ExactArgs(1), Example: "  hallmark bundle status pump",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		s, err := cl.BundleStatus(ctx, args[0])
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			way := "leads to it"
			if !s.Seen {
				way = "not yet: its entry is not witnessed as those with the bundle before believe it"
			}
			cells := []string{"product", s.Product, "current", fmt.Sprint(s.Current), "behind", fleet.Count(s.Behind, "device", "devices"), "way back", way}
			for _, n := range s.Counts {
				cells = append(cells, fmt.Sprintf("bundle %d", n.Version), fleet.Count(n.Devices, "device", "devices"))
			}
			for _, n := range s.Suites {
				cells = append(cells, "keys of "+cmp.Or(n.Suite, "no suite"), fleet.Count(n.Devices, "device", "devices"))
			}
			for _, n := range s.Runs {
				what := fmt.Sprintf("runs security counter %d", n.Counter)
				if n.Unknown {
					what = "runs nothing known"
				}
				cells = append(cells, what, fleet.Count(n.Devices, "device", "devices"))
			}
			return sheet(w, append(cells, "wanted", s.Wanted)...)
		})
	})
}

func (a *api) bundleDue() *cobra.Command {
	var days int
	c := a.verb(cobra.Command{
		Use: "due PRODUCT --days N", Short: "Say how long a device may stay behind a product's trust bundle",
		Long: `Says how long a device may stay behind a product's trust bundle. One that is heard of after these days, and still believes an older bundle, is the
finding trust-bundle.behind until it has caught up. One that is not heard of is a finding of its own.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark bundle due pump --days 30",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		p, err := cl.SetBundleDue(ctx, args[0], days)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "product", p.ID, "may stay behind", fleet.Count(p.BundleDays(), "day", "days"))
		})
	})
	c.Flags().IntVar(&days, "days", 0, "after a bundle was published")
	return need(a.matching(c), "days")
}

func (a *api) publishBundle() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "publish FILE", Short: "Publish a product's next trust bundle",
		Long: "Publishes a product's next trust bundle, signed with `hallmark approve` by enough people of this one and of the next.",
		Args: cobra.ExactArgs(1), Example: "  hallmark bundle publish pump-2.cose",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		envelope, err := readFile(args[0], wire.MaxEnvelope)
		if err != nil {
			return err
		}
		b, err := cl.PublishBundle(ctx, envelope)
		if err != nil {
			return err
		}
		untilListed(ctx, cl, b)
		return a.show(func(w io.Writer) error { return bundleSheet(w, b, "") })
	})
}

// untilListed waits until the ledger lists a bundle that was published, a moment later: whoever makes the next one takes the newest there is in it. It is published
// all the same, so that nothing of this is an error, such as of who may publish and not read.
func untilListed(ctx context.Context, cl *client.Client, published wire.Bundle) {
	for range maxTries {
		b, _, err := currentBundle(ctx, cl, published.Product)
		if err != nil || b.Version >= published.Version {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// printChanges says in words what one bundle changes of the one before.
func printChanges(w io.Writer, before, b wire.Bundle) error {
	for _, line := range bundleChanges(before, b) {
		if _, err := fmt.Fprintln(w, "  changes: "+line); err != nil {
			return err
		}
	}
	return nil
}

// startsBy says which boot managers may start.
func startsBy(b wire.Bundle) string {
	if len(b.BootManagers) == 0 {
		return "any hallmark-agent: it names none"
	}
	return fmt.Sprintf("%d files of hallmark-agent, and no other", len(b.BootManagers))
}
