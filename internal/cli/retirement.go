package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/wire"
)

func newRetirement(a *api) *cobra.Command {
	return a.noun("retirement", "The end of devices: wipe, revocation, proof of disposal",
		a.listRetirements(), a.retire(), a.showRetirement(), a.writeOff(), a.dispose(), a.proof(), a.verifyProof())
}

func (a *api) retire() *cobra.Command {
	var o retire.Order
	var warrant string
	var confirmed int
	c := a.verb(cobra.Command{
		Use: "create DEVICE… --product PRODUCT --warrant FILE --reason TEXT", Short: "Retire devices by an offline warrant for their wipe",
		Long: `Retires devices: they wipe themselves, and say so with their signature. The warrant comes of ` + "`hallmark warrant payload --act wipe`" + `
over just these devices, signed with ` + "`hallmark approve`" + ` by enough approvers.`,
		Args: cobra.MinimumNArgs(1), Example: "  hallmark retirement create 00112233445566778899aabbccddeeff --product pump --warrant wipe-7.cose --reason 'end of life'",
	}, func(ctx context.Context, cl *client.Client, args []string) (err error) {
		if o.Warrant, err = readFile(warrant, wire.MaxEnvelope); err != nil {
			return fmt.Errorf("--warrant: %w", err)
		}
		o.Devices = args
		if err := bulk(len(args), confirmed, "the end"); err != nil {
			return err
		}
		rs, err := cl.Retire(ctx, o)
		if err != nil {
			return err
		}
		return rows(a, "DEVICE PHASE WARRANT COMMAND ORDERED", rs, func(r retire.Retirement) []string {
			return []string{r.Device, string(r.Phase), r.Warrant, or(r.Command), when(r.Ordered)}
		})
	})
	f := c.Flags()
	f.StringVar(&o.Product, "product", "", "the devices' product")
	f.StringVar(&warrant, "warrant", "", "the signed warrant")
	f.StringVar(&o.Reason, "reason", "", "why")
	f.IntVar(&confirmed, "confirm-count", 0, "how many devices you mean, for more than 5")
	return need(c, "product", "warrant", "reason")
}

func (a *api) listRetirements() *cobra.Command {
	var productID string
	c := listing(a, cobra.Command{Use: "list", Short: "List retirements, by device", Example: "  hallmark retirement list --product pump"},
		"DEVICE PRODUCT PHASE WARRANT ORDERED ENDED DISPOSED REASON",
		func(ctx context.Context, cl *client.Client, _ []string) ([]retire.Retirement, error) {
			return cl.Retirements(ctx, productID)
		},
		func(r retire.Retirement) []string {
			return []string{r.Device, r.Product, string(r.Phase), r.Warrant, when(r.Ordered), when(r.Ended), when(r.Disposed), r.Reason}
		})
	c.Flags().StringVar(&productID, "product", "", "only this product's")
	return c
}

func (a *api) writeOff() *cobra.Command {
	var reason string
	c := a.overDevices(cobra.Command{
		Use: "write-off DEVICE… --reason TEXT", Short: "Give up waiting for devices to say that they wiped themselves",
		Long:    "Gives up waiting for devices that are lost, destroyed or without power for good. The proof of disposal says that nobody saw them wiped.",
		Example: "  hallmark retirement write-off 00112233445566778899aabbccddeeff --reason 'burnt on 3 May'",
	}, func(ctx context.Context, cl *client.Client, ids []string) error {
		rs, err := each(a, ids, func(id string) (retire.Retirement, error) { return cl.WriteOff(ctx, id, reason) })
		return after(err, len(rs), func() error {
			return rows(a, "DEVICE PHASE ENDED", rs, func(r retire.Retirement) []string { return []string{r.Device, string(r.Phase), when(r.Ended)} })
		})
	})
	c.Flags().StringVar(&reason, "reason", "", "why")
	return need(a.matching(c), "reason")
}

func (a *api) retirement(r retire.Retirement) error {
	return a.show(func(w io.Writer) error {
		return sheet(w, "device", r.Device, "product", r.Product, "phase", string(r.Phase), "warrant", r.Warrant, "reason", r.Reason, "by", r.By,
			"ordered", when(r.Ordered), "wiped or given up", when(r.Ended), "certificates revoked", yes(r.Revoked), "data keys destroyed", yes(r.KeysGone),
			"disposed", when(r.Disposed))
	})
}

