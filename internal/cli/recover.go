package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/server"
)

func newRecover(s streams) *cobra.Command {
	var dir, db string
	c := &cobra.Command{
		Use: "recover [PERSON] --dir DATA", Short: "Let an administrator in who has lost every key",
		Long: `Prints a link that signs a person in as administrator, once, within 15 minutes: for when every token and passkey is lost. It takes
nothing but the data directory, on the host: whoever can write that is master of the instance anyhow. The ledger tells that it was
done, to everybody and for good. Without PERSON it is person:admin.`,
		Example: "  hallmark recover --dir /var/lib/hallmark",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			person := "person:admin"
			if len(args) == 1 {
				person = args[0]
			}
			if !strings.HasPrefix(person, "person:") {
				return usagef("%q: want a person, such as person:alice", person)
			}
			link, err := server.Recover(cmd.Context(), server.Layout{Dir: dir, DB: db}, person)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(s.out, link)
			return err
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "data directory of the instance")
	c.Flags().StringVar(&db, "db", "", dbUsage)
	return need(c, "dir")
}
