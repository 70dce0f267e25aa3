// Command hallmark-agent is the device: its boot manager and its agent, over a virtual board in a directory.
//
//	hallmark-agent new --dir D --payload-bytes N   make a blank board
//	hallmark-agent factory --dir D --socket S      be made by a programming station
//	hallmark-agent run --dir D                     power on
//	hallmark-agent inspect --dir D                 say what is on it, powered off
//	hallmark-agent local --dir D status|nonce      talk to the running device
//	hallmark-agent local --dir D deliver FILE
//
// Exit codes: 0 done, 1 failed, 2 the call was wrong, 75 the power was cut.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/hallmark-iot/hallmark/agent/hw"
)

const (
	exitFailed   = 1
	exitUsage    = 2
	exitPowerCut = 75
)

const usage = `usage:
  hallmark-agent new --dir DIR                    make a blank virtual board
  hallmark-agent factory --dir DIR --socket PATH  be made by a programming station
  hallmark-agent run --dir DIR                    power on
  hallmark-agent inspect --dir DIR                say what is on it, powered off
  hallmark-agent local --dir DIR status           ask the running device how it stands
  hallmark-agent local --dir DIR nonce            get a nonce for a delivery by hand
  hallmark-agent local --dir DIR deliver FILE     bring it a delivery by hand
  hallmark-agent COMMAND --help                   all flags of a command

exit codes: 0 done, 1 failed, 2 the call was wrong, 75 the power was cut
`

// usageError says what is wrong with a call.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text + "; see hallmark-agent help" }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err == nil || errors.Is(err, errHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "hallmark-agent:", err)
	switch {
	case errors.Is(err, hw.ErrPowerCut):
		os.Exit(exitPowerCut)
	case errors.As(err, new(*usageError)):
		os.Exit(exitUsage)
	}
	os.Exit(exitFailed)
}

func command(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return &usageError{"no command"}
	}
	commands := map[string]func(context.Context, []string) error{
		"new": newBoard, "factory": factory, "run": run, "inspect": inspect, "local": local,
	}
	c, ok := commands[args[0]]
	switch {
	case ok:
		return c(ctx, args[1:])
	case args[0] == "help" || args[0] == "-h" || args[0] == "--help":
		fmt.Print(usage)
		return nil
	}
	return &usageError{fmt.Sprintf("no command %q", args[0])}
}
