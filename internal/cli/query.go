package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
)

func newQuery(a *api) *cobra.Command {
	return a.noun("query", "Queries over devices that you keep", a.listQueries(), a.saveQuery(), a.forgetQuery())
}

// selectors are the flags that select devices.
var selectors = []string{"product", "group", "state", "assurance", "evidence", "version", "release", "bundle", "prefix", "findings"}

func selecting(f *pflag.FlagSet, q *fleet.Query) {
	f.StringVar(&q.Product, "product", "", "only this product's")
	f.StringVar(&q.Group, "group", "", "only those in this group of the product, or in one below")
	f.Var((*state)(&q.State), "state", "only those in this state: active, quarantined, …")
	f.StringVar(&q.Assurance, "assurance", "", "only those whose word is worth this: enforces, proves or says")
	f.StringVar(&q.Verdict, "evidence", "", "only those whose evidence is affirming, warning, contraindicated or unknown")
	f.StringVar(&q.Version, "version", "", "only those that run this version")
	f.StringVar(&q.Release, "release", "", "only those that run this release, by its digest")
	f.StringVar(&q.Bundle, "bundle", "", "only those that believe this version of their product's trust bundle")
	f.StringVar(&q.Prefix, "prefix", "", "only those whose ID begins so")
	f.BoolVar(&q.Findings, "findings", false, "only those with open findings")
}

// state is a flag: a state that devices can be in. A mistyped one would find nothing, and that would read as good news.
type state string

// String implements pflag.Value.
func (s *state) String() string { return string(*s) }

// Set implements pflag.Value.
func (s *state) Set(word string) error {
	if !device.Known(device.State(word)) {
		var all []string
		for _, k := range device.States() {
			all = append(all, string(k))
		}
		return fmt.Errorf("%q: want one of %s", word, strings.Join(all, ", "))
	}
	*s = state(word)
	return nil
}

// Type implements pflag.Value.
func (s *state) Type() string { return "STATE" }

// queryText is a query as its flags would say it.
func queryText(q fleet.Query) string {
	var parts []string
	for i, value := range []string{q.Product, q.Group, q.State, q.Assurance, q.Verdict, q.Version, q.Release, q.Bundle, q.Prefix} {
		if value != "" {
			parts = append(parts, "--"+selectors[i]+" "+value)
		}
	}
	if q.Findings {
		parts = append(parts, "--findings")
	}
	return or(strings.Join(parts, " "))
}

func savedQuery(ctx context.Context, cl *client.Client, name string) (fleet.Query, error) {
	all, err := cl.Queries(ctx)
	if err != nil {
		return fleet.Query{}, err
	}
	for _, s := range all {
		if s.Name == name {
			return s.Query, nil
		}
	}
	return fleet.Query{}, fmt.Errorf("you keep no query %q: see `hallmark query list`", name)
}

func (a *api) listQueries() *cobra.Command {
	return listing(a, cobra.Command{Use: "list", Short: "List the queries you keep", Example: "  hallmark query list"}, "NAME QUERY",
		func(ctx context.Context, cl *client.Client, _ []string) ([]fleet.Saved, error) {
			return cl.Queries(ctx)
		},
		func(s fleet.Saved) []string { return []string{s.Name, queryText(s.Query)} })
}

func (a *api) saveQuery() *cobra.Command {
	var q fleet.Query
	c := a.verb(cobra.Command{
		Use: "save NAME", Short: "Keep a query over devices, for you alone", Args: cobra.ExactArgs(1),
		Long:    "Keeps a query over devices under a name, for you alone, in the place of an earlier one of that name. The console lists it too.",
		Example: "  hallmark query save 'old pumps' --product pump --version 1.0.0\n  hallmark device list --saved 'old pumps'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		s, err := cl.SaveQuery(ctx, fleet.Saved{Name: args[0], Query: q})
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "saved", s.Name, "query", queryText(s.Query)) })
	})
	selecting(c.Flags(), &q)
	return c
}

func (a *api) forgetQuery() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "forget NAME", Short: "Forget a query you keep", Args: cobra.ExactArgs(1), Example: "  hallmark query forget 'old pumps'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if err := cl.ForgetQuery(ctx, args[0]); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "forgotten", args[0]) })
	})
}
