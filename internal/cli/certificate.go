package cli

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/pki"
)

func newCertificate(a *api) *cobra.Command {
	return a.noun("certificate", "Identities of devices: who signed them, and what was revoked",
		a.listCertificates(), a.showCertificate(), a.revokeCertificate(), a.listIssuers(), a.revokeIssuer(), a.listRevocations())
}

func (a *api) listCertificates() *cobra.Command {
	return listing(a, cobra.Command{
		Use: "list DEVICE", Short: "List the certificates that were issued to a device", Args: cobra.ExactArgs(1),
		Example: "  hallmark certificate list 00112233445566778899aabbccddeeff",
	}, "CERTIFICATE ROLE FROM UNTIL ENDED",
		func(ctx context.Context, cl *client.Client, args []string) ([]client.Certificate, error) {
			return cl.Certificates(ctx, args[0])
		},
		func(c client.Certificate) []string {
			return []string{c.Issuer + "/" + c.Serial, fmt.Sprint(c.Role), when(c.NotBefore), when(c.NotAfter), when(c.Ended)}
		})
}

// certificateName reads ISSUER/SERIAL.
func certificateName(s string) (issuer, serial string, err error) {
	issuer, serial, ok := strings.Cut(s, "/")
	hex := func(s string) bool { return s != "" && strings.Trim(s, "0123456789abcdef") == "" }
	if !ok || !hex(issuer) || !hex(serial) {
		return "", "", usagef("certificate %q: want ISSUER/SERIAL in hex, as `hallmark certificate list` gives it", s)
	}
	return issuer, serial, nil
}

func (a *api) showCertificate() *cobra.Command {
	var out string
	c := a.verb(cobra.Command{
		Use: "show DEVICE CERTIFICATE", Short: "Show a certificate of a device, or write it to a file",
		Long: "Shows a certificate of a device, or writes it to a file. CERTIFICATE is ISSUER/SERIAL, as `hallmark certificate list` gives it.", Args: cobra.ExactArgs(2),
		Example: "  hallmark certificate show 00112233445566778899aabbccddeeff 3f2a/07 --out device.der",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		issuer, serial, err := certificateName(args[1])
		if err != nil {
			return err
		}
		all, err := cl.Certificates(ctx, args[0])
		if err != nil {
			return err
		}
		c, found, err := pick(a, all, func(c client.Certificate) bool { return c.Issuer == issuer && c.Serial == serial })
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("device %q has no certificate %s: see `hallmark certificate list`", args[0], args[1])
		}
		cert, err := x509.ParseCertificate(c.DER)
		if err != nil {
			return fmt.Errorf("what the server gave is no certificate: %w", err)
		}
		if out != "" {
			if err := durable.WriteFile(out, c.DER, 0o644); err != nil {
				return err
			}
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "certificate", c.Issuer+"/"+c.Serial, "device", c.Device, "role", fmt.Sprint(c.Role), "subject", cert.Subject.String(),
				"signed by", cert.Issuer.String(), "key", cert.PublicKeyAlgorithm.String(), "from", when(c.NotBefore), "until", when(c.NotAfter), "ended", when(c.Ended), "written", out)
		})
	})
	c.Flags().StringVar(&out, "out", "", "file to write it to, DER")
	return c
}

func (a *api) revokeCertificate() *cobra.Command {
	var why cause
	var many bulkFile
	c := a.verb(cobra.Command{
		Use: "revoke [CERTIFICATE] --cause WORD", Short: "Revoke one certificate, or all that a file names",
		Long: `Revokes one certificate; the device may enrol for another one. CERTIFICATE is ISSUER/SERIAL, as ` + "`hallmark certificate list`" + ` gives it.
To take a device every identity see ` + "`hallmark device revoke`" + `.

With --file it revokes what a file names, one a line: certificates as above, and IDs of devices, which lose every identity for good. Empty lines and
lines that begin with # are passed over. --dry-run says what would be revoked and revokes nothing. More than a hundred devices take two people: add
--propose and the reason. What was revoked already is passed over, so that a call that was cut off is repeated.`,
		Args: cobra.MaximumNArgs(1), Example: "  hallmark certificate revoke 3f2a/07 --cause superseded\n" +
			"  hallmark certificate revoke --file stolen.txt --cause key-compromise --dry-run\n" +
			"  hallmark certificate revoke --file stolen.txt --cause key-compromise --confirm-count 10000 --propose 'the van with lot 7 was stolen'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if (len(args) == 1) == (many.path != "") {
			return usagef("name one certificate, or a file with --file")
		}
		if many.path != "" {
			return a.revokeFile(ctx, cl, many, why)
		}
		issuer, serial, err := certificateName(args[0])
		if err != nil {
			return err
		}
		if err := cl.RevokeCertificate(ctx, issuer, serial, why.code()); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "revoked", args[0], "cause", why.String()) })
	})
	why.flag(c)
	many.flags(c)
	return need(c, "cause")
}

