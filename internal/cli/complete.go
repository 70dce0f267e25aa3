package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
)

// completionTime is how long a person waits for a name at the most.
const completionTime = 2 * time.Second

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
	for _, d := range p.Devices {
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
