// Command hallmark-agent is the device: its boot manager and its agent, over a virtual board in a directory.
//
//	hallmark-agent new --dir D --flash-bytes N     make a blank board
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

var errUsage = errors.New("usage: hallmark-agent new|factory|run|inspect|local --dir DIR …; see the package's documentation")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	switch {
	case err == nil:
	case errors.Is(err, hw.ErrPowerCut):
		fmt.Fprintln(os.Stderr, "hallmark-agent:", err)
		os.Exit(exitPowerCut)
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitUsage)
	default:
		fmt.Fprintln(os.Stderr, "hallmark-agent:", err)
		os.Exit(exitFailed)
	}
}

func command(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	commands := map[string]func(context.Context, []string) error{
		"new": newBoard, "factory": factory, "run": run, "inspect": inspect, "local": local,
	}
	c, ok := commands[args[0]]
	if !ok {
		return errUsage
	}
	return c(ctx, args[1:])
}
