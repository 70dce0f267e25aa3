package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/comply"
	"github.com/hallmark-iot/hallmark/internal/client"
)

func newCompliance(a *api) *cobra.Command {
	return a.noun("compliance", "How products stand by laws and standards, from live evidence", a.listControls(), a.showControl(), a.stateControl(), a.reportCompliance())
}

// control finds one by FRAMEWORK/ID, or by its ID alone.
func control(name string) (comply.Control, error) {
	all, err := comply.Load()
	if err != nil {
		return comply.Control{}, err
	}
	framework, id, both := strings.Cut(name, "/")
	if !both {
		framework, id = "", name
	}
	for _, f := range all {
		if c, ok := all.Find(f.ID, id); ok && (framework == "" || framework == f.ID) {
			return c, nil
		}
	}
	return comply.Control{}, usagef("control %q: there is none; see `hallmark compliance list`", name)
}

func ofProduct(c *cobra.Command, product *string) *cobra.Command {
	c.Flags().StringVar(product, "product", "", "which product")
	return need(c, "product")
}

func (a *api) listControls() *cobra.Command {
	var product, framework, standing string
	c := listing(a, cobra.Command{
		Use: "list --product PRODUCT", Short: "List how the controls stand",
		Example: "  hallmark compliance list --product pump --standing not-met",
	}, "CONTROL STANDING TITLE REASON",
		func(ctx context.Context, cl *client.Client, _ []string) ([]comply.Assessment, error) {
			return cl.Controls(ctx, product, framework, comply.Status(standing))
		},
		func(c comply.Assessment) []string { return []string{c.ID, string(c.Standing), c.Title, c.Reason} })
	c.Flags().StringVar(&framework, "framework", "", "only this one's, such as etsi-en-303-645 or eu-cra-2024-2847")
	c.Flags().StringVar(&standing, "standing", "", "only those that are met, not-met, unknown or not-applicable")
	return ofProduct(c, &product)
}

func (a *api) showControl() *cobra.Command {
	var product string
	return ofProduct(a.verb(cobra.Command{
		Use: "show CONTROL --product PRODUCT", Short: "Show how one control stands, and why", Args: cobra.ExactArgs(1),
		Example: "  hallmark compliance show 5.3-8 --product pump",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		x, err := control(args[0])
		if err != nil {
			return err
		}
		v, err := cl.Control(ctx, product, x.Framework, x.ID)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return writeControl(w, v) })
	}), &product)
}

func writeControl(w io.Writer, v client.ControlView) error {
	pairs := []string{
		"control", v.Key(), "title", v.Title, "standing", string(v.Standing), "reason", v.Reason, "missing", v.Lacks, "as of", when(v.AsOf),
		"would be live", v.Live, "would be stated", v.Control.Statement,
	}
	if j := v.Measured; j != nil {
		for _, f := range j.Figures {
			pairs = append(pairs, f.What, f.Number())
		}
		pairs = append(pairs, "newest evidence", when(j.Newest))
		for _, l := range j.Evidence {
			pairs = append(pairs, "see "+l.Text, l.Place())
		}
	}
	if s := v.Assessment.OnFile; s != nil {
		pairs = append(pairs, "on file", string(s.Kind), "text", s.Text, "by", s.By, "at", when(s.At), "review by", when(s.ReviewBy))
	}
	return sheet(w, pairs...)
}

func (a *api) stateControl() *cobra.Command {
	var product, kind, text, review string
	c := a.verb(cobra.Command{
		Use: "state CONTROL --product PRODUCT --text TEXT --review-by DAY", Short: "State how a control is met, or why it does not apply", Args: cobra.ExactArgs(1),
		Long: "State how the part of a control that a person answers for is met, why the control does not apply (--kind not-applicable), or why a " +
			"recommendation is not followed (--kind rationale). It takes the place of what is on file; the ledger keeps both.",
		Example: "  hallmark compliance state 5.12-1 --product pump --review-by 2027-06-30 --text 'Two steps: see the manual, page 7.'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		x, err := control(args[0])
		if err != nil {
			return err
		}
		until, err := day("--review-by", review)
		if err != nil {
			return err
		}
		s, err := cl.State(ctx, product, x.Framework, x.ID, comply.Words{Kind: comply.Kind(kind), Text: text, ReviewBy: until})
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "control", x.Key(), "on file", string(s.Kind), "by", s.By, "review by", when(s.ReviewBy))
		})
	})
	f := c.Flags()
	f.StringVar(&kind, "kind", string(comply.Fulfilled), "statement, not-applicable or rationale")
	f.StringVar(&text, "text", "", "what is to be on file, at most 4096 bytes")
	f.StringVar(&review, "review-by", "", "from this day on it counts for nothing; at most two years ahead")
	return need(ofProduct(a.matching(c), &product), "text", "review-by")
}

func (a *api) reportCompliance() *cobra.Command {
	var product, framework string
	c := a.verb(cobra.Command{
		Use: "report --product PRODUCT", Short: "Report how a product stands, with all evidence, as Markdown or JSON",
		Example: "  hallmark compliance report --product pump --output markdown",
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		r, err := cl.Compliance(ctx, product, framework)
		if err != nil {
			return err
		}
		if a.output == asMarkdown {
			a.output = asTable
		}
		return a.show(func(w io.Writer) error {
			_, err := fmt.Fprint(w, r.Markdown())
			return err
		})
	})
	c.Flags().StringVar(&framework, "framework", "", "only this one's, such as etsi-en-303-645 or eu-cra-2024-2847")
	return ofProduct(c, &product)
}
