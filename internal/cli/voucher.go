package cli

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/label"
	"github.com/hallmark-iot/hallmark/onboard/rekey"
)

func newVoucher(a *api) *cobra.Command {
	return a.noun("voucher", "Vouchers for devices that lost their keys: see hallmark device voucher", a.listVouchers(), a.showVoucher(), a.revokeVoucher())
}

// voucherFile is what `hallmark-agent recover --voucher-file` reads.
type voucherFile struct {
	Device  string    `json:"device"`
	Product string    `json:"product"`
	Server  string    `json:"server"`
	Voucher string    `json:"voucher"`
	ID      string    `json:"id"`
	Expires time.Time `json:"expires"`
}

func (a *api) vouchForDevice() *cobra.Command {
	var r client.VoucherRequest
	var life time.Duration
	var server, out, code string
	c := a.verb(cobra.Command{
		Use: "voucher DEVICE --reason TEXT", Short: "Vouch for a device that lost its keys, so that it gets new ones", Args: cobra.ExactArgs(1),
		Long: `Vouches for a device that lost its keys: flash and key store are gone, the chip lives. It always takes two people; the reason is what the second
one reads. The voucher is shown this once. A technician brings it to the device, where ` + "`hallmark-agent recover`" + ` uses it, once; from then on
the former keys of the device count for nothing. A voucher of the device that is still open ends. With --qr what is in the file is drawn as a
QR code, too: whoever sees it has the voucher.`,
		Example: "  hallmark device voucher 00112233445566778899aabbccddeeff --reason 'flash replaced at depot 4' --devices https://devices.example:8443 --out voucher.json",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if _, err := os.Stat(out); out != "" && err == nil {
			return usagef("%s exists: choose another --out", out)
		}
		draw, err := voucherCode(code, out)
		if err != nil {
			return err
		}
		if a.propose == "" {
			cl = cl.Proposing(r.Reason, a.waiting)
		}
		r.Seconds = int64(life / time.Second)
		v, err := cl.Vouch(ctx, args[0], r)
		if err != nil {
			return err
		}
		if out == "" {
			return a.show(func(w io.Writer) error {
				return sheet(w, "voucher", v.ID, "device", v.Device, "product", v.Product, "until", when(v.Expires), "agreed to by", v.Second, "secret", v.Secret)
			})
		}
		file := voucherFile{Device: v.Device, Product: v.Product, Server: server, Voucher: v.Secret, ID: v.ID, Expires: v.Expires}
		data, err := json.MarshalIndent(file, "", "  ")
		if err != nil {
			return err
		}
		if err := durable.WriteFile(out, append(data, '\n'), 0o600); err != nil {
			return fmt.Errorf("%w; the voucher is %s", err, v.Secret)
		}
		if draw != nil {
			picture, err := draw(file)
			if err == nil {
				err = durable.WriteFile(code, picture, 0o600)
			}
			if err != nil {
				return fmt.Errorf("%w; the voucher is in %s", err, out)
			}
		}
		return sheet(a.s.out, "voucher", v.ID, "device", v.Device, "until", when(v.Expires), "agreed to by", v.Second, "written", out, "code", code)
	})
	f := c.Flags()
	f.StringVar(&r.Reason, "reason", "", "what happened to the device; the second person reads it")
	f.DurationVar(&life, "for", 24*time.Hour, "how long it is good, a minute to a week")
	f.StringVar(&server, "devices", "", "where devices call, for the file: https://host:port")
	f.StringVar(&out, "out", "", "private file for the technician (default: print it)")
	f.StringVar(&code, "qr", "", "draw what is in --out as a QR code, too: a private file that ends in .svg or .png")
	return need(c, "reason")
}

// voucherCode gives what draws a voucher's file as a QR code; nil where none is wanted. It is asked before there is a voucher, which is shown only once.
func voucherCode(path, out string) (func(voucherFile) ([]byte, error), error) {
	if path == "" {
		return nil, nil
	}
	draw, ok := map[string]func(string) ([]byte, error){".svg": label.SVG, ".png": label.PNG}[filepath.Ext(path)]
	if !ok || out == "" {
		return nil, usagef("--qr %q: want a file that ends in .svg or .png, and --out as well", path)
	}
	if _, err := os.Stat(path); err == nil {
		return nil, usagef("%s exists: choose another --qr", path)
	}
	return func(f voucherFile) ([]byte, error) {
		data, err := json.Marshal(f)
		if err != nil {
			return nil, err
		}
		return draw(string(data))
	}, nil
}

