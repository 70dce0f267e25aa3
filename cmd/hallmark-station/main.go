// Command hallmark-station is the programming centre's program: it takes in an OEM's order, makes devices, and gives back records.
//
// Stage 2, birth. It needs no network. Keys live in a PKCS#11 module, or, for trials, in a file encrypted under the PIN. The PIN comes
// from a file descriptor or the terminal, never from the command line.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fault"
)

func main() { os.Exit(Main()) }

// Main runs the program and gives its exit status: 0, 1 for a failure, 2 for a refusal, 3 for a limit that was reached.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd, asJSON := command()
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var f *fault.Fault
	if *asJSON {
		out := map[string]string{"error": err.Error()}
		if errors.As(err, &f) {
			out["code"], out["text"], out["remedy"] = f.Code, f.Text, f.Remedy
		}
		_ = json.NewEncoder(os.Stderr).Encode(out)
	} else {
		fmt.Fprintln(os.Stderr, "hallmark-station:", err)
		if errors.As(err, &f) {
			fmt.Fprintln(os.Stderr, "code:", f.Code)
		}
	}
	switch fault.KindOf(err) {
	case fault.Denied:
		return 2
	case fault.Exhausted:
		return 3
	case fault.Internal, fault.Invalid, fault.NotFound, fault.Conflict, fault.Unavailable:
	}
	return 1
}

func command() (*cobra.Command, *bool) {
	a := &app{}
	root := &cobra.Command{
		Use: "hallmark-station", Short: "Make devices from an OEM's order", SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	f := root.PersistentFlags()
	f.StringVar(&a.dir, "dir", "", "the station's directory")
	f.IntVar(&a.pinFD, "pin-fd", -1, "file descriptor to read the PIN from; without it, the terminal is asked")
	f.BoolVar(&a.json, "json", false, "print JSON")
	if err := root.MarkPersistentFlagRequired("dir"); err != nil {
		panic(err) // the flag is three lines up
	}
	root.AddCommand(a.initCommand(), a.trustCommand(), a.descriptorCommand(), a.importCommand(), a.runCommand(), a.showCommand(), a.inspectCommand(),
		a.exportCommand(), a.closeCommand())
	return root, &a.json
}
