package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
)

func newToken(a *api) *cobra.Command {
	return a.noun("token", "Who may do what: access tokens and sign-in links", a.createToken(), a.linkToken())
}

// holder is who a secret is for.
type holder struct {
	spec  client.TokenSpec
	roles []string
}

func (h *holder) flags(c *cobra.Command) {
	var all []string
	for _, r := range access.Roles() {
		all = append(all, string(r))
	}
	c.Flags().StringSliceVar(&h.roles, "role", nil, "roles: "+strings.Join(all, ", "))
	c.Flags().StringVar(&h.spec.Owner, "owner", "", "an owner's member: sees and commands what that owner has, and nothing else")
	c.Flags().StringSliceVar(&h.spec.Scope, "scope", nil, scopeUsage)
}

func (h *holder) grant(caller string, use signin.Use, life time.Duration) client.TokenSpec {
	h.spec.Caller, h.spec.Use, h.spec.Seconds = caller, use, int64(life/time.Second)
	for _, r := range h.roles {
		h.spec.Roles = append(h.spec.Roles, access.Role(r))
	}
	return h.spec
}

func (a *api) createToken() *cobra.Command {
	var h holder
	var days int
	var machine bool
	var out string
	c := a.verb(cobra.Command{
		Use: "create CALLER --role ROLE,… --out FILE", Short: "Issue an access token", Long: "Issues an access token. It is shown this once: the server keeps no copy.",
		Args: cobra.ExactArgs(1), Example: "  hallmark token create person:alice --role release-manager --out alice.token",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if days < 1 || days > 365 {
			return usagef("--days %d: want 1 to 365", days)
		}
		h.spec.Kind = access.Person
		if machine {
			h.spec.Kind = access.Machine
		}
		if _, err := os.Stat(out); out != "" && err == nil {
			return usagef("%s exists: choose another --out", out)
		}
		secret, err := cl.Token(ctx, h.grant(args[0], signin.UseToken, time.Duration(days)*24*time.Hour))
		if err != nil {
			return err
		}
		if out == "" {
			return a.show(func(w io.Writer) error { _, err := fmt.Fprintln(w, secret); return err })
		}
		if err := durable.WriteFile(out, []byte(secret+"\n"), 0o600); err != nil {
			return err
		}
		return sheet(a.s.out, "token of", args[0], "written", out)
	})
	h.flags(c)
	c.Flags().BoolVar(&machine, "machine", false, "for a machine, not a person")
	c.Flags().IntVar(&days, "days", 90, "days it is valid, at most 365")
	c.Flags().StringVar(&out, "out", "", "private file to write it to (default: print it)")
	return need(c, "role")
}

func (a *api) linkToken() *cobra.Command {
	var h holder
	var caller string
	var valid time.Duration
	c := a.verb(cobra.Command{
		Use: "link", Short: "Make a link that signs a person in to the console, once",
		Example: "  hallmark token link --caller person:olga --role operator,viewer",
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		if valid < time.Second || valid > 24*time.Hour {
			return usagef("--valid %s: want 1s to 24h", valid)
		}
		h.spec.Kind = access.Person
		code, err := cl.Token(ctx, h.grant(caller, signin.UseOnce, valid))
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s/login?once=%s\n", strings.TrimSuffix(a.address(), "/"), code)
			return err
		})
	})
	h.flags(c)
	c.Flags().Lookup("role").DefValue = "admin"
	h.roles = []string{string(access.Admin)}
	c.Flags().StringVar(&caller, "caller", "person:admin", "who signs in")
	c.Flags().DurationVar(&valid, "valid", 10*time.Minute, "how long the link waits to be used")
	return c
}
