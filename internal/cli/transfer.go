package cli

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/wire"
)

// transfer is what the command was told.
type transfer struct {
	r              client.TransferRequest
	key            keyFile
	warrant, out   string
	valid          time.Duration
	refurbish, dry bool
	confirmed      int
}

func (a *api) transferDevices() *cobra.Command {
	var t transfer
	c := a.verb(cobra.Command{
		Use: "transfer DEVICE… --reason TEXT", Short: "Hand devices on: to another owner, or back to the maker",
		Long: `Ends the time of devices with their owner. At once, and whether or not the devices can be reached: the owner's people see and command them no
more, commands that wait are withdrawn, and what the server stores of their sealed data is destroyed for good. The devices are told when they
come: they forget settings and certificate, and begin anew. Then the next owner claims them with the codes that --out has.

A device that defends its owner lets go by a warrant of the owner's key: --key signs one. The maker's people need one of the product's warrant keys,
for the act disown over just these devices: --warrant. See --dry-run first; data that is to be kept is read before.`,
		Args: cobra.MinimumNArgs(1), Example: `  hallmark device transfer 00112233445566778899aabbccddeeff --dry-run
  hallmark device transfer 00112233445566778899aabbccddeeff --key acme/owner.key --reason 'sold to the Rome clinic' --out codes.csv`,
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		previews, err := cl.PreviewTransfer(ctx, args)
		if err != nil {
			return err
		}
		if t.dry {
			return rows(a, "DEVICE PERIOD WARRANT-OF COMMANDS EPOCHS RECORDS ROLLOUT", previews, func(p owner.Preview) []string {
				return []string{p.Device, fmt.Sprint(p.Period), p.Warrant, fmt.Sprint(p.Commands), fmt.Sprint(p.Epochs), fmt.Sprint(p.Records), or(p.Rollout)}
			})
		}
		return a.transfer(ctx, cl, t, previews)
	})
	f := c.Flags()
	f.BoolVar(&t.refurbish, "refurbish", false, "back to the maker: no code is made")
	f.BoolVar(&t.dry, "dry-run", false, "say what it would end, and whose warrant it takes")
	f.StringVar(&t.r.Reason, "reason", "", "why")
	f.StringVar(&t.key.path, "key", "", "the owner's key, such as acme/owner.key")
	t.key.pass.flag(c)
	f.StringVar(&t.warrant, "warrant", "", "a signed warrant of the product's warrant keys")
	f.DurationVar(&t.valid, "valid", 365*24*time.Hour, "with --key: how long a device that is away may still be told")
	f.StringVar(&t.out, "out", "", "CSV file to write the codes for the next owner to")
	f.IntVar(&t.confirmed, "confirm-count", 0, "how many devices you mean, for more than 5")
	return c
}

func (a *api) transfer(ctx context.Context, cl *client.Client, t transfer, previews []owner.Preview) error {
	if t.r.Reason == "" {
		return usagef("say --reason, or --dry-run")
	}
	t.r.Kind = owner.Resale
	if t.refurbish {
		t.r.Kind = owner.Refurbish
	}
	if t.out == "" && !t.refurbish {
		return usagef("say --out: the codes for the next owner are shown once")
	}
	if _, err := os.Stat(t.out); t.out != "" && err == nil {
		return usagef("%s exists: choose another --out", t.out)
	}
	if err := bulk(len(previews), t.confirmed, "transfer"); err != nil {
		return err
	}
	for _, p := range previews {
		t.r.Devices = append(t.r.Devices, p.Device)
	}
	if err := a.leave(ctx, cl, &t, previews); err != nil {
		return err
	}
	begun, err := cl.Transfer(ctx, t.r)
	if err != nil {
		return err
	}
	if !t.refurbish {
		var b bytes.Buffer
		w := csv.NewWriter(&b)
		err := w.Write(labelHead[:2])
		for _, x := range begun {
			err = errors.Join(err, w.Write([]string{x.Transfer.Device, x.Code}))
		}
		if err := errors.Join(err, keepLabels(w, &b, t.out, len(begun))); err != nil {
			return err
		}
	}
	return rows(a, "DEVICE KIND BEGUN CODE-IN", begun, func(x owner.Begun) []string {
		return []string{x.Transfer.Device, string(x.Transfer.Kind), when(x.Transfer.Begun), or(t.out)}
	})
}

