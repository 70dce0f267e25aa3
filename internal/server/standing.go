package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
)

// How long a log may go without a new checkpoint, and a witness without an answer that counts, before a person is told.
const (
	unwitnessedAfter = time.Minute
	failingAfter     = 5 * time.Minute
)

// trouble is what a person should know of the logs, or no longer.
type trouble struct {
	monitor.Finding
	lasts bool
}

// troubles says of each thing that can be wrong with the logs and their witnesses whether it is.
func troubles(logs []trustedLog, standing []ledger.Standing, now time.Time) (out []trouble) {
	answers := map[string]ledger.Trouble{} // by witness: the older trouble of the two logs
	for i, s := range standing {
		log := logs[i]
		waits := s.Err != nil && now.Sub(s.Since) >= unwitnessedAfter
		out = append(out, trouble{lasts: waits && !errors.Is(s.Err, ledger.ErrForked), Finding: monitor.Finding{
			Kind: monitor.Unwitnessed, Severity: monitor.High, Subject: log.Origin,
			Text: clip(fmt.Sprintf("the %s log has not been witnessed since %s: %s", log.Name, s.Since.UTC().Format(time.RFC3339), oneLine(s.Err))),
		}})
		behind := s.Err
		for _, name := range slices.Sorted(maps.Keys(s.Witnesses)) {
			t := s.Witnesses[name]
			if errors.Is(t.Err, ledger.ErrForked) {
				behind = t.Err
			}
			if old, ok := answers[name]; !ok || t.Err != nil && (old.Err == nil || t.Since.Before(old.Since)) {
				answers[name] = t
			}
		}
		out = append(out, trouble{lasts: errors.Is(behind, ledger.ErrForked), Finding: monitor.Finding{
			Kind: monitor.LedgerBehind, Severity: monitor.Critical, Subject: log.Origin, Text: clip(oneLine(behind)),
		}})
	}
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		t := answers[name]
		out = append(out, trouble{lasts: t.Err != nil && now.Sub(t.Since) >= failingAfter, Finding: monitor.Finding{
			Kind: monitor.WitnessFailing, Severity: monitor.Medium, Subject: name,
			Text: clip(fmt.Sprintf("witness %s has not signed since %s: %s", name, t.Since.UTC().Format(time.RFC3339), oneLine(t.Err))),
		}})
	}
	return out
}

// oneLine gives an error's text in one line; joined errors have several.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	return strings.Join(strings.Split(err.Error(), "\n"), "; ")
}

// clip keeps a text within what a finding may hold.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 4000)], "") }

// watchLogs keeps the findings about the logs: a log that is no longer witnessed must not pass for one on which nothing happens.
func (i *Instance) watchLogs(ctx context.Context, now time.Time) error {
	var standing []ledger.Standing
	for _, p := range i.logs.publishers {
		standing = append(standing, p.Standing())
	}
	caller := access.Internal("ledger")
	var errs []error
	for _, t := range troubles(i.logs.trust.Logs, standing, now) {
		errs = append(errs, i.monitor.Keep(ctx, caller, t.Finding, t.lasts, "it is over"))
	}
	return errors.Join(errs...)
}

// witnessed tells when each log was last published under a quorum; left out: not yet, since the start.
func (x *logs) witnessed() map[string]time.Time {
	out := map[string]time.Time{}
	for i, p := range x.publishers {
		if at := p.Standing().Published; !at.IsZero() {
			out[x.trust.Logs[i].Name] = at
		}
	}
	return out
}
