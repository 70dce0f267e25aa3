package cli

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
)

func newLegacy(a *api) *cobra.Command {
	return a.noun("legacy", "Clients of other update systems (hawkBit's DDI, Mender): who is let in", a.listLegacy(), a.admitLegacy(), a.refuseLegacy(), a.legacyLog(),
		a.listGateways(), a.addGateway(), a.removeGateway())
}

func (a *api) listLegacy() *cobra.Command {
	var product, state string
	c := listing(a, cobra.Command{
		Use: "list --product PRODUCT", Short: "List clients of other update systems that asked to be let in, or were", Example: "  hallmark legacy list --product pump --state pending",
	}, "KIND NAME STATE DEVICE KNOWN-BY VERSION SINCE",
		func(ctx context.Context, cl *client.Client, _ []string) ([]legacy.Client, error) {
			return cl.LegacyClients(ctx, product, legacy.State(state))
		},
		func(c legacy.Client) []string {
			by := "-"
			switch {
			case len(c.Key) > 0:
				by = "key " + hex.EncodeToString(c.Key)
			case c.Token:
				by = "token"
			}
			return []string{string(c.Kind), oneLine(c.Name), string(c.State), or(c.Device), by, or(oneLine(c.Attributes[legacy.VersionAttribute])), when(c.Asked)}
		})
	c.Flags().StringVar(&product, "product", "", "product")
	c.Flags().StringVar(&state, "state", "", "only those that are pending, admitted or refused")
	return need(c, "product")
}

func (a *api) admitLegacy() *cobra.Command {
	var in legacy.Admission
	var product, certificate, key string
	c := a.verb(cobra.Command{
		Use: "admit NAME --product PRODUCT", Short: "Let a client of another update system in", Args: cobra.ExactArgs(1),
		Long: `Lets a client of another update system in, by the name that it calls itself. Its device is registered, and from then on only says what it runs.

It (SWUpdate, rauc-hawkbit-updater) gets a token, which is told once: it goes into the client's configuration. With --certificate it is known by the key of
its TLS certificate instead. Again, it gets another token or key, and the present one counts no more.

A client of Mender's (--kind mender) is known by the key that it signs its requests to be let in with: take it from ` + "`hallmark legacy list`" + `, and hold it against the device's own.`,
		Example: `  hallmark legacy admit pump-0042 --product pump
  hallmark legacy admit pump-0043 --product pump --certificate pump-0043.pem
  hallmark legacy admit mac=02:00:00:00:00:01 --kind mender --product pump --key 6f5e…`,
	}, func(ctx context.Context, cl *client.Client, args []string) (err error) {
		in.Name = args[0]
		if certificate != "" {
			if in.Key, err = keyOfCertificate(certificate); err != nil {
				return err
			}
		}
		if key != "" {
			if in.Key, err = hex.DecodeString(key); err != nil || len(in.Key) != sha256.Size {
				return usagef("--key %q: want the SHA-256 of a key, 64 hex digits", key)
			}
		}
		l, err := cl.AdmitLegacyClient(ctx, product, in)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "client", oneLine(l.Client.Name), "device", l.Client.Device, "its word", "says", "token", l.Token, "key", hex.EncodeToString(l.Client.Key))
		})
	})
	f := c.Flags()
	f.StringVar(&product, "product", "", "product; it is the tenant")
	kindFlag(f, &in.Kind)
	f.StringVar(&in.Hardware, "hardware", "", "its hardware revision (default: the product's first)")
	f.StringVar(&certificate, "certificate", "", "file with the TLS certificate by whose key it is known, instead of a token")
	f.StringVar(&key, "key", "", "SHA-256 of the key by which it is known, in hex")
	f.BoolVar(&in.Consent, "consent", false, "whoever has it has to agree to each update")
	f.StringVar(&in.Reason, "reason", "", "why")
	c.MarkFlagsMutuallyExclusive("certificate", "key")
	return need(c, "product")
}

func kindFlag(f *pflag.FlagSet, kind *legacy.Kind) {
	f.StringVar((*string)(kind), "kind", string(legacy.DDI), "whose client it is: ddi (hawkBit's protocol) or mender")
}

