// Package cli is the command line of hallmark: noun, verb, flags.
//
// Over all stages. Commands that change a running instance are API calls, like the console's; only what must work without one
// (init, serve, verify, offline approval) touches files. Exit codes: 0 done, 1 failed, 2 the call was wrong, 3 done in part,
// 4 done and found what should not be.
package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
	exitPart   = 3
	exitAlert  = 4
)

// usageError marks a call that was wrong, as opposed to work that failed.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// partError marks work that was done in part.
type partError struct{ error }

// version is what --version says: the linker sets it in packages (scripts/package.sh).
var version = "0.0.0-dev"

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// Main runs one command and gives its exit code.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // who asks twice is not kept waiting
	begun := false
	root := newRoot(streams{in: in, out: out, err: errOut}, &begun)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if _, ok := errors.AsType[usageError](err); ok || !begun {
		fmt.Fprintf(errOut, "hallmark: %s; see `%s --help`\n", paragraph(err.Error()), cmd.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(errOut, "hallmark: %s%s\n", paragraph(err.Error()), code(err))
	if _, ok := errors.AsType[partError](err); ok {
		return exitPart
	}
	if _, ok := errors.AsType[alertError](err); ok {
		return exitAlert
	}
	return exitFailed
}

// code gives the server's code for an error, by which it is found in the documentation.
func code(err error) string {
	if c := client.Code(err); c != "" {
		return " [" + c + "]"
	}
	return ""
}

// newRoot makes the tree of commands; begun is set when one of them starts to work: what fails before is a wrong call.
func newRoot(s streams, begun *bool) *cobra.Command {
	root := &cobra.Command{
		Use:           "hallmark",
		Version:       version,
		Short:         "Identity and proof for IoT devices, from factory to disposal",
		SilenceErrors: true,
		SilenceUsage:  true,
		Long: `Identity and proof for IoT devices, from factory to disposal.

Commands over a running instance take its address from --url or HALLMARK_URL and a token from --token-file or HALLMARK_TOKEN, else
from the current context: see hallmark context.
Exit codes: 0 done, 1 failed, 2 the call was wrong, 3 done in part, 4 done and found what should not be.`,
	}
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if args := c.Flags().Args(); c.HasSubCommands() && len(args) > 0 {
			return noSuch(c, args)
		}
		return err
	})
	local, remote := &cobra.Group{ID: "local", Title: "On this machine:"}, &cobra.Group{ID: "remote", Title: "Over a running instance:"}
	root.AddGroup(local, remote)
	add := func(g *cobra.Group, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = g.ID
		}
		root.AddCommand(cmds...)
	}
	add(local, newDemo(s), newInit(s), newServe(s), newLog(s), newWitness(s), newApprove(s), newArtifact(s), newCeremony(s), newRecover(s), newOIDC(s), newContext(s), newVerify(s), newSimulate(s), newMan(s))
	add(remote, nouns(s)...)
	root.InitDefaultCompletionCmd()
	walk(root, func(c *cobra.Command) { finish(c, begun) })
	return root
}

// Commands is the whole tree, for those who write about it; nothing in it is run.
func Commands() *cobra.Command {
	begun := false
	return newRoot(streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard}, &begun)
}

func walk(c *cobra.Command, fn func(*cobra.Command)) {
	fn(c)
	for _, sub := range c.Commands() {
		walk(sub, fn)
	}
}

// finish gives a command what all of them have: its flags in the order they were written, and, when it only holds others, an
// error for what is none of them.
func finish(c *cobra.Command, begun *bool) {
	c.Flags().SortFlags, c.PersistentFlags().SortFlags, c.LocalFlags().SortFlags = false, false, false
	if c.HasSubCommands() {
		c.Args, c.DisableFlagsInUseLine = cobra.ArbitraryArgs, true // noSuch says what is wrong with them
		c.RunE = func(c *cobra.Command, args []string) error { return noSuch(c, args) }
		return
	}
	run := c.RunE
	if run == nil { // completion and help are cobra's own
		return
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		*begun = true
		return run(c, args)
	}
}

func noSuch(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		if c.HasParent() {
			c.SetOut(c.ErrOrStderr())
		}
		if err := c.Help(); err != nil || !c.HasParent() {
			return err
		}
		return usagef("%s: say which command", c.CommandPath())
	}
	c.SuggestionsMinimumDistance = min(2, len(args[0])/2)
	if s := c.SuggestionsFor(args[0]); len(s) > 0 {
		return usagef("unknown command %q for %q: did you mean %s?", args[0], c.CommandPath(), strings.Join(s, " or "))
	}
	return usagef("unknown command %q for %q", args[0], c.CommandPath())
}

// printJSON writes v for machines.
func printJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(inert(b.Bytes()))
	return err
}
