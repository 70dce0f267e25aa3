package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/wire"
)

func (a *app) initCommand() *cobra.Command {
	var cfg station.Config
	cmd := &cobra.Command{
		Use: "init", Short: "Begin a station: make its record key", Args: cobra.NoArgs,
		Long: "Begin a station in --dir and make its record key.\n\nWith --pkcs11-module the keys live in that token, which must be initialised and hold nothing else.\nWithout it they live in a file encrypted under the PIN: good for trials, and the descriptor says so.",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if (cfg.Module == "") != (cfg.Token == "") {
				return fault.New(fault.Invalid, "station.module", "--pkcs11-module and --token-label belong together", "give both, or neither")
			}
			pin, err := a.pin(cmd)
			if err != nil {
				return err
			}
			defer clear(pin)
			if err := station.WriteConfig(a.dir, cfg); err != nil {
				return err
			}
			m, err := a.create(cfg, pin)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, m.Close()) }()
			s, err := station.Open(a.dir, m)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			id, info := s.ID(), s.Info()
			if !info.Templated {
				fmt.Fprintln(cmd.ErrOrStderr(), "note: module \"soft\": no hardware protects the keys of this station; the OEM sees that in its descriptor")
			}
			return a.say(cmd, map[string]string{"station": cfg.Name, "id": hex.EncodeToString(id[:]), "module": info.Name, "serial": info.Serial},
				"station "+cfg.Name+" ("+info.Name+", serial "+info.Serial+")", "fingerprint "+hex.EncodeToString(id[:]))
		},
	}
	cmd.Flags().StringVar(&cfg.Name, "name", "station", "the station's name, in descriptors")
	cmd.Flags().StringVar(&cfg.Module, "pkcs11-module", "", "path of a PKCS#11 library")
	cmd.Flags().StringVar(&cfg.Token, "token-label", "", "label of the token")
	return cmd
}

func (a *app) trustCommand() *cobra.Command {
	var change string
	cmd := &cobra.Command{
		Use: "trust OEM-FILE", Short: "Take orders from an OEM: pin its root and order keys, make its wrapping keys", Args: cobra.ExactArgs(1),
		Long: "Take orders from an OEM: pin its root and its order keys, and make its wrapping keys.\n\nWith --change, pin other order keys of an OEM that is pinned already. FINGERPRINT is what the OEM told by another way than the file came.\nAn open order that is signed by a key that is not there any more is not gone on with.",
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readFile(args[0], 64<<10)
			if err != nil {
				return err
			}
			oem, err := station.DecodeOEM(b)
			if err != nil {
				return err
			}
			return a.with(cmd, func(s *station.Station) error {
				pin := s.Trust
				if change != "" {
					pin = func(o station.OEM) error { return s.Change(o, change) }
				}
				if err := pin(oem); err != nil {
					return err
				}
				return a.say(cmd, map[string]string{"oem": oem.ID, "fingerprint": oem.Fingerprint()},
					"OEM "+oem.ID+" pinned", "fingerprint "+oem.Fingerprint()+" (compare it with the OEM by another way)")
			})
		},
	}
	cmd.Flags().StringVar(&change, "change", "", "pin other order keys of an OEM that is pinned; the fingerprint that the OEM told")
	return cmd
}

func (a *app) descriptorCommand() *cobra.Command {
	var oem, out string
	cmd := &cobra.Command{
		Use: "descriptor", Short: "Write the signed description of this station for an OEM", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(s *station.Station) error {
				d, err := s.Descriptor(oem, time.Now())
				if err != nil {
					return err
				}
				if err := writeOut(out, d); err != nil {
					return err
				}
				id := s.ID()
				return a.say(cmd, map[string]string{"file": out, "station": hex.EncodeToString(id[:])},
					"descriptor for "+oem+" in "+out, "fingerprint "+hex.EncodeToString(id[:])+" (tell it to the OEM by another way)")
			})
		},
	}
	cmd.Flags().StringVar(&oem, "oem", "", "the OEM it is for")
	cmd.Flags().StringVarP(&out, "out", "o", "station.hmd", "file to write")
	_ = cmd.MarkFlagRequired("oem")
	return cmd
}

