package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/internal/watchd"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/ledger/watch"
)

// alertError marks work that was done and found what should not be.
type alertError struct{ error }

// logWatch is one call of log watch.
type logWatch struct {
	s                              streams
	url, dir, trust, policy, state string
	webhook, secret                string
	every, stale                   time.Duration
	once, asJSON, propose, rules   bool

	since    []string
	believed logCheck // whom to believe, and earlier checkpoints

	mu     sync.Mutex // the outbox tells its troubles beside the follower
	alerts int        // told; what only could not be verified is not counted
}

func newWatch(s streams) *cobra.Command {
	w := &logWatch{s: s}
	c := &cobra.Command{
		Use:   "watch (--url URL | --dir DATA) --trust FILE [--policy FILE] [--state DIR] [--once] [--webhook URL]",
		Short: "Follow both logs, and tell what should not be in them",
		Long: `Follows both logs as they grow: verifies each new checkpoint, its witnesses, that it continues the last one, and every entry; and tells
what should not be there by the rules that --rules lists: a release that nobody on the list signed, a certificate for a device that
was never made, a log that shows another past. It needs no access to the server but its public files, and should run where the server's
operators have no hand in it.

--policy says what is expected: all of it is optional, and what it does not say is taken from the log's own beginning. --print-policy
writes one from the logs as they are: read it before you use it. --state is a directory that keeps the last checkpoint, so that a later
run goes on from there and sees a log that shrank or forked meanwhile; without it every run begins anew and believes the first
checkpoint it sees, or, with --since, the first that continues one that you kept.

Each alert is a line on the output, with --json an object. --webhook posts it as JSON with the entry and its proof, signed in the
header Hallmark-Signature by HMAC-SHA256 with the secret of --webhook-secret-file, at least once, in order, under an Idempotency-Key;
what the receiver does not take waits in the state directory.

With --once it reads what there is and ends. Exit codes: 0 nothing found, 4 alerts, 1 the logs could not be read or verified.`,
		Example: `  hallmark log watch --url http://localhost:8480 --trust trust.json --print-policy >policy.json
  hallmark log watch --url http://localhost:8480 --trust trust.json --policy policy.json --state watch`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return w.run(cmd.Context()) },
	}
	f := c.Flags()
	f.StringVar(&w.url, "url", "", "address of a running instance, or of a web server with a copy of its log/; or a bucket's, s3://…")
	f.StringVar(&w.dir, "dir", "", "data directory of an instance, or a directory with a copy of its log/ in it")
	f.StringVar(&w.trust, "trust", "", "file with origins, log keys and witness keys (default DATA/log/trust.json)")
	f.StringVar(&w.policy, "policy", "", "file that says what is expected (JSON)")
	f.StringVar(&w.state, "state", "", "directory that keeps how far it came, evidence, and what was not delivered")
	f.StringArrayVar(&w.since, "since", nil, "file with an earlier checkpoint, which the log must continue; for a first run")
	f.BoolVar(&w.once, "once", false, "read what there is, and end")
	f.DurationVar(&w.every, "every", 30*time.Second, "how often to look")
	f.DurationVar(&w.stale, "stale", 5*time.Minute, "after how long without a new witnessed checkpoint that is told; 0: never")
	f.BoolVar(&w.asJSON, "json", false, "print one JSON object a line")
	f.StringVar(&w.webhook, "webhook", "", "address that alerts are posted to; needs --state and --webhook-secret-file")
	f.StringVar(&w.secret, "webhook-secret-file", "", "file with the secret that posts are signed with, 16 bytes or more")
	f.BoolVar(&w.propose, "print-policy", false, "print a policy that expects what is in the logs now, and end")
	f.BoolVar(&w.rules, "rules", false, "list the rules, and end")
	return c
}

func (w *logWatch) run(ctx context.Context) error {
	if w.rules {
		return w.listRules()
	}
	if (w.dir == "") == (w.url == "") {
		return usagef("give one of --dir and --url")
	}
	if w.url != "" && w.trust == "" {
		return usagef("with --url, --trust FILE must name the keys to believe; the server's own would prove nothing")
	}
	if w.every < time.Second || w.stale < 0 {
		return usagef("--every %s, --stale %s: want a second or more, and no less than 0", w.every, w.stale)
	}
	if w.trust == "" {
		w.trust = filepath.Join(w.dir, "log", "trust.json")
		w.say("the keys to believe are %s, which came with the logs: for a watcher that the server's owner cannot deceive, give --trust with a file that was kept elsewhere", w.trust)
	}
	fetch, err := server.LogSource(w.dir + w.url) // one of them is empty
	if err != nil {
		return err
	}
	if err := w.believed.believe(w.trust, w.since); err != nil {
		return err
	}
	policy, err := w.readPolicy()
	if err != nil {
		return err
	}
	outbox, err := w.outbox()
	if err != nil {
		return err
	}
	f, err := w.follower(fetch, policy, outbox)
	if err != nil {
		return err
	}
	switch {
	case w.propose:
		return w.printPolicy(ctx, f)
	case w.once:
		return w.look(ctx, f, outbox)
	}
	return w.follow(ctx, f, outbox)
}

func (w *logWatch) readPolicy() (watch.Policy, error) {
	if w.policy == "" {
		if !w.propose {
			w.say("no --policy: who may do what is taken from the beginning of the logs; --print-policy writes one to be read")
		}
		return watch.Policy{}, nil
	}
	data, err := readFile(w.policy, 1<<20)
	if err != nil {
		return watch.Policy{}, fmt.Errorf("policy: %w", err)
	}
	p, err := watch.DecodePolicy(data)
	if err != nil {
		return p, fmt.Errorf("policy %s: %w", w.policy, err)
	}
	return p, nil
}

