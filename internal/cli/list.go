package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
)

// listing is c, printing a list: as many rows as are asked for, and on the error stream how to get more when there are more.
func listing[T any](a *api, c cobra.Command, head string, get func(ctx context.Context, cl *client.Client, args []string) ([]T, error), row func(T) []string) *cobra.Command {
	var asked client.Window
	var all bool
	v := a.verb(c, func(ctx context.Context, cl *client.Client, args []string) error {
		w := asked
		if w.Limit < 1 {
			return usagef("--limit %d: want at least 1", w.Limit)
		}
		if all {
			w.Limit = 0
		}
		list, err := get(ctx, cl.Within(&w), args)
		if err != nil {
			return err
		}
		if err := rows(a, head, list, row); err != nil || w.Next == "" {
			return err
		}
		_, err = fmt.Fprintf(a.s.err, "more: --after %s, or --all\n", oneLine(w.Next))
		return err
	})
	f := v.Flags()
	f.IntVar(&asked.Limit, "limit", 50, "at most so many")
	f.StringVar(&asked.After, "after", "", "begin behind this place, as the list before gave it")
	f.BoolVar(&all, "all", false, "go on to the end")
	return v
}

// matching gives a command that changes one thing a flag to do it only to what the caller has seen.
func (a *api) matching(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&a.match, "if-match", "", "only if it has not changed since: the tag that show --output tag gave")
	return c
}

// overDevices is c over as many devices as are named, of which many are asked for twice.
func (a *api) overDevices(c cobra.Command, run func(ctx context.Context, cl *client.Client, ids []string) error) *cobra.Command {
	var confirmed int
	c.Args = cobra.MinimumNArgs(1)
	v := a.verb(c, func(ctx context.Context, cl *client.Client, ids []string) error {
		if a.match != "" && len(ids) > 1 {
			return usagef("--if-match is of one device, not of %d", len(ids))
		}
		if err := bulk(len(ids), confirmed, c.Name()); err != nil {
			return err
		}
		return run(ctx, cl, ids)
	})
	v.Flags().IntVar(&confirmed, "confirm-count", 0, "how many devices you mean, for more than 5")
	return v
}

// each does something to one thing after the other, and gives what was answered of those that went well. The answer to one thing is
// printed as the API told it, those to more as a list.
func each[T any](a *api, ids []string, do func(id string) (T, error)) ([]T, error) {
	var done []T
	var raw []json.RawMessage
	var failed error
	for _, id := range ids {
		v, err := do(id)
		if err != nil && len(ids) == 1 {
			return nil, err
		}
		if err != nil {
			fmt.Fprintf(a.s.err, "hallmark: %s: %s%s\n", oneLine(id), paragraph(stranger(err).Error()), code(err))
			failed = err
			continue
		}
		done, raw = append(done, v), append(raw, slices.Clone(a.last))
	}
	if len(ids) > 1 && len(done) > 0 {
		all, err := json.Marshal(raw)
		if err != nil {
			return nil, err
		}
		a.last, a.tag = all, ""
	}
	switch {
	case failed != nil && len(done) == 0:
		return nil, fmt.Errorf("not one of %d was done: %w", len(ids), failed)
	case failed != nil:
		return done, partError{fmt.Errorf("%d of %d were not done", len(ids)-len(done), len(ids))}
	}
	return done, nil
}

// after prints what was done, if anything was, before it says what was not.
func after(err error, done int, print func() error) error {
	if done > 0 {
		if failed := print(); failed != nil {
			return failed
		}
	}
	return err
}

// pick finds one row of a list, and has it printed as if it had been asked for alone.
func pick[T any](a *api, list []T, is func(T) bool) (v T, found bool, err error) {
	i := slices.IndexFunc(list, is)
	if i < 0 {
		return v, false, nil
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(a.last, &raw); err != nil || len(raw) != len(list) {
		return v, false, fmt.Errorf("the answer is not the list it was taken for: %w", err)
	}
	a.last, a.tag = raw[i], ""
	return list[i], true, nil
}
