package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/client"
)

func (a *api) bindMember() *cobra.Command {
	var email, subject, cert string
	c := a.verb(cobra.Command{
		Use: "bind MEMBER --email EMAIL | --subject SUBJECT | --cert FILE", Short: "Say how a member is known: by their organisation, or a machine by its certificate",
		Long: `Says how a member is known. A person, by the organisation's sign-in: by the provider's own name for them (--subject), or by an
email that the provider has verified, which holds until they first sign in: then the subject is pinned. A machine, by its client
certificate (--cert, PEM): its public key is pinned until the certificate expires, and no CA is asked.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark member bind person:alice --email alice@acme.example\n  hallmark member bind machine:ci --cert ci.pem",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if cert == "" {
			i, err := cl.BindIdentity(ctx, args[0], subject, email)
			if err != nil {
				return err
			}
			return a.show(func(w io.Writer) error {
				return sheet(w, "member", i.Member, "issuer", i.Issuer, "subject", or(i.Subject), "email", or(i.Email))
			})
		}
		pem, err := readFile(cert, signin.MaxCertificate)
		if err != nil {
			return fmt.Errorf("--cert: %w", err)
		}
		v, err := cl.BindCertificate(ctx, args[0], string(pem))
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "member", args[0], "certificate", v.ID, "until", when(v.Expires))
		})
	})
	c.Flags().StringVar(&email, "email", "", "of a person, verified by the organisation's sign-in")
	c.Flags().StringVar(&subject, "subject", "", "of a person: the organisation's own name for them")
	c.Flags().StringVar(&cert, "cert", "", "of a machine: its certificate, PEM")
	c.MarkFlagsMutuallyExclusive("email", "subject", "cert")
	c.MarkFlagsOneRequired("email", "subject", "cert")
	return c
}

func (a *api) unbindMember() *cobra.Command {
	var issuer string
	c := a.verb(cobra.Command{
		Use: "unbind MEMBER", Short: "Let a person no longer sign in with the organisation", Args: cobra.ExactArgs(1), Example: "  hallmark member unbind person:alice",
		Long: "Lets a person no longer sign in with the organisation. Sessions that were begun so last on: see `hallmark member secrets`. A machine's certificate is revoked by `hallmark member revoke`.",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if err := cl.UnbindIdentity(ctx, args[0], issuer); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "unbound", args[0]) })
	})
	c.Flags().StringVar(&issuer, "issuer", "", "which organisation (default: the instance's)")
	return c
}

func (a *api) listIdentities() *cobra.Command {
	return listing(a, cobra.Command{
		Use: "identities MEMBER", Short: "List who a member is with the organisation's sign-in", Args: cobra.ExactArgs(1), Example: "  hallmark member identities person:alice",
	}, "ISSUER SUBJECT EMAIL BOUND USED",
		func(ctx context.Context, cl *client.Client, args []string) ([]signin.Identity, error) {
			return cl.Identities(ctx, args[0])
		},
		func(i signin.Identity) []string {
			return []string{i.Issuer, or(i.Subject), or(i.Email), when(i.Created), when(i.Used)}
		})
}

func newAudit(a *api) *cobra.Command {
	return a.noun("audit", "Who was refused what", a.listDecisions())
}

func (a *api) listDecisions() *cobra.Command {
	var f access.RecordedFilter
	var action string
	c := listing(a, cobra.Command{
		Use: "list", Short: "List what was denied, newest first",
		Long:    "Lists who was refused what, newest first. What was allowed and changed something is in the ledger, with who did it: see `hallmark event watch`; what was allowed and only read is kept nowhere.",
		Example: "  hallmark audit list --denied --caller person:alice",
	}, "ID AT CALLER ACTION RESOURCE PRODUCT ALLOWED",
		func(ctx context.Context, cl *client.Client, _ []string) ([]access.Recorded, error) {
			f.Action = access.Action(action)
			return cl.Decisions(ctx, f)
		},
		func(r access.Recorded) []string {
			return []string{fmt.Sprint(r.ID), when(r.At), r.Caller, string(r.Action), r.Resource, or(r.Product), fmt.Sprint(r.Allowed)}
		})
	c.Flags().BoolVar(&f.Denied, "denied", false, "only what was denied")
	c.Flags().StringVar(&f.Caller, "caller", "", "only theirs")
	c.Flags().StringVar(&action, "action", "", "only on this, such as device:quarantine")
	return c
}
