package cli

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
)

func newForeignCA(a *api) *cobra.Command {
	return a.noun("foreign-ca", "Other makers whose devices are let in: see hallmark device import", a.addForeignCA(), a.listForeignCAs(), a.removeForeignCA())
}

// maxCAFile bounds a file of CA certificates.
const maxCAFile = 48 << 10

// certificatesIn reads PEM, or the DER of one certificate.
func certificatesIn(path string) (string, error) {
	data, err := readFile(path, maxCAFile)
	if err != nil {
		return "", fmt.Errorf("want CA certificates: %w", err)
	}
	if len(data) > 0 && data[0] == 0x30 {
		data = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: data})
	}
	return string(data), nil
}

func (a *api) addForeignCA() *cobra.Command {
	var r client.ForeignRequest
	c := a.verb(cobra.Command{
		Use: "add FILE --product PRODUCT --map NAME", Short: "Let in devices of another maker, by its CA", Args: cobra.ExactArgs(1),
		Long: `Lets in devices of another maker, by its CA: FILE has its certificates, PEM or DER, the one that signs devices first. It always takes two people. The
CA is believed for the factory identities of this product and for nothing else. Its devices have to be on a list, see ` + "`hallmark device import`" + `,
unless --any is given.

NAME is what a device is called in its certificate: serialNumber, cn or hwserial, or a text with {serialNumber}, {cn}, {o}, {ou} or {hwserial} in it.`,
		Example: "  hallmark foreign-ca add other-works.pem --product pump --map serialNumber --propose 'their sensors are ours to run from May on'",
	}, func(ctx context.Context, cl *client.Client, args []string) (err error) {
		if r.PEM, err = certificatesIn(args[0]); err != nil {
			return err
		}
		ca, err := cl.TrustForeignCA(ctx, r)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "foreign CA", ca.ID, "subject", ca.Subject, "product", ca.Product, "hardware", ca.Hardware, "map", ca.Map, "any device", yes(ca.Any), "ends", when(ca.NotAfter))
		})
	})
	f := c.Flags()
	f.StringVar(&r.Product, "product", "", "the product its devices are of")
	f.StringVar(&r.Hardware, "hardware", "", "hardware revision of its devices (default: the product's first)")
	f.StringVar(&r.Map, "map", "", "what a device is called in its certificate")
	f.BoolVar(&r.Any, "any", false, "let in devices that are on no list as well")
	return need(c, "product", "map")
}

func (a *api) listForeignCAs() *cobra.Command {
	var product string
	c := listing(a, cobra.Command{Use: "list", Short: "List the CAs of other makers whose devices are let in", Example: "  hallmark foreign-ca list --product pump"},
		"CA PRODUCT HARDWARE SUBJECT MAP ANY DEVICES SINCE ENDED",
		func(ctx context.Context, cl *client.Client, _ []string) ([]foreign.CA, error) {
			return cl.ForeignCAs(ctx, product)
		},
		func(ca foreign.CA) []string {
			return []string{ca.ID, ca.Product, ca.Hardware, ca.Subject, ca.Map, yes(ca.Any), fmt.Sprint(ca.Devices), when(ca.At), when(ca.Ended)}
		})
	c.Flags().StringVar(&product, "product", "", "only this product's")
	return c
}

func (a *api) removeForeignCA() *cobra.Command {
	var reason string
	c := a.verb(cobra.Command{
		Use: "remove CA --reason TEXT", Short: "Believe another maker's CA no more", Args: cobra.ExactArgs(1),
		Long: `Believes another maker's CA no more: nobody enrols by it from now on. Devices that enrolled already keep their operational certificates until those
run out; revoke those of which there is doubt (` + "`hallmark device revoke`" + `).`,
		Example: "  hallmark foreign-ca remove 5d2e9a41 --reason 'the maker lost its key'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		id, err := foreignCAOf(ctx, cl, args[0])
		if err != nil {
			return err
		}
		if err := cl.EndForeignCA(ctx, id, reason); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "foreign CA", id, "believed", "no more") })
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	return need(c, "reason")
}

// foreignCAOf finds the CA whose ID begins so.
func foreignCAOf(ctx context.Context, cl *client.Client, begins string) (string, error) {
	if len(begins) >= 64 || begins == "" {
		return begins, nil
	}
	all, err := cl.ForeignCAs(ctx, "")
	if err != nil {
		return "", err
	}
	found := ""
	for _, c := range all {
		if len(begins) < 8 || len(c.ID) < len(begins) || c.ID[:len(begins)] != begins || !c.Ended.IsZero() {
			continue
		}
		if found != "" {
			return "", usagef("more than one foreign CA begins with %s", begins)
		}
		found = c.ID
	}
	if found == "" {
		return "", fmt.Errorf("no foreign CA that is believed begins with %q (at least 8 digits): see `hallmark foreign-ca list`", begins)
	}
	return found, nil
}

func (a *api) importDevices() *cobra.Command {
	var l foreign.List
	var format string
	c := a.verb(cobra.Command{
		Use: "import FILE --product PRODUCT --format FORMAT", Short: "Take devices of another maker, or of another registry, from a list", Args: cobra.ExactArgs(1),
		Long: `Takes devices of another maker, or of another registry, from a list: the list pins their keys or certificates, or names devices that a foreign CA
vouches for (--foreign-ca). The list is sent as it is read; what was taken before changes nothing, so that an import that broke off is begun again.
Lines that are not taken are told by their number; the others are.

  csv    a header of name, hardware, certificate (base64 of its DER), key_sha256, sha256, sha1 in any order, then a line a device
  aws    what ` + "`aws iot describe-certificate`" + ` tells, with the thingName beside it: one JSON document a line
  azure  what an export of an IoT Hub's device identities holds: one JSON document a line`,
		Example: "  hallmark device import devices.txt --product pump --format azure --dry-run",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		if l.CA != "" {
			if l.CA, err = foreignCAOf(ctx, cl, l.CA); err != nil {
				return err
			}
		}
		l.Format = foreign.Format(format)
		rep, err := cl.ImportDevices(ctx, l, f)
		if err != nil {
			return err
		}
		for _, e := range rep.Errors {
			fmt.Fprintf(a.s.err, "line %d: %s\n", e.Line, oneLine(e.Text))
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "dry run", yes(rep.Dry), "lines", fmt.Sprint(rep.Lines), "imported", fmt.Sprint(rep.Imported), "known already", fmt.Sprint(rep.Known), "refused", fmt.Sprint(rep.Refused))
		})
	})
	f := c.Flags()
	f.StringVar(&l.Product, "product", "", "the product they are of")
	f.StringVar(&format, "format", "", "csv, aws or azure")
	f.StringVar(&l.Hardware, "hardware", "", "hardware revision of those that do not say (default: the product's first)")
	f.StringVar(&l.CA, "foreign-ca", "", "the foreign CA that vouches for devices known by name only, or how its ID begins")
	f.BoolVar(&l.Dry, "dry-run", false, "say what would be done, and do nothing")
	return need(c, "product", "format")
}
