package cli

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/onboard/owner"
)

// maxLabels bounds a file of claim codes, in bytes: some hundred thousand devices.
const maxLabels = 32 << 20

// labelHead is the first line of a file of claim codes.
var labelHead = []string{"device", "code", "qr"}

func (a *api) claimCodes() *cobra.Command {
	var r client.LabelsRequest
	var out, name string
	c := a.verb(cobra.Command{
		Use: "claim-codes [DEVICE…] --product PRODUCT --out FILE", Short: "Make the codes by which devices are claimed, for their labels",
		Long: `Makes claim codes for the devices of an order that belong to nobody, or for those that are named, and writes them to a CSV file: device, code, and
the text of a QR code. A code claims one device once; the server keeps a hash of it, so that this file is the only place that has it. Codes
that were made before are void. In the QR code the code is behind a #, so that no web server's log gets it.`,
		Args: cobra.ArbitraryArgs, Example: "  hallmark device claim-codes --product pump --order ord-1 --name https://id.example.com --out labels.csv",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if r.Devices = args; (len(args) == 0) == (r.Order == "") {
			return usagef("say --order, or name devices")
		}
		base, err := url.Parse(name)
		if name != "" && (err != nil || base.Scheme != "https" || base.Host == "" || base.Fragment != "" || base.RawQuery != "") {
			return usagef("--name %q: want an address such as https://id.example.com", name)
		}
		if _, err := os.Stat(out); err == nil {
			return usagef("%s exists: choose another --out", out)
		}
		var b bytes.Buffer
		w := csv.NewWriter(&b)
		made, err := 0, w.Write(labelHead)
		for err == nil {
			page, err2 := cl.ClaimCodes(ctx, r)
			if err2 != nil {
				return errors.Join(err2, keepLabels(w, &b, out, made))
			}
			for _, l := range page.Labels {
				made++
				if err = w.Write([]string{l.Device, l.Code, qrText(name, l)}); err != nil {
					return err
				}
			}
			if r.After = page.Next; r.After == "" {
				break
			}
		}
		if err = errors.Join(err, keepLabels(w, &b, out, made)); err != nil {
			return err
		}
		return sheet(a.s.out, "codes", fmt.Sprint(made), "written", or(out))
	})
	f := c.Flags()
	f.StringVar(&r.Product, "product", "", "the devices' product")
	f.StringVar(&r.Order, "order", "", "all devices of this order that belong to nobody")
	f.StringVar(&name, "name", "", "address of the public page, for QR codes")
	f.StringVar(&out, "out", "", "CSV file to write")
	return need(c, "product", "out")
}

// keepLabels writes what there is: a code that was made is nowhere else.
func keepLabels(w *csv.Writer, b *bytes.Buffer, out string, made int) error {
	if w.Flush(); made == 0 {
		return w.Error()
	}
	return errors.Join(w.Error(), durable.WriteFile(out, b.Bytes(), 0o600))
}

func qrText(base string, l owner.Label) string {
	if base == "" {
		return ""
	}
	return strings.TrimSuffix(base, "/") + "/g/" + l.Device + "#claim=" + l.Code
}

// readLabels reads a file of codes: device and code, and perhaps more.
func readLabels(path string) ([]owner.Label, error) {
	data, err := readFile(path, maxLabels)
	if err != nil {
		return nil, err
	}
	r := csv.NewReader(bytes.NewReader(data))
	r.FieldsPerRecord = -1
	var out []owner.Label
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if len(rec) < 2 {
			return nil, fmt.Errorf("%s: a line with %d fields; want device and code", path, len(rec))
		}
		if rec[0] != labelHead[0] {
			out = append(out, owner.Label{Device: strings.TrimSpace(rec[0]), Code: rec[1]})
		}
	}
	return out, nil
}

