package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/wire"
)

func newSupply(a *api) *cobra.Command {
	return a.noun("supply", "Before build: who supplies what, and what a release has to show", a.showSupply(), a.setSupply(), a.askGate(), a.takeException(), a.showDecision(),
		newSuppliers(a), newParts(a), newLots(a))
}

func (a *api) showSupply() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "show PRODUCT", Short: "Show what the supply gate asks of a product's releases", Args: cobra.ExactArgs(1), Example: "  hallmark supply show pump",
		Long: `Shows what the supply gate asks of a product's releases, as JSON: change it, and give it to ` + "`hallmark supply set`" + `.`,
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		p, err := cl.SupplyPolicy(ctx, args[0])
		if err != nil {
			return err
		}
		return a.showPolicy(p)
	})
}

func (a *api) showPolicy(p supply.Policy) error {
	return a.show(func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(p)
	})
}

func (a *api) setSupply() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "set PRODUCT FILE", Short: "Say what the supply gate asks of a product's releases", Args: cobra.ExactArgs(2), Example: "  hallmark supply set pump policy.json",
		Long: `Says what the supply gate asks of a product's releases from now on. FILE is JSON; its mode is off, warn (what is wrong is written down, and the release goes on) or enforce (there is no
such release). To change it where it is enforced takes two people. Devices of such a product have to run an agent that knows of decisions, which those before 2026-11-22 do not.`,
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		data, err := os.ReadFile(args[1])
		if err != nil {
			return err
		}
		var p supply.Policy
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		if err := d.Decode(&p); err != nil {
			return usagef("%s: %w", args[1], err)
		}
		if p, err = cl.SetSupplyPolicy(ctx, args[0], p); err != nil {
			return err
		}
		return a.showPolicy(p)
	})
}

func (a *api) askGate() *cobra.Command {
	var product, sbom, provenance string
	var files []string
	c := a.verb(cobra.Command{
		Use: "gate --product PRODUCT --file PATH…", Short: "Say what the supply gate would find of a release", Args: cobra.NoArgs,
		Long:    `Says what the supply gate would find of a release of these files. The documents are uploaded, the files are not; nothing is proposed.`,
		Example: "  hallmark supply gate --product pump --file app.bin --sbom app.cdx.json --provenance app.intoto.json",
	}, func(ctx context.Context, cl *client.Client, _ []string) (err error) {
		var q client.GateQuestion
		for _, path := range files {
			sum, err := digestOfFile(path)
			if err != nil {
				return err
			}
			q.Components = append(q.Components, sum)
		}
		if sbom != "" {
			if q.SBOM, err = a.uploadFile(ctx, cl, product, "sbom", sbom, false); err != nil {
				return err
			}
		}
		if provenance != "" {
			if q.Provenance, err = a.uploadFile(ctx, cl, product, "provenance", provenance, false); err != nil {
				return err
			}
		}
		d, err := cl.AskSupplyGate(ctx, product, q)
		if err != nil {
			return err
		}
		return a.showDecisionOf(d)
	})
	f := c.Flags()
	f.StringVar(&product, "product", "", "product")
	f.StringArrayVar(&files, "file", nil, "a program or file of the release, as it was built; once for each")
	f.StringVar(&sbom, "sbom", "", "file: its bill of materials")
	f.StringVar(&provenance, "provenance", "", "file: its provenance, in a DSSE envelope")
	return need(c, "product", "file")
}

func (a *api) showDecision() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "decision RELEASE", Short: "Show what the supply gate found of a release when it was proposed", Args: cobra.ExactArgs(1), Example: "  hallmark supply decision pump@1.1.0",
		Long: `Shows what the supply gate found of a release when it was proposed. The decision's digest is in what its approvers signed.` + releaseArg,
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r, err := findRelease(ctx, cl, args[0])
		if err != nil {
			return err
		}
		d, err := cl.ReleaseGate(ctx, r.Digest)
		if err != nil {
			return err
		}
		return a.showDecisionOf(d)
	})
}

func (a *api) showDecisionOf(d wire.GateDecision) error {
	names := map[uint]string{1: "bytes", 2: "bill of materials", 3: "provenance", 4: "advisories", 5: "exceptions"}
	return a.show(func(w io.Writer) error {
		var rows [][]string
		for _, s := range d.Steps {
			answer := "good"
			if !s.OK {
				answer = s.Code
			}
			rows = append(rows, []string{fmt.Sprint(s.N), names[s.N], answer, s.Text})
		}
		if err := table(w, "STEP WHAT ANSWER WHY", rows); err != nil {
			return err
		}
		verdict := "does not pass"
		if d.OK {
			verdict = "passes"
		}
		for _, s := range d.Steps {
			if remedy := supply.Remedy(s.Code); remedy != "" {
				if _, err := fmt.Fprintf(w, "%d: %s\n", s.N, remedy); err != nil {
					return err
				}
			}
		}
		_, err := fmt.Fprintf(w, "it %s: %d components, %d unknown, %d open flaws, %d excused\n", verdict, d.Components, d.Unknown, d.Open, d.Excused)
		return err
	})
}

func (a *api) takeException() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "except PRODUCT FILE", Short: "Take in a signed document that says why known flaws are none here", Args: cobra.ExactArgs(2),
		Long: `Takes in a VEX document (OpenVEX or CycloneDX) in a DSSE envelope, signed by a key of vex_keys in the product's policy. A statement that matches no advisory, or whose component no advisory
of that name is about, refuses the whole document.`,
		Example: "  hallmark supply except pump cve-2030-1.vex.json",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		f, err := os.Open(args[1])
		if err != nil {
			return err
		}
		defer f.Close()
		e, err := cl.TakeException(ctx, args[0], f)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "document", e.Document, "statements", fmt.Sprint(len(e.Statements)))
		})
	})
}
