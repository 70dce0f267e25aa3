package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/telemetry"
)

// completionTime is how long a person waits for a name at the most.
const completionTime = 2 * time.Second

// names completes what a command's usage line calls for in the place of an argument.
func (a *api) names(use string) cobra.CompletionFunc {
	use, _, _ = strings.Cut(use, " --")
	use, _, _ = strings.Cut(use, " (")
	places := strings.Fields(use)[1:]
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		i := len(args)
		if n := len(places); n > 0 && i >= n && strings.HasSuffix(places[n-1], "…") {
			i = n - 1
		}
		if i >= len(places) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		word := strings.TrimSuffix(places[i], "…")
		if word == "FILE" {
			return nil, cobra.ShellCompDirectiveDefault
		}
		if fn := liveNames()[word]; fn != nil {
			return a.live(fn)(cmd, args, begun)
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// liveNames are the words of usage lines whose meanings the instance knows by name.
func liveNames() map[string]func(ctx context.Context, cl *client.Client) ([]string, error) {
	return map[string]func(ctx context.Context, cl *client.Client) ([]string, error){
		"DEVICE": deviceNames, "ROLLOUT": rolloutNames,
		"PRODUCT": namesOf((*client.Client).Products, func(p product.Product) string { return p.ID }),
		"ORDER": namesOf(func(cl *client.Client, ctx context.Context) ([]factory.Order, error) { return cl.Orders(ctx, "") },
			func(o factory.Order) string { return o.ID }),
		"MEMBER": namesOf((*client.Client).Members, func(m signin.Member) string { return m.ID }),
		"WARRANT": namesOf(func(cl *client.Client, ctx context.Context) ([]client.WarrantReply, error) {
			return cl.Warrants(ctx, "")
		},
			func(w client.WarrantReply) string { return w.Warrant.ID }),
		"FINDING": namesOf(func(cl *client.Client, ctx context.Context) ([]monitor.Finding, error) {
			return cl.Findings(ctx, monitor.Query{OpenOnly: true})
		}, func(f monitor.Finding) string { return f.ID }),
		"CASE":   namesOf((*client.Client).Remedies, func(c remedy.Case) string { return c.Device }),
		"ISSUER": namesOf((*client.Client).Issuers, func(i client.Issuer) string { return i.ID }),
		"GRANT": namesOf(func(cl *client.Client, ctx context.Context) ([]telemetry.Grant, error) {
			return cl.Grants(ctx, telemetry.GrantQuery{})
		}, func(g telemetry.Grant) string { return g.ID }),
	}
}

// namesOf gives the names of the first page of a list.
func namesOf[T any](list func(*client.Client, context.Context) ([]T, error), name func(T) string) func(context.Context, *client.Client) ([]string, error) {
	return func(ctx context.Context, cl *client.Client) ([]string, error) {
		all, err := list(cl.Within(&client.Window{Limit: 200}), ctx)
		out := make([]string, len(all))
		for i, x := range all {
			out[i] = name(x)
		}
		return out, err
	}
}

// live completes an argument with names that the instance knows now. A shell's completion says nothing of what goes wrong.
func (a *api) live(names func(ctx context.Context, cl *client.Client) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		cl, err := a.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all, err := names(ctx, cl)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []cobra.Completion
		for _, n := range all {
			if strings.HasPrefix(n, begun) {
				out = append(out, n)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func deviceNames(ctx context.Context, cl *client.Client) ([]string, error) {
	p, err := cl.Devices(ctx, fleet.Query{Limit: 200})
	var out []string
	for _, d := range p.Items {
		out = append(out, d.ID)
	}
	return out, err
}

func rolloutNames(ctx context.Context, cl *client.Client) ([]string, error) {
	rs, err := cl.Rollouts(ctx, "")
	var out []string
	for _, r := range rs {
		out = append(out, r.Spec.ID)
	}
	return out, err
}