func (a *api) claimDevices() *cobra.Command {
	var r client.ClaimRequest
	var file, key string
	c := a.verb(cobra.Command{
		Use: "claim DEVICE CODE", Short: "Claim devices with the codes that came with them",
		Long: `Claims a device for the owner whose member you are, with the code that came with it; or, with --file, one device a line of a CSV file. With
--owner-key, the public half of a key that ` + "`hallmark owner key`" + ` made, the device itself is told whom it belongs to, and from then on lets go only by a
warrant of that key or of the product's warrant keys; without one the owner is bound on the server only.`,
		Args: cobra.RangeArgs(0, 2), Example: "  hallmark device claim 00112233445566778899aabbccddeeff QXVMA-G2BTF-S7H85-W9ZT7-4PEXR --owner-key acme/owner.spki",
	}, func(ctx context.Context, cl *client.Client, args []string) (err error) {
		labels := []owner.Label{}
		switch {
		case len(args) == 2 && file == "":
			labels = append(labels, owner.Label{Device: args[0], Code: args[1]})
		case len(args) == 0 && file != "":
			if labels, err = readLabels(file); err != nil {
				return err
			}
		default:
			return usagef("want DEVICE CODE, or --file")
		}
		if key != "" {
			if r.Key, err = readFile(key, 1024); err != nil {
				return fmt.Errorf("--owner-key: %w", err)
			}
		}
		codes := map[string]string{}
		ids := make([]string, 0, len(labels))
		for _, l := range labels {
			ids, codes[l.Device] = append(ids, l.Device), l.Code
		}
		done, err := each(a, ids, func(id string) (owner.Period, error) {
			one := r
			one.Code = codes[id]
			return cl.Claim(ctx, id, one)
		})
		return after(err, len(done), func() error { return rows(a, periodHead, done, periodRow) })
	})
	f := c.Flags()
	f.StringVar(&r.Owner, "owner", "", "for whom, when you are of the maker's people: owner ID")
	f.StringVar(&key, "owner-key", "", "the owner's public key, such as acme/owner.spki")
	f.StringVar(&file, "file", "", "CSV file: device and code a line")
	return c
}

const periodHead = "DEVICE PERIOD OWNER FROM UNTIL BEGAN-BY ENDED-BY DEVICE-HOLDS"

func periodRow(p owner.Period) []string {
	holds := "no: server only"
	switch {
	case p.Holds:
		holds = "yes"
	case p.Refused != "":
		holds = "not yet: " + p.Refused
	case len(p.Key) > 0:
		holds = "not yet"
	}
	who := p.Owner
	if who == "" {
		who = fmt.Sprintf("%.8x…", p.Digest)
	}
	return []string{p.Device, fmt.Sprint(p.Number), who, when(p.From), when(p.Until), p.How, or(string(p.End)), holds}
}

func (a *api) deviceOwnership() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "ownership DEVICE", Short: "Show whom a device belonged to, and what is said of it", Args: cobra.ExactArgs(1),
		Example: "  hallmark device ownership 00112233445566778899aabbccddeeff",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		o, err := cl.Ownership(ctx, args[0])
		if err != nil {
			return err
		}
		return a.ownership(o)
	})
}

func (a *api) ownership(o client.Ownership) error {
	return a.show(func(w io.Writer) error {
		all := make([][]string, 0, len(o.Periods))
		for _, p := range o.Periods {
			all = append(all, periodRow(p))
		}
		if err := table(w, periodHead, all); err != nil {
			return err
		}
		if t := o.Transfer; t != nil && t.Done.IsZero() {
			if err := sheet(w, "transfer", string(t.Kind), "begun", when(t.Begun), "told", fmt.Sprint(t.Tries), "refused", or(t.Refused), "let go", yes(t.LetGo)); err != nil {
				return err
			}
		}
		for _, m := range o.Marks {
			what := "stolen"
			if m.Recall != "" {
				what = "recall " + m.Recall
			}
			if err := sheet(w, what, when(m.At), "reason", or(m.Reason)); err != nil {
				return err
			}
		}
		return nil
	})
}
