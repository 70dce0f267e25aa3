package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/ledger/audit"
)

func newLog(s streams) *cobra.Command {
	cmd := &cobra.Command{Use: "log", Short: "Read and verify the ledger", Args: cobra.NoArgs}
	var c logCheck
	var dir, url, trust, receipts, bundle string
	var since []string
	verify := &cobra.Command{
		Use:   "verify (--dir DATA | --url URL | --bundle FILE) [--trust FILE] [--since CHECKPOINT]…",
		Short: "Recompute both logs from tiles and entries, and check checkpoints and cosignatures",
		Long: `Recomputes both logs from their published files, with code that shares nothing with the writer: every leaf, every tile, the
root, the log's signature and the witnesses' cosignatures. Prints size, root and counts for each kind of fact. Any mismatch is
named, and the exit code is 1.

With --receipts, each fact that the server once said was durable (header Hallmark-Facts: "events/" and its UID, one a line) must be
in its log too.

With --since, a checkpoint that you kept from an earlier day (the file "checkpoint" of a log, or what URL/log/control/checkpoint gave)
must be one of the same log as it is now: a log that was cut or rewritten meanwhile is named so. Give it once for each log.

With --url the keys must come from elsewhere: --trust names a trust.json that you have from a source you trust. With --dir alone the
keys of DIR/log/trust.json are believed: that finds damage and proves that the files belong together; it does not prove that
somebody who could change all of them did not. For that, give --trust and --since with files that were kept elsewhere.

With --bundle it checks a device's chain of custody, a file that ` + "`hallmark log trace --bundle`" + ` wrote, with the keys of --trust and nothing else.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if bundle != "" && dir == "" && url == "" {
				return verifyBundle(s, bundle, trust, c.asJSON)
			}
			if (dir == "") == (url == "") || bundle != "" {
				return usagef("give one of --dir, --url and --bundle")
			}
			if url != "" && trust == "" {
				return usagef("with --url, --trust FILE must name the keys to believe; the server's own would prove nothing")
			}
			var err error
			if c.fetch, err = server.LogSource(dir + url); err != nil { // one of them is empty
				return err
			}
			if trust == "" {
				trust = filepath.Join(dir, "log", "trust.json")
				fmt.Fprintf(s.err, "hallmark: the keys to believe are %s, which came with the logs: this finds damage, not a forger who could change that file too;"+
					" for that, give --trust with a file that was kept elsewhere\n", trust)
			}
			if err := c.believe(trust, since); err != nil {
				return err
			}
			if receipts != "" {
				data, err := os.ReadFile(receipts)
				if err != nil {
					return fmt.Errorf("receipts: %w", err)
				}
				c.receipts = strings.Fields(strings.ReplaceAll(string(data), ",", "\n"))
			}
			return c.verify(cmd.Context(), s.out)
		},
	}
	verify.Flags().StringVar(&dir, "dir", "", "data directory of an instance, or a directory with a copy of its log/ in it")
	verify.Flags().StringVar(&url, "url", "", "address of a running instance, or of a web server with a copy of its log/; or a bucket's, s3://…")
	verify.Flags().StringVar(&trust, "trust", "", "file with origins, log keys and witness keys (default DIR/log/trust.json)")
	verify.Flags().StringArrayVar(&since, "since", nil, "file with an earlier checkpoint, which the log must continue")
	verify.Flags().StringVar(&receipts, "receipts", "", "file with receipts: their facts must be in the logs")
	verify.Flags().BoolVar(&c.asJSON, "json", false, "print JSON")
	verify.Flags().StringVar(&bundle, "bundle", "", "a device's chain of custody")
	cmd.AddCommand(verify, logKeys(s), newTrace(s), logRecover(s), logMirror(s), newWatch(s))
	return cmd
}

// readTrust reads the keys to believe.
func readTrust(file string) (audit.Trust, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return audit.Trust{}, fmt.Errorf("keys to believe: %w", err)
	}
	t, err := audit.DecodeTrust(data)
	if err != nil {
		return t, fmt.Errorf("%s is no trust file to believe: %w; `hallmark init` writes one", file, err)
	}
	return t, nil
}

// logCheck is one verification.
type logCheck struct {
	trust    audit.Trust
	since    map[string][][]byte // earlier checkpoints, by origin
	fetch    func(log string) audit.Fetcher
	receipts []string
	asJSON   bool
}

// believe reads the keys, and the earlier checkpoints; each must be of one of the logs.
func (c *logCheck) believe(trust string, since []string) (err error) {
	if c.trust, err = readTrust(trust); err != nil {
		return err
	}
	c.since = map[string][][]byte{}
	for _, file := range since {
		note, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("earlier checkpoint: %w", err)
		}
		origin, _, _ := strings.Cut(string(note), "\n")
		if !slices.ContainsFunc(c.trust.Logs, func(l audit.TrustedLog) bool { return l.Origin == origin }) {
			return fmt.Errorf("earlier checkpoint: %s is of none of the logs of %s: its origin is %.100q", file, trust, origin)
		}
		c.since[origin] = append(c.since[origin], note)
	}
	return nil
}

func (c *logCheck) verify(ctx context.Context, out io.Writer) error {
	var reports []audit.Report
	inLog := map[string]bool{}
	for i, l := range c.trust.Logs {
		r, err := audit.Verify(ctx, c.trust.Policy(i), c.fetch(l.Name), c.since[l.Origin]...)
		if err != nil {
			return fmt.Errorf("log %s does NOT verify: %w", l.Name, err)
		}
		reports = append(reports, r)
		for uid := range r.UIDs {
			inLog[l.Name+"/"+uid] = true
		}
	}
	for i, r := range c.receipts {
		if !inLog[r] {
			return fmt.Errorf("the logs do NOT hold what was acknowledged: receipt %d, %q, names no entry", i+1, r)
		}
	}
	if c.asJSON {
		return printJSON(out, reports)
	}
	if len(c.receipts) > 0 {
		fmt.Fprintf(out, "%d receipts: the logs hold every fact they name\n", len(c.receipts))
	}
	for _, r := range reports {
		if err := printReport(out, r); err != nil {
			return err
		}
	}
	return nil
}

func printReport(out io.Writer, r audit.Report) error {
	fmt.Fprintf(out, "%s verifies\n  size %d\n  root %s\n  cosigned by %s\n  seen by a quorum at %s\n", r.Origin, r.Size, r.Root, strings.Join(r.Cosigned, ", "), when(r.Seen))
	for _, size := range r.Since {
		fmt.Fprintf(out, "  continues the log of size %d\n", size)
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, k := range slices.Sorted(maps.Keys(r.Kinds)) {
		fmt.Fprintf(w, "  %s\t%d\n", k, r.Kinds[k])
	}
	return w.Flush()
}