// leave puts in the warrants that the transfer takes.
func (a *api) leave(ctx context.Context, cl *client.Client, t *transfer, previews []owner.Preview) error {
	if t.warrant != "" {
		envelope, err := readFile(t.warrant, wire.MaxEnvelope)
		if err != nil {
			return fmt.Errorf("--warrant: %w", err)
		}
		t.r.Warrants = [][]byte{envelope}
		return nil
	}
	var signer crypto.Signer
	for _, p := range previews {
		if p.Warrant != owner.WarrantOwner {
			continue
		}
		if t.key.path == "" {
			return usagef("device %s defends its owner: say --key, with the owner's key", p.Device)
		}
		if signer == nil {
			var err error
			if signer, err = t.key.open(ctx, a.s); err != nil {
				return err
			}
		}
		d, err := cl.Device(ctx, p.Device)
		if err != nil {
			return err
		}
		envelope, err := letGo(signer, d.Device.Product, p, time.Now(), t.valid)
		if err != nil {
			return err
		}
		t.r.Warrants = append(t.r.Warrants, envelope)
	}
	return nil
}

// letGo signs the owner's leave for one device, for this time of ownership.
func letGo(signer crypto.Signer, product string, p owner.Preview, now time.Time, valid time.Duration) ([]byte, error) {
	set, err := wire.SetOf([]string{p.Device})
	if err != nil {
		return nil, err
	}
	payload, err := wire.EncodeWarrant(wire.Warrant{
		ID: "leave-" + strings.ToLower(rand.Text()), Product: product, Act: wire.ActDisown, Devices: set, Owner: p.Digest,
		Issued: uint64(now.Unix()), Expires: uint64(now.Add(valid).Unix()),
	})
	if err != nil {
		return nil, err
	}
	return wire.NewThreshold(wire.TypeWarrant, payload, signer)
}

func (a *api) listTransfers() *cobra.Command {
	return listing(a, cobra.Command{
		Use: "transfers", Short: "List the transfers that wait for their devices", Example: "  hallmark device transfers",
	}, "DEVICE PRODUCT KIND BEGUN TOLD REFUSED LET-GO",
		func(ctx context.Context, cl *client.Client, _ []string) ([]owner.Transfer, error) {
			return cl.Transfers(ctx)
		},
		func(t owner.Transfer) []string {
			return []string{t.Device, t.Product, string(t.Kind), when(t.Begun), fmt.Sprint(t.Tries), or(t.Refused), yes(t.LetGo)}
		})
}

// markDevices are the words by which a device is marked as stolen, and found.
func (a *api) markDevices() []*cobra.Command {
	var out []*cobra.Command
	for _, m := range []struct {
		word, short, why string
		stolen           bool
	}{
		{"stolen", "Mark devices as stolen: they get no certificate, and stay in quarantine", "police report 4711", true},
		{"found", "Lift the mark that devices were stolen", "it was in the other van", false},
	} {
		var reason string
		c := a.overDevices(cobra.Command{
			Use: m.word + " DEVICE… --reason TEXT", Short: m.short, Example: "  hallmark device " + m.word + " 00112233445566778899aabbccddeeff --reason '" + m.why + "'",
		}, func(ctx context.Context, cl *client.Client, ids []string) error {
			done, err := each(a, ids, func(id string) (string, error) {
				_, err := cl.Mark(ctx, id, m.stolen, reason)
				return id, err
			})
			return after(err, len(done), func() error {
				return rows(a, "DEVICE MARK", done, func(id string) []string { return []string{id, m.word} })
			})
		})
		c.Flags().StringVar(&reason, "reason", "", "why")
		out = append(out, need(c, "reason"))
	}
	return out
}