func lines(s station.Summary) []string {
	state := "open until " + s.Expires.Format(time.RFC3339)
	if s.Closed {
		state = "closed"
	}
	return []string{
		fmt.Sprintf("order %s from %s: %d of %s %s, %s", s.Order, s.OEM, s.Quota, s.Product, s.Hardware, state),
		fmt.Sprintf("made %d, scrapped %d, tickets left %d", s.Made, s.Scrapped, s.Left),
	}
}

func (a *app) importCommand() *cobra.Command {
	return &cobra.Command{
		Use: "import ORDER-FILE", Short: "Check an order and take it in", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return fault.Newf(fault.NotFound, "file.missing", "%w", err).With("give the path of a file that is there")
			}
			defer f.Close()
			return a.with(cmd, func(s *station.Station) error {
				sum, err := s.Import(f, time.Now())
				if err != nil {
					return err
				}
				return a.say(cmd, sum, lines(sum)...)
			})
		},
	}
}

func (a *app) showCommand() *cobra.Command {
	return a.orderCommand("show", "Tell of an order", func(s *station.Station, id string) (station.Summary, error) { return s.Show(id) })
}

func (a *app) closeCommand() *cobra.Command {
	return a.orderCommand("close", "End an order: void its tickets, destroy its key, write the job-end certificate",
		func(s *station.Station, id string) (station.Summary, error) { return s.CloseOrder(id, time.Now()) })
}

func (a *app) orderCommand(name, short string, do func(*station.Station, string) (station.Summary, error)) *cobra.Command {
	return &cobra.Command{
		Use: name + " ORDER", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(s *station.Station) error {
				sum, err := do(s, args[0])
				if err != nil {
					return err
				}
				return a.say(cmd, sum, lines(sum)...)
			})
		},
	}
}

func (a *app) exportCommand() *cobra.Command {
	var out string
	var after uint32
	cmd := &cobra.Command{
		Use: "export ORDER", Short: "Write the records of an order, sealed to the OEM", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(s *station.Station) error {
				if out == "" {
					out = args[0] + ".hmr"
				}
				e, err := s.Export(args[0], out, after, time.Now())
				if err != nil {
					return err
				}
				said := []string{"records of " + args[0] + " in " + out}
				if e.More {
					said = append(said, fmt.Sprintf("it is full: export the rest with --after %d into another file", e.To))
				}
				return a.say(cmd, e, said...)
			})
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "file to write (default ORDER.hmr)")
	cmd.Flags().Uint32Var(&after, "after", 0, "only the records behind this one")
	return cmd
}

func (a *app) runCommand() *cobra.Command {
	var spec station.RunSpec
	var from pieces
	var report string
	cmd := &cobra.Command{
		Use: "run ORDER", Short: "Make devices", Args: cobra.ExactArgs(1),
		Long: "Make devices of an order.\n\nEither --device-exec starts one process for each device, e.g.\n  --device-exec 'hallmark-agent factory --dir {dir} --socket {socket}' --devices-dir devices\nor --listen opens a unix socket that devices connect to, or --fixture has the\nplaces of a fixture and the commands of its debug probes.",
		RunE: func(cmd *cobra.Command, args []string) error {
			spec.Order = args[0]
			src, closing, err := from.open(cmd, &spec)
			if err != nil {
				return err
			}
			defer closing()
			a.sessions = max(spec.Parallel, 4)
			return a.with(cmd, func(s *station.Station) error { return a.run(cmd, s, spec, src, report) })
		},
	}
	f := cmd.Flags()
	f.IntVarP(&spec.Devices, "devices", "n", 1, "how many to make")
	f.IntVar(&spec.Parallel, "parallel", 1, "pieces on the line at once; with --fixture all its places")
	f.StringVar(&spec.Operator, "operator", "", "who works at the station, in the records")
	f.StringVar(&spec.Line, "line", "", "the line, in the records")
	f.StringVar(&from.exec, "device-exec", "", "command that is a device; {dir} and {socket} are replaced")
	f.StringVar(&from.dir, "devices-dir", "devices", "where devices made by --device-exec live")
	f.StringVar(&from.listen, "listen", "", "unix socket that devices connect to")
	f.StringVar(&from.fixture, "fixture", "", "file of a fixture with debug probes, for chips that run nothing yet: see docs/factory.md")
	f.BoolVar(&spec.Rework, "rework", false, "take pieces again that failed before their fuses were burnt; each takes another ticket")
	f.BoolVar(&spec.First, "first-article", false, "make one piece to be inspected, and a report of it")
	f.StringVar(&report, "report", "", "file for the report of the first article (default ORDER-first-article.html)")
	return cmd
}

