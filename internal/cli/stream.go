package cli

import (
	"cmp"
	"context"
	"crypto"
	"crypto/hpke"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/custody"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

func newStream(a *api) *cobra.Command {
	return a.noun("stream", "Sealed data of devices, and who may read it", a.grantStream(), a.listGrants(), a.revokeGrant(), a.readStream())
}

func (a *api) grantStream() *cobra.Command {
	var g telemetry.Grant
	var until string
	c := a.verb(cobra.Command{
		Use: "grant ID --reader CALLER --product PRODUCT --stream NAME --purpose TEXT --until DAY", Short: "Let a reader read a stream for a purpose",
		Args: cobra.ExactArgs(1), Example: "  hallmark stream grant service-1 --reader person:rene --product pump --stream readings --purpose service --until 2027-12-31",
	}, func(ctx context.Context, cl *client.Client, args []string) (err error) {
		g.ID = args[0]
		if g.Until, err = day("--until", until); err != nil {
			return err
		}
		if err := cl.GrantStream(ctx, g); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "grant", g.ID, "reader", g.Reader, "stream", g.Product+"/"+g.Stream, "purpose", g.Purpose, "until", when(g.Until))
		})
	})
	f := c.Flags()
	f.StringVar(&g.Reader, "reader", "", "who, such as person:rene")
	f.StringVar(&g.Product, "product", "", "of which product's devices")
	f.StringVar(&g.Stream, "stream", "", "which stream")
	f.StringVar(&g.Purpose, "purpose", "", "what for")
	f.StringVar(&until, "until", "", "until which day, YYYY-MM-DD")
	return need(c, "reader", "product", "stream", "purpose", "until")
}

func (a *api) listGrants() *cobra.Command {
	var q telemetry.GrantQuery
	c := listing(a, cobra.Command{Use: "grants", Short: "List who may read which streams, by ID", Example: "  hallmark stream grants --reader person:rene"},
		"ID READER STREAM PURPOSE UNTIL",
		func(ctx context.Context, cl *client.Client, _ []string) ([]telemetry.Grant, error) {
			return cl.Grants(ctx, q)
		},
		func(g telemetry.Grant) []string {
			return []string{g.ID, g.Reader, g.Product + "/" + g.Stream, g.Purpose, when(g.Until)}
		})
	c.Flags().StringVar(&q.Product, "product", "", "only of this product")
	c.Flags().StringVar(&q.Reader, "reader", "", "only this reader's")
	return c
}

func (a *api) revokeGrant() *cobra.Command {
	var r client.RevokeGrantRequest
	c := a.verb(cobra.Command{
		Use: "revoke GRANT --product PRODUCT --reason TEXT", Short: "Take a reader's right to a stream back",
		Long: "Takes a reader's right to a stream back. What was read with it has been read.",
		Args: cobra.ExactArgs(1), Example: "  hallmark stream revoke service-1 --product pump --reason 'the contract has ended'",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		if err := cl.RevokeGrant(ctx, args[0], r); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error { return sheet(w, "revoked", args[0], "reason", r.Reason) })
	})
	c.Flags().StringVar(&r.Product, "product", "", "the grant's product")
	c.Flags().StringVar(&r.Reason, "reason", "", "why")
	return need(c, "product", "reason")
}

func (a *api) readStream() *cobra.Command {
	var purpose string
	var from uint64
	c := a.verb(cobra.Command{
		Use: "read DEVICE STREAM --purpose TEXT", Short: "Read a device's sealed stream",
		Long: `Reads a device's sealed stream: the server gives ciphertext, and keys sealed to a key made for this one reading; both are opened
here, and the device's own signatures checked. That you read is in the ledger before the keys are given, and so is a refusal. A long stream is
read in parts, each a decision of its own.

Beside the readings it is told of each epoch whether the device has closed it, and how many are missing because the device had no room for them. An
epoch that does not hold, such as one of which a record is gone, is named and left out; the others are read, and the exit code is 3.

With --json, the API's answer: ciphertext.`,
		Args: cobra.ExactArgs(2), Example: "  hallmark stream read 00112233445566778899aabbccddeeff readings --purpose service",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		key, err := hpke.MLKEM768P256().GenerateKey()
		if err != nil {
			return err
		}
		origin, err := attestKeys(ctx, cl, args[0])
		if err != nil {
			return err
		}
		n, bad := 0, 0
		for req := (telemetry.ReadRequest{
			Device: args[0], Stream: args[1], Purpose: purpose, KEM: key.KEM().ID(), Key: key.PublicKey().Bytes(), From: from,
		}); ; {
			r, err := cl.ReadStream(ctx, req)
			if err != nil {
				return err
			}
			samples, epochs, wrong := openPart(r, key, args[0], origin)
			for _, line := range epochs {
				if _, err := fmt.Fprintln(a.s.err, oneLine(line)); err != nil {
					return err
				}
			}
			if err := a.show(func(w io.Writer) error { return samplesTo(w, samples) }); err != nil {
				return err
			}
			n, bad = n+len(r.Epochs)+len(r.Gone), bad+wrong
			if req.From = r.Next; r.Next == 0 {
				break
			}
		}
		switch {
		case bad > 0:
			return partError{fmt.Errorf("%d epochs do not hold: records of them are gone or were changed behind the device; look for them in a backup of the database", bad)}
		case n > 0:
			return nil
		}
		_, err = fmt.Fprintf(a.s.err, "device %s has sent nothing of stream %q yet\n", args[0], args[1])
		return err
	})
	c.Flags().StringVar(&purpose, "purpose", "", "what for, as the grant says")
	c.Flags().Uint64Var(&from, "from", 0, "number of the first epoch; the oldest that is there without it")
	return need(c, "purpose")
}

