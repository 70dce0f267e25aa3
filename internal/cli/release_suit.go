package cli

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/suit"
)

// suitBlock signs the SUIT manifest that follows from a release's payload.
func suitBlock(payload []byte, signer crypto.Signer) ([]byte, error) {
	r, err := wire.DecodeRelease(payload)
	if err != nil {
		return nil, err
	}
	m, err := suit.Of(r)
	if err != nil {
		return nil, err
	}
	manifest, err := m.Encode()
	if err != nil {
		return nil, err
	}
	return suit.Sign(manifest, signer)
}

// approveSUIT is `hallmark approve --suit`.
func approveSUIT(s streams, typ wire.Type, payload []byte, signer crypto.Signer, about, out string) error {
	if typ != wire.TypeRelease || out == "" {
		return usagef("--suit is for releases, and takes --out")
	}
	block, err := suitBlock(payload, signer)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(out, block, 0o644); err != nil {
		return err
	}
	return sheet(s.out, "signed", "SUIT manifest of "+about, "written", out)
}

func (a *api) signSUIT() *cobra.Command {
	var k keyFile
	var file string
	c := a.verb(cobra.Command{
		Use: "sign-suit RELEASE (--key KEYFILE | --block FILE)", Short: "Sign a release's SUIT manifest too",
		Long: `Adds the signature of an approver over the release's SUIT manifest (draft-ietf-suit-manifest-37), for devices that have a SUIT processor: of who has approved the release, with the
same key, on P-256. The manifest follows from the release. With --key in one step; or --block with what ` + "`hallmark approve --suit`" + ` wrote on a machine without a network.` + releaseArg,
		Args: cobra.ExactArgs(1), Example: "  hallmark release sign-suit pump@1.1.0 --key /media/stick/approver-alice.key --token-file alice.token",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r, err := findRelease(ctx, cl, args[0])
		if err != nil {
			return err
		}
		var block []byte
		if file != "" {
			block, err = readFile(file, wire.MaxSign1)
		} else if err = matches(r); err == nil {
			var signer crypto.Signer
			if signer, err = k.open(ctx, a.s); err == nil {
				block, err = suitBlock(r.Payload, signer)
			}
		}
		if err != nil {
			return err
		}
		if r, err = cl.SignSUIT(ctx, r.Digest, block); err != nil {
			return err
		}
		return a.showView(r)
	})
	k.flags(c)
	c.Flags().StringVar(&file, "block", "", "what `hallmark approve --suit` wrote")
	c.MarkFlagsOneRequired("key", "block")
	c.MarkFlagsMutuallyExclusive("key", "block")
	return a.matching(c)
}

func (a *api) suitRelease() *cobra.Command {
	var out string
	c := a.verb(cobra.Command{
		Use: "suit RELEASE --out FILE", Short: "Write a published release as a SUIT envelope",
		Long: `Writes a published release as a SUIT envelope (draft-ietf-suit-manifest-37), once as many approvers signed its manifest as sign a release: see ` + "`hallmark release sign-suit`" + `.
What is printed beside it is what a device's SUIT processor has to be told: the vendor identifier of the product, and the class identifiers of its hardware revisions.` + releaseArg,
		Args: cobra.ExactArgs(1), Example: "  hallmark release suit pump@1.1.0 --out pump-1.1.0.suit",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r, err := findRelease(ctx, cl, args[0])
		if err != nil {
			return err
		}
		envelope, err := cl.SUIT(ctx, r.Digest)
		if err != nil {
			return err
		}
		e, m, err := suit.Decode(envelope)
		if err != nil {
			return fmt.Errorf("what the server gives is no SUIT envelope: %w", err)
		}
		if err := durable.WriteFile(out, envelope, 0o644); err != nil {
			return err
		}
		pairs := append(suitPairs(e, m), "vendor", fmt.Sprintf("%x", suit.Vendor(r.Manifest.Product)))
		for _, h := range r.Manifest.Hardware {
			pairs = append(pairs, "class "+h, fmt.Sprintf("%x", suit.Class(r.Manifest.Product, h)))
		}
		return a.show(func(w io.Writer) error { return sheet(w, append(pairs, "written", out)...) })
	})
	c.Flags().StringVar(&out, "out", "", "file to write")
	return need(c, "out")
}

func suitPairs(e suit.Envelope, m suit.Manifest) []string {
	pairs := []string{"format", "SUIT, draft-ietf-suit-manifest-37", "sequence number", fmt.Sprint(m.Sequence), "signatures", fmt.Sprint(len(e.Blocks))}
	for _, id := range m.Components {
		pairs = append(pairs, "component", fmt.Sprintf("/%s", bytes.Join(id, []byte("/"))))
	}
	return pairs
}
