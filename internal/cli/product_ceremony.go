package cli

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/wire"
)

// lacks says in words what a product needs before it can be made.
func lacks(r ceremony.Readiness) string {
	if r.Ready {
		return "yes"
	}
	words := map[string]string{ceremony.MissingCA: "its CA", ceremony.MissingBundle: "its first trust bundle"}
	var missing []string
	for _, m := range r.Missing {
		missing = append(missing, words[m])
	}
	return "no: " + strings.Join(missing, " and ") + " missing; " + r.Remedy
}

func (a *api) requestProduct() *cobra.Command {
	var like, out string
	c := a.verb(cobra.Command{
		Use: "request PRODUCT --out FILE", Short: "Ask a key ceremony for what a product needs", Args: cobra.ExactArgs(1),
		Long: `Makes the key of the product's CA on the instance, drafts its first trust bundle, and writes one file that asks a key ceremony for the
signatures: of the OEM root, and of the approvers. See ` + "`hallmark ceremony plan`" + `, or ` + "`hallmark ceremony answer`" + ` where all offline keys are at hand.
The bundle names the approvers and the online keys of another product. Asked again, it gives the same file.`,
		Example: "  hallmark product request valve --out valve.ceremony",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		request, err := cl.RequestProduct(ctx, args[0], like)
		if err != nil {
			return err
		}
		if _, err := wire.DecodeCeremonyRequest(request); err != nil {
			return err
		}
		if err := durable.WriteFile(out, request, 0o644); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "product", args[0], "fingerprint", ceremony.Fingerprint(sha256.Sum256(request)), "written", out)
		})
	})
	c.Flags().StringVar(&like, "like", "", "the product whose approvers decide (default: all products have the same)")
	c.Flags().StringVar(&out, "out", "", "file to write")
	return need(c, "out")
}

func (a *api) activateProduct() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "activate PRODUCT FILE", Short: "Take in a key ceremony's answer for a product", Args: cobra.ExactArgs(2),
		Long: `Installs the product's CA and publishes its first trust bundle, as a key ceremony has answered. The CA takes an administrator, the bundle
somebody of role security: whoever may do only one of them does that, and the other runs the same command.`,
		Example: "  hallmark product activate valve valve.answer",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		answer, err := readFile(args[1], wire.MaxCeremonyAnswer)
		if err != nil {
			return err
		}
		r, err := cl.ActivateProduct(ctx, args[0], answer)
		if err != nil {
			return err
		}
		if err := a.show(func(w io.Writer) error { return sheet(w, "product", args[0], "ready", lacks(r)) }); err != nil {
			return err
		}
		if !r.Ready {
			return partError{fmt.Errorf("product %s is not ready: somebody who may do the rest runs the same command", args[0])}
		}
		return nil
	})
}

func (a *api) submitCeremony() *cobra.Command {
	var script string
	c := a.verb(cobra.Command{
		Use: "submit TRANSCRIPT", Short: "Put the transcript of a ceremony on record", Args: cobra.ExactArgs(1),
		Long: `Puts a ceremony's signed transcript into the ledger, for everybody to see. People are in it by the IDs that the script gives them; with
--script their whole names are kept beside the ledger, for those who may read them.`,
		Example: "  hallmark ceremony submit held/out/transcript.cose --script first.yaml",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		envelope, err := readFile(args[0], wire.MaxEnvelope)
		if err != nil {
			return err
		}
		t, err := wire.OpenTranscript(envelope)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		names, err := wholeNames(script, t)
		if err != nil {
			return err
		}
		held, err := cl.SubmitCeremony(ctx, envelope, names)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "ceremony", held.Name, "on record since", when(held.At), "transcript", held.Digest)
		})
	})
	a.flags(c)
	c.Flags().StringVar(&script, "script", "", "the script that it was held by")
	return c
}

// wholeNames takes the whole names from the script, if the transcript follows it.
func wholeNames(path string, t wire.Transcript) (map[string]string, error) {
	if path == "" {
		return nil, nil
	}
	data, err := readFile(path, 64<<10)
	if err != nil {
		return nil, err
	}
	if err := ceremony.Follows(t, data); err != nil {
		return nil, fmt.Errorf("the transcript does not follow %s: %w", path, err)
	}
	s, err := ceremony.DecodeScript(data)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, p := range s.People {
		if p.Name != "" {
			names[p.ID] = p.Name
		}
	}
	return names, nil
}

func (a *api) listCeremonies() *cobra.Command {
	c := listing(a, cobra.Command{Use: "list", Short: "List the ceremonies on record", Example: "  hallmark ceremony list"},
		"NAME RECORDED STEPS PEOPLE TRANSCRIPT",
		func(ctx context.Context, cl *client.Client, _ []string) ([]ceremony.Held, error) {
			return cl.Ceremonies(ctx)
		},
		func(h ceremony.Held) []string {
			t, err := wire.OpenTranscript(h.Envelope)
			if err != nil {
				return []string{h.Name, when(h.At), "?", "unreadable: " + err.Error(), h.Digest}
			}
			people := make([]string, len(t.People))
			for i, p := range t.People {
				people[i] = p.Label
			}
			return []string{h.Name, when(h.At), fmt.Sprint(len(t.Steps)), strings.Join(people, ","), h.Digest}
		})
	a.flags(c)
	return c
}
