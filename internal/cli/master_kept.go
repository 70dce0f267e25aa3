package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/client"
)

func (a *api) takeMaster() *cobra.Command {
	var sbom, prov string
	c := a.verb(cobra.Command{
		Use: "take FILE [--sbom FILE] [--provenance FILE]", Short: "Give a master and its documents to the instance; the same again changes nothing", Args: cobra.ExactArgs(1),
		Long: `Gives a master to the instance, so that orders can be made of it there, in the console too. The file is read to its end here; only how it begins travels, because firmware
comes from the release. --sbom and --provenance are the documents that it names: the instance keeps them for as long as there is the master, and takes no others. They can come later.`,
		Example: "  hallmark master take pump-1.hmm --sbom sbom.cdx.json --provenance build.intoto.json",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		head, claimed, err := openMasterFile(args[0])
		if err != nil {
			return err
		}
		begin, err := readHead(args[0], head.Size)
		if err != nil {
			return err
		}
		m, err := cl.TakeMaster(ctx, claimed.Header.Product, begin)
		if err != nil {
			return err
		}
		for _, d := range []struct {
			kind factory.DocumentKind
			path string
		}{{factory.SBOM, sbom}, {factory.Provenance, prov}} {
			if d.path == "" {
				continue
			}
			if m, err = giveDocument(ctx, cl, m.Digest, d.kind, d.path); err != nil {
				return err
			}
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "master", fmt.Sprintf("revision %d for %s, hardware %s", m.Revision, m.Product, m.Hardware), "version", m.Version, "release", m.Release,
				"trust bundle", fmt.Sprint(m.Trust), "SBOM", documentShown(m.SBOM), "provenance", documentShown(m.Provenance), "built", when(m.Built), "taken in", when(m.Created), "by", m.By,
				"digest", m.Digest, "not ordered of, because", m.WhyNot)
		})
	})
	c.Flags().StringVar(&sbom, "sbom", "", "file: the bill of materials that it names")
	c.Flags().StringVar(&prov, "provenance", "", "file: the provenance that it names")
	return c
}

func giveDocument(ctx context.Context, cl *client.Client, master string, kind factory.DocumentKind, path string) (factory.KeptMaster, error) {
	f, err := os.Open(path)
	if err != nil {
		return factory.KeptMaster{}, fmt.Errorf("--%s: %w", kind, err)
	}
	defer f.Close()
	m, err := cl.GiveMasterDocument(ctx, master, kind, f)
	if err != nil {
		return m, fmt.Errorf("--%s %s: %w", kind, path, err)
	}
	return m, nil
}

func documentShown(d factory.Document) string {
	if d.Size == 0 {
		return d.Digest + ", not here"
	}
	return fmt.Sprintf("%s, %d bytes", d.Digest, d.Size)
}

func (a *api) listMasters() *cobra.Command {
	var productID string
	c := listing(a, cobra.Command{
		Use: "list", Short: "List the masters that were given to the instance, newest first", Example: "  hallmark master list --product pump",
		Long: "Lists the masters that were given to the instance, by `hallmark master take`, the console or an order, newest first. What is said under WHY-NOT keeps one from being ordered of.",
	}, "DIGEST PRODUCT HARDWARE REVISION VERSION SBOM PROVENANCE TAKEN-IN BY WHY-NOT",
		func(ctx context.Context, cl *client.Client, _ []string) ([]factory.KeptMaster, error) {
			return cl.Masters(ctx, productID)
		},
		func(m factory.KeptMaster) []string {
			here := func(d factory.Document) string { return yes(d.Size > 0) }
			return []string{m.Digest, m.Product, m.Hardware, fmt.Sprint(m.Revision), m.Version, here(m.SBOM), here(m.Provenance), when(m.Created), m.By, or(m.WhyNot)}
		})
	c.Flags().StringVar(&productID, "product", "", "only this product's")
	return c
}

func (a *api) masterDocument() *cobra.Command {
	var out string
	c := a.verb(cobra.Command{
		Use: "document DIGEST (sbom|provenance) --out FILE", Short: "Get a document that a master names, as it was given", Args: cobra.ExactArgs(2),
		Long:    "Gets a document that a master names. DIGEST is the master's, from `hallmark master list` or `hallmark order show`.",
		Example: "  hallmark master document 3f0c5b1e97a24d68b0f3c1d2e4a5967881726354a9b8c7d6e5f4031221304f5e sbom --out sbom.cdx.json",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		data, err := cl.MasterDocument(ctx, args[0], factory.DocumentKind(args[1]))
		if err != nil {
			return err
		}
		return a.laidDown(out, data)
	})
	c.Flags().StringVar(&out, "out", "", "file to write")
	return need(c, "out")
}
