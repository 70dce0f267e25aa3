package cli

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/client"
)

func newMember(a *api) *cobra.Command {
	return a.noun("member", "Who may call: people and machines, their roles and secrets",
		a.whoAmI(), a.listMembers(), a.showMember(), a.setRoles(), a.endMember(), a.listSecrets(), a.revokeSecret(), a.bindMember(), a.unbindMember(), a.listIdentities())
}

func roleNames(rs []access.Role) string {
	names := make([]string, len(rs))
	for i, r := range rs {
		names[i] = string(r)
	}
	return strings.Join(names, ",")
}

const scopeUsage = "only for these products, or groups of them: pump, pump/eu/berlin (default: everywhere)"

// scope says to what somebody is limited.
func scope(of []string) string {
	if len(of) == 0 {
		return "everywhere"
	}
	return strings.Join(of, ",")
}

func (a *api) whoAmI() *cobra.Command {
	return a.verb(cobra.Command{Use: "self", Short: "Show who you are here", Example: "  hallmark member self"},
		func(ctx context.Context, cl *client.Client, _ []string) error {
			m, err := cl.Self(ctx)
			if err != nil {
				return err
			}
			return a.show(func(w io.Writer) error {
				return sheet(w, "member", m.ID, "kind", string(m.Kind), "roles", roleNames(m.Roles), "scope", scope(m.Scope), "known by", m.Via)
			})
		})
}

func (a *api) listMembers() *cobra.Command {
	return listing(a, cobra.Command{Use: "list", Short: "List who may call, by name", Example: "  hallmark member list"},
		"ID KIND ROLES SCOPE CREATED ENDED",
		func(ctx context.Context, cl *client.Client, _ []string) ([]signin.Member, error) {
			return cl.Members(ctx)
		},
		func(m signin.Member) []string {
			return []string{m.ID, string(m.Kind), or(roleNames(m.Roles)), scope(m.Scope), when(m.Created), when(m.Ended)}
		})
}

func (a *api) member(m signin.Member) error {
	return a.show(func(w io.Writer) error {
		return sheet(w, "member", m.ID, "kind", string(m.Kind), "roles", or(roleNames(m.Roles)), "scope", scope(m.Scope), "created", when(m.Created),
			"changed", when(m.Changed), "ended", when(m.Ended))
	})
}

func (a *api) showMember() *cobra.Command {
	return a.verb(cobra.Command{Use: "show MEMBER", Short: "Show a member", Args: cobra.ExactArgs(1), Example: "  hallmark member show person:alice"},
		func(ctx context.Context, cl *client.Client, args []string) error {
			m, err := cl.Member(ctx, args[0])
			if err != nil {
				return err
			}
			return a.member(m)
		})
}

func (a *api) setRoles() *cobra.Command {
	var roles []string
	var r client.RolesRequest
	c := a.verb(cobra.Command{
		Use: "set-roles MEMBER --role ROLE,…", Short: "Say what a member may do",
		Long: "Says what a member may do from now on, with every token and session of theirs. The roles and the scope given here take the place of all they had.",
		Args: cobra.ExactArgs(1), Example: "  hallmark member set-roles person:alice --role operator,viewer --scope pump/eu/berlin",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r.Roles = nil
		for _, x := range roles {
			r.Roles = append(r.Roles, access.Role(x))
		}
		m, err := cl.SetRoles(ctx, args[0], r)
		if err != nil {
			return err
		}
		return a.member(m)
	})
	var all []string
	for _, x := range access.Roles() {
		all = append(all, string(x))
	}
	c.Flags().StringSliceVar(&roles, "role", nil, "roles: "+strings.Join(all, ", "))
	c.Flags().StringSliceVar(&r.Scope, "scope", nil, scopeUsage)
	return a.matching(need(c, "role"))
}

func (a *api) endMember() *cobra.Command {
	return a.matching(a.verb(cobra.Command{
		Use: "end MEMBER", Short: "Take a member every token, session and passkey, for good", Args: cobra.ExactArgs(1),
		Long: "Takes a member every token, session and passkey, for good. The name stays taken.", Example: "  hallmark member end person:alice",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		m, err := cl.EndMember(ctx, args[0])
		if err != nil {
			return err
		}
		return a.member(m)
	}))
}

func (a *api) listSecrets() *cobra.Command {
	return listing(a, cobra.Command{
		Use: "secrets MEMBER", Short: "List a member's tokens and sessions", Args: cobra.ExactArgs(1), Example: "  hallmark member secrets person:alice",
	}, "ID USE FROM CREATED EXPIRES",
		func(ctx context.Context, cl *client.Client, args []string) ([]client.CredentialView, error) {
			return cl.Secrets(ctx, args[0])
		},
		func(v client.CredentialView) []string {
			return []string{v.ID, string(v.Use), or(v.From), when(v.Created), when(v.Expires)}
		})
}

func (a *api) revokeSecret() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "revoke MEMBER SECRET", Short: "Revoke one token or session of a member", Args: cobra.ExactArgs(2),
		Long: "Revokes one token or session of a member, by its ID as `hallmark member secrets` gives it.", Example: "  hallmark member revoke person:alice 0123456789abcdef",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if err := cl.RevokeSecret(ctx, args[0], args[1]); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "revoked", args[1], "of", args[0]) })
	})
}
