package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/failpoint"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/ledger/mirror"
)

// mirrorCall is what one mirror was asked for.
type mirrorCall struct {
	from, to, trust string
	watch           time.Duration
	asJSON          bool
}

func logMirror(s streams) *cobra.Command {
	var c mirrorCall
	var url string
	cmd := &cobra.Command{
		Use:   "mirror (--url URL | --from DIR|s3://…) --to DIR|s3://… --trust FILE [--watch 1m]",
		Short: "Keep a verified copy of both logs",
		Long: `Copies both logs, and what is new of them each time it is called. Nothing is kept that was not verified: the log's signature and the
witnesses' cosignatures, that it continues what was copied, every tile and every entry. What was interrupted goes on where it was.

A source that shows another log than the one that was copied is named, the copy stands as it was, and both checkpoints are kept in
evidence/ beside it: publish them, they prove that the log lied. A source that is behind is waited for.

The copy passes ` + "`hallmark log verify`" + `, can be served by any web server, and is what ` + "`hallmark log recover`" + ` brings a lost database
back from: keep one where a fire, or a thief, of the server does not reach.`,
		Example: `  hallmark log mirror --url https://hallmark.example --to /srv/mirror --trust trust.json --watch 1m
  hallmark log mirror --from /var/lib/hallmark --to s3://copies/hallmark?region=eu-central-1 --trust trust.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (url == "") == (c.from == "") {
				return usagef("give one of --url and --from")
			}
			if url != "" {
				c.from = url
			}
			return c.run(cmd.Context(), s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&url, "url", "", "address of a running instance, or of a web server with a copy")
	f.StringVar(&c.from, "from", "", "directory with log/ in it, or a bucket")
	f.StringVar(&c.to, "to", "", "directory or bucket to keep the copy in")
	f.StringVar(&c.trust, "trust", "", "file with origins, log keys and witness keys, from a source you trust")
	f.DurationVar(&c.watch, "watch", 0, "go on, looking again at this interval")
	f.BoolVar(&c.asJSON, "json", false, "print JSON, a line a copy")
	return need(cmd, "to", "trust")
}

func (c mirrorCall) run(ctx context.Context, s streams) error {
	trust, err := readTrust(c.trust)
	if err != nil {
		return err
	}
	from, err := server.LogSource(c.from)
	if err != nil {
		return err
	}
	to, err := server.LogTarget(c.to)
	if err != nil {
		return err
	}
	if err := c.keepTrust(ctx, to); err != nil {
		return err
	}
	for {
		err := c.once(ctx, s, trust, from, to)
		if c.watch <= 0 || ctx.Err() != nil || errors.Is(err, mirror.ErrForked) {
			return err
		}
		if err != nil { // a source may be away for a while
			fmt.Fprintf(s.err, "hallmark: %v; tried again in %s\n", err, c.watch)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.watch):
		}
	}
}

// keepTrust puts the keys beside the copy, so that it can be verified as it is; whoever verifies for others brings their own.
func (c mirrorCall) keepTrust(ctx context.Context, to func(string) ledger.Exporter) error {
	data, err := os.ReadFile(c.trust)
	if err != nil {
		return err
	}
	return to("").Put(ctx, "trust.json", data)
}

func (c mirrorCall) once(ctx context.Context, s streams, trust audit.Trust, from func(string) audit.Fetcher, to func(string) ledger.Exporter) error {
	var errs []error
	for i, l := range trust.Logs {
		r, err := mirror.Copy{Policy: trust.Policy(i), From: from(l.Name), To: to(l.Name), Failpoint: failpoint.Hit}.Run(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("log %s: %w", l.Name, err))
			continue
		}
		if c.watch > 0 && r.Size == r.Was && r.Source == r.Size {
			continue // nothing new
		}
		if c.asJSON {
			errs = append(errs, printJSON(s.out, r))
			continue
		}
		behind := ""
		if r.Source < r.Size {
			behind = fmt.Sprintf("; the source is behind, at %d", r.Source)
		}
		fmt.Fprintf(s.out, "%s: %d entries, %d of them new%s\n", r.Origin, r.Size, r.Size-r.Was, behind)
	}
	return errors.Join(errs...)
}