func (w *logWatch) outbox() (*watchd.Outbox, error) {
	if w.webhook == "" {
		return nil, nil //nolint:nilnil // nobody is to be told
	}
	if w.state == "" || w.secret == "" {
		return nil, usagef("--webhook needs --state, where alerts wait, and --webhook-secret-file, by which the receiver knows them")
	}
	if u, err := url.Parse(w.webhook); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, usagef("--webhook: want an address that begins with https://")
	}
	secret, err := readFile(w.secret, 4096)
	if err != nil {
		return nil, fmt.Errorf("webhook secret: %w", err)
	}
	if secret = bytes.TrimRight(secret, "\r\n"); len(secret) < 16 {
		return nil, fmt.Errorf("webhook secret: %s has %d bytes: want 16 or more, such as `openssl rand -hex 32` makes", w.secret, len(secret))
	}
	return watchd.NewOutbox(filepath.Join(w.state, "outbox"), w.webhook, secret), nil
}

func (w *logWatch) follower(fetch func(string) audit.Fetcher, policy watch.Policy, outbox *watchd.Outbox) (*watch.Follower, error) {
	f := &watch.Follower{Trust: w.believed.trust, Fetch: fetch, Stale: w.stale, Now: w.once || w.propose}
	sink := watchd.Sink{Outbox: outbox, Print: w.print}
	var memory *watch.Memory
	if w.state != "" && !w.propose {
		dir := watchd.Dir{Path: w.state}
		var err error
		if f.State, memory, err = dir.Load(policy); err != nil {
			return nil, err
		}
		sink.Dir = &dir
	}
	for _, l := range w.believed.trust.Logs {
		for _, note := range w.believed.since[l.Origin] {
			f.Expect(ledger.Log(l.Name), note)
		}
	}
	f.Judge, f.Sink = watch.NewJudge(policy, memory), sink
	return f, nil
}

// print tells an alert to who reads the output.
func (w *logWatch) print(a watch.Alert) error {
	if w.propose {
		return nil
	}
	if !a.Over && a.Rule != watch.RuleUnverified {
		w.alerts++
	}
	if !w.asJSON {
		_, err := fmt.Fprintln(w.s.out, oneLine(a.String()))
		return err
	}
	line, err := json.Marshal(a)
	if err == nil {
		_, err = w.s.out.Write(append(inert(line), '\n'))
	}
	return err
}

// say tells a person beside the output.
func (w *logWatch) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(w.s.err, "hallmark: %s\n", oneLine(fmt.Sprintf(format, args...)))
}

func (w *logWatch) printPolicy(ctx context.Context, f *watch.Follower) error {
	r, err := f.Round(ctx, time.Now())
	if err := errors.Join(append(r.Failed, err)...); err != nil {
		return err
	}
	w.say("this is what the logs hold, not what should be there: read each line, and compare the keys with those of the people they are said to be of")
	return printJSON(w.s.out, f.Judge.Memory().Propose())
}

// look is --once.
func (w *logWatch) look(ctx context.Context, f *watch.Follower, outbox *watchd.Outbox) error {
	r, err := f.Round(ctx, time.Now())
	if err == nil {
		err = f.Close(ctx)
	}
	if outbox != nil {
		if _, undelivered := outbox.Deliver(ctx); undelivered != nil {
			w.say("%v; the next run tries again", undelivered)
		}
	}
	switch {
	case err != nil:
		return errors.Join(append(r.Failed, err)...)
	case w.alerts > 0:
		for _, err := range r.Failed {
			w.say("%v", err)
		}
		return alertError{fmt.Errorf("%s: something is in the logs, or is wrong with them, that should not be", alerts(w.alerts))}
	case len(r.Failed) > 0:
		return fmt.Errorf("the logs could not be verified: %w", errors.Join(r.Failed...))
	}
	w.say("%d entries of the control log and %d of events: no alert", r.Size["control"], r.Size["events"])
	return nil
}

// follow goes on until it is ended.
func (w *logWatch) follow(ctx context.Context, f *watch.Follower, outbox *watchd.Outbox) error {
	var delivering sync.WaitGroup
	if outbox != nil {
		delivering.Go(func() { outbox.Run(ctx, func(err error) { w.say("%v", err) }) })
	}
	defer delivering.Wait()
	w.say("following %s every %s", strings.Join(origins(f.Trust), " and "), w.every)
	t := time.NewTicker(w.every)
	defer t.Stop()
	for {
		r, err := f.Round(ctx, time.Now())
		if ctx.Err() == nil {
			for _, err := range append(r.Failed, err) {
				if err != nil {
					w.say("%v", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return f.Close(context.WithoutCancel(ctx))
		case <-t.C:
		}
	}
}

func alerts(n int) string {
	if n == 1 {
		return "1 alert"
	}
	return fmt.Sprintf("%d alerts", n)
}

func origins(t audit.Trust) (out []string) {
	for _, l := range t.Logs {
		out = append(out, l.Origin)
	}
	return out
}

func (w *logWatch) listRules() error {
	if w.asJSON {
		return printJSON(w.s.out, watch.Rules())
	}
	return printRules(w.s.out)
}

func printRules(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, r := range watch.Rules() {
		fmt.Fprintf(t, "%s\t%s\t%s\n", r.Name, r.Severity, r.When)
	}
	return t.Flush()
}
