package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/client"
)

// query are the flags of a rollout of those that a query selects.
func (p *plan) query(c *cobra.Command) {
	f := c.Flags()
	f.StringSliceVar(&p.queried, "query", nil, "every device that is so when its wave is taken, in the words of hallmark device list: version=1.0.0,evidence=affirming,findings; without state= active ones")
	f.StringVar(&p.saved, "saved", "", "those of a query you keep, as it is now: see hallmark query list")
	kinds := []string{"all", "state", "device", "query", "saved"}
	c.MarkFlagsOneRequired(kinds...)
	c.MarkFlagsMutuallyExclusive(kinds...)
	c.MarkFlagsMutuallyExclusive("group", "saved")
}

// selects has the plan select what was asked for.
func (p *plan) selects(ctx context.Context, cl *client.Client) error {
	sel := &p.spec.Selection
	sel.State = device.State(p.state)
	if p.saved != "" {
		kept, err := savedQuery(ctx, cl, p.saved)
		if err != nil {
			return err
		}
		if kept.Product != "" && kept.Product != p.spec.Product {
			return usagef("--saved %q is of product %s, and the rollout of %s", p.saved, kept.Product, p.spec.Product)
		}
		sel.Group, sel.Query = kept.Group, &kept.Filter
		if kept.Filter == (device.Filter{}) { // of a product, or a group of it
			sel.All, sel.Query = true, nil
		}
		return nil
	}
	if len(p.queried) == 0 {
		return nil
	}
	sel.Query = &device.Filter{}
	words := map[string]*string{
		"state": &sel.Query.State, "evidence": &sel.Query.Verdict, "version": &sel.Query.Version, "assurance": &sel.Query.Assurance, "release": &sel.Query.Release,
		"bundle": &sel.Query.Bundle, "prefix": &sel.Query.Prefix,
	}
	for _, text := range p.queried {
		key, value, given := strings.Cut(text, "=")
		to, ok := words[key]
		switch {
		case text == "findings":
			sel.Query.Findings = true
		case !ok || !given || value == "" || *to != "":
			return usagef("--query %q: want state=, evidence=, version=, assurance=, release=, bundle= or prefix= with what is asked for, each once, or findings", text)
		default:
			*to = value
		}
	}
	if name := sel.Query.Release; strings.Contains(name, "@") {
		_, digest, err := digestOf(ctx, cl, name)
		if err != nil {
			return err
		}
		sel.Query.Release = digest
	}
	return nil
}