func (a *api) listVouchers() *cobra.Command {
	var product, group, device string
	var open bool
	c := listing(a, cobra.Command{Use: "list", Short: "List vouchers, newest first", Example: "  hallmark voucher list --product pump --open"},
		"VOUCHER DEVICE PRODUCT STATE ISSUED EXPIRES BY SECOND WRONG",
		func(ctx context.Context, cl *client.Client, _ []string) ([]rekey.Voucher, error) {
			return cl.Vouchers(ctx, product, group, device, open)
		},
		func(v rekey.Voucher) []string {
			return []string{v.ID, v.Device, v.Product, string(v.State), when(v.Issued), when(v.Expires), v.By, v.Second, fmt.Sprint(v.Attempts)}
		})
	f := c.Flags()
	f.StringVar(&product, "product", "", "only this product's")
	f.StringVar(&group, "group", "", "only of devices in this group of the product, or one below")
	f.StringVar(&device, "device", "", "only this device's")
	f.BoolVar(&open, "open", false, "only those that can still be used")
	return c
}

func (a *api) voucherSheet(v rekey.Voucher) error {
	return a.show(func(w io.Writer) error {
		return sheet(w, "voucher", v.ID, "device", v.Device, "product", v.Product, "group", v.Group, "state", string(v.State), "issued", when(v.Issued), "expires", when(v.Expires),
			"ended", when(v.Ended), "by", v.By, "agreed to by", v.Second, "wrong tries", fmt.Sprint(v.Attempts), "new identity key", v.Identity)
	})
}

func (a *api) showVoucher() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "show VOUCHER", Short: "Show a voucher, without its secret", Args: cobra.ExactArgs(1), Example: "  hallmark voucher show v019a3b4c5abcdef",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		v, err := cl.Voucher(ctx, args[0])
		if err != nil {
			return err
		}
		return a.voucherSheet(v)
	})
}

func (a *api) revokeVoucher() *cobra.Command {
	var reason string
	c := a.verb(cobra.Command{
		Use: "revoke VOUCHER --reason TEXT", Short: "End a voucher before it is used", Args: cobra.ExactArgs(1),
		Example: "  hallmark voucher revoke v019a3b4c5abcdef --reason 'the device works again'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		v, err := cl.RevokeVoucher(ctx, args[0], reason)
		if err != nil {
			return err
		}
		return a.voucherSheet(v)
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	return need(c, "reason")
}

func (a *api) deviceKeys() *cobra.Command {
	return listing(a, cobra.Command{
		Use: "keys DEVICE", Short: "List the keys a device had before it got others in the field", Args: cobra.ExactArgs(1),
		Long:    "Lists the keys a device had before it got others by a voucher, newest first. A device that has its keys from the factory has none.",
		Example: "  hallmark device keys 00112233445566778899aabbccddeeff",
	}, "IDENTITY ATTESTATION UNTIL VOUCHER",
		func(ctx context.Context, cl *client.Client, args []string) ([]rekey.Former, error) {
			return cl.FormerKeys(ctx, args[0])
		},
		func(f rekey.Former) []string {
			return []string{f.Identity, f.Attest, when(f.Until), f.Voucher}
		})
}

func (a *api) deviceIdentity() *cobra.Command {
	var out string
	c := a.verb(cobra.Command{
		Use: "identity DEVICE", Short: "Get the certificate that a device got in the factory, with those above it", Args: cobra.ExactArgs(1),
		Long: `Writes the certificate that a device got in the factory, those of the CAs of its order and product, and the OEM's root, as PEM and in this order, for openssl and other tools.
It is what its production record says, also when the device got another by a voucher since.`,
		Example: "  hallmark device identity 00112233445566778899aabbccddeeff --out device.pem",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		v, err := cl.Identity(ctx, args[0])
		if err != nil {
			return err
		}
		var text []byte
		for _, der := range v.Chain {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		if out == "" {
			_, err := a.s.out.Write(text)
			return err
		}
		return durable.WriteFile(out, text, 0o644)
	})
	c.Flags().StringVar(&out, "out", "", "file to write (default: standard output)")
	return c
}
