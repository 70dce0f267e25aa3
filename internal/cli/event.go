package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/ledger"
)

func newEvent(a *api) *cobra.Command {
	return a.noun("event", "Facts as they are placed in the ledger", a.watchEvents())
}

// eventFilter is what of the stream is printed.
type eventFilter struct {
	log, kind, subject string
	count              int
}

func (f eventFilter) wants(e client.Event) bool {
	return (f.log == "" || f.log == string(e.Log)) && (f.kind == "" || f.kind == e.Kind) && (f.subject == "" || f.subject == e.Subject)
}

var errEnough = errors.New("enough facts were told")

func (a *api) watchEvents() *cobra.Command {
	var f eventFilter
	var since string
	c := a.verb(cobra.Command{
		Use: "watch", Short: "Print each fact as it is placed in the ledger, until Ctrl-C",
		Long: `Prints each fact as it is placed in the ledger, until Ctrl-C. When the connection breaks it comes back and goes on where it was; what
was missed is told, or said to be missed. With --json one object a line.`,
		Example: "  hallmark event watch --log control --kind release.published",
	}, func(ctx context.Context, cl *client.Client, _ []string) error {
		switch {
		case f.log != "" && f.log != string(ledger.Control) && f.log != string(ledger.Events):
			return usagef("--log %q: want control or events", f.log)
		case f.count < 0:
			return usagef("--count %d: want 1 or more, or 0 for no end", f.count)
		case a.every != 0:
			return usagef("--watch is for what is asked again and again: this goes on by itself")
		case a.output != asTable && a.output != asJSON:
			return usagef("--output %s: events are printed as table or json", a.output)
		}
		return a.follow(ctx, cl, f, since)
	})
	fs := c.Flags()
	fs.StringVar(&f.log, "log", "", "only of this log: control or events")
	fs.StringVar(&f.kind, "kind", "", "only of this kind, such as release.published")
	fs.StringVar(&f.subject, "subject", "", "only about this: a device, an order, a release, …")
	fs.IntVar(&f.count, "count", 0, "end after so many (default: Ctrl-C)")
	fs.StringVar(&since, "after", "", "begin at this place of the logs, such as control:17,events:4711 (default: now)")
	return c
}

// follow prints the stream and comes back to it. What the server refuses it refuses the next time too; whom it has no room for comes
// later.
func (a *api) follow(ctx context.Context, cl *client.Client, f eventFilter, since string) error {
	s := client.Stream{Last: since, Retry: 2 * time.Second}
	told := 0
	for {
		err := cl.Events(ctx, &s, func(e client.Event, data []byte, gap error) error {
			if gap != nil {
				_, err := fmt.Fprintf(a.s.err, "%v: see `hallmark fact list`\n", gap)
				return err
			}
			if !f.wants(e) {
				return nil
			}
			if err := a.event(e, data); err != nil {
				return stopped{err}
			}
			if told++; told == f.count {
				return errEnough
			}
			return nil
		})
		p, refused := errors.AsType[*client.Problem](err)
		_, deaf := errors.AsType[stopped](err)
		switch {
		case ctx.Err() != nil, errors.Is(err, errEnough):
			return nil //nolint:nilerr // Ctrl-C, or as many as were asked for
		case refused && p.Status < http.StatusInternalServerError, deaf, err != nil && !s.Begun:
			return err
		}
		fmt.Fprintf(a.s.err, "the stream ended%s; coming back\n", because(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(s.Retry):
		}
	}
}

// stopped marks that what reads our output does not any more.
type stopped struct{ error }

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + oneLine(err.Error())
}

func (a *api) event(e client.Event, data []byte) error {
	if a.output == asJSON {
		_, err := fmt.Fprintf(a.s.out, "%s\n", data)
		return err
	}
	_, err := fmt.Fprintf(a.s.out, "%s  %s/%d  %s  %s\n", when(e.At), oneLine(string(e.Log)), e.Index, oneLine(e.Kind), oneLine(or(e.Subject)))
	return err
}
