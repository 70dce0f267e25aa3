package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/carton"
)

func newInstall() *cobra.Command {
	var dir, from string
	var wait time.Duration
	c := &cobra.Command{
		Use:   "install --dir DIR --from FILE",
		Short: "Bring the running device a release in a carton",
		Long: `Brings the running device a release in a carton, which ` + "`hallmark release export --carton`" + ` wrote. The device opens the file itself, and decides as it does of
what comes over a line: FILE is a file where the device sees it, and stays there until the release is installed. The same carton, or a copy of it, may be brought again while that is under way.

With --wait it stays until the device has tried the release, over its restart, and says what came of it.`,
		Example: "  hallmark-agent install --dir board1 --from /media/stick/pump-1.1.0.hmb --wait 15m",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return install(cmd.Context(), dir, from, wait) },
	}
	dirFlag(c, &dir, "the device's directory")
	c.Flags().StringVar(&from, "from", "", "the carton (required)")
	_ = c.MarkFlagRequired("from") // it exists
	c.Flags().DurationVar(&wait, "wait", 0, "stay so long for what comes of it (default: not at all)")
	return c
}

func install(ctx context.Context, dir, from string, wait time.Duration) error {
	path, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	if err := whole(path); err != nil {
		return err
	}
	r, err := ask(ctx, dir, agent.LocalRequest{Op: "carton", Path: path})
	if err != nil {
		return err
	}
	if r.Outcome == wire.OutcomeRefused {
		return fmt.Errorf("the device refuses it: %s: %s", r.Code, r.Text)
	}
	if wait == 0 {
		return print(r)
	}
	return settled(ctx, dir, wait, r)
}

// whole looks whether a copy is good, while whoever made it stands here.
func whole(path string) error {
	c, f, err := agent.OpenCarton(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := c.Verify(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// settled waits until nothing is under way any more, and gives what came of what the device began. It restarts meanwhile, and does not answer.
func settled(ctx context.Context, dir string, wait time.Duration, began agent.LocalReply) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		r, err := ask(ctx, dir, agent.LocalRequest{Op: "status"})
		if err == nil && r.Status.Task == "" && !r.Status.Trial {
			if err := cameOf(began, *r.Status); err != nil {
				return err
			}
			return print(*r.Status)
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the device had not come to an end with it after %s: see `hallmark-agent local --dir %s status`", wait, dir), err)
		case <-time.After(time.Second):
		}
	}
}

// cameOf gives nil if the install that began was done. Where its server has heard of it, and the device has the result no more, it was done if what it brought runs.
func cameOf(began agent.LocalReply, s agent.Status) error {
	for _, r := range slices.Backward(s.Results) {
		if !bytes.Equal(r.Command, began.Command) {
			continue
		}
		if r.Outcome == wire.OutcomeDone {
			return nil
		}
		return fmt.Errorf("the install ended as %s, the device runs %s: %s: %s", r.Outcome, s.Version, r.Code, r.Text)
	}
	if began.Release == "" || s.Release != began.Release {
		return fmt.Errorf("the device runs %s, and not what the carton brought: its server has heard why: `hallmark device show`", s.Version)
	}
	return nil
}

func newHistory() *cobra.Command {
	var dir, out string
	c := &cobra.Command{
		Use:   "history --dir DIR --out DIR",
		Short: "Write what became of a carton, for the server",
		Long: `Has the running device say and prove how it stands since it installed from a carton, with its own log, and writes that into a directory: for
` + "`hallmark device history import`" + `. Each history holds those before it that the server may not have.`,
		Example: "  hallmark-agent history --dir board1 --out /media/stick",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return history(cmd.Context(), dir, out) },
	}
	dirFlag(c, &dir, "the device's directory")
	c.Flags().StringVar(&out, "out", "", "directory to write a file into (required)")
	_ = c.MarkFlagRequired("out") // it exists
	return c
}

func history(ctx context.Context, dir, out string) error {
	r, err := ask(ctx, dir, agent.LocalRequest{Op: "history"})
	if err != nil {
		return err
	}
	h, err := carton.DecodeHistory(r.History)
	if err != nil {
		return fmt.Errorf("what the device answered: %w", err)
	}
	path := filepath.Join(out, fmt.Sprintf("%s-%d.history", h.Device, h.At))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%w: one of this second is there already; take that one, or ask again", err)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(r.History)
	if err = errors.Join(err, f.Sync(), f.Close(), synced(out)); err != nil {
		return errors.Join(err, os.Remove(path)) // half of one is no history
	}
	return print(map[string]string{"device": h.Device, "written": path})
}

// synced makes the names in a directory durable: the stick is about to be pulled.
func synced(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
