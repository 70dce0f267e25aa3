package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hallmark-iot/hallmark/internal/demo"
)

func newDemo(s streams) *cobra.Command {
	o := demo.Options{Out: s.out}
	var once bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch whole lives of devices, each step proven",
		Long: `Makes an instance, a programming station and devices on this machine, each a process of its own, and plays their lives: birth,
update, attack, healing, end. Nothing is left behind unless --dir names a directory.

With a terminal it stays up at the end, with a console, until Ctrl-C; without one, or with --once, it exits: 0 only if each step
did what it should.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out, ok := s.out.(*os.File); ok && !once && !o.JSON && term.IsTerminal(int(out.Fd())) {
				o.Stay = func(link string) error {
					fmt.Fprintf(s.out, "\nConsole, signed in once: %s\nCtrl-C ends everything.\n", link)
					<-cmd.Context().Done()
					return nil
				}
			}
			err := demo.Run(cmd.Context(), o)
			if errors.Is(err, demo.ErrFailed) && o.Dir == "" {
				return fmt.Errorf("%w; run again with --dir DIR to keep the logs", err)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Devices, "devices", 20, "how many devices")
	f.StringVar(&o.Dir, "dir", "", "directory to use and keep (default: a temporary one)")
	f.StringVar(&o.DB, "db", "", "use this empty PostgreSQL database, postgres://user@host/name, and not a file")
	f.BoolVar(&once, "once", false, "exit at the end")
	f.BoolVar(&o.JSON, "json", false, "print one JSON object a step, then a summary, and exit")
	f.StringVar(&o.Firmware, "firmware", "", "first version of the firmware: any file; executables are started, others installed as data")
	f.StringVar(&o.FirmwareNext, "firmware-next", "", "second version")
	return cmd
}
