package cli

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/supply/statement"
)

func (a *api) releaseSummary() *cobra.Command {
	var out, key string
	c := a.verb(cobra.Command{
		Use: "summary RELEASE --out FILE", Short: "Write the signed summary of what the supply gate found of a release", Args: cobra.ExactArgs(1),
		Long: `Writes the signed summary of what the supply gate found of a release when it was published: a DSSE envelope with SLSA's verification summary (VSA), for whoever believes this
instance and does not look themselves. With --key-out the public key that it is signed with is written too, and the signature is held to it.` + releaseArg,
		Example: "  hallmark release summary pump@1.1.0 --out pump-1.1.0.vsa.json --key-out summaries.pem",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r, err := findRelease(ctx, cl, args[0])
		if err != nil {
			return err
		}
		e, err := cl.ReleaseSummary(ctx, r.Digest)
		if err != nil {
			return err
		}
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		s, err := statement.ReadSummary(data)
		if err != nil {
			return err
		}
		if key != "" {
			if err := writeKeyOf(ctx, cl, data, key); err != nil {
				return err
			}
		}
		if err := durable.WriteFile(out, data, 0o644); err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			result := "does not pass"
			if s.Passed {
				result = "passes"
			}
			return sheet(w, "written", out, "of", s.Resource, "verifier", s.Verifier, "found", result, "levels", strings.Join(s.Levels, ", "), "looked at", when(s.At))
		})
	})
	c.Flags().StringVar(&out, "out", "", "file to write")
	c.Flags().StringVar(&key, "key-out", "", "file to write the public key to, PEM")
	return need(c, "out")
}

// writeKeyOf finds the key that an envelope was signed with among the instance's.
func writeKeyOf(ctx context.Context, cl *client.Client, data []byte, path string) error {
	keys, err := cl.Keys(ctx)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if _, err := statement.ReadSigned(data, [][]byte{k.SPKI}, 1); err == nil {
			return durable.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.SPKI}), 0o644)
		}
	}
	return errors.New("the summary is signed by a key that is none of this instance: see `hallmark key list`")
}
