package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/agent/machine"
)

// maxVoucherFile bounds a voucher's file.
const maxVoucherFile = 16 << 10

// voucherFile is what `hallmark device voucher --out` writes.
type voucherFile struct {
	Device  string `json:"device"`
	Product string `json:"product"`
	Server  string `json:"server"`
	Voucher string `json:"voucher"`
	ID      string `json:"id"`      // for people
	Expires string `json:"expires"` // for people
}

func newRecover() *cobra.Command {
	var at place
	var file string
	var r machine.Recovery
	c := &cobra.Command{
		Use:   "recover --dir DIR --voucher-file FILE",
		Short: "Give a device that lost its keys new ones, by a voucher",
		Long: `Gives a device that lost its keys new ones, by a voucher: the technician's act, beside the device. It takes what the device is from a file
that ` + "`hallmark device voucher --out`" + ` wrote, or from the other flags, which win.

A device that has its keys, and lost its trust bundle alone, needs no voucher: it gets the bundle back. Otherwise it does that by itself, when it is started; not if it
demands a boot manager that a bundle names.

The trust bundle comes by its signatures from the root in the fuses; only a server that it vouches for is shown the voucher. Broken off, it is
called again with the same voucher.`,
		Example: "  hallmark-agent recover --dir board1 --voucher-file voucher.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file != "" {
				if err := fromFile(file, &r); err != nil {
					return err
				}
			}
			if r.Device == "" || r.Product == "" || r.Server == "" {
				return &usageError{"recover: want --voucher-file FILE, or --device, --product and --server, and --voucher for a device that lost its keys"}
			}
			return recoverDevice(cmd.Context(), at, r)
		},
	}
	at.flags(c, "the device's directory")
	c.Flags().StringVar(&file, "voucher-file", "", "the voucher's file")
	c.Flags().StringVar(&r.Voucher, "voucher", "", "the voucher: eight groups of four characters")
	c.Flags().StringVar(&r.Device, "device", "", "the device's ID, as it is on its label")
	c.Flags().StringVar(&r.Product, "product", "", "its product")
	c.Flags().StringVar(&r.Server, "server", "", "where devices call: https://host:port")
	c.Flags().BoolVar(&r.NewKeys, "new-keys", false, "destroy keys that are still in the key store, and make others; on the first call only")
	return c
}

// fromFile takes from a file what the flags do not say.
func fromFile(path string, r *machine.Recovery) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxVoucherFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	v, err := parseVoucherFile(data)
	if err != nil {
		return fmt.Errorf("%s is no voucher's file: %w", path, err)
	}
	for _, m := range []struct {
		to   *string
		from string
	}{{&r.Device, v.Device}, {&r.Product, v.Product}, {&r.Server, v.Server}, {&r.Voucher, v.Voucher}} {
		if *m.to == "" {
			*m.to = m.from
		}
	}
	return nil
}

func parseVoucherFile(data []byte) (v voucherFile, err error) {
	if len(data) > maxVoucherFile {
		return v, fmt.Errorf("more than %d bytes", maxVoucherFile)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, err
	}
	if d.More() {
		return v, errors.New("something is behind it")
	}
	return v, nil
}

func recoverDevice(ctx context.Context, at place, r machine.Recovery) (err error) {
	b, err := at.powerOn()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	return machine.Recover(ctx, b.Board, b.uid, r, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}