// openPart opens what a reader was given, and says of each epoch what it is; bad are those that do not hold.
func openPart(r telemetry.ReadReply, reader hpke.PrivateKey, device string, keys []crypto.PublicKey) (samples [][]byte, said []string, bad int) {
	for _, e := range r.Epochs {
		got, err := e.Open(r.Decision, reader, device, keys...)
		if err != nil {
			bad++
			said = append(said, fmt.Sprintf("epoch %d is left out, what the server gave does not hold: %v", e.Epoch.Epoch, err))
			continue
		}
		samples = append(samples, got.Samples...)
		line := fmt.Sprintf("epoch %d, begun %s: %d readings, open", e.Epoch.Epoch, when(time.Unix(int64(min(e.Epoch.Opened, 1<<33)), 0)), len(got.Samples))
		if got.Closed {
			line = strings.TrimSuffix(line, "open") + "closed"
		}
		if got.Missed > 0 {
			line += fmt.Sprintf(", %d missing that the device had no room for", got.Missed)
		}
		said = append(said, line)
	}
	if len(r.Gone) > 0 {
		said = append(said, fmt.Sprintf("epochs %v: their retention has ended, nobody can read them any more", r.Gone))
	}
	return samples, said, bad
}

func samplesTo(w io.Writer, samples [][]byte) error {
	for _, s := range samples {
		if _, err := fmt.Fprintln(w, oneLine(string(s))); err != nil {
			return err
		}
	}
	return nil
}

// attestKeys are the keys a device signs with: that of its production record in the ledger, those that it changed to since, each vouched for by the one before, and
// those that it got by vouchers, each proved by the chip of the record.
func attestKeys(ctx context.Context, cl *client.Client, id string) ([]crypto.PublicKey, error) {
	r, err := recordOf(ctx, cl, id)
	if err != nil {
		return nil, err
	}
	first, err := wire.ParseKey(r.Keys.Attest)
	if err != nil {
		return nil, err
	}
	keys := []crypto.PublicKey{first}
	var changes []fleet.Line
	for _, kind := range []ledger.Kind{ledger.KindDeviceAttestKey, ledger.KindDeviceRekeyed} {
		p, err := cl.Facts(ctx, fleet.FactQuery{Log: string(ledger.Events), Kind: string(kind), Subject: id, Limit: maxAttestKeys})
		if err != nil {
			return nil, err
		}
		for _, f := range p.Items {
			if f.Index != nil { // else it is too new to be proven
				changes = append(changes, f)
			}
		}
	}
	slices.SortFunc(changes, func(a, b fleet.Line) int { return cmp.Compare(*a.Index, *b.Index) })
	for _, f := range changes {
		e, err := proven(ctx, func() (client.Entry, error) { return cl.Entry(ctx, string(ledger.Events), *f.Index) })
		if err != nil {
			return nil, err
		}
		next, err := changedKey(ledger.Kind(f.Kind), e.Fact.Data, id, r, keys[len(keys)-1])
		if err != nil {
			return nil, fmt.Errorf("the device's keys since %s: %w", when(f.At), err)
		}
		keys = append(keys, next)
	}
	return keys, nil
}

// changedKey is the attestation key that a fact says a device has from then on.
func changedKey(kind ledger.Kind, fact []byte, id string, r wire.Record, before crypto.PublicKey) (crypto.PublicKey, error) {
	if kind == ledger.KindDeviceRekeyed {
		c, err := custody.NewKeys(fact, id, r.Chip.ChipUID)
		if err != nil {
			return nil, err
		}
		return wire.ParseKey(c.Attest)
	}
	from, err := wire.SPKIOf(before)
	if err != nil {
		return nil, err
	}
	n, err := wire.OpenNewAttestKey(fact, from)
	if err != nil {
		return nil, err
	}
	return wire.ParseKey(n.New)
}

// maxAttestKeys bounds how often a device changed its key: its fleet moves to another suite each time.
const maxAttestKeys = 50

// recordOf is the production record in the ledger, which has the keys that a device left the factory with.
func recordOf(ctx context.Context, cl *client.Client, id string) (wire.Record, error) {
	p, err := cl.Facts(ctx, fleet.FactQuery{Log: string(ledger.Events), Kind: string(ledger.KindDeviceProvisioned), Subject: id, Limit: 1})
	if err != nil {
		return wire.Record{}, err
	}
	if len(p.Items) == 0 || p.Items[0].Index == nil {
		return wire.Record{}, fmt.Errorf("the ledger has no production record of device %q: look for it with `hallmark device list`", id)
	}
	e, err := proven(ctx, func() (client.Entry, error) { return cl.Entry(ctx, string(ledger.Events), *p.Items[0].Index) })
	if err != nil {
		return wire.Record{}, err
	}
	o, err := wire.Parse1(wire.TypeRecord, e.Fact.Data)
	if err != nil {
		return wire.Record{}, err
	}
	r, err := wire.DecodeRecord(o.Payload)
	if err == nil && (r.Keys == nil || r.Chip == nil) {
		err = errors.New("the device's production record holds no keys")
	}
	return r, err
}
