package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/server"
)

func newCA(a *api) *cobra.Command {
	return a.noun("ca", "Certification authorities of the instance: which sign, and how a new one takes over",
		a.listCAs(), a.caLists(), a.requestCA(), a.installCA(), a.trustRoot(), a.requestCAList(), a.putCAList(), serveCA(a.s), separateCA(a.s))
}

func (a *api) listCAs() *cobra.Command {
	return listing(a, cobra.Command{
		Use: "list", Short: "List the certification authorities, and those that were asked for",
		Long: `Lists the certification authorities, and those that were asked for. An authority that is "issuing" signs what is new; one that is "held" has been
followed by another and signs its lists of revocations until nothing that it has signed is valid any more.`,
		Example: "  hallmark ca list",
	}, "ID ROLE PRODUCT UNIT STATE UNTIL",
		func(ctx context.Context, cl *client.Client, _ []string) ([]client.Issuer, error) {
			return cl.Issuers(ctx)
		},
		func(i client.Issuer) []string {
			return []string{i.ID, string(i.Role), or(i.Product), or(i.Unit), i.State, when(i.NotAfter)}
		})
}

func (a *api) caLists() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "lists ID", Short: "Show how fresh the lists are that say what an authority has revoked",
		Long: "Shows how fresh the published lists of an authority are. A list that is missing or has run out is stale: look why none was signed.",
		Args: cobra.ExactArgs(1), Example: "  hallmark ca lists 4f1c9a0b7d2e6a51c0f3b8e7d6a5948372615043",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		l, err := cl.IssuerLists(ctx, args[0])
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "lists", fmt.Sprint(l.Lists), "stale", fmt.Sprint(l.Stale), "next runs out", when(l.Next))
		})
	})
}

func (a *api) requestCA() *cobra.Command {
	var r client.AuthorityRequest
	var out string
	c := a.verb(cobra.Command{
		Use: "request ROLE --purpose TEXT --out FILE", Short: "Make the key of a new certification authority, and the request for the ceremony",
		Long: `Makes the key of a new certification authority where the instance's keys are, and writes the request for it: a file that the new key has signed,
for the holders of the OEM's root. ROLE is operational, infra or product. Nothing changes before their answer is installed: see ` + "`hallmark ca install`" + `.`,
		Args: cobra.ExactArgs(1), ValidArgs: []string{"operational", "infra", "product"},
		Example: "  hallmark ca request operational --unit 2027 --purpose 'the present one ends in a year' --out operational.request\n" +
			"  hallmark ca request product --product valve --purpose 'a second product' --out valve.request",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r.Role = args[0]
		made, err := cl.RequestIssuer(ctx, r)
		if err != nil {
			return err
		}
		return a.written(out, made, "role", r.Role)
	})
	f := c.Flags()
	f.StringVar(&r.Product, "product", "", "the product that a product CA is for")
	f.StringVar(&r.Unit, "unit", "", "tells authorities of one role apart in their names")
	f.UintVar(&r.Days, "days", 0, "life asked for; 0: what the role's profile has")
	f.StringVar(&r.Purpose, "purpose", "", "why, for the people at the ceremony")
	f.StringVar(&out, "out", "", "file to write the request to")
	return need(c, "purpose", "out")
}

// written writes a request for the ceremony, and shows what people compare there.
func (a *api) written(out string, made client.Requested, first ...string) error {
	if len(made.Digest) != 32 {
		return fmt.Errorf("the server gave a digest of %d bytes", len(made.Digest))
	}
	if err := durable.WriteFile(out, made.Request, 0o644); err != nil {
		return err
	}
	return a.show(func(w io.Writer) error {
		return sheet(w, append(first, "fingerprint", server.Fingerprint([32]byte(made.Digest)), "written", out)...)
	})
}

// maxCeremonyFile bounds what is read of a ceremony's answer.
const maxCeremonyFile = 1 << 20

func (a *api) installCA() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "install FILE", Short: "Take in the ceremony's answer: the new authority takes over",
		Long: `Takes in the ceremony's answer to ` + "`hallmark ca request`" + `. The chain is verified up to the OEM's root and held against the request; then the new
authority signs what is new, on every node that has its key. The one before goes on signing its lists, and is taken out of service by itself when
nothing that it has signed is valid any more.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark ca install operational.grant",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		grant, err := readFile(args[0], maxCeremonyFile)
		if err != nil {
			return err
		}
		i, err := cl.InstallIssuer(ctx, grant)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "authority", i.ID, "role", string(i.Role), "state", i.State) })
	})
}

func (a *api) trustRoot() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "trust FILE", Short: "Believe another root of the OEM; takes two people",
		Long: `Believes another root of the OEM: the certificate (DER) that a ceremony gave out for a new root. Authorities below it can then be installed. It takes
two people. Devices believe the new root by their trust bundle, not by this: see ` + "`hallmark bundle`" + `.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark ca trust root-2.der --propose 'the first root was in a fire'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		der, err := readFile(args[0], maxCeremonyFile)
		if err != nil {
			return err
		}
		i, err := cl.TrustRoot(ctx, der)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "root", i.ID) })
	})
}

func (a *api) requestCAList() *cobra.Command {
	var out, purpose string
	c := a.verb(cobra.Command{
		Use: "list-request ROOT --purpose TEXT --out FILE", Short: "Write what a root has to sign: the list of authorities that were revoked",
		Long: `Writes what a root has to sign: the list of the authorities below it that were revoked, for others who check certificates. ROOT is the ID of an
authority of role root. The other authorities' lists are signed by the instance itself.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark ca list-request 3f2a --purpose 'the operational CA of 2026 was stolen' --out root-list.request",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		made, err := cl.RequestIssuerList(ctx, args[0], purpose)
		if err != nil {
			return err
		}
		return a.written(out, made, "root", args[0])
	})
	c.Flags().StringVar(&purpose, "purpose", "", "why, for the people at the ceremony")
	c.Flags().StringVar(&out, "out", "", "file to write the request to")
	return need(c, "purpose", "out")
}

func (a *api) putCAList() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "list-install ROOT FILE", Short: "Publish the list that a root has signed", Args: cobra.ExactArgs(2),
		Example: "  hallmark ca list-install 3f2a root.crl",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		der, err := readFile(args[1], maxCeremonyFile)
		if err != nil {
			return err
		}
		l, err := cl.PutIssuerList(ctx, args[0], der)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "root", args[0], "number", fmt.Sprint(l.Number), "until", when(l.Next))
		})
	})
}