// bulkFile is a list of what is to be revoked, and how.
type bulkFile struct {
	path      string
	dry       bool
	confirmed int
}

func (b *bulkFile) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&b.path, "file", "", "file of devices and certificates, one a line")
	f.BoolVar(&b.dry, "dry-run", false, "with --file: say what would be revoked, and revoke nothing")
	f.IntVar(&b.confirmed, "confirm-count", 0, "with --file: how many you mean, for more than 5")
}

// maxBulkFile bounds a list: what one call may name, with room for remarks.
const maxBulkFile = 4 << 20

// read gives what the file names.
func (b bulkFile) read() (r client.BulkRevocation, err error) {
	data, err := readFile(b.path, maxBulkFile)
	if err != nil {
		return r, err
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.Contains(line, "/"):
			if _, _, err := certificateName(line); err != nil {
				return r, fmt.Errorf("%s, line %d: %w", b.path, n, err)
			}
			r.Certificates = append(r.Certificates, line)
		default:
			if len(line) > 64 || strings.ContainsAny(line, " \t,;") {
				return r, usagef("%s, line %d: %q is neither the ID of a device nor ISSUER/SERIAL", b.path, n, line)
			}
			r.Devices = append(r.Devices, line)
		}
	}
	if len(r.Devices)+len(r.Certificates) == 0 {
		return r, usagef("%s names nothing", b.path)
	}
	return r, nil
}

func (a *api) revokeFile(ctx context.Context, cl *client.Client, b bulkFile, why cause) error {
	r, err := b.read()
	if err != nil {
		return err
	}
	r.Code, r.Dry = why.code(), b.dry
	if !b.dry {
		if err := bulk(len(r.Devices)+len(r.Certificates), b.confirmed, "revoke"); err != nil {
			return err
		}
	}
	done, err := cl.RevokeMany(ctx, r)
	if err != nil {
		return err
	}
	return a.show(func(w io.Writer) error {
		what := "revoked"
		if b.dry {
			what = "would be revoked"
		}
		return sheet(w, what, fmt.Sprintf("%d devices, %d certificates", done.Devices, done.Certificates), "already revoked", fmt.Sprint(done.Already),
			"unknown", or(strings.Join(done.Unknown, " ")), "cause", why.String())
	})
}

func (a *api) listIssuers() *cobra.Command {
	return listing(a, cobra.Command{Use: "issuers", Short: "List the certification authorities", Example: "  hallmark certificate issuers"},
		"ID ROLE SUBJECT UNTIL",
		func(ctx context.Context, cl *client.Client, _ []string) ([]client.Issuer, error) {
			return cl.Issuers(ctx)
		},
		func(i client.Issuer) []string {
			cert, err := x509.ParseCertificate(i.DER)
			if err != nil {
				return []string{i.ID, fmt.Sprint(i.Role), "unreadable", "-"}
			}
			return []string{i.ID, fmt.Sprint(i.Role), cert.Subject.String(), when(cert.NotAfter)}
		})
}

func (a *api) revokeIssuer() *cobra.Command {
	var why cause
	c := a.verb(cobra.Command{
		Use: "revoke-issuer ISSUER --cause WORD", Short: "Revoke everything that an order's CA has signed",
		Long: "Revokes everything that an order's CA has signed, for a station's key that was stolen. It is not to be undone.",
		Args: cobra.ExactArgs(1), Example: "  hallmark certificate revoke-issuer 3f2a --cause ca-compromise",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if err := cl.RevokeIssuer(ctx, args[0], why.code()); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "revoked issuer", args[0], "cause", why.String()) })
	})
	why.flag(c)
	return need(c, "cause")
}

func (a *api) listRevocations() *cobra.Command {
	return listing(a, cobra.Command{Use: "revocations", Short: "List what was revoked, oldest first", Example: "  hallmark certificate revocations --all"},
		"ID SCOPE CAUSE FROM BY",
		func(ctx context.Context, cl *client.Client, _ []string) ([]pki.Revocation, error) {
			return cl.Revocations(ctx)
		},
		func(r pki.Revocation) []string {
			return []string{r.ID, string(r.Scope), causeOf(r.Reason), when(r.At), r.By}
		})
}
