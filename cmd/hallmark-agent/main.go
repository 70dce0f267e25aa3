// Command hallmark-agent is the device: its boot manager and its agent, over a Linux board, or a virtual one in a directory.
//
//	hallmark-agent new --dir D --payload-bytes N   make a blank board
//	hallmark-agent factory --dir D --socket S      be made by a programming station
//	hallmark-agent run --dir D                     power on
//	hallmark-agent inspect --dir D                 say what is on it, powered off
//	hallmark-agent params --dir D list|get NAME    read its parameters
//	hallmark-agent local --dir D status|nonce      talk to the running device
//	hallmark-agent local --dir D deliver FILE
//	hallmark-agent local --dir D consent yes|no    agree to the install that it waits with, or decline it
//	hallmark-agent install --dir D --from FILE     bring it a release in a carton
//	hallmark-agent history --dir D --out DIR       take with you what became of it
//	hallmark-agent recover --dir D --voucher-file F give a device that lost its keys new ones
//
// Exit codes: 0 done, 1 failed, 2 the call was wrong, 75 the power was cut, 76 the machine has to be restarted, 77 no restart helps.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/agent/line"
)

const (
	exitFailed   = 1
	exitUsage    = 2
	exitPowerCut = 75
	exitReset    = 76
	exitRefused  = 77
)

func main() {
	launch.Confine() // in a process that is to become a program of the release, and nothing else
	line.Become()    // in the one that is to become the network's
	p := newPlug()
	begun := false
	cmd, err := newRoot(&begun, p).ExecuteContextC(p.ctx)
	var wrong *usageError
	switch {
	case err == nil:
	case errors.Is(err, hw.ErrPowerCut):
		fmt.Fprintln(os.Stderr, "hallmark-agent:", err)
		os.Exit(exitPowerCut)
	case errors.Is(err, errReset):
		fmt.Fprintln(os.Stderr, "hallmark-agent:", err)
		os.Exit(exitReset)
	case errors.Is(err, errRefused):
		fmt.Fprintln(os.Stderr, "hallmark-agent:", err)
		os.Exit(exitRefused)
	case !begun || errors.As(err, &wrong):
		fmt.Fprintf(os.Stderr, "hallmark-agent: %v; see `%s --help`\n", err, cmd.CommandPath())
		os.Exit(exitUsage)
	default:
		fmt.Fprintln(os.Stderr, "hallmark-agent:", err)
		os.Exit(exitFailed)
	}
}

// plug is what Ctrl-C or SIGTERM pulls.
type plug struct {
	ctx     context.Context // ends when it is pulled
	signals chan os.Signal
	quit    chan struct{}
	once    sync.Once
	done    chan struct{}
}

func newPlug() *plug {
	p := &plug{signals: make(chan os.Signal, 1), quit: make(chan struct{}), done: make(chan struct{})}
	var pull context.CancelFunc
	p.ctx, pull = context.WithCancel(context.Background())
	signal.Notify(p.signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer close(p.done)
		select {
		case <-p.signals:
			pull()
		case <-p.quit:
		}
	}()
	return p
}

// leave is for the end of this program's rule over the process: a signal from then on ends it at once. It reports whether one came before.
func (p *plug) leave() bool {
	signal.Stop(p.signals) // what came is in there, when this returns
	p.once.Do(func() { close(p.quit) })
	<-p.done
	return p.ctx.Err() != nil || len(p.signals) > 0
}

// usageError says what is wrong with a call that was begun.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// newRoot makes the tree of commands; begun is set when one of them starts to work: what fails before is a wrong call.
func newRoot(begun *bool, p *plug) *cobra.Command {
	root := &cobra.Command{
		Use:   "hallmark-agent",
		Short: "The device: its boot manager and its agent",
		Long: `The device: its boot manager and its agent, over a Linux board that a file describes, or a virtual one in a directory.

A virtual board is made blank with new; any board becomes a device at a programming station with factory, and lives while run runs.

Exit codes: 0 done, 1 failed, 2 the call was wrong, 75 the power was cut, 76 the machine has to be restarted, 77 no restart helps.`,
		Args: noSuch, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true, SilenceUsage: true, CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if wrong := noSuch(c, c.Flags().Args()); c == root && wrong != nil {
			return wrong
		}
		return err
	})
	for _, c := range []*cobra.Command{newBoard(), newFactory(), newRun(p), newInspect(), newParams(), newLocal(), newInstall(), newHistory(), newRecover(), newKeys(), newProbe()} {
		run := c.RunE
		c.RunE = func(cmd *cobra.Command, args []string) error {
			*begun = true
			return run(cmd, args)
		}
		c.Flags().SortFlags = false
		root.AddCommand(c)
	}
	return root
}

// noSuch says what is wrong with a command that is not there.
func noSuch(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	c.SuggestionsMinimumDistance = min(2, len(args[0])/2)
	if s := c.SuggestionsFor(args[0]); len(s) > 0 {
		return fmt.Errorf("unknown command %q for %q: did you mean %s?", args[0], c.CommandPath(), strings.Join(s, " or "))
	}
	return fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath())
}