// keyOfCertificate gives the digest of the key of a certificate, PEM or DER.
func keyOfCertificate(path string) ([]byte, error) {
	data, err := readFile(path, maxCAFile)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
	}
	cert, err := x509.ParseCertificate(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: want a certificate, PEM or DER", path, err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return sum[:], nil
}

func (a *api) refuseLegacy() *cobra.Command {
	var product string
	var in client.ClientRefusal
	c := a.verb(cobra.Command{
		Use: "refuse NAME --product PRODUCT --reason TEXT", Short: "Let a client of another update system in no more, or not at all", Args: cobra.ExactArgs(1),
		Long: `Lets a client of another update system in no more, or not at all: its token and key count no more. Its device stays in the registry: retire it there.`,

		Example: "  hallmark legacy refuse pump-0042 --product pump --reason 'it was sold'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		in.Name = args[0]
		r, err := cl.RefuseLegacyClient(ctx, product, in)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "client", oneLine(r.Name), "state", string(r.State), "device", or(r.Device))
		})
	})
	f := c.Flags()
	f.StringVar(&product, "product", "", "product")
	kindFlag(f, &in.Kind)
	f.StringVar(&in.Reason, "reason", "", "why")
	return need(c, "product", "reason")
}

func (a *api) legacyLog() *cobra.Command {
	var product string
	c := a.verb(cobra.Command{
		Use: "log NAME --product PRODUCT", Short: "Show what a client of Mender's wrote of updates that failed", Args: cobra.ExactArgs(1),
		Long: `Shows what a client wrote of its last updates that failed, the newest first. It is the client's word, and is kept for 30 days.`, Example: "  hallmark legacy log mac=02:00:00:00:00:01 --product pump",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		logs, err := cl.LegacyLogs(ctx, product, args[0])
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			for _, l := range logs {
				if _, err := fmt.Fprintf(w, "update %d, %s\n", l.Number, when(l.At)); err != nil {
					return err
				}
				for _, m := range l.Messages {
					if _, err := fmt.Fprintf(w, "  %s %s %s\n", oneLine(m.At), oneLine(m.Level), oneLine(m.Text)); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
	c.Flags().StringVar(&product, "product", "", "product")
	return need(c, "product")
}

func (a *api) listGateways() *cobra.Command {
	var product string
	c := listing(a, cobra.Command{
		Use: "gateways --product PRODUCT", Short: "List the gateways that speak for clients of other update systems", Example: "  hallmark legacy gateways --product pump",
	}, "GATEWAY SINCE BY",
		func(ctx context.Context, cl *client.Client, _ []string) ([]legacy.Gateway, error) {
			return cl.LegacyGateways(ctx, product)
		},
		func(g legacy.Gateway) []string { return []string{oneLine(g.Name), when(g.At), g.By} })
	c.Flags().StringVar(&product, "product", "", "product")
	return need(c, "product")
}

func (a *api) addGateway() *cobra.Command {
	var product string
	c := a.verb(cobra.Command{
		Use: "add-gateway NAME --product PRODUCT", Short: "Let a gateway speak for the clients of a product that are behind it", Args: cobra.ExactArgs(1),
		Long: `Lets a gateway speak for the clients of a product that are behind it. The token is told once. Whoever has it is every client of the product that has no
key of its own: give clients tokens of their own where you can. The clients have to be admitted one by one all the same.`,
		Example: "  hallmark legacy add-gateway hall-3 --product pump",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		g, err := cl.AddLegacyGateway(ctx, product, args[0])
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "gateway", oneLine(g.Gateway.Name), "token", g.Token) })
	})
	c.Flags().StringVar(&product, "product", "", "product; it is the tenant")
	return need(c, "product")
}

func (a *api) removeGateway() *cobra.Command {
	var product string
	c := a.verb(cobra.Command{
		Use: "remove-gateway NAME --product PRODUCT", Short: "Have a gateway speak for nobody any more", Args: cobra.ExactArgs(1), Example: "  hallmark legacy remove-gateway hall-3 --product pump",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if err := cl.EndLegacyGateway(ctx, product, args[0]); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "gateway", oneLine(args[0]), "speaks", "for nobody") })
	})
	c.Flags().StringVar(&product, "product", "", "product")
	return need(c, "product")
}
