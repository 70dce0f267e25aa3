package cli

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/ledger"
)

// logKeys prints the keys of a trust file as they are passed on.
func logKeys(s streams) *cobra.Command {
	var dir, trust string
	c := &cobra.Command{
		Use: "keys (--dir DATA | --trust FILE)", Short: "Print the logs' verifier keys, for witnesses",
		Long: `Prints the verifier key of each log, NAME+HASH+KEY, one a line: this is what the operator of a witness needs to know of it
(hallmark witness log add), and what the tools of others call a vkey. The witnesses' keys are in trust.json in the same form.`,
		Example: "  hallmark log keys --dir /var/lib/hallmark",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if (dir == "") == (trust == "") {
				return usagef("give one of --dir and --trust")
			}
			if trust == "" {
				if _, err := server.LogSource(dir); err != nil { // which says what it should have been
					return err
				}
				trust = filepath.Join(dir, "log", "trust.json")
			}
			t, err := readTrust(trust)
			if err != nil {
				return err
			}
			var keys []ledger.VerifierKey
			for _, l := range t.Logs {
				keys = append(keys, ledger.VerifierKey{Name: l.Origin, Type: ledger.TypeEd25519, Key: l.Key})
			}
			return printKeys(s, keys)
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "data directory of an instance")
	c.Flags().StringVar(&trust, "trust", "", "its trust.json")
	return c
}
