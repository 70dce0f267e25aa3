package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan(s streams) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "man --dir DIR", Short: "Write the manual pages", Example: "  hallmark man --dir /usr/local/share/man/man1", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // manual pages are for everybody
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			day := time.Unix(0, 0).UTC() // the same pages from the same program
			if err := doc.GenManTree(root, &doc.GenManHeader{Title: "HALLMARK", Section: "1", Source: "Hallmark", Date: &day}, dir); err != nil {
				return err
			}
			_, err := fmt.Fprintf(s.err, "manual pages are in %s\n", dir)
			return err
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "where to write them")
	return need(c, "dir")
}