func (a *api) showRetirement() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "show DEVICE", Short: "Show a device's retirement", Args: cobra.ExactArgs(1), Example: "  hallmark retirement show 00112233445566778899aabbccddeeff",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r, err := cl.Retirement(ctx, args[0])
		if err != nil {
			return err
		}
		return a.retirement(r)
	})
}

func (a *api) dispose() *cobra.Command {
	var how string
	c := a.verb(cobra.Command{
		Use: "dispose DEVICE --how TEXT", Short: "Record what was done with a wiped device", Args: cobra.ExactArgs(1),
		Example: "  hallmark retirement dispose 00112233445566778899aabbccddeeff --how 'shredded by Recycler Ltd'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r, err := cl.Dispose(ctx, args[0], how)
		if err != nil {
			return err
		}
		return a.retirement(r)
	})
	c.Flags().StringVar(&how, "how", "", "what was done with it")
	return need(a.matching(c), "how")
}

func (a *api) proof() *cobra.Command {
	var out string
	c := a.verb(cobra.Command{
		Use: "proof DEVICE --out FILE", Short: "Write the proof of disposal", Long: "Writes the proof of disposal, which `hallmark retirement verify` checks without the server.",
		Args: cobra.ExactArgs(1), Example: "  hallmark retirement proof 00112233445566778899aabbccddeeff --out proof.json",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		p, err := retried(ctx, func() (retire.Proof, error) { return cl.Proof(ctx, args[0]) }, "retire.not-witnessed")
		if err != nil {
			return err
		}
		if err := durable.WriteFile(out, a.last, 0o644); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "device", p.Device, "wiped by its own receipt", yes(p.Wiped), "written", out)
		})
	})
	c.Flags().StringVar(&out, "out", "", "file to write")
	return need(c, "out")
}

// verifyProof asks no server: that is the point.
func (a *api) verifyProof() *cobra.Command {
	var bundle string
	c := &cobra.Command{
		Use: "verify PROOF --bundle FILE", Short: "Check a proof of disposal against the product's trust bundle, and nothing else",
		Long: `Checks a proof of disposal against the product's trust bundle, and nothing else. Have the bundle from a source you trust, such as
` + "`hallmark bundle show PRODUCT --out FILE`" + ` at the time; compare the station with the fingerprint of one you know.`,
		Args: cobra.ExactArgs(1), Example: "  hallmark retirement verify proof.json --bundle pump.bundle",
		RunE: func(_ *cobra.Command, args []string) error {
			data, err := readFile(args[0], retire.MaxProof)
			if err != nil {
				return err
			}
			p, err := retire.DecodeProof(data)
			if err != nil {
				return fmt.Errorf("%s is no proof of disposal: %w", args[0], err)
			}
			envelope, err := readFile(bundle, wire.MaxEnvelope)
			if err != nil {
				return fmt.Errorf("--bundle: %w", err)
			}
			_, payload, err := bundlePayload(envelope)
			if err != nil {
				return fmt.Errorf("%s is no trust bundle: %w", bundle, err)
			}
			b, err := wire.DecodeBundle(payload)
			if err != nil {
				return fmt.Errorf("%s is no trust bundle: %w", bundle, err)
			}
			v, err := retire.VerifyProof(b, p)
			if err != nil {
				return fmt.Errorf("the proof does NOT hold: %w", err)
			}
			if a.last, err = json.Marshal(v); err != nil {
				return err
			}
			return a.verified(v)
		},
	}
	c.Flags().StringVar(&bundle, "bundle", "", "the product's trust bundle that was in force")
	return need(c, "bundle")
}

// bundlePayload gives what a signed bundle holds. Whoever gives the file vouches for it: its own signatures would prove nothing.
func bundlePayload(envelope []byte) ([]wire.KeyID, []byte, error) {
	payload, signers, err := wire.ThresholdPayload(wire.TypeBundle, envelope)
	if err == nil && len(payload) == 0 {
		err = errors.New("it is empty")
	}
	return signers, payload, err
}

func (a *api) verified(v retire.Verified) error {
	return a.show(func(w io.Writer) error {
		how := "wiped, by its own signed receipt"
		if !v.Wiped {
			how = "written off: nobody saw it wiped"
		}
		return sheet(w, "device", v.Device, "product", v.Product, "proven", how, "erased", strings.Join(v.Erased, ", "), "not proven erased", or(strings.Join(v.Remains, ", ")), "keys destroyed", strings.Join(v.Keys, ", "),
			"order", v.Order, "station", v.Station, "warrant", v.Warrant, "certificates revoked", fmt.Sprint(v.Revoked), "disposed", when(v.Disposed), "how", v.How)
	})
}
