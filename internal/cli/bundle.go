package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
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

// bundleChange is what the next trust bundle has differently.
type bundleChange struct {
	floor       uint32
	hasFloor    bool
	add, remove []string // witnesses: verifier keys, and names
	quorum      uint
}

// apply changes b; what is wrong with the change is a usage error.
func (c bundleChange) apply(b *wire.Bundle) error {
	if !c.hasFloor && len(c.add) == 0 && len(c.remove) == 0 && c.quorum == 0 {
		return usagef("say what is to change: --floor, --add-witness, --remove-witness or --quorum")
	}
	if c.hasFloor && c.floor <= b.Floor {
		return usagef("--floor %d: it is %d already, and only rises", c.floor, b.Floor)
	}
	b.Floor = max(b.Floor, c.floor)
	for _, name := range c.remove {
		n := len(b.Witnesses)
		if b.Witnesses = slices.DeleteFunc(b.Witnesses, func(w wire.NamedKey) bool { return w.Name == name }); len(b.Witnesses) == n {
			return usagef("--remove-witness %s: the trust bundle names no such witness", name)
		}
	}
	for _, text := range c.add {
		k, err := ledger.ParseVerifierKey(text)
		if err != nil {
			return usageError{err}
		}
		if k.Type != ledger.TypeCosignature {
			return usagef("--add-witness %s: devices verify Ed25519 only: give the witness's key of type 0x04, whose last part begins with B", k.Name)
		}
		b.Witnesses = append(b.Witnesses, wire.NamedKey{Name: k.Name, Key: k.Key})
	}
	if c.quorum > 0 {
		b.Quorum = c.quorum
	}
	if b.Quorum > uint(len(b.Witnesses)) {
		return usagef("a quorum of %d among %d witnesses: no device could act any more", b.Quorum, len(b.Witnesses))
	}
	return nil
}

func (a *api) nextBundle() *cobra.Command {
	var out string
	var change bundleChange
	var c *cobra.Command
	c = a.verb(cobra.Command{
		Use: "payload PRODUCT --out FILE", Short: "Write a product's next trust bundle for approvers to sign",
		Long: `Writes a product's next trust bundle for approvers to sign, one after the other, with ` + "`hallmark approve`" + `: the current one with a higher
floor, or with other witnesses. Devices neither install nor boot a release with a security counter below the floor, whoever signed it.
They act on nothing that is not cosigned by a quorum of the witnesses in their trust bundle: see docs/guide/witness.md for the order of
things.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark bundle payload pump --floor 3 --out pump-2.payload",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		b, _, err := currentBundle(ctx, cl, args[0])
		if err != nil {
			return err
		}
		change.hasFloor = c.Flags().Changed("floor")
		if err := change.apply(&b); err != nil {
			return err
		}
		b.Version, b.Issued = b.Version+1, uint64(time.Now().Unix())
		payload, err := wire.EncodeBundle(b)
		if err != nil {
			return err
		}
		if _, err := wire.DecodeBundle(payload); err != nil { // what no device would take is not handed out to be signed
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
	f := c.Flags()
	f.Uint32Var(&change.floor, "floor", 0, "lowest security counter that may be installed or booted")
	f.StringArrayVar(&change.add, "add-witness", nil, "verifier key of a further witness (Ed25519)")
	f.StringArrayVar(&change.remove, "remove-witness", nil, "name of a witness to believe no longer")
	f.UintVar(&change.quorum, "quorum", 0, "how many witnesses must have cosigned (0: as many as now)")
	f.StringVar(&out, "out", "", "file to write")
	return need(c, "out")
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