// told is a run's report for people.
func told(rep station.Report) []string {
	out := []string{fmt.Sprintf("order %s: made %d, scrapped %d, tickets left %d", rep.Order, rep.Made, rep.Scrapped, rep.Left)}
	for _, at := range slices.Sorted(maps.Keys(rep.Places)) {
		c := rep.Places[at]
		out = append(out, fmt.Sprintf("  place %s: made %d, scrapped %d, refused %d", at, c.Made, c.Scrapped, c.Refused))
	}
	for _, r := range rep.Pieces {
		out = append(out, fmt.Sprintf("  refused at place %s: %s", r.Place, r.Reason))
	}
	return out
}

// pieces says where pieces come from.
type pieces struct{ exec, dir, listen, fixture string }

func (p pieces) open(cmd *cobra.Command, spec *station.RunSpec) (src station.Source, closing func(), err error) {
	n := 0
	for _, s := range []string{p.exec, p.listen, p.fixture} {
		if s != "" {
			n++
		}
	}
	closing = func() {}
	switch {
	case n != 1:
		return nil, nil, fault.New(fault.Invalid, "run.source", "say where pieces come from", "give one of --device-exec, --listen and --fixture")
	case p.fixture != "":
		f, err := station.ReadFixture(p.fixture)
		if err != nil {
			return nil, nil, err
		}
		g := station.NewGang(f)
		if spec.Gang = true; !cmd.Flags().Changed("parallel") {
			spec.Parallel = g.Places()
		}
		return g, closing, nil
	case p.listen != "":
		l, err := station.Listen(cmd.Context(), p.listen)
		if err != nil {
			return nil, nil, err
		}
		return l, func() { _ = l.Close() }, nil // the run's own error matters
	}
	argv, err := station.ParseCommand(p.exec)
	if err != nil {
		return nil, nil, fault.Newf(fault.Invalid, "run.source", "%w", err).With("give a file of devices, or a programmer")
	}
	dir, err := filepath.Abs(p.dir)
	if err != nil {
		return nil, nil, err
	}
	return &station.Spawner{Command: argv, Dir: dir, Stderr: cmd.ErrOrStderr()}, closing, nil
}

func (a *app) run(cmd *cobra.Command, s *station.Station, spec station.RunSpec, src station.Source, report string) error {
	if !s.Info().Templated {
		fmt.Fprintln(cmd.ErrOrStderr(), "note: module \"soft\": the order key is in this process's memory")
	}
	var first wire.Record
	n := 0
	spec.Progress = func(r wire.Record) {
		n++
		first = r
		line := fmt.Sprintf("[%d/%d] %s %s", n, spec.Devices, r.Device, r.Outcome)
		if r.Reason != "" {
			line += fmt.Sprintf(": %q", r.Reason)
		}
		fmt.Fprintln(cmd.ErrOrStderr(), line)
	}
	rep, err := s.Run(cmd.Context(), spec, src)
	if err == nil && spec.First {
		return a.reportFirst(cmd, s, first, report)
	}
	if rep.Made+rep.Scrapped+rep.Refused > 0 || err == nil {
		err = errors.Join(err, a.say(cmd, rep, told(rep)...))
	}
	return err
}
