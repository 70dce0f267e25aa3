package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/server"
)

// organisation is an organisation's sign-in, as flags give it.
type organisation struct {
	server.OIDC
	secretFile string
}

func (o *organisation) flags(c *cobra.Command, prefix string) {
	f := c.Flags()
	f.StringVar(&o.Issuer, prefix+"issuer", "", "the organisation's sign-in (OpenID Connect): its issuer, exactly as it calls itself")
	f.StringVar(&o.Client, prefix+"client", "", "the client ID that it gave this instance")
	f.StringVar(&o.secretFile, prefix+"secret-file", "", "file that holds the client's secret; left out: a public client")
	f.StringVar(&o.Name, prefix+"name", "", `what it is called on the sign-in page, such as "Acme"`)
}

func (o *organisation) secret() ([]byte, error) {
	if o.secretFile == "" {
		return nil, nil
	}
	data, err := readFile(o.secretFile, 1<<16)
	if err != nil {
		return nil, fmt.Errorf("the client's secret: %w", err)
	}
	return data, nil
}

func newOIDC(s streams) *cobra.Command {
	c := &cobra.Command{Use: "oidc", Short: "Sign-in of people with their organisation (OpenID Connect)"}
	c.AddCommand(setOIDC(s), removeOIDC(s))
	return c
}

func setOIDC(s streams) *cobra.Command {
	var dir string
	var o organisation
	c := &cobra.Command{
		Use: "set --dir DIR --issuer URL --client ID [--secret-file FILE] [--name NAME]", Short: "Let people sign in with their organisation",
		Long: `Lets people sign in with their organisation, from the next start of ` + "`hallmark serve`" + `. It prints the redirect address that the provider
has to have on record, exactly so. Nobody gets in by it who is not bound: see ` + "`hallmark member bind`" + `.`,
		Example: `  hallmark oidc set --dir /var/lib/hallmark --issuer https://login.acme.example --client hallmark --secret-file client.secret --name Acme`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			secret, err := o.secret()
			if err != nil {
				return err
			}
			redirect, err := server.SetOIDC(server.Layout{Dir: dir}, &o.OIDC, secret)
			if err != nil {
				return err
			}
			return sheet(s.out, "issuer", o.Issuer, "redirect", redirect, "next", "start hallmark serve anew")
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "data directory of the instance")
	o.flags(c, "")
	return need(c, "dir", "issuer", "client")
}

func removeOIDC(s streams) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "remove --dir DIR", Short: "Have no organisation's sign-in any more", Example: "  hallmark oidc remove --dir /var/lib/hallmark", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, err := server.SetOIDC(server.Layout{Dir: dir}, nil, nil); err != nil {
				return err
			}
			return sheet(s.out, "removed", "the organisation's sign-in", "next", "start hallmark serve anew")
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "data directory of the instance")
	return need(c, "dir")
}
