package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

func newBundle(a *api) *cobra.Command {
	return a.noun("bundle", "Whom a product's devices believe", a.listBundles(), a.showBundle(), a.nextBundle(), a.publishBundle())
}

// currentBundle reads a product's newest trust bundle from the ledger.
func currentBundle(ctx context.Context, cl *client.Client, productID string) (wire.Bundle, []byte, error) {
	p, err := cl.Facts(ctx, fleet.FactQuery{Log: string(ledger.Control), Kind: string(ledger.KindBundlePublished), Subject: productID, Limit: 1})
	if err != nil {
		return wire.Bundle{}, nil, err
	}
	if len(p.Facts) == 0 || p.Facts[0].Index == nil {
		return wire.Bundle{}, nil, fmt.Errorf("the ledger has no trust bundle of product %q: see `hallmark product list`", productID)
	}
	e, err := proven(ctx, func() (client.Entry, error) { return cl.Entry(ctx, string(ledger.Control), *p.Facts[0].Index) })
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
		"floor", fmt.Sprintf("security counter %d", b.Floor), "written", out)
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
		return a.show(func(w io.Writer) error { return bundleSheet(w, b, out) })
	})
	c.Flags().StringVar(&out, "out", "", "also write the signed bundle")
	return c
}

func (a *api) nextBundle() *cobra.Command {
	var out string
	var floor uint32
	c := a.verb(cobra.Command{
		Use: "payload PRODUCT --floor COUNTER --out FILE", Short: "Write a product's next trust bundle for approvers to sign",
		Long: `Writes a product's next trust bundle for approvers to sign, one after the other, with ` + "`hallmark approve`" + `: the current one with a higher
floor. Devices neither install nor boot a release with a security counter below the floor, whoever signed it.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark bundle payload pump --floor 3 --out pump-2.payload",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		b, _, err := currentBundle(ctx, cl, args[0])
		if err != nil {
			return err
		}
		if floor <= b.Floor {
			return usagef("--floor %d: it is %d already, and only rises", floor, b.Floor)
		}
		b.Version, b.Floor, b.Issued = b.Version+1, floor, uint64(time.Now().Unix())
		payload, err := wire.EncodeBundle(b)
		if err != nil {
			return err
		}
		if err := durable.WriteFile(out, payload, 0o644); err != nil {
			return err
		}
		if a.last, err = json.Marshal(b); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return bundleSheet(w, b, out) })
	})
	c.Flags().Uint32Var(&floor, "floor", 0, "lowest security counter that may be installed or booted")
	c.Flags().StringVar(&out, "out", "", "file to write")
	return need(c, "floor", "out")
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
		return a.show(func(w io.Writer) error { return bundleSheet(w, b, "") })
	})
}
