package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/ledger/audit"
)

// recoverCall is what one recovery of the logs was asked for.
type recoverCall struct {
	dir, from, trust     string
	apply, files, asJSON bool
	restored             bool
}

func logRecover(s streams) *cobra.Command {
	var c recoverCall
	cmd := &cobra.Command{
		Use:   "recover --dir DATA [--from DIR|URL|s3://…] [--apply | --files]",
		Short: "Bring an old database up to the log that was published",
		Long: `A database that was restored from a backup, or lost its last transactions in a failover, is behind what was witnessed; the server
refuses to sign for it. This replays what is missing into it, from the exported files in the data directory, or from a mirror of them.
The server must be stopped, every node of it.

Everything is verified first: checkpoints by the keys of the trust file, every entry, and that it continues what the database has.
Facts that waited in the database for their place get the one they had; others stay behind them. Without --apply nothing is changed,
and what would be is told.

The ledger comes back whole; what the database knew beside it does not. What a device or the world would be fooled by is made again from
the facts: revocations, certificates, withdrawn releases, trust bundles, closed orders, used tickets, the states of devices, the heads of
their logs, who may do what. The rest is listed with what to do about it: read that list.

Devices have gone on since the backup, mostly without a fact: their rolling tokens and counters are ahead of the database. With --apply each is
believed once when it calls, with a fact device.on-trust, and from then on held against what it said. Say --restored when a backup was put in place
and no fact is missing; otherwise it is seen.

With --files the other way: exported files that are lost or were changed are written again from the database.`,
		Example: `  hallmark log recover --dir /var/lib/hallmark
  hallmark log recover --dir /var/lib/hallmark --from https://mirror.example --trust trust.json --apply
  hallmark log recover --dir /var/lib/hallmark --files`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context(), s) },
	}
	f := cmd.Flags()
	f.StringVar(&c.dir, "dir", "", "data directory of the instance")
	f.StringVar(&c.from, "from", "", "where the published logs are: a directory with log/ in it, an address, or a bucket (default DIR, or the first export of config.json)")
	f.StringVar(&c.trust, "trust", "", "file with origins, log keys and witness keys (default DIR/log/trust.json)")
	f.BoolVar(&c.apply, "apply", false, "do it")
	f.BoolVar(&c.restored, "restored", false, "the database is a backup's, though no fact is missing: with --apply, believe each device once")
	f.BoolVar(&c.files, "files", false, "write exported files again from the database")
	f.BoolVar(&c.asJSON, "json", false, "print JSON")
	return need(cmd, "dir")
}

func (c recoverCall) run(ctx context.Context, s streams) (err error) {
	if c.files && (c.apply || c.restored || c.from != "") {
		return usagef("--files writes from the database: --from, --apply and --restored have no place beside it")
	}
	l := server.Layout{Dir: c.dir}
	cfg, err := server.LoadConfig(l)
	if err != nil {
		return err
	}
	if c.from == "" {
		c.from = c.dir
		if len(cfg.Export) > 0 && !slices.Contains(cfg.Export, "files") {
			c.from = cfg.Export[0]
		}
	}
	if c.trust == "" {
		c.trust = filepath.Join(l.Logs(), "trust.json")
	}
	trust, err := readTrust(c.trust)
	if err != nil {
		return err
	}
	unlock, err := l.Lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if c.files {
		return c.mend(ctx, s, l, trust)
	}
	source, err := server.LogSource(c.from)
	if err != nil {
		return err
	}
	rec, err := server.RecoverLog(ctx, l, trust, source, c.apply, c.restored)
	if err != nil {
		return err
	}
	if c.asJSON {
		return printJSON(s.out, rec)
	}
	return c.tell(s.out, rec)
}

func (c recoverCall) mend(ctx context.Context, s streams, l server.Layout, trust audit.Trust) error {
	written, err := server.MendLogs(ctx, l, trust)
	if err != nil {
		return err
	}
	if c.asJSON {
		return printJSON(s.out, written)
	}
	for _, t := range trust.Logs {
		fmt.Fprintf(s.out, "%s: %d files written again\n", t.Name, written[t.Name])
	}
	return nil
}

func (c recoverCall) tell(out io.Writer, rec server.LogRecovery) error {
	missing := uint64(0)
	for _, l := range rec.Logs {
		fmt.Fprintf(out, "%s: %d entries in the database, %d published", l.Name, l.Had, l.Shown)
		if l.Signed > 0 {
			fmt.Fprintf(out, ", %d more signed to be witnessed", l.Signed)
		}
		fmt.Fprintf(out, ": %d missing\n", l.Missing)
		missing += l.Missing
	}
	if rec.Devices > 0 {
		fmt.Fprintf(out, "Devices that are believed once when they call, for the database knows less of them than they do: %d\n", rec.Devices)
	}
	if missing == 0 {
		_, err := fmt.Fprintln(out, "\nThe database has all of it: nothing is to be replayed.")
		return err
	}
	did, todo := "Would be replayed", "Then to be done"
	if rec.Applied {
		did, todo = "Replayed", "To be done now"
	}
	fmt.Fprintf(out, "\n%s:\n", did)
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, k := range rec.Kinds {
		fmt.Fprintf(w, "  %s\t%d\t%s\n", k.Kind, k.Facts+k.Kept, becameOf(k, rec.Applied))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(rec.Todo) > 0 {
		fmt.Fprintf(out, "\n%s:\n", todo)
	}
	for _, t := range rec.Todo {
		names := strings.Join(t.Subjects, ", ")
		if t.More > 0 {
			names += fmt.Sprintf(" and %d more", t.More)
		}
		fmt.Fprintf(out, "- %s: %s\n    %s\n", t.Kind, t.Text, names)
	}
	if !rec.Applied {
		_, err := fmt.Fprintf(out, "\nNothing was changed. Back up the database as it is, then: hallmark log recover --dir %s%s --apply\n", c.dir, c.source())
		return err
	}
	_, err := fmt.Fprintf(out, "\nThe database holds the log that was published. Next: hallmark serve --dir %s\n", c.dir)
	return err
}

func (c recoverCall) source() string {
	if c.from == c.dir {
		return ""
	}
	return " --from " + c.from
}

// becameOf says what became of the facts of a kind.
func becameOf(k server.KindReplay, applied bool) string {
	var said []string
	if k.Kept > 0 {
		said = append(said, fmt.Sprintf("%d waited here for their place", k.Kept))
	}
	if applied && k.Applied > 0 {
		said = append(said, fmt.Sprintf("state made again from %d", k.Applied))
	}
	return strings.Join(slices.Compact(said), ", ")
}
